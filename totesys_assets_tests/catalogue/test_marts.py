"""What the catalogue refuses of marts and of names, each with a sentence that says what to change."""

from __future__ import annotations

import pytest

from totesys_assets.catalogue import catalogue as module
from totesys_assets.catalogue.catalogue import Catalogue, catalogue, ddl
from totesys_assets.catalogue.queries import parse, query_of

pytestmark = pytest.mark.pure

DDL = """
-- One row per day and currency.
CREATE TABLE mart_sales (
    created_date date, -- by day: day of the orders
    currency_id int, -- currency
    revenue numeric(18,2), -- units times price
    PRIMARY KEY (created_date, currency_id)
);
"""
SELECT = """-- Sales.
SELECT created_date, currency_id, SUM(units_sold * unit_price) AS revenue
FROM current.fact_sales_order GROUP BY created_date, currency_id"""


def with_mart(monkeypatch: pytest.MonkeyPatch, definition: str = DDL, select: str = SELECT) -> Catalogue:
    monkeypatch.setattr(module, "ddl", lambda name: definition if name == "marts.sql" else ddl(name))
    monkeypatch.setattr(module, "query_of", lambda name: parse(name, select))
    return catalogue.__wrapped__()


def test_a_mart_has_a_key_of_several_columns_and_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    mart = with_mart(monkeypatch).marts["mart_sales"]
    assert (mart.asset, mart.primary_key, mart.day_column) == (
        "mart/mart_sales",
        ("created_date", "currency_id"),
        "created_date",
    )
    assert [column.nullable for column in mart.columns] == [False, False, True]
    assert mart.by_name["created_date"].description == "day of the orders"
    with pytest.raises(ValueError, match="too many values"):
        _ = mart.key


def test_a_mart_knows_what_it_reads_and_the_source_tables_beneath() -> None:
    query = parse(
        "mart_sales",
        "SELECT 1 FROM current.fact_sales_order JOIN star.dim_staff USING (staff_id) JOIN star.dim_transaction ON true",
    )
    assert query.reads == ("fact_sales_order", "dim_staff", "dim_transaction")
    assert query.sources == ("sales_order", "staff", "department", "transaction")
    assert query.whole_sources == {"staff", "department", "transaction"}
    assert query_of("dim_staff").sql in query.definition


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("SELECT 1 FROM history.sales_order", r"reads history.sales_order. A mart reads current.<fact>"),
        ("SELECT 1", "reads no table of the star"),
        ("SELECT 1 FROM star.mart_other", "not other marts"),
        ("SELECT 1 FROM current.dim_staff", r"That is no fact: read star.dim_staff"),
        ("SELECT 1 FROM star.dim_nothing", "a table that the star does not have: .*dim_nothing"),
        ("SELECT 1 FROM star.fact_payment", r"reads no current.<fact>, of which it has the days"),
        (
            "WITH both AS (SELECT 1 FROM current.fact_payment, current.fact_sales_order) SELECT 1 FROM both",
            "joins fact_payment and fact_sales_order. Their rows may be of different days",
        ),
    ],
)
def test_a_select_that_no_mart_can_have_is_refused(monkeypatch: pytest.MonkeyPatch, select: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_mart(monkeypatch, select=select)


def test_facts_of_one_day_may_be_put_one_below_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    union = "SELECT 1 FROM current.fact_payment UNION ALL SELECT 1 FROM current.fact_sales_order"
    assert with_mart(monkeypatch, select=union).marts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("mart_sales (", "sales_mart ("), "begin with mart_"),
        (("PRIMARY KEY (created_date, currency_id)", "UNIQUE (revenue)"), "no primary key"),
        (("PRIMARY KEY (created_date, currency_id)", "PRIMARY KEY (currency_id)"), "must be part of its key"),
        (("-- currency", "-- by day: currency"), "several columns"),
        (
            (");", ");\n-- Again.\nCREATE TABLE staff (staff_id int PRIMARY KEY);"),
            'a table "staff" of totesys and one of mart',
        ),
    ],
)
def test_a_definition_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        with_mart(monkeypatch, definition=DDL.replace(*change))
