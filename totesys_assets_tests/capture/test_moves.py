"""Rows that move between days, turn bad on the way, are mended or deleted: however the days are captured, all agree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from totesys_assets import engine
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import capture
from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange, DaySet
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.lake.versions import newest_first
from totesys_assets.load.restore import restore
from totesys_assets.staleness.decide import Request, partitioned
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform

TABLE = catalogue().source["sales_order"]
ORDER = "SELECT 1, '{day} 09:10', '2024-08-20', 1, 1, 1, 1001, 2.43, 3, '2024-08-24', '2024-08-23', 1"
HOME, EARLIER, LATER = date(2024, 8, 20), date(2024, 8, 19), date(2024, 10, 1)

# What happens to the order, as SQL.
DEEDS = {
    "home": f"UPDATE sales_order SET created_at = '{HOME} 09:10'",
    "earlier": f"UPDATE sales_order SET created_at = '{EARLIER} 09:10'",
    "later": f"UPDATE sales_order SET created_at = '{LATER} 09:10'",
    "infinity": "UPDATE sales_order SET created_at = 'infinity'",
    "bad": "UPDATE sales_order SET unit_price = 'NaN'",
    "mended": "UPDATE sales_order SET unit_price = 2.43",
    "deleted": "UPDATE transaction SET sales_order_id = NULL; DELETE FROM sales_order",
    "reborn": f"INSERT INTO sales_order {ORDER.format(day=LATER)} ON CONFLICT DO NOTHING",
}
# Which days are captured then, each in a run of its own.
SPLITS: dict[str, Sequence[date]] = {
    "none": (),
    "home": (HOME,),
    "later, then home": (LATER, HOME),
    "earlier, then later": (EARLIER, LATER),
}


def one(day: date) -> DayRange:
    return DayRange(day, day)


def captured(platform: Platform, lake: Lake, days: DayRange | None = None) -> None:
    """Capture some days as a backfill does, or what changed as a refresh does."""
    with platform.totesys.snapshot() as snapshot:
        all_days = platform.all_days
        capture(
            snapshot,
            lake,
            TABLE,
            all_days=all_days,
            days=days or all_days,
            run_id="test",
            changes_only=days is None,
            accept_deletions=True,
        )


def in_source(platform: Platform) -> dict[date, bool]:
    """The days that the order is on, and whether it is good there."""
    with platform.totesys.snapshot() as snapshot:
        rows = snapshot.rows(
            f"SELECT created_at::date, unit_price <> 'NaN' FROM public.sales_order "
            f"WHERE created_at < '{platform.all_days.end}'"
        )
    return dict(rows)


def in_lake(lake: Lake) -> dict[date, str]:
    """The days that the order is on, and its price there."""
    connection = engine.connect()
    try:
        held = lake.find(INGESTION, TABLE.name)
        assert held is not None
        newest = newest_first(["sales_order_id"], "created_at")
        rows = connection.execute(
            f"SELECT created_at::DATE, unit_price::VARCHAR FROM (SELECT * FROM {register(connection, 'held', held)} "
            f"QUALIFY {newest}) WHERE _operation <> 'delete'"
        ).fetchall()
        return dict(rows)
    finally:
        connection.close()


STORIES = st.lists(st.tuples(st.sampled_from(sorted(DEEDS)), st.sampled_from(sorted(SPLITS))), min_size=2, max_size=5)


@given(story=STORIES)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_to_a_row_and_however_it_is_captured_the_lake_ends_as_the_source(
    platform: Platform, tmp_path: Path, story: list[tuple[str, str]]
) -> None:
    ends_as_the_source(platform, tmp_path, story)


@pytest.mark.thorough
@given(story=STORIES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_to_a_row_in_many_more_stories_the_lake_ends_as_the_source(
    platform: Platform, tmp_path: Path, story: list[tuple[str, str]]
) -> None:
    ends_as_the_source(platform, tmp_path, story)


def ends_as_the_source(platform: Platform, tmp_path: Path, story: list[tuple[str, str]]) -> None:
    lake = Lake(str(tmp_path / os.urandom(4).hex()))
    platform.sql(DEEDS["deleted"])
    platform.sql(f"INSERT INTO sales_order {ORDER.format(day=HOME)}")
    captured(platform, lake)
    for deed, split in story:
        platform.sql(DEEDS[deed])
        for day in SPLITS[split]:
            captured(platform, lake, one(day))
    captured(platform, lake)
    source, held = in_source(platform), in_lake(lake)
    good = {day for day, is_good in source.items() if is_good}
    assert good <= held.keys() <= source.keys()
    letters = {row["row_key"] for row in open_dead_letters(lake).to_pylist()}
    with platform.totesys.snapshot() as snapshot:
        dead = snapshot.rows("SELECT 1 FROM public.sales_order WHERE created_at = 'infinity' OR unit_price = 'NaN'")
    assert letters == {"1" for _ in dead}


@pytest.mark.refreshed
def test_an_order_without_a_day_that_gets_one_and_is_deleted_is_gone(platform: Platform) -> None:
    for deed in ("infinity", "later", "deleted"):
        platform.sql(DEEDS[deed])
        platform.refresh()
    assert platform.query("SELECT count(*) FROM current_sales_order") == [(0,)]
    assert in_lake(platform.lake) == {}
    assert platform.look().stale == {}


@pytest.mark.refreshed
def test_an_order_that_moves_to_an_earlier_day_is_there_once_if_that_day_was_backfilled_first(
    platform: Platform,
) -> None:
    platform.sql(DEEDS["earlier"])
    assert platform.run(Request(tuple(partitioned(catalogue())), one(EARLIER))).success
    assert platform.query("SELECT created_date FROM current_sales_order") == [(EARLIER,)]
    platform.refresh()
    assert platform.query("SELECT created_date FROM current_sales_order") == [(EARLIER,)]
    assert list(in_lake(platform.lake)) == [EARLIER]


@pytest.mark.refreshed
def test_an_order_that_moves_a_month_is_loaded_in_one_transaction_and_both_its_days_are_materialised(
    platform: Platform,
) -> None:
    platform.sql(DEEDS["later"])
    (outcome,) = platform.refresh()
    assert outcome.request.days == DaySet((one(HOME), one(LATER)))
    written = "dense_rank() OVER (ORDER BY xmin::text::bigint)"
    records = f"SELECT created_date, _operation, {written} FROM fact_sales_order ORDER BY 1, 2"
    assert platform.query(records) == [(HOME, "delete", 2), (HOME, "insert", 1), (LATER, "insert", 2)]
    for group, rows in (
        ("totesys", {HOME: 0, LATER: 1}),
        ("star", {HOME: 2, LATER: 1}),
        ("warehouse", {HOME: 2, LATER: 1}),
    ):
        name = "sales_order" if group == "totesys" else "fact_sales_order"
        newest = platform.instance.fetch_materializations(dg.AssetKey([group, name]), limit=2).records
        counted = {
            str(each.partition_key): each.asset_materialization.metadata["dagster/partition_row_count"].value
            for each in newest
            if each.asset_materialization is not None
        }
        assert {each.run_id for each in newest} == {outcome.run_id}
        assert counted == {str(day): count for day, count in rows.items()}
    assert platform.look().stale == {}


@pytest.mark.refreshed
def test_a_warehouse_made_anew_holds_the_versions_of_days_that_were_emptied(platform: Platform) -> None:
    platform.sql(DEEDS["deleted"])
    platform.refresh()
    assert platform.look().stale == {}
    records = "SELECT sales_order_id, created_date, _operation FROM fact_sales_order ORDER BY 3"
    before = platform.query(records)
    assert [row[2] for row in before] == ["delete", "insert"]
    with platform.warehouse.connect() as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    platform.refresh()
    assert platform.query(records) == before
    assert platform.look().stale == {}


@pytest.mark.thorough
@pytest.mark.refreshed
def test_a_day_that_was_emptied_before_the_ledger_was_lost_is_still_known(platform: Platform) -> None:
    platform.sql(DEEDS["deleted"])
    platform.refresh()
    for path in platform.files():
        if path.parts[-2] == "ledger" or "ledger" in path.parts:
            path.unlink()
    platform.refresh()
    with platform.warehouse.connect() as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    platform.refresh()
    assert platform.query("SELECT count(*) FROM fact_sales_order") == [(2,)]


@pytest.mark.thorough
def test_a_table_that_never_had_a_row_lies_in_the_lake_and_the_warehouse_is_replayed_with_it(
    platform: Platform,
) -> None:
    platform.sql("DELETE FROM payment; DELETE FROM payment_type")
    platform.refresh()
    assert platform.look().stale == {}
    target = Warehouse(platform.warehouse_url, "again")
    assert restore(target, platform.lake)["fact_payment"] == 0
    platform.sql(
        "INSERT INTO payment_type VALUES (1, 'SALES_RECEIPT', '2024-08-19', '2024-08-19'); INSERT INTO payment VALUES "
        "(1, '2024-08-21', '2024-08-21', 2, 1, 1.00, 2, 1, false, '2024-08-26', 1, 2)"
    )
    platform.refresh()
    assert platform.query("SELECT count(*) FROM current_payment") == [(1,)]
    assert platform.look().stale == {}


@pytest.mark.refreshed
def test_a_day_captured_by_a_refresh_that_was_killed_and_emptied_then_is_not_left_as_it_was(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.sql(DEEDS["later"])
    monkeypatch.setattr(Ledger, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        captured(platform, platform.lake)
    monkeypatch.undo()
    platform.sql(DEEDS["deleted"])
    platform.refresh()
    assert in_lake(platform.lake) == {}
    assert platform.query("SELECT count(*) FROM current_sales_order") == [(0,)]
    assert platform.look().stale == {}


def interrupted(_ledger: Ledger, _entries: object) -> None:
    """In place of Ledger.append: the process ends before it notes what it committed."""
    raise KeyboardInterrupt
