"""The decision: which partitions of which assets are stale, and which runs bring them up to date.

Pure functions of what the source, the lake and the warehouse say of themselves. No bookmark takes part: whatever is
thrown away, the next decision finds by comparing what there is to do. No Dagster, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from totesys_assets.capture.fingerprint import Fingerprint
from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import Catalogue
from totesys_assets.catalogue.star import star_query
from totesys_assets.days import WHOLE, DayRange, contiguous
from totesys_assets.resources.lake import INGESTION, PROCESSED
from totesys_assets.transform.build import expected_states

# The three groups of assets, as the first part of their keys.
TOTESYS, STAR, WAREHOUSE = "totesys", "star", "warehouse"

# Stale days this close together go into one run: a day that is not stale costs some events, a run some seconds.
BRIDGED_DAYS = 14
# More ranges than this and one run from the first to the last is cheaper than one each.
MOST_RANGES = 3

Stale = dict[str, set[str]]


@dataclass(frozen=True)
class Request:
    """One run: assets by key (``totesys/sales_order``), and the days for those that are partitioned.

    ``changes_only``: it is enough to read what was written since the last capture; else every row is compared.
    """

    assets: tuple[str, ...]
    days: DayRange | None
    changes_only: bool = False


def stale_partitions(
    catalogue: Catalogue,
    source: Mapping[str, Mapping[str, Fingerprint]],
    ledger: Mapping[str, Mapping[str, Entry]],
    loaded: Mapping[str, Mapping[str, str]],
) -> Stale:
    """Asset key -> partitions that are not as the source now says they should be.

    ``source``: fingerprints of the tables that could be examined (a table that could not be is left alone);
    ``ledger``: newest entries of the lake; ``loaded``: states that the warehouse holds.
    """
    stale: Stale = {}
    for name, found in source.items():
        known = {key: entry.state for key, entry in ledger.get(f"{INGESTION}/{name}", {}).items()}
        _add(stale, f"{TOTESYS}/{name}", _differing({key: each.state for key, each in found.items()}, known))
    for name, table in catalogue.star.items():
        upstream = [stale.get(f"{TOTESYS}/{source_name}", set()) for source_name in star_query(name).sources]
        built = {key: entry.state for key, entry in ledger.get(f"{PROCESSED}/{name}", {}).items()}
        inherited = set().union(*upstream) if table.day_column else ({WHOLE} if any(upstream) else set())
        to_build = inherited | _differing(expected_states(table, ledger), built)
        _add(stale, f"{STAR}/{name}", to_build)
        # What only the warehouse knows of (a lake was lost, and the rows are gone) no load can ever bring up to date.
        held = {key: state for key, state in loaded.get(name, {}).items() if key in built}
        _add(stale, f"{WAREHOUSE}/{name}", to_build | _differing(built, held))
    return stale


def _differing(expected: Mapping[str, str], known: Mapping[str, str]) -> set[str]:
    """Partitions whose state is not the expected one; having no state and being absent are the same."""
    return {key for key in expected.keys() | known.keys() if expected.get(key, "") != known.get(key, "")}


def _add(stale: Stale, asset: str, partitions: set[str]) -> None:
    if partitions:
        stale[asset] = partitions


def requests(catalogue: Catalogue, stale: Stale) -> list[Request]:
    """The runs that bring ``stale`` up to date: one per range of days, the unpartitioned assets with the first.

    What is not partitioned but made of what is (the calendar) goes with the last, when all its inputs are there.
    """
    days = {
        date.fromisoformat(partition) for partitions in stale.values() for partition in partitions if partition != WHOLE
    }
    ranges = contiguous(days, BRIDGED_DAYS)
    if len(ranges) > MOST_RANGES:
        ranges = [DayRange(ranges[0].first, ranges[-1].last)]
    whole = [asset for asset, partitions in stale.items() if WHOLE in partitions]
    if not ranges:
        return [Request(tuple(whole), None, changes_only=True)] if whole else []
    last = [asset for asset in whole if _follows_partitions(catalogue, asset)]
    result = []
    for position, days_range in enumerate(ranges):
        assets = [asset for asset, partitions in stale.items() if any(_within(key, days_range) for key in partitions)]
        if position == 0:
            assets += [asset for asset in whole if asset not in last]
        if position == len(ranges) - 1:
            assets += last
        result.append(Request(tuple(assets), days_range, changes_only=True))
    return result


def _within(partition: str, days: DayRange) -> bool:
    return partition != WHOLE and date.fromisoformat(partition) in days


def _follows_partitions(catalogue: Catalogue, asset: str) -> bool:
    group, _, name = asset.partition("/")
    return group != TOTESYS and any(catalogue.source[source].day_column for source in star_query(name).sources)


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
    return [
        (f"{group}/{table.name}", table.day_column is not None)
        for group, tables in ((TOTESYS, catalogue.source), (STAR, catalogue.star), (WAREHOUSE, catalogue.star))
        for table in tables.values()
    ]
