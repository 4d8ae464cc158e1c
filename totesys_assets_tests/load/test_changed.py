"""A mart is loaded by what changed in it since its last load, and whole where nothing tells what that was."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from totesys_assets.capture.difference import capture
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import DayRange, Days, DaySet
from totesys_assets.load.load import Loaded, load
from totesys_assets.source.shared_snapshot import OpenSnapshots
from totesys_assets.transform.build import build
from totesys_assets_tests.conftest import Platform
from totesys_assets_tests.harness import marts

TABLES = catalogue()
MART = TABLES.marts["mart_sales_day"]
DAY, ANOTHER_DAY, EMPTY_DAY = (DayRange.of(f"2024-08-{day}") for day in (20, 21, 25))
BY_HAND = (
    "UPDATE mart_sales_day SET units = -1 WHERE created_date = '2024-08-20' AND breakdown = 'staff' AND member_id = 2"
)
# What an order is in: the total, and the rows of its staff, customer and place.
ROWS = 4


def build_mart(platform: Platform, days: Days | None = None, *, changes_only: bool = True) -> None:
    """Capture what the mart is made of, all of it, and build its ``days`` in the lake."""
    with closing(OpenSnapshots(platform.core.sources)) as snapshots:
        for source in query_of(MART.name).sources:
            table, every = TABLES.source[source], platform.all_days
            capture(snapshots.now[table.group], platform.lake, table, all_days=every, days=every, run_id="test")
    build(platform.lake, TABLES, TABLES.star["fact_sales_order"], days=platform.all_days, run_id="test")
    build(platform.lake, TABLES, MART, days=days or platform.all_days, run_id="test", changes_only=changes_only)


def load_mart(platform: Platform, days: Days | None = None, *, changes_only: bool = True) -> Loaded:
    wanted = days or platform.all_days
    return load(platform.warehouse, platform.lake, MART, days=wanted, run_id="test", changes_only=changes_only)


def bring(platform: Platform, days: Days | None = None, *, changes_only: bool = True) -> Loaded:
    build_mart(platform, days, changes_only=changes_only)
    return load_mart(platform, days, changes_only=changes_only)


def held(platform: Platform) -> Counter[marts.Record]:
    return Counter(platform.query(marts.rows(MART)))  # type: ignore[arg-type]  # all of it is text


def require_right(platform: Platform) -> None:
    """The mart is what its SELECT gives of the star in the lake."""
    assert held(platform) == marts.expected(platform.lake, MART)


def by_hand(platform: Platform, statement: str) -> None:
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def note(platform: Platform) -> str:
    found = platform.query(f"SELECT state FROM _ledger WHERE table_name = '{MART.name}' AND partition = 'newest'")
    return str(found[0][0]) if found else ""


@pytest.fixture
def loaded(platform: Platform) -> Platform:
    """A platform with three who sell on two days, and the mart of it loaded."""
    platform.sql(
        "INSERT INTO staff SELECT n, first_name, last_name, department_id, email_address, created_at, last_updated "
        "FROM staff, generate_series(2, 3) AS n WHERE staff_id = 1 ON CONFLICT DO NOTHING; "
        "INSERT INTO sales_order SELECT n, created_at + interval '1 day' * (n % 2), last_updated, design_id, "
        "1 + n % 3, counterparty_id, 10 * n, 2.00, currency_id, agreed_delivery_date, agreed_payment_date, "
        "agreed_delivery_location_id FROM sales_order, generate_series(10, 15) AS n"
    )
    assert bring(platform).written == 12
    require_right(platform)
    return platform


# What changes: an amount, somebody who sells for the first time and somebody who sells no more, another day.
CHANGES = (
    "UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 10",
    "UPDATE sales_order SET staff_id = 3 WHERE sales_order_id = 1",
    "DELETE FROM sales_order WHERE created_at::date = '2024-08-21'",
    "UPDATE sales_order SET created_at = created_at + interval '2 days' WHERE sales_order_id IN (1, 10)",
    "INSERT INTO sales_order SELECT 99, '2024-08-25 10:00', last_updated, 1, staff_id, counterparty_id, 1, 2.00, "
    "currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id FROM sales_order LIMIT 1",
    "UPDATE sales_order SET staff_id = 2, units_sold = sales_order_id, unit_price = 1",
)


def test_only_rows_that_changed_are_written_whatever_changes_and_no_others_are_looked_at(loaded: Platform) -> None:
    by_hand(loaded, BY_HAND.replace("2024-08-20", "2024-08-21"))
    loaded.sql("UPDATE sales_order SET units_sold = 8 WHERE sales_order_id = 12")
    assert bring(loaded).written == ROWS
    assert loaded.query("SELECT count(*) FROM mart_sales_day WHERE units = -1") == [(1,)]
    load_mart(loaded, changes_only=False)
    require_right(loaded)
    for change in CHANGES:
        loaded.sql(change)
        rows = held(loaded)
        written = bring(loaded).written
        require_right(loaded)
        now = held(loaded)
        keys = {row[1:5] for row in [*(rows - now), *(now - rows)]}
        assert written == len(keys) > 0, change
    assert bring(loaded).written == 0


def test_days_that_nobody_asked_for_are_loaded_too_and_noted(loaded: Platform) -> None:
    loaded.sql("UPDATE sales_order SET units_sold = 7")
    build_mart(loaded)
    assert load_mart(loaded, EMPTY_DAY).written == 12
    require_right(loaded)
    assert f"warehouse/{MART.name}" not in loaded.look().stale


def test_a_load_of_all_days_that_have_rows_and_of_no_other_tells_the_next_one_what_is_there(platform: Platform) -> None:
    """Days on which nothing is sold are not stale when everything else is."""
    bring(platform)
    by_hand(platform, f"UPDATE _ledger SET state = '' WHERE table_name = '{MART.name}' AND partition = 'newest'")
    platform.sql(
        "INSERT INTO sales_order SELECT 99, '2024-08-25 10:00', last_updated, 1, staff_id, counterparty_id, 1, "
        "2.00, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id FROM sales_order"
    )
    build_mart(platform)
    load_mart(platform, DaySet((DAY,)))
    assert note(platform) == ""
    load_mart(platform, DaySet((DAY, EMPTY_DAY)))
    assert note(platform) != ""
    require_right(platform)


def test_a_comparison_that_finds_nothing_leaves_no_trace_and_one_that_does_tells_what_is_there_now(
    loaded: Platform,
) -> None:
    mark, before = loaded.warehouse.mark(), note(loaded)
    for days in (loaded.all_days, DAY):
        assert bring(loaded, days, changes_only=False).written == 0
        assert (loaded.warehouse.mark(), note(loaded)) == (mark, before)
    by_hand(loaded, BY_HAND)
    assert load_mart(loaded, changes_only=False).written == 1
    assert note(loaded) not in ("", before)
    by_hand(loaded, BY_HAND)
    loaded.sql("UPDATE sales_order SET unit_price = 4 WHERE sales_order_id = 11")
    assert bring(loaded).written == ROWS


@pytest.mark.parametrize("cause", ["some days", "older version", "removed files", "another version", "no log"])
def test_where_nothing_tells_what_was_loaded_all_rows_of_the_days_are_compared(
    loaded: Platform, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    before, folder = note(loaded), Path(loaded.lake.location("processed", MART.name))
    if cause == "some days":  # of what else has changed, nothing is known
        loaded.sql("UPDATE sales_order SET units_sold = 9")
        build_mart(loaded)
        load_mart(loaded, DAY, changes_only=False)
        assert note(loaded) == ""
    elif cause == "older version":  # it loads, and leaves the note as it is
        loaded.sql("UPDATE sales_order SET units_sold = 9")
        bring(loaded)
        by_hand(
            loaded,
            f"UPDATE _ledger SET state = '{before}' WHERE table_name = '{MART.name}' AND partition = 'newest'",
        )
        loaded.sql("UPDATE sales_order SET units_sold = 10 * sales_order_id WHERE sales_order_id > 9")
    elif cause == "another version":  # the lake's table was set back, and written to again
        shutil.copytree(folder, folder.parent / "kept")
        loaded.sql("UPDATE sales_order SET units_sold = 9")
        bring(loaded)
        shutil.rmtree(folder)
        (folder.parent / "kept").rename(folder)
        loaded.sql("UPDATE sales_order SET units_sold = 10 * sales_order_id WHERE sales_order_id > 9")
        build_mart(loaded)
    by_hand(loaded, BY_HAND)
    loaded.sql("UPDATE sales_order SET unit_price = 3 WHERE sales_order_id = 11")
    build_mart(loaded)
    if cause == "removed files":
        table = loaded.lake.open("processed", MART.name)
        assert table is not None
        assert table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    elif cause == "no log":
        monkeypatch.setattr(type(loaded.lake), "find_version", lambda *_: None)
    load_mart(loaded)
    require_right(loaded)
    loaded.sql("UPDATE sales_order SET unit_price = 4 WHERE sales_order_id = 10")
    assert bring(loaded).written == ROWS
