"""What the full load is compared with: the yardstick, COPY through a pipe, and other tools, if they are installed.

All of them copy the eleven tables as they are into an empty database, and keep no history. Belongs here: how each is
started, at its fastest. Does not belong here: measuring them.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import psycopg
import psycopg.conninfo
from psycopg import sql

from totesys_assets.catalogue.catalogue import ddl
from totesys_assets.errors import PlatformError
from totesys_assets.local.postgres_programs import binaries
from totesys_assets_tests.bench.meter import Meter, Program
from totesys_assets_tests.bench.sandbox import Sandbox, tables_of_totesys

SCRIPTS = Path(__file__).with_name("peers")
COPY_FORMAT = "(FORMAT binary)"


class Competitor(Protocol):
    """Something that copies the eleven tables into an empty database."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def schema(self) -> str:
        """The schema that it copies into."""

    def unfit(self) -> str:
        """Why it cannot run here, or nothing."""

    def load(self, sandbox: Sandbox, target: str, meter: Meter) -> None:
        """Copy the tables to the database ``target``, under the meter."""


@dataclass(frozen=True)
class CopyPipe:
    """The yardstick: per table, one psql that copies out, piped into one that copies in; then the primary keys."""

    name: str = "copy"
    schema: str = "public"

    def unfit(self) -> str:
        """It can run wherever the embedded servers can."""
        return ""

    def load(self, sandbox: Sandbox, target: str, meter: Meter) -> None:
        """Make tables without keys, fill them one after the other, add the keys."""
        source = sandbox.urls.totesys
        meter.run(_psql(target, _tables_without_keys(source)))
        for table in tables_of_totesys():
            copy_out = _psql(source, f"COPY {table} TO STDOUT {COPY_FORMAT}")
            meter.run(copy_out, _psql(target, f"COPY {table} FROM STDIN {COPY_FORMAT}"))
        _add_keys(target, self.schema, meter)


@dataclass(frozen=True)
class Dlt:
    """dlt at its fastest: tables at once, read with ConnectorX, as Parquet, written with ADBC; then the same keys."""

    environment: Path
    name: str = "dlt"
    schema: str = "totesys"

    def unfit(self) -> str:
        """It needs its packages in the environment of the peers."""
        missing = [package for package in ("dlt", "connectorx", "adbc_driver_postgresql") if not self._has(package)]
        return f"{', '.join(missing)} not found in {self.environment}" if missing else ""

    def load(self, sandbox: Sandbox, target: str, meter: Meter) -> None:
        """Run its script with the Python of its own environment."""
        folder = _fresh(sandbox.home / self.name)
        env = {
            **_plain_environment(),
            "SOURCE_URL": _url(sandbox.urls.totesys),
            "TARGET_URL": _url(target),
            "TABLES": ",".join(tables_of_totesys()),
            "DATASET": self.schema,
            "DLT_DATA_DIR": str(folder),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
        }
        try:
            meter.run(Program([str(self.environment / "bin" / "python"), str(SCRIPTS / "dlt_load.py")], env))
            _add_keys(target, self.schema, meter)
        finally:
            shutil.rmtree(folder)

    def _has(self, package: str) -> bool:
        return any(self.environment.glob(f"lib/python3*/site-packages/{package}/__init__.py"))


@dataclass(frozen=True)
class Sling:
    """sling: a replication in mode full-refresh of its command-line program, two tables at once; then the same keys."""

    environment: Path
    name: str = "sling"
    schema: str = "public"

    def unfit(self) -> str:
        """It needs its program in the environment of the peers."""
        return "" if self._program() else f"sling not found in {self.environment}"

    def load(self, sandbox: Sandbox, target: str, meter: Meter) -> None:
        """Run its replication."""
        folder = _fresh(sandbox.home / self.name)
        replication = (SCRIPTS / "sling.yaml").read_text(encoding="utf-8")
        streams = "".join(f"  public.{table}:\n" for table in tables_of_totesys())
        (folder / "replication.yaml").write_text(replication + streams, encoding="utf-8")
        env = {
            **_plain_environment(),
            "BENCH_SOURCE": f"{_url(sandbox.urls.totesys)}?sslmode=disable",
            "BENCH_TARGET": f"{_url(target)}?sslmode=disable",
            "SLING_HOME_DIR": str(folder),
            "SLING_DISABLE_TELEMETRY": "true",
            "SLING_THREADS": "2",
            "HOME": str(folder),
        }
        try:
            meter.run(Program([str(self._program()), "run", "-r", str(folder / "replication.yaml")], env))
            _add_keys(target, self.schema, meter)
        finally:
            shutil.rmtree(folder)

    def _program(self) -> Path | None:
        return next(iter(self.environment.glob("lib/python3*/site-packages/sling_*/bin/sling-*")), None)


def _add_keys(target: str, schema: str, meter: Meter) -> None:
    """The primary keys of the eleven tables, behind their rows, as part of the load: none of the tools makes them."""
    tables = tables_of_totesys().values()
    keys = (f"ALTER TABLE {schema}.{table.name} ADD PRIMARY KEY ({table.key})" for table in tables)
    meter.run(_psql(target, *keys))


def peers(environment: Path) -> list[Competitor]:
    """The other tools, of the virtual environment that holds them."""
    folder = environment.absolute()
    return [Dlt(folder), Sling(folder)]


def check(competitor: Competitor, target: str, expected: dict[str, int]) -> None:
    """Raise PlatformError unless every table has arrived with all its rows: speed without the rows is none."""
    with psycopg.connect(target) as connection:
        for table, rows in expected.items():
            count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(competitor.schema, table))
            found = connection.execute(count).fetchone()
            if found != (rows,):
                raise PlatformError(f"{competitor.name} left {found and found[0]} rows in {table} instead of {rows}.")


def _tables_without_keys(url: str) -> str:
    """DDL of the tables of ToteSys: their types, and columns without defaults, references and keys."""
    types = re.findall(r"^CREATE TYPE .*?;", ddl("totesys.sql"), re.MULTILINE | re.DOTALL)
    query = (
        "SELECT format('CREATE TABLE %%I (%%s);', relname, string_agg(format('%%I %%s%%s', attname, "
        "format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END), ', ' ORDER BY attnum)) "
        "FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s) AND attnum > 0 AND NOT attisdropped "
        "GROUP BY relname"
    )
    with psycopg.connect(url) as connection:
        tables = [str(row[0]) for row in connection.execute(query, [list(tables_of_totesys())])]
    return "\n".join([*types, *tables])


def _psql(url: str, *statements: str) -> Program:
    """A psql that runs the statements; the password goes through the environment."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    secret = {"PGPASSWORD": str(parts.pop("password"))} if parts.get("password") else {}
    commands = [part for statement in statements for part in ("-c", statement)]
    where = psycopg.conninfo.make_conninfo("", **parts)
    argv = [str(binaries() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", where, *commands]
    return Program(argv, {**_plain_environment(), **secret})


def _url(conninfo: str) -> str:
    """The address in the form of a URL, which is all that other tools read."""
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    login = f"{parts['user']}:{quote(str(parts['password']), safe='')}"
    return f"postgresql://{login}@{parts['host']}:{parts['port']}/{parts['dbname']}"


def _plain_environment() -> dict[str, str]:
    """The environment without what would point a PostgreSQL client, or one of the tools, elsewhere."""
    foreign = re.compile(r"PG|DLT_|SLING_|DESTINATION__|SOURCES__|PYTHON|COV")
    return {name: value for name, value in os.environ.items() if not foreign.match(name)}


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
