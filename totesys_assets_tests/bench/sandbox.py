"""The benchmark's sandbox: two embedded servers, a ToteSys that can be put back as it was, and an empty platform.

Belongs here: what is there before a measured program starts, and how large it is afterwards. Does not belong here:
measuring (meter.py), and what is measured (scenarios.py, competitors.py).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
from psycopg import sql

from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.databases import DAGSTER, TOTESYS, WAREHOUSE, Databases, databases
from totesys_assets.days import DayRange, partition_range
from totesys_assets.local.simulator import SALES
from totesys_assets.settings import Settings
from totesys_assets_tests.bench.meter import Program

REAL_SIZE = 11_187  # sales orders of the real ToteSys
SCALES = {"S": 1.0, "M": 1_000_000 / REAL_SIZE, "L": 10_000_000 / REAL_SIZE}
PRISTINE = "totesys_pristine"  # ToteSys as it was filled; every round begins with a copy of it
Report = Callable[[str], None]


def tables_of_totesys() -> dict[str, Table]:
    """The tables of ToteSys, by name. Other sources are as small at every scale."""
    return {name: table for name, table in catalogue().source.items() if table.group == TOTESYS}


@dataclass(frozen=True)
class Scale:
    """A size of ToteSys: S, M, L or a number, and the simulator's scale that it stands for."""

    name: str
    factor: float

    @classmethod
    def named(cls, name: str) -> Scale:
        """The scale of that name. Raises ValueError when it is neither a name nor a number above 0."""
        factor = SCALES.get(name.upper())
        if factor is not None:
            return cls(name.upper(), factor)
        if not 0 < float(name) < float("inf"):
            raise ValueError(f"{name} is not above 0")
        return cls(name, float(name))

    @property
    def sales_orders(self) -> int:
        """About how many sales orders it has."""
        return round(SALES * self.factor)


@dataclass(frozen=True)
class Sandbox:
    """All that one scale is measured on. The servers run for as long as the block of ``sandbox``.

    ``follows_log``: what is measured follows the log of ToteSys, and does not compare.
    """

    scale: Scale
    home: Path
    urls: Databases = field(repr=False)
    follows_log: bool = False

    def refresh(self, *arguments: str) -> Program:
        """``totesys refresh``, as a user starts it."""
        return self.command("refresh", "--json", *arguments)

    def command(self, *arguments: str) -> Program:
        """``totesys …``, on this sandbox."""
        foreign = ("TOTESYS_", "WAREHOUSE_", "LAKE_", "DAGSTER_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        argv = [sys.executable, "-m", "totesys_assets.cli", *arguments]
        ours = {"TOTESYS_HOME": str(self.home), "TOTESYS_LOG": "on" if self.follows_log else "off"}
        return Program(argv, {**env, **ours, "PYTHONUNBUFFERED": "1"})

    def reset(self) -> None:
        """Put ToteSys back as it was filled, and empty everything else: lake, warehouse, Dagster's database."""
        source = sql.SQL("TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(PRISTINE))
        with _administering(self.urls.totesys) as connection:  # a database with slots is not dropped
            slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
            connection.execute(slots, [TOTESYS])
        _recreate(self.urls.totesys, TOTESYS, source)
        for name in (WAREHOUSE, DAGSTER):
            _recreate(self.urls.warehouse, name)
        for folder in (self.home / "lake", self.home / "dagster"):
            shutil.rmtree(folder, ignore_errors=True)

    def target(self, name: str) -> str:
        """URL of a new empty database on the warehouse's server."""
        _recreate(self.urls.warehouse, name)
        parts = psycopg.conninfo.conninfo_to_dict(self.urls.warehouse)
        return psycopg.conninfo.make_conninfo("", **{**parts, "dbname": name})

    def drop(self, name: str) -> None:
        """Drop a database that ``target`` made."""
        with _administering(self.urls.warehouse) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def checkpoint(self) -> None:
        """Write out what earlier work has left in the servers' memory, lest the next program pays for it."""
        for url in (self.urls.totesys, self.urls.warehouse):
            with _administering(url) as connection:
                connection.execute("CHECKPOINT")

    @cached_property
    def postmasters(self) -> list[int]:
        """Process ids of both servers: parents of the processes that serve us."""
        found = []
        for url in (self.urls.totesys, self.urls.warehouse):
            with _administering(url) as connection:
                found.append(psutil.Process(connection.info.backend_pid).ppid())
        return found

    def postgres(self) -> str:
        """Version of the servers."""
        return str(self._one("SHOW server_version"))

    def rows(self) -> dict[str, int]:
        """How many rows each table of ToteSys has."""
        return {table: int(self._one(f"SELECT count(*) FROM {table}")) for table in tables_of_totesys()}

    def rows_of(self, days: DayRange) -> int:
        """How many rows of ToteSys belong to ``days``, of the tables that have days."""
        tables = [name for name, table in tables_of_totesys().items() if table.day_column]
        where = f"created_at >= '{days.first}' AND created_at < '{days.end}'"
        return sum(int(self._one(f"SELECT count(*) FROM {table} WHERE {where}")) for table in tables)

    def middle_day(self) -> date:
        """The day of the order in the middle."""
        day: date = self._one(
            "SELECT created_at::date FROM sales_order "
            "ORDER BY abs(sales_order_id - (SELECT max(sales_order_id) / 2 FROM sales_order)), sales_order_id LIMIT 1"
        )
        return day

    def days(self) -> DayRange:
        """All days that have a partition."""
        return partition_range(Settings.from_env({"TOTESYS_HOME": str(self.home)}).first_day)

    def lake_bytes(self) -> int:
        """Size of all files of the lake."""
        return sum(path.stat().st_size for path in (self.home / "lake").rglob("*") if path.is_file())

    def database_bytes(self, url: str) -> int:
        """Size of a database."""
        with psycopg.connect(url) as connection:
            return int(_single(connection, "SELECT pg_database_size(current_database())"))

    def events(self) -> int:
        """How many events Dagster has noted."""
        if self.urls.dagster is None:
            return 0
        with psycopg.connect(self.urls.dagster) as connection:
            if _single(connection, "SELECT to_regclass('event_logs')::text") is None:
                return 0
            return int(_single(connection, "SELECT count(*) FROM event_logs"))

    def _one(self, query: str) -> Any:
        with psycopg.connect(self.urls.totesys) as connection:
            return connection.execute(query.encode()).fetchall()[0][0]


@contextmanager
def sandbox(home: Path, scale: Scale, report: Report, *, follows_log: bool = False) -> Iterator[Sandbox]:
    """A filled ToteSys and an empty platform in ``home``; data that are there from before are used again."""
    settings = Settings.from_env({"TOTESYS_HOME": str(home)})
    with databases(settings, scale=scale.factor, report=report) as urls:
        made = Sandbox(scale, home, urls, follows_log)
        _keep_pristine(urls.totesys)
        made.reset()
        yield made


def _keep_pristine(url: str) -> None:
    """Set ToteSys aside as it was filled, in good order, unless that was done already."""
    with _administering(url) as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname = %s"
        if _single(connection, query, PRISTINE):
            return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
    with _administering(url) as connection:
        names = (sql.Identifier(TOTESYS), sql.Identifier(PRISTINE))
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names))


def _recreate(server: str, name: str, source: sql.Composable | None = None) -> None:
    with _administering(server) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), source or sql.SQL("")))


@contextmanager
def _administering(url: str) -> Iterator[psycopg.Connection]:
    """A connection to the server, outside of the databases that are measured."""
    with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
        yield connection


def _single(connection: psycopg.Connection, query: LiteralString, *parameters: str) -> Any:
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None
