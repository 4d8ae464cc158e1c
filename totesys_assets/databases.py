"""The databases: those that the settings name, and embedded ones for the others.

Belongs here: which databases are embedded, and filling the embedded ToteSys once. Does not belong here: how a server is
run (local/postgres.py) and what ToteSys is filled with (local/simulator/).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import psycopg

from totesys_assets.dagster_home import named_folder, needs_records
from totesys_assets.local import homes
from totesys_assets.local.locks import Report, held
from totesys_assets.settings import Settings
from totesys_assets.variables import FIRST_DAY, FIRST_DAY_FILE, LOG_FILE

if TYPE_CHECKING:
    from totesys_assets.local.postgres import EmbeddedServer

TOTESYS, WAREHOUSE, DAGSTER = "totesys", "warehouse", "dagster"
# Filling a ToteSys of many times the real size takes less than this.
_FILL_SECONDS = 3600.0
# What the embedded ToteSys offers for its log to be followed; a server that was made without takes it when it starts.
_LOG = MappingProxyType(
    {"wal_level": "logical", "max_slot_wal_keep_size": "1GB", "idle_replication_slot_timeout": "3d"}
)
_DOOR = "source_log.sql"


@dataclass(frozen=True)
class Databases:
    """URLs of the databases in use, with passwords; ``dagster`` is None if Dagster's records are not embedded."""

    totesys: str = field(repr=False)
    warehouse: str = field(repr=False)
    dagster: str | None = field(default=None, repr=False)


@contextmanager
def databases(
    settings: Settings,
    *,
    create: bool = True,
    dagster: bool = True,
    scale: float = 1.0,
    report: Report | None = None,
    meanwhile: Callable[[Databases], object] = lambda _: None,
) -> Iterator[Databases]:
    """The databases that the settings name. The others are embedded, and run for the duration of the block.

    ToteSys alone has a server of its own: in life it is someone else's, and the probe for changes is per server. An
    embedded ToteSys is filled at its first use, at ``scale``. Only with ``create`` is a home made where none is; only
    with ``dagster`` is there a database for Dagster's records, unless DAGSTER_HOME says where those are.
    ``meanwhile`` is called in a thread once an embedded warehouse is there, while ToteSys is still being filled. The
    block begins when it has returned.
    Raises NoHome, EmbeddedError, ConnectionFailed, and SettingsError where DAGSTER_HOME cannot be used.
    """
    if dagster:
        named_folder(settings)  # before anything is started
        with (
            databases(settings, create=create, dagster=False, scale=scale, report=report, meanwhile=meanwhile) as urls,
            dagster_records(settings, urls, report) as whole,
        ):
            yield whole
        return
    if settings.totesys_url and settings.warehouse_url:
        yield Databases(settings.totesys_url, settings.warehouse_url)
        return
    say = report or (lambda _: None)
    source, ours = embedded(settings)
    servers = [*([] if settings.totesys_url else [source]), *([] if settings.warehouse_url else [ours])]
    if create:
        homes.prepare(settings.home)
    else:
        homes.require(settings.home, all(server.exists() for server in servers))
    with _running(settings, servers, say):
        urls = Databases(
            totesys=settings.totesys_url or source.url(TOTESYS),
            warehouse=settings.warehouse_url or ours.url(WAREHOUSE),
            dagster=ours.url(DAGSTER) if ours in servers else None,
        )
        with (
            held(_folder(settings) / "fill", "fills the embedded databases", say, _FILL_SECONDS),
            ThreadPoolExecutor(1) as beside,
        ):
            made = beside.submit(_make_ours, ours, partial(meanwhile, urls)) if ours in servers else None
            if source in servers:
                source.create_database(TOTESYS)
                with source.explained():
                    _fill(source.url(TOTESYS), settings.home, scale, say)
                _open_door(source)
            if made is not None:
                made.result()
        homes.remember(settings.home)
        yield urls


@contextmanager
def warehouse_only(settings: Settings, report: Report | None = None) -> Iterator[str]:
    """The warehouse's URL for the block. Starts an embedded server only if WAREHOUSE_URL is not set. Raises NoHome."""
    if settings.warehouse_url:
        yield settings.warehouse_url
        return
    with databases(settings, create=False, dagster=False, report=report) as urls:
        yield urls.warehouse


@contextmanager
def source_only(settings: Settings, report: Report | None = None) -> Iterator[str]:
    """The URL of ToteSys for the block. Starts embedded servers only if TOTESYS_URL is not set. Raises NoHome."""
    if settings.totesys_url:
        yield settings.totesys_url
        return
    with databases(settings, create=False, dagster=False, report=report) as urls:
        yield urls.totesys


