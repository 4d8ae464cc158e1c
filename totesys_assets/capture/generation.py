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


def assign_generation(
    ledger: Ledger, snapshot: Snapshot, newest: Mapping[str, Mapping[str, Entry]] | None = None
) -> Snapshot:
    """The snapshot with its generation. A new one is noted at once. ``newest``: the ledger's entries, if read."""
    noted = (newest or ledger.newest([SOURCE])).get(SOURCE, {}).get(snapshot.server)
    if noted is None:
        return snapshot
    generation, xmax = map(int, noted.state.split())
    # A snapshot older than the one noted belongs to a refresh that began earlier and was overtaken.
    if snapshot.xmax >= xmax or snapshot.taken_at.replace(tzinfo=UTC) < noted.recorded_at:
        return replace(snapshot, generation=generation)
    renumbered = replace(snapshot, generation=generation + 1)
    # At once: later the server has given out as many ids as before, and nothing shows that it was set back.
    ledger.append([source_entry(renumbered, run_id="")])
    return renumbered


def seen_until(snapshot: Snapshot) -> str:
    """The source's server and generation, and the transaction id below which ``snapshot`` sees every transaction."""
    return f"{_source_id(snapshot)} {snapshot.xmin}"


def complete_entries(snapshot: Snapshot, table: str, until: str, run_id: str) -> list[Entry]:
    """The entry that ``table`` is captured completely up to ``until`` (seen_until of an earlier snapshot).

    Its ``xmin_floor`` is the first transaction id that may be missing; its ``state`` names the source. No entry if
    ``until`` was of another source.
    """
    source_id, _, xmin = until.rpartition(" ")
    if source_id != _source_id(snapshot):
        return []
    taken_at = snapshot.taken_at.replace(tzinfo=UTC)
    return [Entry(COMPLETE, table, source_id, 0, taken_at, run_id, xmin_floor=int(xmin))]


def _source_id(snapshot: Snapshot) -> str:
    return f"{snapshot.server}#{snapshot.generation}"


def source_entry(snapshot: Snapshot, run_id: str) -> Entry:
    """How far the source's transaction ids have come: noted in one commit with the fingerprints of ``snapshot``."""
    state = f"{snapshot.generation} {snapshot.xmax}"
    return Entry(SOURCE, snapshot.server, state, 0, snapshot.taken_at.replace(tzinfo=UTC), run_id)
