"""The decision: which partitions of which assets are stale, and which runs bring them up to date.

Pure functions of what the source, the lake and the warehouse say of themselves. No bookmark takes part: whatever is
thrown away, the next decision finds by comparing what there is to do. No Dagster, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.counting import counted
from totesys_assets.days import WHOLE, DayRange, Days, days_of
from totesys_assets.lake.tables import INGESTION, PROCESSED
from totesys_assets.names import WAREHOUSE
from totesys_assets.source.interface import Fingerprint
from totesys_assets.transform.build import expected_states

# Stale days this close together are one range: a day that is not stale costs some events, a range a condition in SQL.
BRIDGED_DAYS = 14
# Of more ranges than this the closest are bridged: a tag of the run names them.
MOST_RANGES = 60

Stale = dict[str, set[str]]


@dataclass(frozen=True)
class Request:
    """One run: assets by key (``totesys/sales_order``), and the days for those that are partitioned.

    ``changes_only``: it is enough to read what was written since the last capture; else every row is compared.
    ``seen``: what was looked at when the days were all that were stale (capture/generation.py).
    ``adopt_lake``: the warehouse may go on with another lake than the one that it was loaded from.
    ``looked_at``: when that look began, in seconds since 1970; 0 if nobody looked.
    ``is_range``: others cover other days at the same time. ``turn``: it waits for the requests of an earlier turn, and
    may go at once with those of its own, or in any order (ranges.py).
    """

    assets: tuple[str, ...]
    days: Days | None
    changes_only: bool = False
    seen: str = ""
    adopt_lake: bool = False
    looked_at: float = field(default=0.0, compare=False)
    is_range: bool = False
    turn: int = 0

    @property
    def named(self) -> str:
        """What people are told that it is about."""
        return counted(len(self.assets), "asset") + (f", {self.days.first} to {self.days.last}" if self.days else "")


def stale_partitions(
    catalogue: Catalogue,
    source: Mapping[str, Mapping[str, Fingerprint]],
    ledger: Mapping[str, Mapping[str, Entry]],
    loaded: Mapping[str, Mapping[str, str]],
) -> Stale:
    """Asset key -> partitions that are not as the source now says they should be, in the order of the data flow.

    ``source``: fingerprints of the tables that could be examined (a table that could not be is left alone);
    ``ledger``: newest entries of the lake; ``loaded``: states that the warehouse holds.
    """
    stale: Stale = {}
    for name, found in source.items():
        table = catalogue.source[name]
        known = {key: entry.fingerprint for key, entry in ledger.get(f"{INGESTION}/{name}", {}).items()}
        _add(stale, table.asset, _differing({key: each.state for key, each in found.items()}, known))
    for name, table in catalogue.warehouse.items():
        expected = expected_states(table, ledger)
        entries = ledger.get(f"{PROCESSED}/{name}", {})
        built = {key: entry.state for key, entry in entries.items()}
        to_build = _inherited(catalogue, table, stale, expected.keys() | built.keys()) | _differing(expected, built)
        _add(stale, table.asset, to_build)
        # What only the warehouse knows of (a lake was lost, and the rows are gone) no load can ever bring up to date.
        held = {key: state for key, state in loaded.get(name, {}).items() if key in built}
        content = {key: entry.content for key, entry in entries.items()}
        _add(stale, f"{WAREHOUSE}/{name}", to_build | _differing(content, held))
    return stale


def _inherited(catalogue: Catalogue, table: Table, stale: Stale, days: Set[str]) -> set[str]:
    """The partitions that wait for what ``table`` is made of; ``days``: those that it has or should have."""
    query = query_of(table.name)
    upstream = {name: stale.get(catalogue.source[name].asset, set()) for name in query.sources}
    if table.day_column is None:
        return {WHOLE} if any(upstream.values()) else set()
    waits_whole = any(WHOLE in keys or (keys and name in query.whole_sources) for name, keys in upstream.items())
    return (set().union(*upstream.values()) | (days if waits_whole else set())) - {WHOLE}


def _differing(expected: Mapping[str, str], known: Mapping[str, str]) -> set[str]:
    """Partitions whose state is not the expected one; having no state and being absent are the same."""
    return {key for key in expected.keys() | known.keys() if expected.get(key, "") != known.get(key, "")}


def _add(stale: Stale, asset: str, partitions: set[str]) -> None:
    if partitions:
        stale[asset] = partitions


def requests(stale: Stale, seen: str = "", looked_at: float = 0.0) -> list[Request]:
    """The run that brings ``stale`` up to date, or none.

    It is one run, however far apart the days are: what one snapshot shows of a table becomes visible at once.
    """
    if not stale:
        return []
    keys = {key for partitions in stale.values() for key in partitions if key != WHOLE}
    return [Request(tuple(stale), _gathered(keys) if keys else None, changes_only=True, seen=seen, looked_at=looked_at)]


def _gathered(keys: set[str]) -> Days:
    gap = BRIDGED_DAYS
    while len((days := days_of(keys, gap)).ranges) > MOST_RANGES:
        gap *= 2
    return days


def everything(catalogue: Catalogue, days: DayRange) -> Request:
    """Every asset, every day: the comparison of all content."""
    return Request((*partitioned(catalogue), *unpartitioned(catalogue)), days)


def partitioned(catalogue: Catalogue) -> list[str]:
    """Keys of the assets that are partitioned by day, in the order of the data flow."""
    return [key for key, is_partitioned in _keys(catalogue) if is_partitioned]


def unpartitioned(catalogue: Catalogue) -> list[str]:
    """Keys of the assets that are one set each, in the order of the data flow."""
    return [key for key, is_partitioned in _keys(catalogue) if not is_partitioned]


def _keys(catalogue: Catalogue) -> list[tuple[str, bool]]:
    tables = [*catalogue.source.values(), *catalogue.warehouse.values()]
    keys = [(table.asset, table) for table in tables]
    keys += [(f"{WAREHOUSE}/{table.name}", table) for table in catalogue.warehouse.values()]
    return [(key, table.day_column is not None) for key, table in keys]
