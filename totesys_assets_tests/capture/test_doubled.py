"""Several rows with one key: one arrives and the audit is red; once each has its own key, everything is equal."""

from __future__ import annotations

from random import Random

import psycopg
import pytest

from totesys_assets.audit.audit import audit
from totesys_assets.audit.findings import CONTENT, MONEY, ROWS
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.load import copying
from totesys_assets_tests.conftest import Platform

# Neither table has a key any more.
WITHOUT_KEYS = """
ALTER TABLE sales_order DROP CONSTRAINT sales_order_pkey CASCADE;
ALTER TABLE design DROP CONSTRAINT design_pkey CASCADE
"""
# The key of a table whose partitions are days has the day in it.
WITH_A_LONGER_KEY = f"""
{WITHOUT_KEYS};
ALTER TABLE sales_order ADD PRIMARY KEY (sales_order_id, created_at);
ALTER TABLE design ADD PRIMARY KEY (design_id, created_at)
"""
# An index that does not tell rows apart, or not all of them.
WITH_OTHER_INDEXES = f"""
{WITHOUT_KEYS};
CREATE INDEX ON sales_order (sales_order_id);
CREATE UNIQUE INDEX ON sales_order (sales_order_id) WHERE units_sold < 5;
CREATE UNIQUE INDEX ON sales_order ((sales_order_id + units_sold));
CREATE UNIQUE INDEX ON design (design_id, created_at) INCLUDE (design_name)
"""
# What inherits from a table is read with it, and no index of the table tells of that.
INHERITED = """
CREATE TABLE more_orders () INHERITS (sales_order); CREATE TABLE more_designs () INHERITS (design);
GRANT SELECT ON more_orders, more_designs TO PUBLIC
"""
KEYS = {"none": WITHOUT_KEYS, "longer": WITH_A_LONGER_KEY, "other indexes": WITH_OTHER_INDEXES, "inherited": INHERITED}
DOUBLE = """
INSERT INTO {orders} SELECT sales_order_id, created_at + interval '1 ms', last_updated, design_id, staff_id,
    counterparty_id, 17, unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id
FROM sales_order WHERE sales_order_id = 1;
INSERT INTO {designs} SELECT design_id, created_at + interval '1 ms', 'Twofold', file_location, file_name, last_updated
FROM design WHERE design_id = 1
"""
SECOND = """
CREATE TEMP TABLE more AS SELECT * FROM sales_order;
UPDATE more SET sales_order_id = 2;
INSERT INTO sales_order TABLE more
"""
# ToteSys has more rows, and more money, than the lake and the warehouse.
RED = {
    ("totesys/sales_order", CONTENT),
    ("totesys/design", CONTENT),
    ("warehouse/fact_sales_order", ROWS),
    ("warehouse/dim_design", ROWS),
    ("warehouse/fact_sales_order", MONEY),
}


def double(platform: Platform, key: str) -> None:
    is_inherited = key == "inherited"
    names = {"orders": "more_orders", "designs": "more_designs"} if is_inherited else {}
    platform.sql(DOUBLE.format(**{"orders": "sales_order", "designs": "design", **names}))


def mend(platform: Platform, gone: str) -> None:
    """Give both rows a key of their own, or delete one of them."""
    if gone == "renumbered":
        platform.sql("UPDATE sales_order SET sales_order_id = 2 WHERE units_sold = 17")
        platform.sql("UPDATE design SET design_id = 2 WHERE design_name = 'Twofold'")
        return
    is_gone = "=" if gone == "the second" else "<>"
    platform.sql(f"DELETE FROM sales_order WHERE units_sold {is_gone} 17")
    platform.sql(f"DELETE FROM design WHERE design_name {is_gone} 'Twofold'")


def differing(platform: Platform) -> set[tuple[str, str]]:
    return {(found.asset, found.check) for found in audit(platform.core) if found.outcome == "different"}


