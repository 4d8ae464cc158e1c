"""Hostile content, through the whole path: it arrives as it is, or waits in the dead letters, and does nothing."""

from __future__ import annotations

import json

import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.audit.audit import audit, checks
from totesys_assets.commands import main
from totesys_assets_tests.conftest import Platform

TEXTS = {
    "quotes": """'single' "double" `back` ''twice'' $$dollar$$""",
    "backslashes": r"C:\new\table \\server\share \' \" \0 \x00 \u0000 \N",
    "a statement": "'; DROP TABLE fact_sales_order; --",
    "a statement in a dollar quote": "$$; DELETE FROM dim_staff; $$",
    "a formula": '=cmd|"/c calc"!A0',
    "another formula": "@SUM(1+1)*cmd|' /C calc'!A0",
    "separators": "a,b;c\td|e\r\nf\vg\x1f\x7f",
    "emoji": "👩‍👩‍👧‍👦🧵🇬🇧",
    "right to left": "\u202eevil\u202c שלום العربية",
    "combining": "e\u0301 \u00e9 \u1e9b\u0323 ﬁ",
    "the last character": "\U0010ffff \ufeff \ufffe",
    "braces": "{0} {name} %s %(x)s ${HOME} {{ x }} [red]markup[/red] [/]",
    "json": '{"a": null, "b": [1, "\\u0000"]}',
    "empty": "",
    "blanks": "  \t ",
    "null as a word": "NULL",
    "delta's null folder": "__HIVE_DEFAULT_PARTITION__",
    "a megabyte": "ä" * 1_000_000,
}
ADD_ADDRESS = "INSERT INTO address VALUES (%s, %s, %s, %s, %s, %s, %s, %s, '2024-08-19', '2024-08-19')"


@pytest.mark.refreshed
def test_hostile_text_arrives_in_the_warehouse_as_it_is(platform: Platform) -> None:
    for number, text in enumerate(TEXTS.values(), start=100):
        platform.sql(ADD_ADDRESS, [number, *[text] * 7])
        platform.sql(
            "INSERT INTO design SELECT %s, created_at, %s, %s, %s, last_updated FROM design WHERE design_id = 1",
            [number, text, text, text],
        )
    platform.sql("UPDATE purchase_order SET item_code = %s", [TEXTS["a statement"]])
    platform.refresh()
    held = platform.query(
        "SELECT address_line_1, address_line_2, district, city, postal_code, country, phone "
        "FROM dim_location WHERE location_id >= 100 ORDER BY location_id"
    )
    assert held == [(text,) * 7 for text in TEXTS.values()]
    designs = "SELECT design_name, file_location, file_name FROM dim_design WHERE design_id >= 100 ORDER BY design_id"
    assert platform.query(designs) == [(text,) * 3 for text in TEXTS.values()]
    assert platform.query("SELECT item_code FROM current_purchase_order") == [(TEXTS["a statement"],)]
    found = audit(platform.core, checks(platform.totesys.catalogue))
    assert [each for each in found if not each.passed and not each.warning] == []
    assert platform.look().requests == []


@pytest.mark.thorough
def test_a_key_that_is_changed_to_the_last_number_arrives(platform: Platform) -> None:
    platform.sql("UPDATE design SET design_id = 2147483647")
    platform.sql("UPDATE currency SET currency_id = -2147483648 WHERE currency_id = 1")
    platform.refresh()
    assert platform.query("SELECT max(design_id) FROM dim_design") == [(2147483647,)]
    assert platform.query("SELECT min(currency_id) FROM dim_currency") == [(-2147483648,)]


ANOTHER_ORDER = (
    "INSERT INTO sales_order SELECT %s, created_at, last_updated, design_id, staff_id, counterparty_id, units_sold, "
    "unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id "
    "FROM sales_order WHERE sales_order_id = 1"
)
DEAD = [
    ("created_at", "infinity"),
    ("created_at", "0001-01-01 00:00:00"),
    ("created_at", "0044-03-15 12:00:00 BC"),
    ("created_at", "9999-12-31 23:59:59.999"),
    ("last_updated", "-infinity"),
    ("last_updated", "0044-03-15 12:00:00 BC"),
    ("unit_price", "NaN"),
    ("agreed_delivery_date", "24:00"),
    ("agreed_payment_date", "0000-01-01"),
    ("agreed_payment_date", "2024-02-30"),
    ("agreed_payment_date", "'; DROP TABLE dim_date; --"),
    ("agreed_payment_date", "[bold]2024[/bold] \x1b[31m"),
]


@pytest.mark.refreshed
def test_what_cannot_be_believed_waits_in_the_dead_letters_and_nothing_else_does(platform: Platform) -> None:
    dead = {str(number): (column, value) for number, (column, value) in enumerate(DEAD, start=100)}
    with psycopg.connect(platform.totesys_url) as connection:
        for key, (column, value) in dead.items():
            connection.execute(ANOTHER_ORDER, [key])
            text = value.replace("'", "''")
            connection.execute(f"UPDATE sales_order SET {column} = '{text}' WHERE sales_order_id = {key}")
    platform.refresh()
    listed = {each["row_key"]: each for each in json.loads(CliRunner().invoke(main, ["dead-letters", "--json"]).stdout)}
    assert listed.keys() == dead.keys()
    shown = CliRunner().invoke(main, ["dead-letters"]).output
    for key, (column, value) in dead.items():
        assert (listed[key]["table_name"], listed[key]["column_name"]) == ("sales_order", column), value
        raw = json.loads(listed[key]["raw"])[column].replace("T", " ")
        assert value.split()[0].strip("'") in raw or value == "NaN"
        assert f"sales_order {key}" in shown
    assert platform.query("SELECT sales_order_id FROM fact_sales_order") == [(1,)]
    assert platform.query("SELECT count(*) FROM fact_purchase_order") == [(1,)]


@pytest.mark.refreshed
def test_the_first_and_the_last_moment_of_last_updated_arrive_exactly(platform: Platform) -> None:
    moments = ["0001-01-01 00:00:00", "9999-12-31 23:59:59.999"]
    for number, moment in enumerate(moments, start=100):
        platform.sql(ANOTHER_ORDER, [number])
        platform.sql("UPDATE sales_order SET last_updated = %s WHERE sales_order_id = %s", [moment, number])
    platform.refresh()
    query = "SELECT last_updated_date::text || ' ' || last_updated_time FROM fact_sales_order"
    assert platform.query(f"{query} WHERE sales_order_id >= 100 ORDER BY 1") == [(moment,) for moment in moments]
