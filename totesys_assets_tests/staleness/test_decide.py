"""The decision as a pure function: what is stale, and which runs bring it up to date. No database, no Dagster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import Catalogue, catalogue
from totesys_assets.catalogue.queries import Query, query_of
from totesys_assets.days import WHOLE, DayRange, Days, DaySet, chunks, contiguous, days_of, partition_range
from totesys_assets.names import TOTESYS
from totesys_assets.source.interface import Fingerprint
from totesys_assets.staleness.decide import (
    BRIDGED_DAYS,
    MOST_RANGES,
    Request,
    Stale,
    everything,
    partitioned,
    requests,
    stale_partitions,
    unpartitioned,
)
from totesys_assets.transform import build

pytestmark = pytest.mark.pure


def refresh(assets: tuple[str, ...], days: Days | None) -> Request:
    """A run that a look asks for."""
    return Request(assets, days, changes_only=True)


# ToteSys alone, and eleven tables that are made of it: what is stale of them can be told by heart.
_SOURCE = {name: table for name, table in catalogue().source.items() if table.group == TOTESYS}
_MADE = ("date", "staff", "location", "currency", "design", "counterparty", "payment_type", "transaction")
_FACTS = ("sales_order", "purchase_order", "payment")
_STAR = [*(f"dim_{name}" for name in _MADE), *(f"fact_{name}" for name in _FACTS)]
TABLES = Catalogue(_SOURCE, {name: table for name, table in catalogue().star.items() if name in _STAR})
MONDAY, TUESDAY, TODAY = "2024-08-19", "2024-08-20", "2024-08-21"
SOME_TIME = datetime(2024, 8, 21, tzinfo=UTC)

Source = dict[str, dict[str, Fingerprint]]
Ledger = dict[str, dict[str, Entry]]
Loaded = dict[str, dict[str, str]]


def entry(asset: str, partition: str, state: str) -> Entry:
    return Entry(asset, partition, state, rows=1 if state else 0, recorded_at=SOME_TIME, run_id="")


@dataclass
class World:
    """What the source, the lake and the warehouse say of themselves; ``run`` does to them what a run does."""

    source: Source = field(default_factory=dict)
    ledger: Ledger = field(default_factory=dict)
    loaded: Loaded = field(default_factory=dict)
    tables: Catalogue = TABLES

    def stale(self) -> Stale:
        return stale_partitions(self.tables, self.source, self.ledger, self.loaded)

    def requests(self) -> list[Request]:
        return requests(self.stale())

    def refresh(self) -> World:
        """Run everything that is asked for, once."""
        for request in self.requests():
            self.run(request)
        return self

    def run(self, request: Request) -> None:
        for asset in request.assets:
            group, _, name = asset.partition("/")
            table = TABLES.source[name] if group == "totesys" else TABLES.star[name]
            if table.day_column:
                assert request.days is not None
            keys = request.days.keys if request.days and table.day_column else [WHOLE]
            if group == "totesys":
                found = {key: each.state for key, each in self.source.get(name, {}).items()}
                self._note(f"ingestion/{name}", {key: found.get(key, "") for key in keys})
            elif group == "star":
                expected = build.expected_states(table, self.ledger)
                self._note(f"processed/{name}", {key: expected.get(key, "") for key in keys})
            else:
                built = self.ledger.get(f"processed/{name}", {})
                self.loaded.setdefault(name, {}).update({key: built[key].state for key in keys if key in built})

    def _note(self, asset: str, states: Mapping[str, str]) -> None:
        known = self.ledger.setdefault(asset, {})
        for key, state in states.items():
            if state != (known[key].state if key in known else ""):
                known[key] = entry(asset, key, state)


def three_days() -> World:
    """A source with rows in every table, and in the partitioned ones on each of three days."""
    return World(
        {
            name: {
                key: Fingerprint(1, f"{name} {key}")
                for key in ((MONDAY, TUESDAY, TODAY) if table.day_column else (WHOLE,))
            }
            for name, table in TABLES.source.items()
        }
    )


@pytest.fixture
def world() -> World:
    """Three days of trade, all of it captured, built and loaded."""
    return three_days().refresh()


def change(world: World, table: str, partition: str = WHOLE) -> None:
    world.source[table][partition] = Fingerprint(2, f"{table} {partition} changed")


# Drawing a world takes a while, and other tests may keep the machine busy.
quickly = settings(max_examples=60, deadline=None)

ALL_ASSETS = {*partitioned(TABLES), *unpartitioned(TABLES)}


# What is stale


def test_when_nothing_is_known_everything_is_stale() -> None:
    stale = three_days().stale()
    assert set(stale) == ALL_ASSETS
    assert len(ALL_ASSETS) == 33
    assert all(stale[asset] == {MONDAY, TUESDAY, TODAY} for asset in partitioned(TABLES))
    assert all(stale[asset] == {WHOLE} for asset in unpartitioned(TABLES))


def test_when_all_is_known_nothing_is_stale(world: World) -> None:
    assert world.stale() == {}
    assert world.requests() == []


def test_an_empty_source_asks_only_for_the_tables_that_are_one_set_and_once() -> None:
    empty = World({name: {} for name in TABLES.source})
    assert set(empty.stale()) == {asset for asset in unpartitioned(TABLES) if not asset.startswith("totesys/")}
    assert [request.days for request in empty.requests()] == [None]
    assert empty.refresh().stale() == {}


NEW_ORDER = {
    "totesys/sales_order",
    "totesys/transaction",
    "totesys/payment",
    "star/fact_sales_order",
    "star/dim_transaction",
    "star/fact_payment",
    "warehouse/fact_sales_order",
    "warehouse/dim_transaction",
    "warehouse/fact_payment",
}


def test_one_new_order_makes_today_stale_in_its_three_tables_and_what_is_made_of_them_and_the_calendar(
    world: World,
) -> None:
    for table in ("sales_order", "transaction", "payment"):
        change(world, table, TODAY)
    stale = world.stale()
    assert {asset: stale[asset] for asset in NEW_ORDER} == {asset: {TODAY} for asset in NEW_ORDER}
    assert stale.keys() - NEW_ORDER == {"star/dim_date", "warehouse/dim_date"}
    (request,) = world.requests()
    assert set(request.assets) == set(stale)
    assert request.days == DayRange(date(2024, 8, 21), date(2024, 8, 21))


def test_a_changed_address_concerns_the_two_dimensions_made_of_it_and_nothing_partitioned(world: World) -> None:
    change(world, "address")
    assert world.stale() == {
        asset: {WHOLE}
        for asset in (
            "totesys/address",
            "star/dim_location",
            "star/dim_counterparty",
            "warehouse/dim_location",
            "warehouse/dim_counterparty",
        )
    }
    assert [request.days for request in world.requests()] == [None]


@pytest.mark.parametrize(
    ("table", "dimensions"),
    [
        ("department", {"dim_staff"}),
        ("staff", {"dim_staff"}),
        ("counterparty", {"dim_counterparty"}),
        ("currency", {"dim_currency"}),
        ("design", {"dim_design"}),
        ("payment_type", {"dim_payment_type"}),
    ],
)
def test_a_changed_reference_table_concerns_its_own_dimension(world: World, table: str, dimensions: set[str]) -> None:
    change(world, table)
    expected = {f"{group}/{name}" for name in dimensions for group in ("star", "warehouse")}
    assert set(world.stale()) == {f"totesys/{table}", *expected}


def test_a_table_that_is_built_but_not_loaded_is_loaded_and_no_more(world: World) -> None:
    change(world, "payment", TODAY)
    world.run(
        refresh(
            ("totesys/payment", "star/fact_payment", "star/dim_date"), DayRange(date(2024, 8, 21), date(2024, 8, 21))
        )
    )
    assert world.stale() == {"warehouse/fact_payment": {TODAY}, "warehouse/dim_date": {WHOLE}}


def test_a_table_that_is_captured_but_not_built_is_built_and_loaded_and_no_more(world: World) -> None:
    change(world, "design")
    world.run(refresh(("totesys/design",), None))
    assert world.stale() == {"star/dim_design": {WHOLE}, "warehouse/dim_design": {WHOLE}}


def test_when_the_ledger_is_lost_everything_is_compared_again_and_then_all_is_known(world: World) -> None:
    world.ledger.clear()
    assert set(world.stale()) == ALL_ASSETS
    assert world.refresh().stale() == {}


def test_when_the_warehouse_is_lost_all_of_it_is_loaded_and_nothing_is_captured_or_built(world: World) -> None:
    world.loaded.clear()
    assert set(world.stale()) == {asset for asset in ALL_ASSETS if asset.startswith("warehouse/")}
    assert world.refresh().stale() == {}


def test_an_older_warehouse_gets_only_the_partitions_that_differ(world: World) -> None:
    del world.loaded["fact_payment"][TODAY]
    world.loaded["fact_payment"][TUESDAY] = "as it was before"
    world.loaded["dim_staff"][WHOLE] = "as it was before"
    assert world.stale() == {"warehouse/fact_payment": {TUESDAY, TODAY}, "warehouse/dim_staff": {WHOLE}}
    assert world.refresh().stale() == {}


def test_a_new_lake_beside_a_warehouse_that_knows_days_long_gone_comes_to_rest(world: World) -> None:
    world.ledger.clear()
    for table in ("sales_order", "purchase_order", "transaction", "payment"):
        del world.source[table][MONDAY]
    assert world.refresh().stale() == {}


def test_a_changed_select_makes_its_own_table_stale_in_star_and_warehouse(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(name: str) -> Query:
        query = query_of(name)
        return replace(query, sql=query.sql + "-- changed") if name in ("fact_payment", "dim_staff") else query

    monkeypatch.setattr(build, "query_of", changed)
    assert world.stale() == {
        "star/fact_payment": {MONDAY, TUESDAY, TODAY},
        "warehouse/fact_payment": {MONDAY, TUESDAY, TODAY},
        "star/dim_staff": {WHOLE},
        "warehouse/dim_staff": {WHOLE},
    }
    assert world.refresh().stale() == {}


def test_a_table_that_could_not_be_examined_is_left_alone_while_the_others_go_on(world: World) -> None:
    for table in ("sales_order", "payment"):
        change(world, table, TODAY)
    del world.source["payment"]
    assert set(world.stale()) == {
        "totesys/sales_order",
        "star/fact_sales_order",
        "warehouse/fact_sales_order",
        "star/dim_date",
        "warehouse/dim_date",
    }


def test_a_table_that_could_never_be_examined_does_not_stop_the_others() -> None:
    world = three_days()
    del world.source["transaction"]
    assert "totesys/transaction" not in world.stale()
    assert "star/dim_transaction" not in world.stale()
    assert world.refresh().stale() == {}


def test_a_day_that_lost_all_its_rows_is_stale_until_it_is_known_to_be_empty(world: World) -> None:
    del world.source["sales_order"][TUESDAY]
    assert world.stale() == {
        "totesys/sales_order": {TUESDAY},
        "star/fact_sales_order": {TUESDAY},
        "warehouse/fact_sales_order": {TUESDAY},
        "star/dim_date": {WHOLE},
        "warehouse/dim_date": {WHOLE},
    }
    assert world.refresh().stale() == {}
    assert world.ledger["ingestion/sales_order"][TUESDAY].state == ""
    assert world.loaded["fact_sales_order"][TUESDAY] == ""


def test_a_table_that_lost_all_its_rows_is_stale_until_it_is_known_to_be_empty(world: World) -> None:
    world.source["currency"] = {}
    assert set(world.stale()) == {"totesys/currency", "star/dim_currency", "warehouse/dim_currency"}
    assert world.refresh().stale() == {}


def test_another_server_with_the_same_rows_is_another_state(world: World) -> None:
    for found in world.source.values():
        found.update({key: Fingerprint(each.rows, f"restored {each.state}") for key, each in found.items()})
    assert set(world.stale()) == ALL_ASSETS


# Enough of the catalogue to have every kind of table: few, so that chance meets all of what matters.
SMALL = Catalogue(
    {name: TABLES.source[name] for name in ("staff", "department", "sales_order", "purchase_order", "payment")},
    {name: TABLES.star[name] for name in ("dim_date", "dim_staff", "fact_sales_order", "fact_payment")},
)
STATES = st.sampled_from(["", "a", "b"])
DAYS = st.sampled_from([(date(2024, 1, 1) + timedelta(days=17 * number)).isoformat() for number in range(6)])
PARTITIONS = {
    True: st.dictionaries(DAYS, STATES, max_size=3),
    False: st.dictionaries(st.just(WHOLE), STATES),
}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any source beside any ledger and any warehouse, as crashes, restored backups and lost tables leave them."""
    world = World(tables=SMALL)
    for name, table in SMALL.source.items():
        partitions = PARTITIONS[table.day_column is not None]
        if draw(st.integers(0, 4)):  # one in five could not be examined
            world.source[name] = {key: Fingerprint(1, state) for key, state in draw(partitions).items() if state}
        world.ledger[f"ingestion/{name}"] = {key: entry(name, key, state) for key, state in draw(partitions).items()}
    for name, table in SMALL.star.items():
        partitions = PARTITIONS[table.day_column is not None]
        world.ledger[f"processed/{name}"] = {key: entry(name, key, state) for key, state in draw(partitions).items()}
        world.loaded[name] = draw(partitions)
    return world


