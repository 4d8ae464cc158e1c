"""What the tests share: a real PostgreSQL, a small ToteSys with a hand-checked day of trade, a platform around it."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import dagster as dg
import psycopg
import pytest
from dagster._core.execution.build_resources import wrap_resources_for_execution
from hypothesis import settings as hypothesis_settings
from psycopg import sql

from totesys_assets.assets.resources import make_resources
from totesys_assets.automation.refresh import Outcome, execute
from totesys_assets.catalogue.catalogue import ddl
from totesys_assets.dagster_home import DAGSTER_URL_VARIABLE, ENVIRONMENT, instance_config
from totesys_assets.days import DayRange, partition_range
from totesys_assets.definitions import build_definitions
from totesys_assets.lake.tables import Lake
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.platform import Platform as Core
from totesys_assets.platform import other_sources
from totesys_assets.settings import Settings
from totesys_assets.source.totesys import Totesys
from totesys_assets.staleness.decide import Request
from totesys_assets.staleness.look import Look, look
from totesys_assets.variables import SPARK
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.harness import RATES, ephemeral  # noqa: F401 - ephemeral instances are quicker with it
from totesys_assets_tests.harness.servers import (
    LOGICAL,
    QUICK,
    MachineServer,
    Standby,
    copy_owned,
    replicated,
    running,
    transaction_pooler,
)
from totesys_assets_tests.harness.sql_files import apply

# No test is timed: on a busy machine an example of a property may take long.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

# Settings of the developer's own platform must not leak into the tests, nor theirs into it; nor AWS credentials.
OURS = ("TOTESYS_", "WAREHOUSE_", "LAKE_", "FILES_", "DAGSTER_", "AWS_")
for variable in [name for name in os.environ if name.startswith(OURS)]:
    if variable != "TOTESYS_DEPLOY_TOOLS":  # where `make check-deploy` has its tools: deploy/conftest.py
        del os.environ[variable]

# Tests make and delete files by the thousand: databases, lakes, homes. On a disk that takes PostgreSQL longer than all
# of its statements. So they lie in memory where it has room, and programs may be executed there.
_MEMORY, _ROOM = Path("/dev/shm"), 8 << 30


def _is_in_memory_with_room(folder: Path) -> bool:
    if not os.access(folder, os.W_OK):
        return False
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize >= _ROOM and not state.f_flag & os.ST_NOEXEC


if "TMPDIR" not in os.environ and _is_in_memory_with_room(_MEMORY):
    os.environ["TMPDIR"] = str(_MEMORY)
    tempfile.tempdir = None

# Many tests start programs. Without bytecode each of these compiles the package anew, for a third of a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Where homes are noted: not in the developer's own list.
os.environ["XDG_STATE_HOME"] = str(Path(tempfile.gettempdir(), "totesys-tests-state"))

# What runs in the background may ignore Ctrl-C or the end of its terminal, and so would its children; some tests send
# them these signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# As in every process of the platform: see dagster_home.py.
os.environ.update(ENVIRONMENT)

os.environ["TOTESYS_RATES_ARCHIVE"] = str(RATES)

FIRST_DAY = date(2024, 8, 19)

# Looking for garbage is a twentieth of the processor time of a refresh: less often will do.
gc.set_threshold(50_000, 20, 100)

# Files of long tests come first, so that no worker begins one when the others are done; and the shortest ones last.
FIRST_FILES = ("test_terraform", "test_small_backups", "test_s3", "test_followed")
FIRST_FOLDERS = ("whole", "commands", "transform", "source", "load", "audit", "dagster_internals", "automation")
LAST_FOLDERS = ("catalogue", "staleness", "project")


def _turn(item: pytest.Item) -> int:
    folder = item.path.parent.name
    if item.path.stem in FIRST_FILES:
        return -1
    if folder in LAST_FOLDERS:
        return len(FIRST_FOLDERS) + 1 + LAST_FOLDERS.index(folder)
    return FIRST_FOLDERS.index(folder) if folder in FIRST_FOLDERS else len(FIRST_FOLDERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files by their folders."""
    items.sort(key=_turn)


