"""Changes: which rows must be read to bring a table up to date.

Belongs here: which days are stale, and on which of them only some rows must be read. Does not belong here: comparing
rows, which is comparison.py.

If the source knows which rows may have been written since a day was captured (``SourceSnapshot.written_since``), only
those are read: the day's rows are those that the lake holds, less the deleted, plus the written. Other days are read as
a whole. So are those of a table where several rows may have
one key: a row that is gone is found by counting rows, and another with its key would hide it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.source.interface import Fingerprint, SourceSnapshot


@dataclass(frozen=True)
class Changes:
    """What to read: the rows ``written`` (an SQL condition) on the ``dated`` partitions, and all rows of the ``whole``.

    The two are all that is stale; of the ``whole`` it is not known when they were captured.
    """

    written: str
    dated: frozenset[str]
    whole: frozenset[str]

    @property
    def stale(self) -> frozenset[str]:
        """The partitions to look at."""
        return self.dated | self.whole

    def all_read(self) -> Changes:
        """The same partitions, and all of their rows."""
        return Changes("false", frozenset(), self.stale)


def all_of(partitions: Sequence[str]) -> Changes:
    """All rows of all ``partitions``, as if nothing were known of them."""
    return Changes("false", frozenset(), frozenset(partitions))


def changes(
    snapshot: SourceSnapshot,
    table: Table,
    partitions: Sequence[str],
    found: Mapping[str, Fingerprint],
    known: Mapping[str, Entry],
) -> Changes:
    """The changes on ``partitions`` since they were captured, as the ledger knows it."""
    stale = {each for each in partitions if is_stale(each, found, known)}
    captured = {} if snapshot.may_double(table) else captured_of(sorted(stale), known)
    written, dated = snapshot.written_since(table, captured)
    return Changes(written, dated, frozenset(stale) - dated)


def captured_of(partitions: Iterable[str], known: Mapping[str, Entry]) -> dict[str, tuple[str, int]]:
    """State and xmin of the captures of ``partitions``, as the source is told of them."""
    return {each: (known[each].state, known[each].xmin_floor) for each in partitions if each in known}


def is_stale(partition: str, found: Mapping[str, Fingerprint], known: Mapping[str, Entry]) -> bool:
    """True when the source has a partition in another state than the ledger knows it in."""
    now = found[partition].state if partition in found else ""
    return now != (known[partition].fingerprint if partition in known else "")
