"""What every source is: a name, tables, and snapshots of them, which capture, look, schema registry and audit read.

Belongs here: what those need of a snapshot. Does not belong here: anything that one kind of source has of its own.

A source of another kind is a module of this folder and a DDL of the same name in catalogue/. The module has a function
``open_source(settings, tables)``; copied.py has most of what it needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

import duckdb
import numpy as np
import numpy.typing as npt

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import DayRange, Days
from totesys_assets.digest import Dialect
from totesys_assets.source.rows import partition_sql

if TYPE_CHECKING:
    from totesys_assets.source.totesys.log import Log


@dataclass(frozen=True)
class Fingerprint:
    """How many rows a partition has, and a state that differs whenever one of them was written."""

    rows: int
    state: str


@dataclass(frozen=True)
class Transactions:
    """The transaction ids of a source that numbers its transactions.

    ``xmin`` is the first that was not finished: what the snapshot does not show has it, or a later. ``xmax`` is the
    first that was not given out. ``server`` and ``generation`` (capture/generation.py) tell ids that may be compared
    from others.
    """

    server: str
    generation: int
    xmin: int
    xmax: int


class SourceSnapshot(ABC):
    """One instant of a source: every read through ``connection`` sees the same rows.

    ``connection`` is DuckDB's: rows are compared in it. ``taken_at`` (naive UTC) is when the snapshot was taken. Orders
    of snapshots are compared within one ``lifetime``. ``dialect`` is that of the SQL in which the source is asked.
    """

    connection: duckdb.DuckDBPyConnection
    taken_at: datetime
    lifetime: str
    dialect: Dialect

    # Which snapshot it is

    @property
    @abstractmethod
    def instant(self) -> str:
        """Equal for two snapshots that show the same rows, read in the same way."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What two states of one table must share to be compared at all. It has no ``|``."""

    def read_at(self, table: Table) -> datetime:  # noqa: ARG002 - all tables are of one instant
        """When the rows of ``table`` were as the snapshot shows them (naive UTC)."""
        return self.taken_at

    @abstractmethod
    def order(self, table: Table) -> int:
        """What is noted with what is captured of ``table``, for ``is_overtaken``."""

    @abstractmethod
    def is_overtaken(self, table: Table, order: int) -> bool:
        """True if another snapshot of the same ``lifetime``, of this ``order``, may show more of ``table``."""

    @property
    def transactions(self) -> Transactions | None:
        """The source's transaction ids. None: it has none, and a partition that differs is compared as a whole."""
        return None

    @property
    def log(self) -> Log | None:
        """The log of the source, which tells of every change that was committed. None: it has none."""
        return None

    def hides(self, xids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Of transactions that were committed, by their ids on the circle of 32 bits: those that are not shown."""
        return np.zeros(len(xids), bool)

    def may_hide(self) -> tuple[tuple[int, int], ...]:
        """Ranges of ids, from the least to the greatest of each, that have at least those that ``hides`` can name."""
        return ()

    def with_generation(self, generation: int) -> Self:  # noqa: ARG002 - there is one
        """The snapshot as one of a generation of transaction ids. A source without them has no generations."""
        return self

    # Its tables

    @abstractmethod
    def require(self, table: Table) -> None:
        """Raise a PlatformError unless ``table`` is there, readable and as the catalogue says.

        It is a SchemaDrift where columns differ, and a WrongDatabase or TableBusy where no column can be told.
        """

    @abstractmethod
    def columns(self, table: Table) -> dict[str, str]:
        """Column -> type, as the source has them; also those that the catalogue has not. Empty for a missing table."""

    @abstractmethod
    def structure(self, table: Table) -> str:
        """Digest of all that may change what a row reads as, without the row being written. It has no ``|``."""

    def may_double(self, table: Table) -> bool:  # noqa: ARG002 - most sources refuse such rows
        """True where several rows of ``table`` may have the same key."""
        return False

    def file(self, table: Table) -> int:  # noqa: ARG002 - what has no log has no use for it
        """A number that is another when all rows of ``table`` were written anew without a word in the log."""
        return 0

    @abstractmethod
    def fingerprints(self, table: Table, all_days: DayRange, days: Days | None = None) -> dict[str, Fingerprint]:
        """Fingerprint of every partition that has rows, by partition key; with ``days``, at least those of these days.

        Raises what ``require`` raises.
        """

    def changed_fingerprints(
        self,
        table: Table,
        all_days: DayRange,
        days: Days | None = None,
        captured: Mapping[str, tuple[str, int]] | None = None,  # noqa: ARG002 - every source may note nothing
    ) -> dict[str, Fingerprint]:
        """The same fingerprints, for who looks for changes and reads them: a source may find them with less reading.

        ``captured``: partition -> state and xmin of its capture, as for ``written_since``, which is asked next.
        Who proves something takes ``fingerprints``.
        """
        return self.fingerprints(table, all_days, days)

    def state_prefix(self, table: Table) -> str:
        """How the states of ``table`` begin. They are comparable only with those of the same prefix."""
        return f"{self.identity}|{self.structure(table)}"

    def has_structure(self, table: Table, state: str) -> bool:
        """True when ``state``, of a fingerprint, was taken of a table of the structure that ``table`` has now."""
        return state.split("|")[1:2] == [self.structure(table)]

    def written_since(
        self,
        table: Table,  # noqa: ARG002 - it is told of none
        captured: Mapping[str, tuple[str, int]],  # noqa: ARG002
    ) -> tuple[str, frozenset[str]]:
        """Condition of the rows that may have been written since partitions were captured; and of which it tells that.

        ``captured``: partition -> state and xmin of its capture. A source that cannot tell has all rows compared.
        """
        return "false", frozenset()

    def refused(self, table: Table, all_days: DayRange) -> list[tuple[str, str, str, str]]:  # noqa: ARG002 - every row
        """What is a dead letter without being a row: row_key, partition, ``column: reason`` and raw text of each."""
        return []

    def keep(self, table: Table) -> None:  # noqa: B027 - most sources need nothing
        """Keep what the next snapshot may need of what was just captured of ``table``."""

    # Its rows, in SQL of its dialect

    @abstractmethod
    def relation(self, table: Table) -> str:
        """The table by its full name."""

    @abstractmethod
    def select(self, table: Table, all_days: DayRange) -> str:
        """SELECT of a table's columns and ``_broken``, without a WHERE.

        ``_broken`` says ``column: reason`` of a row that has a value of no such type, or no partition in ``all_days``;
        such a value need not be exact. NULL for a row that is read exactly.
        """

    @abstractmethod
    def letters(self, table: Table, all_days: DayRange) -> str:
        """SELECT of ``row_key``, ``partition`` and ``raw`` (the row's text, as the source has it), without a WHERE."""

    def readable(self, table: Table) -> str:  # noqa: ARG002 - all of them
        """Condition of the rows that can be read at all."""
        return "true"

    def partition(self, table: Table, all_days: DayRange) -> str:
        """Expression of a row's partition, as text."""
        return partition_sql(table, all_days, self.dialect)

    @abstractmethod
    def read(self, sql: str) -> str:
        """The SELECT ``sql`` of the source as a query for ``connection``; its result does not pass through Python."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of one small SELECT, run by the source in the snapshot."""
        return self.connection.execute(self.read(sql)).fetchall()


class Source(Protocol):
    """A source: ``tables`` by name, and its ``name``, which is the first part of their assets' keys."""

    @property
    def name(self) -> str:
        """The source's name."""

    @property
    def tables(self) -> Mapping[str, Table]:
        """Its tables, by name."""

    def snapshot(self) -> AbstractContextManager[SourceSnapshot]:
        """Open one snapshot, for the context. Raises a PlatformError if the source cannot be reached."""
