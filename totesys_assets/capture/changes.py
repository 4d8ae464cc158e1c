"""Changes: which rows must be read to bring a table up to date, when not all of them must be.

Belongs here: telling by transaction ids which rows of the stale days may have been written since they were captured,
and by numbers of rows on which days something is gone. Does not belong here: comparing rows, which is difference.py.

A row that was written after a capture bears a transaction id that the capture's snapshot did not know to be finished:
``anchor`` or later. So the rows of a day that was captured are those that the lake holds, less those that are gone,
plus those that bear such an id. Ids are compared on the circle of 32 bits, as PostgreSQL itself does; whatever is in
doubt (another server, another structure, no anchor, too far round the circle) is read as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from totesys_assets.capture.fingerprint import Fingerprint, origin
from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange, contiguous
from totesys_assets.resources.engine import CHUNK_ROWS
from totesys_assets.resources.totesys import Snapshot

_CIRCLE = 2**32


@dataclass(frozen=True)
class Changes:
    """What to read: the rows ``written`` (an SQL condition) on the ``stale`` partitions, and all rows of the ``whole``.

    ``whole`` are those of the stale partitions of which it is not known when they were captured.
    """

    written: str
    stale: frozenset[str]
    whole: frozenset[str]


def changes(
    snapshot: Snapshot,
    table: Table,
    partitions: list[str],
    found: Mapping[str, Fingerprint],
    known: Mapping[str, Entry],
) -> Changes | None:
    """The changes on ``partitions`` since they were captured, as the ledger knows it. None: read everything."""
    prefix = origin(snapshot, table)
    stale = {each for each in partitions if _state(found, each) != _state(known, each)}
    dated = {each for each in stale if each in known and known[each].anchor and known[each].state.startswith(prefix)}
    whole = stale - dated
    if (stale and not dated) or sum(found[each].rows for each in whole if each in found) > CHUNK_ROWS:
        return None  # to be read piece by piece
    anchor = min((known[each].anchor for each in dated), default=snapshot.xmax)
    width = snapshot.xmax - anchor
    if not 0 <= width < _CIRCLE // 2:
        return None
    written = f"(xmin::text::bigint - {anchor % _CIRCLE} + {_CIRCLE}) % {_CIRCLE} < {width}"
    return Changes(written, frozenset(stale), frozenset(whole))


def _state(states: Mapping[str, Fingerprint] | Mapping[str, Entry], partition: str) -> str:
    return states[partition].state if partition in states else ""


def ranges(partitions: frozenset[str]) -> list[DayRange]:
    """The days of partition keys, as few ranges."""
    return contiguous(date.fromisoformat(each) for each in partitions if each != WHOLE)
