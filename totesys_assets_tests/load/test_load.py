"""The warehouse: its tables and views as promised, and loads that only ever add what is new."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep

import duckdb
import psycopg
import psycopg.conninfo
import pyarrow as pa
import pytest

from totesys_assets.capture.difference import capture
from totesys_assets.catalogue.catalogue import Catalogue, Column, catalogue, ddl
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import DayRange
from totesys_assets.errors import ConnectionFailed, LakeChanged, PlatformError, SchemaDrift
from totesys_assets.load.load import Loaded, load
from totesys_assets.reader import read_arrow
from totesys_assets.source.shared_snapshot import OpenSnapshots
from totesys_assets.transform.build import build
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform

TABLES = catalogue()
STAR = TABLES.star
FACTS = ("fact_sales_order", "fact_purchase_order", "fact_payment")
TROUBLESHOOT = Path(__file__).parents[2] / "docs" / "how-to" / "troubleshoot.md"

# What was promised to analysts; the technical columns come after these.
OFFICIAL = """
dim_date: date_id date, year int, month int, day int, day_of_week int, day_name varchar, month_name varchar, quarter int
dim_staff: staff_id int, first_name varchar, last_name varchar, department_name varchar, location varchar NULL,
    email_address varchar
dim_location: location_id int, address_line_1 varchar, address_line_2 varchar NULL, district varchar NULL, city varchar,
    postal_code varchar, country varchar, phone varchar
dim_currency: currency_id int, currency_code varchar, currency_name varchar
dim_design: design_id int, design_name varchar, file_location varchar, file_name varchar
dim_counterparty: counterparty_id int, counterparty_legal_name varchar, counterparty_legal_address_line_1 varchar,
    counterparty_legal_address_line_2 varchar NULL, counterparty_legal_district varchar NULL,
    counterparty_legal_city varchar, counterparty_legal_postal_code varchar, counterparty_legal_country varchar,
    counterparty_legal_phone_number varchar
dim_payment_type: payment_type_id int, payment_type_name varchar
dim_transaction: transaction_id int, transaction_type varchar, sales_order_id int NULL, purchase_order_id int NULL
fact_sales_order: sales_record_id identity, sales_order_id int, created_date date, created_time time,
    last_updated_date date, last_updated_time time, sales_staff_id int, counterparty_id int, units_sold int,
    unit_price numeric(10,2), currency_id int, design_id int, agreed_payment_date date, agreed_delivery_date date,
    agreed_delivery_location_id int
fact_purchase_order: purchase_record_id identity, purchase_order_id int, created_date date, created_time time,
    last_updated_date date, last_updated_time time, staff_id int, counterparty_id int, item_code varchar,
    item_quantity int, item_unit_price numeric(10,2), currency_id int, agreed_delivery_date date,
    agreed_payment_date date, agreed_delivery_location_id int
fact_payment: payment_record_id identity, payment_id int, created_date date, created_time time, last_updated_date date,
    last_updated_time time, transaction_id int, counterparty_id int, payment_amount numeric(10,2), currency_id int,
    payment_type_id int, paid boolean, payment_date date
dim_country: country varchar, country_code varchar NULL, map_code varchar NULL, longitude numeric(6,2) NULL,
    latitude numeric(5,2) NULL, is_small boolean
dim_sales_target: sales_target_id varchar, target_month date, department_name varchar, currency_code varchar,
    amount numeric(18,2)
dim_marketing_spend: marketing_spend_id varchar, spend_month date, country varchar, currency_code varchar,
    amount numeric(18,2)
fact_exchange_rate: exchange_rate_record_id identity, exchange_rate_id varchar, rate_date date, currency_code varchar,
    units_per_euro numeric(18,8)
"""
SPELLED = {
    "int": "integer",
    "varchar": "character varying",
    "time": "time without time zone",
    "identity": "bigint",
}


def prepare(platform: Platform, star: str, days: DayRange | None = None) -> None:
    """Capture and build what a star table is made of: everything up to the load."""
    lake, wanted = platform.lake, days or platform.all_days
    with closing(OpenSnapshots(platform.core.sources)) as snapshots:
        for source in query_of(star).sources:
            table = TABLES.source[source]
            snapshot = snapshots.now[table.group]
            capture(snapshot, lake, table, all_days=platform.all_days, days=wanted, run_id="test")
    build(lake, TABLES, TABLES.warehouse[star], days=wanted, run_id="test")


def refresh(platform: Platform, *stars: str, days: DayRange | None = None) -> dict[str, Loaded]:
    """Bring some star tables up to date, as a refresh does, without Dagster."""
    results = {}
    for star in stars:
        prepare(platform, star, days)
        results[star] = load_only(platform, star, days)
    return results


def load_only(platform: Platform, star: str, days: DayRange | None = None) -> Loaded:
    table = TABLES.warehouse[star]
    return load(platform.warehouse, platform.lake, table, days=days or platform.all_days, run_id="test")


def warehouse_sql(platform: Platform, statement: str) -> None:
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(scope="module")
def loaded(
    postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform with everything loaded, which tests may load again but not change."""
    source = postgres_server.template("totesys_loaded", trade_template)
    with make_platform(source, postgres_server.database(), tmp_path_factory.mktemp("loaded")) as platform:
        refresh(platform, *TABLES.warehouse)
        yield platform


def marks(platform: Platform, table: str) -> list[tuple[object, ...]]:
    """Where each row lies and which transaction wrote it: any rewrite shows."""
    return platform.query(f"SELECT ctid::text, xmin::text, * FROM {table} ORDER BY 1")


def add_orders(platform: Platform, count: int, first: int = 2) -> None:
    others = ", ".join(list(TABLES.source["sales_order"].by_name)[1:])
    platform.sql(
        f"INSERT INTO sales_order SELECT %s + n, {others} FROM sales_order, generate_series(0, %s - 1) AS n "
        "WHERE sales_order_id = 1",
        [first, count],
    )


def add_changes(platform: Platform, star: str, days: DayRange, *, hours_back: int = 0) -> Loaded:
    """Capture all days, then bring a star table up to date as a refresh for ``days`` does that believes the others."""
    with platform.totesys.snapshot() as taken:
        snapshot = replace(taken, taken_at=taken.taken_at - timedelta(hours=hours_back))
        for source in query_of(star).sources:
            table = TABLES.source[source]
            capture(snapshot, platform.lake, table, all_days=platform.all_days, days=platform.all_days, run_id="test")
    build(platform.lake, TABLES, STAR[star], days=days, run_id="test", changes_only=True)
    return load(platform.warehouse, platform.lake, STAR[star], days=days, run_id="test", changes_only=True)


