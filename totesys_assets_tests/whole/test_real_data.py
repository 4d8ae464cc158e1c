"""The real ToteSys, replayed: two full dumps, three months apart, and what the warehouse makes of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest

from totesys_assets.catalogue.catalogue import catalogue, ddl
from totesys_assets.local.postgres_programs import binaries
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.sail import Sail, needs_sail
from totesys_assets_tests.harness.two_engines import both

SHARED = Path(__file__).parents[3] / "shared"
APPLY = SHARED / "replay" / "apply_dump.sh"

pytestmark = pytest.mark.skipif(not APPLY.exists(), reason="the dumps of the real ToteSys are not part of the project")

# Tables of files that nobody has dropped here.
OF_FILES = ("dim_sales_target", "dim_marketing_spend")
# What a fact's current view must say, in the terms of the source: warehouse columns that spell source columns.
CURRENT = {
    "sales_order": """SELECT sales_order_id, created_date + created_time, last_updated_date + last_updated_time,
        design_id, sales_staff_id, counterparty_id, units_sold, unit_price, currency_id,
        agreed_delivery_date::text, agreed_payment_date::text, agreed_delivery_location_id FROM current_sales_order""",
    "purchase_order": """SELECT purchase_order_id, created_date + created_time, last_updated_date + last_updated_time,
        staff_id, counterparty_id, item_code, item_quantity, item_unit_price, currency_id,
        agreed_delivery_date::text, agreed_payment_date::text, agreed_delivery_location_id
        FROM current_purchase_order""",
    "payment": """SELECT payment_id, created_date + created_time, last_updated_date + last_updated_time,
        transaction_id, counterparty_id, payment_amount, currency_id, payment_type_id, paid, payment_date::text
        FROM current_payment""",
    "transaction": "SELECT transaction_id, transaction_type, sales_order_id, purchase_order_id FROM dim_transaction",
    "design": "SELECT design_id, design_name, file_location, file_name FROM dim_design",
    "address": """SELECT location_id, address_line_1, address_line_2, district, city, postal_code, country, phone
        FROM dim_location""",
    "counterparty": """SELECT counterparty_id, counterparty_legal_name, counterparty_legal_address_line_1,
        counterparty_legal_address_line_2, counterparty_legal_district, counterparty_legal_city,
        counterparty_legal_postal_code, counterparty_legal_country, counterparty_legal_phone_number
        FROM dim_counterparty""",
    "staff": """SELECT staff_id, first_name, last_name, department_name, location, email_address FROM dim_staff""",
    "currency": "SELECT currency_id, currency_code, currency_name FROM dim_currency",
    "payment_type": "SELECT payment_type_id, payment_type_name FROM dim_payment_type",
}
SOURCE = {
    "sales_order": """SELECT sales_order_id, created_at, last_updated, design_id, staff_id, counterparty_id, units_sold,
        unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id
        FROM sales_order""",
    "purchase_order": """SELECT purchase_order_id, created_at, last_updated, staff_id, counterparty_id, item_code,
        item_quantity, item_unit_price, currency_id, agreed_delivery_date, agreed_payment_date,
        agreed_delivery_location_id FROM purchase_order""",
    "payment": """SELECT payment_id, created_at, last_updated, transaction_id, counterparty_id, payment_amount,
        currency_id, payment_type_id, paid, payment_date FROM payment""",
    "transaction": "SELECT transaction_id, transaction_type::text, sales_order_id, purchase_order_id FROM transaction",
    "design": "SELECT design_id, design_name, file_location, file_name FROM design",
    "address": """SELECT address_id, address_line_1, address_line_2, district, city, postal_code, country, phone
        FROM address""",
    "counterparty": """SELECT counterparty_id, counterparty_legal_name, address_line_1, address_line_2, district, city,
        postal_code, country, phone FROM counterparty JOIN address ON address_id = legal_address_id""",
    "staff": """SELECT staff_id, first_name, last_name, department_name, location, email_address
        FROM staff JOIN department USING (department_id)""",
    "currency": """SELECT currency_id, currency_code::text, (ARRAY['Pound Sterling', 'US Dollar', 'Euro'])[currency_id]
        FROM currency""",
    "payment_type": "SELECT payment_type_id, payment_type_name::text FROM payment_type",
}


def apply_dump(url: str, day: str) -> None:
    path = f"{binaries()}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(APPLY), url, str(SHARED / "data" / f"totesys-{day}")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PATH": path})


def source_rows(platform: Platform, table: str) -> set[tuple[object, ...]]:
    with psycopg.connect(platform.totesys_url) as connection:
        return set(connection.execute(SOURCE[table].encode()).fetchall())


@pytest.fixture(scope="module")
def replayed(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Both dumps applied and refreshed, in the order in which they happened."""
    source = postgres_server.database()
    with psycopg.connect(source) as connection:
        connection.execute(ddl("totesys.sql").encode())
    folder = tmp_path_factory.mktemp("replay")
    databases = postgres_server.database(), postgres_server.database()
    with make_platform(source, databases[0], folder, date(2022, 11, 3), dagster=databases[1]) as platform:
        for day in ("2024-08-22", "2024-11-15"):
            apply_dump(source, day)
            platform.refresh()
        yield platform


