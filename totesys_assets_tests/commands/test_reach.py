"""Reaching the databases from outside: what `totesys url` prints opens them while `totesys serve` keeps them up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
import sqlalchemy

from totesys_assets import engine
from totesys_assets.databases import databases, embedded
from totesys_assets.local.postgres_errors import EmbeddedError
from totesys_assets.settings import Settings
from totesys_assets_tests.conftest import PostgresServer

TOTESYS = str(Path(sys.executable).with_name("totesys"))


@pytest.fixture(scope="module")
def home(scratch: Path) -> Path:
    """A home whose embedded databases were filled."""
    folder = scratch / "reach"
    with databases(Settings.from_env({"TOTESYS_HOME": str(folder)}), scale=0.01):
        pass
    return folder


def run(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TOTESYS_HOME": str(home), **variables}
    return subprocess.run([TOTESYS, *arguments], env=env, capture_output=True, text=True, check=False)


def test_what_url_prints_opens_the_databases_that_serve_keeps_up(home: Path) -> None:
    env = {**os.environ, "TOTESYS_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([TOTESYS, "serve"], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        shown = [process.stdout.readline().split() for _ in range(2)]
        for name, database in (("warehouse", "warehouse"), ("totesys", "totesys"), ("dagster", "dagster")):
            printed = run(home, "url", name, "--password")
            assert printed.returncode == 0, printed.stderr
            assert printed.stderr == ""
            with psycopg.connect(printed.stdout.strip()) as connection:
                assert connection.execute("SELECT current_database()").fetchone() == (database,)
        open_ = run(home, "url").stdout.strip()
        secret = (home / "postgres" / "warehouse" / "password").read_text()
        assert open_ == run(home, "url", "--password").stdout.strip().replace(f":{secret}@", "@")
        assert shown[0] == ["warehouse", open_]
        assert secret not in open_
        jdbc = run(home, "url", "--jdbc").stdout.strip()
        assert jdbc == f"jdbc:{open_.replace('totesys@', '')}?user=totesys"
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert not any(server.running() for server in embedded(Settings.from_env({"TOTESYS_HOME": str(home)})))
    asleep = run(home, "url")
    assert asleep.stdout.strip() == open_
    assert "totesys serve starts it" in asleep.stderr


def test_a_terminal_that_is_closed_ends_serve_in_order(home: Path) -> None:
    env = {**os.environ, "TOTESYS_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([TOTESYS, "serve"], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert not any(server.running() for server in embedded(Settings.from_env({"TOTESYS_HOME": str(home)})))


def test_no_variable_of_libpq_keeps_the_platform_out_of_its_embedded_servers(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [(each.envvar or b"").decode() for each in psycopg.pq.Conninfo.get_defaults()]
    variables = {**dict.fromkeys(filter(None, names), "nonsense"), "PGREQUIRESSL": "1"}
    assert {"PGSERVICE", "PGREQUIREAUTH", "PGCONNECT_TIMEOUT", "PGSSLCERTMODE"} <= variables.keys()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with databases(Settings.from_env({"TOTESYS_HOME": str(home)})) as urls:
        assert urls.dagster is not None
        for url in (urls.totesys, urls.warehouse, urls.dagster):
            psycopg.connect(url).close()
            of_dagster = sqlalchemy.create_engine(url)
            of_dagster.connect().close()
            of_dagster.dispose()
            duckdb = engine.connect()
            engine.attach(duckdb, "server", url, variable="URL")
            engine.close(duckdb)
    assert os.environ["PGSERVICE"] == "nonsense"


def test_where_there_are_no_embedded_servers_it_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    for command in (["url"], ["serve"]):
        result = run(tmp_path / "none", *command)
        assert result.returncode == 1
        assert "There is no platform in" in result.stderr
    assert not (tmp_path / "none").exists()


def test_a_url_of_ones_own_is_printed_without_its_password_unless_that_is_asked_for(tmp_path: Path) -> None:
    own = "postgresql://me%40here:se%2Fcret@one,two:5433/dw?sslmode=verify-full&application_name=x"
    plain = run(tmp_path, "url", WAREHOUSE_URL=own)
    assert plain.stdout.strip() == ("postgresql://me%40here@one,two:5433/dw?application_name=x&sslmode=verify-full")
    whole = run(tmp_path, "url", "--password", WAREHOUSE_URL=own).stdout.strip()
    assert "me%40here:se%2Fcret@one,two:5433/" in whole
    jdbc = run(tmp_path, "url", "--jdbc", WAREHOUSE_URL=own).stdout.strip()
    assert jdbc == "jdbc:postgresql://one,two:5433/dw?user=me%40here&sslmode=verify-full"


@pytest.mark.thorough
def test_with_urls_of_ones_own_a_server_is_started_only_for_dagsters_records_and_that_is_said(
    scratch: Path, trade_template: str, postgres_server: PostgresServer
) -> None:
    folder = scratch / "own"
    source, warehouse = postgres_server.template("reach_totesys", trade_template), postgres_server.database()
    own = {
        "TOTESYS_URL": source,
        "WAREHOUSE_URL": warehouse,
        "TOTESYS_ALLOW_SUPERUSER": "1",
        "TOTESYS_FIRST_DAY": "2024-08-19",
        "LAKE_URI": str(scratch / "own-lake"),
    }
    first = run(folder, "refresh", **own)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Starting an embedded PostgreSQL for Dagster's records" in first.stdout
    assert not (folder / "postgres" / "totesys").exists()
    log = folder / "postgres" / "warehouse" / "server.log"
    starts = log.read_text().count("starting PostgreSQL")
    for command in (["refresh"], ["status"], ["sql", "SELECT 1"]):
        again = run(folder, *command, **own)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "embedded" not in again.stdout + again.stderr
    assert log.read_text().count("starting PostgreSQL") == starts


def test_a_disk_with_too_little_room_is_said_before_anything_is_made(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_env({"TOTESYS_HOME": str(scratch / "small")})
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=120_000_000))
    with pytest.raises(EmbeddedError, match=r"has 120 MB free: .* need about 300 MB"), databases(settings):
        pytest.fail("there is no room")
    assert not (scratch / "small" / "postgres").exists()


def test_what_fails_because_a_servers_disk_is_full_says_that(home: Path) -> None:
    settings = Settings.from_env({"TOTESYS_HOME": str(home)})

    def fail(said_by_the_server: str) -> None:
        with databases(settings):
            log = home / "postgres" / "warehouse" / "server.log"
            log.write_text(log.read_text() + said_by_the_server)
            raise psycopg.OperationalError("connection refused")

    with pytest.raises(EmbeddedError, match=r"The disk of .* is full"):
        fail('PANIC:  could not write to file "pg_wal/xlogtemp.77": No space left on device\n')
    with pytest.raises(psycopg.OperationalError):  # what the log said before is past
        fail("")