def require_equal(platform: Platform) -> None:
    with psycopg.connect(platform.totesys_url) as connection:
        orders = connection.execute("SELECT sales_order_id, units_sold FROM sales_order ORDER BY 1").fetchall()
        designs = connection.execute("SELECT design_id, design_name FROM design ORDER BY 1").fetchall()
    assert platform.query("SELECT sales_order_id, units_sold FROM current_sales_order ORDER BY 1") == orders
    current = "SELECT design_id, design_name FROM dim_design WHERE NOT _is_deleted ORDER BY 1"
    assert platform.query(current) == designs
    assert differing(platform) == set()


@pytest.mark.parametrize(
    ("key", "large", "gone"),
    [
        ("none", 1, "the first"),
        ("longer", copying.LARGE, "the second"),
        pytest.param("none", copying.LARGE, "renumbered", marks=pytest.mark.thorough),
        pytest.param("longer", 1, "the first", marks=pytest.mark.thorough),
        pytest.param("other indexes", 1, "renumbered", marks=pytest.mark.thorough),
        ("inherited", copying.LARGE, "the first"),
    ],
)
def test_rows_of_one_key_in_a_first_load_are_one_until_each_has_its_own(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, large: int, key: str, gone: str
) -> None:
    monkeypatch.setattr(copying, "LARGE", large)
    platform.sql(KEYS[key])
    double(platform, key)
    platform.refresh()
    assert platform.query("SELECT count(*) FROM fact_sales_order") == [(1,)]
    assert platform.query("SELECT count(*) FROM dim_design") == [(1,)]
    assert differing(platform) == RED
    platform.refresh()
    assert platform.query("SELECT count(*) FROM fact_sales_order") == [(1,)]
    mend(platform, gone)
    platform.refresh()
    require_equal(platform)


@pytest.mark.refreshed
def test_the_row_that_is_left_arrives_also_when_the_table_has_its_key_again(platform: Platform) -> None:
    platform.sql(WITHOUT_KEYS)
    double(platform, "none")
    platform.refresh()
    mend(platform, "the first")
    platform.sql("ALTER TABLE sales_order ADD PRIMARY KEY (sales_order_id)")
    platform.sql("ALTER TABLE design ADD PRIMARY KEY (design_id)")
    platform.refresh()
    require_equal(platform)


BROKEN = """
INSERT INTO sales_order SELECT sales_order_id, created_at, last_updated, design_id, staff_id, counterparty_id, {units},
    unit_price, currency_id, '{delivery}', agreed_payment_date, agreed_delivery_location_id
FROM sales_order WHERE units_sold = 1001
"""


def letters(platform: Platform) -> list[tuple[str, bool]]:
    """Of each dead letter its key, and whether its text is that of a broken row."""
    return [(each["row_key"], "soon" in each["raw"]) for each in open_dead_letters(platform.lake).to_pylist()]


