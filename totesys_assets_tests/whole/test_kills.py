"""Killed at any instant: a refresh in a process of its own, SIGKILL at a chosen point, and the next refresh."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.warehouse.bare import without_keys
from totesys_assets_tests.conftest import Platform
from totesys_assets_tests.harness.complete import look_at, require_complete, require_old_or_new
from totesys_assets_tests.harness.kills import Kill, kill
from totesys_assets_tests.harness.shop import Street

LOOK = "totesys_assets.staleness.look"
INGESTION, PROCESSED, WAREHOUSE = (f"totesys_assets.assets.{name}" for name in ("ingestion", "processed", "warehouse"))
SOURCE = "totesys_assets.source.totesys"
COMPARISON = "totesys_assets.capture.comparison"
LEDGER = "totesys_assets.capture.ledger"
BUILD = "totesys_assets.transform.engines.in_duckdb"
COMMIT = "totesys_assets.lake.commit"
SERVER, SCHEMA = "totesys_assets.warehouse.warehouse", "totesys_assets.warehouse.schema"
LOAD, MERGE = "totesys_assets.load.load", "totesys_assets.load.merge"
ONE_ROW = (("totesys_assets.engine:BATCH_ROWS", 1),)
ONE_PASS, COPYING = "totesys_assets.load.one_pass", "totesys_assets.load.copying"
PASSED = "totesys_assets.transform.engines.passed"
LARGE = ((f"{COPYING}:LARGE", 1),)
TIDY = (("totesys_assets.lake.compact:MOST_FILES", 1),)

FIRST = [
    Kill("after", f"{SOURCE}:Totesys._take", 2),
    Kill("before", f"{INGESTION}:capture", 7),
    Kill("inside", "totesys_assets.lake.background:Background.__iter__", settings=ONE_ROW),
    Kill("inside", f"{ONE_PASS}:_Receiver._batches", 2, settings=(*ONE_ROW, *LARGE)),
    Kill("after", f"{SERVER}:Warehouse.bare", settings=LARGE),
    Kill("after", f"{COPYING}:Copy.fill", 2, settings=LARGE),
    Kill("before", f"{COMMIT}:commit", having="capture:payment", settings=LARGE),
    Kill("after", f"{COMMIT}:commit", having="capture:payment", settings=LARGE),
    Kill("before", f"{PASSED}:commit", 2, settings=LARGE),
    Kill("after", f"{PASSED}:commit", 2, settings=LARGE),
    Kill("before", f"{COPYING}:Copy.complete", settings=LARGE),
    Kill("after", f"{COPYING}:Copy.complete", 2, settings=LARGE),
    Kill("before", f"{COPYING}:Copy._attach", settings=LARGE),
    Kill("after", f"{COPYING}:Copy.commit", 2, settings=LARGE),
    Kill("uncommitted", f"{COMMIT}:write_deltalake", having="processed/dim_staff"),
    Kill("after", f"{BUILD}:replace", 6),
    Kill("before", f"{SCHEMA}:_migrate_table", 5),
    Kill("after", f"{SCHEMA}:_apply"),
    Kill("after", f"{SERVER}:Warehouse.migrate"),
    Kill("before", f"{MERGE}:_fill_fact", having="fact_payment"),
    Kill("after", f"{MERGE}:_fill_fact", having="fact_payment"),
    Kill("after", f"{LOAD}:note", having="fact_sales_order"),
    Kill("after", f"{WAREHOUSE}:load", having="fact_sales_order"),
]

LATER = [
    Kill("after", f"{SOURCE}:Totesys._take", 2),
    Kill("before", f"{INGESTION}:capture", 3),
    Kill("before", f"{COMPARISON}:append", having="capture:sales_order"),
    Kill("inside", "totesys_assets.lake.background:Background.__iter__", 2, settings=ONE_ROW),
    Kill("uncommitted", f"{COMMIT}:write_deltalake", having="ingestion/sales_order"),
    Kill("before", f"{COMPARISON}:dead_letters.keep", having="sales_order"),
    Kill("after", f"{COMPARISON}:dead_letters.keep", having="sales_order"),
    Kill("before", f"{LEDGER}:Ledger.append", 2),
    Kill("uncommitted", f"{LEDGER}:write_deltalake", 3),
    Kill("after", f"{LEDGER}:Ledger.append", 3),
    Kill("before", f"{COMMIT}:tidy", settings=TIDY),
    Kill("uncommitted", "deltalake.table:TableOptimizer.compact", settings=TIDY),
    Kill("after", "deltalake.table:TableOptimizer.compact", 2, settings=TIDY),
    Kill("before", f"{BUILD}:replace", having="dim_transaction"),
    Kill("inside", f"{BUILD}:_rows", settings=ONE_ROW),
    Kill("uncommitted", f"{COMMIT}:write_deltalake", having="processed/fact_sales_order"),
    Kill("after", f"{BUILD}:append", having="fact_sales_order"),
    Kill("after", f"{PROCESSED}:build", 7),
    Kill("before", f"{WAREHOUSE}:load"),
    Kill("after", f"{SERVER}:Warehouse._attached"),
    Kill("before", f"{MERGE}:_upsert_dimension", having="dim_counterparty"),
    Kill("before", f"{MERGE}:_insert_facts", having="fact_sales_order"),
    Kill("before", f"{LOAD}:note", having="dim_location"),
    Kill("before", f"{LOAD}:note", having="fact_purchase_order"),
    Kill("after", f"{LOAD}:note", having="fact_sales_order"),
    Kill("after", f"{WAREHOUSE}:load", having="dim_location"),
    Kill("after", f"{WAREHOUSE}:load", having="fact_payment"),
    Kill("before", f"{WAREHOUSE}:load", 6),
]

# The instants that `make test` tries, one in each part of a refresh; the others go with `make soak`.
QUICK = {
    "after _apply",
    "after Copy.fill 2",
    "after append fact_sales_order",
}


def instants(kills: list[Kill]) -> list[Any]:
    return [pytest.param(at, id=str(at), marks=[] if str(at) in QUICK else pytest.mark.thorough) for at in kills]


def test_the_instants_of_the_ordinary_tests_are_some_of_all() -> None:
    assert {str(at) for at in (*FIRST, *LATER)} > QUICK


@pytest.mark.parametrize("at", instants(FIRST))
def test_a_first_refresh_killed_at_any_instant_is_completed_by_the_next(platform: Platform, at: Kill) -> None:
    before = look_at(platform)
    kill(platform, at)
    seen = look_at(platform)
    platform.refresh()
    require_old_or_new(seen, before, require_complete(platform, before))
    with psycopg.connect(platform.warehouse_url) as connection:
        assert without_keys(connection, platform.settings.warehouse_schema, catalogue()) == set()


@pytest.mark.parametrize("at", instants(LATER))
def test_a_later_refresh_killed_at_any_instant_is_completed_by_the_next(street: Street, at: Kill) -> None:
    with street.shop() as shop:
        old = shop.state
        shop.trade()
        kill(shop.platform, at)
        seen = look_at(shop.platform)
        require_old_or_new(seen, old, shop.complete())


ORDER = "UPDATE purchase_order SET item_quantity = 7 WHERE purchase_order_id = 1"
ADDRESS = "UPDATE address SET phone = 'moved' WHERE address_id = 2"
STALE = {
    ORDER: {
        *("totesys/purchase_order", "star/fact_purchase_order", "warehouse/fact_purchase_order"),
        *("mart/mart_purchases_day", "warehouse/mart_purchases_day"),
    },
    ADDRESS: {
        *("totesys/address", "star/dim_location", "warehouse/dim_location"),
        *("star/dim_counterparty", "warehouse/dim_counterparty"),
        *("star/dim_country", "warehouse/dim_country"),
    },
}
CALENDAR = {"star/dim_date", "warehouse/dim_date"}  # which the days of facts belong to


@pytest.mark.parametrize(
    "changes", [[ORDER], pytest.param([ORDER, ADDRESS], marks=pytest.mark.thorough)], ids=["a fact", "all kinds"]
)
def test_a_refresh_killed_after_every_step_gets_one_step_further_each_time(street: Street, changes: list[str]) -> None:
    at = Kill("before", "dagster._core.events:DagsterEvent.step_success_event")
    seen = []
    with street.shop() as shop:
        old = shop.state
        for change in changes:
            shop.platform.sql(change)
        stale = set(shop.platform.look().stale)
        assert stale == CALENDAR.union(*(STALE[change] for change in changes))
        while stale:
            kill(shop.platform, at)
            seen.append(look_at(shop.platform))
            before, stale = stale, set(shop.platform.look().stale)
            assert stale < before  # by two at times: steps go side by side
        assert shop.platform.look().requests == []
        new = shop.complete()
    for state in seen:
        require_old_or_new(state, old, new)
    assert seen[-1] == new
