"""Messages of PostgreSQL's logical replication, as its output plugin pgoutput writes them (protocol 1), decoded.

Belongs here: what the bytes say of transactions, relations and rows. Does not belong here: where the messages come from
(log.py) and what becomes of the rows (capture/).

The format is PostgreSQL's: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html. All
messages of a batch are decoded side by side: a message is a slice of one buffer, and rows of one relation are walked
column by column, all rows at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from totesys_assets.errors import PlatformError

BEGIN, COMMIT, RELATION, INSERT, UPDATE, DELETE, TRUNCATE = b"BCRIUDT"
ROWS = (INSERT, UPDATE, DELETE)
# A row of which only this much is there, its kind and its relation, was too large to be carried.
CUT = 5
# Texts of more bytes than this, on average, are gathered one by one: all at once takes 24 bytes for each of theirs.
_LONG = 200
# Microseconds from 1970 to 2000, where PostgreSQL's clock begins.
_EPOCH = 946_684_800_000_000
# Zeros behind the buffer, so that a number may be read wherever a message ends.
_PADDING = 8
# Kinds of a value in a row: text, NULL, and a large value that the log leaves out because it did not change.
_TEXT, _NULL, _UNCHANGED = b"tnu"
# What stands before a row: it is the new one, the key of the old one, or the whole old one.
_NEW, _KEY, _OLD = b"NKO"

Numbers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


class UnknownFormat(PlatformError):
    """The log has something that this module cannot read: nothing of it may be believed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The log of ToteSys cannot be read: {what}.")


@dataclass(frozen=True)
class Commit:
    """A transaction, as its first message announces it.

    ``lsn`` is the position of its commit record, by which transactions are ordered; ``xid`` its id on the circle of 32
    bits; ``committed_at`` its commit's time in microseconds since 1970, by the source's clock.
    """

    lsn: int
    xid: int
    committed_at: int