def pytest_xdist_auto_num_workers() -> int:
    """Three workers for two cores: a test also waits for other processes and for the clock. Four are no quicker."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


def pytest_collection_finish() -> None:
    """Take what was imported for what stays."""
    gc.freeze()


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder that user nobody can enter too, as PostgreSQL's user when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="totesys-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class PostgresServer:
    """A server on which every test makes databases of its own."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._numbers = itertools.count()

    def database(self, name: str | None = None, *, encoding: str | None = None) -> str:
        """URL of a new empty database, in UTF-8 or another ``encoding``."""
        name = name or f"test_{next(self._numbers)}"
        other = "" if encoding is None else f" ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'"
        return self._create(name, f'"template0"{other}')

    def template(self, name: str, source: str, *, oid: int | None = None) -> str:
        """URL of a new copy of database ``source``, with the id ``oid`` if one is given."""
        return self._create(name, f'"{source}"' if oid is None else f'"{source}" OID {oid}')

    @contextmanager
    def away(self) -> Iterator[None]:
        """For the block, the server is down, whoever is connected."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()

    def drop(self, *names: str) -> None:
        """Drop databases, whoever is connected: files that are deleted soon are never written to the disk."""
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            for name in names:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _create(self, name: str, template: str) -> str:
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            if connection.info.server_version >= 180_000:
                # The kernel copies the files: a third of the processor time that a copy through the log takes.
                connection.execute("SET file_copy_method = clone")
                template += " STRATEGY file_copy"
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE {template}')
        return self._server.url(name)


@pytest.fixture(scope="session")
def postgres_server(scratch: Path) -> Iterator[PostgresServer]:
    """One server for the whole session; durability off, for nothing here outlives it."""
    server = EmbeddedServer(scratch / "server", QUICK)
    server.start()
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        # With the 4,096 rounds of the default, a login takes 5 ms of a processor, half of it in the client.
        connection.execute("SET scram_iterations = 1")
        password = sql.Literal(connection.info.password)
        connection.execute(sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(password))
    yield PostgresServer(server)
    server.stop()


@pytest.fixture(scope="session")
def other_postgres(scratch: Path) -> Iterator[PostgresServer]:
    """A server of the PostgreSQL that this machine has, an older one; where there is none, the test is skipped."""
    server = MachineServer(scratch / "other_server")
    with running(server):
        yield PostgresServer(server)


@pytest.fixture(scope="module")
def standby(scratch: Path) -> Iterator[tuple[EmbeddedServer, Standby]]:
    """A primary and a hot standby of it: ``standby.catch_up()`` waits until it shows what the primary has."""
    with replicated(scratch / f"replicated_{os.urandom(4).hex()}") as servers:
        yield servers


@pytest.fixture
def pooler(scratch: Path) -> Iterator[Callable[..., list[str]]]:
    """Puts databases of one server behind a pooler in transaction mode: their URLs there, in the order given."""
    with ExitStack() as stack:

        def pooled(*urls: str) -> list[str]:
            folder = scratch / f"pooler_{os.urandom(4).hex()}"
            return stack.enter_context(transaction_pooler(folder, urls))

        yield pooled


TRADE = Path(__file__).with_name("trade.sql").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def trade_template(postgres_server: PostgresServer) -> str:
    """Name of a database that holds ToteSys with TRADE in it."""
    with psycopg.connect(postgres_server.database("trade_template")) as connection:
        connection.execute(ddl("totesys.sql"))
        connection.execute(TRADE)
    return "trade_template"


@lru_cache(maxsize=2)
def _definitions(settings: Settings) -> dg.Definitions:
    return build_definitions(settings)


@lru_cache(maxsize=2)
def _resources(settings: Settings) -> dict[str, dg.ResourceDefinition]:
    return wrap_resources_for_execution(make_resources(settings))


@lru_cache(maxsize=8)
def _job(name: str, first_day: date, schema: str, engine: str) -> dg.JobDefinition:
    variables = {"TOTESYS_FIRST_DAY": first_day.isoformat(), "WAREHOUSE_SCHEMA": schema, "TOTESYS_ENGINE": engine}
    if engine == SPARK:
        variables["SPARK_REMOTE"] = "sc://127.0.0.1"
    return build_definitions(Settings.from_env(variables)).resolve_job_def(name)


@dataclass(frozen=True)
class _Alike:
    """The jobs of a platform. Their assets are made once for all platforms that have the same ones.

    To make them takes a third of a second of a processor. Resources are each platform's own.
    """

    settings: Settings
    name: str = ""

    def resolve_job_def(self, name: str) -> Self:
        """The job of that name."""
        return replace(self, name=name)

    def get_subset(self, **selection: Any) -> dg.JobDefinition:
        """The part of the job that is selected, with the platform's resources."""
        settings = self.settings
        job = _job(self.name, settings.first_day, settings.warehouse_schema, settings.engine)
        return job.get_subset(**selection).with_top_level_resources(_resources(settings))


