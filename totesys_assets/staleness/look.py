"""Looking: reading from the source, the lake and the warehouse what the decision needs.

Belongs here: the probe that tells in milliseconds that nothing changed, and gathering fingerprints and states. Does
not belong here: the decision itself, which is decide.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import duckdb
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.beside import committed, is_overtaken
from totesys_assets.capture.changes import is_stale
from totesys_assets.capture.following import behind, followed_entries, reach
from totesys_assets.capture.generation import assign_generation, seen_until
from totesys_assets.capture.ledger import EMPTY, Entry, Ledger
from totesys_assets.capture.log_lines import Undecided
from totesys_assets.capture.logged import prepared
from totesys_assets.capture.lost_ledger import corrected, ingestion_name, is_gone
from totesys_assets.capture.refusals import require_first_day
from totesys_assets.capture.registry import drift_noted
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.errors import PlatformError, StaleSnapshot, told_once
from totesys_assets.lake.tables import INGESTION, PROCESSED, Lake
from totesys_assets.load.origin import open_sources, open_tables, require_known_lake
from totesys_assets.platform import Platform
from totesys_assets.source.interface import Fingerprint, SourceSnapshot
from totesys_assets.source.shared_snapshot import OpenSnapshots, SharedSnapshots, own_faults
from totesys_assets.staleness.decide import Request, Stale, requests, stale_partitions
from totesys_assets.staleness.ranges import cut

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examined:
    """What the tables of the sources are like: why one cannot be captured, and which columns the catalogue has not.

    ``blocked``: table -> what is wrong with it. ``unknown``: table -> its columns that are left out of the capture.
    """

    blocked: dict[str, PlatformError] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What is stale, and the requests to refresh it. ``mark`` identifies the state if nothing is stale.

    ``examined`` has the tables that could not be examined; the decision is made for the others.
    ``source`` is the instant of each source that was looked at, ``looked_at`` when, in seconds since 1970.
    """

    requests: list[Request] = field(default_factory=list)
    stale: Stale = field(default_factory=dict)
    examined: Examined = field(default_factory=Examined)
    mark: str | None = None
    probed_only: bool = False
    source: dict[str, str] = field(default_factory=dict)
    looked_at: float = 0.0

    @property
    def problems(self) -> list[PlatformError]:
        """What is wrong with the tables that could not be examined."""
        return list(dict.fromkeys(self.examined.blocked.values()))  # an unreachable source is one problem

    @property
    def told(self) -> list[str]:
        """The problems in sentences, those that are alike as one."""
        return told_once(map(str, self.problems), self.examined.blocked)


def look(
    platform: Platform,
    *,
    unless: str | None = None,
    shared_snapshots: SharedSnapshots | None = None,
    before_scan: Callable[[], object] = lambda: None,
    on_examined: Callable[[Examined], object] = lambda _: None,
) -> Look:
    """Compare sources, lake and warehouse. Scan no table if the present state has the mark ``unless``.

    One snapshot of each source, and another after each table that PostgreSQL could not read. If something is stale,
    ``shared_snapshots`` takes the snapshots over, so that the captures that follow need not scan again.
    ``before_scan`` is called before tables are scanned, but not if all that is known to be new since that mark is the
    start of a server, or a day: such a scan rarely finds anything. ``on_examined`` gets the condition of the tables as
    soon as it is known, even if the look then fails.

    Raises ConnectionFailed when no source can be reached, LakeChanged when the warehouse was loaded from another lake,
    and the problem itself when no table at all could be examined.
    """
    looked_at = time.time()
    catalogue, lake, warehouse, all_days = platform.catalogue, platform.lake, platform.warehouse, platform.all_days
    with ExitStack() as stack:
        snapshots = OpenSnapshots(platform.sources)
        stack.callback(snapshots.close)
        first = snapshots.now
        source = {name: snapshot.instant for name, snapshot in first.items()}
        mark = _mark(source, platform)
        if mark == unless:
            return Look(mark=mark, probed_only=True, source=source, looked_at=looked_at)
        held = open_sources(lake, catalogue.source)  # once: each is a question to a bucket
        require_known_lake(warehouse, lake, held)
        if unless is None or _but_for_time(mark) != _but_for_time(unless):
            before_scan()
        found, examined = _examine(platform, snapshots)
        on_examined(examined)
        problems = list(examined.blocked.values())
        if not found:
            raise problems[0]
        noted = corrected(catalogue, lake, held)
        built = open_tables(lake, PROCESSED, catalogue.warehouse).items()
        for asset in [f"{PROCESSED}/{name}" for name, table in built if table is None]:
            noted.pop(asset, None)
        for table in catalogue.source.values():
            require_first_day(table, all_days, noted.get(ingestion_name(table), {}))
        for name, partitions in found.items():
            if not partitions and not noted.get(ingestion_name(catalogue.source[name])):
                found[name] = _never_filled(catalogue.source[name], all_days)
        stale = stale_partitions(catalogue, found, noted, warehouse.loaded())
        if stale and not problems and shared_snapshots is not None:
            snapshots.hand_over(shared_snapshots)
    asked = requests(stale, _seen_until(lake, first), looked_at) if stale else []
    asked = cut(catalogue, asked, stale, found, noted, platform.range_rows)
    return Look(asked, stale, examined, None if stale or problems else mark, source=source, looked_at=looked_at)