@dataclass(frozen=True)
class Relation:
    """A table as it was when the rows that follow its description were written.

    ``columns``: name, type's oid and type modifier. ``keys``: positions of the columns that identify a row.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[tuple[str, int, int], ...]
    keys: tuple[int, ...]

    @classmethod
    def read(cls, message: bytes) -> Relation:
        """The relation that a message describes."""
        try:
            (oid,) = struct.unpack_from(">I", message, 1)
            schema, at = _name(message, 5)
            name, at = _name(message, at)
            (count,) = struct.unpack_from(">H", message, at + 1)
            at += 3
            columns, keys = [], []
            for position in range(count):
                is_key = message[at] & 1
                column, at = _name(message, at + 1)
                type_, modifier = struct.unpack_from(">Ii", message, at)
                at += 8
                columns.append((column, type_, modifier))
                if is_key:
                    keys.append(position)
        except (struct.error, ValueError, IndexError) as error:
            raise UnknownFormat(f"a description of a table is cut short ({error})") from error
        return cls(oid, schema, name, tuple(columns), tuple(keys))


class Messages:
    """Some messages, in the order of the log; ``array`` is one of Arrow's binary ones."""

    def __init__(self, array: pa.Array[Any]) -> None:
        if array.null_count:
            raise UnknownFormat("a message is missing")
        self._array = array
        size = np.int64 if pa.types.is_large_binary(array.type) else np.int32
        _, edges, content = array.buffers()
        first, last = array.offset, array.offset + len(array) + 1
        self._edges: Numbers = _view(edges, size)[first:last].astype(np.int64) if edges else np.zeros(1, np.int64)
        self._bytes: Bytes = np.concatenate([_view(content, np.uint8), np.zeros(_PADDING, np.uint8)])
        if (np.diff(self._edges) <= 0).any():
            raise UnknownFormat("a message is empty")

    def __len__(self) -> int:
        return len(self._array)

    @cached_property
    def kind(self) -> Bytes:
        """The kind of each message: the byte that it begins with."""
        return self._bytes[self._edges[:-1]]

    def where(self, *kinds: int) -> Numbers:
        """Positions of the messages of these kinds."""
        return np.flatnonzero(np.isin(self.kind, kinds))

    def message(self, position: int) -> bytes:
        """One message."""
        found: bytes = self._array[int(position)].as_py()
        return found

    def take(self, positions: Numbers) -> pa.Array[Any]:
        """Some of the messages, as an Arrow array."""
        return self._array.take(pa.array(positions, pa.int64()))

    def relations(self, positions: Numbers) -> Numbers:
        """The oids of the relations that rows and descriptions are of."""
        return self._number(self._edges[positions] + 1, 4)

    def commits(self, positions: Numbers) -> list[Commit]:
        """The transactions that begin at ``positions``."""
        at = self._edges[positions]
        columns = (self._number(at + 1, 8), self._number(at + 17, 4), self._number(at + 9, 8) + _EPOCH)
        return [Commit(*each) for each in zip(*(column.tolist() for column in columns), strict=True)]

    def ends(self, positions: Numbers) -> list[tuple[int, int]]:
        """Of the commits at ``positions``: the position of each, and where the log goes on behind it."""
        at = self._edges[positions]
        return list(zip(self._number(at + 2, 8).tolist(), self._number(at + 10, 8).tolist(), strict=True))

    def truncated(self, position: int) -> tuple[int, ...]:
        """The oids of the relations that a TRUNCATE emptied."""
        message = self.message(position)
        (count,) = struct.unpack_from(">I", message, 1)
        return struct.unpack_from(f">{count}I", message, 6)

    def rows(self, relation: Relation) -> Rows:
        """What the messages, all of them rows of ``relation``, say."""
        return _rows(self, relation)

    # Bytes

    def _number(self, at: Numbers, width: int) -> Numbers:
        """Numbers at any places: the bytes seen as overlapping words, and one of these gathered for each place."""
        words = np.ndarray((len(self._bytes) - width + 1,), f">u{width}", self._bytes, 0, (1,))
        found: Numbers = words[at].astype(np.int64)
        return found

    def _byte(self, at: Numbers) -> Bytes:
        return self._bytes[at]

    def _texts(self, start: Numbers, length: Numbers, present: Flags) -> pa.Array[Any]:
        """Slices of the buffer as text; NULL where none is ``present``. Raises UnknownFormat for what is no UTF-8."""
        edges = np.zeros(len(start) + 1, np.int64)
        np.cumsum(length, out=edges[1:])
        if edges[-1] > _LONG * len(start):
            slices = [self._bytes[at:end] for at, end in zip(start.tolist(), (start + length).tolist(), strict=True)]
            gathered = np.concatenate(slices)
        else:
            gathered = self._bytes[np.repeat(start - edges[:-1], length) + np.arange(edges[-1])]
        validity = pa.array(present).buffers()[1]
        texts = pa.Array.from_buffers(
            pa.large_string(), len(start), [validity, pa.py_buffer(edges.data), pa.py_buffer(gathered.data)]
        )
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid as error:
            raise UnknownFormat("a text is not in UTF-8") from error
        return texts


@dataclass(frozen=True)
class Rows:
    """Rows of one relation, message by message.

    ``values``: column -> text, or NULL, of the new row; of a deleted one at least its key.
    ``unchanged``: column -> whether the log left the value out because it is as it was; only columns where it did.
    ``old_keys``: column of the key -> its text before an UPDATE that changed the key, else NULL; empty if none did.
    """

    values: dict[str, pa.Array[Any]]
    unchanged: dict[str, Flags]
    old_keys: dict[str, pa.Array[Any]]


