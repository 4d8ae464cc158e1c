"""How far a table is known to be complete; what is refused since it would leave days out; what need not be loaded."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import dagster as dg
import pytest

from totesys_assets.capture.difference import capture
from totesys_assets.capture.ledger import COMPLETE, Entry, Ledger
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import LEDGER
from totesys_assets.staleness.decide import Request
from totesys_assets.staleness.look import look
from totesys_assets_tests.conftest import Platform

ORDERS = catalogue().source["sales_order"]


def complete(platform: Platform, table: str) -> Entry | None:
    return Ledger(platform.lake).newest([COMPLETE]).get(COMPLETE, {}).get(table)


def next_id(platform: Platform) -> int:
    with platform.totesys.snapshot() as snapshot:
        return snapshot.xmin


def test_a_refresh_notes_how_far_its_tables_are_complete_and_a_backfill_does_not(platform: Platform) -> None:
    begun = next_id(platform)
    platform.refresh()
    noted = complete(platform, "sales_order")
    assert noted is not None
    assert begun <= noted.xmin_floor <= next_id(platform)
    assert complete(platform, "design") is not None
    platform.sql("UPDATE sales_order SET units_sold = 7; UPDATE purchase_order SET item_quantity = 7")
    day = date(2024, 8, 20)
    assert platform.run(Request(("totesys/sales_order",), DayRange(day, day))).success
    assert complete(platform, "sales_order") == noted
    seen = platform.look()
    platform.sql("UPDATE purchase_order SET item_quantity = 8, created_at = '2024-08-19'")  # after the look
    assert all(platform.run(request).success for request in seen.requests)
    later = complete(platform, "purchase_order")
    assert later is not None
    assert noted.xmin_floor < later.xmin_floor < next_id(platform)
    assert platform.look().stale["totesys/purchase_order"] == {"2024-08-19"}


@pytest.mark.refreshed
def test_a_first_day_moved_later_is_refused_before_anything_is_written(platform: Platform) -> None:
    before = platform.files()
    later = DayRange(date(2024, 8, 21), platform.all_days.last)
    sentence = "TOTESYS_FIRST_DAY is 2024-08-21, but .* was captured from 2024-08-20 on.* Set it to 2024-08-20 or an"
    with pytest.raises(PlatformError, match=sentence):
        look(replace(platform.core, all_days=later))
    with platform.totesys.snapshot() as snapshot, pytest.raises(PlatformError, match=sentence):
        capture(snapshot, platform.lake, ORDERS, all_days=later, days=later, run_id="later")
    assert platform.files() == before
    earlier = DayRange(date(2024, 1, 1), platform.all_days.last)
    assert look(replace(platform.core, all_days=earlier)).stale == {}


def test_a_ledger_that_lost_its_files_is_told_in_a_sentence(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    with platform.totesys.snapshot() as snapshot:
        capture(snapshot, platform.lake, ORDERS, all_days=platform.all_days, days=platform.all_days, run_id="first")
    for path in platform.files():
        if path.parent.name == LEDGER:
            path.unlink()
    with pytest.raises(
        PlatformError, match=r"has lost some of its files: .*Remove the rest of that folder and refresh"
    ):
        Ledger(platform.lake).newest()
    opened = platform.lake.find(LEDGER)
    assert opened is not None
    for path in platform.files():
        if LEDGER in path.parts:
            path.unlink()
    ledger = Ledger(platform.lake)
    entry = Entry("ingestion/sales_order", "2024-08-20", "state", 1, datetime.now(UTC), "run")
    monkeypatch.setattr(ledger, "_open", lambda _: opened)
    with pytest.raises(PlatformError, match="was removed while a refresh was under way"):
        ledger.append([entry])


def loads(platform: Platform, table: str) -> int:
    key = dg.AssetKey(["warehouse", table])
    return len(platform.instance.fetch_materializations(key, limit=20).records)


@pytest.mark.thorough
def test_the_calendar_is_loaded_only_when_it_changes(platform: Platform) -> None:
    platform.refresh()
    assert loads(platform, "dim_date") == 1
    platform.sql("UPDATE sales_order SET units_sold = 7")
    platform.refresh()
    assert (loads(platform, "dim_date"), platform.look().stale) == (1, {})
    platform.sql("UPDATE sales_order SET agreed_delivery_date = '2044-08-24'")
    platform.refresh()
    assert (loads(platform, "dim_date"), platform.look().stale) == (2, {})
    assert platform.query("SELECT count(*) FROM dim_date WHERE year = 2044") == [(1,)]
    with platform.warehouse.connect() as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    platform.sql("UPDATE sales_order SET units_sold = 8")
    platform.refresh()
    assert (loads(platform, "dim_date"), platform.look().stale) == (3, {})
    assert platform.query("SELECT count(*) FROM dim_date WHERE year = 2044") == [(1,)]
