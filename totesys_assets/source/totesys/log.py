"""PostgreSQL's log of ToteSys, followed in a slot through the door that deploy/sql/source_log.sql makes for a reader.

Belongs here: what the server says of its log and of our slot; beginning, reading, forgetting and finishing it. Does not
belong here: what the messages mean (pgoutput.py), and what is kept of them, which is capture/.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb
import pyarrow as pa

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.errors import LogBusy, LogGone, LogUnreadable, PlatformError
from totesys_assets.libpq import unreachable
from totesys_assets.names import TOTESYS
from totesys_assets.postgres.session_settings import lift_limits, open_session, set_local
from totesys_assets.source.totesys.log_needs import Need, needs
from totesys_assets.source.totesys.log_state import LogState, plain, state_query
from totesys_assets.source.totesys.pgoutput import CUT, ROWS
from totesys_assets.sql_text import literal

if TYPE_CHECKING:
    import psycopg

VARIABLE = "TOTESYS_URL"
DOOR = "deploy/sql/source_log.sql"
_ALIAS = "totesys_log"
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY, NOT DEFERRABLE"
# Of what takes milliseconds: a server that is late with it is busy, which is no reason to give up following.
_QUICK = "60s"
# Making a slot waits for every transaction that is open; who has one open for longer keeps the log from beginning.
_BEGIN_TIMEOUT = "30s"
# A peek reads all that the server wrote since the slot's position, for whatever database: 12 ms a MB. Forgetting reads
# it too, for less than a millisecond a MB if it is in the server's memory.
_PEEK_TIMEOUT = "30min"
# Of a larger row, the server gives only what it is a row of: it is left to a comparison, and not carried.
_MOST_BYTES = 65_536
_PEEKED = """
SELECT CASE WHEN octet_length(message) > {most} AND get_byte(message, 0) IN ({rows}) THEN substr(message, 1, {kept})
    ELSE message END AS message