@pytest.mark.parametrize("is_first", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_a_good_row_is_meant_before_a_broken_one_and_of_broken_ones_one_is_a_dead_letter(
    platform: Platform, is_first: bool
) -> None:
    if not is_first:
        platform.refresh()
    platform.sql(WITHOUT_KEYS)
    for units in (18, 19):
        platform.sql(BROKEN.format(units=units, delivery="soon"))
    platform.refresh()
    assert platform.query("SELECT units_sold FROM current_sales_order") == [(1001,)]
    assert letters(platform) == []
    assert ("totesys/sales_order", CONTENT) in differing(platform)
    platform.sql("DELETE FROM sales_order WHERE units_sold = 1001")
    platform.refresh()
    assert letters(platform) == [("1", True)]
    platform.sql("DELETE FROM sales_order WHERE units_sold = 18")
    platform.refresh()
    assert letters(platform) == [("1", True)]
    platform.sql("UPDATE sales_order SET agreed_delivery_date = '2024-08-24'")
    platform.refresh()
    assert letters(platform) == []
    assert platform.query("SELECT units_sold FROM current_sales_order") == [(19,)]
    assert differing(platform) == set()


@pytest.mark.refreshed
def test_a_broken_row_on_another_day_makes_no_dead_letter_of_a_good_one(platform: Platform) -> None:
    platform.sql(WITHOUT_KEYS)
    platform.sql(BROKEN.format(units=18, delivery="soon"))
    platform.sql("UPDATE sales_order SET created_at = '2024-08-21 09:00' WHERE units_sold = 18")
    platform.sql("UPDATE sales_order SET units_sold = 1002 WHERE units_sold = 1001")
    platform.refresh()
    assert platform.query("SELECT units_sold FROM current_sales_order") == [(1002,)]
    assert letters(platform) == [("1", True)]


@pytest.mark.refreshed
def test_a_row_that_goes_as_another_gets_a_key_that_is_held_is_noticed(platform: Platform) -> None:
    platform.sql(SECOND)
    platform.refresh()
    platform.sql(WITHOUT_KEYS)
    platform.sql("UPDATE sales_order SET sales_order_id = 1, units_sold = 5 WHERE sales_order_id = 2")
    platform.refresh()
    assert platform.query("SELECT sales_order_id FROM current_sales_order") == [(1,)]


@pytest.mark.refreshed
@pytest.mark.parametrize(
    "gone", ["renumbered", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("the first", "the second"))]
)
def test_a_row_that_gets_the_key_of_another_changes_nothing_until_it_has_its_own(platform: Platform, gone: str) -> None:
    platform.sql(WITHOUT_KEYS)
    double(platform, "none")
    platform.refresh()
    assert platform.query("SELECT units_sold FROM fact_sales_order") == [(1001,)]  # the one that was there
    assert differing(platform) == RED
    mend(platform, gone)
    platform.refresh()
    require_equal(platform)


ONE = "(SELECT ctid FROM sales_order WHERE sales_order_id = {n} ORDER BY units_sold LIMIT 1)"
COPIED = """
INSERT INTO sales_order SELECT {key}, created_at + interval '{units} ms', last_updated, design_id, staff_id,
    counterparty_id, {units}, unit_price, currency_id, agreed_delivery_date, agreed_payment_date,
    agreed_delivery_location_id
FROM sales_order
"""
HAPPENINGS = (
    COPIED.replace("{key}", "{n}") + "LIMIT 1",
    COPIED.replace("{key}", "sales_order_id") + "WHERE sales_order_id = {n} LIMIT 1",
    f"UPDATE sales_order SET units_sold = {{units}} WHERE ctid = {ONE}",
    f"UPDATE sales_order SET sales_order_id = 1 + {{n}} % 3 WHERE ctid = {ONE}",
    f"UPDATE sales_order SET created_at = '2024-08-21 09:00' WHERE ctid = {ONE}",
    f"DELETE FROM sales_order WHERE ctid = {ONE} AND (SELECT count(*) FROM sales_order) > 1",
)


@pytest.mark.refreshed
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(2, 17))])
def test_whatever_happens_one_of_the_rows_of_each_key_is_current(platform: Platform, seed: int) -> None:
    chance = Random(seed)
    platform.sql(WITHOUT_KEYS)
    for _ in range(5):
        for _ in range(chance.randint(1, 4)):
            happening = chance.choice(HAPPENINGS)
            platform.sql(happening.format(n=chance.randint(1, 3), units=chance.randint(1, 999)))
        platform.refresh(accept_deletions=True)
        with psycopg.connect(platform.totesys_url) as connection:
            rows = set(connection.execute("SELECT sales_order_id, units_sold FROM sales_order").fetchall())
        current = platform.query("SELECT sales_order_id, units_sold FROM current_sales_order")
        assert len(current) == len({key for key, _ in rows})
        assert {*current} <= rows
    kept = chance.choice("<>")
    platform.sql(
        "DELETE FROM sales_order AS one USING sales_order AS other "
        f"WHERE one.sales_order_id = other.sales_order_id AND one.ctid {kept} other.ctid"
    )
    if chance.random() < 0.5:
        platform.sql("ALTER TABLE sales_order ADD PRIMARY KEY (sales_order_id)")
    platform.refresh(accept_deletions=True)
    require_equal(platform)