def follow_from_here(
    lake: Lake,
    table: Table,
    snapshot: SourceSnapshot,
    found: Mapping[str, Fingerprint],
    noted: Mapping[str, Mapping[str, Entry]],
) -> None:
    """Note of a table that is as the snapshot shows it that it can be followed in the log from here on.

    ``found``: its fingerprints; ``noted``: the ledger's entries.
    """
    reached = reach(lake, snapshot, table)
    held = lake.find(INGESTION, table.name) if reached is not None else None
    if reached is None or held is None or is_gone(held, table.name, noted):
        return
    known = noted.get(ingestion_name(table), {})
    followed = behind(reached, held, table, noted, snapshot.file(table))
    if followed is not None and followed[1]:
        return
    is_stale_now = any(is_stale(key, found, known) for key in found.keys() | known.keys())
    if not is_stale_now and not is_overtaken(snapshot, table, held):
        Ledger(lake).append(followed_entries(table, reached, committed(held), noted, snapshot.file(table)))


def _seen_until(lake: Lake, first: Mapping[str, SourceSnapshot]) -> str:
    """Up to which transaction the source that numbers them was seen; of the ``first`` snapshot that was looked at."""
    numbered = [snapshot for snapshot in first.values() if snapshot.transactions is not None]
    return seen_until(assign_generation(Ledger(lake), numbered[0])) if numbered else ""


def _never_filled(table: Table, all_days: DayRange) -> dict[str, Fingerprint]:
    """A fingerprint that makes a table that never had a row stale, so that an empty table is created in the lake."""
    return {all_days.last.isoformat() if table.day_column else WHOLE: Fingerprint(0, EMPTY)}


def examine(platform: Platform) -> Examined:
    """What the tables of the sources are like, in snapshots of its own. Raises ConnectionFailed and UnsafeLogin."""
    with closing(OpenSnapshots(platform.sources)) as snapshots:
        return _examine(platform, snapshots)[1]


def mark_when_done(seen: Look, platform: Platform) -> str | None:
    """The mark of the state after all requests of ``seen`` have succeeded. None if some tables could not be examined.

    It has the instant of the source that was looked at. If the source has moved since, the next look finds that.
    """
    return None if seen.problems else _mark(seen.source, platform)


