"""Reading the lake in Python: what analysts get, now and as of a time, and in which types."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import totesys_assets
from totesys_assets.catalogue.catalogue import MONTH, OPERATION, catalogue, lake_schema
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.reader import read, read_arrow
from totesys_assets_tests.rows import CREATED, SEEN, Row, hold, version

pytestmark = pytest.mark.pure

STAR, SOURCE = catalogue().star, catalogue().source
CHANGED = SEEN + timedelta(days=1)
DELETED = SEEN + timedelta(days=2)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake in which everything was seen once, and then some of it changed and some was deleted; tests only read it.

    Order 1 was changed, order 2 deleted, order 3 moved to another day; department and address 1 were changed;
    design 2 was deleted.
    """
    uri = str(tmp_path_factory.mktemp("lake"))
    lake = Lake(uri)
    for table in SOURCE:
        hold(lake, table, version(table))
    hold(lake, "sales_order", version("sales_order", sales_order_id=2), version("sales_order", sales_order_id=3))
    hold(lake, "design", version("design", design_id=2))
    moved = CREATED - timedelta(days=1)
    hold(
        lake,
        "sales_order",
        version("sales_order", "update", CHANGED, sales_order_id=1, units_sold=2002, unit_price=Decimal("0.10")),
        version("sales_order", "delete", CHANGED, sales_order_id=3),
        version("sales_order", "insert", CHANGED, sales_order_id=3, created_at=moved),
    )
    hold(lake, "department", version("department", "update", CHANGED, location="Leds"))
    hold(lake, "address", version("address", "update", CHANGED, city="Leeds"))
    hold(lake, "sales_order", version("sales_order", "delete", DELETED, sales_order_id=2))
    hold(lake, "design", version("design", "delete", DELETED, design_id=2))
    return uri


def rows(table: pa.Table, *columns: str) -> list[tuple[object, ...]]:
    return sorted(tuple(row[column] for column in columns) for row in table.to_pylist())


def test_a_fact_is_read_as_it_is_now_one_row_per_order_without_the_deleted(filled: str) -> None:
    orders = read_arrow("fact_sales_order", lake=filled)
    assert rows(orders, "sales_order_id", "created_date", "units_sold") == [
        (1, date(2024, 8, 20), 2002),
        (3, date(2024, 8, 19), 1001),
    ]
    assert OPERATION not in orders.column_names


def test_a_source_table_is_read_as_it_is_now_one_row_per_key_without_the_deleted(filled: str) -> None:
    orders = read_arrow("sales_order", lake=filled)
    assert rows(orders, "sales_order_id", "created_at", "units_sold") == [
        (1, CREATED, 2002),
        (3, CREATED - timedelta(days=1), 1001),
    ]
    assert rows(read_arrow("design", lake=filled), "design_id") == [(1,)]


def test_a_dimension_is_read_with_its_latest_values_and_the_deleted_flagged(filled: str) -> None:
    assert rows(read_arrow("dim_design", lake=filled), "design_id", "_is_deleted") == [(1, False), (2, True)]
    assert rows(read_arrow("dim_staff", lake=filled), "location") == [("Leds",)]
    assert rows(read_arrow("dim_counterparty", lake=filled), "counterparty_legal_city") == [("Leeds",)]


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [
        (SEEN, [(1, 1001), (2, 1001), (3, 1001)]),
        (CHANGED - timedelta(microseconds=1), [(1, 1001), (2, 1001), (3, 1001)]),
        (CHANGED, [(1, 2002), (2, 1001), (3, 1001)]),
        (DELETED, [(1, 2002), (3, 1001)]),
    ],
)
@pytest.mark.parametrize("table", ["fact_sales_order", "sales_order"])
def test_orders_can_be_read_as_of_any_time(
    filled: str, table: str, as_of: datetime, expected: list[tuple[int, int]]
) -> None:
    assert rows(read_arrow(table, as_of=as_of, lake=filled), "sales_order_id", "units_sold") == expected