ANOTHER_DAY = DayRange.of("2024-08-22")
UNITS = "SELECT units_sold FROM fact_sales_order WHERE sales_order_id = 1 ORDER BY sales_record_id"

# What was recorded since


def test_what_was_recorded_since_is_loaded_on_whatever_day_and_nothing_else_is_looked_at(platform: Platform) -> None:
    refresh(platform, "fact_sales_order")
    # A record taken away by hand would come back if it were looked at.
    add_orders(platform, 1, first=50)
    refresh(platform, "fact_sales_order")
    warehouse_sql(platform, "DELETE FROM fact_sales_order WHERE sales_order_id = 50")
    platform.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 1")
    loaded = add_changes(platform, "fact_sales_order", ANOTHER_DAY)
    assert loaded.written == 1
    assert platform.query(UNITS)[-1] == (7,)
    assert platform.query("SELECT count(*) FROM fact_sales_order WHERE sales_order_id = 50") == [(0,)]
    # The day that was brought up to date is noted, though nobody had asked for it.
    assert not platform.look().stale.keys() & {"star/fact_sales_order", "warehouse/fact_sales_order"}
    load_only(platform, "fact_sales_order")
    assert platform.query("SELECT count(*) FROM fact_sales_order WHERE sales_order_id = 50") == [(1,)]


def test_what_is_recorded_while_the_sources_clock_is_set_back_is_loaded_too(platform: Platform) -> None:
    refresh(platform, "fact_sales_order")
    for units in (7, 8):
        platform.sql(f"UPDATE sales_order SET units_sold = {units} WHERE sales_order_id = 1")
        assert add_changes(platform, "fact_sales_order", ANOTHER_DAY, hours_back=5).written == 1
    assert platform.query(UNITS)[-2:] == [(7,), (8,)]


def test_of_another_lake_nothing_is_loaded(platform: Platform, tmp_path: Path) -> None:
    refresh(platform, "fact_sales_order")
    platform.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 1")
    other = replace(platform, settings=replace(platform.settings, lake_uri=str(tmp_path / "other")))
    with pytest.raises(LakeChanged, match="was loaded from another lake"):
        add_changes(other, "fact_sales_order", platform.all_days, hours_back=5)  # recorded before what was loaded
    assert (7,) not in platform.query(UNITS)


def test_a_load_of_some_days_only_leaves_the_others_to_be_looked_at(platform: Platform) -> None:
    prepare(platform, "fact_sales_order")
    load_only(platform, "fact_sales_order", ANOTHER_DAY)
    assert platform.query("SELECT count(*) FROM fact_sales_order") == [(0,)]
    add_changes(platform, "fact_sales_order", platform.all_days)
    assert platform.query(UNITS) != []


# The schema


@pytest.fixture(scope="module")
def fresh(postgres_server: PostgresServer) -> str:
    """URL of a warehouse just created, which no test may change."""
    url = postgres_server.database()
    Warehouse(url).migrate()
    return url


def test_every_table_has_the_promised_columns_first_and_technical_ones_after(fresh: str) -> None:
    promised = dict(line.split(": ") for line in re.sub(r"\n    ", " ", OFFICIAL.strip()).splitlines())
    assert promised.keys() == STAR.keys()
    with psycopg.connect(fresh) as connection:
        for table, text in promised.items():
            found = connection.execute(
                "SELECT column_name || ' ' || format_type(atttypid, atttypmod), is_nullable = 'YES', "
                "is_identity = 'YES' FROM information_schema.columns JOIN pg_attribute ON attname = column_name "
                "AND attrelid = (table_schema || '.' || table_name)::regclass "
                "WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
                [table],
            ).fetchall()
            official = []
            for column in re.split(r", (?![0-9])", text):
                name, kind, *null = column.split(" ")
                official.append((f"{name} {SPELLED.get(kind, kind)}", bool(null), kind == "identity"))
            assert found[: len(official)] == official
            technical = [str(name) for name, *_ in found[len(official) :]]
            assert all(name.startswith("_") for name in technical)
            assert bool(technical) == (table not in ("dim_date", "dim_country"))


COLUMNS = """
SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r' AND c.relname !~ '^_' ORDER BY c.relname, a.attnum
"""
KEYS = """
SELECT conrelid::regclass::text, contype::text, conkey, replace(confrelid::regclass::text, 'expected.', '')
FROM pg_constraint WHERE connamespace = %s::regnamespace AND contype IN ('p', 'u', 'f')
"""


def test_columns_types_identities_keys_and_references_are_those_of_the_ddl(fresh: str) -> None:
    with psycopg.connect(fresh) as connection:
        connection.execute("CREATE SCHEMA expected; SET LOCAL search_path = expected")
        connection.execute(ddl("warehouse.sql"))
        connection.execute(ddl("marts.sql"))
        found, expected = (connection.execute(COLUMNS, [name]).fetchall() for name in ("public", "expected"))
        assert found == expected
        assert len(found) > 100
        expected_keys = set(map(repr, connection.execute(KEYS, ["expected"]).fetchall()))
        connection.execute("SET LOCAL search_path = public")
        found_keys = set(map(repr, connection.execute(KEYS, ["public"]).fetchall()))
        connection.rollback()
    assert {key for key in found_keys if "'_" not in key} == expected_keys


def test_references_are_declared_and_not_enforced(fresh: str) -> None:
    with psycopg.connect(fresh) as connection:
        states = connection.execute("SELECT DISTINCT conenforced FROM pg_constraint WHERE contype = 'f'").fetchall()
    assert states == [(False,)]


def test_every_table_and_column_says_in_the_database_what_it_means(fresh: str) -> None:
    with psycopg.connect(fresh) as connection:
        for table in STAR.values():
            rows = connection.execute(
                "SELECT attname, col_description(attrelid, attnum), obj_description(attrelid, 'pg_class') "
                "FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
                [table.name],
            ).fetchall()
            assert rows == [(column.name, column.description, table.description) for column in table.columns]
            assert all(description and about for _, description, about in rows)


def test_every_fact_has_its_views_and_purchases_a_second_name_beside_the_views_for_people(fresh: str) -> None:
    with psycopg.connect(fresh) as connection:
        views = connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'public' ORDER BY 1").fetchall()
    assert [str(name) for (name,) in views] == [
        "conversion_rate",
        "current_exchange_rate",
        "current_payment",
        "current_purchase_order",
        "current_sales_order",
        "fact_purchase_orders",
        "history_exchange_rate",
        "history_payment",
        "history_purchase_order",
        "history_sales_order",
        "purchase",
        "receivable",
        "sale",
    ]


# Values


