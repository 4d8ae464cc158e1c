"""The questions: every one is answered, and the answers are those of a computation of their own over the facts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

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
def beginning(postgres_server: PostgresServer, trade_template: str, scratch: Path) -> Refreshed:
    """What the tests of this module begin with."""
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
def shop(beginning: Refreshed) -> Iterator[Shop]:
    """The warehouse after the first refresh, to be asked and not to be changed."""
    url = beginning.server.template(f"asked_{os.urandom(4).hex()}", beginning.warehouse)
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
    assert bool(found.rows) == (name not in ("unconverted_orders", "unknown_countries"))
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
