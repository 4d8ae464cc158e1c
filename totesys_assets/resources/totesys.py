"""ToteSys, read only: one snapshot of all tables at a time.

Belongs here: connecting, the snapshot and its identity, the structure that the source really has. Does not belong
here: comparing anything, which is capture/.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb

from totesys_assets.catalogue.catalogue import Catalogue, Table, catalogue
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError, SchemaDrift, TableBusy, UnsafeLogin, WrongDatabase
from totesys_assets.resources import engine
from totesys_assets.resources.session_settings import check_query, require, set_local
from totesys_assets.resources.source_structure import SourceTable, others_query, source_tables, structure_query
from totesys_assets.resources.table_locks import LOCK_TIMEOUT, busy, lock_statement, relation
from totesys_assets.settings import IGNORE, Settings

ALIAS = "totesys"
VARIABLE = "TOTESYS_URL"
# Runs a SELECT, given as parameter, in the source; its result does not pass through Python.
READ = f"SELECT * FROM postgres_query('{ALIAS}', ?)"
# Of locking all tables, before giving up: others come and go meanwhile.
_ATTEMPTS = 3
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}

# xid text of the snapshot: unchanged text means that nothing whatever was committed in between. The timeline is in
# the name of the WAL file (pg_control_checkpoint() still gives the old one after a failover); a standby cannot tell it.
# Statistics outlive a clean restart and nothing else: their age tells of a crash, which may have taken commits back,
# and of a restored backup. After each of these, transaction ids may be given out a second time.
# The login is a superuser's also when it is only a member of such a role: SET ROLE is all that it takes.
# The text of a standby's snapshot names no transaction that is under way, and stays the same when one of these is
# committed: there the position in the WAL up to which changes were replayed tells of it.
_IDENTITY = f"""
SELECT pg_current_snapshot()::text AS snapshot,
    (SELECT system_identifier FROM pg_control_system()) || '/'
        || CASE WHEN pg_is_in_recovery() THEN 'standby'
                ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END || '/'
        || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/'
        || (SELECT coalesce(extract(epoch FROM stats_reset)::bigint, 0) FROM pg_stat_bgwriter) AS server,
    current_database()::text AS database, extract(epoch FROM pg_postmaster_start_time())::text AS started,
    to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.US') AS taken_at,
    EXISTS (SELECT FROM pg_roles WHERE rolsuper AND pg_has_role(session_user, oid, 'MEMBER')) AS superuser,
    current_setting('server_encoding') AS encoding, pg_backend_pid() AS process,
    CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END AS replayed,
    settings.*