def _examine(platform: Platform, opened: OpenSnapshots) -> tuple[dict[str, dict[str, Fingerprint]], Examined]:
    """Fingerprints of the tables that can be examined, and what they all are like."""
    lake, ledger, all_days = platform.lake, Ledger(platform.lake), platform.all_days
    snapshots = {name: assign_generation(ledger, snapshot) for name, snapshot in opened.now.items()}
    found: dict[str, dict[str, Fingerprint]] = {}
    examined = Examined()
    for table in platform.catalogue.source.values():
        if table.group in opened.problems:
            examined.blocked[table.name] = opened.problems[table.group]
            continue
        snapshot = snapshots[table.group]
        try:
            what = f'"{table.name}" could not be examined'
            with (
                own_faults(table.group, what),
                engine.readable_errors(what),
                drift_noted(lake, snapshot, table),
            ):
                # Each time it is read, for other processes write to it, and a bucket is asked whether they did.
                follows = snapshot.log is not None and snapshot.log.wanted
                newest = ledger.newest() if follows else {}
                held = lake.find(INGESTION, table.name) if follows else None
                told = told_by_log(snapshot, lake, table, all_days, newest, held)
                found[table.name] = told if told is not None else snapshot.changed_fingerprints(table, all_days)
                follow_from_here(lake, table, snapshot, found[table.name], newest)
                unknown = unknown_columns(snapshot, table)
            if unknown:
                examined.unknown[table.name] = unknown
        except PlatformError as problem:
            examined.blocked[table.name] = problem
            if isinstance(problem.__cause__, duckdb.Error):  # PostgreSQL refuses to go on with this snapshot
                _reopen(opened, snapshots, table.group, ledger)
    for table in platform.catalogue.source.values():
        if table.group in opened.problems and found.pop(table.name, None) is not None:  # its source is gone by now
            examined.blocked[table.name] = opened.problems[table.group]
    return found, examined


def told_by_log(
    snapshot: SourceSnapshot,
    lake: Lake,
    table: Table,
    all_days: DayRange,
    newest: Mapping[str, Mapping[str, Entry]],
    held: DeltaTable | None,
) -> dict[str, Fingerprint] | None:
    """Fingerprints of a table's partitions as the log tells; None where it is not followed.

    There is no scan, unless the table was rewritten, or a capture was killed before it noted what it had done.
    ``newest``: the ledger's entries. ``held``: the lake's table, opened after these were read.
    """
    if snapshot.log is None:  # nor is its table copied, which may not be needed
        return None
    snapshot.require(table)
    known = newest.get(ingestion_name(table), {})
    logged = prepared(snapshot, lake, table, all_days, reach(lake, snapshot, table), newest, known, held)
    if logged is None:
        return None
    try:
        logged.look()
    except (Undecided, StaleSnapshot) as reason:
        log.info("%s is compared: %s", table.name, reason)
        return None
    if logged.is_noted:
        return logged.found
    found = snapshot.changed_fingerprints(table, all_days)
    told = {key: each for key, each in logged.found.items() if key in logged.touched}
    return {key: each for key, each in found.items() if key not in logged.touched} | told


def _reopen(opened: OpenSnapshots, snapshots: dict[str, SourceSnapshot], source: str, ledger: Ledger) -> None:
    """Go on with another snapshot of a source. A source that is gone is left out, unless it was the only one."""
    try:
        snapshots[source] = assign_generation(ledger, opened.reopen(source))
    except PlatformError:
        if not opened.now:
            raise


def unknown_columns(snapshot: SourceSnapshot, table: Table) -> list[str]:
    """Columns of the source that the catalogue has not, of a table that can be captured without them."""
    return [name for name in snapshot.columns(table) if name not in table.by_name]


def _mark(source: Mapping[str, str], platform: Platform) -> str:
    """Equal marks mean that neither a source, nor the lake, nor the warehouse was written to in between.

    They also mean that no table was removed from a lake in a folder, and that the catalogue and the SELECTs are the
    same: others may ask for more of a source that was not written to.
    """
    lake, warehouse, all_days = platform.lake, platform.warehouse, platform.all_days
    queries = [query_of(name).definition for name in warehouse.catalogue.warehouse]
    return json.dumps(
        {
            "source": source,
            "lake": f"{lake.uri} {Ledger(lake).mark()} {_digest(lake.present())}",
            "warehouse": warehouse.mark(),
            "days": f"{all_days.first} {all_days.last}",
            "catalogue": _digest([warehouse.catalogue, *queries]),
        }
    )


def _but_for_time(mark: str) -> str:
    """A mark without two of its parts: the last day, and when each server started (the end of its ``lifetime``)."""
    without_last_day = re.sub(r'("days": "\S+) [\d-]+"', r'\1"', mark)
    return re.sub(r"(\d+/[0-9A-F]+/\d+/\d+)/[\d.]+ ", r"\1 ", without_last_day)


def _digest(parts: list[object] | list[str]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
