"""Ranges as a pure decision: where a look's request is cut, what goes with which days, and in which turn."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.names import MADE
from totesys_assets.source.interface import Fingerprint
from totesys_assets.staleness.decide import Request, Stale, partitioned, requests, stale_partitions, unpartitioned
from totesys_assets.staleness.ranges import cut, first_turn, in_ranges, rows_to_read

pytestmark = pytest.mark.pure

FIRST = date(2024, 1, 15)
ORDERS = catalogue().source["sales_order"]
Found = dict[str, dict[str, Fingerprint]]
Entries = dict[str, dict[str, Entry]]


def day(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


def of_first_load(days: dict[int, int]) -> Found:
    """Fingerprints of a ToteSys whose orders have so many rows on each day; every other table has one row."""
    found = {name: {WHOLE: Fingerprint(1, "server|s|1|1")} for name, table in catalogue().source.items()}
    for name, table in catalogue().source.items():
        if table.day_column:
            found[name] = {}
    found["sales_order"] = {day(number): Fingerprint(rows, f"server|s|{rows}|1") for number, rows in days.items()}
    return found


def entries(found: Found) -> Entries:
    """A ledger of these fingerprints."""
    now = datetime(2024, 8, 21, tzinfo=UTC)
    return {
        f"ingestion/{name}": {
            key: Entry(f"ingestion/{name}", key, each.state, each.rows, now, "") for key, each in found[name].items()
        }
        for name in found
    }


def asked_for(found: Found, limit: int, ledger: Entries | None = None) -> tuple[list[Request], Stale]:
    stale = stale_partitions(catalogue(), found, ledger or {}, {})
    return cut(catalogue(), requests(stale, "seen", 1.0), stale, found, ledger or {}, limit), stale


_loads = st.dictionaries(st.integers(0, 200), st.integers(1, 50), min_size=1, max_size=12)


@given(days=_loads, limit=st.integers(1, 120))
def test_every_stale_day_of_every_asset_is_asked_for_once_in_ranges_that_fit(days: dict[int, int], limit: int) -> None:
    asked, stale = asked_for(of_first_load(days), limit)
    for asset, keys in stale.items():
        covering = [each for each in asked if asset in each.assets]
        if keys == {WHOLE}:
            assert covering, asset
            continue
        for key in keys:
            assert sum(key in each.days.keys for each in covering if each.days) == 1, (asset, key)
    for each in asked:
        rows = [days.get((one - FIRST).days, 0) for one in each.days] if each.days else []
        assert sum(rows) <= limit or sum(map(bool, rows)) == 1 or not each.is_range
    assert all(each.is_range and not each.seen for each in asked) == (len(asked) > 1)


@pytest.mark.parametrize("limit", [0, 60])
def test_what_fits_into_one_run_stays_one_run(limit: int) -> None:
    found = of_first_load({0: 20, 40: 20, 80: 20})
    stale = stale_partitions(catalogue(), found, {}, {})
    assert asked_for(found, limit)[0] == requests(stale, "seen")


def test_sets_go_first_then_the_ranges_and_at_last_the_marts_that_are_made_of_all_days() -> None:
    asked, _ = asked_for(of_first_load({0: 50, 40: 50, 80: 50}), 50)
    assert [each.turn for each in asked] == [0, 1, 1, 1, 2]
    sets, *ranges, marts = asked
    assert {"totesys/design", "star/dim_design", "warehouse/dim_design"} <= set(sets.assets)
    assert all(each.assets == ranges[0].assets for each in ranges)
    assert {"totesys/sales_order", "star/dim_date", "mart/mart_sales_day"} <= set(ranges[0].assets)
    assert marts.assets == ("mart/mart_exchange_rate", "warehouse/mart_exchange_rate")
    assert first_turn(asked) == [sets]


def test_sets_that_the_lake_has_hold_no_range_up() -> None:
    found = of_first_load({0: 50, 40: 50})
    ledger = {
        asset: {key: Entry(asset, key, "server|s|0|0", 1, each.recorded_at, "") for key, each in known.items()}
        for asset, known in entries(found).items()
        if asset != "ingestion/sales_order"
    }
    asked, _ = asked_for(found, 50, ledger)
    assert [each.turn for each in first_turn(asked)] == [1, 1, 1]


@given(days=_loads, broken=st.sets(st.sampled_from(sorted(catalogue().source)), max_size=3))
def test_what_always_fails_stops_nothing_but_what_is_made_of_it(days: dict[int, int], broken: set[str]) -> None:
    """Every look is one of a first load, of which it asks for what is left; steps behind a broken table are skipped."""
    found, ledger, has_failed = of_first_load(days), dict[str, dict[str, Entry]](), False
    left = {(asset, key) for asset, keys in stale_partitions(catalogue(), found, {}, {}).items() for key in keys}
    never = {(asset, key) for asset, key in left if broken & {*_sources(asset)}}
    for _ in range(5):
        stale: Stale = {}
        for asset in (*partitioned(catalogue()), *unpartitioned(catalogue())):
            if keys := {key for other, key in left if other == asset}:
                stale[asset] = keys
        asked = cut(catalogue(), requests(stale, looked_at=1.0), stale, found, ledger, 50)
        tried = first_turn(asked, has_failed=has_failed) if asked else []
        has_failed = False
        for each in tried:
            keys = {WHOLE, *(each.days.keys if each.days else ())}
            done = {(asset, key) for asset, key in left - never if asset in each.assets and key in keys}
            has_failed |= any((asset, key) in never for asset in each.assets for key in keys)
            left -= done
            for name, known in entries(found).items():
                asset = catalogue().source[name.partition("/")[2]].asset
                ledger.setdefault(name, {}).update({key: known[key] for key in known if (asset, key) in done})
    assert left == never


def _sources(asset: str) -> tuple[str, ...]:
    group, _, name = asset.partition("/")
    return query_of(name).sources if group in MADE else (name,)


def test_a_day_that_is_held_costs_the_rows_that_it_gained_and_all_where_states_cannot_be_compared() -> None:
    found = of_first_load({0: 50, 1: 50})
    ledger = entries(found)
    found["sales_order"] = {day(0): Fingerprint(53, "server|s|53|2"), day(1): Fingerprint(50, "another|s|50|1")}
    stale = {ORDERS.asset: {day(0), day(1)}}
    assert rows_to_read(catalogue(), stale, found, ledger) == {day(0): 3, day(1): 50}


def test_what_is_only_loaded_anew_costs_its_rows() -> None:
    found = of_first_load({0: 50, 1: 7})
    stale = {"warehouse/fact_sales_order": {day(0)}}
    assert rows_to_read(catalogue(), stale, found, entries(found)) == {day(0): 50}


def test_a_backfill_is_cut_at_the_end_of_a_month_and_each_range_has_all_its_assets() -> None:
    span = DayRange(FIRST, FIRST + timedelta(days=80))
    request = Request(tuple(partitioned(catalogue())), span)
    asked = in_ranges(catalogue(), request, {day(0): 10, day(20): 10, day(50): 10}, 10)
    assert [each.days for each in asked] == [
        DayRange(span.first, date(2024, 1, 31)),
        DayRange(date(2024, 2, 1), date(2024, 2, 29)),
        DayRange(date(2024, 3, 1), span.last),
    ]
    assert {each.assets for each in asked} == {request.assets}


def test_what_has_no_days_is_never_cut() -> None:
    request = Request(tuple(unpartitioned(catalogue())), None)
    assert in_ranges(catalogue(), request, {}, 1) == [request]