_lake = lru_cache(maxsize=1)(Lake)
_other_sources = lru_cache(maxsize=1)(other_sources)


@dataclass
class Platform:
    """A whole platform of its own: source, lake, warehouse, Dagster instance."""

    settings: Settings
    totesys_url: str = field(repr=False)
    warehouse_url: str = field(repr=False)
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        """The same as long as it is asked for no other: what it knows of its ledger it need not read again."""
        return _lake(self.settings.lake_uri)

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.warehouse_url, self.settings.warehouse_schema)

    @property
    def totesys(self) -> Totesys:
        return Totesys.of(self.settings, self.totesys_url)

    @property
    def core(self) -> Core:
        """The platform as the code knows it."""
        sources, rows = (self.totesys, *_other_sources(self.settings)), self.settings.range_rows
        return Core(sources, self.lake, self.warehouse, self.all_days, rows)

    @property
    def all_days(self) -> DayRange:
        return partition_range(self.settings.first_day)

    def definitions(self) -> dg.Definitions:
        """Made once, as in a process of Dagster's that loads them."""
        return _definitions(self.settings)

    def sql(self, statement: str, parameters: Sequence[object] | Mapping[str, object] | None = None) -> None:
        """Run a statement in ToteSys, in a transaction of its own."""
        with psycopg.connect(self.totesys_url, autocommit=True) as connection:
            connection.execute(statement, parameters)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """Rows of a query in the warehouse."""
        with psycopg.connect(
            self.warehouse_url, options=f"-c search_path={self.settings.warehouse_schema}"
        ) as connection:
            return connection.execute(statement).fetchall()

    def files(self) -> list[Path]:
        """Every file of the lake."""
        return sorted(path for path in Path(self.settings.lake_uri).rglob("*") if path.is_file())

    def look(self) -> Look:
        return look(self.core)

    def run(self, request: Request, *, accept_deletions: bool = False) -> Outcome:
        alike: Any = _Alike(self.settings)
        return execute(alike, self.instance, request, accept_deletions=accept_deletions)

    def refresh(self, *, accept_deletions: bool = False) -> list[Outcome]:
        """Look, and run what is asked for; all of it must succeed."""
        outcomes = [self.run(request, accept_deletions=accept_deletions) for request in self.look().requests]
        failed = [outcome.failures for outcome in outcomes if not outcome.success]
        assert not failed, failed
        return outcomes


@dataclass(frozen=True)
class Refreshed:
    """A platform over TRADE after its first steps, to be copied: names of its databases, and its home.

    The platform recognises a source by the id of its database. So every copy has the same id, and only one exists at a
    time.
    """

    server: PostgresServer
    source: str
    warehouse: str
    home: Path

    @contextmanager
    def copy(self, folder: Path) -> Iterator[Platform]:
        """A copy of it; Dagster's instance is a new one, and knows of no run."""
        shutil.copytree(self.home, folder / "home")
        source = self.server.template(_REFRESHED, self.source, oid=_REFRESHED_OID)
        warehouse = f"warehouse_{os.urandom(4).hex()}"
        try:
            with make_platform(source, self.server.template(warehouse, self.warehouse), folder) as made:
                yield made
        finally:
            self.server.drop(_REFRESHED, warehouse)


_REFRESHED, _REFRESHED_OID = "refreshed", 987_654


def begin(
    server: PostgresServer, trade: str, folder: Path, first: Callable[[Platform], object] = Platform.refresh
) -> Refreshed:
    """A platform over TRADE in a new ``folder`` after what comes ``first``, made once, to be copied for each test."""
    source, warehouse = f"{folder.name}_source", f"{folder.name}_warehouse"
    folder.mkdir()
    url = server.template(_REFRESHED, trade, oid=_REFRESHED_OID)
    try:
        with make_platform(url, server.database(warehouse), folder) as made:
            first(made)
        server.template(source, _REFRESHED)
    finally:
        server.drop(_REFRESHED)  # for another module's beginning, also when this one failed
    return Refreshed(server, source, warehouse, folder / "home")


