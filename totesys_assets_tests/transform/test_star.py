"""The star tables, each against rows worked out by hand, and how building one replaces what lies in the lake."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlglot
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import MONTH, catalogue, lake_schema
from totesys_assets.catalogue.queries import Query, is_row_by_row, query_of
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.errors import ConcurrentWriters, PlatformError
from totesys_assets.lake import commit as commit_module
from totesys_assets.lake.commit import append
from totesys_assets.lake.tables import Lake
from totesys_assets.transform import build as module
from totesys_assets.transform import schemas
from totesys_assets.transform.build import expected_states
from totesys_assets.transform.engines import in_duckdb
from totesys_assets.transform.schemas import create_schemas
from totesys_assets_tests.rows import CREATED, SEEN, Row, build_star, hold, hold_sources, star_rows, table_rows, version

pytestmark = pytest.mark.pure

STAR = catalogue().star
DAY = CREATED.date()
TODAY = DayRange(DAY, DAY)
LATER = SEEN + timedelta(days=3)
EARLY, LATE = datetime(2024, 8, 1, 8), datetime(2024, 9, 30, 18)
BOTH_MONTHS = DayRange(EARLY.date(), LATE.date())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def built(lake: Lake, table: str, days: DayRange | None = None) -> list[Row]:
    build_star(lake, table, days)
    return star_rows(lake, table)


def only(rows: list[Row]) -> Row:
    assert len(rows) == 1
    return rows[0]


# What each table is made of


def test_a_sales_order_becomes_a_record_with_its_stamps_split_and_its_dates_as_dates(lake: Lake) -> None:
    hold(lake, "sales_order", version("sales_order", last_updated=datetime(2024, 8, 21, 7, 55, 0, 1000)))
    assert only(built(lake, "fact_sales_order", TODAY)) == {
        "sales_order_id": 1,
        "created_date": date(2024, 8, 20),
        "created_time": "09:10:11.123",
        "last_updated_date": date(2024, 8, 21),
        "last_updated_time": "07:55:00.001",
        "sales_staff_id": 1,
        "counterparty_id": 1,
        "units_sold": 1001,
        "unit_price": Decimal("2.43"),
        "currency_id": 1,
        "design_id": 1,
        "agreed_payment_date": date(2024, 8, 23),
        "agreed_delivery_date": date(2024, 8, 24),
        "agreed_delivery_location_id": 1,
        "_operation": "insert",
        "_recorded_at": SEEN,
        "_month": "2024-08",
    }


def test_a_purchase_order_becomes_a_record_that_keeps_its_staff_id_by_name(lake: Lake) -> None:
    values = {"staff_id": 2, "counterparty_id": 3, "currency_id": 4, "agreed_delivery_location_id": 5}
    hold(lake, "purchase_order", version("purchase_order", purchase_order_id=9, **values))
    assert only(built(lake, "fact_purchase_order", TODAY)) == {
        "purchase_order_id": 9,
        "created_date": DAY,
        "created_time": "09:10:11.123",
        "last_updated_date": DAY,
        "last_updated_time": "09:10:11.123",
        "staff_id": 2,
        "counterparty_id": 3,
        "item_code": "ZDOI5EA",
        "item_quantity": 371,
        "item_unit_price": Decimal("361.39"),
        "currency_id": 4,
        "agreed_delivery_date": date(2024, 8, 23),
        "agreed_payment_date": date(2024, 8, 26),
        "agreed_delivery_location_id": 5,
        "_operation": "insert",
        "_recorded_at": SEEN,
        "_month": "2024-08",
    }


def test_a_payment_becomes_a_record_without_account_numbers_and_with_its_own_transaction(lake: Lake) -> None:
    hold(lake, "payment", version("payment", payment_id=7, transaction_id=8, payment_type_id=3))
    assert only(built(lake, "fact_payment", TODAY)) == {
        "payment_id": 7,
        "created_date": DAY,
        "created_time": "09:10:11.123",
        "last_updated_date": DAY,
        "last_updated_time": "09:10:11.123",
        "transaction_id": 8,
        "counterparty_id": 1,
        "payment_amount": Decimal("2432.43"),
        "currency_id": 1,
        "payment_type_id": 3,
        "paid": False,
        "payment_date": date(2024, 8, 23),
        "_operation": "insert",
        "_recorded_at": SEEN,
        "_month": "2024-08",
    }


TIMES = {
    "00:00:00.000": datetime(2024, 8, 20, 0, 0),
    "09:10:11.123": datetime(2024, 8, 20, 9, 10, 11, 123000),
    "09:10:11.007": datetime(2024, 8, 20, 9, 10, 11, 7000),
    "12:00:01.000": datetime(2024, 8, 20, 12, 0, 1),
    "23:59:59.999": datetime(2024, 8, 20, 23, 59, 59, 999000),
}


@pytest.mark.parametrize("table", ["sales_order", "purchase_order", "payment"])
def test_a_time_of_day_keeps_its_milliseconds_and_never_leaves_its_day(lake: Lake, table: str) -> None:
    moments = enumerate(TIMES.values())
    hold(
        lake,
        table,
        *(version(table, **{f"{table}_id": key, "created_at": at, "last_updated": at}) for key, at in moments),
    )
    rows = built(lake, f"fact_{table}", TODAY)
    assert [(row["created_date"], row["created_time"]) for row in rows] == [(DAY, time) for time in TIMES]
    assert [(row["last_updated_date"], row["last_updated_time"]) for row in rows] == [(DAY, time) for time in TIMES]


@pytest.mark.parametrize(
    ("table", "column"),
    [("sales_order", "unit_price"), ("purchase_order", "item_unit_price"), ("payment", "payment_amount")],
)
def test_money_is_exact_to_the_penny_from_the_smallest_to_the_largest(lake: Lake, table: str, column: str) -> None:
    amounts = [Decimal("0.01"), Decimal("99999999.99"), Decimal("0.10"), Decimal("-1234567.89"), Decimal("0.00")]
    hold(
        lake, table, *(version(table, **{f"{table}_id": number, column: money}) for number, money in enumerate(amounts))
    )
    rows = built(lake, f"fact_{table}", TODAY)
    assert [row[column] for row in rows] == amounts
    held = lake.open_processed(STAR[f"fact_{table}"]).to_pyarrow_dataset()
    assert held.schema.field(column).type == pa.decimal128(10, 2)


def test_every_version_of_a_fact_is_a_record_the_deletion_too(lake: Lake) -> None:
    hold(lake, "sales_order", version("sales_order", units_sold=1001))
    hold(lake, "sales_order", version("sales_order", "update", SEEN + timedelta(hours=1), units_sold=2002))
    hold(lake, "sales_order", version("sales_order", "delete", SEEN + timedelta(hours=2), units_sold=2002))
    rows = built(lake, "fact_sales_order", TODAY)
    assert [(row["_operation"], row["units_sold"]) for row in rows] == [
        ("insert", 1001),
        ("update", 2002),
        ("delete", 2002),
    ]
    assert [row["_recorded_at"] for row in rows] == [SEEN + timedelta(hours=hours) for hours in range(3)]
    assert {row["last_updated_time"] for row in rows} == {"09:10:11.123"}


TRICKY = [
    "O'Keefe",
    "Padberg, Lueilwitz and Johnson",
    '"quoted"',
    "08841",
    "/usr/local\\share",
    "Bouvet Island (Bouvetoya)",
    "Svalbard & Jan Mayen Islands",
    " two  spaces ",
    "Ærø 東京",
    "NULL",
    "",
]


@pytest.mark.parametrize(
    ("source", "column", "star", "becomes"),
    [
        ("address", "postal_code", "dim_location", "postal_code"),
        ("address", "country", "dim_location", "country"),
        ("design", "file_location", "dim_design", "file_location"),
        ("payment_type", "payment_type_name", "dim_payment_type", "payment_type_name"),
    ],
)
def test_text_is_passed_on_untouched(lake: Lake, source: str, column: str, star: str, becomes: str) -> None:
    versions = [version(source, **{f"{source}_id": number, column: text}) for number, text in enumerate(TRICKY)]
    hold(lake, source, *versions)
    assert [row[becomes] for row in built(lake, star)] == TRICKY


def test_an_item_code_is_passed_on_untouched(lake: Lake) -> None:
    versions = [version("purchase_order", purchase_order_id=key, item_code=text) for key, text in enumerate(TRICKY)]
    hold(lake, "purchase_order", *versions)
    assert [row["item_code"] for row in built(lake, "fact_purchase_order", TODAY)] == TRICKY


def test_an_address_becomes_a_location_and_what_is_missing_stays_missing(lake: Lake) -> None:
    hold(lake, "address", version("address", address_line_2=None, district=None))
    assert only(built(lake, "dim_location")) == {
        "location_id": 1,
        "address_line_1": "6826 Herzog Via",
        "address_line_2": None,
        "district": None,
        "city": "New Patienceburgh",
        "postal_code": "08841",
        "country": "Turkey",
        "phone": "1803 637401",
        "_is_deleted": False,
        "_recorded_at": SEEN,
    }


def test_a_counterparty_carries_its_legal_address_and_no_contacts(lake: Lake) -> None:
    hold(
        lake,
        "address",
        version("address", address_id=1, city="Elsewhere"),
        version("address", address_id=2, city="Leeds", address_line_2="Suite 2", district=None, postal_code="02813"),
    )
    hold(lake, "counterparty", version("counterparty", legal_address_id=2))
    assert only(built(lake, "dim_counterparty")) == {
        "counterparty_id": 1,
        "counterparty_legal_name": "Padberg, Lueilwitz and Johnson",
        "counterparty_legal_address_line_1": "6826 Herzog Via",
        "counterparty_legal_address_line_2": "Suite 2",
        "counterparty_legal_district": None,
        "counterparty_legal_city": "Leeds",
        "counterparty_legal_postal_code": "02813",
        "counterparty_legal_country": "Turkey",
        "counterparty_legal_phone_number": "1803 637401",
        "_is_deleted": False,
        "_recorded_at": SEEN,
    }


def test_a_member_of_staff_carries_the_department_typo_and_all(lake: Lake) -> None:
    hold(
        lake,
        "department",
        version("department"),
        version("department", department_id=2, department_name="Dispatch", location="Leds"),
        version("department", department_id=3, department_name="Facilities", location=None),
    )
    hold(
        lake, "staff", version("staff", department_id=2), version("staff", staff_id=2, last_name="Roe", department_id=3)
    )
    first, second = built(lake, "dim_staff")
    assert first == {
        "staff_id": 1,
        "first_name": "Jeremie",
        "last_name": "O'Keefe",
        "department_name": "Dispatch",
        "location": "Leds",
        "email_address": "jeremie@terrifictotes.com",
        "_is_deleted": False,
        "_recorded_at": SEEN,
    }
    assert (second["department_name"], second["location"]) == ("Facilities", None)


def test_a_design_and_a_payment_type_lose_nothing_but_their_stamps(lake: Lake) -> None:
    hold(lake, "design", version("design"))
    hold(lake, "payment_type", version("payment_type", payment_type_id=3, payment_type_name="PURCHASE_PAYMENT"))
    technical = {"_is_deleted": False, "_recorded_at": SEEN}
    design = {"design_id": 1, "design_name": "Wooden", "file_location": "/usr/local", "file_name": "wooden.json"}
    assert only(built(lake, "dim_design")) == design | technical
    payment_type = {"payment_type_id": 3, "payment_type_name": "PURCHASE_PAYMENT"}
    assert only(built(lake, "dim_payment_type")) == payment_type | technical


def test_currencies_have_their_iso_names_and_an_unknown_code_is_its_own_name(lake: Lake) -> None:
    codes = ["GBP", "USD", "EUR", "XYZ"]
    hold(
        lake, "currency", *(version("currency", currency_id=key, currency_code=code) for key, code in enumerate(codes))
    )
    rows = built(lake, "dim_currency")
    assert [row["currency_code"] for row in rows] == codes
    assert [row["currency_name"] for row in rows] == ["Pound Sterling", "US Dollar", "Euro", "XYZ"]


def test_a_missing_order_id_of_a_transaction_stays_missing_and_the_other_stays_a_whole_number(lake: Lake) -> None:
    sale = version("transaction", transaction_id=1, sales_order_id=11, purchase_order_id=None)
    purchase = version(
        "transaction", transaction_id=2, transaction_type="PURCHASE", sales_order_id=None, purchase_order_id=22
    )
    orphan = version("transaction", transaction_id=3, sales_order_id=None, purchase_order_id=None)
    hold(lake, "transaction", sale, purchase, orphan)
    rows = built(lake, "dim_transaction", TODAY)
    assert [(row["transaction_type"], row["sales_order_id"], row["purchase_order_id"]) for row in rows] == [
        ("SALE", 11, None),
        ("PURCHASE", None, 22),
        ("SALE", None, None),
    ]
    assert {type(row["sales_order_id"]) for row in rows} == {int, type(None)}
    schema = lake.open_processed(STAR["dim_transaction"]).to_pyarrow_dataset().schema
    assert (schema.field("sales_order_id").type, schema.field("purchase_order_id").type) == (pa.int32(), pa.int32())
    assert {row["_created_date"] for row in rows} == {DAY}


# Dimensions: the latest state


DIMENSIONS = {
    "dim_location": ("address", "city"),
    "dim_design": ("design", "design_name"),
    "dim_currency": ("currency", "currency_code"),
    "dim_payment_type": ("payment_type", "payment_type_name"),
    "dim_transaction": ("transaction", "transaction_type"),
    "dim_staff": ("staff", "first_name"),
    "dim_counterparty": ("counterparty", "counterparty_legal_name"),
}


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_dimension_has_one_row_per_key_with_the_latest_values_and_flags_what_is_deleted(
    lake: Lake, name: str
) -> None:
    source, column = DIMENSIONS[name]
    key = f"{source}_id"
    hold_sources(lake, name)
    between = SEEN + timedelta(hours=1)
    hold(
        lake,
        source,
        version(source, "update", LATER, **{column: "changed"}),
        version(source, "insert", **{key: 2}),
        version(source, "update", between, **{key: 2, column: "last known"}),
        version(source, "delete", LATER, **{key: 2, column: "last known"}),
        version(source, "insert", **{key: 3}),
        version(source, "delete", between, **{key: 3}),
        version(source, "insert", LATER, **{key: 3, column: "came back"}),
    )
    rows = built(lake, name, TODAY)
    assert [(row[column], row["_is_deleted"]) for row in rows] == [
        ("changed", False),
        ("last known", True),
        ("came back", False),
    ]
    assert {row["_recorded_at"] for row in rows} == {LATER}


@pytest.mark.parametrize(
    ("name", "joined", "column", "becomes"),
    [
        ("dim_staff", "department", "department_name", "department_name"),
        ("dim_staff", "department", "location", "location"),
        ("dim_counterparty", "address", "city", "counterparty_legal_city"),
        ("dim_counterparty", "address", "phone", "counterparty_legal_phone_number"),
    ],
)
def test_a_dimension_follows_the_table_that_it_joins(
    lake: Lake, name: str, joined: str, column: str, becomes: str
) -> None:
    hold_sources(lake, name)
    hold(lake, joined, version(joined, "update", LATER, **{column: "new"}))
    row = only(built(lake, name))
    assert (row[becomes], row["_is_deleted"], row["_recorded_at"]) == ("new", False, LATER)


def test_a_dimension_outlives_the_row_that_it_joins(lake: Lake) -> None:
    hold_sources(lake, "dim_staff")
    hold(lake, "department", version("department", "delete", LATER))
    row = only(built(lake, "dim_staff"))
    assert (row["department_name"], row["_is_deleted"]) == ("Sales", False)


def test_a_counterparty_that_moves_gets_the_other_address_and_the_time_of_the_move(lake: Lake) -> None:
    hold_sources(lake, "dim_counterparty")
    hold(lake, "address", version("address", "insert", SEEN - timedelta(days=9), address_id=2, city="Leeds"))
    hold(lake, "counterparty", version("counterparty", "update", LATER, legal_address_id=2))
    row = only(built(lake, "dim_counterparty"))
    assert (row["counterparty_legal_city"], row["_recorded_at"]) == ("Leeds", LATER)


def test_of_a_departure_and_an_arrival_in_one_instant_the_arrival_is_the_newer(lake: Lake) -> None:
    hold(lake, "design", version("design"))
    hold(lake, "design", version("design", "delete", LATER), version("design", "insert", LATER, design_name="Moved"))
    row = only(built(lake, "dim_design"))
    assert (row["design_name"], row["_is_deleted"]) == ("Moved", False)


# The calendar


DATES = {  # every date of a fact that says another day than created_at
    "sales_order": ("last_updated", "agreed_delivery_date", "agreed_payment_date"),
    "purchase_order": ("last_updated", "agreed_delivery_date", "agreed_payment_date"),
    "payment": ("last_updated", "payment_date"),
}


def calendar(lake: Lake) -> list[Row]:
    for table in DATES:
        hold(lake, table)
    return built(lake, "dim_date")


def test_the_calendar_knows_quarter_month_and_day_of_every_month(lake: Lake) -> None:
    hold(lake, "sales_order", version("sales_order"))
    rows = {row["date_id"]: row for row in calendar(lake)}
    firsts = [rows[date(2024, month, 1)] for month in range(1, 13)]
    assert [row["quarter"] for row in firsts] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert rows[date(2024, 12, 31)]["quarter"] == 4
    assert [row["month"] for row in firsts] == list(range(1, 13))
    assert [row["month_name"] for row in firsts] == [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    assert rows[date(2024, 2, 29)]["day"] == 29


def test_the_week_of_the_calendar_begins_on_monday(lake: Lake) -> None:
    hold(lake, "sales_order", version("sales_order"))
    rows = {row["date_id"]: row for row in calendar(lake)}
    week = [rows[date(2024, 8, 19) + timedelta(days=days)] for days in range(7)]
    assert [(row["day_of_week"], row["day_name"]) for row in week] == [
        (1, "Monday"),
        (2, "Tuesday"),
        (3, "Wednesday"),
        (4, "Thursday"),
        (5, "Friday"),
        (6, "Saturday"),
        (7, "Sunday"),
    ]


def test_a_day_of_the_calendar_is_what_python_says_it_is(lake: Lake) -> None:
    hold(lake, "sales_order", version("sales_order"))
    for row in calendar(lake):
        day = row["date_id"]
        assert (row["year"], row["month"], row["day"]) == (day.year, day.month, day.day)
        assert (row["day_of_week"], row["quarter"]) == (day.isoweekday(), (day.month + 2) // 3)


def test_the_calendar_is_of_whole_years_to_two_years_ahead_and_does_not_fill_the_gap_to_an_outlier(lake: Lake) -> None:
    hold(lake, "sales_order", version("sales_order", created_at=datetime(2022, 11, 3, 14, 20)))
    hold(lake, "payment", version("payment", payment_date="2199-12-31"))
    days = [row["date_id"] for row in calendar(lake)]
    assert days == [*DayRange(date(2022, 1, 1), date(2026, 12, 31)), date(2199, 12, 31)]


@pytest.mark.parametrize("table", DATES)
def test_the_calendar_reaches_from_the_first_to_the_last_day_on_which_anything_was_created(
    lake: Lake, table: str
) -> None:
    hold(lake, table, version(table, created_at=datetime(2020, 2, 29)))
    hold(lake, table, version(table, created_at=datetime(2021, 12, 31, 23, 59, 59, 999000)))
    days = [row["date_id"] for row in calendar(lake)]
    assert (days[0], date(2023, 12, 31) in days, date(2022, 6, 1) in days) == (date(2020, 1, 1), True, True)
    assert len([day for day in days if day.year == 2024 and day.month != 8]) == 0


def test_every_date_of_every_version_of_every_fact_is_a_day_of_the_calendar(lake: Lake) -> None:
    outlier = date(2090, 1, 1)
    for table, columns in DATES.items():
        for operation in ("insert", "update", "delete"):
            values: dict[str, Any] = {}
            for column in columns:
                outlier += timedelta(days=400)
                values[column] = (
                    datetime(outlier.year, outlier.month, outlier.day, 23, 59, 59, 999000)
                    if column == "last_updated"
                    else outlier.isoformat()
                )
            hold(lake, table, version(table, operation, **values))
    days = {row["date_id"] for row in calendar(lake)}
    used = {
        row[column.name]
        for fact in STAR.values()
        if fact.is_fact
        for row in built(lake, fact.name, TODAY)
        for column in fact.columns
        if column.references == "dim_date"
    }
    assert len(used) == 1 + 3 * 8
    assert used <= days
    assert len(days) == 366 + 365 + 365 + 3 * 8


def test_a_day_is_in_the_calendar_once_however_often_it_is_used(lake: Lake) -> None:
    versions = [
        version("sales_order", sales_order_id=key, agreed_payment_date="2199-12-31", agreed_delivery_date="2199-12-31")
        for key in range(3)
    ]
    hold(lake, "sales_order", *versions)
    days = [row["date_id"] for row in calendar(lake)]
    assert len(days) == len(set(days)) == 366 + 365 + 365 + 1


def test_without_any_fact_the_calendar_is_empty(lake: Lake) -> None:
    assert calendar(lake) == []


# Building


def hold_two_months(lake: Lake) -> None:
    for number, moment in enumerate((EARLY, CREATED, LATE)):
        hold(lake, "sales_order", version("sales_order", sales_order_id=number, created_at=moment))


def units(lake: Lake) -> list[tuple[int, int]]:
    return [(row["sales_order_id"], row["units_sold"]) for row in star_rows(lake, "fact_sales_order")]


def ledger_rows(lake: Lake) -> int:
    table = lake.find("ledger")
    return len(table_rows(table, ["sequence"])) if table else 0


def test_a_build_replaces_only_the_days_asked_for(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_two_months(lake)
    built(lake, "fact_sales_order", BOTH_MONTHS)
    change_select(monkeypatch, lambda sql: sql.replace("units_sold", "9 AS units_sold"))
    build_star(lake, "fact_sales_order", TODAY)
    assert units(lake) == [(0, 1001), (1, 9), (2, 1001)]


def change_units(lake: Lake, recorded_at: datetime, units_sold: int) -> None:
    for number, moment in enumerate((EARLY, CREATED, LATE)):
        row = version("sales_order", "update", recorded_at, sales_order_id=number, created_at=moment)
        hold(lake, "sales_order", {**row, "units_sold": units_sold})


def test_what_was_recorded_since_the_last_build_is_added_on_all_days_and_nothing_is_replaced(lake: Lake) -> None:
    hold_two_months(lake)
    build_star(lake, "fact_sales_order", BOTH_MONTHS)
    files = set(lake.open_processed(STAR["fact_sales_order"]).file_uris())
    change_units(lake, LATER, 9)
    done = build_star(lake, "fact_sales_order", TODAY, changes_only=True)
    assert units(lake) == [(0, 1001), (0, 9), (1, 1001), (1, 9), (2, 1001), (2, 9)]
    assert files < set(lake.open_processed(STAR["fact_sales_order"]).file_uris())
    # Noted of all days, with all their rows.
    assert {entry.partition: entry.rows for entry in done.entries} == dict.fromkeys(
        ["2024-08-01", "2024-08-20", "2024-09-30"], 2
    )
    newest = Ledger(lake).newest()
    states = {key: entry.state for key, entry in newest["processed/fact_sales_order"].items()}
    assert states == expected_states(STAR["fact_sales_order"], newest)


@pytest.mark.parametrize("changes_only", [True, False])
def test_what_was_added_is_not_added_again(lake: Lake, changes_only: bool) -> None:
    hold_two_months(lake)
    build_star(lake, "fact_sales_order", BOTH_MONTHS)
    change_units(lake, LATER, 9)
    build_star(lake, "fact_sales_order", TODAY)
    rows = units(lake)
    build_star(lake, "fact_sales_order", TODAY if changes_only else BOTH_MONTHS, changes_only=changes_only)
    assert units(lake) == rows == [(0, 1001), (0, 9), (1, 1001), (1, 9), (2, 1001), (2, 9)]


def test_a_table_of_which_only_some_days_were_ever_built_is_not_added_to(lake: Lake) -> None:
    hold_two_months(lake)
    build_star(lake, "fact_sales_order", TODAY)
    build_star(lake, "fact_sales_order", BOTH_MONTHS, changes_only=True)
    assert units(lake) == [(0, 1001), (1, 1001), (2, 1001)]


def test_a_select_that_comes_back_does_not_find_the_days_of_another_its_own(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_two_months(lake)
    build_star(lake, "fact_sales_order", BOTH_MONTHS)
    with monkeypatch.context() as patch:
        change_select(patch, lambda sql: sql.replace("units_sold", "9 AS units_sold"))
        build_star(lake, "fact_sales_order", TODAY, changes_only=True)
        assert units(lake) == [(0, 1001), (1, 9), (2, 1001)]
    build_star(lake, "fact_sales_order", TODAY, changes_only=True)
    assert units(lake) == [(0, 1001), (1, 1001), (2, 1001)]


def test_versions_of_another_table_or_of_one_set_back_are_not_taken_for_additions(lake: Lake) -> None:
    hold_two_months(lake)
    change_units(lake, LATER, 9)
    build_star(lake, "fact_sales_order", BOTH_MONTHS)
    shutil.rmtree(Path(lake.uri, "ingestion", "sales_order"))
    hold_two_months(lake)  # recorded before what was lost
    build_star(lake, "fact_sales_order", BOTH_MONTHS, changes_only=True)
    assert units(lake) == [(0, 1001), (1, 1001), (2, 1001)]


def test_the_time_of_a_version_may_be_of_any_fraction_of_a_millisecond(lake: Lake) -> None:
    hold_two_months(lake)
    change_units(lake, LATER.replace(microsecond=1_100), 8)
    build_star(lake, "fact_sales_order", BOTH_MONTHS)
    change_units(lake, LATER.replace(microsecond=1_101), 9)
    build_star(lake, "fact_sales_order", BOTH_MONTHS, changes_only=True)
    assert units(lake) == [(number, each) for number in range(3) for each in (1001, 8, 9)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) AS n FROM history.payment",
        "SELECT row_number() OVER () AS n FROM history.payment",
        "SELECT payment_id FROM history.payment WHERE paid",
        "SELECT DISTINCT payment_id FROM history.payment",
        "SELECT payment_id FROM latest.payment",
        "SELECT payment_id FROM history.payment LIMIT 1",
        "SELECT payment_id FROM history.payment UNION ALL SELECT payment_id FROM history.payment",
        "SELECT payment_id FROM history.payment JOIN history.transaction USING (transaction_id)",
        "SELECT payment_id FROM history.payment, history.transaction",
        "SELECT payment_id, (SELECT max(x) FROM history.transaction) AS m FROM history.payment",
        "WITH p AS (SELECT * FROM history.payment) SELECT payment_id FROM p",
    ],
)
def test_only_what_makes_a_row_of_each_version_is_added_to(query: str) -> None:
    assert not is_row_by_row(sqlglot.parse_one(query, read="duckdb"))
    assert query_of("fact_payment").is_row_by_row


def test_a_build_of_days_without_rows_touches_nothing(lake: Lake) -> None:
    hold_two_months(lake)
    before = built(lake, "fact_sales_order", BOTH_MONTHS)
    assert built(lake, "fact_sales_order", DayRange(date(2024, 8, 21), date(2024, 9, 29))) == before


def test_a_day_that_the_lake_has_no_versions_of_is_emptied(lake: Lake) -> None:
    hold_two_months(lake)
    built(lake, "fact_sales_order", BOTH_MONTHS)
    table = STAR["fact_sales_order"]
    stray = [{**row, "created_date": date(2024, 8, 21)} for row in star_rows(lake, table.name)[:1]]
    schema = lake_schema(table, versioned=False)
    append(lake.open_processed(table), pa.Table.from_pylist(stray, schema=schema).to_batches(), schema, "build")
    assert len(star_rows(lake, table.name)) == 4
    build_star(lake, table.name, DayRange(date(2024, 8, 21), date(2024, 8, 21)))
    assert units(lake) == [(0, 1001), (1, 1001), (2, 1001)]


@pytest.mark.parametrize("name", STAR)
def test_building_twice_leaves_the_same_rows_and_notes_nothing_the_second_time(lake: Lake, name: str) -> None:
    hold_sources(lake, name)
    first, noted = built(lake, name, TODAY), ledger_rows(lake)
    assert first
    assert built(lake, name, TODAY) == first
    assert ledger_rows(lake) == noted


def test_a_build_in_many_pieces_gives_what_one_in_a_single_piece_gives(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, moment in enumerate((EARLY, CREATED, LATE)):
        hold(lake, "transaction", version("transaction", transaction_id=number, created_at=moment))
    whole = build_star(lake, "dim_transaction", BOTH_MONTHS)
    rows = star_rows(lake, "dim_transaction")
    monkeypatch.setattr(in_duckdb, "CHUNK_ROWS", 1)
    pieces = build_star(lake, "dim_transaction", BOTH_MONTHS)
    assert star_rows(lake, "dim_transaction") == rows
    assert [entry.rows for entry in pieces.entries] == [entry.rows for entry in whole.entries]
    assert pieces.rows == 3


def test_a_build_tells_the_rows_of_each_of_its_days(lake: Lake) -> None:
    hold_two_months(lake)
    hold(lake, "sales_order", version("sales_order", "update", LATER, sales_order_id=1))
    done = build_star(lake, "fact_sales_order", BOTH_MONTHS)
    assert {entry.partition: entry.rows for entry in done.entries if entry.rows} == {
        "2024-08-01": 1,
        "2024-08-20": 2,
        "2024-09-30": 1,
    }
    assert [entry.partition for entry in done.entries] == BOTH_MONTHS.keys
    hold(lake, "design", version("design"))
    assert [(entry.partition, entry.rows) for entry in build_star(lake, "dim_design").entries] == [(WHOLE, 1)]


def test_current_orders_are_sorted_only_where_some_were_changed(lake: Lake) -> None:
    def is_sorted() -> bool:
        mart = catalogue().marts["mart_sales_day"]
        with engine.session() as connection:
            versions = {"sales_order": lake.open_versions(catalogue().source["sales_order"])}
            create_schemas(connection, catalogue(), query_of(mart.name), versions, TODAY)
            plan = connection.execute("EXPLAIN SELECT * FROM current.fact_sales_order").fetchall()
            return "WINDOW" in str(plan) or "row_number" in str(plan)

    hold(lake, "sales_order", version("sales_order"))
    assert not is_sorted()
    hold(lake, "sales_order", version("sales_order", "update", LATER))
    assert is_sorted()


def test_a_build_notes_the_state_that_it_was_made_from_for_days_that_have_one(lake: Lake) -> None:
    hold_two_months(lake)
    build_star(lake, "fact_sales_order", BOTH_MONTHS)
    ledger = Ledger(lake).newest()
    states = {key: entry.state for key, entry in ledger["processed/fact_sales_order"].items()}
    assert states == expected_states(STAR["fact_sales_order"], ledger)
    assert sorted(states) == ["2024-08-01", "2024-08-20", "2024-09-30"]
    assert len(set(states.values())) == 3


def test_only_the_days_whose_source_changed_are_noted_again(lake: Lake) -> None:
    hold_two_months(lake)
    build_star(lake, "fact_sales_order", BOTH_MONTHS)
    noted = ledger_rows(lake)
    hold(lake, "sales_order", version("sales_order", "update", LATER, sales_order_id=1))
    build_star(lake, "fact_sales_order", BOTH_MONTHS)
    assert ledger_rows(lake) == noted + 1 + 1  # the capture's, and that of the one day built from it


def test_a_day_whose_rows_are_all_gone_from_the_source_loses_its_state_but_not_its_history(lake: Lake) -> None:
    hold(lake, "sales_order", version("sales_order"))
    build_star(lake, "fact_sales_order", TODAY)
    hold(lake, "sales_order", version("sales_order", "delete", LATER))
    gone = Ledger(lake).newest()["ingestion/sales_order"][DAY.isoformat()]
    Ledger(lake).append([type(gone)(gone.asset, gone.partition, "", 0, gone.recorded_at, gone.run_id, deleted=1)])
    rows = built(lake, "fact_sales_order", TODAY)
    assert [row["_operation"] for row in rows] == ["insert", "delete"]
    assert Ledger(lake).newest()["processed/fact_sales_order"][DAY.isoformat()].state == ""


def test_a_changed_select_gives_every_partition_another_state(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in catalogue().source:
        hold(lake, source, version(source))
    known = Ledger(lake).newest()
    before = {name: expected_states(table, known) for name, table in STAR.items()}
    change_select(monkeypatch, lambda sql: sql + " -- changed")
    after = {name: expected_states(table, known) for name, table in STAR.items()}
    assert all(before[name].keys() == after[name].keys() != set() for name in STAR)
    assert not any(before[name][key] == after[name][key] for name in STAR for key in before[name])


def change_select(monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str]) -> None:
    def changed(name: str) -> Query:
        query = query_of(name)
        return replace(query, sql=change(query.sql))

    for each in (module, schemas):
        monkeypatch.setattr(each, "query_of", changed)


def test_a_select_that_fails_says_which_table_and_why_and_leaves_the_table_as_it_was(lake: Lake) -> None:
    hold(lake, "sales_order", version("sales_order"))
    before = built(lake, "fact_sales_order", TODAY)
    hold(lake, "sales_order", version("sales_order", "update", LATER, agreed_payment_date="2024-13-99"))
    with pytest.raises(PlatformError, match=r'Building "fact_sales_order" failed.*2024-13-99'):
        build_star(lake, "fact_sales_order", TODAY)
    assert star_rows(lake, "fact_sales_order") == before


# Competing writers


class CompetingWriter:
    """Lets something happen between the moment when a build read the lake and its commit, the first ``times`` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], times: int = 1) -> None:
        self.commits, self._act, self._left = 0, act, times
        monkeypatch.setattr(in_duckdb, "replace", partial(self._commit, commit_module.replace))
        monkeypatch.setattr(in_duckdb, "append", partial(self._commit, commit_module.append))

    def _commit(
        self, real: Callable[..., None], table: DeltaTable, batches: Iterable[pa.RecordBatch], *arguments: object
    ) -> None:
        self.commits += 1
        computed = list(batches)
        if self._left:
            self._left -= 1
            left, self._left = self._left, 0  # the competitor's own commits are not interrupted
            self._act()
            self._left = left
        real(table, computed, *arguments)


