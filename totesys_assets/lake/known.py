"""What was read of the state that a handle shows: each thing is read once for each state.

Belongs here: whose state it is, and when another has come. Does not belong here: what is read of it (marks.py,
files.py).
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

import pyarrow as pa
from deltalake import DeltaTable


@dataclass
class Known:
    """What was read of the state of a ``handle`` at a ``version``: ``marks`` by name, and the list of its ``files``."""

    handle: weakref.ref[DeltaTable]
    version: int
    marks: dict[str, int | None] = field(default_factory=dict)
    files: pa.Table | None = None


# By the identity of the handle: two handles of one version are equal, though the table may have been set back between.
_KNOWN: dict[int, Known] = {}


def known(table: DeltaTable) -> Known:
    """What was read of the state that ``table`` shows now."""
    key = id(table)
    found = _KNOWN.get(key)
    if found is None or found.version != table.version():
        found = _KNOWN[key] = Known(weakref.ref(table, lambda _: _KNOWN.pop(key, None)), table.version())
    return found


def inherit(table: DeltaTable, other: DeltaTable) -> None:
    """Let ``table``, which was just opened, know what was read by another handle, if both show the same version.

    Of one table, that is. The caller knows that it was not set back between the two.
    """
    read, mine = _KNOWN.get(id(other)), known(table)
    if read is not None and read.version == mine.version:
        mine.marks.update(read.marks)
        mine.files = read.files


def after_commit(table: DeltaTable, before: int) -> Known:
    """What is known of ``table`` once it has made a commit to version ``before``: the marks stay, the files do not."""
    found = _KNOWN.get(id(table))
    if found is None or found.version != before:
        return known(table)
    found.version, found.files = before + 1, None
    return found
