"""A piece of the log: its transactions, and the changes of our tables in it, as the journal keeps them.

Belongs here: what a row of the journal is, and making it of messages. Does not belong here: committing the journal
(journal.py), and what the bytes mean (source/totesys/pgoutput.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from totesys_assets.source.totesys.pgoutput import (
    BEGIN,
    COMMIT,
    DELETE,
    INSERT,
    RELATION,
    TRUNCATE,
    UPDATE,
    Commit,
    Messages,
    Numbers,
    Relation,
    UnknownFormat,
)
from totesys_assets.spool import Spool

DAY, STRETCH, TABLE, LSN, ORDINAL = "day", "stretch", "table_name", "commit_lsn", "ordinal"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    (DAY, pa.string()),
    (STRETCH, pa.int64()),
    (TABLE, pa.string()),
    (LSN, pa.int64()),
    (ORDINAL, pa.int64()),
    ("xid", pa.int64()),
    ("committed_at", pa.timestamp("us", tz="UTC")),
    ("recorded_at", pa.timestamp("us", tz="UTC")),
    ("kind", pa.string()),
    ("relation", pa.binary()),
    ("message", pa.binary()),
]
SCHEMA = pa.schema(_COLUMNS)
SPOOLED = pa.schema([("message", pa.binary())])


def growing(commits: list[Commit], after: int) -> Numbers:
    """When each transaction counts as recorded, in microseconds: later than the one before, and than ``after``.

    It is the time of the commit, unless the clocks of two processors put it at or before that of an earlier commit.
    """
    place = np.arange(len(commits))
    committed = np.array([each.committed_at for each in commits], np.int64)
    return np.maximum(np.maximum.accumulate(committed - place), after + 1) + place if commits else committed


@dataclass
class Piece:
    """A piece of the log: its transactions, and the changes of rows in it."""

    spool: Spool
    read: Iterable[pa.Array[Any]]
    # Where the journal ends: what was committed before that is in it.
    position: int
    stretch: int
    messages: int = 0
    changes: int = 0
    end: int = 0
    commits: list[Commit] = field(default_factory=list)
    # Transactions of before ``position`` that have changes of ours.
    again: set[Commit] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Keep the messages on the disk: one transaction may be larger than the memory."""
        ends: list[tuple[int, int]] = []
        for array in self.read:
            messages = Messages(array)
            self.commits += messages.commits(messages.where(BEGIN))
            ends += messages.ends(messages.where(COMMIT))
            self.messages += len(array)
            self.spool.add(pa.RecordBatch.from_arrays([array.cast(pa.binary())], schema=SPOOLED))
        if [lsn for lsn, _ in ends] != [each.lsn for each in self.commits]:
            raise UnknownFormat("a transaction has no end, or not its own")
        places = [place for lsn, end in ends for place in (lsn, end)]
        if places != sorted(places):
            raise UnknownFormat("transactions do not follow one another")
        self.end = places[-1] if places else 0

    def rows(self, recorded: Numbers, schema: str, tables: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Batches for the journal, of the changes of these tables after ``position``."""
        known, begun, read = _Known(schema, tables), 0, 0
        is_new = np.array([each.lsn >= self.position for each in self.commits], bool)
        for batch in self.spool.batches():
            messages = Messages(batch.column("message"))
            number = begun + np.cumsum(messages.kind == BEGIN) - 1
            begun += int((messages.kind == BEGIN).sum())
            changes = known.changes(messages)
            for change in np.unique(number[changes.where[~is_new[number[changes.where]]]]):
                self.again.add(self.commits[change])
            chosen = changes.of(is_new[number[changes.where]])
            if len(chosen.where):
                self.changes += len(chosen.where)
                yield self._journal(messages, chosen, number[chosen.where], read + chosen.where, recorded)
            read += len(messages)

    def _journal(
        self, messages: Messages, changes: _Changes, number: Numbers, ordinals: Numbers, recorded: Numbers
    ) -> pa.RecordBatch:
        def of(values: list[int] | Numbers) -> pa.Array[Any]:
            return pa.array(np.asarray(values, np.int64)[number])

        moment = pa.timestamp("us", tz="UTC")
        relations = pa.array(changes.relation, pa.int64())
        columns: dict[str, pa.Array[Any]] = {
            DAY: pa.array([datetime.now(UTC).date().isoformat()] * len(number)),
            STRETCH: pa.array([self.stretch] * len(number)),
            TABLE: pa.array([name for name, _ in changes.described]).take(relations),
            LSN: of([each.lsn for each in self.commits]),
            ORDINAL: pa.array(ordinals),
            "xid": of([each.xid for each in self.commits]),
            "committed_at": of([each.committed_at for each in self.commits]).cast(moment),
            "recorded_at": of(recorded).cast(moment),
            "kind": pa.array([chr(each) for each in messages.kind[changes.where]]),
            "relation": pa.array([description for _, description in changes.described], pa.binary()).take(relations),
            "message": messages.take(changes.where).cast(pa.binary()),
        }
        return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


@dataclass(frozen=True)
class _Changes:
    """Positions of messages that are changes, and of each the number of its table in ``described``.

    ``described``: name and description of a table.
    """

    where: Numbers
    relation: Numbers
    described: list[tuple[str, bytes]]

    def of(self, chosen: Any) -> _Changes:
        return _Changes(self.where[chosen], self.relation[chosen], self.described)


class _Known:
    """The tables that the log has described so far: a description comes once, before the first row that needs it."""

    def __init__(self, schema: str, tables: Collection[str]) -> None:
        self._schema, self._tables = schema, tables
        # oid -> number in ``_described``; of a table that is none of ours, -1.
        self._number: dict[int, int] = {}
        self._described: list[tuple[str, bytes]] = []

    def changes(self, messages: Messages) -> _Changes:
        """The changes of our tables among the messages. A TRUNCATE is a change of each table that it emptied."""
        rows = messages.where(INSERT, UPDATE, DELETE)
        relations = messages.relations(rows)
        number = np.full(len(rows), -2, np.int64)
        for oid in np.unique(relations):
            number[relations == oid] = self._number.get(int(oid), -2)
        others: list[tuple[int, int]] = []
        for position in messages.where(RELATION, TRUNCATE).tolist():
            if messages.kind[position] == RELATION:
                oid = self._describe(messages.message(position))
                number[(relations == oid) & (rows > position)] = self._number[oid]
            else:
                others += [(position, self._number.get(oid, -2)) for oid in messages.truncated(position)]
        where = np.concatenate([rows, np.array([position for position, _ in others], np.int64)])
        number = np.concatenate([number, np.array([each for _, each in others], np.int64)])
        if (number == -2).any():
            raise UnknownFormat("a row came before the description of its table")
        order = np.argsort(where, kind="stable")
        is_ours = number[order] >= 0
        return _Changes(where[order][is_ours], number[order][is_ours], self._described)

    def _describe(self, message: bytes) -> int:
        relation = Relation.read(message)
        if relation.schema == self._schema and relation.name in self._tables:
            self._number[relation.oid] = len(self._described)
            self._described.append((relation.name, message))
        else:
            self._number[relation.oid] = -1
        return relation.oid
