"""A first load in ranges: one after the other or two at once, in any order, killed and resumed: the same result."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from totesys_assets.assets import ingestion
from totesys_assets.audit.audit import audit, checks
from totesys_assets.automation import sensors
from totesys_assets.automation.records import seen
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.catalogue.catalogue import RECORDED_AT, Table, catalogue
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.source.interface import SourceSnapshot
from totesys_assets.source.totesys import Totesys
from totesys_assets.staleness.decide import Request
from totesys_assets.staleness.spans import rows_of
from totesys_assets_tests.automation.test_sensor import tick
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform
from totesys_assets_tests.harness import kills
from totesys_assets_tests.harness.complete import require_complete
from totesys_assets_tests.harness.kills import Before, Kill, meet, start
from totesys_assets_tests.harness.older import refresh_by_command

MONTHS = ("2024-08-20", "2024-09-10", "2024-10-10", "2024-11-10")
MADE = [
    f"""
    CREATE TEMP TABLE made AS SELECT {1000 * month} + number AS id, '{day} 08:00:00'::timestamp AS at
    FROM generate_series(1, 400) AS number;
    INSERT INTO sales_order SELECT id, at, at, 1, 1, 1, 10, 2.50, 1, '2024-12-30', '2024-12-31', 1 FROM made;
    INSERT INTO transaction SELECT id, 'SALE', id, NULL, at, at FROM made;
    INSERT INTO payment SELECT id, at, at, id, 1, 25.00, 1, 1, false, '2024-12-31', 12345678, 87654321 FROM made;
    DROP TABLE made;
    """
    for month, day in enumerate(MONTHS, 1)
]

NOT_CAPTURED = (("totesys", "design"), ("star", "dim_design"), ("warehouse", "dim_design"))


@pytest.fixture
def months(postgres_server: PostgresServer, trade_template: str, tmp_path: Path) -> Iterator[Platform]:
    """A platform over four months of trade, each of which is a range."""
    source = postgres_server.template(f"months_{tmp_path.name[-20:]}", trade_template)
    with make_platform(source, postgres_server.database(), tmp_path, TOTESYS_RANGE_ROWS="1500") as platform:
        for statements in MADE:
            platform.sql(statements)
        yield platform


def test_a_first_load_in_ranges_is_complete_with_the_last_of_them(months: Platform) -> None:
    asked = months.look().requests
    assert [each.turn for each in asked] == [0, 1, 1, 1, 1, 2]
    span = DayRange(months.all_days.first, date(2024, 12, 31))
    rows = rows_of(months.core, span)
    assert [rows[day] for day in MONTHS[1:]] == [1200] * 3
    for request in asked[:-1]:
        assert months.run(request).success
        assert seen(months.instance).up_to_date is None  # no range by itself makes all of it up to date
    assert months.run(asked[-1]).success
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Totesys, "snapshot", lambda _: pytest.fail("The ledger knows."))
        quarter = DayRange(span.first, date(2024, 9, 10))
        assert rows_of(months.core, quarter) == {day: rows[day] for day in rows if day <= "2024-09-10"}
    require_complete(months)


def test_the_sensor_asks_for_one_turn_and_the_next_look_finds_the_next(months: Platform) -> None:
    (sets,), _, _ = tick(months)
    assert (sets.tags["totesys/refresh"], sets.tags.get("totesys/days")) == ("range", None)
    assert months.run(months.look().requests[0]).success
    ranges, _, _ = tick(months)
    assert [each.tags["totesys/refresh"] for each in ranges] == ["range"] * 4
    assert len({each.tags["totesys/days"] for each in ranges}) == 4


@pytest.fixture
def without_designs(months: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The same, where a set table looks well, and every capture of it fails."""

    def capture_others(snapshot: SourceSnapshot, *, table: Table, **options: Any) -> Captured:
        if table.name == "design":
            raise PlatformError("It never can be.")
        return capture(snapshot, table=table, **options)

    monkeypatch.setattr(ingestion, "capture", capture_others)
    return months


def test_after_a_turn_that_failed_the_sensor_asks_for_all_others_with_it(
    without_designs: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not without_designs.run(without_designs.look().requests[0]).success
    monkeypatch.setattr(sensors, "back_off_seconds", lambda _: 0)
    requests, _, _ = tick(without_designs)
    assert len(requests) == 6
    assert requests[0].asset_selection == [dg.AssetKey([group, name]) for group, name in NOT_CAPTURED]


@pytest.mark.thorough
def test_a_set_that_can_never_be_captured_stops_no_range_of_the_command(without_designs: Platform) -> None:
    urls = without_designs.totesys_url, without_designs.warehouse_url
    summary = refresh_by_command(without_designs.settings, *urls)
    assert [run["success"] for run in summary.runs] == [False, *[True] * 5]
    assert [*without_designs.look().stale] == ["/".join(each) for each in NOT_CAPTURED]
    assert without_designs.query("SELECT count(*) FROM fact_sales_order") == [(1601,)]


def captured_rows(platform: Platform) -> set[tuple[object, ...]]:
    """Every version that the lake has of the orders, but for when it was recorded."""
    held = platform.lake.existing(catalogue().source["sales_order"]).to_pyarrow_table()
    return set(zip(*(held.column(name).to_pylist() for name in held.column_names if name != RECORDED_AT), strict=True))


def at_once(platform: Platform, requests: list[Request], at: Kill | None = None) -> list[object]:
    """Each request in a process of its own, none of which commits orders before all of them could.

    The exit codes, or what failed. The first is killed ``at`` an instant.
    """
    barrier = kills.context().Barrier(len(requests))
    meeting = Before("totesys_assets.capture.beside:commit", partial(meet, barrier), having="capture:sales_order")
    running = [
        start(platform, *([at] if at and not number else []), meeting, requests=[each])
        for number, each in enumerate(requests)
    ]
    return [each.wait() or each.failures() or 0 for each in running]


@pytest.mark.parametrize(
    "at",
    [
        Kill("before", "totesys_assets.capture.comparison:dead_letters.keep", having="sales_order"),
        *(
            pytest.param(at, marks=pytest.mark.thorough)
            for at in (
                Kill("before", "totesys_assets.capture.beside:commit", having="capture:sales_order"),
                Kill("before", "totesys_assets.assets.processed:build", having="fact_sales_order"),
                Kill("after", "totesys_assets.load.load:note", having="fact_sales_order"),
            )
        ),
    ],
    ids=str,
)
def test_two_ranges_at_once_of_which_one_is_killed_and_resumed_make_what_one_run_makes(
    months: Platform, at: Kill
) -> None:
    sets, *ranges, _ = months.look().requests
    assert months.run(sets).success
    assert at_once(months, ranges[2:]) == [0, 0]
    assert at_once(months, ranges[:2], at) == [-signal.SIGKILL, 0]
    stale = {day for days in months.look().stale.values() for day in days if day != WHOLE}
    assert ranges[0].days is not None
    assert set() < stale <= set(ranges[0].days.keys)
    months.refresh()
    require_complete(months)
    assert len(captured_rows(months)) == 1601
    assert [each for each in audit(months.core, checks(catalogue())) if not each.passed] == []