FROM {peek} AS peeked (message)
"""
# The door says it in these words, whatever the language of the server's own messages.
_SAID: Mapping[str, type[PlatformError]] = {"in use": LogBusy, "gone": LogGone, "unreadable": LogUnreadable}
_CHECK = "`totesys log check` says what is missing."
_TO_DO: Mapping[type[PlatformError], str] = {
    PlatformError: _CHECK,
    LogBusy: "Wait until that session is done.",
    LogGone: _CHECK,
    LogUnreadable: "Its tables are compared instead.",
}


class Log:
    """The log of the ToteSys behind a libpq URL, in the slot ``slot``. Its sessions stay open until ``close``.

    ``schema`` and ``tables`` are those of ToteSys that ``state`` is to tell of. ``wanted``: it is to be followed.
    """

    def __init__(
        self,
        url: str,
        slot: str = "",
        *,
        schema: str = "public",
        tables: Collection[str] | None = None,
        wanted: bool = True,
    ) -> None:
        self._url, self.slot, self.schema, self.wanted = url, slot, schema, wanted
        self.tables = tables if tables is not None else _of_totesys()
        self._session: psycopg.Connection[tuple[object, ...]] | None = None
        self._duckdb: duckdb.DuckDBPyConnection | None = None

    def __repr__(self) -> str:
        return f"Log({self.slot!r})"  # never the URL: it holds a password

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the sessions. They are opened again when they are needed."""
        self._close_reader()
        if self._session is not None:
            self._session.close()
            self._session = None

    def state(self) -> LogState:
        """What the server says of its log, the door, the publication and the slot, in one round trip.

        Raises ConnectionFailed, and PlatformError for a server older than PostgreSQL 13.
        """
        ((found,),) = self._ask(state_query(self.slot, self.schema, self.tables), _QUICK)
        return LogState.of(found)

    def needs(self, state: LogState) -> list[Need]:
        """What following the log needs of the server, and what of it is missing in ``state``."""
        return needs(state, self.tables, self.schema)

    def begin(self) -> int:
        """Make the slot: from the position that is returned on, the server keeps its log for us.

        Waits, for up to half a minute, for the transactions that are open. Raises PlatformError where that is too
        long, where there is a slot of this name, none is free, the server's log has no limit, or there is no door.
        """
        begin = f"totesys_log.begin({plain(self.slot)})"
        try:
            ((position,),) = self._ask(f"SELECT ({begin} - '0/0'::pg_lsn)::bigint", _BEGIN_TIMEOUT)
        except LogGone as error:  # the server is not as it must be; nothing is gone that was not there yet
            raise PlatformError(str(error)) from None
        return int(position)

    def peek(self, until: int, most: int) -> pa.Array[pa.BinaryScalar]:
        """Messages of pgoutput up to position ``until``, whole transactions: an array of binary. See ``batches``."""
        return pa.concat_arrays([pa.array([], pa.binary()), *self.batches(until, most)])

    def batches(self, until: int, most: int) -> Iterator[pa.Array[pa.BinaryScalar]]:
        """What ``peek`` returns, in arrays of at most ``engine.BATCH_ROWS`` messages, as they come from the server.

        A transaction is never cut: the last one may exceed ``most``, and end a little after ``until``. Nothing is
        forgotten, and what is not needed any more need not be read to its end. Of a row of more than 64 KiB only the
        first ``CUT`` bytes are given. The text in the messages is UTF-8, whatever the encoding of the database.
        Raises LogBusy while another session reads the slot, LogGone where it is missing or lost, LogUnreadable where a
        value has no form in UTF-8, ConnectionFailed, and PlatformError where there is no door.
        """
        peek = f"totesys_log.peek({plain(self.slot)}, {literal(_lsn(until))}, {most:d})"
        query = _PEEKED.format(peek=peek, rows=", ".join(map(str, ROWS)), most=_MOST_BYTES, kept=CUT)
        try:
            reader = self._begun()
            found = reader.execute(f"SELECT message FROM postgres_query('{_ALIAS}', {literal(query)})")
            for batch in engine.batches(found):
                yield batch.column(0)
            reader.execute("COMMIT")
        except duckdb.Error as error:
            self._close_reader()
            raise _explained(engine.reason(error)) from None
        except BaseException:  # the caller has enough, or was interrupted
            self._close_reader()
            raise

    def forget(self, upto: int) -> None:
        """Let the server keep no more of the log than what lies after position ``upto``; whoever was quicker, was.

        Raises LogBusy, LogGone, ConnectionFailed, and PlatformError where there is no door.
        """
        try:
            self._ask(f"SELECT totesys_log.forget({plain(self.slot)}, {literal(_lsn(upto))})", _PEEK_TIMEOUT)
        except LogGone:  # or it is beyond ``upto`` by now, which the server says with the same code
            slot = self.state().slot
            if slot is None or slot.confirmed is None or slot.confirmed < upto:
                raise

    def flush(self) -> None:
        """Let the server bring what was committed to its disk, from where alone it can be read. It takes a moment."""
        self._ask("SET LOCAL synchronous_commit = 'local'; SELECT pg_current_xact_id()::text", _QUICK)

    def finish(self) -> bool:
        """Drop the slot. False if there was none. Raises LogBusy, ConnectionFailed, and PlatformError as ``begin``."""
        ((was_there,),) = self._ask(f"SELECT totesys_log.finish({plain(self.slot)})", _QUICK)
        return bool(was_there)

    def _ask(self, query: str, timeout: str) -> list[tuple[Any, ...]]:
        """Rows of a query, in a transaction of its own with our settings, in one round trip."""
        import psycopg

        is_new = self._session is None
        try:
            return _rows(self._open(), query, timeout)
        except psycopg.Error as error:
            lost = self._session is None or self._session.closed
            self._end_transaction()
            if lost and not is_new:  # since it was used last: another is tried once
                return self._ask(query, timeout)
            raise _of_postgres(error) from None

    def _open(self) -> psycopg.Connection[tuple[object, ...]]:
        if self._session is None:
            self._session = open_session(self._url, variable=VARIABLE, read_only=True)
            self._session.autocommit = True  # the transactions are those of _rows
        return self._session

    def _end_transaction(self) -> None:
        import psycopg

        session = self._session
        with suppress(psycopg.Error):
            if session is not None and not session.closed:
                session.rollback()
        if session is not None and session.closed:
            self._session = None

    def _begun(self) -> duckdb.DuckDBPyConnection:
        """A session of DuckDB with the server, for what need not pass through Python, in a new transaction."""
        is_new = self._duckdb is None
        if self._duckdb is None:
            self._duckdb = engine.connect()
            engine.attach(self._duckdb, _ALIAS, self._url, variable=VARIABLE)
        settings = f"SET TRANSACTION READ ONLY; {_settings(_PEEK_TIMEOUT)}"
        try:
            self._duckdb.execute("BEGIN")
            self._duckdb.execute(f"CALL postgres_execute('{_ALIAS}', {literal(settings)})")
        except duckdb.Error:
            if is_new:
                raise
            self._close_reader()  # lost since it was used last: another is tried once
            return self._begun()
        return self._duckdb

    def _close_reader(self) -> None:
        if self._duckdb is not None:
            engine.close(self._duckdb)
            self._duckdb = None