@given(worlds())
@quickly
def test_one_refresh_leaves_nothing_stale_whatever_was_known_before(world: World) -> None:
    assert world.refresh().stale() == {}


@given(worlds())
@quickly
def test_what_is_built_is_loaded_and_what_is_captured_is_built(world: World) -> None:
    stale = world.stale()
    for name in SMALL.star:
        assert stale.get(f"star/{name}", set()) <= stale.get(f"warehouse/{name}", set())
        for source in query_of(name).sources:
            captured = stale.get(f"totesys/{source}", set())
            assert captured <= stale.get(f"star/{name}", set()) or (
                name == "dim_date" and WHOLE in stale["star/dim_date"]
            )


# The runs


def stale_days(*numbers: int) -> Stale:
    keys = {(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in numbers}
    return {"totesys/payment": keys, "star/fact_payment": keys}


def ranges(*numbers: int) -> list[tuple[int, int]]:
    """The ranges of the one run that is asked for, as numbers of days."""
    origin = date(2024, 1, 1)
    (request,) = requests(stale_days(*numbers))
    assert request.days is not None
    return [((each.first - origin).days, (each.last - origin).days) for each in request.days.ranges]


def test_contiguous_days_are_one_range() -> None:
    assert ranges(3, 4, 5) == [(3, 5)]


def test_days_with_a_fortnight_between_them_are_bridged_and_days_further_apart_are_ranges_of_one_run() -> None:
    assert ranges(0, BRIDGED_DAYS + 1) == [(0, BRIDGED_DAYS + 1)]
    assert ranges(0, BRIDGED_DAYS + 2) == [(0, 0), (BRIDGED_DAYS + 2, BRIDGED_DAYS + 2)]


def test_of_more_ranges_than_a_tag_can_name_the_closest_are_bridged() -> None:
    far, near = [100 * number for number in range(MOST_RANGES)], [100 * MOST_RANGES + 20 * n for n in range(5)]
    assert ranges(*far) == [(day, day) for day in far]
    assert ranges(*far[1:], *near) == [*((day, day) for day in far[1:]), (near[0], near[-1])]
    assert len(str(DaySet(tuple(DayRange(date(2024, 1, 1), date(2024, 1, 1)) for _ in range(MOST_RANGES))))) < 2000


def test_all_stale_assets_and_days_are_one_run() -> None:
    stale = {"totesys/payment": {"2024-01-01"}, "totesys/sales_order": {"2024-06-01"}, "totesys/address": {WHOLE}}
    days = DaySet(tuple(DayRange(date(2024, month, 1), date(2024, month, 1)) for month in (1, 6)))
    assert requests(stale) == [refresh(("totesys/payment", "totesys/sales_order", "totesys/address"), days)]


def test_without_any_stale_day_there_is_one_run_without_days() -> None:
    stale: Stale = {"totesys/address": {WHOLE}, "star/dim_date": {WHOLE}}
    assert requests(stale) == [refresh(("totesys/address", "star/dim_date"), None)]
    assert requests({}) == []


@st.composite
def stales(draw: st.DrawFn) -> Stale:
    keys = st.sets(st.dates(date(2024, 1, 1), date(2026, 12, 31)).map(date.isoformat), min_size=1, max_size=8)
    daily = draw(st.dictionaries(st.sampled_from(partitioned(TABLES)), keys, max_size=5))
    whole = draw(st.sets(st.sampled_from(unpartitioned(TABLES)), max_size=5))
    return {**daily, **{asset: {WHOLE} for asset in whole}}


@given(stales())
@quickly
def test_every_stale_partition_is_covered_by_the_one_run_and_nothing_that_is_not_stale(stale: Stale) -> None:
    asked = requests(stale)
    assert len(asked) == bool(stale)
    for request in asked:
        assert sorted(request.assets) == sorted(stale)
        days = {date.fromisoformat(day) for partitions in stale.values() for day in partitions if day != WHOLE}
        assert (request.days is None) == (not days)
        if request.days is not None:
            assert all(day in request.days for day in days)
            assert {each for span in request.days.ranges for each in (span.first, span.last)} <= days
            assert all(before.last < after.first for before, after in pairwise(request.days.ranges))


def test_everything_means_every_asset_and_every_day() -> None:
    span = DayRange(date(2024, 8, 19), date(2024, 8, 21))
    request = everything(TABLES, span)
    assert (len(request.assets), set(request.assets), request.days) == (33, ALL_ASSETS, span)


def test_assets_are_partitioned_or_not_as_their_tables_are() -> None:
    assert set(partitioned(TABLES)) == {
        "totesys/sales_order",
        "totesys/purchase_order",
        "totesys/transaction",
        "totesys/payment",
        *(
            f"{group}/{name}"
            for group in ("star", "warehouse")
            for name in ("dim_transaction", "fact_sales_order", "fact_purchase_order", "fact_payment")
        ),
    }
    assert len(unpartitioned(TABLES)) == 33 - 12


# Days


spans = st.tuples(st.dates(date(2000, 1, 1), date(2040, 12, 31)), st.integers(0, 900)).map(
    lambda each: DayRange(each[0], each[0] + timedelta(days=each[1]))
)


def test_a_range_has_both_its_ends_and_knows_its_keys_and_months() -> None:
    span = DayRange(date(2023, 12, 30), date(2024, 2, 1))
    assert (len(span), len(list(span)), span.end) == (34, 34, date(2024, 2, 2))
    assert (span.keys[0], span.keys[-1], span.months) == ("2023-12-30", "2024-02-01", ["2023-12", "2024-01", "2024-02"])
    assert date(2023, 12, 30) in span
    assert date(2024, 2, 1) in span
    assert date(2023, 12, 29) not in span
    assert date(2024, 2, 2) not in span


@given(spans)
def test_a_range_cut_by_month_is_itself_again_and_no_piece_leaves_its_month(span: DayRange) -> None:
    months = list(span.by_month())
    assert [day for month in months for day in month] == list(span)
    assert all((month.first.year, month.first.month) == (month.last.year, month.last.month) for month in months)
    assert len({month.first.isoformat()[:7] for month in months}) == len(months)


@given(spans, st.dictionaries(st.integers(0, 900), st.integers(0, 40), max_size=60), st.integers(1, 100))
def test_chunks_cover_a_range_exactly_and_exceed_the_limit_only_by_a_single_day(
    span: DayRange, counts: dict[int, int], limit: int
) -> None:
    rows = {(span.first + timedelta(days=offset)).isoformat(): count for offset, count in counts.items()}
    pieces = list(chunks(span, rows, limit))
    assert [day for piece in pieces for day in piece] == list(span)
    for piece in pieces:
        held = [key for key in piece.keys if rows.get(key)]
        assert sum(rows.get(key, 0) for key in piece.keys) <= limit or len(held) == 1


def test_chunks_are_cut_at_ends_of_months_and_as_large_as_they_may_be() -> None:
    span = DayRange(date(2024, 1, 15), date(2024, 4, 15))
    rows = {"2024-01-20": 4, "2024-02-20": 6, "2024-03-20": 1, "2024-04-10": 9}
    assert [(piece.first, piece.last) for piece in chunks(span, rows, 10)] == [
        (date(2024, 1, 15), date(2024, 2, 29)),
        (date(2024, 3, 1), date(2024, 4, 15)),
    ]
    assert list(chunks(span, {}, 10)) == [span]


def test_a_month_of_more_rows_than_the_limit_is_cut_by_days() -> None:
    span = DayRange(date(2024, 1, 1), date(2024, 2, 29))
    rows = {day.isoformat(): 1 for day in span}
    assert [len(piece) for piece in chunks(span, rows, 20)] == [20, 20, 20]


def test_days_with_gaps_between_them_are_gathered_into_chunks_too() -> None:
    days = DaySet(tuple(DayRange(date(2024, 1, day), date(2024, 1, day)) for day in (1, 3, 5, 7)))
    rows = dict.fromkeys(days.keys, 4)
    assert [piece.keys for piece in chunks(days, rows, 8)] == [days.keys[:2], days.keys[2:]]


def test_days_are_written_down_and_read_again() -> None:
    days = days_of(["2024-01-05", "2024-01-01", "2024-01-02", "2024-03-01"])
    assert str(days) == "2024-01-01/2024-01-02,2024-01-05/2024-01-05,2024-03-01/2024-03-01"
    assert DaySet.parse(str(days)) == days
    assert (days.months, len(days), days.first, days.last) == (
        ["2024-01", "2024-03"],
        4,
        date(2024, 1, 1),
        date(2024, 3, 1),
    )


@given(st.sets(st.integers(0, 300), max_size=30), st.integers(0, 20))
def test_contiguous_ranges_are_the_fewest_that_cover_the_days_within_the_gap(numbers: set[int], gap: int) -> None:
    origin = date(2024, 1, 1)
    wanted = sorted(origin + timedelta(days=number) for number in numbers)
    found = contiguous(wanted, gap)
    assert all(sum(day in each for each in found) == 1 for day in wanted)
    assert all(each.first in wanted and each.last in wanted for each in found)
    assert all((later.first - earlier.last).days > gap + 1 for earlier, later in pairwise(found))
    for each in found:
        inside = [day for day in wanted if day in each]
        assert all((after - before).days <= gap + 1 for before, after in pairwise(inside))


def test_the_partitions_reach_from_the_first_day_to_tomorrow() -> None:
    now = datetime(2024, 8, 20, 23, 59, 59, tzinfo=UTC)
    assert partition_range(date(2022, 11, 3), now) == DayRange(date(2022, 11, 3), date(2024, 8, 21))


def test_tomorrow_is_that_of_utc_wherever_the_clock_hangs() -> None:
    in_new_york = datetime(2024, 8, 20, 21, 0, tzinfo=timezone(-timedelta(hours=4)))
    assert partition_range(date(2024, 8, 1), in_new_york).last == date(2024, 8, 22)
    in_tokyo = datetime(2024, 8, 21, 8, 0, tzinfo=timezone(timedelta(hours=9)))
    assert partition_range(date(2024, 8, 1), in_tokyo).last == date(2024, 8, 21)


def test_a_first_day_that_is_still_to_come_has_a_partition_already() -> None:
    now = datetime(2024, 8, 20, tzinfo=UTC)
    assert partition_range(date(2024, 12, 1), now) == DayRange(date(2024, 12, 1), date(2024, 12, 2))


def test_without_a_clock_the_partitions_reach_to_the_tomorrow_of_now() -> None:
    before = datetime.now(UTC).date()
    last = partition_range(date(2024, 8, 1)).last
    assert before + timedelta(days=1) <= last <= datetime.now(UTC).date() + timedelta(days=1)
