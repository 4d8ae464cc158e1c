"""The questions: every one is answered, and the answers are those of a computation of their own over the facts."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.errors import PlatformError
from totesys_assets.insights.questions import PARAMETERS, Answer, answer, defaults, questions
from totesys_assets_tests.conftest import Platform, PostgresServer, Refreshed, begin

TODAY = date(2024, 9, 20)
PENNY = Decimal("0.01")
# Sales of two weeks, in three currencies and of several of everything. In September no rate is published.
SALES = """
INSERT INTO address VALUES
    (3, '1 Rue Haute', NULL, NULL, 'Leeds', '75001', 'France', '1', '2024-08-19 08:00', '2024-08-19 08:00'),
    (4, '2 Rue Basse', NULL, NULL, 'Lyon', '69001', 'France', '1', '2024-08-19 08:00', '2024-08-19 08:00');
INSERT INTO counterparty VALUES (2, 'Second Ltd', 3, 'A', 'B', '2024-08-19 08:00', '2024-08-19 08:00');
INSERT INTO staff VALUES
    (2, 'Ada', 'Second', 1, 'ada@terrifictotes.com', '2024-08-19 08:00', '2024-08-19 08:00'),
    (3, 'Bo', 'Third', 1, 'bo@terrifictotes.com', '2024-08-19 08:00', '2024-08-19 08:00');
INSERT INTO design VALUES
    (2, '2024-08-19 08:00', 'Wooden', '/usr', 'wooden-2.json', '2024-08-19 08:00'),
    (3, '2024-08-19 08:00', 'Steel', '/usr', 'steel-3.json', '2024-08-19 08:00');
INSERT INTO sales_order
SELECT 100 + n, made, made, 1 + n % 3, 1 + n % 3, 1 + n % 2, 1000 + 7919 * n % 90000, 2 + 0.01 * (n * 37 % 200),
    1 + n % 3, (made + interval '6 days')::date::text, (made + interval '9 days')::date::text, 1 + n % 4
FROM (SELECT n, timestamp '2024-08-19 09:00' + n * interval '9 hours' AS made FROM generate_series(1, 40) AS n);
INSERT INTO purchase_order
SELECT 100 + n, made, made, 1 + n % 3, 1 + n % 2, 'ITEM' || n, 10 + 7 * n, 3 + 0.01 * (n * 31 % 300), 1 + n % 3,
    (made + interval '6 days')::date::text, (made + interval '9 days')::date::text, 1 + n % 4
FROM (SELECT n, timestamp '2024-08-19 10:00' + n * interval '19 hours' AS made FROM generate_series(1, 18) AS n);
INSERT INTO transaction
SELECT sales_order_id, 'SALE'::"TransactionType", sales_order_id, NULL, created_at, created_at
FROM sales_order WHERE sales_order_id > 100
UNION ALL
SELECT 100 + purchase_order_id, 'PURCHASE', NULL, purchase_order_id, created_at, created_at
FROM purchase_order WHERE purchase_order_id > 100;
INSERT INTO payment
SELECT sales_order_id, created_at, created_at, sales_order_id, counterparty_id, units_sold * unit_price, currency_id, 1,
    sales_order_id % 3 = 0, agreed_payment_date, 12345678, 87654321
FROM sales_order WHERE sales_order_id > 100
UNION ALL
SELECT 100 + purchase_order_id, created_at, created_at, 100 + purchase_order_id, counterparty_id,
    item_quantity * item_unit_price, currency_id, 3, purchase_order_id % 2 = 0, agreed_payment_date, 12345678, 87654321
