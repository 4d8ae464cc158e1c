"""ToteSys, read only: one snapshot of all tables at a time.

Belongs here: connecting, the snapshot and its identity, the structure that the source really has. Does not belong
here: comparing anything, which is capture/.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb

from totesys_assets.catalogue.catalogue import Catalogue, Table, catalogue
from totesys_assets.days import DayRange
from totesys_assets.errors import SchemaDrift, UnsafeLogin, WrongDatabase
from totesys_assets.resources import engine

ALIAS = "totesys"
# Runs a SELECT, given as parameter, in the source; its result does not pass through Python.
READ = f"SELECT * FROM postgres_query('{ALIAS}', ?)"
# Values must not depend on the server's or the role's settings. row_security=off turns a filter into an error;
# a lock that somebody holds on a table must not hold us, and through us a backfill, for ever.
_SESSION = (
    "-c default_transaction_read_only=on -c row_security=off -c TimeZone=UTC -c DateStyle=ISO,YMD "
    "-c IntervalStyle=postgres -c extra_float_digits=1 -c lock_timeout=60000 -c statement_timeout=3600000 "
    "-c idle_in_transaction_session_timeout=3600000"
)

# xid text of the snapshot: unchanged text means that nothing whatever was committed in between. The timeline is in
# the name of the WAL file (pg_control_checkpoint() still gives the old one after a failover); a standby cannot tell it.
# Statistics outlive a clean restart and nothing else: their age tells of a crash, which may have taken commits back,
# and of a restored backup. After each of these, transaction ids may be given out a second time.
# The login is a superuser's also when it is only a member of such a role: SET ROLE is all that it takes.
_IDENTITY = """
SELECT pg_current_snapshot()::text AS snapshot,
    (SELECT system_identifier FROM pg_control_system()) || '/'
        || CASE WHEN pg_is_in_recovery() THEN 'standby'
                ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END || '/'
        || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/'
        || (SELECT coalesce(extract(epoch FROM stats_reset)::bigint, 0) FROM pg_stat_bgwriter) AS server,
    current_database() AS database, extract(epoch FROM pg_postmaster_start_time())::text AS started,
    to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.US') AS taken_at,
    EXISTS (SELECT FROM pg_roles WHERE rolsuper AND pg_has_role(session_user, oid, 'MEMBER')) AS superuser
"""

_STRUCTURE = """
SELECT c.relname AS table_name, a.attname AS column_name, format_type(a.atttypid, a.atttypmod) AS type,
    c.relkind::text AS kind, has_table_privilege(c.oid, 'SELECT') AS readable, row_security_active(c.oid) AS filtered,
    -- a column dropped and added anew has another number; a label may be renamed: rows then read as something else,
    -- though not one of them was written
    concat_ws(' ', a.attnum, (
        SELECT string_agg(quote_literal(enumlabel), ',' ORDER BY enumsortorder)
        FROM pg_enum WHERE enumtypid = a.atttypid
    )) AS identity
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""


@dataclass
class SourceTable:
    """What the source says of one of its tables: column name -> type, in ``format_type`` spelling.

    ``identities`` tells columns of the same name and type apart that are not the same: number, and an enum's labels.
    """

    columns: dict[str, str] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    kind: str = "r"
    readable: bool = True
    filtered: bool = False


