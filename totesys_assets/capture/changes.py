"""Changes: what must be read to bring a table up to date, when not all of it must be.

Belongs here: which days are stale, and telling by transaction ids which of their rows may have been written since they
were captured. Does not belong here: comparing rows, which is comparison.py.

A row that was written after a capture bears a transaction id that the capture's snapshot did not know to be finished:
``xmin_floor`` or later. So the rows of a day that was captured are those that the lake holds, less those that are gone,
plus those that bear such an id. Ids are compared on the circle of 32 bits, as PostgreSQL itself does; whatever is in
doubt (another server, another structure, no xmin_floor, too far round the circle) is read as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from totesys_assets.capture.fingerprint import Fingerprint, state_prefix
from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.source.totesys.snapshot import Snapshot

_CIRCLE = 2**32


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
    snapshot: Snapshot,
    table: Table,
    partitions: Sequence[str],
    found: Mapping[str, Fingerprint],
    known: Mapping[str, Entry],
) -> Changes:
    """The changes on ``partitions`` since they were captured, as the ledger knows it."""
    prefix = state_prefix(snapshot, table)
    stale = {each for each in partitions if is_stale(each, found, known)}
    dated = {
        each for each in stale if each in known and known[each].xmin_floor and known[each].state.startswith(prefix)
    }
    xmin_floor = min((known[each].xmin_floor for each in dated), default=snapshot.xmax)
    width = snapshot.xmax - xmin_floor
    if not dated or not 0 <= width < _CIRCLE // 2:
        return all_of(sorted(stale))
    written = f"(xmin::text::bigint - {xmin_floor % _CIRCLE} + {_CIRCLE}) % {_CIRCLE} < {width}"
    return Changes(written, frozenset(dated), frozenset(stale - dated))


def is_stale(partition: str, found: Mapping[str, Fingerprint], known: Mapping[str, Entry]) -> bool:
    """True when the source has a partition in another state than the ledger knows it in."""
    now = found[partition].state if partition in found else ""
    return now != (known[partition].fingerprint if partition in known else "")
