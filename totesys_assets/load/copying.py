"""Filling an empty table of the warehouse in a transaction that stays open, with its keys and counts behind the rows.

Belongs here: that transaction. Does not belong here: what is taken off and made again (warehouse/bare.py), where the
rows come from, and what is noted of them (load.py).
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import Self

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import RECORDED_AT, Table
from totesys_assets.errors import PlatformError
from totesys_assets.lake.files import Files, listed
from totesys_assets.lake.read import bounds, register
from totesys_assets.load.distinct import are_distinct
from totesys_assets.load.merge import analyze
from totesys_assets.load.staging import lake_column_names, show_rows
from totesys_assets.sql_text import literal, quoted
from totesys_assets.stages import LOAD, stage
from totesys_assets.warehouse import bare
from totesys_assets.warehouse.kept import kept_tables
from totesys_assets.warehouse.recorded import Inserted
from totesys_assets.warehouse.warehouse import ALIAS, Warehouse, rows, run

log = logging.getLogger(__name__)
# With fewer rows, making keys behind them saves less than it takes.
LARGE = 100_000
# A transaction waits for the steps before its own, as long as a run may last. If the process dies, so does its session.
_PATIENCE = "SET LOCAL idle_in_transaction_session_timeout = '2h'"
_SEQUENCE = (
    "SELECT seqrelid::regclass::text FROM pg_sequence "
    "WHERE seqrelid = pg_get_serial_sequence({table}, {column})::regclass AND seqincrement = 1"
)
# Other loads may be counting, for which no reader waits.
_LET_COUNT = "SET LOCAL lock_timeout = '10min'"


class Abandoned(Exception):
    """What was begun is not wanted, or cannot be done."""


class Copy:
    """The rows of one large star table in an open transaction of the warehouse, in which it was empty before."""

    def __init__(self, warehouse: Warehouse, table: Table, *, patience: float | None = None) -> None:
        """Begin, after ``patience`` seconds at most if others load the table.

        Raises PlatformError, and Abandoned where keys cannot be made behind the rows (bare.py).
        """
        self._warehouse, self._table = warehouse, table
        self.rows, self.files = 0, frozenset[str]()
        # When all rows were recorded, in microseconds, if they are first versions of one moment.
        self.moment: int | None = None
        self._is_bare = self._is_over = self.is_left_bare = False
        self._indexing: threading.Thread | None = None
        warehouse.migrate()
        self._stack = ExitStack()
        # Nobody else can load the table from here on.
        self.connection = self._stack.enter_context(warehouse.transaction(table.name, patience=patience))
        try:
            self._is_bare = warehouse.bare(table)
            if not self._is_bare:
                raise Abandoned
            run(self.connection, _PATIENCE)
        except BaseException:
            self.abandon()
            raise

    def fill(self, reader: pa.RecordBatchReader) -> None:
        """Copy all rows into the table."""
        self.connection.register("passing", reader)
        self._fill("passing")
        self.connection.unregister("passing")

    def fill_from(self, star: DeltaTable) -> None:
        """Copy all rows of the lake's table into it."""
        self._fill(register(self.connection, "star_files", star))
        self.files = paths(star)

    def _fill(self, source: str) -> None:
        show_rows(self.connection, self._table, source)
        into = columns = ", ".join(lake_column_names(self._table))
        name = f"{quoted(self._warehouse.schema)}.{quoted(self._table.name)}"
        numbers = _Numbers.of(self.connection, name, self._table.key) if self._table.is_fact else None
        if numbers is not None:
            into, columns = f"{quoted(self._table.key)}, {columns}", f"{numbers.sql}, {columns}"
        with stage(LOAD):
            filling = f"INSERT INTO {ALIAS}.{name} ({into}) SELECT {columns} FROM star_rows"
            self.rows = int(self.connection.execute(filling).fetchall()[0][0])
        if numbers is not None and self.rows:
            numbers.take(self.connection, self.rows)

    def index_meanwhile(self) -> None:
        """Begin to make the indexes behind the rows, in a thread: other tables are captured until they are wanted."""
        name = f"indexes: {self._table.name}"
        target, work = copy_context().run, self._index_or_abandon
        self._indexing = threading.Thread(target=target, args=[work], name=name, daemon=True)
        self._indexing.start()

    def _index_or_abandon(self) -> None:
        try:
            self._index()
        except BaseException as error:  # in a thread; the step that loads it meets it again, and tells
            log.info("%s is not loaded from what was copied: %s", self._table.asset, engine.one_line(str(error)))
            # At once: PostgreSQL has given up the transaction and its locks, and others could take the table for left.
            self.abandon()

    def _index(self) -> None:
        for statement in bare.indexes_behind(self._warehouse.schema, self._table):
            run(self.connection, statement)
        analyze(self.connection, self._warehouse, [self._table.name])

    def is_there(self) -> bool:
        """Whether it can be completed, asked by the step that does. Waits until nothing else uses its session."""
        if self._indexing is not None and self._indexing is not threading.current_thread():
            self._indexing.join()
        return not self._is_over

    def complete(self, star: DeltaTable) -> None:
        """Make indexes and counts behind the rows, which are those of the lake's ``star``."""
        known = None
        if self.moment is not None and self._table.is_fact:
            # In the lake to look at one column takes a tenth of what it takes the server.
            held, key = register(self.connection, "star_files", star), self._table.version_key[0]
            known = Inserted(self.rows, self.moment) if are_distinct(self.connection, key, held) else None
        if self._indexing is None:
            self._index()
        run(self.connection, _LET_COUNT)
        for statement in bare.counts_behind(self._warehouse.schema, self._table, known):
            run(self.connection, statement)
        analyze(self.connection, self._warehouse, kept_tables(self._table, self._warehouse.catalogue))

    def commit(self) -> None:
        """End the transaction well, then let the indexes be the keys. What fails is left to ``abandon``."""
        self._stack.close()
        self._is_over = True
        self._attach()

    def abandon(self) -> None:
        """Roll the transaction back, and make what was taken off; nothing, where it has ended."""
        if not self.is_there():
            return
        self._is_over = True
        with suppress(Abandoned, duckdb.Error, PlatformError):
            self._stack.__exit__(Abandoned, Abandoned(), None)
        if not self._is_bare:
            return
        try:
            with self._warehouse.transaction(self._table.name) as connection:
                run(connection, _LET_COUNT)
                for statement in bare.behind(self._warehouse.schema, self._table):
                    run(connection, statement)
        except (duckdb.Error, PlatformError) as error:  # the next migration makes it
            log.warning("The keys of %s were not made again: %s", self._table.name, engine.one_line(error))
            self.is_left_bare = True
            self._warehouse.forget_migration()
            return
        self._attach()

    def _attach(self) -> None:
        try:
            self._warehouse.attach_keys(self._table)
        except PlatformError as error:  # the indexes do the same; the next migration makes them keys
            log.warning("The unique indexes of %s are no keys yet: %s", self._table.name, engine.one_line(error))