@contextmanager
def dagster_records(settings: Settings, urls: Databases, report: Report | None = None) -> Iterator[Databases]:
    """``urls``, and a database for Dagster's records beside them: embedded, unless DAGSTER_HOME names an instance.

    Raises as ``databases`` does.
    """
    if urls.dagster or not needs_records(settings):
        yield urls
        return
    say = report or (lambda _: None)
    homes.prepare(settings.home)
    say(
        "Starting an embedded PostgreSQL for Dagster's records "
        f"({_folder(settings)}); DAGSTER_HOME keeps them elsewhere"
    )
    _, ours = embedded(settings)
    with _running(settings, [ours], say):
        ours.create_database(DAGSTER)
        yield replace(urls, dagster=ours.url(DAGSTER))


def embedded(settings: Settings) -> tuple[EmbeddedServer, EmbeddedServer]:
    """The embedded servers of the home, running or not: one for ToteSys, one for everything else."""
    from totesys_assets.local.postgres import EmbeddedServer  # here: not needed where nothing is embedded

    folder = _folder(settings)
    # A power cut may lose the commits of the last moment. The next refresh finds them missing and loads them again.
    return EmbeddedServer(folder / TOTESYS, _LOG), EmbeddedServer(folder / WAREHOUSE, {"synchronous_commit": "off"})


@contextmanager
def _running(settings: Settings, servers: Sequence[EmbeddedServer], say: Report) -> Iterator[None]:
    """Run the servers for the block. An error in it that a full disk caused is reported as such."""
    from totesys_assets.local.lease import lease
    from totesys_assets.local.postgres import without_variables
    from totesys_assets.local.postgres_errors import BEGIN_BYTES, EmbeddedError, disk_full

    if not _folder(settings).exists():
        if not (settings.totesys_url and settings.warehouse_url):
            say("Starting the embedded PostgreSQL for the first time")
        free = shutil.disk_usage(settings.home).free
        if free < BEGIN_BYTES:
            raise EmbeddedError(disk_full(settings.home, free))
    own = settings.totesys_url or settings.warehouse_url or settings.warehouse_reader_url
    # Beside a database of one's own, they are left as they are: they may be meant for it.
    with nullcontext() if own else without_variables(), lease(servers, _folder(settings) / "lease", say):
        logged = [server.log_size() for server in servers]
        try:
            yield
        except Exception as error:
            if any(server.said_full(since) for server, since in zip(servers, logged, strict=True)):
                raise EmbeddedError(disk_full(settings.home)) from error
            raise


def _make_ours(ours: EmbeddedServer, then: Callable[[], object]) -> None:
    ours.create_database(WAREHOUSE)
    ours.create_database(DAGSTER)
    then()


def are_new(settings: Settings) -> bool:
    """Whether embedded databases are still to be made."""
    return not (settings.totesys_url and settings.warehouse_url) and not _folder(settings).exists()


def _folder(settings: Settings) -> Path:
    return settings.home / "postgres"


def _fill(url: str, home: Path, scale: float, say: Report) -> None:
    """Create and fill ToteSys if it is missing, and note its first day, which is the first partition."""
    noted = home / FIRST_DAY_FILE
    if noted.exists():
        return
    from totesys_assets.local import simulator  # here: not needed once it is filled

    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT to_regclass('sales_order')").fetchone()
    if found == (None,):
        simulator.create(url, scale=scale, report=say)
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT min(created_at)::date FROM address").fetchone()
    if row is not None and row[0] is not None:
        # A lake that is there already is that of another ToteSys, and may have the days since the usual first one.
        first = min(row[0], FIRST_DAY) if (home / "lake").exists() else row[0]
        noted.write_text(f"{first}\n", encoding="ascii")


def _open_door(source: EmbeddedServer) -> None:
    """Make the door to the log of the embedded ToteSys as its SQL file says, once for each version of the file."""
    from totesys_assets.local.postgres import SUPERUSER
    from totesys_assets.local.sql_files import run_file, sql_folder

    file, noted = sql_folder() / _DOOR, _door_noted(source)
    if not file.is_file():  # installed without the checkout: ToteSys is compared only
        return
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not noted.exists() or noted.read_text(encoding="ascii") != digest:
        run_file(file.parent, file.name, source.url(TOTESYS), role=SUPERUSER)
        noted.write_text(digest, encoding="ascii")


def follow_log(settings: Settings) -> None:
    """From now on, the log of an embedded ToteSys is followed in this home, unless TOTESYS_LOG says otherwise.

    Where ToteSys has no door to it, nothing changes.
    """
    if not settings.totesys_url and _door_noted(embedded(settings)[0]).exists():
        (settings.home / LOG_FILE).touch()


def _door_noted(source: EmbeddedServer) -> Path:
    return source.folder / "door"


def refreshed(settings: Settings) -> Settings:
    """The settings, with what is noted in the home by now: the first day, and whether the log is followed."""
    if settings.totesys_url:
        return settings
    now = Settings.from_env()
    return replace(settings, first_day=now.first_day, follows_log=now.follows_log)
