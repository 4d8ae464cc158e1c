"""Generations of the source: a server set back to an earlier state gives its transaction ids out a second time.

Belongs here: noticing it, and numbering what comes after, so that every fingerprint taken before differs from every
one taken since. Does not belong here: the fingerprint itself. A crash or a restored backup shows in the identity of
the server; what this adds is the cold copy of a data directory, put back without a trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC

from totesys_assets.capture.ledger import COMPLETE, Entry, Ledger
from totesys_assets.source.totesys.snapshot import Snapshot

SOURCE = "source"


def settle(ledger: Ledger, snapshot: Snapshot, newest: Mapping[str, Mapping[str, Entry]] | None = None) -> Snapshot:
    """The snapshot with its generation; a new one is noted as it begins. ``newest``: what the ledger says, if read."""
    noted = (newest or ledger.newest([SOURCE])).get(SOURCE, {}).get(snapshot.server)
    if noted is None:
        return snapshot
    generation, xmax = map(int, noted.state.split())
    # A snapshot that is older than the one noted was merely overtaken, by a refresh that began later.
    if snapshot.xmax >= xmax or snapshot.taken_at.replace(tzinfo=UTC) < noted.recorded_at:
        return replace(snapshot, generation=generation)
    settled = replace(snapshot, generation=generation + 1)
    # At once: when the server has given out as many ids as before, there is nothing left to notice it by.
    ledger.append([reached(settled, run_id="")])
    return settled


def seen_until(snapshot: Snapshot) -> str:
    """Where all partitions that were stale are captured: every transaction up to which the source was seen."""
    return f"{_origin(snapshot)} {snapshot.xmin}"


def complete(snapshot: Snapshot, table: str, until: str, run_id: str) -> list[Entry]:
    """The entry for ``table``, captured from ``snapshot``: complete ``until`` an earlier one of the same source.

    Its ``anchor`` is the first transaction id of which that is not said; its ``state`` tells of which source.
    """
    origin, _, xmin = until.rpartition(" ")
    if origin != _origin(snapshot):
        return []
    taken_at = snapshot.taken_at.replace(tzinfo=UTC)
    return [Entry(COMPLETE, table, origin, 0, taken_at, run_id, anchor=int(xmin))]


def _origin(snapshot: Snapshot) -> str:
    return f"{snapshot.server}#{snapshot.generation}"


def reached(snapshot: Snapshot, run_id: str) -> Entry:
    """How far the source has come: to be noted in one commit with the fingerprints taken from ``snapshot``."""
    state = f"{snapshot.generation} {snapshot.xmax}"
    return Entry(SOURCE, snapshot.server, state, 0, snapshot.taken_at.replace(tzinfo=UTC), run_id)