def test_dimensions_can_be_read_as_of_any_time_what_they_join_too(filled: str) -> None:
    before, after = CHANGED - timedelta(seconds=1), CHANGED
    assert rows(read_arrow("dim_staff", as_of=before, lake=filled), "location") == [("Manchester",)]
    assert rows(read_arrow("dim_staff", as_of=after, lake=filled), "location") == [("Leds",)]
    city = "counterparty_legal_city"
    assert rows(read_arrow("dim_counterparty", as_of=before, lake=filled), city) == [("New Patienceburgh",)]
    assert rows(read_arrow("dim_counterparty", as_of=after, lake=filled), city) == [("Leeds",)]
    assert rows(read_arrow("dim_design", as_of=after, lake=filled), "design_id", "_is_deleted") == [
        (1, False),
        (2, False),
    ]


@pytest.mark.parametrize("table", [*STAR, *SOURCE])
def test_a_moment_before_the_first_record_is_said_to_be_that(filled: str, table: str) -> None:
    with pytest.raises(PlatformError, match=r"knows nothing of 2020-01-01 00:00:00 UTC: its first record is of "):
        read_arrow(table, as_of=datetime(2020, 1, 1, tzinfo=UTC), lake=filled)
    with pytest.raises(PlatformError, match="knows nothing of"):
        read_arrow("sales_order", as_of=SEEN - timedelta(microseconds=1), lake=filled)


def test_a_moment_to_come_and_a_text_that_is_no_moment_are_refused(filled: str) -> None:
    with pytest.raises(PlatformError, match="2999-01-01 00:00:00 UTC is yet to come"):
        read_arrow("sales_order", as_of="2999-01-01", lake=filled)
    with pytest.raises(PlatformError, match="'yesterday' is no date or time: write it as 2026-01-31"):
        read_arrow("sales_order", as_of="yesterday", lake=filled)


def test_a_moment_may_be_a_text_or_a_date(filled: str) -> None:
    def units(as_of: str | date | datetime) -> object:
        return rows(read_arrow("sales_order", as_of=as_of, lake=filled), "sales_order_id", "units_sold")

    after = (DELETED + timedelta(days=1)).date()
    assert units(DELETED.isoformat()) == units(DELETED) == [(1, 2002), (3, 1001)]
    assert units(f" {DELETED:%Y-%m-%d %H:%M:%S.%f} ") == units(DELETED)
    assert units(after) == units(after.isoformat()) == units(DELETED)


def test_a_time_without_a_zone_is_utc_and_one_with_a_zone_is_what_it_says(filled: str) -> None:
    def units(as_of: datetime) -> object:
        return rows(read_arrow("sales_order", as_of=as_of, lake=filled), "sales_order_id", "units_sold")[0]

    an_instant_before = CHANGED - timedelta(microseconds=1)
    for zone in (UTC, timezone(timedelta(hours=1)), timezone(-timedelta(hours=9))):
        assert units(CHANGED.astimezone(zone)) == (1, 2002)
        assert units(an_instant_before.astimezone(zone)) == (1, 1001)
    assert units(CHANGED.replace(tzinfo=None)) == (1, 2002)
    assert units(an_instant_before.replace(tzinfo=None)) == (1, 1001)


@pytest.mark.parametrize("table", ["fact_sales_order", "sales_order"])
def test_history_has_every_version_with_how_and_when_it_came_to_be(filled: str, table: str) -> None:
    history = read_arrow(table, history=True, lake=filled)
    assert rows(history, "sales_order_id", "_recorded_at", "_operation", "units_sold") == [
        (1, SEEN, "insert", 1001),
        (1, CHANGED, "update", 2002),
        (2, SEEN, "insert", 1001),
        (2, DELETED, "delete", 1001),
        (3, SEEN, "insert", 1001),
        (3, CHANGED, "delete", 1001),
        (3, CHANGED, "insert", 1001),
    ]


def test_history_can_be_read_as_of_a_time_too(filled: str) -> None:
    history = read_arrow("department", history=True, as_of=SEEN, lake=filled)
    assert rows(history, "location", "_operation") == [("Manchester", "insert")]


