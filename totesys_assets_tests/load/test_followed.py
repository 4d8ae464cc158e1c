"""Which stretches of a fact have every committed version is noted in the warehouse with each load."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from totesys_assets.capture.following import Reach, followed_entries
from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.log_notes import LogNote
from totesys_assets.capture.stretches import Seen
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets_tests.conftest import Platform

NOTED = "SELECT table_name, followed_from, followed_until, reason FROM _followed ORDER BY 1, 2"
MARKS = "SELECT ctid::text, xmin::text FROM _followed"
BEGAN = datetime(2024, 8, 20, 12, tzinfo=UTC)


def load_orders(platform: Platform, units: int) -> None:
    platform.sql("UPDATE sales_order SET units_sold = %s", [units])
    platform.refresh()


@pytest.mark.refreshed
def test_stretches_are_noted_by_the_load_that_follows_them(platform: Platform) -> None:
    assert platform.query(NOTED) == []
    ledger, table = Ledger(platform.lake), catalogue().source["sales_order"]
    note, reach = LogNote().begun(stretch=5), Reach(5, 100, (), as_of=BEGAN)
    ledger.append([note.entry, *followed_entries(table, reach, "a commit", {}, 1)])
    load_orders(platform, 1001)
    assert platform.query(NOTED) == [("fact_sales_order", BEGAN, None, None)]
    before = platform.query(MARKS)
    load_orders(platform, 1002)
    assert platform.query(MARKS) == before
    until = BEGAN.replace(hour=15)
    further = replace(reach, as_of=until)
    ledger.append(followed_entries(table, further, "a commit", ledger.newest(), 1, how=Seen.TOLD))
    ledger.append([note.lost("Its slot is gone, isn't it.", None).entry])
    load_orders(platform, 1003)
    assert platform.query(NOTED) == [("fact_sales_order", BEGAN, until, "Its slot is gone, isn't it.")]


@pytest.mark.refreshed
def test_a_stretch_that_the_lake_knows_nothing_of_is_forgotten(platform: Platform) -> None:
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("INSERT INTO _followed VALUES ('fact_sales_order', now()), ('fact_payment', now())")
    load_orders(platform, 1001)
    assert [row[0] for row in platform.query(NOTED)] == ["fact_payment"]
