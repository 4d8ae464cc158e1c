"""ToteSys, read only: one snapshot of all tables at a time.

Belongs here: connecting, locking the tables, taking the snapshot. Does not belong here: what a snapshot tells
(snapshot.py), and comparing anything, which is capture/.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Catalogue, catalogue
from totesys_assets.errors import PlatformError, TableBusy, UnsafeLogin
from totesys_assets.names import TOTESYS
from totesys_assets.postgres.session_settings import check_query, require, set_local
from totesys_assets.settings import Settings
from totesys_assets.source.totesys.log import Log
from totesys_assets.source.totesys.remembered import Remembered
from totesys_assets.source.totesys.snapshot import ALIAS, Snapshot, read
from totesys_assets.source.totesys.structure import source_tables, structure_query
from totesys_assets.source.totesys.table_locks import LOCK_TIMEOUT, busy, lock_statement
from totesys_assets.sql_text import literal
from totesys_assets.variables import IGNORE

VARIABLE = "TOTESYS_URL"
# In the home.
_REMEMBERED = "looked_at"
# Of locking all tables, before giving up: others come and go meanwhile.
_ATTEMPTS = 3
# xid text of the snapshot: unchanged text means that nothing whatever was committed in between. The timeline is in the
# name of the WAL file (pg_control_checkpoint() still gives the old one after a failover); a standby cannot tell it.
# Statistics survive only a clean restart. Their age shows a crash, which may have lost commits, and a restored backup.
# After each of these, transaction ids may be given out a second time. A login that is a member of a superuser's role
# counts as a superuser, because it can SET ROLE. The text of a standby's snapshot names no running transactions, and
# does not change when one of them is committed. There the position in the WAL up to which changes were replayed shows
# the commit.
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


class Totesys:
    """The source database behind a libpq URL, with its tables in ``schema``.

    ``allow_superuser``: take a login that could do anything there. ``ignores_new``: see ``Snapshot``. ``remembered``: a
    file for what looks find (remembered.py). ``log``: its log. ``keeps_session``: the next snapshot is taken in the
    session of the last, until ``close``; then it is used by one thread at a time.
    """

    def __init__(
        self,
        url: str,
        tables: Catalogue | None = None,
        *,
        allow_superuser: bool = False,
        schema: str = "public",
        ignores_new: bool = True,
        remembered: Path | None = None,
        log: Log | None = None,
        keeps_session: bool = False,
    ) -> None:
        self._url = url
        self.log = log
        self._keeps_session, self._kept = keeps_session, list[duckdb.DuckDBPyConnection]()
        self._allow_superuser, self._ignores_new = allow_superuser, ignores_new
        self._remembered = Remembered(remembered)
        self.schema = schema
        self.catalogue = tables or catalogue()
        self.name = TOTESYS
        self.tables = {name: table for name, table in self.catalogue.source.items() if table.group == self.name}

    @classmethod
    def of(cls, settings: Settings, url: str, *, keeps_session: bool = False) -> Totesys:
        """ToteSys at ``url``, with what the environment says of it."""
        return cls(
            url,
            allow_superuser=settings.superuser_allowed,
            schema=settings.totesys_schema,
            ignores_new=settings.new_columns == IGNORE,
            remembered=settings.home / _REMEMBERED,
            log=Log(url, schema=settings.totesys_schema, wanted=settings.follows_log),
            keeps_session=keeps_session,
        )

    def __repr__(self) -> str:
        return "Totesys()"  # never the URL: it holds a password

    def close(self) -> None:
        """End the sessions that are kept, and those with the log. They are opened again when they are needed."""
        while self._kept:
            engine.close(self._kept.pop())
        if self.log is not None:
            self.log.close()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Open one snapshot; it ends, and its connection with it, when the context does.

        Tables that another session has for itself are left out: ``Snapshot.require`` says who that is. Raises
        ConnectionFailed, and UnsafeLogin for a superuser unless that is allowed.
        """
        names: Collection[str] = self.tables.keys()
        held: dict[str, str] = {}
        for _ in range(_ATTEMPTS):
            with self._begun() as connection:
                if self._lock(connection, names):
                    self._remembered.read_again()
                    try:
                        yield self._take(connection, names, held)
                    finally:
                        self._remembered.save()
                    return
            names, held = busy(self._url, VARIABLE, self.schema, self.tables.keys())
        who = "; ".join(f'"{name}": {clause}' for name, clause in held.items())
        raise TableBusy(f"The tables of ToteSys could not be locked, {_ATTEMPTS} times. Refresh again. {who}".rstrip())

    @contextmanager
    def _begun(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A session of DuckDB with the server in a new transaction, which has shown nothing yet; it ends as this does.

        What the last snapshot left is tried first. It is not kept after an error.
        """
        attached, connection = self._again() or self._anew()
        is_kept = False
        try:
            yield connection
            is_kept = self._keeps_session
        finally:
            engine.close(connection)
            if is_kept:
                self._kept.append(attached)
            else:
                engine.close(attached)

    def _again(self) -> tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection] | None:
        """The session that was kept, in a new transaction. None if there is none, or it was ended since."""
        if not self._kept:
            return None
        attached = self._kept.pop()
        connection = engine.another(attached)
        try:
            _begin(connection)
        except duckdb.Error:
            engine.close(connection)
            engine.close(attached)
            return None
        return attached, connection

    def _anew(self) -> tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection]:
        """A new session, in a transaction: what the server is attached to, and a connection of it."""
        attached = engine.connect()
        try:
            engine.attach(attached, ALIAS, self._url, variable=VARIABLE)
            connection = engine.another(attached)
            with engine.readable_errors("The snapshot of ToteSys could not be taken"):
                _begin(connection)
        except BaseException:
            engine.close(attached)
            raise
        return attached, connection

    def _lock(self, connection: duckdb.DuckDBPyConnection, names: Collection[str]) -> bool:
        """Lock the tables. False when that fails: then the transaction is over."""
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
                _begin(connection)
                if not self._lock(connection, names):
                    raise TableBusy("A table of ToteSys was locked just before its snapshot was taken: refresh again.")
                row = _identity(connection)
                if row["started"] != started:
                    raise PlatformError("TOTESYS_URL leads to several servers in turn: let it lead to one of them.")
            columns = connection.execute(read(structure_query(self.schema, self.tables.keys()))).fetchall()
        if row["superuser"] and not self._allow_superuser:
            raise UnsafeLogin(
                "The login of TOTESYS_URL is a superuser or may become one, and the platform needs no more than to "
                f"read {len(self.tables)} tables. Make a role for it with deploy/sql/source_reader.sql and log in as "
                "that, or set TOTESYS_ALLOW_SUPERUSER=1."
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
            remembered=self._remembered,
            source_log=self.log,
        )


def _identity(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The row of _IDENTITY, which is what takes the snapshot; the settings of the transaction are checked."""
    result = connection.execute(read(_IDENTITY))
    names = [column[0] for column in result.description]
    row = result.fetchone() or ()
    settings = names.index("replayed") + 1
    require(row[settings:], VARIABLE, LOCK_TIMEOUT)
    return dict(zip(names[:settings], row, strict=False))


def _begin(connection: duckdb.DuckDBPyConnection) -> None:
    """Begin a transaction with our settings. Raises duckdb.Error, also where the session's last one did not end.

    That is what NOT DEFERRABLE is for: it cannot be said any more once a transaction has a snapshot.
    """
    connection.execute("BEGIN")
    _run(connection, f"SET TRANSACTION READ ONLY, NOT DEFERRABLE; {set_local(LOCK_TIMEOUT)}")


def _run(connection: duckdb.DuckDBPyConnection, statements: str) -> None:
    """Run statements that return nothing in the source, in one go."""
    connection.execute(f"CALL postgres_execute('{ALIAS}', {literal(statements)})")