@pytest.mark.parametrize("name", ["fact_sales_order", "dim_design", "dim_transaction", "dim_date"])
def test_a_build_that_another_writer_overtakes_is_done_again_and_doubles_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    hold_sources(lake, name)
    alone = built(lake, name, TODAY)
    competitor = CompetingWriter(monkeypatch, lambda: build_star(lake, name, TODAY))
    assert built(lake, name, TODAY) == alone
    assert competitor.commits == 3  # ours, the competitor's, and ours again


def test_a_build_overtaken_by_one_that_saw_more_ends_with_all_of_it(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(lake, "design", version("design"))

    def change_and_build() -> None:
        hold(lake, "design", version("design", "update", LATER, design_name="Granite"))
        build_star(lake, "dim_design")

    CompetingWriter(monkeypatch, change_and_build)
    assert only(built(lake, "dim_design"))["design_name"] == "Granite"
    newest = Ledger(lake).newest()
    assert newest["processed/dim_design"][WHOLE].state == expected_states(STAR["dim_design"], newest)[WHOLE]


def test_what_is_captured_while_a_star_table_is_built_is_left_for_the_next_build(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(lake, "design", version("design"))
    CompetingWriter(
        monkeypatch, lambda: hold(lake, "design", version("design", "update", LATER, design_name="Granite"))
    )
    build_star(lake, "dim_design")
    newest = Ledger(lake).newest()
    assert newest["processed/dim_design"][WHOLE].state != expected_states(STAR["dim_design"], newest)[WHOLE]
    assert only(built(lake, "dim_design"))["design_name"] == "Granite"


@pytest.mark.parametrize("name", ["dim_design", "fact_sales_order"])
def test_a_compaction_while_a_star_table_is_built_doubles_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    hold_sources(lake, name)
    before = built(lake, name, BOTH_MONTHS)
    table, schema = STAR[name], lake_schema(STAR[name], versioned=False)
    stray = [{**before[0], MONTH: "2024-08"} if table.day_column else before[0]]
    append(lake.open_processed(table), pa.Table.from_pylist(stray, schema=schema).to_batches(), schema, "build")
    CompetingWriter(monkeypatch, lake.compact)
    assert built(lake, name, BOTH_MONTHS) == before


def test_a_build_gives_up_with_a_sentence_when_others_win_five_times(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(lake, "design", version("design"))
    competitor = CompetingWriter(monkeypatch, lambda: build_star(lake, "dim_design"), times=5)
    with pytest.raises(ConcurrentWriters, match=r'committed to "dim_design" 5 times .* refresh again\.'):
        build_star(lake, "dim_design")
    assert competitor.commits == 10
    assert len(star_rows(lake, "dim_design")) == 1


def test_the_time_in_the_ledger_is_that_of_the_build(lake: Lake) -> None:
    hold(lake, "design", version("design"))
    before = datetime.now(UTC)
    (entry,) = build_star(lake, "dim_design").entries
    assert before <= entry.recorded_at <= datetime.now(UTC)
    assert (entry.asset, entry.run_id) == ("processed/dim_design", "build")
