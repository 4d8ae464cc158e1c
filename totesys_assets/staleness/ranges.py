"""Ranges: more than fits into one run becomes several, each for a range of days, in turns.

Pure functions. Belongs here: how many rows a day costs, where to cut, and which assets go with which days. Does not
belong here: what is stale, which is decide.py.

A range has a snapshot of its own. What a capture adds on some days depends on these days only, so ranges may go in any
order, and at once. Nobody keeps a list of them: what is left after a crash is what the next look finds stale.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import chunks
from totesys_assets.lake.tables import INGESTION
from totesys_assets.names import MADE, WAREHOUSE
from totesys_assets.source.interface import Fingerprint
from totesys_assets.staleness.decide import Request, Stale

# Sets that were never captured come first: what is built of a range may read them. Marts that are one set come last,
# made once of all ranges.
_SETS, _RANGES, _MARTS = range(3)


def cut(
    catalogue: Catalogue,
    requests: Sequence[Request],
    stale: Stale,
    found: Mapping[str, Mapping[str, Fingerprint]],
    ledger: Mapping[str, Mapping[str, Entry]],
    limit: int,
) -> list[Request]:
    """The requests of a look that found ``stale``, cut into ranges of at most ``limit`` rows; 0: of any number.

    ``found``: fingerprints of the tables that could be examined; ``ledger``: newest entries of the lake.
    """
    rows = rows_to_read(catalogue, stale, found, ledger) if limit and requests else {}
    known = {name for name in catalogue.source if ledger.get(f"{INGESTION}/{name}")}
    return [each for request in requests for each in in_ranges(catalogue, request, rows, limit, stale, known)]


def rows_to_read(
    catalogue: Catalogue,
    stale: Stale,
    found: Mapping[str, Mapping[str, Fingerprint]],
    ledger: Mapping[str, Mapping[str, Entry]],
) -> Counter[str]:
    """Rows of the source, by day, to be read, or built or loaded anew; of a day that is held, those that it gained."""
    rows = Counter[str]()
    for name, table in catalogue.source.items():
        if table.day_column is None:
            continue
        known, now = ledger.get(f"{INGESTION}/{name}", {}), found.get(name, {})
        captured = stale.get(table.asset, set())
        for day in captured & now.keys():
            rows[day] += now[day].rows - (known[day].rows if day in known and _are_alike(now[day], known[day]) else 0)
        for day in _made_stale(catalogue, name, stale) - captured:
            rows[day] += known[day].rows if day in known else 0
    return +rows


def _are_alike(now: Fingerprint, known: Entry) -> bool:
    """Whether two states are of one server and one structure: else every row of the day is read."""
    return now.state.split("|")[:2] == known.state.split("|")[:2]


def _made_stale(catalogue: Catalogue, source: str, stale: Stale) -> set[str]:
    """Days on which something is stale that is made of a table."""
    made = [table for name, table in catalogue.warehouse.items() if source in query_of(name).sources]
    assets = [asset for table in made if table.day_column for asset in (table.asset, f"{WAREHOUSE}/{table.name}")]
    return set[str]().union(*(stale.get(asset, set()) for asset in assets))


def in_ranges(
    catalogue: Catalogue,
    request: Request,
    rows: Mapping[str, int],
    limit: int,
    stale: Stale | None = None,
    captured: Iterable[str] = (),
) -> list[Request]:
    """The request as requests of at most ``limit`` rows each, or of a single day; 0: of any number.

    ``rows``: by day. ``stale``: partitions by asset; None if the request asks all its days of every asset.
    ``captured``: names of the source's tables that the lake has.
    """
    ranges = [*chunks(request.days, rows, limit)] if limit and request.days is not None else []
    if len(ranges) < 2:
        return [request]
    # What was seen is complete with the last of the ranges, of which none knows that it is the last.
    part = replace(request, days=None, seen="", is_range=True, turn=_RANGES)
    by_day, rest = _parted(request.assets, lambda asset: _table(catalogue, asset).day_column is not None)
    sets, made = _parted(rest, lambda asset: not _is_made_of_days(catalogue, asset))
    marts, calendar = _parted(made, lambda asset: _table(catalogue, asset).is_mart)
    asked = list[Request]()
    if sets:
        new = {catalogue.source[name].asset for name in catalogue.source.keys() - set(captured)}
        asked.append(replace(part, assets=tuple(sets), turn=_SETS if new & set(sets) else _RANGES))
    for days in ranges:
        keys = set(days.keys)
        own = [asset for asset in by_day if stale is None or stale.get(asset, set()) & keys]
        if own:
            assets = tuple(asset for asset in request.assets if asset in own or asset in calendar)
            asked.append(replace(part, assets=assets, days=days))
    return [*asked, replace(part, assets=tuple(marts), turn=_MARTS)] if marts else asked


def first_turn(requests: Sequence[Request], *, has_failed: bool = False) -> list[Request]:
    """Those that wait for no others. Where what was asked for last ``has_failed``, none waits for another.

    It may fail for ever, as it does where one table cannot be captured. All others would wait for that one.
    """
    return [each for each in requests if has_failed or each.turn == requests[0].turn]


def _parted(assets: Iterable[str], belongs: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Those that belong, and the others, in their order."""
    listed = list(assets)
    return [each for each in listed if belongs(each)], [each for each in listed if not belongs(each)]


def _table(catalogue: Catalogue, asset: str) -> Table:
    group, _, name = asset.partition("/")
    return catalogue.warehouse[name] if group in MADE else catalogue.source[name]


def _is_made_of_days(catalogue: Catalogue, asset: str) -> bool:
    """Whether an asset that is one set is made of tables that are partitioned by day."""
    group, _, name = asset.partition("/")
    return group in MADE and any(catalogue.source[each].day_column is not None for each in query_of(name).sources)