def test_every_silent_update_between_the_dumps_gave_a_record_of_its_own(replayed: Platform) -> None:
    counts = "SELECT count(*), count(*) - count(DISTINCT {0}_id) FROM fact_{0}"
    assert replayed.query(counts.format("sales_order")) == [(11_187 + 24, 24)]
    assert replayed.query(counts.format("purchase_order")) == [(4_649 + 23, 23)]
    assert replayed.query(counts.format("payment")) == [(15_836 + 32, 32)]


def test_the_second_records_are_updates_that_a_watermark_would_have_missed(replayed: Platform) -> None:
    unmoved = """
        SELECT count(*) FROM history_sales_order AS later JOIN history_sales_order AS earlier
            ON earlier.sales_order_id = later.sales_order_id AND earlier.valid_to = later.valid_from
        WHERE later.last_updated_date + later.last_updated_time = earlier.last_updated_date + earlier.last_updated_time
            AND later._operation = 'update'"""
    assert replayed.query(unmoved) == [(24,)]


@pytest.mark.parametrize("table", CURRENT)
def test_what_is_current_equals_the_second_dump_in_every_column(replayed: Platform, table: str) -> None:
    expected = source_rows(replayed, table)
    assert expected
    assert set(replayed.query(CURRENT[table])) == expected


def test_the_calendar_has_every_day_that_a_fact_names(replayed: Platform) -> None:
    missing = " UNION ALL ".join(
        f"SELECT {column} FROM fact_{table} EXCEPT SELECT date_id FROM dim_date"
        for table, column in [("sales_order", "agreed_delivery_date"), ("payment", "payment_date")]
    )
    assert replayed.query(missing) == []


def test_no_money_was_lost_or_made(replayed: Platform) -> None:
    totals = "SELECT currency_id, sum(payment_amount), count(*) FROM {} GROUP BY 1 ORDER BY 1"
    with psycopg.connect(replayed.totesys_url) as connection:
        expected = connection.execute(totals.format("payment").encode()).fetchall()
    assert replayed.query(totals.format("current_payment")) == expected


def test_a_third_refresh_finds_nothing_to_do(replayed: Platform) -> None:
    assert replayed.look().requests == []


def test_applying_the_second_dump_again_changes_nothing(replayed: Platform) -> None:
    before = replayed.query("SELECT (SELECT count(*) FROM fact_sales_order), (SELECT max(loaded_at) FROM _ledger)")
    apply_dump(replayed.totesys_url, "2024-11-15")
    assert replayed.look().requests == []
    replayed.refresh()
    after = replayed.query("SELECT (SELECT count(*) FROM fact_sales_order), (SELECT max(loaded_at) FROM _ledger)")
    assert after == before


@needs_sail
def test_spark_makes_of_the_dumps_what_duckdb_makes(replayed: Platform) -> None:
    server = Sail()
    try:
        with both(replayed.lake, server.remote) as compare:
            assert all(compare(table) for table in catalogue().warehouse.values() if table.name not in OF_FILES)
    finally:
        server.kill()
