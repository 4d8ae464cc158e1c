"""deploy/small: backups of one machine, for real: PostgreSQL's own programs, an S3 server, and the platform itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from totesys_assets.dagster_home import instance_config
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.local.postgres_programs import binaries
from totesys_assets_tests.automation.test_sensor import ORDER
from totesys_assets_tests.conftest import FIRST_DAY, PostgresServer
from totesys_assets_tests.deploy.conftest import PROJECT, tool
from totesys_assets_tests.deploy.docker_stand_in import Docker
from totesys_assets_tests.deploy.servers import Moto, Proxy, SeaweedFS, s3_environment
from totesys_assets_tests.harness import RATES
from totesys_assets_tests.harness.servers import QUICK, copy_owned

MANAGE = PROJECT / "deploy" / "small" / "manage.sh"
PASSWORD = "only-for-tests"
NIGHT = {"SHA256SUMS", "dagster.dump", "operators", "roles.sql", "viewers", "warehouse.dump"}


@dataclass
class Machine:
    """One machine: its server, its settings in ``folder``, and manage.sh on it."""

    folder: Path
    server: EmbeddedServer
    docker: Docker
    environment: Mapping[str, str] = field(repr=False)

    def manage(self, *words: str, given: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run manage.sh."""
        return subprocess.run(
            ["bash", MANAGE, *words],
            env={**self.environment, **more},
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def well(self, *words: str, given: str = "", **more: str) -> str:
        """The same, which must succeed; what it printed."""
        done = self.manage(*words, given=given, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def query(self, text: str, database: str = "warehouse") -> list[tuple[object, ...]]:
        """Rows, as the superuser."""
        with psycopg.connect(self.server.url(database)) as connection:
            return connection.execute(text.encode()).fetchall()

    def change(self, text: str) -> None:
        """Statements in the warehouse, as the superuser."""
        with psycopg.connect(self.server.url("warehouse")) as connection:
            connection.execute(text.encode())

    def databases(self) -> set[str]:
        """Of the platform, and whatever a restore made."""
        found = self.query("SELECT datname FROM pg_database WHERE datname !~ '^(template|postgres)'", "postgres")
        return {str(name) for (name,) in found}


class Site:
    """A ToteSys and a bucket, and the machines that come and go beside them."""

    def __init__(self, totesys: str, seaweed: SeaweedFS, scratch: Path) -> None:
        self._totesys, self._seaweed = totesys, seaweed
        self._scratch = scratch / f"small_{os.urandom(4).hex()}"
        self.bucket = self._scratch.name.replace("_", "-")
        self.machines: list[Machine] = []
        self._seaweed.client.create_bucket(Bucket=self.bucket)
        self._scratch.mkdir()
        self._scratch.chmod(0o755)

    def machine(self, like: Machine | None = None, **settings: str) -> Machine:
        """One with nothing on it yet but its settings, or a copy of another, whose server does not run."""
        folder = self._scratch / f"machine{len(self.machines)}"
        folder.mkdir()
        folder.chmod(0o755)
        if like is None:
            (folder / "conf" / "logins").mkdir(parents=True)
        else:
            copy_owned(like.folder / "server", folder / "server")
            for name in ("conf", "state"):
                shutil.copytree(like.folder / name, folder / name)
        server = EmbeddedServer(folder / "server", QUICK)
        server.start()
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            if like is None:
                connection.execute(f"CREATE ROLE postgres SUPERUSER LOGIN PASSWORD '{PASSWORD}'".encode())
            port = connection.info.port
        s3 = s3_environment(self._seaweed.url)
        programs = f"{binaries()}:{Path(tool('caddy')).parent}"
        platform = {
            "PATH": programs,
            "PGPASSWORD": PASSWORD,
            "TOTESYS_HOME": str(folder / "home"),
            "DAGSTER_HOME": str(folder),
            "TOTESYS_ALLOW_SUPERUSER": "1",
            "TOTESYS_FIRST_DAY": FIRST_DAY.isoformat(),
            "TOTESYS_RATES_ARCHIVE": str(RATES),
            **s3,
        }
        docker = Docker(folder, f"127.0.0.1:{port}", platform, PROJECT / "deploy" / "sql")
        docker.write()
        (folder / "dagster.yaml").write_text(instance_config(), encoding="utf-8")
        (folder / "conf" / "aws.env").write_text("".join(f"{name}={value}\n" for name, value in s3.items()))
        found = {
            "TOTESYS_URL": self._totesys,
            "UI_HOST": "totesys.example.com",
            "LAKE_URI": f"s3://{self.bucket}/lake",
            "BACKUPS_URI": f"s3://{self.bucket}/backups",
            **settings,
        }
        (folder / "conf" / "settings.env").write_text("".join(f"{name}={value}\n" for name, value in found.items()))
        environment = {
            "PATH": f"{folder}:{Path(tool('aws')).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TOTESYS_CONF": str(folder / "conf"),
            "TOTESYS_STATE": str(folder / "state"),
        }
        self.machines.append(Machine(folder, server, docker, environment))
        return self.machines[-1]

    def nights(self) -> dict[str, set[str]]:
        """What is in the bucket, by night."""
        found = self._seaweed.client.list_objects_v2(Bucket=self.bucket, Prefix="backups/").get("Contents", [])
        nights: dict[str, set[str]] = {}
        for _, night, file in (each["Key"].split("/") for each in found):
            nights.setdefault(night, set()).add(file)
        return nights

    def put(self, key: str, body: bytes) -> None:
        """An object in the bucket."""
        self._seaweed.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def trade(self) -> None:
        """A sale in ToteSys."""
        with psycopg.connect(self._totesys) as connection:
            connection.execute(ORDER.encode())

    def close(self) -> None:
        """End the machines' servers."""
        for each in self.machines:
            each.server.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)


@contextmanager
def a_site(postgres: PostgresServer, trade: str, seaweed: SeaweedFS, scratch: Path) -> Iterator[Site]:
    source = postgres.template(f"totesys_{os.urandom(4).hex()}", trade)
    with closing(Site(source, seaweed, scratch)) as site:
        yield site


@pytest.fixture
def site(postgres_server: PostgresServer, trade_template: str, seaweed: SeaweedFS, scratch: Path) -> Iterator[Site]:
    """A site of its own for each test."""
    with a_site(postgres_server, trade_template, seaweed, scratch) as site:
        yield site


@pytest.fixture(scope="module")
def once_started(
    postgres_server: PostgresServer, trade_template: str, seaweed: SeaweedFS, scratch: Path
) -> Iterator[Machine]:
    """A machine on which the platform was started, with an operator. Its server is down."""
    with a_site(postgres_server, trade_template, seaweed, scratch) as site:
        machine = site.machine()
        machine.well("add-user", "operators", "ann", given="correct horse battery\n")
        machine.well("up")
        machine.server.stop()
        yield machine


class Started(Protocol):
    """Makes a machine on which the platform was started, with these settings."""

    def __call__(self, **settings: str) -> Machine: ...


@pytest.fixture
def started(site: Site, once_started: Machine) -> Started:
    """Such machines, of the test's own site."""
    return partial(site.machine, once_started)


ORDERS = "SELECT count(*) FROM current_sales_order"


def test_a_backup_comes_back_on_a_new_machine_and_the_audit_agrees(site: Site, started: Started) -> None:
    old = started()
    old.well("totesys", "refresh")
    assert old.query(ORDERS) == [(1,)]
    printed = old.well("backup")
    (night,) = site.nights()
    assert site.nights()[night] == NIGHT
    assert night in printed
    assert (old.folder / "state" / "backed-up").exists()
    # After the backup: an order, which is in the lake and in a warehouse that is lost.
    site.trade()
    old.well("totesys", "refresh")
    facts = old.query("SELECT count(*), min(sales_record_id), max(sales_record_id) FROM fact_sales_order")
    old.server.stop()

    new = site.machine()
    assert night in new.well("restore")
    assert new.databases() == {"warehouse", "dagster"}
    assert new.query(ORDERS) == [(1,)]
    assert (new.folder / "conf/logins/operators").read_text() == (old.folder / "conf/logins/operators").read_text()
    passwords = [(each.folder / "conf/passwords.env").read_text() for each in (old, new)]
    assert passwords[0] != passwords[1]
    new.well("totesys", "refresh")
    assert new.query("SELECT count(*), min(sales_record_id), max(sales_record_id) FROM fact_sales_order") == facts
    assert "✗" not in new.well("totesys", "audit")


def test_a_restore_replaces_both_databases_and_keeps_what_roles_may_do(started: Started) -> None:
    machine = started()
    machine.well("totesys", "refresh")
    ((days,),) = machine.query("SELECT count(*) FROM dim_date")
    machine.change("CREATE ROLE analyst; GRANT SELECT ON dim_date TO analyst")
    machine.well("backup")
    machine.change("DROP OWNED BY analyst; DROP ROLE analyst; DROP TABLE dim_date CASCADE")
    machine.well("restore")
    assert machine.databases() == {"warehouse", "dagster"}
    rights = "SELECT count(*), has_table_privilege('analyst', 'dim_date', 'SELECT') FROM dim_date"
    assert machine.query(rights) == [(days, True)]
    stopped = next(call for call in machine.docker.calls if " stop " in call)
    assert stopped.split(" stop ")[1].split() == [
        "caddy",
        "webserver",
        "viewer",
        "dashboard",
        "daemon",
        "code-server",
    ]
    machine.well("totesys", "refresh")


def test_a_restore_that_fails_replaces_nothing(started: Started) -> None:
    machine = started()
    machine.change("CREATE TABLE mark AS SELECT 1 AS one")
    machine.well("backup")
    machine.docker.fails = "--dbname dagster_restored"
    machine.docker.write()
    failed = machine.manage("restore")
    assert failed.returncode != 0
    assert "Nothing was replaced." in failed.stderr
    assert {"warehouse", "dagster"} <= machine.databases()
    assert machine.query("SELECT one FROM mark") == [(1,)]
    machine.docker.fails = ""
    machine.docker.write()
    machine.well("restore")
    assert machine.databases() == {"warehouse", "dagster"}


def test_a_damaged_backup_is_not_restored(site: Site, started: Started) -> None:
    machine = started()
    machine.well("backup")
    (night,) = site.nights()
    site.put(f"backups/{night}/warehouse.dump", b"PGDMP something else")
    refused = machine.manage("restore", night)
    assert refused.returncode != 0
    assert f"The backup {night} is damaged: restore another one." in refused.stderr
    assert not any(" stop " in call for call in machine.docker.calls)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("--roles-only", marks=pytest.mark.thorough),
        "--format custom dagster",
        pytest.param("pg_restore --file /dev/null", marks=pytest.mark.thorough),
    ],
)
def test_a_backup_that_fails_leaves_nothing_and_is_told(site: Site, started: Started, moto: Moto, what: str) -> None:
    topic, messages = moto.topic(f"small-{os.urandom(4).hex()}")
    machine = started(TOTESYS_ALERT_TOPIC=topic)
    machine.well("backup")
    before = site.nights()
    machine.docker.fails = what
    machine.docker.write()
    failed = machine.manage("backup", AWS_ENDPOINT_URL_SNS=moto.url)
    assert failed.returncode != 0
    assert site.nights() == before
    assert [each["Subject"] for each in messages()] == ["ToteSys: the backup failed"]
    assert sorted(path.name for path in (machine.folder / "state").iterdir()) == ["backed-up", "lock"]


