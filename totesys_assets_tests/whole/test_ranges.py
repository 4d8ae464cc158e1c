"""A first load in ranges: one after the other or two at once, in any order, killed and resumed: the same result."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from totesys_assets.automation.records import seen
from totesys_assets.days import DayRange
from totesys_assets.source.totesys import Totesys
from totesys_assets.staleness.spans import rows_of
from totesys_assets_tests.automation.test_sensor import tick
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.complete import require_complete

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