def test_the_star_says_exactly_what_totesys_says(loaded: Platform) -> None:
    rows = {name: loaded.query(f"SELECT * FROM {name} ORDER BY 1") for name in STAR}
    assert [name for name in STAR if not rows[name]] == ["dim_sales_target", "dim_marketing_spend"]  # of no files
    first = {
        name: found[0][: sum(not column.is_technical for column in STAR[name].columns)]
        for name, found in rows.items()
        if found
    }
    assert first["dim_location"] == (
        1,
        "6826 Herzog Via",
        None,
        "Avon",
        "New Patienceburgh",
        "08841",
        "Turkey",
        "1803 637401",
    )
    assert first["dim_counterparty"] == (
        1,
        "Padberg, Lueilwitz and Johnson",
        "1 O'Keefe Row",
        "Suite 2",
        None,
        "Leeds",
        "02813",
        "Democratic People's Republic of Korea",
        "9621 880720",
    )
    assert first["dim_staff"] == (1, "Jeremie", "O'Keefe", "Dispatch", "Leds", "jeremie@terrifictotes.com")
    assert [row[1:3] for row in rows["dim_currency"]] == [
        ("GBP", "Pound Sterling"),
        ("USD", "US Dollar"),
        ("EUR", "Euro"),
    ]
    assert first["dim_design"] == (1, "Wooden", "/usr/local", "wooden-20201128-jdvi.json")
    countries = {row[0]: row[1:] for row in rows["dim_country"]}
    assert countries["Turkey"] == ("TUR", "792", Decimal("35.42"), Decimal("38.99"), False)
    assert [row[:2] for row in rows["dim_payment_type"]] == [(1, "SALES_RECEIPT"), (3, "PURCHASE_PAYMENT")]
    assert [row[:4] for row in rows["dim_transaction"]] == [(1, "SALE", 1, None), (2, "PURCHASE", None, 1)]
    assert first["dim_date"] == (date(2024, 1, 1), 2024, 1, 1, 1, "Monday", "January", 1)
    assert rows["dim_date"][-1] == (date(2026, 12, 31), 2026, 12, 31, 4, "Thursday", "December", 4)
    sold, bought = (date(2024, 8, 20), time(9, 10, 11, 123000)), (date(2024, 8, 21), time(18, 59, 59, 999000))
    assert first["fact_sales_order"] == (
        *(1, 1, *sold, *sold, 1, 1, 1001, Decimal("2.43"), 3, 1),
        *(date(2024, 8, 23), date(2024, 8, 24), 1),
    )
    assert first["fact_purchase_order"] == (
        *(1, 1, *bought, *bought, 1, 1, "ZDOI5EA", 371, Decimal("361.39"), 2),
        *(date(2024, 8, 23), date(2024, 8, 26), 2),
    )
    payments = {row[1]: row[2:13] for row in rows["fact_payment"]}
    assert payments == {
        2: (*sold, *sold, 1, 1, Decimal("2432.43"), 3, 1, False, date(2024, 8, 23)),
        1: (*bought, *bought, 2, 1, Decimal("134075.69"), 2, 3, False, date(2024, 8, 26)),
    }


def test_every_reference_of_a_fact_or_a_mart_finds_its_dimension(loaded: Platform) -> None:
    for table in TABLES.warehouse.values():
        for column in table.columns:
            if column.references:
                key = STAR[column.references].key
                assert loaded.query(
                    f"SELECT count(*) FROM {table.name} AS fact LEFT JOIN {column.references} AS dim "
                    f"ON fact.{column.name} = dim.{key} WHERE dim.{key} IS NULL"
                ) == [(0,)]


# Facts


def test_a_changed_order_has_two_records_and_the_first_is_never_touched(platform: Platform) -> None:
    refresh(platform, "fact_sales_order")
    before = marks(platform, "fact_sales_order")
    platform.sql("UPDATE sales_order SET units_sold = 2000")
    assert refresh(platform, "fact_sales_order")["fact_sales_order"].written == 1
    after = marks(platform, "fact_sales_order")
    assert (len(after), after[:1]) == (2, before)
    assert platform.query("SELECT sales_record_id, units_sold FROM fact_sales_order ORDER BY 1") == [
        (1, 1001),
        (2, 2000),
    ]
    assert platform.query("SELECT sales_record_id, units_sold FROM current_sales_order") == [(2, 2000)]


def test_records_are_numbered_in_the_order_they_were_recorded_without_gaps_for_ever(platform: Platform) -> None:
    add_orders(platform, 500)
    refresh(platform, "fact_sales_order")
    first = platform.query("SELECT sales_record_id, sales_order_id, _recorded_at FROM fact_sales_order ORDER BY 1")
    assert [row[:2] for row in first] == [(number, number) for number in range(1, 502)]
    for number in (300, 7):
        platform.sql("UPDATE sales_order SET units_sold = 0 WHERE sales_order_id = %s", [number])
        refresh(platform, "fact_sales_order")
    load_only(platform, "fact_sales_order")
    add_orders(platform, 3, first=900)
    refresh(platform, "fact_sales_order")
    records = platform.query("SELECT sales_record_id, sales_order_id, _recorded_at FROM fact_sales_order ORDER BY 1")
    assert records[:501] == first
    assert [row[:2] for row in records[501:]] == [(502, 300), (503, 7), (504, 900), (505, 901), (506, 902)]


def test_a_deleted_order_is_in_the_history_and_not_among_the_current(platform: Platform) -> None:
    refresh(platform, "fact_payment")
    platform.sql("UPDATE payment SET paid = true WHERE payment_id = 2")
    refresh(platform, "fact_payment")
    platform.sql("DELETE FROM payment WHERE payment_id = 2")
    refresh(platform, "fact_payment")
    assert platform.query("SELECT payment_id FROM current_payment") == [(1,)]
    history = platform.query(
        "SELECT paid, _operation, is_current, is_deleted, valid_from = _recorded_at, valid_from, valid_to "
        "FROM history_payment WHERE payment_id = 2 ORDER BY valid_from"
    )
    assert [row[:5] for row in history] == [
        (False, "insert", False, False, True),
        (True, "update", False, False, True),
        (True, "delete", True, True, True),
    ]
    assert [row[6] for row in history] == [history[1][5], history[2][5], None]


def test_an_order_entered_anew_is_current_again(platform: Platform) -> None:
    platform.sql("CREATE TABLE aside AS TABLE payment")
    for statement in ("SELECT", "DELETE FROM payment", "INSERT INTO payment TABLE aside"):
        platform.sql(statement)
        refresh(platform, "fact_payment")
    assert platform.query("SELECT payment_id, _operation FROM current_payment ORDER BY 1") == [
        (1, "insert"),
        (2, "insert"),
    ]
    assert platform.query(
        "SELECT _operation, is_current, is_deleted FROM history_payment WHERE payment_id = 1 ORDER BY valid_from"
    ) == [("insert", False, False), ("delete", False, True), ("insert", True, False)]


