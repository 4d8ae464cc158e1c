"""Numbers that commits left with a table: each is looked up in the log once for each state of a handle.

Delta calls them the versions of application transactions. To look one up reads the commits since the last checkpoint,
from a bucket in a request for each.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field

from deltalake import DeltaTable


@dataclass
class _Read:
    handle: weakref.ref[DeltaTable]
    version: int
    marks: dict[str, int | None] = field(default_factory=dict)


# By the identity of the handle: two handles of one version are equal, though the table may have been set back between.
_READ: dict[int, _Read] = {}


def _new(table: DeltaTable) -> _Read:
    key = id(table)
    read = _READ[key] = _Read(weakref.ref(table, lambda _: _READ.pop(key, None)), table.version())
    return read


def mark(table: DeltaTable, name: str) -> int | None:
    """The number that the newest commit with a mark of this ``name`` left; None if there was none."""
    read = _READ.get(id(table))
    if read is None or read.version != table.version():
        read = _new(table)
    if name not in read.marks:
        read.marks[name] = table.transaction_version(name)
    return read.marks[name]


def inherit(table: DeltaTable, known: DeltaTable) -> None:
    """Note for ``table`` what was looked up by a handle of the very same state of it."""
    read = _READ.get(id(known))
    if read is not None and read.version == table.version():
        _new(table).marks.update(read.marks)


def left(table: DeltaTable, before: int, marks: Mapping[str, int]) -> None:
    """Note what a commit by ``table`` left, which was at version ``before``: it need not be looked up."""
    read = _READ.get(id(table))
    if table.version() != before + 1:  # other commits came between, with marks of their own
        return
    if read is None or read.version != before:
        read = _new(table)
    read.version = before + 1
    read.marks.update(marks)
