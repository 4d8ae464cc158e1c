"""Looking at a table: rows and hash of its days, of which most are known from the last look.

Belongs here: what must be read to know them, and why the rest need not be. Does not belong here: the SQL
(fingerprint.py), keeping what was found (remembered.py), and what a state is made of (snapshot.py).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.source.totesys import fingerprint
from totesys_assets.source.totesys.fingerprint import CIRCLE, Places
from totesys_assets.source.totesys.remembered import ByDay, Fact
from totesys_assets.stages import FINGERPRINT, stage

if TYPE_CHECKING:
    from totesys_assets.source.totesys.snapshot import Snapshot

# A scan of days that have more than this share of a table's rows costs as much as one of all of it.
_MOST = 0.5


def order(text: str) -> int:
    """Of the snapshots of one lifetime, as ``pg_current_snapshot()`` writes them, the later have the higher."""
    _, xmax, running = text.split(":")
    return int(xmax) * 1_000_000 - len(running.split(",")) * bool(running)


def hashed(
    snapshot: Snapshot, table: Table, within: str = "true", floor: int | None = None
) -> tuple[ByDay, Places | None]:
    """Rows and hash of the days that have rows ``within`` a condition; and where those with ids from ``floor`` on are.

    A day's is that of the partition's state if all of its rows are within it.
    """
    written = fingerprint.is_written(floor, snapshot.xmax) if floor is not None else ""
    with stage(FINGERPRINT):
        scanned = snapshot.rows(fingerprint.scan(table, snapshot.relation(table), within, written))
    days = {day: (count, int(hash_ or 0)) for day, count, hash_, *_ in scanned}
    if floor is None:
        return days, None
    placed = [(low, high) for *_, low, high in scanned if low is not None]
    if not placed:
        return days, Places(floor)
    low, high = (choose(ends, key=_place) for choose, ends in zip((min, max), zip(*placed, strict=True), strict=True))
    return days, Places(floor, low, high)


def _place(ctid: str) -> tuple[int, int]:
    """A place ``(block,row)`` as numbers."""
    block, row = ctid.strip("()").split(",")
    return int(block), int(row)


def look(snapshot: Snapshot, table: Table) -> tuple[ByDay, ByDay, Places | None]:
    """Rows and hash of all days; those of the last look, if it served; and where the rows are that it did not show.

    Without a look that serves, all rows are hashed. No look outlives a start of the server: snapshots are in an order
    from one to the next only, and while a server is down, an older copy of its data can be put in its place.
    """
    query = fingerprint.scan(table, snapshot.relation(table))
    made_of = hashlib.sha256(f"{snapshot.state_prefix(table)}{query}".encode()).hexdigest()
    fact = snapshot.remembered.of(table.name)
    found: ByDay | None = None
    before: ByDay = {}
    places = None
    if fact is not None and (fact.made_of, fact.lifetime) == (made_of, snapshot.lifetime):
        before = fact.days
        found, places = _since(snapshot, table, fact)
    if found is None:
        found, _ = hashed(snapshot, table)
    snapshot.remembered.note(table.name, Fact(made_of, snapshot.lifetime, snapshot.text, found))
    return found, before if places is not None else {}, places


def _since(snapshot: Snapshot, table: Table, fact: Fact) -> tuple[ByDay | None, Places | None]:
    """Rows and hash of all days, of which ``fact`` tells those that are as they were; None if it cannot tell.

    What this snapshot shows and the earlier did not bears an id that the earlier did not know to be finished. Of other
    rows, some can only be gone: if there are as many as the earlier showed in all, none is. The same is true of the
    days on which no row bears such an id. So a row deleted here does not make up for one inserted there.
    """
    if fact.text == snapshot.text:
        return fact.days, None
    first = int(fact.text.split(":")[0])
    # On the other side of the circle, new ids cannot be told from old ones. Half of that leaves room for those that
    # are given out while this snapshot is held.
    if order(fact.text) > order(snapshot.text) or not 0 <= snapshot.xmax - first < CIRCLE // 4:
        return None, None
    with stage(FINGERPRINT):
        [(total, count, low, high)] = snapshot.rows(fingerprint.written_since(snapshot.relation(table), first))
    places = Places(first, low or "", high or "")
    nothing_gone = total - count == sum(rows for rows, _ in fact.days.values())
    if not nothing_gone and count > total * _MOST:
        return None, places
    written = f"{places.condition} AND {fingerprint.is_written(first, snapshot.xmax)}"
    added, _ = hashed(snapshot, table, written) if count else ({}, None)
    if nothing_gone:  # then none of these rows was there before
        found = fingerprint.gathered([*fact.days.items(), *added.items()])
        return (found if sum(rows for rows, _ in found.values()) == total else None), places
    same = {day: found for day, found in fact.days.items() if day not in added}
    rows = sum(number for number, _ in same.values())
    if not added or total - rows > total * _MOST:
        return None, places
    again, _ = hashed(snapshot, table, fingerprint.on(table, added))
    if rows + sum(number for number, _ in again.values()) != total:
        return None, places
    return {**same, **again}, places