def test_an_order_whose_day_changes_is_current_once(platform: Platform) -> None:
    refresh(platform, "fact_sales_order", "dim_transaction")
    platform.sql("UPDATE sales_order SET created_at = created_at + interval '1 day'")
    platform.sql("UPDATE transaction SET created_at = created_at + interval '1 day'")
    refresh(platform, "fact_sales_order", "dim_transaction")
    assert platform.query("SELECT created_date, _operation FROM current_sales_order") == [(date(2024, 8, 21), "insert")]
    history = "SELECT created_date, _operation, is_current, is_deleted FROM history_sales_order"
    assert platform.query(f"{history} ORDER BY valid_from, is_current") == [
        (date(2024, 8, 20), "insert", False, False),
        (date(2024, 8, 21), "insert", True, False),
    ]
    dimension = "SELECT transaction_id, _created_date, _is_deleted FROM dim_transaction ORDER BY 1"
    assert platform.query(dimension) == [(1, date(2024, 8, 21), False), (2, date(2024, 8, 22), False)]


def test_the_specifications_name_for_purchases_shows_the_same_rows(platform: Platform) -> None:
    refresh(platform, "fact_purchase_order")
    assert platform.query("TABLE fact_purchase_orders") == platform.query("TABLE fact_purchase_order") != []


def test_only_the_days_asked_for_are_loaded(platform: Platform) -> None:
    day = DayRange(date(2024, 8, 20), date(2024, 8, 20))
    assert refresh(platform, "fact_payment")["fact_payment"].rows == {"2024-08-20": 1, "2024-08-21": 1}
    platform.sql("UPDATE payment SET paid = true")
    assert refresh(platform, "fact_payment", days=day)["fact_payment"] == Loaded({"2024-08-20": 2}, 1)
    assert platform.query("SELECT payment_id FROM current_payment WHERE paid") == [(2,)]


# Dimensions


def test_dimensions_follow_a_change_of_what_they_join(platform: Platform) -> None:
    stars = ("dim_counterparty", "dim_location", "dim_staff")
    refresh(platform, *stars)
    platform.sql("UPDATE address SET city = 'Manchester' WHERE address_id = 2")
    platform.sql("UPDATE department SET department_name = 'Logistics', location = NULL WHERE department_id = 2")
    written = {star: result.written for star, result in refresh(platform, *stars).items()}
    assert written == {"dim_counterparty": 1, "dim_location": 1, "dim_staff": 1}
    assert platform.query("SELECT counterparty_legal_city FROM dim_counterparty") == [("Manchester",)]
    assert platform.query("SELECT city FROM dim_location ORDER BY location_id") == [
        ("New Patienceburgh",),
        ("Manchester",),
    ]
    assert platform.query("SELECT department_name, location FROM dim_staff") == [("Logistics", None)]


def test_a_dimension_follows_its_row_to_another_join_partner_and_back(platform: Platform) -> None:
    refresh(platform, "dim_counterparty")
    for address, city in ((1, "New Patienceburgh"), (2, "Leeds")):
        platform.sql("UPDATE counterparty SET legal_address_id = %s", [address])
        refresh(platform, "dim_counterparty")
        assert platform.query("SELECT counterparty_legal_city FROM dim_counterparty") == [(city,)]


def test_a_dimension_follows_although_the_sources_clock_was_set_back(platform: Platform) -> None:
    refresh(platform, "dim_counterparty")
    platform.sql("UPDATE address SET city = 'Manchester' WHERE address_id = 2")
    refresh(platform, "dim_counterparty")
    platform.sql("UPDATE counterparty SET legal_address_id = 1")
    with platform.totesys.snapshot() as snapshot:
        earlier = replace(snapshot, taken_at=snapshot.taken_at - timedelta(hours=1))
        source = TABLES.source["counterparty"]
        capture(earlier, platform.lake, source, all_days=platform.all_days, days=None, run_id="test")
    refresh(platform, "dim_counterparty")
    assert platform.query("SELECT counterparty_legal_city FROM dim_counterparty") == [("New Patienceburgh",)]


def test_only_the_changed_row_of_a_dimension_is_written(platform: Platform) -> None:
    refresh(platform, "dim_currency")
    before = marks(platform, "dim_currency")
    platform.sql("UPDATE currency SET currency_code = 'XYZ' WHERE currency_id = 2")
    assert refresh(platform, "dim_currency")["dim_currency"].written == 1
    after = marks(platform, "dim_currency")
    assert [row for row in after if row in before] == [row for row in before if row[2] != 2]
    assert platform.query("SELECT currency_code, currency_name FROM dim_currency WHERE currency_id = 2") == [
        ("XYZ", "XYZ")
    ]


def test_a_dimension_row_gone_from_totesys_stays_flagged_and_comes_back_unflagged(platform: Platform) -> None:
    refresh(platform, "dim_payment_type")
    flags = "SELECT payment_type_id, payment_type_name, _is_deleted FROM dim_payment_type ORDER BY 1"
    platform.sql("CREATE TABLE aside AS TABLE payment_type; DELETE FROM payment; DELETE FROM payment_type")
    assert refresh(platform, "dim_payment_type")["dim_payment_type"].written == 2
    assert platform.query(flags) == [(1, "SALES_RECEIPT", True), (3, "PURCHASE_PAYMENT", True)]
    platform.sql("INSERT INTO payment_type TABLE aside")
    refresh(platform, "dim_payment_type")
    assert platform.query(flags) == [(1, "SALES_RECEIPT", False), (3, "PURCHASE_PAYMENT", False)]


# Doing it again


def test_loading_twice_writes_nothing_anywhere(loaded: Platform) -> None:
    tables = [*TABLES.warehouse, "_ledger", "_migration"]
    before = {table: marks(loaded, table) for table in tables}
    mark = loaded.warehouse.mark()
    for table in TABLES.warehouse:
        assert load_only(loaded, table).written == 0
    assert {table: marks(loaded, table) for table in tables} == before
    assert loaded.warehouse.mark() == mark


def test_a_lost_ledger_and_a_rebuilt_star_add_nothing(platform: Platform) -> None:
    refresh(platform, "fact_payment", "dim_currency")
    before = marks(platform, "fact_payment"), marks(platform, "dim_currency")
    shutil.rmtree(platform.lake.location("ledger"))
    shutil.rmtree(platform.lake.location("processed"))
    warehouse_sql(platform, "DELETE FROM _ledger")
    again = refresh(platform, "fact_payment", "dim_currency")
    assert [result.written for result in again.values()] == [0, 0]
    assert (marks(platform, "fact_payment"), marks(platform, "dim_currency")) == before