@dataclass(frozen=True)
class _Tuples:
    """Where the values of some rows are: arrays of columns × rows. ``end``: where the log goes on behind each row."""

    present: Flags
    unchanged: Flags
    start: Numbers
    length: Numbers
    end: Numbers

    @classmethod
    def none(cls, columns: int, rows: int) -> _Tuples:
        shape, no_place = (columns, rows), np.zeros(rows, np.int64)
        return cls(
            np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, np.int64), np.zeros(shape, np.int64), no_place
        )

    def put(self, where: Numbers, other: _Tuples, columns: Iterable[int], only: Flags | None = None) -> None:
        """Take over the values of ``other``'s rows for the rows ``where``; with ``only``, where that says so."""
        for column in columns:
            chosen = only[column] if only is not None else np.ones(len(where), bool)
            for name in ("present", "unchanged", "start", "length"):
                getattr(self, name)[column][where[chosen]] = getattr(other, name)[column][chosen]


def _rows(messages: Messages, relation: Relation) -> Rows:
    count, columns = len(messages), range(len(relation.columns))
    at = messages._edges[:-1] + 5
    marker = messages._byte(at)
    with_old = np.flatnonzero(np.isin(marker, (_KEY, _OLD)))
    old = _walk(messages, at[with_old], len(columns))
    new_at = at.copy()
    new_at[with_old] = old.end
    is_deleted = messages.kind == DELETE
    if is_deleted[np.isin(marker, (_KEY, _OLD), invert=True)].any():
        raise UnknownFormat(f'a deleted row of "{relation.name}" has no key')
    with_new = np.flatnonzero(~is_deleted)
    if (messages._byte(new_at[with_new]) != _NEW).any():
        raise UnknownFormat(f'a row of "{relation.name}" has no values')
    new = _walk(messages, new_at[with_new], len(columns))
    told = _Tuples.none(len(columns), count)
    told.put(with_new, new, columns)
    # Where the whole old row is told (REPLICA IDENTITY FULL), what the new one leaves out is in it.
    whole = marker[with_old] == _OLD
    told.put(with_old, old, columns, told.unchanged[:, with_old] & old.present & whole)
    gone = is_deleted[with_old]
    told.put(with_old, old, columns, np.broadcast_to(gone & whole, old.present.shape))
    told.put(with_old, old, relation.keys, np.broadcast_to(gone, old.present.shape))
    names = [name for name, *_ in relation.columns]
    changed = _Tuples.none(len(columns), count)
    changed.put(with_old, old, relation.keys, np.broadcast_to(~gone, old.present.shape))
    has_old_key = bool((~gone).any())
    return Rows(
        {name: messages._texts(told.start[i], told.length[i], told.present[i]) for i, name in enumerate(names)},
        {name: told.unchanged[i] for i, name in enumerate(names) if told.unchanged[i].any()},
        {
            names[i]: messages._texts(changed.start[i], changed.length[i], changed.present[i])
            for i in relation.keys
            if has_old_key
        },
    )


def _walk(messages: Messages, at: Numbers, columns: int) -> _Tuples:
    """Where the values are of the rows that are announced ``at`` these places."""
    found = _Tuples.none(columns, len(at))
    counts = (messages._byte(at + 1).astype(np.int64) << 8) | messages._byte(at + 2)
    if (counts != columns).any():
        raise UnknownFormat(f"a row has {counts[counts != columns][0]} columns, and its table {columns}")
    place = at + 3
    for column in range(columns):
        kind = messages._byte(place)
        is_text = kind == _TEXT
        found.unchanged[column] = kind == _UNCHANGED
        if not (is_text | found.unchanged[column] | (kind == _NULL)).all():
            raise UnknownFormat("a value is of a kind that is not known")
        found.present[column] = is_text
        found.start[column] = place + 5
        found.length[column] = np.where(is_text, messages._number(place + 1, 4), 0)
        place = place + np.where(is_text, 5 + found.length[column], 1)
        if (place > len(messages._bytes) - _PADDING).any():
            raise UnknownFormat("a row is cut short")
    found.end[:] = place
    return found


def _view(buffer: pa.Buffer | None, type_: type[Any]) -> npt.NDArray[Any]:
    """The numbers of a buffer, where there is one; without a copy."""
    return np.frombuffer(memoryview(buffer) if buffer is not None and buffer.size else b"", type_)


def _name(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode(), end + 1