FROM purchase_order WHERE purchase_order_id > 100;
"""


def sell(platform: Platform) -> None:
    """The sales, and what a refresh makes of them."""
    platform.sql(SALES)
    platform.refresh()


@pytest.fixture(scope="module")
def sold(postgres_server: PostgresServer, trade_template: str, scratch: Path) -> Refreshed:
    """A platform that has refreshed the sales."""
    return begin(postgres_server, trade_template, scratch / "questions", sell)


class Shop:
    """A warehouse, asked by its questions and by a computation that knows nothing of marts."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection

    def ask(self, name: str, **parameters: object) -> Answer:
        """The answer, with the default parameters of TODAY but for those that are given."""
        return answer(self.connection, name, **{**defaults(TODAY), **parameters})

    def rows(self, name: str, **parameters: object) -> list[dict[str, Any]]:
        """The rows of the answer, by the names of its columns."""
        found = self.ask(name, **parameters)
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]

    def facts(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of any query."""
        return self.connection.execute(query.encode()).fetchall()

    def sales(self) -> list[tuple[date, str, Decimal]]:
        """Day, currency and revenue of each order."""
        return self.facts(
            "SELECT created_date, currency_code, units_sold * unit_price FROM fact_sales_order "
            "JOIN dim_currency USING (currency_id)"
        )

    def published(self) -> dict[str, dict[date, Decimal]]:
        """Units per euro, by currency and day of publication."""
        rates: dict[str, dict[date, Decimal]] = {}
        for currency, day, units in self.facts(
            "SELECT currency_code, rate_date, units_per_euro FROM fact_exchange_rate"
        ):
            rates.setdefault(currency, {})[day] = units
        rates["EUR"] = dict.fromkeys(rates["USD"], Decimal(1))
        return rates

    def converted(
        self, sales: list[tuple[date, str, Decimal]], to: str, basis: str = "day", on: date | None = None
    ) -> Decimal:
        """The sum of ``sales`` in currency ``to``, rounded once."""
        rates = self.published()
        with localcontext(prec=60):
            total = sum(
                (
                    amount * _units(rates[to], basis, on or day) / _units(rates[own], basis, on or day)
                    for day, own, amount in sales
                ),
                Decimal(0),
            )
            return total.quantize(PENNY, ROUND_HALF_UP)


@pytest.fixture(scope="module")
def shop(sold: Refreshed) -> Iterator[Shop]:
    """The warehouse after the first refresh, to be asked and not to be changed."""
    url = sold.server.template(f"asked_{os.urandom(4).hex()}", sold.warehouse)
    with psycopg.connect(url, autocommit=True, options="-c search_path=public") as connection:
        yield Shop(connection)


def _units(published: dict[date, Decimal], basis: str, day: date) -> Decimal:
    """Units per euro on a day: the last that were published by then, or the mean of those of its month."""
    of_month = [units for each, units in published.items() if (each.year, each.month) == (day.year, day.month)]
    if basis == "month" and of_month:
        return sum(of_month, Decimal(0)) / len(of_month)
    while day not in published:
        day -= timedelta(days=1)
    return published[day]


@pytest.mark.parametrize("name", questions())
def test_a_question_is_answered_with_the_default_parameters(shop: Shop, name: str) -> None:
    question, found = questions()[name], shop.ask(name)
    assert question.text.endswith("?")
    assert question.description.endswith(".")
    assert set(question.parameters) <= PARAMETERS.keys() == defaults(TODAY).keys()
    assert len(set(found.columns)) == len(found.columns)
    none = ("unconverted_orders", "unknown_countries", "unmatched_files", "recent_changes", "last_audit", "how_exact")
    assert bool(found.rows) == (name not in none)
    money = [value for row in found.rows for value in row if isinstance(value, float)]
    assert not money, "a float is never money, nor a rate"


@pytest.mark.parametrize("currency", ["GBP", "USD", "EUR"])
@pytest.mark.parametrize(("basis", "rate_day"), [("day", None), ("month", None), ("day", date(2024, 8, 25))])
def test_revenue_converts_each_order_at_its_rate_and_is_rounded_once(
    shop: Shop, currency: str, basis: str, rate_day: date | None
) -> None:
    sales = shop.sales()
    [found] = shop.rows("headline", currency=currency, basis=basis, rate_day=rate_day)
    assert (found["orders"], found["unconverted"]) == (len(sales), 0)
    assert found["revenue"] == shop.converted(sales, currency, basis, rate_day)
    for row in shop.rows("revenue_by_period", currency=currency, basis=basis, rate_day=rate_day):
        month = [sale for sale in sales if sale[0].replace(day=1) == row["period"] and sale[1] == row["currency"]]
        assert row["own_revenue"] == sum(amount for _, _, amount in month)
        assert row["revenue"] == shop.converted(month, currency, basis, rate_day)


@pytest.mark.parametrize("currency", ["GBP", "USD", "EUR"])
def test_every_breakdown_has_all_orders_and_all_revenue(shop: Shop, currency: str) -> None:
    [whole] = shop.rows("headline", currency=currency)
    for name in (
        "revenue_by_period",
        "revenue_by_country",
        "revenue_by_city",
        "revenue_by_design",
        "units_and_price",
        "revenue_by_customer",
        "revenue_by_staff",
        "revenue_by_department",
    ):
        rows = shop.rows(name, currency=currency)
        assert len(rows) > 1, name
        assert (sum(row["orders"] for row in rows), sum(row["units"] for row in rows)) == (
            whole["orders"],
            whole["units"],
        ), name
        # Each row is rounded once, and so is the whole: each may be half a penny off.
        assert abs(sum(row["revenue"] for row in rows) - whole["revenue"]) <= PENNY * (len(rows) + 1) / 2, name
    # Where nothing is converted, nothing is rounded.
    for own in ("GBP", "USD", "EUR"):
        found = [row for row in shop.rows("revenue_by_period", currency=currency) if row["currency"] == own]
        expected = sum(amount for _, code, amount in shop.sales() if code == own)
        assert sum(row["own_revenue"] for row in found) == expected


def test_a_breakdown_names_what_it_is_of(shop: Shop) -> None:
    def units(query: str) -> dict[Any, int]:
        return dict(
            shop.facts(
                f"SELECT {query}, sum(units_sold) FROM fact_sales_order AS sale "
                "JOIN dim_staff ON staff_id = sales_staff_id JOIN dim_counterparty USING (counterparty_id) "
                "JOIN dim_design USING (design_id) JOIN dim_location ON location_id = agreed_delivery_location_id "
                "GROUP BY 1"
            )
        )

    codes = "CASE country WHEN 'France' THEN 'FRA' WHEN 'Turkey' THEN 'TUR' ELSE 'PRK' END"
    for name, column, query in (
        ("revenue_by_country", "country_code", codes),
        ("revenue_by_design", "design", "design_name"),
        ("revenue_by_staff", "staff", "first_name || ' ' || last_name"),
        ("revenue_by_department", "department", "department_name"),
        ("revenue_by_customer", "customer", "counterparty_legal_name"),
    ):
        assert {row[column]: row["units"] for row in shop.rows(name)} == units(query), name
    places = {f"{row['city']}, {row['country']}": row["units"] for row in shop.rows("revenue_by_city")}
    assert places == units("city || ', ' || country")


def test_the_average_price_counts_every_bag_once(shop: Shop) -> None:
    wooden = next(row for row in shop.rows("units_and_price") if row["design"] == "Wooden")
    sales = shop.facts(
        "SELECT created_date, currency_code, units_sold * unit_price FROM fact_sales_order "
        "JOIN dim_currency USING (currency_id) JOIN dim_design USING (design_id) WHERE design_name = 'Wooden'"
    )
    assert abs(wooden["average_price"] * wooden["units"] - shop.converted(sales, "GBP")) <= wooden["units"] * PENNY / 2


@pytest.mark.parametrize(("period", "before"), [("day", 1), ("week", 7)])
def test_a_change_is_against_the_period_before(shop: Shop, period: str, before: int) -> None:
    rows = {row["period"]: row for row in shop.rows("change_by_period", period=period, first=date(2024, 8, 28))}
    sales = shop.sales()
    assert min(rows) == (date(2024, 8, 28) if period == "day" else date(2024, 8, 26))
    for day, row in rows.items():
        own = [sale for sale in sales if 0 <= (sale[0] - day).days < before]
        earlier = [sale for sale in sales if 0 <= (sale[0] - day).days + before < before]
        assert row["revenue"] == shop.converted(own, "GBP")
        if row["days"] == before:
            assert row["revenue_before"] == shop.converted(earlier, "GBP")
    if period == "week":
        week = rows[date(2024, 8, 26)]
        change = 100 * (week["revenue"] - week["revenue_before"]) / week["revenue_before"]
        assert abs(week["change"] - change) <= Decimal("0.06")


def test_a_month_that_is_not_over_is_compared_with_as_many_days(shop: Shop) -> None:
    found = shop.rows("change_by_period", first=date(2024, 8, 1), last=date(2024, 9, 2))
    august, september = found
    assert [row["period"] for row in found] == [date(2024, 8, 1), date(2024, 9, 1)]
    assert (august["days"], september["days"]) == (31, 2)
    sales = shop.sales()
    assert august["revenue"] == shop.converted([sale for sale in sales if sale[0].month == 8], "GBP")
    assert september["revenue"] == shop.converted(
        [sale for sale in sales if date(2024, 9, 1) <= sale[0] <= date(2024, 9, 2)], "GBP"
    )
    assert september["revenue_before"] == 0  # of 1 and 2 August


MONTHS = {"month": 1, "quarter": 3, "year": 12}


def moved(start: date, period: str, steps: int) -> date:
    """The start of a period so many periods later."""
    if period in MONTHS:
        count = start.year * 12 + start.month - 1 + steps * MONTHS[period]
        return start.replace(year=count // 12, month=count % 12 + 1)
    return start + timedelta(days=steps * (7 if period == "week" else 1))


def a_year_before(start: date, period: str) -> date:
    if period == "week":
        return start - timedelta(weeks=52)
    return start.replace(year=start.year - 1, day=28 if (start.month, start.day) == (2, 29) else start.day)


@pytest.mark.parametrize("period", ["day", "week", "month", "quarter", "year"])
@pytest.mark.parametrize("last", ["2024-09-02", "2024-09-30", "2025-08-31", "2025-09-03", "2028-02-29"])
def test_each_period_is_compared_with_as_many_days_of_the_one_before_and_of_the_year_before(
    shop: Shop, period: str, last: str
) -> None:
    end, sales = date.fromisoformat(last), shop.sales()

    def sold(start: date, days: int) -> Decimal:
        upto = min(start + timedelta(days=days), moved(start, period, 1))
        return shop.converted([sale for sale in sales if start <= sale[0] < upto], "GBP")

    rows = shop.rows("change_by_period", period=period, first=end - timedelta(days=400), last=end)
    starts = [row["period"] for row in rows]
    assert starts[0] <= end - timedelta(days=400) < moved(starts[0], period, 1)
    assert starts == [moved(starts[0], period, step) for step in range(len(starts))]
    assert starts[-1] <= end < moved(starts[-1], period, 1)
    for row in rows:
        begun = row["period"]
        is_whole = moved(begun, period, 1) - timedelta(days=1) <= end
        days = (moved(begun, period, 1) - begun).days if is_whole else (end - begun).days + 1
        compared = 366 if is_whole else days  # all days of a whole one, also where it has fewer
        before, year = moved(begun, period, -1), a_year_before(begun, period)
        expected = (days, sold(begun, days), sold(before, compared), sold(year, compared))
        assert (row["days"], row["revenue"], row["revenue_before"], row["revenue_year_before"]) == expected


def test_a_change_is_the_same_in_a_session_of_any_time_zone(shop: Shop) -> None:
    expected = shop.rows("change_by_period", period="day")
    shop.connection.execute("SET TimeZone = 'America/Santiago'")  # summer time begins at midnight there
    try:
        assert shop.rows("change_by_period", period="day") == expected
    finally:
        shop.connection.execute("RESET TimeZone")


def test_there_is_no_change_against_a_period_in_which_trade_began(shop: Shop) -> None:
    _, september = shop.rows("change_by_period", first=date(2024, 8, 1), last=date(2024, 9, 30))
    assert september["revenue_before"] > 0
    assert (september["change"], september["change_year"]) == (None, None)


def test_margin_is_revenue_minus_purchases_of_the_period(shop: Shop) -> None:
    purchases = shop.facts(
        "SELECT created_date, currency_code, item_quantity * item_unit_price FROM fact_purchase_order "
        "JOIN dim_currency USING (currency_id)"
    )
    for row in shop.rows("margin_by_period", currency="USD"):
        sold, bought = (
            [each for each in orders if each[0].month == row["period"].month] for orders in (shop.sales(), purchases)
        )
        assert row["revenue"] == shop.converted(sold, "USD")
        assert row["cost"] == shop.converted(bought, "USD")
        assert abs(row["margin"] - (row["revenue"] - row["cost"])) <= PENNY
    rows = shop.rows("purchases_by_supplier", currency="USD")
    assert sum(row["orders"] for row in rows) == len(purchases)
    assert abs(sum(row["cost"] for row in rows) - shop.converted(purchases, "USD")) <= PENNY * (len(rows) + 1) / 2


@pytest.mark.parametrize("days", [0, 1, 30, 31, 60, 61, 90, 91, 400])
def test_what_customers_owe_is_aged_by_the_days_since_it_was_due(shop: Shop, days: int) -> None:
    unpaid = shop.facts(
        "SELECT payment_date, currency_code, payment_amount FROM fact_payment JOIN dim_currency USING (currency_id) "
        "WHERE NOT paid AND payment_type_id = 1"
    )
    today = date(2024, 8, 30) + timedelta(days=days)

    def owed(first: int, last: int) -> tuple[int, Decimal]:
        due = [each for each in unpaid if first <= (today - each[0]).days <= last]
        return len(due), shop.converted(due, "EUR")

    found = [(row["payments"], row["amount"]) for row in shop.rows("receivables_by_age", today=today, currency="EUR")]
    assert found == [owed(-999, 0), owed(1, 30), owed(31, 60), owed(61, 90), owed(91, 9999)]
    overdue = shop.rows("overdue_payments", today=today, currency="EUR", rows=1000)
    assert len(overdue) == sum(number for number, _ in found[1:])
    assert all(row["days_overdue"] > 0 for row in overdue)
    assert [row["converted"] for row in overdue] == sorted((row["converted"] for row in overdue), reverse=True)


def test_payments_are_counted_by_their_type_and_the_day_they_are_due(shop: Shop) -> None:
    payments = shop.facts(
        "SELECT payment_date, currency_code, payment_amount, payment_type_name, paid FROM fact_payment "
        "JOIN dim_currency USING (currency_id) JOIN dim_payment_type USING (payment_type_id)"
    )
    rows = shop.rows("payments_by_due_date", period="month", last=date(2024, 12, 31))
    assert sum(row["payments"] for row in rows) == len(payments)
    for row in rows:
        same = [
            each[:3]
            for each in payments
            if (each[0].replace(day=1), each[3], each[4]) == (row["period"], row["payment_type"], row["paid"])
        ]
        assert (row["payments"], row["amount"]) == (len(same), shop.converted(same, "GBP"))


def test_the_newest_orders_come_first(shop: Shop) -> None:
    assert [row["sales_order_id"] for row in shop.rows("newest_orders", rows=3)] == [140, 139, 138]


def test_rates_that_are_used_say_when_they_were_published(shop: Shop) -> None:
    rows = {row["currency"]: row for row in shop.rows("rates_used", first=date(2024, 8, 30), last=date(2024, 9, 3))}
    dollar = rows["USD"]
    assert (dollar["published_date"], dollar["carried_days"]) == (date(2024, 8, 30), 4)
    assert (dollar["days"], dollar["days_carried"]) == (5, 4)
    assert abs(dollar["rate"] - Decimal("0.8412") / Decimal("1.1087")) < Decimal("1e-15")
    assert rows["GBP"]["rate"] == 1
    [on] = [row for row in shop.rows("rates_used", rate_day=date(2024, 8, 25)) if row["currency"] == "USD"]
    assert (on["published_date"], on["days"]) == (date(2024, 8, 23), 1)


def test_freshness_has_a_row_for_every_table(shop: Shop) -> None:
    rows = {row["table_name"]: row for row in shop.rows("freshness")}
    assert rows.keys() == catalogue().warehouse.keys()
    assert rows["fact_sales_order"]["rows"] == len(shop.sales())


def asked(platform: Platform, name: str, **parameters: object) -> list[dict[str, Any]]:
    """The answer of a platform that was changed, over the days up to today, in a session with another time zone."""
    options = "-c search_path=public -c timezone=Pacific/Auckland"
    with psycopg.connect(platform.warehouse_url, options=options) as connection:
        given = {"first": date(2024, 8, 1), "last": datetime.now(UTC).date(), "period": "year", **parameters}
        return Shop(connection).rows(name, **given)


ORDER = (
    "INSERT INTO sales_order VALUES "
    "({number}, '{at}', '{at}', 1, 1, 1, 1000, 2.50, {currency}, '2024-08-30', '2024-08-30', 1)"
)


@pytest.mark.refreshed
def test_an_order_in_a_currency_without_a_rate_is_counted_and_not_lost(platform: Platform) -> None:
    [before] = asked(platform, "headline")
    platform.sql("INSERT INTO currency VALUES (4, 'JPY', '2024-08-19 08:00', '2024-08-19 08:00')")
    platform.sql(ORDER.format(number=500, at="2024-08-22 10:00", currency=4))
    platform.refresh()
    [after] = asked(platform, "headline")
    assert (after["orders"], after["units"]) == (before["orders"] + 1, before["units"] + 1000)
    assert (after["unconverted"], after["revenue"]) == (1, before["revenue"])
    assert after["average_order"] == before["average_order"]
    [yen] = asked(platform, "unconverted_orders")
    assert (yen["currency"], yen["orders"], yen["own_revenue"]) == ("JPY", 1, 2500)
    for name in (
        "revenue_by_country",
        "revenue_by_city",
        "revenue_by_design",
        "revenue_by_customer",
        "revenue_by_staff",
    ):
        assert sum(row["unconverted"] for row in asked(platform, name)) == 1, name
        assert sum(row["orders"] for row in asked(platform, name)) == after["orders"], name
    assert next(row["rate"] for row in asked(platform, "rates_used") if row["currency"] == "JPY") is None
    # What is in yen already is worth what it is.
    [in_yen] = asked(platform, "headline", currency="JPY")
    assert (in_yen["unconverted"], in_yen["revenue"]) == (in_yen["orders"] - 1, 2500)
    assert next(row["rate"] for row in asked(platform, "rates_used", currency="JPY") if row["currency"] == "JPY") == 1


@pytest.mark.refreshed
def test_a_code_that_totesys_has_twice_is_one_currency_and_its_orders_count_once(platform: Platform) -> None:
    [before], codes = asked(platform, "headline"), asked(platform, "currencies")
    assert "GBP" in {row["currency_code"] for row in codes}
    platform.sql("INSERT INTO currency VALUES (4, 'GBP', '2024-08-19 08:00', '2024-08-19 08:00')")
    platform.sql(ORDER.format(number=500, at="2024-08-22 10:00", currency=4))
    platform.refresh()
    [after] = asked(platform, "headline")
    assert (after["orders"], after["revenue"]) == (before["orders"] + 1, before["revenue"] + 2500)
    assert asked(platform, "currencies") == codes


CONVERTING = [name for name, question in questions().items() if "currency" in question.parameters]


@pytest.mark.refreshed
def test_money_in_the_currency_that_is_asked_for_needs_no_rate_in_any_question(platform: Platform) -> None:
    given = {"last": date(2024, 12, 31), "moment": datetime.now(UTC) + timedelta(days=1)}
    folder = platform.settings.home / "files"
    for name, columns, place in (
        ("sales_target", "target_month,department_name", "None"),
        ("marketing_spend", "spend_month,country", "Norway"),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.csv").write_text(f"{columns},currency_code,amount\n2024-08-01,{place},EUR,9.50\n")
    platform.sql("UPDATE address SET country = 'Ruritania'")
    for table in ("sales_order", "purchase_order", "payment"):
        platform.sql(f"UPDATE {table} SET currency_id = (SELECT currency_id FROM currency WHERE currency_code = 'EUR')")
    platform.refresh()
    named = [name for name in CONVERTING if name not in ("unconverted_orders", "rates_used")]
    before = {name: asked(platform, name, currency="EUR", **given) for name in named}
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("DELETE FROM public.mart_exchange_rate")
    for name in named:
        assert before[name] == asked(platform, name, currency="EUR", **given) != [], name
        assert before[name] != asked(platform, name, currency="GBP", **given), name
    assert asked(platform, "unconverted_orders", currency="EUR", **given) == []
    assert {row["currency"]: row["rate"] for row in asked(platform, "rates_used", currency="EUR")}["EUR"] == 1


def publish(platform: Platform, archive: Path, *lines: str) -> None:
    """Give the platform an archive of rates of its own, newest line first."""
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("eurofxref-hist.csv", "\n".join(lines) + "\n")
    platform.settings = replace(platform.settings, rates_archive=archive)


NAMES = "Date,USD,JPY,GBP,"
DAYS = ("2024-08-22,1.1135,162.41,0.84943,", "2024-08-21,1.1116,161.98,0.85303,", "2024-08-20,1.1084,162.30,0.85194,")


@pytest.mark.refreshed
def test_a_rate_that_comes_late_restates_its_own_days_and_loads_no_sales_again(
    platform: Platform, tmp_path: Path
) -> None:
    platform.sql("INSERT INTO currency VALUES (4, 'JPY', '2024-08-19 08:00', '2024-08-19 08:00')")
    for number, day in ((501, 20), (502, 21), (503, 22), (504, 25)):
        platform.sql(ORDER.format(number=number, at=f"2024-08-{day} 10:00", currency=4))

    def converted() -> dict[int, Decimal]:
        return {
            row["period"].day: row["revenue"]
            for row in asked(platform, "revenue_by_period", currency="EUR", period="day")
            if row["currency"] == "JPY"
        }

    publish(platform, tmp_path / "rates.zip", NAMES, *DAYS[1:])
    platform.refresh(accept_deletions=True)  # this archive has fewer days than the one before
    at = {day: Decimal(2500) / Decimal(rate) for day, rate in ((20, "162.30"), (21, "161.98"), (22, "162.41"))}
    expected = {20: at[20], 21: at[21], 22: at[21], 25: at[21]}  # the last that was published
    assert converted() == {day: money.quantize(PENNY) for day, money in expected.items()}
    [before] = asked(platform, "headline", currency="EUR")
    assert before["unconverted"] == 0
    loaded = platform.query("SELECT partition, loaded_at FROM _ledger WHERE table_name = 'mart_sales_day' ORDER BY 1")

    publish(platform, tmp_path / "rates.zip", NAMES, *DAYS)
    platform.refresh()
    expected |= {22: at[22], 25: at[22]}
    assert converted() == {day: money.quantize(PENNY) for day, money in expected.items()}
    again = platform.query("SELECT partition, loaded_at FROM _ledger WHERE table_name = 'mart_sales_day' ORDER BY 1")
    assert again == loaded


@pytest.mark.refreshed
def test_the_average_of_a_month_is_exact_to_its_last_decimal(platform: Platform, tmp_path: Path) -> None:
    publish(platform, tmp_path / "rates.zip", NAMES, *DAYS)
    platform.refresh(accept_deletions=True)
    averages = "SELECT currency_code, month_average FROM mart_exchange_rate WHERE day = '2024-08-22' ORDER BY 1"
    expected = [("EUR", "1"), ("GBP", "0.851466666666666666"), ("USD", "1.111166666666666666")]
    assert platform.query(averages) == [(currency, Decimal(average)) for currency, average in expected]


@pytest.mark.refreshed
def test_a_name_of_a_country_that_is_not_known_is_listed_and_its_revenue_kept(platform: Platform) -> None:
    assert asked(platform, "unknown_countries") == []
    platform.sql("UPDATE address SET country = 'Ruritania' WHERE address_id = 1")
    platform.refresh()
    [row] = asked(platform, "unknown_countries")
    [whole] = asked(platform, "headline")
    assert (row["country"], row["addresses"], row["orders"]) == ("Ruritania", 1, 1)
    assert row["revenue"] == whole["revenue"]
    [country] = asked(platform, "revenue_by_country")
    assert (country["country"], country["country_code"], country["revenue"]) == ("Ruritania", None, whole["revenue"])


@pytest.mark.refreshed
def test_rows_whose_dimension_row_is_missing_are_kept_without_a_name(platform: Platform) -> None:
    [whole] = asked(platform, "headline")
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        for table in ("dim_staff", "dim_location", "dim_counterparty", "dim_country"):
            connection.execute(f"DELETE FROM public.{table}".encode())
    for name, column in (
        ("revenue_by_staff", "staff"),
        ("revenue_by_department", "department"),
        ("revenue_by_country", "country"),
        ("revenue_by_city", "city"),
        ("revenue_by_customer", "customer"),
    ):
        [row] = asked(platform, name)
        assert (row[column], row["orders"], row["revenue"]) == ("", 1, whole["revenue"]), name
    for name, column in (("marketing_by_country", "country"), ("targets_against_sales", "department")):
        [row] = [each for each in asked(platform, name) if each["orders"]]
        assert (row[column], row["orders"], row["revenue"]) == ("", 1, whole["revenue"]), name
    [supplier] = asked(platform, "purchases_by_supplier")
    assert (supplier["supplier"], supplier["orders"]) == ("", 1)
    [place] = asked(platform, "unknown_countries")
    assert (place["country"], place["orders"]) == ("", 1)
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("DELETE FROM public.dim_currency")
    [unconverted] = asked(platform, "headline")
    assert (unconverted["orders"], unconverted["unconverted"], unconverted["revenue"]) == (1, 1, 0)
    assert [row["currency"] for row in asked(platform, "revenue_by_period")] == [""]
    [lost] = asked(platform, "unconverted_orders")
    assert (lost["currency"], lost["own_revenue"]) == ("", Decimal("2432.43"))


@pytest.mark.refreshed
def test_the_day_of_an_order_is_that_of_utc_in_summer_and_winter(platform: Platform) -> None:
    for number, at in ((501, "2024-08-22 23:59:59.999"), (502, "2024-10-27 00:30"), (503, "2024-10-27 01:30")):
        platform.sql(ORDER.format(number=number, at=at, currency=1))
    platform.refresh()
    days = {row["period"]: row["orders"] for row in asked(platform, "revenue_by_period", period="day")}
    assert days == {date(2024, 8, 20): 1, date(2024, 8, 22): 1, date(2024, 10, 27): 2}


@pytest.mark.refreshed
def test_an_order_that_moved_to_another_day_is_not_said_to_be_deleted(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET created_at = created_at + interval '1 day'")
    platform.sql("UPDATE purchase_order SET created_at = created_at + interval '1 day'")
    platform.refresh()
    changes = asked(platform, "recent_changes")
    assert [(row["subject"], row["what_happened"]) for row in changes] == [
        ("purchase_order", "moved"),
        ("sales_order", "moved"),
    ]
    platform.sql("UPDATE sales_order SET created_at = created_at + interval '3 days'")
    platform.refresh()
    platform.sql("UPDATE sales_order SET units_sold = 5")
    platform.sql("UPDATE purchase_order SET item_quantity = 5")
    platform.refresh()
    changes = asked(platform, "recent_changes")[:2]  # of one moment, what was ordered last comes first
    assert [row["subject"] for row in changes] == ["sales_order", "purchase_order"]
    platform.sql("DELETE FROM payment")
    platform.sql("DELETE FROM transaction")
    platform.sql("DELETE FROM sales_order")
    platform.refresh(accept_deletions=True)
    assert asked(platform, "recent_changes")[0]["what_happened"] == "deleted"


@pytest.mark.refreshed
@pytest.mark.parametrize(("table", "column"), [("sales_order", "units_sold"), ("purchase_order", "item_quantity")])
def test_the_recent_changes_say_which_update_was_silent(platform: Platform, table: str, column: str) -> None:
    platform.sql(f"UPDATE {table} SET {column} = 1200")
    platform.refresh()
    platform.sql(f"UPDATE {table} SET {column} = 1300, last_updated = '2024-08-21 09:00'")
    platform.refresh()
    changes = [(row["subject"], row["what_happened"]) for row in asked(platform, "recent_changes")]
    assert changes == [(table, "updated"), (table, "updated silently")]


@pytest.mark.refreshed
def test_the_life_of_an_order_shows_what_changed_and_whether_it_was_silent(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET units_sold = 1200")
    platform.refresh()
    platform.sql("UPDATE sales_order SET staff_id = 1, unit_price = 2.50, last_updated = '2024-08-21 09:00'")
    platform.refresh()
    with psycopg.connect(platform.totesys_url, autocommit=True) as connection:
        connection.execute("UPDATE transaction SET sales_order_id = NULL WHERE sales_order_id = 1")
        connection.execute("DELETE FROM sales_order WHERE sales_order_id = 1")
    for outcome in [platform.run(each, accept_deletions=True) for each in platform.look().requests]:
        assert outcome.success, outcome.failures
    first, silent, updated, deleted = asked(platform, "order_life")
    assert first["what_happened"] == "first seen"
    assert "units 1001" in first["what_changed"]
    assert "staff 1 Jeremie O'Keefe" in first["what_changed"]
    assert (silent["what_happened"], silent["what_changed"]) == ("updated silently", "units 1001 → 1200")
    assert (updated["what_happened"], updated["what_changed"]) == ("updated", "unit price 2.43 → 2.50")
    assert (deleted["what_happened"], deleted["what_changed"], deleted["valid_to"]) == ("deleted", "", None)
    assert [each["version"] for each in (first, silent, updated, deleted)] == [1, 2, 3, 4]
    assert first["valid_to"] == silent["valid_from"]
    [purchase] = asked(platform, "order_life", subject="purchase_order")
    assert "item ZDOI5EA" in purchase["what_changed"]
    assert asked(platform, "order_life", number=999) == []

    today = datetime.now(UTC).date()
    changed = {row["fact"]: row for row in asked(platform, "what_changed", first=today, last=today)}
    assert changed["sales_order"] == {
        "fact": "sales_order",
        "inserts": 1,
        "updates": 1,
        "silent_updates": 1,
        "deletes": 1,
    }
    assert (changed["payment"]["inserts"], changed["exchange_rate"]["inserts"]) == (2, 20)
    tomorrow = today + timedelta(days=1)
    assert {row["inserts"] for row in asked(platform, "what_changed", first=tomorrow, last=tomorrow)} == {0}

    # A day is one of UTC, whatever the session's time zone.
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        for number, moment in ((1, f"{tomorrow} 00:00+00"), (2, f"{tomorrow} 23:59:59.999+00")):
            connection.execute(
                "UPDATE public.fact_payment SET _recorded_at = %s WHERE payment_id = %s", [moment, number]
            )
    for day, payments in ((today, 0), (tomorrow, 2), (tomorrow + timedelta(days=1), 0)):
        inserts = {row["fact"]: row["inserts"] for row in asked(platform, "what_changed", first=day, last=day)}
        assert inserts["payment"] == payments

    # What was known before each of these moments.
    then = [
        [
            (row["orders_then"], row["revenue_then"], row["orders_now"])
            for row in asked(platform, "known_on", currency="EUR", moment=at)
        ]
        for at in (first["valid_from"] - timedelta(seconds=1), first["valid_from"], updated["valid_from"])
    ]
    assert then == [[], [(1, Decimal("2432.43"), 0)], [(1, Decimal("3000.00"), 0)]]
    assert asked(platform, "known_on", currency="EUR", moment=deleted["valid_from"]) == []


_CHANGES_OF_ORDERS = (
    "UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id % 9 = 0",
    "UPDATE sales_order SET created_at = created_at - interval '2 days' WHERE sales_order_id IN (104, 107)",
    "UPDATE sales_order SET currency_id = 1 + currency_id % 3 WHERE sales_order_id IN (107, 110); "
    "DELETE FROM payment WHERE transaction_id IN (113, 119); "
    "DELETE FROM transaction WHERE transaction_id IN (113, 119); "
    "DELETE FROM sales_order WHERE sales_order_id IN (113, 119)",
)
_VALID_THEN = """
SELECT created_date, count(*) FROM history_sales_order
WHERE valid_from <= %(moment)s AND (valid_to > %(moment)s OR valid_to IS NULL) AND NOT is_deleted
GROUP BY 1 ORDER BY 1
"""


def test_what_was_known_is_what_is_known_now_but_for_the_orders_recorded_since(sold: Refreshed, tmp_path: Path) -> None:
    with sold.copy(tmp_path) as platform:
        for change in _CHANGES_OF_ORDERS:
            platform.sql(change)
            platform.refresh(accept_deletions=True)
        found = platform.query("SELECT DISTINCT _recorded_at FROM fact_sales_order ORDER BY 1")
        moments = [at for (at,) in found if isinstance(at, datetime)]
        assert len(moments) == 1 + len(_CHANGES_OF_ORDERS)
        with psycopg.connect(platform.warehouse_url, options="-c search_path=public") as connection:
            shop, answers = Shop(connection), []
            span = {"period": "day", "first": date(2024, 8, 1)}
            asked_at = [moments[0] - timedelta(microseconds=1), *moments, moments[-1] + timedelta(days=1)]
            for moment in asked_at:
                answers.append(shop.rows("known_on", moment=moment, **span))
                valid = connection.execute(_VALID_THEN, {"moment": moment}).fetchall()
                assert [(row["period"], row["orders_then"]) for row in answers[-1] if row["orders_then"]] == valid
            # Where the mart may be behind the fact, every version is looked at.
            then = [[(row["period"], row["orders_then"], row["revenue_then"]) for row in each] for each in answers]
            connection.execute(
                "UPDATE _ledger SET state = 'older' WHERE table_name = 'mart_sales_day' AND partition = 'lake'; "
                "UPDATE mart_sales_day SET orders = orders - 1, revenue = revenue - 1"
            )
            again = [shop.rows("known_on", moment=moment, **span) for moment in asked_at]
            now = [[(row["period"], row["orders_then"], row["revenue_then"]) for row in each] for each in again]
            assert then == now


_ALL_OVERDUE = """
SELECT payment_id, amount, round(amount * rate, 2) FROM (
    SELECT payment_id, amount, CASE currency WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
    FROM receivable LEFT JOIN conversion_rate AS published ON published.day = coalesce(%(rate_day)s::date, due_date)
        AND basis = 'day' AND from_currency = currency AND to_currency = %(currency)s
    WHERE NOT paid AND due_date < %(today)s
) AS overdue
ORDER BY amount * rate DESC NULLS LAST, payment_id
"""
_CHANGES_OF_PAYMENTS = (
    "UPDATE payment SET payment_amount = 5000 WHERE payment_id IN (101, 103, 104, 106, 107, 109, 110, 112, 113)",
    "UPDATE payment SET paid = true WHERE payment_id % 7 = 0",
    "UPDATE payment SET payment_amount = payment_amount * 9 WHERE payment_id IN (115, 116, 118); "
    "UPDATE payment SET created_at = created_at - interval '3 days' WHERE payment_id IN (116, 122); "
    "DELETE FROM payment WHERE payment_id IN (118, 125)",
)


def test_the_largest_overdue_payments_are_the_first_of_all_that_are_overdue(sold: Refreshed, tmp_path: Path) -> None:
    with sold.copy(tmp_path) as platform:
        for change in _CHANGES_OF_PAYMENTS:
            platform.sql(change)
            platform.refresh(accept_deletions=True)
        with psycopg.connect(platform.warehouse_url, options="-c search_path=public") as connection:
            shop = Shop(connection)
            # In pounds, at the rates of one day, where only what is in the currency converts, where nothing does.
            for currency, rate_day in (
                ("GBP", None),
                ("EUR", date(2024, 8, 22)),
                ("USD", date(2020, 1, 1)),
                ("JPY", None),
            ):
                given = {"currency": currency, "rate_day": rate_day, "today": TODAY}
                overdue = connection.execute(_ALL_OVERDUE, given).fetchall()
                assert len(overdue) > 12
                for rows in (1, 2, 5, len(overdue), 1000):
                    found = shop.rows("overdue_payments", rows=rows, **given)
                    assert [(each["payment_id"], each["amount"], each["converted"]) for each in found] == overdue[:rows]


def test_a_question_that_there_is_not_or_without_a_value_is_refused_by_name(shop: Shop) -> None:
    with pytest.raises(PlatformError, match=r'There is no question "revenue"\. .*headline, how_exact, known_on'):
        shop.ask("revenue")
    with pytest.raises(PlatformError, match='"headline" needs a value for rate_day, basis, currency, first, last'):
        answer(shop.connection, "headline")


def test_the_page_of_metrics_names_every_question_and_its_file() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "metrics.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[(\w+)\]\(../totesys_assets/insights/questions/(\w+)\.sql\) \|", page, re.MULTILINE)
    assert sorted(named) == [(name, name) for name in questions()]