def test_what_was_never_built_cannot_be_loaded(platform: Platform) -> None:
    with pytest.raises(PlatformError, match=r'"dim_staff" was never built in this lake.*totesys refresh'):
        load_only(platform, "dim_staff")


# Readers, competing writers, failures

# A load stands still when all its rows are written and nothing is committed.
PAUSE = """
CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
CREATE TRIGGER pause BEFORE INSERT ON _ledger FOR EACH STATEMENT EXECUTE FUNCTION pause();
"""
WAITING = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 42
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@contextmanager
def paused_loads(platform: Platform, star: str, count: int = 1) -> Iterator[list[Loaded | PlatformError]]:
    """Loads at once, of which at least one stands still before its commit until the block ends."""
    results: list[Loaded | PlatformError] = []

    def work() -> None:
        try:
            results.append(load_only(platform, star))
        except PlatformError as error:
            results.append(error)

    warehouse_sql(platform, PAUSE)
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(42)")
        threads = [Thread(target=work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        while connection.execute(WAITING).fetchall() != [(1,)]:
            assert all(thread.is_alive() for thread in threads)
            sleep(0.01)
        sleep(0.5 * (count - 1))  # the others ask again and again for the lock of the one that stands still
        yield results
        connection.execute("SELECT pg_advisory_unlock(42)")
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def test_readers_see_the_old_rows_until_a_load_is_complete(platform: Platform) -> None:
    refresh(platform, "fact_sales_order", "dim_design")
    add_orders(platform, 5_000)
    platform.sql("UPDATE design SET design_name = 'new'")
    prepare(platform, "fact_sales_order")
    prepare(platform, "dim_design")
    for star, query, old, new in (
        ("fact_sales_order", "SELECT count(*) FROM current_sales_order", 1, 5_001),
        ("dim_design", "SELECT count(*) FILTER (WHERE design_name = 'Wooden') FROM dim_design", 1, 0),
    ):
        with paused_loads(platform, star):
            assert platform.query(query) == [(old,)]
        assert platform.query(query) == [(new,)]
        warehouse_sql(platform, "DROP FUNCTION pause CASCADE")


def test_readers_of_a_first_load_see_nothing_of_it_until_it_is_complete_and_never_wait(platform: Platform) -> None:
    add_orders(platform, 5_000)
    prepare(platform, "fact_sales_order")
    platform.warehouse.migrate()
    with (
        psycopg.connect(platform.warehouse_url, options="-c lock_timeout=50ms -c search_path=public") as reader,
        paused_loads(platform, "fact_sales_order"),
    ):
        assert reader.execute("SELECT count(*) FROM current_sales_order").fetchall() == [(0,)]
    assert platform.query("SELECT count(*) FROM fact_sales_order") == [(5_001,)]


def test_no_reader_ever_sees_anything_but_the_old_or_the_new_count(platform: Platform) -> None:
    refresh(platform, "fact_sales_order")
    seen: list[int] = []
    reading = Event()

    def read() -> None:
        with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
            while not seen or seen[-1] != 20_001:
                (row,) = connection.execute("SELECT count(*) FROM current_sales_order")
                seen.append(int(row[0]))
                reading.set()

    reader = Thread(target=read, daemon=True)
    reader.start()
    assert reading.wait(60)
    add_orders(platform, 20_000)
    refresh(platform, "fact_sales_order")
    reader.join(60)
    assert set(seen) == {1, 20_001}


def test_two_loads_at_once_come_one_after_the_other(platform: Platform) -> None:
    refresh(platform, "fact_sales_order")
    add_orders(platform, 10)
    prepare(platform, "fact_sales_order")
    with (
        paused_loads(platform, "fact_sales_order", 2) as results,
        psycopg.connect(platform.warehouse_url) as connection,
    ):
        assert connection.execute(WAITING).fetchall() == [(1,)]
        assert results == []
    assert sorted(result.written for result in results if isinstance(result, Loaded)) == [0, 10]
    assert platform.query("SELECT count(*), max(sales_record_id) FROM fact_sales_order") == [(11, 11)]


def test_a_load_that_waited_does_not_bring_back_what_was_older(platform: Platform) -> None:
    refresh(platform, "dim_design")
    platform.sql("UPDATE design SET design_name = 'first'")
    prepare(platform, "dim_design")
    with paused_loads(platform, "dim_design", 2):
        platform.sql("UPDATE design SET design_name = 'second'")
        prepare(platform, "dim_design")
    assert platform.query("SELECT design_name FROM dim_design") == [("second",)]


def test_two_first_loads_at_once_fill_the_table_once(platform: Platform) -> None:
    add_orders(platform, 10)
    prepare(platform, "fact_sales_order")
    platform.warehouse.migrate()
    with paused_loads(platform, "fact_sales_order", 2):
        pass
    assert platform.query("SELECT count(*), max(sales_record_id) FROM fact_sales_order") == [(11, 11)]


@pytest.mark.parametrize("first", [True, False], ids=["first load", "later load"])
def test_a_load_whose_connection_dies_leaves_the_table_as_it_was(platform: Platform, first: bool) -> None:
    platform.warehouse.migrate()
    if not first:
        refresh(platform, "fact_sales_order")
    before = marks(platform, "fact_sales_order")
    add_orders(platform, 10)
    prepare(platform, "fact_sales_order")
    with paused_loads(platform, "fact_sales_order") as results:
        warehouse_sql(
            platform,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
    (failure,) = results
    assert isinstance(failure, PlatformError)
    assert str(failure).startswith('Loading "fact_sales_order" failed, and will be done again by the next refresh: ')
    assert marks(platform, "fact_sales_order") == before
    load_only(platform, "fact_sales_order")
    rows = platform.query("SELECT count(*), count(DISTINCT sales_record_id) FROM fact_sales_order")
    assert rows == [(11, 11)]
    assert platform.query(KEY_COUNT) == [(2,)]


KEY_COUNT = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'fact_sales_order'::regclass AND contype IN ('p', 'u')"


@pytest.mark.parametrize("star", ["fact_sales_order", "dim_currency"])
def test_a_load_that_fails_midway_leaves_the_table_as_it_was_and_says_why(platform: Platform, star: str) -> None:
    refresh(platform, star)
    before = marks(platform, star)
    add_orders(platform, 10)
    platform.sql("UPDATE currency SET currency_code = 'CHF' WHERE currency_id > 1")
    prepare(platform, star)
    key = STAR[star].version_key[0] if STAR[star].is_fact else STAR[star].key
    warehouse_sql(
        platform,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN IF (to_jsonb(NEW) ->> TG_ARGV[0])::int >= 3 THEN RAISE 'no room'; END IF; RETURN NEW; END $$; "
        f"CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON {star} "
        f"FOR EACH ROW EXECUTE FUNCTION refuse('{key}')",
    )
    with pytest.raises(PlatformError, match=f'Loading "{star}" failed, and will be done again.*no room'):
        load_only(platform, star)
    assert marks(platform, star) == before
    warehouse_sql(platform, f"DROP TRIGGER refuse ON {star}")
    assert load_only(platform, star).written == (10 if STAR[star].is_fact else 2)


def test_a_connection_lost_before_the_commit_is_an_error(platform: Platform) -> None:
    with ExitStack() as stack:
        stack.enter_context(platform.warehouse.transaction("any"))
        warehouse_sql(
            platform,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'totesys_assets'",
        )
        with pytest.raises(duckdb.Error):
            stack.close()


# A transaction that moves to another day


DAY = {number: DayRange(date(2024, 8, number), date(2024, 8, number)) for number in (19, 20, 21)}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(19, (19, 20))], id="earlier, both days at once"),
        pytest.param([(19, (19,)), (19, (20,))], id="earlier, that day first", marks=pytest.mark.thorough),
        pytest.param([(19, (20,)), (19, (19,))], id="earlier, the old day first"),
        pytest.param([(21, (20,)), (21, (21,))], id="later, the old day first"),
        pytest.param([(21, (21,)), (21, (20,))], id="later, that day first", marks=pytest.mark.thorough),
        pytest.param([(21, (21,)), (20, (21,))], id="there and back, only seen there"),
        pytest.param([(19, (19,)), (20, (19,)), (20, (20,))], id="there and back, seen first where it was not"),
        pytest.param([(21, (21,)), (20, (20, 21))], id="there and back, both days at once", marks=pytest.mark.thorough),
    ],
)
def test_a_transaction_that_moved_is_there_whichever_day_is_loaded_first(
    platform: Platform, steps: list[tuple[int, tuple[int, ...]]]
) -> None:
    refresh(platform, "dim_transaction")
    for day, loaded in steps:
        platform.sql(f"UPDATE transaction SET created_at = '2024-08-{day} 10:00' WHERE transaction_id = 1")
        refresh(platform, "dim_transaction", days=DayRange(DAY[loaded[0]].first, DAY[loaded[-1]].last))
    present = "SELECT transaction_id, _created_date, _is_deleted FROM dim_transaction WHERE transaction_id = 1"
    assert platform.query(present) == [(1, date(2024, 8, steps[-1][0]), False)]
    rows = read_arrow("dim_transaction", lake=platform.settings.lake_uri).to_pylist()
    shown = [(row["_created_date"], row["_is_deleted"]) for row in rows if row["transaction_id"] == 1]
    assert shown == [(date(2024, 8, steps[-1][0]), False)]
    versions = read_arrow("transaction", lake=platform.settings.lake_uri).to_pylist()
    assert [row["transaction_id"] for row in versions].count(1) == 1


