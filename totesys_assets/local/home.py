"""The home: the folder in which the platform lives on one machine, and the embedded databases in it.

Belongs here: which databases are embedded, filling the embedded ToteSys once, Dagster's folder. Does not belong here:
how a server is run (postgres.py) and what ToteSys is filled with (simulator.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

import psycopg

from totesys_assets.errors import PlatformError
from totesys_assets.local import homes
from totesys_assets.settings import FIRST_DAY_FILE, Settings

TOTESYS, WAREHOUSE, DAGSTER = "totesys", "warehouse", "dagster"
DAGSTER_URL_VARIABLE = "TOTESYS_DAGSTER_URL"
# Touched in the home by who is about to stop Dagster: a tick of the sensor that waits ends at once.
STOPPING_FILE = "stopping"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Databases:
    """URLs of the databases in use; ``dagster`` is None when nothing of it is embedded. They hold passwords."""

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
) -> Iterator[Databases]:
    """The databases that the settings name; those not named are embedded, and run for as long as the block.

    ToteSys alone has a server of its own: in life it is someone else's, and the probe for changes is per server. An
    embedded ToteSys is filled at its first use, at ``scale``. Only with ``create`` is a home made where none is; only
    with ``dagster`` is there a database for Dagster's records, unless DAGSTER_HOME says where those are.
    Raises NoHome, EmbeddedError, ConnectionFailed.
    """
    records = dagster and "DAGSTER_HOME" not in os.environ
    if settings.totesys_url and settings.warehouse_url and not records:
        yield Databases(settings.totesys_url, settings.warehouse_url)
        return
    from totesys_assets.local.postgres import EmbeddedServer, lease  # here: not needed where nothing is embedded

    say = report or (lambda _: None)
    folder = settings.home / "postgres"
    source = EmbeddedServer(folder / TOTESYS)
    # What a power cut may take, the last moment's commits, the next refresh finds missing and loads again.
    ours = EmbeddedServer(folder / WAREHOUSE, {"synchronous_commit": "off"})
    servers = [*([] if settings.totesys_url else [source]), *([] if settings.warehouse_url and not records else [ours])]
    if create:
        homes.prepare(settings.home)
    else:
        homes.require(settings.home, all((server.folder / "data").is_dir() for server in servers))
    if not folder.exists():
        say("Starting the embedded PostgreSQL for the first time")
    if settings.totesys_url and settings.warehouse_url:
        say(f"Starting an embedded PostgreSQL for Dagster's records ({folder}); DAGSTER_HOME keeps them elsewhere")
    with lease(servers, folder / "lease"):
        with _alone(folder / "fill"):
            if source in servers:
                source.create_database(TOTESYS)
                _fill(source.url(TOTESYS), settings.home, scale, say)
            if ours in servers:
                ours.create_database(WAREHOUSE)
                ours.create_database(DAGSTER)
        homes.remember(settings.home)
        yield Databases(
            totesys=settings.totesys_url or source.url(TOTESYS),
            warehouse=settings.warehouse_url or ours.url(WAREHOUSE),
            dagster=ours.url(DAGSTER) if ours in servers else None,
        )


@contextmanager
def warehouse_only(settings: Settings, report: Report | None = None) -> Iterator[str]:
    """The warehouse's URL for the block; one of one's own needs nothing embedded beside it. Raises NoHome."""
    if settings.warehouse_url:
        yield settings.warehouse_url
        return
    with databases(settings, create=False, dagster=False, report=report) as urls:
        yield urls.warehouse


def _fill(url: str, home: Path, scale: float, say: Report) -> None:
    """Create and fill ToteSys unless it is there, and note its first day, where the partitions begin."""
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
        noted.write_text(f"{row[0]}\n", encoding="ascii")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def refreshed(settings: Settings) -> Settings:
    """The settings with the first day that the home has noted by now."""
    return replace(settings, first_day=Settings.from_env().first_day) if not settings.totesys_url else settings


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold ``lock`` for the block. Raises PlatformError, naming the process that holds it."""
    homes.prepare(lock.parent)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise PlatformError(
                f"{what} is already running on {lock.parent} ({file.read().strip() or 'no process noted'}). "
                "Stop it with Ctrl-C there, or set TOTESYS_HOME to another folder."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def dagster_home(settings: Settings, urls: Databases) -> Path:
    """Dagster's folder: DAGSTER_HOME if set, else one in the home, configured for the embedded PostgreSQL.

    Sets the environment so that this process, and those that it starts, use it.
    """
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    # Events are stored in batches: a full load of two years is 9,000 materialisations.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "500")
    if "DAGSTER_HOME" in os.environ:
        return Path(os.environ["DAGSTER_HOME"])
    folder = settings.home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    config = resources.files(__package__).joinpath("dagster.yaml").read_text(encoding="utf-8")
    if urls.dagster is not None:
        os.environ[DAGSTER_URL_VARIABLE] = urls.dagster
    (folder / "dagster.yaml").write_text(config, encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder
