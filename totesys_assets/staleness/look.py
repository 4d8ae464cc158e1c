"""Looking: reading from the source, the lake and the warehouse what the decision needs.

Belongs here: the probe that tells in milliseconds that nothing changed, and gathering fingerprints and states. Does
not belong here: the decision itself, which is decide.py.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import duckdb
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.difference import ingestion_name, missing_entries, require_first_day
from totesys_assets.capture.fingerprint import Fingerprint, fingerprints
from totesys_assets.capture.generation import assign_generation, seen_until
from totesys_assets.capture.ledger import EMPTY, Entry, Ledger
from totesys_assets.capture.registry import drift_noted
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import INGESTION, PROCESSED, Lake
from totesys_assets.load.origin import open_sources, open_tables, require_known_lake
from totesys_assets.platform import Platform
from totesys_assets.source.shared_snapshot import SharedSnapshot
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets.staleness.decide import Request, Stale, requests, stale_partitions


@dataclass(frozen=True)
class Examined:
    """What the tables of ToteSys are like: why one cannot be captured, and which columns the catalogue has not.

    ``blocked``: table -> what is wrong with it. ``unknown``: table -> its columns that are left out of the capture.
    """

    blocked: dict[str, PlatformError] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What there is to do. ``mark`` identifies the state in which there was nothing: the next look's ``unless``.

    ``examined`` tells of tables that could not be examined; the others are decided on all the same.
    ``source`` is the state of the source that was looked at, ``looked_at`` when, in seconds since 1970.
    """

    requests: list[Request] = field(default_factory=list)
    stale: Stale = field(default_factory=dict)
    examined: Examined = field(default_factory=Examined)
    mark: str | None = None
    probed_only: bool = False
    source: str = ""
    looked_at: float = 0.0

    @property
    def problems(self) -> list[PlatformError]:
        """What is wrong with the tables that could not be examined."""
        return list(self.examined.blocked.values())


def look(
    platform: Platform,
    *,
    unless: str | None = None,
    shared_snapshot: SharedSnapshot | None = None,
    before_scan: Callable[[], object] = lambda: None,
    on_examined: Callable[[Examined], object] = lambda _: None,
) -> Look:
    """Compare source, lake and warehouse. Scan no table if the present state has the mark ``unless``.

    One source transaction, and another after each table that PostgreSQL could not read. If something is stale,
    ``shared_snapshot`` takes the transaction over, so that the captures that follow need not scan again.
    ``before_scan`` is called before tables are scanned. ``on_examined`` gets the condition of the tables as soon as it
    is known, even if the look then fails.

    Raises ConnectionFailed, LakeChanged when the warehouse was loaded from another lake, and the problem itself when no
    table at all could be examined.
    """
    looked_at = time.time()
    totesys, lake, warehouse, all_days = platform.totesys, platform.lake, platform.warehouse, platform.all_days
    with ExitStack() as stack:
        snapshot = stack.enter_context(totesys.snapshot())
        source = snapshot.instant
        mark = _mark(source, platform)
        if mark == unless:
            return Look(mark=mark, probed_only=True, source=source, looked_at=looked_at)
        held = open_sources(lake, totesys.catalogue.source)  # once: each is a question to a bucket
        require_known_lake(warehouse, lake, held)
        before_scan()
        found, examined = _examine(platform, snapshot, stack)
        on_examined(examined)
        problems = list(examined.blocked.values())
        if not found:
            raise problems[0]
        noted = _noted(totesys.catalogue, lake, held)
        for table in totesys.catalogue.source.values():
            require_first_day(table, all_days, noted.get(ingestion_name(table), {}))
        for name, partitions in found.items():
            if not partitions and not noted.get(ingestion_name(totesys.catalogue.source[name])):
                found[name] = _never_filled(totesys.catalogue.source[name], all_days)
        stale = stale_partitions(totesys.catalogue, found, noted, warehouse.loaded())
        if stale and not problems and shared_snapshot is not None:
            shared_snapshot.take_over(snapshot, stack.pop_all())
    clean = not stale and not problems
    asked = requests(stale, seen_until(assign_generation(Ledger(lake), snapshot)), looked_at) if stale else []
    return Look(asked, stale, examined, mark if clean else None, source=source, looked_at=looked_at)


def _never_filled(table: Table, all_days: DayRange) -> dict[str, Fingerprint]:
    """A fingerprint that makes a table that never had a row stale, so that an empty table is created in the lake."""
    return {all_days.last.isoformat() if table.day_column else WHOLE: Fingerprint(0, EMPTY)}


def examine(platform: Platform) -> Examined:
    """What the tables of ToteSys are like, in a snapshot of its own. Raises ConnectionFailed and UnsafeLogin."""
    with ExitStack() as stack:
        return _examine(platform, stack.enter_context(platform.totesys.snapshot()), stack)[1]


def mark_when_done(seen: Look, platform: Platform) -> str | None:
    """The mark under which nothing is left to do, once all that ``seen`` asked for was done. None: look again.

    The source is believed to be as it was when it was looked at; if it is not, that is what the next look sees.
    """
    return None if seen.problems else _mark(seen.source, platform)


def _examine(
    platform: Platform, snapshot: Snapshot, stack: ExitStack
) -> tuple[dict[str, dict[str, Fingerprint]], Examined]:
    """Fingerprints of the tables that can be examined, and what they all are like."""
    totesys, lake = platform.totesys, platform.lake
    ledger = Ledger(lake)
    snapshot = assign_generation(ledger, snapshot)
    found: dict[str, dict[str, Fingerprint]] = {}
    examined = Examined()
    for table in totesys.catalogue.source.values():
        try:
            with (
                engine.readable_errors(f'"{table.name}" could not be examined'),
                drift_noted(lake, snapshot, table),
            ):
                found[table.name] = fingerprints(snapshot, table, platform.all_days)
            if unknown := unknown_columns(snapshot, table):
                examined.unknown[table.name] = unknown
        except PlatformError as problem:
            examined.blocked[table.name] = problem
            if isinstance(problem.__cause__, duckdb.Error):  # PostgreSQL refuses to go on with this snapshot
                stack.close()
                snapshot = assign_generation(ledger, stack.enter_context(totesys.snapshot()))
    return found, examined


def unknown_columns(snapshot: Snapshot, table: Table) -> list[str]:
    """Columns of ToteSys that the catalogue has not, of a table that can be captured without them."""
    return [name for name in snapshot.tables[table.name].columns if name not in table.by_name]


def _noted(catalogue: Catalogue, lake: Lake, held: Mapping[str, DeltaTable | None]) -> dict[str, dict[str, Entry]]:
    """What the ledger says, as far as it is true of a lake, or a ledger, of which something was lost."""
    noted = Ledger(lake).newest()
    built = open_tables(lake, PROCESSED, catalogue.star)
    for zone, tables in ((INGESTION, held), (PROCESSED, built)):
        for name, found in tables.items():
            if found is None:
                noted.pop(f"{zone}/{name}", None)
    for table in catalogue.source.values():
        if missing := missing_entries(lake, table, held[table.name], noted):
            noted[ingestion_name(table)] = noted.get(ingestion_name(table), {}) | missing
    return noted


def _mark(source: str, platform: Platform) -> str:
    """Equal marks mean that neither the source, nor the lake, nor the warehouse was written to in between.

    Nor is the catalogue or a SELECT another: either may ask for more of a source that was not written to.
    """
    lake, warehouse, all_days = platform.lake, platform.warehouse, platform.all_days
    queries = [query_of(name).sql for name in warehouse.catalogue.star]
    return json.dumps(
        {
            "source": source,
            "lake": f"{lake.uri} {Ledger(lake).mark()}",
            "warehouse": warehouse.mark(),
            "days": f"{all_days.first} {all_days.last}",
            "catalogue": hashlib.sha256(repr([warehouse.catalogue, *queries]).encode()).hexdigest()[:16],
        }
    )
