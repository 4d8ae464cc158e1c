"""Numbers that commits left with a table: each is looked up in the log once for each state of a handle.

Delta calls them the versions of application transactions. To look one up reads the commits since the last checkpoint,
from a bucket in a request for each.
"""

from __future__ import annotations

from collections.abc import Mapping

from deltalake import DeltaTable

from totesys_assets.lake.known import after_commit, known


def mark(table: DeltaTable, name: str) -> int | None:
    """The number that the newest commit with a mark of this ``name`` left; None if there was none."""
    marks = known(table).marks
    if name not in marks:
        marks[name] = table.transaction_version(name)
    return marks[name]


def left(table: DeltaTable, before: int, marks: Mapping[str, int]) -> None:
    """Note what a commit by ``table`` left, which was at version ``before``: it need not be looked up."""
    if table.version() == before + 1:  # else other commits came between, with marks of their own
        after_commit(table, before).marks.update(marks)
