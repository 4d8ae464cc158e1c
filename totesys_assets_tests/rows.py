"""Source rows by hand, and a lake that holds versions of them as captures leave it: for tests without a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.catalogue.catalogue import COMMIT_LSN, MONTH, OPERATION, RECORDED_AT, catalogue, lake_schema
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.lake.commit import append
from totesys_assets.lake.read import RECORDED, microseconds, register
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.sql_text import quoted
from totesys_assets.transform.build import Built, build

Row = dict[str, Any]

CREATED_AT = "created_at"
CREATED = datetime(2024, 8, 20, 9, 10, 11, 123000)
SEEN = datetime(2024, 8, 20, 9, 10, 12, tzinfo=UTC)

_ROWS: dict[str, Row] = {
    "address": {
        "address_id": 1,
        "address_line_1": "6826 Herzog Via",
        "address_line_2": None,
        "district": "Avon",
        "city": "New Patienceburgh",
        "postal_code": "08841",
        "country": "Turkey",
        "phone": "1803 637401",
    },
    "department": {"department_id": 1, "department_name": "Sales", "location": "Manchester", "manager": "Richard Roma"},
    "currency": {"currency_id": 1, "currency_code": "GBP"},
    "payment_type": {"payment_type_id": 1, "payment_type_name": "SALES_RECEIPT"},
    "counterparty": {
        "counterparty_id": 1,
        "counterparty_legal_name": "Padberg, Lueilwitz and Johnson",
        "legal_address_id": 1,
        "commercial_contact": "Micheal Toy",
        "delivery_contact": None,
    },
    "staff": {
        "staff_id": 1,
        "first_name": "Jeremie",
        "last_name": "O'Keefe",
        "department_id": 1,
        "email_address": "jeremie@terrifictotes.com",
    },
    "design": {"design_id": 1, "design_name": "Wooden", "file_location": "/usr/local", "file_name": "wooden.json"},
    "sales_order": {
        "sales_order_id": 1,
        "design_id": 1,
        "staff_id": 1,
        "counterparty_id": 1,
        "units_sold": 1001,
        "unit_price": Decimal("2.43"),
        "currency_id": 1,
        "agreed_delivery_date": "2024-08-24",
        "agreed_payment_date": "2024-08-23",
        "agreed_delivery_location_id": 1,
    },
    "purchase_order": {
        "purchase_order_id": 1,
        "staff_id": 1,
        "counterparty_id": 1,
        "item_code": "ZDOI5EA",
        "item_quantity": 371,
        "item_unit_price": Decimal("361.39"),
        "currency_id": 1,
        "agreed_delivery_date": "2024-08-23",
        "agreed_payment_date": "2024-08-26",
        "agreed_delivery_location_id": 1,
    },
    "transaction": {
        "transaction_id": 1,
        "transaction_type": "SALE",
        "sales_order_id": 1,
        "purchase_order_id": None,
    },
    "payment": {
        "payment_id": 1,
        "transaction_id": 1,
        "counterparty_id": 1,
        "payment_amount": Decimal("2432.43"),
        "currency_id": 1,
        "payment_type_id": 1,
        "paid": False,
        "payment_date": "2024-08-23",
        "company_ac_number": 12345678,
        "counterparty_ac_number": 87654321,
    },
    "exchange_rate": {
        "exchange_rate_id": "2024-08-20 GBP",
        "rate_date": date(2024, 8, 20),
        "currency_code": "GBP",
        "units_per_euro": Decimal("0.85"),
    },
    "sales_target": {
        "target_month": date(2024, 8, 1),
        "department_name": "Sales",
        "currency_code": "GBP",
        "amount": Decimal("1000.00"),
    },
    "marketing_spend": {
        "spend_month": date(2024, 8, 1),
        "country": "Turkey",
        "currency_code": "GBP",
        "amount": Decimal("100.00"),
    },
}


def version(table: str, operation: str = "insert", seen: datetime = SEEN, /, **values: Any) -> Row:
    """One version of row 1 of ``table``, with some ``values`` of its own."""
    columns = catalogue().source[table].by_name
    times = {name: CREATED for name in (CREATED_AT, "last_updated") if name in columns}
    row = {**_ROWS[table], **times, **values}
    unknown = row.keys() - columns.keys()
    assert not unknown, f"{table} has no {unknown}"
    return {**row, OPERATION: operation, RECORDED_AT: seen, COMMIT_LSN: None}


def hold(lake: Lake, table: str, *versions: Row, dated: bool = False) -> None:
    """Append ``versions`` (none: only make the table) and note it in the ledger, as a capture does.

    ``dated``: they are the newest of the table, and their moment is left with the commit, as a capture leaves it.
    """
    source = catalogue().source[table]
    handle = lake.open_versions(source)
    if not versions:
        return
    schema = lake_schema(source, versioned=True)
    day = source.day_column
    rows = [{**row, MONTH: f"{row[day]:%Y-%m}"} for row in versions] if day else list(versions)
    marks = {RECORDED: microseconds(versions[-1][RECORDED_AT])} if dated else None
    append(handle, pa.Table.from_pylist(rows, schema=schema).to_batches(), schema, f"capture:{table}", marks)
    counts = Counter(f"{row[day]:%Y-%m-%d}" if day else WHOLE for row in versions)
    state = f"{table} {handle.version()}"
    Ledger(lake).append(
        Entry(f"{INGESTION}/{table}", partition, state, count, versions[-1][RECORDED_AT], "capture")
        for partition, count in counts.items()
    )


def hold_sources(lake: Lake, star: str) -> None:
    """One version of row 1 in each of the source tables that a star table is made of."""
    for table in query_of(star).sources:
        hold(lake, table, version(table))


def build_star(lake: Lake, table: str, days: DayRange | None = None, *, changes_only: bool = False) -> Built:
    """Build a star table; ``days`` are for a partitioned one."""
    return build(lake, catalogue(), catalogue().star[table], days=days, run_id="build", changes_only=changes_only)


def star_rows(lake: Lake, table: str) -> list[Row]:
    """The rows of a star table as they lie in the lake, by key and time."""
    star = catalogue().star[table]
    key = star.version_key or (star.key,)
    return table_rows(lake.open_processed(star), key)


def table_rows(table: DeltaTable, order: Sequence[str]) -> list[Row]:
    """The rows of any table of the lake."""
    connection = engine.connect()
    try:
        columns = ", ".join(quoted(name) for name in order)
        found = connection.execute(f"SELECT * FROM {register(connection, 'held', table)} ORDER BY {columns}")
        rows: list[Row] = found.to_arrow_table().to_pylist()
        return rows
    finally:
        connection.close()
