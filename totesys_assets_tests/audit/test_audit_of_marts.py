"""The audit of marts and rates: what is made to differ, or is worth a look, is named."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from totesys_assets.audit import marts
from totesys_assets.audit.audit import audit
from totesys_assets.audit.findings import (
    CONVERTED,
    COUNTRIES,
    FRESH_RATES,
    PLAUSIBLE_RATES,
    SUMS,
    Finding,
)
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets_tests.conftest import Platform

ORDER = (
    "INSERT INTO sales_order VALUES "
    "({number}, '{at}', '{at}', {design}, 1, 1, 1000, 2.50, 1, '2024-08-30', '2024-08-30', 1)"
)


def look(platform: Platform, table: str, check: str) -> Finding:
    [found] = audit(platform.core, [(f"warehouse/{table}", check)])
    return found


def in_warehouse(platform: Platform, statement: str) -> None:
    with psycopg.connect(platform.warehouse_url, autocommit=True, options="-c search_path=public") as connection:
        connection.execute(statement.encode())


def test_every_mart_but_that_of_rates_is_compared_with_its_fact() -> None:
    compared = {name for name, table in catalogue().warehouse.items() if SUMS in marts.checks(table)}
    assert compared == {name for name, table in catalogue().warehouse.items() if table.is_mart} - {"mart_exchange_rate"}


@pytest.mark.refreshed
@pytest.mark.parametrize(
    ("mart", "statement", "named"),
    [
        ("mart_sales_day", "SET revenue = revenue + 0.01 WHERE breakdown = 'staff'", "2024-08-20 in EUR (staff)"),
        ("mart_sales_day", "SET orders = 2 WHERE breakdown = 'customer'", "2024-08-20 in EUR (customer)"),
        ("mart_sales_day", "SET breakdown = 'place' WHERE breakdown = 'location'", "2024-08-20 in EUR (location)"),
        ("mart_purchases_day", "SET cost = 0 WHERE breakdown = 'supplier'", "2024-08-21 in USD (supplier)"),
        ("mart_payments_day", "SET amount = amount + 1 WHERE currency_id = 2", "2024-08-21 in USD (total)"),
    ],
)
def test_a_sum_that_is_not_that_of_its_fact_is_named_by_day_currency_and_breakdown(
    platform: Platform, mart: str, statement: str, named: str
) -> None:
    found = look(platform, mart, SUMS)
    assert found.passed, found.detail
    assert "equal to the penny" in found.detail
    in_warehouse(platform, f"UPDATE {mart} {statement}")
    found = look(platform, mart, SUMS)
    assert found.outcome == "different"
    assert named in found.detail


@pytest.mark.refreshed
def test_days_that_wait_for_a_refresh_are_left_out_of_the_sums(platform: Platform) -> None:
    platform.sql(ORDER.format(number=500, at="2024-08-22 10:00", design=1))
    platform.sql("UPDATE sales_order SET units_sold = 1 WHERE sales_order_id = 1")
    found = look(platform, "mart_sales_day", SUMS)
    assert (found.outcome, found.pending) == ("pending", 2)
    platform.refresh()
    found = look(platform, "mart_sales_day", SUMS)
    assert (found.outcome, found.pending, found.numbers["sums"]) == ("equal", 0, 8)


@pytest.mark.refreshed
def test_orders_of_the_largest_numbers_that_there_are_are_in_the_marts_to_the_penny(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET units_sold = 2147483647, unit_price = 99999999.99")
    platform.sql("UPDATE purchase_order SET item_quantity = 2147483647, item_unit_price = 99999999.99")
    platform.refresh()
    for mart, money in (
        ("mart_sales_day", "revenue"),
        ("mart_purchases_day", "cost"),
    ):
        assert look(platform, mart, SUMS).passed
        assert platform.query(f"SELECT DISTINCT {money} FROM {mart}") == [(Decimal("214748364678525163.53"),)]


@pytest.mark.refreshed
def test_a_country_without_a_code_is_a_warning_that_names_it(platform: Platform) -> None:
    assert look(platform, "dim_country", COUNTRIES).passed
    in_warehouse(platform, "UPDATE dim_country SET country_code = NULL WHERE country IN ('Turkey', 'Norway')")
    found = look(platform, "dim_country", COUNTRIES)
    assert found.outcome == "warning"
    assert "1 name has no ISO code: Turkey." in found.detail  # no address is in Norway


@pytest.mark.refreshed
def test_orders_in_a_currency_without_a_rate_are_a_warning_that_names_it(platform: Platform) -> None:
    assert look(platform, "mart_exchange_rate", CONVERTED).passed
    in_warehouse(platform, "DELETE FROM mart_exchange_rate WHERE currency_code = 'USD'")
    found = look(platform, "mart_exchange_rate", CONVERTED)
    assert found.outcome == "warning"
    assert "no rate converts 2 rows in USD:" in found.detail  # a purchase and its payment


@pytest.mark.refreshed
def test_a_payment_whose_due_day_has_no_rate_is_a_warning(platform: Platform) -> None:
    in_warehouse(platform, "UPDATE mart_payments_day SET payment_date = '2099-01-01' WHERE currency_id = 2")
    found = look(platform, "mart_exchange_rate", CONVERTED)
    assert found.outcome == "warning"
    assert "no rate converts 1 row in USD:" in found.detail


@pytest.mark.refreshed
def test_rates_that_are_old_fail_unless_they_came_with_the_platform(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = look(platform, "fact_exchange_rate", FRESH_RATES)
    assert found.passed
    assert "the newest rates are of 2024-08-30" in found.detail
    assert "TOTESYS_RATES_URL fetches newer ones" in found.detail
    monkeypatch.setattr(marts, "embedded_until", lambda: date(2024, 8, 29))
    found = look(platform, "fact_exchange_rate", FRESH_RATES)
    assert found.outcome == "different"
    today = datetime.now(UTC).date()
    for days, passed in ((6, True), (7, False)):
        in_warehouse(
            platform,
            f"UPDATE fact_exchange_rate SET rate_date = '{today - timedelta(days=days)}' "
            "WHERE rate_date >= '2024-08-30'",
        )
        assert look(platform, "fact_exchange_rate", FRESH_RATES).passed is passed
        in_warehouse(platform, "UPDATE fact_exchange_rate SET rate_date = '2024-08-30' WHERE rate_date > '2024-08-30'")
    in_warehouse(platform, "DELETE FROM fact_exchange_rate")
    assert "there are no rates" in look(platform, "fact_exchange_rate", FRESH_RATES).detail


@pytest.mark.refreshed
def test_a_rate_that_jumps_or_is_not_above_zero_is_a_warning_with_currency_day_and_rates(platform: Platform) -> None:
    assert look(platform, "fact_exchange_rate", PLAUSIBLE_RATES).passed
    on = "WHERE currency_code = 'USD' AND rate_date = '2024-08-22'"
    in_warehouse(platform, f"UPDATE fact_exchange_rate SET units_per_euro = 1.2228 {on}")  # by 10.0036 %
    found = look(platform, "fact_exchange_rate", PLAUSIBLE_RATES)
    assert found.outcome == "warning"
    assert found.detail == "USD went from 1.1116 to 1.2228 on 2024-08-22"
    in_warehouse(platform, f"UPDATE fact_exchange_rate SET units_per_euro = 1.2227 {on}")  # by 9.9946 %
    assert look(platform, "fact_exchange_rate", PLAUSIBLE_RATES).passed
    in_warehouse(platform, f"UPDATE fact_exchange_rate SET units_per_euro = 0 {on}")
    found = look(platform, "fact_exchange_rate", PLAUSIBLE_RATES)
    assert found.detail == "USD of 2024-08-22 is 0, which converts nothing"
