"""The warehouse: a PostgreSQL schema that the platform creates and migrates itself.

Belongs here: sessions and transactions with their settings and locks, and small queries, each in a session of its own.
Does not belong here: the tables (schema.py), the notes on loads (notes.py), and loading, which is load/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime

import duckdb
import psycopg

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Catalogue, Table, catalogue
from totesys_assets.errors import PlatformError
from totesys_assets.postgres import locks, session_settings
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse import bare
from totesys_assets.warehouse import notes as warehouse_notes
from totesys_assets.warehouse import schema as warehouse_schema
from totesys_assets.warehouse.notes import Connection, Notes

ALIAS = "warehouse"
_VARIABLE = "WAREHOUSE_URL"
# Readers queue behind a session that waits for an exclusive lock, so no session of ours waits for one longer than this.
# A transaction that is idle for minutes belongs to a stopped process, and other sessions need its locks.
_SETTINGS = {
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "5min",
    "client_min_messages": "warning",
}
# A run holds a transaction open for as long as it is alive. The transaction does nothing.
_ALIVE = {**_SETTINGS, "idle_in_transaction_session_timeout": "0"}
# If a machine disappears, the server notices nothing for two hours by default. With these settings it probes after 30 s
# of silence, and gives up 30 s later. The probes also keep firewalls from dropping the session of a long run. Over a
# Unix socket the settings are 0 whatever is set, so they are not checked.
_WATCHED = (
    "SET LOCAL tcp_keepalives_idle = 30; SET LOCAL tcp_keepalives_interval = 10; SET LOCAL tcp_keepalives_count = 3"
)
_NOT_IN_TIME = "lock timeout"
# Only a superuser may set it for a transaction.
_TRIGGERS_RUN = "SELECT (current_setting('session_replication_role') <> 'replica')::int"
_NO_TRIGGERS = (
    "For the login of WAREHOUSE_URL the server has session_replication_role = replica, with which no trigger keeps "
    "count of records, and current_… would show those of before. Let a superuser run: ALTER ROLE … SET "
    "session_replication_role = origin."
)
# Without DuckDB's statement, and what PostgreSQL says of where it was denied.
_DENIED = re.compile(r"permission denied for [^\n]*")


class Warehouse:
    """The warehouse behind a libpq URL."""

    def __init__(self, url: str, schema: str = "public", tables: Catalogue | None = None) -> None:
        self._url = url
        self.schema = schema
        self.catalogue = tables or catalogue()
        self._migrated = False
        self._idle: list[duckdb.DuckDBPyConnection] = []  # sessions between two transactions

    def __repr__(self) -> str:
        return f"Warehouse(schema={self.schema!r})"  # never the URL: it holds a password

    @contextmanager
    def connect(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """A session for small statements, in one transaction that commits when the context ends well.

        ``snapshot``: all of them see one state, and none writes. Raises ConnectionFailed, and PlatformError when the
        database's encoding is not UTF8, when the login lacks a right that a statement needs, or when the server gave
        up a statement.
        """
        with self._session(_SETTINGS, snapshot=snapshot) as connection:
            yield connection

    @contextmanager
    def _session(self, settings: dict[str, str], *, snapshot: bool = False) -> Iterator[Connection]:
        connection = session_settings.open_session(self._url, variable=_VARIABLE, read_only=snapshot)
        try:
            self._require_utf8(connection)
            if snapshot:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with connection:
                session_settings.begin(connection, _VARIABLE, settings)
                yield connection
        except psycopg.errors.InsufficientPrivilege as error:
            raise self._lacks_a_right(engine.one_line(error)) from None
        except psycopg.errors.LockNotAvailable:
            raise self._in_the_way() from None
        except psycopg.errors.RaiseException as error:  # somebody's event trigger
            raise PlatformError(f"The warehouse refused a statement: {engine.one_line(error)}.") from error
        except psycopg.OperationalError as error:  # lost, shut down, a statement that took too long
            raise PlatformError(f"The warehouse gave up a statement: {engine.one_line(error)}.") from error
        finally:
            connection.close()

    def _require_utf8(self, connection: Connection) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in (None, "UTF8"):
            raise PlatformError(
                f'The warehouse\'s database "{connection.info.dbname}" has the encoding {encoding}, which cannot hold '
                "every text of ToteSys as it is. Set WAREHOUSE_URL to a database with UTF8, made by: CREATE DATABASE "
                "… ENCODING 'UTF8' TEMPLATE template0."
            )

    def _lacks_a_right(self, which: str) -> PlatformError:
        return PlatformError(
            f'The login of WAREHOUSE_URL lacks a right in schema "{self.schema}": {which}. '
            "Run deploy/sql/warehouse_grants.sql as the owner."
        )

    def _in_the_way(self) -> PlatformError:
        with self.connect() as connection:
            return locks.in_the_way(lambda query: connection.execute(query.encode()), self.schema)

    @contextmanager
    def transaction(self, lock: str, *, patience: float | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB session with ``warehouse`` attached in one transaction of PostgreSQL, which takes ``lock`` first.

        ``patience``: for how many seconds it waits for that, if not as long as others do.
        The transaction is READ COMMITTED, so that it reads what the last holder of the lock left. It is rolled back
        when the context ends with an error. Raises ConnectionFailed, and PlatformError that names the session that held
        the lock, or a lock on a table, for too long.
        """
        connection = self._attached()
        try:
            connection.execute("BEGIN")
            run(connection, f"SET TRANSACTION READ WRITE; {session_settings.set_local(_SETTINGS)}; {_WATCHED}")
            session_settings.require(
                next(iter(rows(connection, session_settings.check_query(_SETTINGS))), None), _VARIABLE, _SETTINGS
            )
            locks.wait(
                lambda query: rows(connection, query),
                locks.LOAD_SPACE,
                f"{self.schema}.{lock}",
                f'Another refresh is loading "{lock}"',
                *([patience] if patience is not None else []),
            )
            if rows(connection, _TRIGGERS_RUN) != [(1,)]:
                raise PlatformError(_NO_TRIGGERS)
            yield connection
            connection.execute("COMMIT")
        except duckdb.Error as error:
            engine.close(connection)  # which rolls back
            if _NOT_IN_TIME in str(error):
                raise self._in_the_way() from error
            if denied := _DENIED.search(str(error)):
                raise self._lacks_a_right(denied[0]) from error
            raise
        except BaseException:
            engine.close(connection)
            raise
        self._idle.append(connection)

    def _attached(self) -> duckdb.DuckDBPyConnection:
        """An idle session, or a new one, which must load DuckDB's extension: that takes as long as a small load."""
        with suppress(IndexError):  # also where another thread has just taken it
            return self._idle.pop()
        connection = engine.connect()
        try:
            isolation = ", ISOLATION_LEVEL 'READ COMMITTED'"
            engine.attach(connection, ALIAS, self._url, variable=_VARIABLE, attach_options=isolation)
        except BaseException:
            engine.close(connection)
            raise
        return connection

    def close(self) -> None:
        """Close the idle sessions. The next transaction opens a new one."""
        while self._idle:
            engine.close(self._idle.pop())

    def bare(self, table: Table) -> bool:
        """Take keys, indexes and counts off an empty table that is to be filled. False where they stay (bare.py)."""
        with self.connect() as connection:
            return bare.take_off(connection, self.schema, table)

    def forget_migration(self) -> None:
        """Let the next ``migrate`` look again at what is there."""
        self._migrated = False

    def attach_keys(self, table: Table) -> None:
        """Make the keys of a table that was filled out of its unique indexes."""
        with self.connect() as connection:
            bare.attach(connection, self.schema, table)

    def loaded(self) -> dict[str, dict[str, str]]:
        """State of every partition loaded: table -> partition -> state. Empty before the first load."""
        with self.connect() as connection:
            return self.states(connection)

    def origins(self) -> dict[str, str]:
        """The note on where each table was loaded from, as load/origin.py reads it: table -> text."""
        with self.connect() as connection:
            return Notes(connection, self.schema).origins()

    def states(self, connection: Connection) -> dict[str, dict[str, str]]:
        """``loaded``, as the transaction of ``connection`` sees it."""
        return Notes(connection, self.schema).states()

    def relations(self) -> list[str]:
        """Names of the tables and views in the schema; none when there is no such schema."""
        query = (
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p', 'v', 'm')"
        )
        with self.connect() as connection:
            return sorted(str(row[0]) for row in connection.execute(query, [quoted(self.schema)]))

    def left_over(self) -> list[str]:
        """Tables that were loaded once and are still there, and that the catalogue does not have any more."""
        return sorted(self.loaded().keys() - self.catalogue.warehouse.keys())

    def mark(self) -> str:
        """Differs whenever something was loaded, or the database is another or an older one."""
        with self.connect() as connection:
            return Notes(connection, self.schema).mark()

    @contextmanager
    def alive(self, run_id: str) -> Iterator[None]:
        """Show that run ``run_id`` is alive, for as long as the block and the process last."""
        with self._session(_ALIVE) as connection:
            connection.execute(_WATCHED)
            connection.execute(f"SELECT pg_advisory_xact_lock_shared({locks.key(locks.RUN_SPACE, run_id)})".encode())
            try:
                yield
            finally:
                with suppress(psycopg.Error):  # a lost session fails no run
                    connection.rollback()  # at once: a pooler may keep the session, and with it the lock, for a while
                connection.close()

    def is_alive(self, run_id: str) -> bool:
        """True while some process is in ``alive(run_id)``, on whatever machine."""
        with self.connect() as connection:
            query = f"SELECT pg_try_advisory_xact_lock({locks.key(locks.RUN_SPACE, run_id)})"
            return bool(connection.execute(query.encode()).fetchone() == (False,))

    def contents(self, most: int | None = None) -> list[tuple[str, int | None, int]]:
        """(table, rows, versions) of every table: of a fact, the rows that are current and all its records.

        A table of more than ``most`` records is not counted. It has as many as were noted at its last load, and of a
        fact the number of current rows is None.
        """
        with self.connect() as connection:
            return list(warehouse_notes.contents(connection, self.schema, self.catalogue, most))

    def loaded_at(self) -> dict[str, datetime]:
        """When each table was last loaded."""
        with self.connect() as connection:
            return Notes(connection, self.schema).moments()

    def migrate(self, *, partition_from: date | None = None) -> bool:
        """Create what is missing, add columns that are new, refuse what differs. False when nothing was to be done.

        ``partition_from``: also partition facts by month, from that of this day on; the warehouse stays so.
        Raises SchemaDrift when a table has columns of another type than the catalogue says, PlatformError when
        something is to be done and the login may not do it, or another session is in the way.
        """
        if self._migrated and partition_from is None:
            return False
        with self.connect() as connection:
            locks.wait(
                lambda query: connection.execute(query.encode()),
                locks.LOAD_SPACE,
                self.schema,
                f'Another process is migrating schema "{self.schema}"',
            )
            done = warehouse_schema.migrate(connection, self.schema, self.catalogue, partition_from=partition_from)
        self._migrated = True
        return done


def run(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run one statement in the warehouse, in the transaction of ``connection``."""
    connection.execute(f"CALL postgres_execute('{ALIAS}', ?)", [statement])


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[object, ...]]:
    """Rows of a query in the warehouse, in the transaction of ``connection``."""
    found: list[tuple[object, ...]] = connection.execute(
        f"SELECT * FROM postgres_query('{ALIAS}', {literal(query)})"
    ).fetchall()
    return found