@pytest.fixture(scope="session")
def beginning(postgres_server: PostgresServer, trade_template: str, scratch: Path) -> Refreshed:
    """What a test that is marked as ``refreshed`` begins with: a first refresh. A module may have another beginning."""
    return begin(postgres_server, trade_template, scratch / "first_refresh")


@pytest.fixture
def platform(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Platform]:
    """A platform over a copy of TRADE; nothing refreshed yet, unless the test is marked as ``refreshed``."""
    if request.node.get_closest_marker("refreshed") is not None:
        with request.getfixturevalue("beginning").copy(tmp_path) as made:
            yield made
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = os.urandom(4).hex()
    source = server.template(f"totesys_{name}", request.getfixturevalue("trade_template"))
    with make_platform(source, server.database(f"warehouse_{name}"), tmp_path) as made:
        yield made
    server.drop(f"totesys_{name}", f"warehouse_{name}")


@contextmanager
def make_platform(
    source: str,
    warehouse: str,
    folder: Path,
    first_day: date = FIRST_DAY,
    *,
    dagster: str | None = None,
    **variables: str,
) -> Iterator[Platform]:
    """A platform over two databases. ``dagster`` is a database for Dagster's instance, configured as it is shipped.

    Without it the instance is ephemeral, which is quicker for little, and slow for years of partitions. ``variables``
    are more of the environment, or other values of what is set here.
    """
    env = {
        "TOTESYS_URL": source,
        "WAREHOUSE_URL": warehouse,
        "TOTESYS_HOME": str(folder / "home"),
        "TOTESYS_FIRST_DAY": first_day.isoformat(),
        "TOTESYS_RATES_ARCHIVE": str(RATES),
        "TOTESYS_ALLOW_SUPERUSER": "1",  # the tests' server has no other login unless a test makes one
        **variables,
    }
    settings = Settings.from_env(env)
    with pytest.MonkeyPatch.context() as patch:
        # With all of these set, nothing is embedded and the platform starts no server of its own.
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setenv("DAGSTER_HOME", str(folder))
        if dagster is not None:
            patch.setenv(DAGSTER_URL_VARIABLE, dagster)
            (folder / "dagster.yaml").write_text(instance_config(), encoding="utf-8")
        instance = dg.DagsterInstance.get() if dagster is not None else dg.DagsterInstance.ephemeral()
        with instance:
            yield Platform(settings, source, warehouse, instance)


@dataclass(frozen=True)
class Followed:
    """A platform that follows the log of its ToteSys, to be copied with its server, which does not run."""

    folder: Path

    @contextmanager
    def copy(self, folder: Path) -> Iterator[Platform]:
        """A copy of it, in ``folder``; its server is up for the block."""
        place = self.folder.with_name(f"followed_{os.urandom(4).hex()}")  # PostgreSQL's user may not enter every folder
        copy_owned(self.folder / "server", place)
        server = EmbeddedServer(place, LOGICAL)
        with running(server):
            shutil.copytree(self.folder / "home", folder / "home")
            with _followed(server, folder) as made:
                yield made


@contextmanager
def _followed(server: EmbeddedServer, folder: Path) -> Iterator[Platform]:
    with make_platform(server.url("totesys"), server.url("warehouse"), folder, TOTESYS_LOG="on") as made:
        yield made


def begin_followed(folder: Path, first: Callable[[Platform], object] = Platform.refresh) -> Followed:
    """A platform over TRADE, in a new ``folder``, that follows the log after what comes ``first``."""
    folder.mkdir()
    server = EmbeddedServer(folder / "server", LOGICAL)
    try:
        server.start()
        postgres = PostgresServer(server)
        source = postgres.database("totesys")
        postgres.database("warehouse")
        with psycopg.connect(source) as connection:
            connection.execute(ddl("totesys.sql"))
            connection.execute(TRADE)
        apply("source_reader.sql", source)
        apply("source_log.sql", source)
        with _followed(server, folder) as made:
            first(made)
    finally:
        server.stop()
    return Followed(folder)


@pytest.fixture(scope="session")
def followed_beginning(scratch: Path) -> Followed:
    """What ``followed`` begins with: a first refresh. A module may have another beginning."""
    return begin_followed(scratch / "first_followed")


@pytest.fixture
def followed(followed_beginning: Followed, tmp_path: Path) -> Iterator[Platform]:
    """A platform that was refreshed once, and follows the log of its ToteSys."""
    with followed_beginning.copy(tmp_path) as made:
        yield made
