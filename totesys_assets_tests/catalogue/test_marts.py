"""What the catalogue refuses of marts and of names, each with a sentence that says what to change."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue import catalogue as module
from totesys_assets.catalogue import consistency
from totesys_assets.catalogue.catalogue import Catalogue, catalogue, ddl
from totesys_assets.catalogue.consistency import require_days
from totesys_assets.catalogue.queries import parse, query_of
from totesys_assets.errors import PlatformError
from totesys_assets.staleness import decide
from totesys_assets.transform import build, schemas

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
DAY_ONLY = """
-- One row per day.
CREATE TABLE mart_sales (
    created_date date PRIMARY KEY -- by day: day
);
"""
DAYS = ("2024-08-20", "2024-08-21")
SELECT = """-- Sales.
SELECT created_date, currency_id, SUM(units_sold * unit_price) AS revenue
FROM current.fact_sales_order GROUP BY created_date, currency_id"""


def with_mart(monkeypatch: pytest.MonkeyPatch, definition: str = DDL, select: str = SELECT) -> Catalogue:
    monkeypatch.setattr(module, "ddl", lambda name: definition if name == "marts.sql" else ddl(name))
    monkeypatch.setattr(consistency, "query_of", lambda name: parse(name, select))
    monkeypatch.setattr(consistency, "mart_files", list)  # those of the package are none of this definition
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
        ("SELECT 1 FROM star.dim_nothing", "a table that the star does not have. There is no star/dim_nothing.sql"),
        ("SELECT 1 FROM star.fact_payment", r"reads no current.<fact>, of which it has the days"),
        (
            "WITH both AS (SELECT 1 FROM current.fact_payment, current.fact_sales_order) SELECT 1 FROM both",
            "reads current.fact_payment and current.fact_sales_order together. Their rows may be of different days",
        ),
        (
            "WITH a AS (SELECT * FROM current.fact_payment), b AS (SELECT * FROM current.fact_sales_order) "
            "SELECT a.created_date FROM a JOIN b ON true",
            "together",
        ),
        (
            "SELECT created_date FROM current.fact_payment WHERE currency_id IN "
            "(SELECT currency_id FROM current.fact_payment)",
            "reads current.fact_payment and current.fact_payment together",
        ),
        (
            "WITH each AS (SELECT * FROM current.fact_payment) "
            "SELECT created_date, (SELECT sum(payment_amount) FROM each) FROM each",
            "reads current.fact_payment and current.fact_payment together",
        ),
        ("SELECT created_date + 1 AS created_date FROM current.fact_payment", 'computes "created_date"'),
        (
            "SELECT created_date, sum(sum(payment_amount)) OVER (ORDER BY created_date) FROM current.fact_payment "
            "GROUP BY created_date",
            "has a window that is not partitioned by created_date",
        ),
        ("SELECT created_date FROM current.fact_payment ORDER BY 1 LIMIT 3", "has a LIMIT"),
        (
            "SELECT created_date, 1 AS revenue FROM current.fact_payment",
            "gives no currency_id, which catalogue/marts.sql names .it gives: created_date, revenue.",
        ),
        (
            SELECT.replace("AS revenue", "AS revenue, 1 AS one"),
            "gives one, which catalogue/marts.sql does not name. Add it to the DDL, or remove it",
        ),
        ("SELECT FROM WHERE", "marts/mart_sales.sql cannot be read, in line 1, near"),
    ],
)
def test_a_select_that_no_mart_can_have_is_refused(monkeypatch: pytest.MonkeyPatch, select: str, said: str) -> None:
    with pytest.raises(PlatformError, match=said):
        with_mart(monkeypatch, select=select)


def test_rows_of_one_day_may_be_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    window = "row_number() OVER (PARTITION BY created_date ORDER BY payment_id)"
    numbered = (
        f"SELECT created_date FROM (SELECT created_date, {window} AS place FROM current.fact_payment) WHERE place = 1"
    )
    assert with_mart(monkeypatch, DAY_ONLY, numbered).marts


def test_facts_of_one_day_may_be_put_one_below_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    union = "SELECT created_date FROM current.fact_payment UNION ALL SELECT created_date FROM current.fact_sales_order"
    assert with_mart(monkeypatch, DAY_ONLY, union).marts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("mart_sales (", "sales_mart ("), "must begin with mart_. Rename it"),
        (("PRIMARY KEY (created_date, currency_id)", "UNIQUE (revenue)"), "no primary key"),
        (
            ("PRIMARY KEY (created_date, currency_id)", "PRIMARY KEY (currency_id)"),
            "must be part of its key and is not .currency_id",
        ),
        (
            ("-- currency", "-- by day: currency"),
            r"several columns .* .created_date, currency_id.\. It is partitioned by one",
        ),
        ((" numeric(18,2)", " UNIQUE"), '"mart_sales" in catalogue/marts.sql: column "revenue" has no type'),
        (("(", "(("), "catalogue/marts.sql cannot be read, in line"),
        (
            (");", ");\nCREATE TABLE mart_sales (a int PRIMARY KEY);"),
            'a table "mart_sales" twice in catalogue/marts.sql. Give one of them',
        ),
        (
            ("numeric(18,2)", "double precision"),
            '"mart_sales" in catalogue/marts.sql: column "revenue" has type DOUBLE PRECISION, which the catalogue does',
        ),
        (
            ("numeric(18,2)", "numeric"),
            '"revenue" has type DECIMAL, which the catalogue does not know. Use one that it knows: bigint',
        ),
        (
            (");", ");\n-- Again.\nCREATE TABLE staff (staff_id int PRIMARY KEY);"),
            'a table "staff" in catalogue/totesys.sql and one in catalogue/marts.sql. Give one',
        ),
    ],
)
def test_a_definition_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], said: str
) -> None:
    with pytest.raises(PlatformError, match=said):
        with_mart(monkeypatch, definition=DDL.replace(*change))


def test_a_day_that_may_be_null_is_refused_where_nothing_is_a_mart(monkeypatch: pytest.MonkeyPatch) -> None:
    created = "created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- by day:"
    nullable = ddl("totesys.sql").replace(created, created.replace("NOT NULL ", ""), 1)
    monkeypatch.setattr(module, "ddl", lambda name: nullable if name == "totesys.sql" else ddl(name))
    with pytest.raises(
        PlatformError, match=r'"sales_order" in catalogue/totesys.sql is partitioned by "created_at", which may be NULL'
    ):
        catalogue.__wrapped__()


@pytest.mark.parametrize(
    ("select", "said"),
    [
        (
            "SELECT payment_date AS created_date FROM current.fact_payment",
            "is made of fact_payment.payment_date. Select that, or leave",
        ),
        (
            "SELECT created_date FROM current.fact_payment UNION ALL SELECT payment_date FROM current.fact_payment",
            "is made of fact_payment.created_date, fact_payment.payment_date",
        ),
        (
            "WITH each AS (SELECT last_updated_date AS day FROM current.fact_payment) "
            "SELECT day AS created_date FROM each",
            "is made of fact_payment.last_updated_date",
        ),
    ],
)
def test_a_mart_that_is_made_by_day_has_the_day_of_its_facts(
    monkeypatch: pytest.MonkeyPatch, select: str, said: str
) -> None:
    tables = with_mart(monkeypatch, DAY_ONLY, select)
    with pytest.raises(PlatformError, match=said):
        require_days(tables, tables.marts["mart_sales"])


def test_the_day_of_a_mart_is_found_through_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    through = "WITH each AS (SELECT created_date AS day FROM current.fact_payment) SELECT day AS created_date FROM each"
    for select in ("SELECT created_date FROM current.fact_payment", through):
        tables = with_mart(monkeypatch, DAY_ONLY, select)
        require_days(tables, tables.marts["mart_sales"])


def test_a_mart_that_reads_its_own_fact_whole_too_has_a_state_for_each_day(monkeypatch: pytest.MonkeyPatch) -> None:
    select = "SELECT created_date FROM current.fact_sales_order JOIN star.dim_date ON date_id = created_date"
    mart = with_mart(monkeypatch, DAY_ONLY, select).marts["mart_sales"]
    for each in (build, schemas):
        monkeypatch.setattr(each, "query_of", lambda name: parse(name, select))
    now = datetime.now(UTC)

    def states(*of_days: str) -> dict[str, str]:
        entries = {
            day: Entry("ingestion/sales_order", day, state, 1, now, "run")
            for day, state in zip(DAYS, of_days, strict=True)
        }
        return build.expected_states(mart, {"ingestion/sales_order": entries})

    one, two = states("a", "b"), states("a", "c")
    assert one.keys() == set(DAYS)
    assert one[DAYS[0]] != two[DAYS[0]]  # all days are made anew


def test_every_day_of_a_mart_waits_for_a_stale_day_of_a_fact_that_it_reads_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = "SELECT created_date FROM current.fact_sales_order WHERE (SELECT count(*) FROM star.fact_sales_order) > 0"
    for select, waiting in ((whole, {*DAYS}), ("SELECT created_date FROM current.fact_sales_order", {DAYS[0]})):
        tables = with_mart(monkeypatch, DAY_ONLY, select)
        monkeypatch.setattr(decide, "query_of", lambda name, select=select: parse(name, select))
        stale = {"totesys/sales_order": {DAYS[0]}}
        assert decide._inherited(tables, tables.marts["mart_sales"], stale, {*DAYS}) == waiting


def test_a_mart_whose_definition_changes_has_other_states(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(definition: str) -> dict[str, str]:
        mart = with_mart(monkeypatch, definition=definition).marts["mart_sales"]
        for each in (build, schemas):
            monkeypatch.setattr(each, "query_of", lambda name: parse(name, SELECT))
        entry = Entry("ingestion/sales_order", DAYS[0], "a", 1, datetime.now(UTC), "run")
        return build.expected_states(mart, {"ingestion/sales_order": {DAYS[0]: entry}})

    assert state(DDL) != state(DDL.replace("numeric(18,2)", "numeric(18,4)"))


def test_a_mart_without_its_select_or_its_ddl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ddl", lambda name: DDL if name == "marts.sql" else ddl(name))
    monkeypatch.setattr(consistency, "mart_files", list)
    with pytest.raises(PlatformError, match=r'There is no marts/mart_sales.sql, the SELECT that makes "mart_sales"'):
        catalogue.__wrapped__()
    monkeypatch.setattr(consistency, "mart_files", lambda: ["mart_sale"])
    with pytest.raises(PlatformError, match=r"does not define mart_sale, of which .* or remove marts/mart_sale\.sql"):
        catalogue.__wrapped__()


def test_a_rule_of_a_mart_does_not_make_it_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = DDL.replace("PRIMARY KEY", "UNIQUE (revenue),\n    PRIMARY KEY")
    assert not with_mart(monkeypatch, definition).marts["mart_sales"].is_fact
