"""Numbers that commits left with a table: each is looked up in the log once for each state of a handle.

Delta calls them the versions of application transactions. To look one up reads the commits since the last checkpoint,
from a bucket in a request for each.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

from deltalake import DeltaTable


@dataclass
class _Read:
    handle: weakref.ref[DeltaTable]
    version: int
    marks: dict[str, int | None] = field(default_factory=dict)


# By the identity of the handle: two handles of one version are equal, though the table may have been set back between.
_READ: dict[int, _Read] = {}


def mark(table: DeltaTable, name: str) -> int | None:
    """The number that the newest commit with a mark of this ``name`` left; None if there was none."""
    key, version = id(table), table.version()
    read = _READ.get(key)
    if read is None or read.version != version:
        read = _READ[key] = _Read(weakref.ref(table, lambda _: _READ.pop(key, None)), version)
    if name not in read.marks:
        read.marks[name] = table.transaction_version(name)
    return read.marks[name]