@dataclass(frozen=True)
class Snapshot:
    """One REPEATABLE READ transaction of ToteSys: every read through ``connection`` sees the same instant.

    ``text`` is ``pg_current_snapshot()``; ``server`` tells one server, timeline and database from another, and what it
    was before a crash or a restore from what it is after; ``lifetime`` also one start of it from the next;
    ``generation``: see capture/generation.py; ``taken_at`` (naive UTC) is when it was taken, by the source's clock;
    ``scans`` are the scans made in it, which need not be made twice: see capture/fingerprint.py.
    """

    connection: duckdb.DuckDBPyConnection
    text: str
    server: str
    lifetime: str
    database: str
    taken_at: datetime
    tables: dict[str, SourceTable]
    generation: int = 0
    scans: dict[tuple[str, DayRange], list[tuple[Any, ...]]] = field(default_factory=dict)

    @property
    def xmin(self) -> int:
        """The first transaction id that was not finished yet: what this snapshot does not show has it, or a later."""
        return int(self.text.split(":")[0])

    @property
    def xmax(self) -> int:
        """The first transaction id that was not yet given out."""
        return int(self.text.split(":")[1])

    @property
    def order(self) -> int:
        """Greater than that of every snapshot of the same ``lifetime`` that saw less, whatever the clock says."""
        running = self.text.split(":")[2]
        return self.xmax * 1_000_000 - len(running.split(",")) * bool(running)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of one small SELECT, run by the source in the snapshot."""
        return self.connection.execute(READ, [sql]).fetchall()

    def require(self, table: Table) -> None:
        """Raise WrongDatabase or SchemaDrift unless ``table`` is there, readable and as the catalogue says."""
        found = self.tables.get(table.name)
        if found is None:
            others = ", ".join(f'"{name}"' for name in sorted(self.tables)[:5]) or "no tables at all"
            raise WrongDatabase(
                f'TOTESYS_URL points at database "{self.database}", which has no table "{table.name}" '
                f"(found: {others}). Set TOTESYS_URL to the ToteSys database."
            )
        if not found.readable:
            raise WrongDatabase(
                f'The login of TOTESYS_URL may not read table "{table.name}". '
                f'Grant it: GRANT SELECT ON "{table.name}" TO that role.'
            )
        # Said before PostgreSQL says it: its error would end the transaction, and with it the other tables' turn.
        if found.filtered:
            raise WrongDatabase(
                f'Row-level security of table "{table.name}" may hide rows from the login of TOTESYS_URL, and hidden '
                "rows look like deleted ones. Let it see them all: ALTER ROLE that role BYPASSRLS."
            )
        if found.kind not in ("r", "p"):
            raise WrongDatabase(
                f'"{table.name}" in database "{self.database}" is a view, and views hide changes. '
                "Set TOTESYS_URL to the database that holds the table."
            )
        self._require_columns(table, found.columns)

    def _require_columns(self, table: Table, found: dict[str, str]) -> None:
        expected = {column.name: column.type for column in table.columns}
        if found == expected:
            return
        differences = [f'"{name}" is missing' for name in expected if name not in found]
        differences += [f'"{name}" ({type_}) is new' for name, type_ in found.items() if name not in expected]
        differences += [
            f'"{name}" is {found[name]} instead of {type_}'
            for name, type_ in expected.items()
            if name in found and found[name] != type_
        ]
        raise SchemaDrift(
            f'Table "{table.name}" of ToteSys has changed: {"; ".join(differences)}. Nothing of it was captured. '
            "Change catalogue/totesys.sql (and the star SQL that should use it) to match, then refresh."
        )


class Totesys:
    """The source database behind a libpq URL. ``allow_superuser``: take a login that could do anything there."""

    def __init__(self, url: str, tables: Catalogue | None = None, *, allow_superuser: bool = False) -> None:
        self._url = url
        self._allow_superuser = allow_superuser
        self.catalogue = tables or catalogue()

    def __repr__(self) -> str:
        return "Totesys()"  # never the URL: it holds a password

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Open one snapshot; it ends, and its connection with it, when the context does.

        Raises ConnectionFailed, and UnsafeLogin for a superuser unless that is allowed.
        """
        connection = engine.connect()
        try:
            engine.attach(
                connection, ALIAS, self._url, variable="TOTESYS_URL", options=_SESSION, attach_options=", READ_ONLY"
            )
            connection.execute("BEGIN")
            yield self._take(connection)
        finally:
            engine.close(connection)

    def _take(self, connection: duckdb.DuckDBPyConnection) -> Snapshot:
        with engine.readable_errors("The snapshot of ToteSys could not be taken"):
            identity = connection.execute(_read(_IDENTITY)).fetchone()
            rows = connection.execute(_read(_STRUCTURE)).fetchall()
        assert identity is not None  # noqa: S101 - a SELECT without FROM has one row
        text, server, database, started, taken_at, superuser = identity
        if superuser and not self._allow_superuser:
            raise UnsafeLogin(
                "The login of TOTESYS_URL is a superuser or may become one, and the platform needs no more than to "
                "read 11 tables. Make a role for it with deploy/sql/source_reader.sql and log in as that, or set "
                "TOTESYS_ALLOW_SUPERUSER=1."
            )
        tables: dict[str, SourceTable] = {}
        for table, column, type_, kind, readable, filtered, identity in rows:
            found = tables.setdefault(table, SourceTable(kind=kind, readable=readable, filtered=filtered))
            found.columns[column] = type_
            found.identities[column] = identity
        lifetime = f"{server}/{started}"
        return Snapshot(connection, text, server, lifetime, database, datetime.fromisoformat(taken_at), tables)


def _read(sql: str) -> str:
    """READ of ``sql``, without a parameter: to see what a value is, DuckDB imports pandas, which takes half a second.

    A probe that finds nothing changed does not need it.
    """
    return READ.replace("?", engine.literal(sql))
