"""`totesys provision`: from an empty server to one that the platform can start on, as an admin that is no superuser."""

from __future__ import annotations

import itertools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from click.testing import CliRunner
from dagster import DagsterInstance
from dagster._core.storage.sql import run_alembic_downgrade
from dagster._core.test_utils import create_run_for_test
from dagster_postgres.run_storage.run_storage import __file__ as dagster_postgres_file
from dagster_postgres.utils import create_pg_connection, pg_alembic_config
from psycopg import sql
from psycopg.conninfo import make_conninfo

from totesys_assets import provision as work
from totesys_assets.automation.schedules import range_tags
from totesys_assets.commands import main
from totesys_assets.dagster_home import instance_config
from totesys_assets.dagster_internals.storage import pooled_engine
from totesys_assets.local import sql_files
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import PostgresServer, make_platform
from totesys_assets_tests.dagster_internals.test_dagster_storage import job
from totesys_assets_tests.dagster_internals.test_purge import said_by_the_ui
from totesys_assets_tests.test_roles import ACCESS, denied, execute, rights
from totesys_assets_tests.webserver.test_webserver import LIMIT, ask, serving

DAGSTER = "TOTESYS_DAGSTER_URL"
OF_DAGSTER = (DAGSTER, work.VIEWER)
MASTER, MASTER_PASSWORD = "master", "the master's own $ecret"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(scratch: Path) -> Iterator[EmbeddedServer]:
    """A server that logs every statement, with an admin as a managed server has one: no superuser."""
    made = EmbeddedServer(scratch / "provisioned", {"fsync": "off", "log_statement": "all", "log_connections": "all"})
    made.start()
    with psycopg.connect(made.url("postgres"), autocommit=True) as connection:
        connection.execute("SET log_statement = 'none'")
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}").format(
                sql.Identifier(MASTER), sql.Literal(MASTER_PASSWORD)
            )
        )
    yield made
    made.stop()