@pytest.mark.parametrize("table", STAR)
def test_a_star_table_has_the_columns_and_types_that_the_lake_keeps_and_times_as_times(filled: str, table: str) -> None:
    times = {column.name for column in STAR[table].columns if column.type.startswith("time ")}
    expected = [
        (field.name, pa.time64("us") if field.name in times else field.type)
        for field in lake_schema(STAR[table], versioned=False)
        if field.name != MONTH
    ]
    found = read_arrow(table, lake=filled)
    assert found.num_rows > 0
    assert [(field.name, field.type) for field in found.schema] == [each for each in expected if each[0] != OPERATION]


@pytest.mark.parametrize("table", SOURCE)
def test_a_source_table_has_the_columns_and_types_that_the_lake_keeps(filled: str, table: str) -> None:
    expected = [(field.name, field.type) for field in lake_schema(SOURCE[table], versioned=True) if field.name != MONTH]
    found = read_arrow(table, history=True, lake=filled)
    assert found.num_rows > 0
    assert [(field.name, field.type) for field in found.schema] == expected


def test_pandas_gets_arrow_types_in_which_decimals_dates_and_missing_numbers_stay_what_they_are(filled: str) -> None:
    orders = read("fact_sales_order", lake=filled)
    assert all(isinstance(dtype, pd.ArrowDtype) for dtype in orders.dtypes)
    assert orders.dtypes["unit_price"] == pd.ArrowDtype(pa.decimal128(10, 2))
    assert orders.dtypes["created_date"] == pd.ArrowDtype(pa.date32())
    assert orders.dtypes["created_time"] == pd.ArrowDtype(pa.time64("us"))
    assert orders.set_index("sales_order_id").created_time[1] == CREATED.time()
    assert sorted(orders.units_sold * orders.unit_price) == [Decimal("200.20"), Decimal("2432.43")]
    transactions = read("dim_transaction", lake=filled)
    assert transactions.dtypes["purchase_order_id"] == pd.ArrowDtype(pa.int32())
    assert transactions.sales_order_id.tolist() == [1]
    assert transactions.purchase_order_id.isna().tolist() == [True]


def test_analysts_find_read_at_the_top_of_the_package() -> None:
    assert totesys_assets.read is read
    assert totesys_assets.read_arrow is read_arrow
    with pytest.raises(AttributeError, match="has no attribute 'write'"):
        totesys_assets.write  # noqa: B018


def test_the_lake_is_where_the_environment_says_unless_another_is_named(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE_URI", filled)
    assert read_arrow("currency").num_rows == 1
    with pytest.raises(PlatformError, match="holds no"):
        read_arrow("currency", lake=str(tmp_path))


def test_reading_changes_nothing_in_the_lake(filled: str) -> None:
    before = sorted(Path(filled).rglob("*"))
    for table in (*STAR, *SOURCE):
        read_arrow(table, lake=filled)
    assert sorted(Path(filled).rglob("*")) == before


def test_an_unknown_table_is_answered_with_those_that_there_are(filled: str) -> None:
    with pytest.raises(PlatformError) as caught:
        read("orders", lake=filled)
    message = str(caught.value)
    assert message.startswith('There is no table "orders".')
    assert all(name in message for name in (*STAR, *SOURCE))


def test_an_empty_lake_says_what_to_run_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r'holds no "sales_order" yet\. Run: totesys refresh\.'):
        read("fact_sales_order", lake=str(tmp_path / "lake"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "instead"),
    [
        ("dim_staff", "staff and department"),
        ("dim_counterparty", "counterparty and address"),
        ("dim_location", "address"),
        ("dim_date", "sales_order and purchase_order and payment"),
    ],
)
def test_the_history_of_a_dimension_is_that_of_its_source_tables(filled: str, table: str, instead: str) -> None:
    with pytest.raises(PlatformError) as caught:
        read(table, history=True, lake=filled)
    assert str(caught.value) == (
        f'"{table}" is a dimension and holds the latest values only; read the history of {instead}.'
    )


def test_files_that_are_gone_are_an_error_that_names_the_table(tmp_path: Path) -> None:
    row: Row = version("currency")
    hold(Lake(str(tmp_path)), "currency", row)
    for file in (tmp_path / "ingestion" / "currency").glob("*.parquet"):
        file.unlink()
    with pytest.raises(PlatformError, match=r'^Reading "currency" .* failed: .*No files found'):
        read("currency", lake=str(tmp_path))