def slot_name(lake_id: str) -> str:
    """The name of a lake's slot. Names of slots are of the whole server, and two lakes must not share one."""
    return f"totesys_log_{hashlib.sha256(lake_id.encode()).hexdigest()[:20]}"


def _of_totesys() -> list[str]:
    return [name for name, table in catalogue().source.items() if table.group == TOTESYS]


def _lsn(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def _settings(timeout: str) -> str:
    """Statements of all settings of a transaction, each statement of which may take so long."""
    return f"{set_local({'statement_timeout': timeout})}; {lift_limits()}"


def _rows(session: psycopg.Connection[tuple[object, ...]], query: str, timeout: str) -> list[tuple[Any, ...]]:
    cursor = session.execute(f"{_BEGIN}; {_settings(timeout)}; {query}; COMMIT".encode())
    rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
    while cursor.nextset():
        rows = cursor.fetchall() if cursor.description else rows
    return rows


# What the server's codes mean here, whatever the language of its messages.
_NO_DOOR = ("42883", "3F000", "42501")  # no such function, no such schema, no right to them
_BUSY = ("55006",)
_GONE = ("42704", "55000")
_CANCELLED = "57014"


def _of_postgres(error: psycopg.Error) -> PlatformError:
    """The error of a statement, as one that a user can act on."""
    said = _without_context(engine.one_line(error))
    if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
        return unreachable(VARIABLE, said)
    if error.sqlstate in _NO_DOOR:
        return PlatformError(f"The log of ToteSys is closed to the login of {VARIABLE}: {said}. {_CHECK}")
    if error.sqlstate in _BUSY:
        return LogBusy(f"The log of ToteSys is in use: {said}. Wait until that session is done.")
    if error.sqlstate in _GONE:
        return LogGone(f"The log of ToteSys cannot be followed: {said}. {_CHECK}")
    if error.sqlstate == _CANCELLED:
        return PlatformError(
            f"The server did not answer in time about the log of ToteSys: {said}. A transaction that stays open keeps "
            "the log from beginning: end it."
        )
    return PlatformError(f"The log of ToteSys cannot be followed: {said}. {_CHECK}")


def _explained(said: str) -> PlatformError:
    """The error of a peek."""
    said = _without_context(said)
    found = re.search(r"totesys_log (in use|gone|unreadable): ", said)
    kind = _SAID[found[1]] if found else PlatformError
    return kind(f"The log of ToteSys could not be read: {said[found.end() :] if found else said}. {_TO_DO[kind]}")


def _without_context(said: str) -> str:
    """A message without the place in a function of the door that raised it."""
    return said.partition(" CONTEXT:")[0]