@dataclass
class Stage:
    """The environment of one provisioning, with names of its own on the server, and what came of it."""

    server: EmbeddedServer
    patch: pytest.MonkeyPatch
    number: int = field(default_factory=lambda: next(_numbers))
    passwords: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        host = self.server.url("postgres").rpartition("@")[2]
        self.patch.setenv(work.ADMIN, f"postgresql://{host}")
        self.patch.setenv("PGUSER", MASTER)
        self.patch.setenv("PGPASSWORD", MASTER_PASSWORD)
        self.rotate()

    @property
    def roles(self) -> dict[str, str]:
        return {
            work.OWNER: f'The "owner" {self.number}',
            work.LOADER: f"loader_{self.number}",
            work.READER: f"reader_{self.number}",
            DAGSTER: f"dagster's {self.number}",
            work.VIEWER: f'The "viewer" {self.number}',
        }

    @property
    def databases(self) -> tuple[str, str]:
        return f"Ware house {self.number}", f"dagster_{self.number}"

    def rotate(self) -> dict[str, str]:
        """New passwords for all roles; returns the URLs with the old ones."""
        old = {variable: os.environ.get(variable, "") for variable in self.roles}
        for variable, role in self.roles.items():
            self.passwords[variable] = f"p%/:@' {role} {os.urandom(6).hex()}"
            database = self.databases[variable in OF_DAGSTER]
            host = self.server.url("postgres").rpartition("@")[2].partition("/")[0]
            login = f"{quote(role, safe='')}:{quote(self.passwords[variable], safe='')}"
            self.patch.setenv(variable, f"postgresql://{login}@{host}/{quote(database)}")
        return old

    def url(self, variable: str) -> str:
        return os.environ[variable]

    def superuser(self, variable: str = work.LOADER) -> str:
        return self.server.url(self.databases[variable == DAGSTER])

    def provision(self) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["provision"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, " ".join(result.output.split())

    def is_complete(self) -> None:
        """All that the platform needs is there, and nothing that it must not have."""
        assert Warehouse(self.url(work.LOADER)).migrate() is False
        assert rights(self.superuser(), self.roles[work.LOADER])["fact_payment"] == {"SELECT", "INSERT"}
        assert rights(self.superuser(), self.roles[work.READER])["fact_payment"] == {"SELECT"}
        for variable in OF_DAGSTER:
            assert execute(self.url(variable), "SELECT count(*) FROM runs") == [(0,)]
        for variable in self.roles:
            other = self.databases[variable not in OF_DAGSTER]
            with pytest.raises(psycopg.OperationalError, match=f'permission denied for database "{other}"'):
                psycopg.connect(make_conninfo(self.url(variable), dbname=other))


@pytest.fixture
def stage(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(server, monkeypatch)


def tables(url: str) -> list[tuple[object, ...]]:
    """Dagster's tables: their columns and indexes, and which migration they have."""
    return execute(
        url,
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' "
        "UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
        "UNION ALL SELECT 'alembic', version_num, NULL FROM alembic_version ORDER BY 1, 2, 3",
    )


def refused(url: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def state(stage: Stage) -> list[object]:
    """Who owns and may do what in both databases, without the passwords."""
    return [execute(stage.superuser(variable), ACCESS) for variable in (work.LOADER, DAGSTER)]


def test_an_empty_server_becomes_one_that_the_platform_works_on(
    stage: Stage, server: EmbeddedServer, trade_template: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    code, text = stage.provision()
    assert code == 0, text
    stage.is_complete()
    warehouse, dagster = stage.databases
    assert f"database {warehouse}: created, closed to PUBLIC" in text
    assert f"database {dagster}: created, closed to PUBLIC" in text
    for variable, role in stage.roles.items():
        assert f"role {role}: its password is that of {variable}" in text
    assert "logins: all of them work" in text
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    with make_platform(source, stage.url(work.LOADER), tmp_path, dagster=stage.url(DAGSTER)) as platform:
        platform.refresh()
        assert platform.look().stale == {}
        assert platform.instance.get_runs_count() == 1
    assert execute(stage.url(work.READER), "SELECT units_sold FROM current_sales_order") == [(1001,)]
    for statement in ("DELETE FROM fact_payment", "UPDATE fact_payment SET paid = true", "TRUNCATE fact_payment"):
        denied(stage.url(work.LOADER), statement)


def test_done_again_it_changes_nothing(stage: Stage) -> None:
    assert stage.provision()[0] == 0
    before = state(stage)
    code, text = stage.provision()
    assert (code, text.count("is there, closed to PUBLIC"), "schema public is up to date" in text) == (0, 2, True)
    assert state(stage) == before
    stage.is_complete()


def test_a_new_password_in_a_url_is_the_one_that_is_taken_from_then_on(stage: Stage) -> None:
    assert stage.provision()[0] == 0
    old = stage.rotate()
    for variable in stage.roles:
        refused(stage.url(variable))
    assert stage.provision()[0] == 0
    for url in old.values():
        refused(url)
    stage.is_complete()


def test_two_at_once_do_it_one_after_the_other(stage: Stage) -> None:
    wanted = work.Wanted.from_env("public")
    said: list[list[str]] = [[], []]
    failed: list[BaseException] = []

    def one(lines: list[str]) -> None:
        try:
            work.provision(wanted, sql_files.sql_folder(), lines.append)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=[lines]) for lines in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    first, second = sorted(said, key=lambda lines: "created" not in lines[0])
    assert [line.partition(", ")[0].partition(": ")[2] for line in (first[0], second[0])] == ["created", "is there"]
    stage.is_complete()


class CutShort(BaseException):
    """As when the task is stopped."""


@pytest.mark.parametrize(
    "step", [step if step % 3 == 0 else pytest.param(step, marks=pytest.mark.thorough) for step in range(11)]
)
def test_cut_short_anywhere_it_is_completed_by_the_next(stage: Stage, step: int) -> None:
    steps = itertools.count()

    def cut(whole: Callable[..., object]) -> Callable[..., object]:
        def cut_or_whole(*arguments: object, **named: object) -> object:
            if next(steps) == step:
                raise CutShort
            return whole(*arguments, **named)

        return cut_or_whole

    with stage.patch.context() as patch:
        for name in ("_create_database", "run_file", "_set_password", "_migrate_dagster"):
            patch.setattr(work, name, cut(getattr(work, name)))
        patch.setattr(Warehouse, "migrate", cut(Warehouse.migrate))
        with pytest.raises(CutShort):
            work.provision(work.Wanted.from_env("public"), sql_files.sql_folder(), lambda _: None)
    assert stage.provision()[0] == 0
    stage.is_complete()


def test_no_password_is_in_what_is_said_or_in_the_servers_log(stage: Stage, server: EmbeddedServer) -> None:
    code, text = stage.provision()
    assert code == 0
    old = dict(stage.passwords)
    stage.rotate()
    text += stage.provision()[1]
    log = (server.folder / "server.log").read_text(encoding="utf-8")
    assert f'ALTER ROLE "{stage.roles[work.LOADER]}" PASSWORD' in log  # it does log statements
    for password in (*old.values(), *stage.passwords.values(), MASTER_PASSWORD):
        for written in (password, quote(password, safe="")):
            assert written not in text
            assert written not in log
    assert log.count("SCRAM-SHA-256$") >= 8


@pytest.mark.parametrize("how", ["right", "wrong password", "nobody there"])
def test_an_admin_that_does_not_get_in_is_said_in_a_sentence(stage: Stage, how: str) -> None:
    if how == "wrong password":
        stage.patch.setenv("PGPASSWORD", "not the master's")
        expected = 'WAREHOUSE_ADMIN_URL cannot be used: .* password authentication failed for user "master"'
    elif how == "nobody there":
        stage.patch.setenv(work.ADMIN, "postgresql://127.0.0.1:1/postgres")
        expected = "WAREHOUSE_ADMIN_URL cannot be used: .* Connection refused"
    else:
        execute(stage.server.url("postgres"), f"CREATE ROLE weak_{stage.number} LOGIN PASSWORD 'weak'")
        stage.patch.setenv("PGUSER", f"weak_{stage.number}")
        stage.patch.setenv("PGPASSWORD", "weak")
        expected = "lacks a right: permission denied to create database. It must have CREATEDB and CREATEROLE"
    code, text = stage.provision()
    assert code == 1
    assert re.search(expected, text), text
    assert "not the master's" not in text


def test_a_database_of_somebody_else_is_left_alone(stage: Stage) -> None:
    execute(stage.server.url("postgres"), f'CREATE DATABASE "{stage.databases[0]}"')
    code, text = stage.provision()
    assert code == 1
    assert (
        f"Database {stage.databases[0]} belongs to totesys, of which master, the login of WAREHOUSE_ADMIN_URL" in text
    )


def test_an_older_version_of_dagsters_tables_is_migrated_and_keeps_its_runs(stage: Stage, tmp_path: Path) -> None:
    assert stage.provision()[0] == 0
    newest = tables(stage.url(DAGSTER))
    engine = pooled_engine(stage.url(DAGSTER).replace("postgresql://", "postgresql+psycopg2://", 1))
    with make_platform(
        stage.url(work.LOADER), stage.url(work.LOADER), tmp_path, dagster=stage.url(DAGSTER)
    ) as platform:
        run_id = create_run_for_test(platform.instance).run_id
    with create_pg_connection(engine) as connection:
        run_alembic_downgrade(pg_alembic_config(dagster_postgres_file), connection, "-3")
    engine.dispose()
    assert tables(stage.url(DAGSTER)) != newest
    assert stage.provision()[0] == 0
    assert tables(stage.url(DAGSTER)) == newest
    assert execute(stage.url(DAGSTER), "SELECT run_id FROM runs") == [(run_id,)]


def test_without_a_reader_the_role_is_made_and_nobody_can_log_in_as_it(stage: Stage) -> None:
    stage.patch.delenv(work.READER)
    assert stage.provision()[0] == 0
    role = "warehouse_reader"
    assert rights(stage.superuser(), role)["fact_payment"] == {"SELECT"}
    assert execute(stage.superuser(), f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'") == [(None,)]


def test_a_viewer_of_dagster_reads_all_of_it_also_what_comes_later_and_writes_nothing(stage: Stage) -> None:
    assert stage.provision()[0] == 0
    viewer, role = stage.url(work.VIEWER), sql.Identifier(stage.roles[work.VIEWER])
    execute(stage.url(DAGSTER), "CREATE TABLE comes_later AS SELECT 1 AS value")
    assert execute(viewer, "SELECT value FROM comes_later") == [(1,)]
    write, writable = "INSERT INTO kvs (key, value) VALUES ('a', 'b')", "SET transaction_read_only = off"
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        execute(viewer, write)
    denied(viewer, write, before=writable)
    denied(viewer, "CREATE TABLE mine (x int)", before=writable)
    execute(stage.superuser(DAGSTER), sql.SQL("GRANT ALL ON kvs TO {}").format(role))
    assert stage.provision()[0] == 0
    denied(viewer, write, before=writable)


def test_a_read_only_webserver_shows_runs_with_the_viewer_s_login(stage: Stage, tmp_path: Path) -> None:
    assert stage.provision()[0] == 0
    (tmp_path / "dagster.yaml").write_text(instance_config(), encoding="utf-8")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        run_id = create_run_for_test(instance).run_id
    stage.patch.setenv("DAGSTER_HOME", str(tmp_path))
    stage.patch.setenv(DAGSTER, stage.url(work.VIEWER))
    with serving("--read-only", folder=tmp_path) as ui:
        status, text = ask(ui, "{ runsOrError { ... on Runs { results { id } } } }")
        assert (status, run_id in text) == (200, True)
        assert ask(ui, "{ instance { daemonHealth { allDaemonStatuses { healthy } } } }")[0] == 200
        status, text = ask(ui, LIMIT.format(key="viewer"))
        assert "data" in text
    assert execute(stage.superuser(DAGSTER), "SELECT count(*) FROM concurrency_limits") == [(0,)]


def test_a_viewer_is_shown_of_assets_what_an_operator_is(stage: Stage, tmp_path: Path) -> None:
    assert stage.provision()[0] == 0
    (tmp_path / "dagster.yaml").write_text(instance_config(), encoding="utf-8")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        job.execute_in_process(instance=instance, tags=range_tags("2025-01-06", "2025-01-08"))
    with stage.patch.context() as patch:
        patch.setenv(DAGSTER, stage.url(work.VIEWER))
        shown = said_by_the_ui(tmp_path)
    assert shown == said_by_the_ui(tmp_path)
    assert 3 in [(each["partitionStats"] or {}).get("numMaterialized") for each in shown["assetNodes"]]


@pytest.mark.parametrize(
    ("variable", "change", "expected"),
    [
        (work.ADMIN, "", "WAREHOUSE_ADMIN_URL is not a PostgreSQL URL"),
        (work.OWNER, "mysql://x:secret@y/z", "WAREHOUSE_OWNER_URL is not a PostgreSQL URL"),
        (work.OWNER, "postgresql://owner@host/db", "WAREHOUSE_OWNER_URL names no password"),
        (work.LOADER, "postgresql://loader:secret@host/another", "name different databases: they are one warehouse"),
        (DAGSTER, "postgresql://dagster:secret@host/{warehouse}", "give Dagster one of its own"),
        (work.VIEWER, "postgresql://viewer:secret@host/another", "both are Dagster's"),
        (work.LOADER, "postgresql://{reader}:secret@host/{warehouse}", "log in as the same role"),
        (work.LOADER, "postgresql://master:secret@host/{warehouse}", "log in as the same role, master"),
    ],
)
def test_urls_that_do_not_fit_together_are_refused_before_anything_is_made(
    stage: Stage, variable: str, change: str, expected: str
) -> None:
    known = {"warehouse": quote(stage.databases[0]), "reader": quote(stage.roles[work.READER])}
    stage.patch.setenv(variable, change.format(**known))
    code, text = stage.provision()
    assert code == 1
    assert expected in text
    assert "secret" not in text
    query = sql.SQL("SELECT count(*) FROM pg_database WHERE datname = {}").format(sql.Literal(stage.databases[0]))
    assert execute(stage.server.url("postgres"), query) == [(0,)]


def test_the_sql_files_are_found_in_the_checkout_and_beside_the_environment(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (sql_files.sql_folder() / "warehouse_roles.sql").is_file()
    (tmp_path / "venv").mkdir()
    (tmp_path / "sql").mkdir()
    elsewhere = tmp_path / "site-packages" / "totesys_assets" / "local" / "sql_files.py"
    monkeypatch.setattr(sql_files, "__file__", str(elsewhere))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    assert sql_files.sql_folder() == tmp_path / "sql"
    code, text = stage.provision()
    assert code == 1
    assert "has no warehouse_roles.sql: name the folder of the project's deploy/sql with --sql" in text


def test_an_admin_behind_a_pooler_is_asked_for_the_server_itself(
    stage: Stage, pooler: Callable[..., list[str]]
) -> None:
    stage.patch.setenv(work.ADMIN, pooler(stage.server.url("postgres"))[0])
    code, text = stage.provision()
    assert code == 1
    assert "WAREHOUSE_ADMIN_URL leads to a pooler" in text
    assert "Let it name the server itself." in text