@dataclass(frozen=True)
class _Numbers:
    """The numbers of the records that come, from ``first`` on, which only the holder of the table's lock takes.

    They are counted here: to draw each from its ``sequence`` takes the server a quarter of the time of a row.
    """

    sequence: str
    first: int

    @classmethod
    def of(cls, connection: duckdb.DuckDBPyConnection, table: str, column: str) -> Self | None:
        """The next numbers of a column that is an identity; None where its owner has them drawn in another way."""
        named = rows(connection, _SEQUENCE.format(table=literal(table), column=literal(column)))
        if not named:
            return None
        sequence = str(named[0][0])
        following = f"SELECT last_value + is_called::int FROM {sequence}"
        return cls(sequence, int(str(rows(connection, following)[0][0])))

    @property
    def sql(self) -> str:
        """DuckDB expression of each row's number, in the order in which rows come."""
        return f"{self.first - 1} + row_number() OVER ()"

    def take(self, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        """Go on behind them; never back, so that no number is drawn twice, whoever else draws some."""
        last = f"greatest({self.first + count - 1}, last_value)"
        run(connection, f"SELECT setval({literal(self.sequence)}, {last}) FROM {self.sequence}")


def is_to_be_filled(star: DeltaTable, table: Table) -> bool:
    """Whether the rows of a table that was never loaded are many, and in no order that their numbers must follow."""
    if not (table.is_fact or table.is_mart) or Files(star).rows < LARGE:
        return False
    recorded = bounds(star, RECORDED_AT) if table.is_fact else None
    return not table.is_fact or (recorded is not None and recorded[0] == recorded[1])


def filled(warehouse: Warehouse, table: Table, star: DeltaTable, patience: float | None = None) -> Copy | None:
    """The table with all rows of the lake's ``star``; None where keys cannot be made behind them."""
    try:
        copy = Copy(warehouse, table, patience=patience)
    except Abandoned:
        return None
    try:
        copy.fill_from(star)
    except BaseException:
        copy.abandon()
        raise
    return copy


def paths(star: DeltaTable) -> frozenset[str]:
    """The files of a table of the lake."""
    return frozenset(map(str, listed(star).column("path")))
