"""Generations of the source: a server set back to an earlier state gives its transaction ids out a second time.

Belongs here: noticing it, and numbering what comes after, so that every fingerprint taken before differs from every
one taken since. Does not belong here: the fingerprint itself. A crash or a restored backup shows in the identity of
the server; what this adds is the cold copy of a data directory, put back without a trace. A source without transaction
ids has no generations.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import TypeVar

from totesys_assets.capture.ledger import COMPLETE, Entry, Ledger
from totesys_assets.source.interface import SourceSnapshot

SOURCE = "source"

Snapshot = TypeVar("Snapshot", bound=SourceSnapshot)


def assign_generation(
    ledger: Ledger, snapshot: Snapshot, newest: Mapping[str, Mapping[str, Entry]] | None = None
) -> Snapshot:
    """The snapshot with its generation. A new one is noted at once. ``newest``: the ledger's entries, if read."""
    ids = snapshot.transactions
    noted = (newest or ledger.newest([SOURCE])).get(SOURCE, {}).get(ids.server) if ids is not None else None
    if ids is None or noted is None:
        return snapshot
    generation, xmax = map(int, noted.state.split())
    # A snapshot older than the one noted belongs to a refresh that began earlier and was overtaken.
    if ids.xmax >= xmax or snapshot.taken_at.replace(tzinfo=UTC) < noted.recorded_at:
        return snapshot.with_generation(generation)
    renumbered = snapshot.with_generation(generation + 1)
    # At once: later the server has given out as many ids as before, and nothing shows that it was set back.
    ledger.append(source_entries(renumbered, run_id=""))
    return renumbered


def seen_until(snapshot: SourceSnapshot) -> str:
    """The source's server and generation, and the transaction id below which ``snapshot`` sees every transaction.

    Empty for a source without transaction ids.
    """
    ids = snapshot.transactions
    return f"{snapshot.identity} {ids.xmin}" if ids is not None else ""


def complete_entries(snapshot: SourceSnapshot, table: str, until: str, run_id: str) -> list[Entry]:
    """The entry that ``table`` is captured completely up to ``until`` (seen_until of an earlier snapshot).

    Its ``xmin_floor`` is the first transaction id that may be missing; its ``state`` names the source. No entry if
    ``until`` was of another source.
    """
    identity, _, xmin = until.rpartition(" ")
    if identity != snapshot.identity:
        return []
    taken_at = snapshot.taken_at.replace(tzinfo=UTC)
    return [Entry(COMPLETE, table, identity, 0, taken_at, run_id, xmin_floor=int(xmin))]


def source_entries(snapshot: SourceSnapshot, run_id: str) -> list[Entry]:
    """How far the source's transaction ids have come: noted in one commit with the fingerprints of ``snapshot``."""
    ids = snapshot.transactions
    if ids is None:
        return []
    state, taken_at = f"{ids.generation} {ids.xmax}", snapshot.taken_at.replace(tzinfo=UTC)
    return [Entry(SOURCE, ids.server, state, 0, taken_at, run_id)]