FROM ({check_query(LOCK_TIMEOUT)}) AS settings
"""
# Of the order of a standby's snapshots: room for what tells two apart that ended at the same position.
_PROCESSES = 1024


@dataclass(frozen=True)
class Snapshot:
    """One REPEATABLE READ transaction of ToteSys: every read through ``connection`` sees the same instant.

    ``text`` is ``pg_current_snapshot()``; ``server`` tells one server, timeline and database from another, and what it
    was before a crash or a restore from what it is after; ``lifetime`` also one start of it from the next;
    ``generation``: see capture/generation.py; ``taken_at`` (naive UTC) is when it was taken, by the source's clock;
    ``scans`` are the scans made in it, which need not be made twice: see capture/fingerprint.py. All ``tables`` were
    locked before it was taken but for the ``held`` ones, of which a clause says who has them. ``schema`` is where they
    are, ``encoding`` that of their text. ``replayed``, of a standby: the positions in the WAL up to which it had
    replayed the primary's changes before and after the snapshot was taken; ``process`` is the server's for it.
    ``ignores_new``: a nullable column that the catalogue has not is left out, and does not stop its table.
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
    schema: str = "public"
    encoding: str = "UTF8"
    held: dict[str, str] = field(default_factory=dict)
    replayed: tuple[int, int] | None = None
    process: int = 0
    ignores_new: bool = True

    @property
    def instant(self) -> str:
        """Equal for two snapshots of which the second shows nothing that the first does not, and is read alike."""
        read = f"{self.schema} {'known' if self.ignores_new else 'all'}"
        return f"{self.lifetime} {read} {self.text}" + (f" {self.replayed[0]}" if self.replayed else "")

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
        """What is noted with what is captured, for ``is_overtaken``."""
        if self.replayed:
            return self.replayed[1] * _PROCESSES + self.process % _PROCESSES
        running = self.text.split(":")[2]
        return self.xmax * 1_000_000 - len(running.split(",")) * bool(running)

    def is_overtaken(self, order: int) -> bool:
        """True if another snapshot of the same ``lifetime``, of this ``order``, may show more, whatever clocks say.

        A standby does not tell at which position a snapshot was taken, only two between which it was: one of which
        the end lies behind this one's beginning may be a later one.
        """
        if self.replayed:
            return order != self.order and order >= (self.replayed[0] + 1) * _PROCESSES
        return order > self.order

    def relation(self, table: Table) -> str:
        """The source table by its full name, for SQL."""
        return relation(self.schema, table.name)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of one small SELECT, run by the source in the snapshot."""
        return self.connection.execute(READ, [sql]).fetchall()

    def require(self, table: Table) -> None:
        """Raise WrongDatabase, TableBusy or SchemaDrift unless ``table`` is there, readable and as it should be."""
        found = self.tables.get(table.name)
        if found is None:
            there = self.rows(others_query(self.schema, self.tables))
            others = ", ".join(f'"{name}"' for (name,) in there) or "no tables at all"
            raise WrongDatabase(
                f'TOTESYS_URL points at database "{self.database}", which has no table "{table.name}" in schema '
                f'"{self.schema}" (found: {others}). Set TOTESYS_URL to the ToteSys database, and TOTESYS_SCHEMA if '
                "its tables are in another schema."
            )
        if not found.readable:
            raise WrongDatabase(
                f'The login of TOTESYS_URL may not read table "{table.name}". '
                f"Grant it: GRANT SELECT ON {self.relation(table)} TO that role, and USAGE on the schema."
            )
        # Said before PostgreSQL says it: its error would end the transaction, and with it the other tables' turn.
        if found.filtered:
            raise WrongDatabase(
                f'Row-level security of table "{table.name}" may hide rows from the login of TOTESYS_URL, and hidden '
                "rows look like deleted ones. Let it see them all: ALTER ROLE that role BYPASSRLS."
            )
        self._require_kind(table, found)
        if not found.locked:
            why = self.held.get(table.name, "it got another part while the snapshot was taken")
            raise TableBusy(f'Table "{table.name}" is left for the next refresh: {why}.')
        # One that must have a value is no addition: rows mean something else since.
        left_out = [name for name in found.columns if name not in table.by_name and name not in found.required]
        known = {name: type_ for name, type_ in found.columns.items() if not (self.ignores_new and name in left_out)}
        self._require_columns(table, known)

    def _require_kind(self, table: Table, found: SourceTable) -> None:
        """Refuse what hides changes: changes are known by the transaction ids that heap tables keep of their rows."""
        why = None
        if kind := _KINDS.get(found.kind):
            why = f"is {kind}, and such a relation hides changes. Set TOTESYS_URL to the database that holds the table"
        elif found.odd_part:
            why = "has a part that is a foreign table, and foreign tables hide changes. Detach it"
        elif found.odd_storage:
            why = (
                f"is stored by the access method {found.odd_storage}, which may hide changes. "
                "Only heap tables can be captured"
            )
        elif computed := [column.name for column in table.columns if column.name in found.computed]:
            why = (
                f'has a column that is computed when it is read, "{computed[0]}", and such a column hides changes. '
                "Let ToteSys store it (GENERATED ALWAYS AS … STORED)"
            )
        if why:
            raise WrongDatabase(f'"{table.name}" in database "{self.database}" {why}.')

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
    """The source database behind a libpq URL, with its tables in ``schema``.

    ``allow_superuser``: take a login that could do anything there. ``ignores_new``: see ``Snapshot``.
    """

    def __init__(
        self,
        url: str,
        tables: Catalogue | None = None,
        *,
        allow_superuser: bool = False,
        schema: str = "public",
        ignores_new: bool = True,
    ) -> None:
        self._url = url
        self._allow_superuser, self._ignores_new = allow_superuser, ignores_new
        self.schema = schema
        self.catalogue = tables or catalogue()

    @classmethod
    def of(cls, settings: Settings, url: str) -> Totesys:
        """ToteSys at ``url``, with what the environment says of it."""
        return cls(
            url,
            allow_superuser=settings.superuser_allowed,
            schema=settings.totesys_schema,
            ignores_new=settings.new_columns == IGNORE,
        )

    def __repr__(self) -> str:
        return "Totesys()"  # never the URL: it holds a password

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Open one snapshot; it ends, and its connection with it, when the context does.

        Tables that another session has for itself are left out: ``Snapshot.require`` says who that is. Raises
        ConnectionFailed, and UnsafeLogin for a superuser unless that is allowed.
        """
        names: Collection[str] = self.catalogue.source.keys()
        held: dict[str, str] = {}
        for _ in range(_ATTEMPTS):
            connection = engine.connect()
            try:
                engine.attach(connection, ALIAS, self._url, variable=VARIABLE)
                if self._begin(connection, names):
                    yield self._take(connection, names, held)
                    return
            finally:
                engine.close(connection)
            names, held = busy(self._url, VARIABLE, self.schema, self.catalogue.source.keys())
        who = "; ".join(f'"{name}": {clause}' for name, clause in held.items())
        raise TableBusy(f"The tables of ToteSys could not be locked, {_ATTEMPTS} times. Refresh again. {who}".rstrip())

    def _begin(self, connection: duckdb.DuckDBPyConnection, names: Collection[str]) -> bool:
        """Begin the transaction, and lock the tables. False when that fails: then the transaction is over."""
        connection.execute("BEGIN")
        with engine.readable_errors("The snapshot of ToteSys could not be taken"):
            _run(connection, f"SET TRANSACTION READ ONLY; {set_local(LOCK_TIMEOUT)}")
        try:
            if names:
                _run(connection, lock_statement(self.schema, names))
        except duckdb.Error:
            return False
        return True

    def _take(self, connection: duckdb.DuckDBPyConnection, names: Collection[str], held: dict[str, str]) -> Snapshot:
        with engine.readable_errors("The snapshot of ToteSys could not be taken"):
            row = _identity(connection)
            before = row["replayed"]
            if before is not None:
                # A standby: what was read is a position from before the snapshot that counts, a new one.
                connection.execute("ROLLBACK")
                started = row["started"]
                if not self._begin(connection, names):
                    raise TableBusy("A table of ToteSys was locked just before its snapshot was taken: refresh again.")
                row = _identity(connection)
                if row["started"] != started:
                    raise PlatformError("TOTESYS_URL leads to several servers in turn: let it lead to one of them.")
            columns = connection.execute(_read(structure_query(self.schema, self.catalogue.source.keys()))).fetchall()
        if row["superuser"] and not self._allow_superuser:
            raise UnsafeLogin(
                "The login of TOTESYS_URL is a superuser or may become one, and the platform needs no more than to "
                "read 11 tables. Make a role for it with deploy/sql/source_reader.sql and log in as that, or set "
                "TOTESYS_ALLOW_SUPERUSER=1."
            )
        return Snapshot(
            connection,
            row["snapshot"],
            row["server"],
            f"{row['server']}/{row['started']}",
            row["database"],
            datetime.fromisoformat(row["taken_at"]),
            source_tables(columns),
            schema=self.schema,
            encoding=row["encoding"],
            held=held,
            replayed=None if before is None or row["replayed"] is None else (before, row["replayed"]),
            process=row["process"],
            ignores_new=self._ignores_new,
        )


def _identity(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The row of _IDENTITY, which is what takes the snapshot; the settings of the transaction are checked."""
    result = connection.execute(_read(_IDENTITY))
    names = [column[0] for column in result.description]
    row = result.fetchone() or ()
    settings = names.index("replayed") + 1
    require(row[settings:], VARIABLE, LOCK_TIMEOUT)
    return dict(zip(names[:settings], row, strict=False))


def _run(connection: duckdb.DuckDBPyConnection, statements: str) -> None:
    """Run statements that return nothing in the source, in one go."""
    connection.execute(f"CALL postgres_execute('{ALIAS}', {engine.literal(statements)})")


def _read(sql: str) -> str:
    """READ of ``sql``, without a parameter: to see what a value is, DuckDB imports pandas, which takes half a second.

    A probe that finds nothing changed does not need it.
    """
    return READ.replace("?", engine.literal(sql))