def test_an_upload_that_was_cut_off_is_no_backup_and_goes_with_the_next(site: Site, started: Started) -> None:
    machine = started()
    site.put("backups/2020-01-01T010000Z/warehouse.dump", b"half")
    assert machine.well("backups") == ""
    refused = machine.manage("restore", "2020-01-01T010000Z")
    assert "There is no backup" in refused.stderr
    machine.well("backup")
    assert set(site.nights().popitem()[1]) == NIGHT
    assert "2020-01-01T010000Z" not in site.nights()
    refused = machine.manage("restore", "2020-01-01T010000Z")
    assert "There is no whole backup 2020-01-01T010000Z." in refused.stderr


def test_so_many_nights_are_kept_however_old_they_are(site: Site, started: Started) -> None:
    machine = started(BACKUPS_KEPT="3")
    for day in range(1, 6):
        for file in ("warehouse.dump", "SHA256SUMS"):
            site.put(f"backups/2020-01-0{day}T010000Z/{file}", b"old")
    site.put("lake/backups/SHA256SUMS", b"not ours")
    machine.well("backup")
    kept = sorted(site.nights())
    assert kept[:2] == ["2020-01-04T010000Z", "2020-01-05T010000Z"]
    assert len(kept) == 3
    assert machine.well("backups").split() == kept


