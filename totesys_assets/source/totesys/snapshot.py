"""One snapshot of ToteSys: its identity, its order among others, and whether its tables can be read in it.

Does not belong here: how it is taken, which is the package's own module, and what its tables are like (structure.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Self

import duckdb
import numpy as np
import numpy.typing as npt

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import DayRange, Days
from totesys_assets.digest import POSTGRES
from totesys_assets.source.interface import Fingerprint, SourceSnapshot, Transactions
from totesys_assets.source.rows import row_key
from totesys_assets.source.totesys import fingerprint, looks, requirements, rows
from totesys_assets.source.totesys.fingerprint import CIRCLE, Places
from totesys_assets.source.totesys.remembered import ByDay, Remembered
from totesys_assets.source.totesys.structure import SourceTable
from totesys_assets.source.totesys.table_locks import relation
from totesys_assets.source.totesys.visibility import hidden_by, hideable
from totesys_assets.sql_text import literal

if TYPE_CHECKING:
    from totesys_assets.source.totesys.log import Log

ALIAS = "totesys"
# Of the order of a standby's snapshots: room for what tells two apart that ended at the same position.
_PROCESSES = 1024


def read(sql: str) -> str:
    """Query for DuckDB that runs a SELECT in ToteSys; its result does not pass through Python."""
    return f"SELECT * FROM postgres_query('{ALIAS}', {literal(sql)})"


@dataclass(frozen=True)
class Snapshot(SourceSnapshot):
    """One REPEATABLE READ transaction of ToteSys: every read through ``connection`` sees the same instant.

    ``text`` is ``pg_current_snapshot()``; ``server`` tells one server, timeline and database from another, and what it
    was before a crash or a restore from what it is after; ``lifetime`` also one start of it from the next;
    ``generation``: see capture/generation.py; ``taken_at`` (naive UTC) is when it was taken, by the source's clock;
    ``scans`` are what was found in it by hashing all rows of a table, ``looks`` what was found in any way, and need not
    be found twice; ``places``, where the rows are that were written since then, or since a snapshot that showed the
    ``states`` of partitions. ``remembered``: what the last look found. All ``tables`` were
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
    scans: dict[str, ByDay] = field(default_factory=dict)
    looks: dict[str, ByDay] = field(default_factory=dict)
    places: dict[str, Places] = field(default_factory=dict)
    states: dict[str, dict[str, str]] = field(default_factory=dict)
    remembered: Remembered = field(default_factory=Remembered)
    schema: str = "public"
    encoding: str = "UTF8"
    held: dict[str, str] = field(default_factory=dict)
    replayed: tuple[int, int] | None = None
    process: int = 0
    ignores_new: bool = True
    source_log: Log | None = None

    dialect = POSTGRES

    @property
    def log(self) -> Log | None:
        """PostgreSQL's log of ToteSys, if the platform knows of it."""
        return self.source_log

    def hides(self, xids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Those that were running when the snapshot was taken, and those that began later."""
        return hidden_by(self.text, xids)

    def may_hide(self) -> tuple[tuple[int, int], ...]:
        """Those of the ids that ``xmin`` begins, on the half of the circle that lies ahead of it."""
        return hideable(self.xmin)

    @property
    def instant(self) -> str:
        """Equal for two snapshots that show the same rows, read in the same way."""
        followed = " log" if self.log is not None and self.log.wanted else ""  # what it noted is no fingerprint
        read = f"{self.schema} {'known' if self.ignores_new else 'all'}{followed}"
        return f"{self.lifetime} {read} {self.text}" + (f" {self.replayed[0]}" if self.replayed else "")

    @property
    def xmin(self) -> int:
        """The first transaction id that was not finished yet: what this snapshot does not show has it, or a later."""
        return int(self.text.split(":")[0])

    @property
    def xmax(self) -> int:
        """The first transaction id that was not yet given out."""
        return int(self.text.split(":")[1])

    def order(self, table: Table) -> int:  # noqa: ARG002 - all tables are of one instant
        """What is noted with what is captured, for ``is_overtaken``."""
        if self.replayed:
            return self.replayed[1] * _PROCESSES + self.process % _PROCESSES
        return looks.order(self.text)

    def is_overtaken(self, table: Table, order: int) -> bool:
        """True if another snapshot of the same ``lifetime``, of this ``order``, may show more, whatever clocks say.

        Of a standby's snapshot only two positions are known, between which it was taken. A snapshot whose end lies
        after the beginning of this one may be later.
        """
        if self.replayed:
            return order != self.order(table) and order >= (self.replayed[0] + 1) * _PROCESSES
        return order > self.order(table)

    @property
    def identity(self) -> str:
        """Transaction ids may be compared on one server, as long as it does not give them out a second time."""
        return f"{self.server}#{self.generation}"

    @property
    def transactions(self) -> Transactions:
        """The transaction ids that the snapshot is about."""
        return Transactions(self.server, self.generation, self.xmin, self.xmax)

    def with_generation(self, generation: int) -> Self:
        """The snapshot as one of this generation of transaction ids."""
        return replace(self, generation=generation)

    def columns(self, table: Table) -> dict[str, str]:
        """Column -> type, as ToteSys has them; empty for a missing table."""
        return self.tables[table.name].columns if table.name in self.tables else {}

    def structure(self, table: Table) -> str:
        """Digest of the table's structure: see fingerprint.py."""
        return fingerprint.structure(self.tables[table.name], table)

    def may_double(self, table: Table) -> bool:
        """True unless a unique index ensures that no two rows of the table have the same key."""
        key = frozenset(table.primary_key)
        return not any(columns <= key for columns in self.tables[table.name].unique)

    def file(self, table: Table) -> int:
        """The number of the file in which the server has the rows: a TRUNCATE makes another, and a rewrite."""
        return self.tables[table.name].file

    def fingerprints(self, table: Table, all_days: DayRange, days: Days | None = None) -> dict[str, Fingerprint]:
        """Fingerprint of every partition that has rows: one sequential scan, unless the snapshot was asked before."""
        self.require(table)
        found = self.scans.get(table.name)
        if found is None:
            days = None if days == all_days else days
            found, _ = looks.hashed(self, table, fingerprint.examined(table, days, all_days))
            if days is None:
                self.scans[table.name] = found
        return self._fingerprints(table, all_days, found)

    def changed_fingerprints(
        self,
        table: Table,
        all_days: DayRange,
        days: Days | None = None,
        captured: Mapping[str, tuple[str, int]] | None = None,
    ) -> dict[str, Fingerprint]:
        """The same fingerprints, with less reading if the last look found most of them: see looks.py.

        With ``days``, the scan notes where the rows are that were written since ``captured``. What a standby calls
        unfinished is not relied on.
        """
        self.require(table)
        if table.name in self.looks:
            return self._fingerprints(table, all_days, self.looks[table.name])
        floor = self._floor(self._told(table, captured or {}))
        places: Places | None
        if days is not None and floor is not None:
            found, places = looks.hashed(self, table, fingerprint.examined(table, days, all_days), floor)
        elif days is not None or self.replayed:
            return self.fingerprints(table, all_days, days)
        else:
            found, before, places = looks.look(self, table)
            self.looks[table.name] = found
            self.states[table.name] = {
                key: each.state for key, each in self._fingerprints(table, all_days, before).items()
            }
        if places is not None:
            self.places[table.name] = places
        return self._fingerprints(table, all_days, found)

    def _fingerprints(self, table: Table, all_days: DayRange, days: ByDay) -> dict[str, Fingerprint]:
        prefix, found = self.state_prefix(table), fingerprint.by_partition(table, all_days, days)
        return {key: Fingerprint(count, f"{prefix}|{count}|{hash_}") for key, (count, hash_) in found.items()}

    def _told(self, table: Table, captured: Mapping[str, tuple[str, int]]) -> dict[str, int]:
        """The first id that a row written since its capture can bear, of the partitions of which that is known."""
        prefix, places = self.state_prefix(table), self.places.get(table.name, Places(0))
        unchanged = self.states.get(table.name, {})
        return {
            key: max(xmin, places.floor) if unchanged.get(key) == state else xmin
            for key, (state, xmin) in captured.items()
            if xmin and state.startswith(prefix)
        }

    def _floor(self, told: Mapping[str, int]) -> int | None:
        """The lowest of the ids; None if there are none, or it is too far round the circle."""
        first = min(told.values(), default=self.xmax)
        return first if told and 0 <= self.xmax - first < CIRCLE // 2 else None

    def written_since(self, table: Table, captured: Mapping[str, tuple[str, int]]) -> tuple[str, frozenset[str]]:
        """Condition of the rows that may have been written since partitions were captured; and of which it tells that.

        A row that was written after a capture bears a transaction id that the capture's snapshot did not know to be
        finished: its xmin, or a later id. Ids are compared on the circle of 32 bits, as PostgreSQL itself does.
        Whatever is in doubt (another server, another structure, no xmin, too far round the circle) is not told.
        """
        told = self._told(table, captured)
        floor = self._floor(told)
        if floor is None:
            return super().written_since(table, captured)
        written, places = fingerprint.is_written(floor, self.xmax), self.places.get(table.name)
        if places is not None and places.floor <= floor:
            written = f"{written} AND {places.condition}"
        return written, frozenset(told)

    def relation(self, table: Table) -> str:
        """The source table by its full name, for SQL."""
        return relation(self.schema, table.name)

    def select(self, table: Table, all_days: DayRange) -> str:
        """SELECT of a table's columns and ``_broken``."""
        return rows.select(table, self.relation(table), all_days, self.encoding)

    def letters(self, table: Table, all_days: DayRange) -> str:
        """SELECT of key, partition and text of a table's rows."""
        return (
            f"SELECT {row_key(table)} AS row_key, {self.partition(table, all_days)} AS partition, "
            f"{rows.raw(table, self.encoding)} AS raw FROM {self.relation(table)} AS t"
        )

    def readable(self, table: Table) -> str:
        """Condition of the rows of which all text can be sent."""
        return rows.readable(table, self.encoding)

    def read(self, sql: str) -> str:
        """The SELECT ``sql`` of ToteSys as a query for ``connection``.

        The text is no parameter: to see what a parameter is, DuckDB imports pandas, which takes half a second.
        """
        return read(sql)

    def require(self, table: Table) -> None:
        """Raise WrongDatabase, TableBusy or SchemaDrift unless ``table`` is there, readable and as it should be."""
        requirements.require(self, table)
