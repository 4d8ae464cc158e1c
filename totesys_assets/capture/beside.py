"""Captures beside others: which commit to a table was the last, and whether another capture forestalled this one.

Belongs here: comparing this capture with what others committed, and committing what it found after them, where they
were about other days. Does not belong here: what it found, which is comparison.py.

What a capture adds on some days depends on these days only. So what another committed on other days changes nothing of
it: the files that it wrote are committed after the other's, with a later ``_recorded_at``. Builds and loads take what
was recorded since the last time, and would skip for ever what was committed later under an earlier moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import RECORDED_AT, Table
from totesys_assets.days import Days, DaySet
from totesys_assets.errors import StaleSnapshot
from totesys_assets.lake.commit import LostRace, commit, written_beside
from totesys_assets.lake.history import commits
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import RECORDED, recorded_until
from totesys_assets.lake.tables import Lake
from totesys_assets.lake.written import Written, batches_of
from totesys_assets.source.interface import SourceSnapshot

# Of a commit about some days, in its metadata: these days; the lifetime of its snapshot, the order of that, and the
# greatest order of those before it.
_DAYS, _LIFETIME, _ORDER, _BEFORE = (f"totesys.{name}" for name in ("days", "lifetime", "order", "before"))
# Commits that change no row, whoever made them.
_HOUSEKEEPING = frozenset({"CREATE TABLE", "OPTIMIZE", "ADD COLUMN", "SET TBLPROPERTIES", "VACUUM START", "VACUUM END"})
# Each loss is a commit of another capture, and each of a few ranges commits to a table once.
_ATTEMPTS = 20


def committed(held: DeltaTable) -> str:
    """Which commit of a capture to an ingestion table was the last."""
    return named(held, mark(held, RECORDED))


def named(held: DeltaTable, recorded_at: int | None) -> str:
    """The commit to ``held`` that was recorded at this moment, as ``committed`` names it."""
    return f"{held.metadata().id} {recorded_at}"


def is_commit_to(held: DeltaTable, commit: str) -> bool:
    """Whether a commit, as ``committed`` names it, was to this very table: one that was begun anew has another id."""
    return commit.partition(" ")[0] == str(held.metadata().id)


def is_overtaken(snapshot: SourceSnapshot, table: Table, held: DeltaTable, days: Days | None = None) -> bool:
    """True if ``held`` has, or may have, versions from a later snapshot: of ``days``, or of any days."""
    if not snapshot.is_overtaken(table, mark(held, snapshot.lifetime) or 0):
        return False
    return days is None or _is_overtaken_on(snapshot, table, held, days)


def require_newest(snapshot: SourceSnapshot, table: Table, held: DeltaTable, days: Days | None = None) -> None:
    """Raise StaleSnapshot if ``held`` has versions from a later snapshot: what is new there would look gone here.

    ``days``: the only ones that matter, of a capture that is about some days.
    """
    if is_overtaken(snapshot, table, held, days):
        by_clock = " If no other is running, the clock of this machine was set back." * (snapshot.transactions is None)
        raise StaleSnapshot(
            f'Another refresh captured "{table.name}" from a later snapshot while this one held an earlier. '
            f"Nothing is lost; refresh again.{by_clock}"
        )


@dataclass(frozen=True)
class Appended:
    """A commit of versions: the table after it, when they were recorded, and which capture's commit was before it."""

    held: DeltaTable
    recorded_at: int
    before: str


def append_beside(
    snapshot: SourceSnapshot,
    lake: Lake,
    table: Table,
    held: DeltaTable,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    recorded_at: int,
    days: Days,
) -> Appended:
    """Append versions of some ``days``, all recorded at one moment, after what others commit on other days meanwhile.

    Raises LostRace where another committed on some of these days since ``held`` was opened: then compare again. Raises
    LakeFailed where files cannot be written, or read again.
    """
    writer = f"capture:{table.name}"
    written = written_beside(held, batches, schema)
    for _ in range(_ATTEMPTS):
        last, version, (marks, said) = committed(held), held.version(), _noted(snapshot, table, held, days)
        try:
            commit(written, writer, {**marks, RECORDED: recorded_at}, said=said)
        except LostRace:
            held = lake.open_versions(table)
            # The files stay: a store may report a failure after success, and the other commit be this very one.
            if held.metadata().id != written.table.metadata().id or _is_touched(held, version, days):
                raise
            until = recorded_until(held)
            if until < recorded_at:
                written = Written(held, written.actions, written.rows)
            else:
                recorded_at, earlier = until + 1, written
                written = written_beside(held, _recorded(batches_of(earlier, schema), recorded_at), schema)
                earlier.discard()  # that commit failed: those since then are about other days
        else:
            return Appended(held, recorded_at, last)
    raise LostRace(f"Others committed to {held.table_uri} {_ATTEMPTS} times.")


def _noted(
    snapshot: SourceSnapshot, table: Table, held: DeltaTable, days: Days
) -> tuple[dict[str, int], dict[str, str]]:
    """The marks of a commit about ``days``, and what it says in the table's history."""
    before, order = mark(held, snapshot.lifetime) or 0, snapshot.order(table)
    said = {_DAYS: str(DaySet(days.ranges)), _LIFETIME: snapshot.lifetime, _ORDER: str(order), _BEFORE: str(before)}
    return {snapshot.lifetime: max(order, before)}, said


def _recorded(batches: Iterable[pa.RecordBatch], recorded_at: int) -> Iterator[pa.RecordBatch]:
    """The same versions, as recorded at another moment (microseconds since 1970)."""
    for batch in batches:
        number = batch.schema.get_field_index(RECORDED_AT)
        field = batch.schema.field(number)
        moments = pa.repeat(pa.scalar(recorded_at, pa.int64()), len(batch)).cast(field.type)
        yield batch.set_column(number, field, moments)


def _is_touched(held: DeltaTable, version: int, days: Days) -> bool:
    """Whether a commit after ``version`` was about some of ``days``, or may have been."""
    since = held.version() - version
    found = [*islice(commits(held), since)]
    return len(found) < since or any(_is_about(each, days) for each in found)


def _is_overtaken_on(snapshot: SourceSnapshot, table: Table, held: DeltaTable, days: Days) -> bool:
    for each in commits(held):
        if each.get(_LIFETIME) != snapshot.lifetime:
            if _is_about(each, days):  # it cannot be told of which snapshot it is
                return True
            continue
        if _is_about(each, days) and snapshot.is_overtaken(table, int(each[_ORDER])):
            return True
        if not snapshot.is_overtaken(table, int(each[_BEFORE])):
            return False  # nor is it by any that was committed before
    return True  # the log does not go back so far


def _is_about(commit: Mapping[str, Any], days: Days) -> bool:
    """Whether a commit may have changed rows of ``days``; one that does not say its days may be about any."""
    if commit.get("operation") in _HOUSEKEEPING or commit.get("operationMetrics", {}).get("num_added_rows") == 0:
        return False
    text = commit.get(_DAYS)
    return text is None or any(
        one.first <= other.last and other.first <= one.last
        for one in DaySet.parse(text).ranges
        for other in days.ranges
    )