def test_a_bucket_that_cannot_be_listed_loses_nothing(site: Site, started: Started) -> None:
    machine = started()
    machine.well("backup")
    before = site.nights()
    (machine.folder / "aws").write_text(
        f'#!/bin/bash\n[ "$2" != ls ] || exit 255\nexec {tool("aws")} "$@"\n', encoding="utf-8"
    )
    (machine.folder / "aws").chmod(0o755)
    failed = machine.manage("backup")
    assert failed.returncode != 0
    assert "cannot be listed" in failed.stderr
    assert before.items() <= site.nights().items()


def test_no_password_is_in_a_backup_and_no_answer_is_misread(
    site: Site, started: Started, seaweed: SeaweedFS, proxy: Proxy
) -> None:
    machine = started()
    with (machine.folder / "conf" / "aws.env").open("a") as settings:
        settings.write(f"AWS_ENDPOINT_URL_S3={proxy.url}\n")
    machine.well("backup")
    sent = [each.headers for each in proxy.requests if each.kind == "PUT"]
    empty = [headers for headers in sent if headers["content-length"] == "0"]
    assert (len(sent), len(empty)) == (len(NIGHT), 1)  # nobody is a viewer yet
    assert "expect" not in empty[0]
    (night,) = site.nights()
    roles = seaweed.client.get_object(Bucket=site.bucket, Key=f"backups/{night}/roles.sql")["Body"].read().decode()
    assert "CREATE ROLE warehouse_loader" in roles
    assert "PASSWORD" not in roles