def test_a_number_that_is_taken_is_an_error_and_costs_no_version(platform: Platform) -> None:
    refresh(platform, "fact_sales_order")
    warehouse_sql(platform, "SELECT setval('fact_sales_order_sales_record_id_seq', 1, false)")
    platform.sql("UPDATE sales_order SET units_sold = 2000 WHERE sales_order_id = 1")
    with pytest.raises(PlatformError, match="fact_sales_order_pkey"):
        refresh(platform, "fact_sales_order")
    warehouse_sql(platform, "SELECT setval('fact_sales_order_sales_record_id_seq', 100)")
    refresh(platform, "fact_sales_order")
    assert platform.query(UNITS)[-1] == (2000,)


@pytest.fixture
def widen() -> str:
    """What the documents say of widening the numbers of payments."""
    [found] = re.findall("```pgsql\n(BEGIN;.*?COMMIT;\n)```", TROUBLESHOOT.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


@pytest.mark.parametrize("is_parted", [False, True])
def test_the_numbers_of_each_fact_can_be_widened(platform: Platform, widen: str, is_parted: bool) -> None:
    types = (
        "SELECT DISTINCT format_type(atttypid, NULL) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE attname ~ '_record_id$|^record$' AND relkind <> 'i'"
    )
    ends = "SELECT DISTINCT max_value FROM pg_sequences WHERE sequencename ~ '_record_id_seq$'"
    platform.warehouse.migrate()
    assert platform.query(types) == [("bigint",)]
    for type_, end in (("integer", 2**31 - 1), ("bigint", 2**63 - 1)):
        statements = widen.replace("bigint", type_).replace(str(2**63 - 1), str(end))
        for fact in (*FACTS, "fact_exchange_rate"):
            of_fact = statements.replace("payment_record_id", STAR[fact].key)
            of_fact = of_fact.replace("_payment", fact.removeprefix("fact"))
            if fact == "fact_purchase_order":
                of_fact = of_fact.replace(" CASCADE", ", fact_purchase_orders CASCADE")
            warehouse_sql(platform, of_fact)
        assert platform.warehouse.migrate()
        assert platform.query(types) == [(type_,)]
        assert platform.query(ends) == [(end,)]
        if is_parted and type_ == "integer":  # a copy has numbers of its own
            assert platform.warehouse.migrate(partition_from=DAY[20].first)


def test_a_warehouse_whose_records_an_older_version_numbered_by_an_integer_goes_on_and_can_be_widened(
    platform: Platform, widen: str
) -> None:
    refresh(platform, "fact_payment")
    warehouse_sql(platform, widen.replace("TYPE bigint", "TYPE integer").replace(str(2**63 - 1), str(2**31 - 1)))
    assert platform.warehouse.migrate()
    for paid, last, said in ((True, 2**31 - 2, None), (False, 2**31 - 1, r"maximum value of sequence.*\(2147483647\)")):
        warehouse_sql(platform, f"SELECT setval('fact_payment_payment_record_id_seq', {last})")
        platform.sql("UPDATE payment SET paid = %s WHERE payment_id = 1", [paid])
        with pytest.raises(PlatformError, match=said) if said else nullcontext():
            refresh(platform, "fact_payment")
    warehouse_sql(platform, widen)
    assert platform.warehouse.migrate()
    refresh(platform, "fact_payment")
    of_first = "SELECT payment_record_id FROM {} WHERE payment_id = 1 ORDER BY 1"
    numbers = [(1,), (2**31 - 1,), (2**31,)]
    assert platform.query(of_first.format("fact_payment")) == numbers
    assert platform.query(of_first.format("current_payment")) == numbers[-1:]
    assert platform.query("SELECT record FROM _superseded_payment ORDER BY 1") == numbers[:-1]


@pytest.mark.parametrize("at_once", [2, 2_000_000])
def test_a_transaction_seen_on_two_days_is_one_row_of_a_first_load(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("totesys_assets.load.distinct._MARKED_AT_ONCE", at_once)
    refresh(platform, "dim_transaction")
    platform.sql("UPDATE transaction SET created_at = '2024-08-21 10:00' WHERE transaction_id = 1")
    refresh(platform, "dim_transaction", days=DAY[21])  # and not of day 20, which it has left
    warehouse_sql(platform, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    load_only(platform, "dim_transaction")
    present = "SELECT transaction_id, _created_date FROM dim_transaction WHERE transaction_id = 1"
    assert platform.query(present) == [(1, date(2024, 8, 21))]


def test_a_first_load_of_a_dimension_brings_its_keys_month_by_month_and_all_of_them(platform: Platform) -> None:
    """The key of rows in order is half as large; the lake's files are in none."""
    platform.sql(
        "INSERT INTO transaction SELECT n, 'SALE', NULL, NULL, created_at + interval '1 day' * (n % 90), "
        "last_updated FROM transaction, generate_series(1000, 1899) AS n WHERE transaction_id = 1"
    )
    refresh(platform, "dim_transaction")
    months = [
        str(month) for (month,) in platform.query("SELECT _created_date::text FROM dim_transaction ORDER BY ctid")
    ]
    assert [*dict.fromkeys(each[:7] for each in months)] == sorted({each[:7] for each in months})
    assert len({each[:7] for each in months}) > 2
    assert platform.query("SELECT count(*) FROM dim_transaction") == platform.query(
        "SELECT sum(rows)::bigint FROM _ledger WHERE table_name = 'dim_transaction'"
    )
    assert len(months) > 900


def test_a_transaction_that_left_all_its_days_is_gone(platform: Platform) -> None:
    refresh(platform, "dim_transaction")
    platform.sql("UPDATE transaction SET created_at = '2024-08-19 10:00' WHERE transaction_id = 1")
    refresh(platform, "dim_transaction", days=DAY[19])
    platform.sql("DELETE FROM payment; DELETE FROM transaction WHERE transaction_id = 1")
    gone = "SELECT _is_deleted FROM dim_transaction WHERE transaction_id = 1"
    for day, expected in ((19, False), (20, True)):
        refresh(platform, "dim_transaction", days=DAY[day])
        assert platform.query(gone) == [(expected,)]


# Migration


def test_migrating_twice_changes_nothing(platform: Platform) -> None:
    platform.warehouse.migrate()
    everything = "SELECT oid, xmin::text FROM pg_class UNION ALL SELECT oid, xmin::text FROM pg_constraint ORDER BY 1"
    before = platform.query(everything), marks(platform, "_migration")
    platform.warehouse.migrate()
    assert (platform.query(everything), marks(platform, "_migration")) == before


def test_two_platforms_may_migrate_at_once(platform: Platform) -> None:
    threads = [Thread(target=platform.warehouse.migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert platform.query("SELECT count(*) FROM _migration") == [(1,)]


def test_a_schema_of_its_own_is_created_and_nothing_is_put_elsewhere(platform: Platform) -> None:
    schema = 'Tote\'s "own" schema, new'
    warehouse = Warehouse(platform.warehouse_url, schema)
    for units in (1, 2):
        platform.sql("UPDATE sales_order SET units_sold = %s", [units])
        prepare(platform, "fact_sales_order")
        load(warehouse, platform.lake, STAR["fact_sales_order"], days=platform.all_days, run_id="test")
    prepare(platform, "dim_currency")
    load(warehouse, platform.lake, STAR["dim_currency"], days=None, run_id="test")
    assert platform.query("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]
    contents = [(table, *counts) for table, *counts in warehouse.contents() if counts != [0, 0]]
    assert contents == [("dim_currency", 3, 3), ("fact_sales_order", 1, 2)]


def test_a_technical_column_that_is_missing_is_added(platform: Platform) -> None:
    platform.warehouse.migrate()
    warehouse_sql(platform, "ALTER TABLE dim_currency DROP COLUMN _is_deleted; DELETE FROM _migration")
    refresh(platform, "dim_currency")
    assert platform.query("SELECT currency_id, _is_deleted FROM dim_currency ORDER BY 1") == [
        (1, False),
        (2, False),
        (3, False),
    ]


def with_new_column(table: str, column: Column) -> Catalogue:
    """The catalogue of a later release, in which one star table has one more column."""
    changed = replace(STAR[table], columns=(*STAR[table].columns, column))
    return replace(TABLES, star={**STAR, table: changed})


NOTE = Column("_note", "text", pa.string(), nullable=True, description="a remark")


def test_a_column_new_in_the_catalogue_is_added_to_table_and_views(platform: Platform) -> None:
    refresh(platform, "fact_sales_order")
    later = Warehouse(platform.warehouse_url, tables=with_new_column("fact_sales_order", NOTE))
    later.migrate()
    for name in ("fact_sales_order", "current_sales_order", "history_sales_order"):
        assert platform.query(f"SELECT sales_order_id, _note FROM {name}") == [(1, None)]


def test_a_required_column_cannot_be_added_to_rows_that_lack_it(platform: Platform) -> None:
    refresh(platform, "dim_currency")
    column = replace(NOTE, nullable=False)
    later = Warehouse(platform.warehouse_url, tables=with_new_column("dim_currency", column))
    with pytest.raises(SchemaDrift, match=r'"_note" is new .*"dim_currency" have no value.*WAREHOUSE_SCHEMA'):
        later.migrate()


@pytest.mark.parametrize(
    ("definition", "finding"),
    [
        (
            "currency_id bigint",
            'Column "currency_id" of the warehouse\'s "public"."dim_currency" is bigint instead of integer',
        ),
        ("currency_id int, currency_code varchar(3)", r"is character varying\(3\) instead of character varying"),
    ],
)
def test_a_table_of_another_structure_is_refused(platform: Platform, definition: str, finding: str) -> None:
    warehouse_sql(platform, f"CREATE TABLE dim_currency ({definition})")
    with pytest.raises(SchemaDrift, match=f"{finding}.*Set WAREHOUSE_SCHEMA"):
        platform.warehouse.migrate()
    assert platform.query("SELECT count(*) FROM pg_class WHERE relname = 'dim_date'") == [(0,)]


@pytest.fixture
def guest(platform: Platform) -> Iterator[str]:
    """The warehouse's URL for a role that may log in and no more."""
    name = f"guest_{platform.totesys_url.rpartition('_')[2]}"
    warehouse_sql(platform, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield psycopg.conninfo.make_conninfo(platform.warehouse_url, user=name, password="secret")
    warehouse_sql(platform, f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.refreshed
def test_a_table_or_view_that_was_dropped_is_made_and_filled_again(platform: Platform) -> None:
    held = platform.query("SELECT * FROM fact_payment"), platform.query("SELECT * FROM dim_design")
    current = platform.query("SELECT * FROM current_payment")
    mark = platform.warehouse.mark()
    warehouse_sql(platform, "DROP TABLE fact_payment, dim_design CASCADE")
    assert platform.warehouse.mark() != mark
    platform.refresh()
    assert (platform.query("SELECT * FROM fact_payment"), platform.query("SELECT * FROM dim_design")) == held
    assert platform.query("SELECT * FROM current_payment") == current != []
    warehouse_sql(platform, "DROP VIEW history_payment")
    assert platform.warehouse.migrate() is True
    assert platform.query("SELECT count(*) > 0 FROM history_payment") == [(True,)]
    assert platform.warehouse.migrate() is False


def test_a_login_that_may_not_create_is_told_so(guest: str) -> None:
    with pytest.raises(PlatformError, match=r'may not create .* in schema "public": .*permission denied'):
        Warehouse(guest, "public").migrate()
    with pytest.raises(PlatformError, match=r'no schema "analytics".* run: CREATE SCHEMA "analytics" AUTHORIZATION'):
        Warehouse(guest, "analytics").migrate()


def test_a_warehouse_that_cannot_be_reached_is_said_so_without_the_password(platform: Platform) -> None:
    password = str(psycopg.conninfo.conninfo_to_dict(platform.warehouse_url)["password"])
    for wrong in ({"port": "1"}, {"password": "hunter2"}, {"dbname": "nowhere"}):
        warehouse = Warehouse(psycopg.conninfo.make_conninfo(platform.warehouse_url, **wrong))
        for attempt in (warehouse.migrate, warehouse.transaction("any").__enter__):
            with pytest.raises(ConnectionFailed, match=r"WAREHOUSE_URL cannot be reached: .* Check the URL") as raised:
                attempt()
            assert password not in str(raised.value)
            assert "hunter2" not in str(raised.value)


def test_a_warehouse_that_is_lost_in_mid_statement_is_said_so_in_one_line(platform: Platform) -> None:
    said = r"The warehouse gave up a statement: [^\n]*terminating connection[^\n]*\.$"
    with pytest.raises(PlatformError, match=said), platform.warehouse.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_settings_of_the_server_in_the_url_hold_for_every_session(platform: Platform) -> None:
    warehouse = Warehouse(psycopg.conninfo.make_conninfo(platform.warehouse_url, options="-c work_mem=7MB"))
    with warehouse.connect() as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)
    query = "SELECT * FROM postgres_query('warehouse', 'SELECT current_setting(''work_mem'')')"
    with warehouse.transaction("any") as session:
        assert session.execute(query).fetchone() == ("7MB",)
    warehouse.close()


# What the warehouse says of itself


def test_the_warehouse_tells_what_was_loaded_and_when(platform: Platform) -> None:
    warehouse = platform.warehouse
    assert (warehouse.mark(), warehouse.loaded(), warehouse.contents()) == ("empty", {}, [])
    assert warehouse.loaded_at() == {}
    refresh(platform, "fact_sales_order", "dim_currency")
    first, mark = warehouse.loaded_at(), warehouse.mark()
    assert first.keys() == {"dim_currency", "fact_sales_order"}
    assert {table: list(states) for table, states in warehouse.loaded().items()} == {
        "fact_sales_order": ["2024-08-20"],
        "dim_currency": ["*"],
    }
    assert platform.look().stale.keys().isdisjoint({"warehouse/fact_sales_order", "warehouse/dim_currency"})
    platform.sql("UPDATE sales_order SET units_sold = 1")
    refresh(platform, "fact_sales_order")
    assert {table for table, moment in warehouse.loaded_at().items() if moment > first[table]} == {"fact_sales_order"}
    assert warehouse.mark() != mark
    contents = {table: (rows, versions) for table, rows, versions in warehouse.contents()}
    assert contents.keys() == TABLES.warehouse.keys()
    assert {table: counts for table, counts in contents.items() if counts != (0, 0)} == {
        "fact_sales_order": (1, 2),
        "dim_currency": (3, 3),
    }


@pytest.mark.parametrize(
    "is_in_use", [pytest.param(False, id="free"), pytest.param(True, id="in use", marks=pytest.mark.thorough)]
)
def test_after_a_load_of_many_rows_postgresql_knows_how_many_unless_others_work_on_the_table(
    platform: Platform, is_in_use: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT reltuples::int FROM pg_class WHERE relname = 'mart_exchange_rate'"
    platform.warehouse.migrate()
    with psycopg.connect(platform.warehouse_url) as other:
        if is_in_use:
            other.execute("LOCK TABLE mart_exchange_rate IN SHARE UPDATE EXCLUSIVE MODE")  # as VACUUM does
        platform.refresh()
    rows = platform.query("SELECT count(*) FROM mart_exchange_rate")
    assert rows > [(1000,)]
    assert platform.query(query) == ([(-1,)] if is_in_use else rows)
    assert "skipping" not in capfd.readouterr().err


def test_versions_that_are_no_inserts_have_an_index_also_in_a_warehouse_that_was_made_without(
    platform: Platform,
) -> None:
    expected = sorted(f"{table.name}_changes" for table in STAR.values() if table.is_fact)
    query = "SELECT indexname FROM pg_indexes WHERE indexname LIKE '%\\_changes' ORDER BY 1"
    assert platform.warehouse.migrate()
    assert [name for (name,) in platform.query(query)] == expected
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute(f"DROP INDEX {', '.join(expected)}".encode())
        connection.execute("UPDATE _migration SET digest = 'of before'")
    assert Warehouse(platform.warehouse_url).migrate()
    assert [name for (name,) in platform.query(query)] == expected
    assert not Warehouse(platform.warehouse_url).migrate()


def test_a_run_is_alive_for_as_long_as_its_process_says_so(platform: Platform) -> None:
    warehouse = platform.warehouse
    assert not warehouse.is_alive("one")
    with warehouse.alive("one"), warehouse.alive("one"):
        assert warehouse.is_alive("one")
        assert not warehouse.is_alive("two")
    assert not warehouse.is_alive("one")


def test_a_killed_process_is_not_alive(platform: Platform) -> None:
    script = (
        "import sys; from totesys_assets.warehouse.warehouse import Warehouse\n"
        "with Warehouse(sys.argv[1]).alive('one'): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, platform.warehouse_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        assert platform.warehouse.is_alive("one")
        process.kill()
        process.wait()
    deadline = monotonic() + 30
    while platform.warehouse.is_alive("one"):
        assert monotonic() < deadline
