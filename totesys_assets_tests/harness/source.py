"""The source as the model sees it: every value as the text that PostgreSQL writes, read by psycopg and by no code of
the platform, and the rules by which a row is a dead letter or becomes a row of the star, written out by hand.

Belongs here: reading and mapping single rows. Does not belong here: what became of rows in time, which is model.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

import psycopg

from totesys_assets.days import DayRange

# column -> text as PostgreSQL writes it
Row = Mapping[str, str | None]
# table -> key -> row: all tables at one instant
State = dict[str, dict[str, Row]]

# Every table with its columns in their order; the first is the key.
COLUMNS: dict[str, tuple[str, ...]] = {
    name: tuple(columns.split())
    for name, columns in {
        "address": "address_id address_line_1 address_line_2 district city postal_code country phone created_at "
        "last_updated",
        "department": "department_id department_name location manager created_at last_updated",
        "currency": "currency_id currency_code created_at last_updated",
        "payment_type": "payment_type_id payment_type_name created_at last_updated",
        "counterparty": "counterparty_id counterparty_legal_name legal_address_id commercial_contact delivery_contact "
        "created_at last_updated",
        "staff": "staff_id first_name last_name department_id email_address created_at last_updated",
        "design": "design_id created_at design_name file_location file_name last_updated",
        "sales_order": "sales_order_id created_at last_updated design_id staff_id counterparty_id units_sold "
        "unit_price currency_id agreed_delivery_date agreed_payment_date agreed_delivery_location_id",
        "purchase_order": "purchase_order_id created_at last_updated staff_id counterparty_id item_code item_quantity "
        "item_unit_price currency_id agreed_delivery_date agreed_payment_date agreed_delivery_location_id",
        "transaction": "transaction_id transaction_type sales_order_id purchase_order_id created_at last_updated",
        "payment": "payment_id created_at last_updated transaction_id counterparty_id payment_amount currency_id "
        "payment_type_id paid payment_date company_ac_number counterparty_ac_number",
    }.items()
}
BY_DAY = ("sales_order", "purchase_order", "transaction", "payment")
MONEY = ("unit_price", "item_unit_price", "payment_amount")
DATES = ("agreed_delivery_date", "agreed_payment_date", "payment_date")
STAMPS = ("created_at", "last_updated")
# The partition of a table that is one set.
WHOLE = "*"

# How Python names the encodings of servers. Of SQL_ASCII, which says nothing, most bytes are UTF-8.
_CODECS = {"UTF8": "utf-8", "SQL_ASCII": "utf-8", "LATIN1": "latin-1", "WIN1252": "cp1252", "EUC_JP": "euc_jp"}
# Said in every session, whatever the server, the database, the role and the environment say. The client's encoding is
# SQL_ASCII, so that the server converts nothing: the bytes are read, and written, here.
_SETTINGS = """
SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed';
SET default_transaction_deferrable = off; SET client_encoding = 'SQL_ASCII'; SET standard_conforming_strings = on;
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1;
SET bytea_output = 'hex'; SET quote_all_identifiers = off; SET transform_null_equals = off; SET row_security = on;
SET statement_timeout = 0; SET lock_timeout = '20s'; SET idle_in_transaction_session_timeout = 0
"""


class Observer:
    """A session of ours, whose results depend on no setting; text is converted here. Bytes that are no text of the
    server's encoding are in it as lone surrogates, in both directions.
    """

    def __init__(self, url: str, schema: str = "public") -> None:
        self._connection = psycopg.connect(url, autocommit=True, application_name="observer")
        self._connection.execute(f"{_SETTINGS}; SET search_path = {schema}".encode())
        self._codec = _CODECS[str(self._connection.info.parameter_status("server_encoding"))]

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session, and with it its transaction."""
        self._connection.close()

    def run(self, statement: str) -> list[tuple[str | None, ...]]:
        """Run a statement, or several as one, and return its rows, every value as text."""
        cursor = self._connection.execute(statement.encode(self._codec, "surrogateescape"))
        result = cursor.pgresult
        if result is None or cursor.description is None:
            return []
        columns = range(result.nfields)
        return [tuple(self._text(result.get_value(row, column)) for column in columns) for row in range(result.ntuples)]

    def _text(self, value: bytes | None) -> str | None:
        return None if value is None else value.decode(self._codec, "surrogateescape")


def read(url: str, schema: str = "public") -> State:
    """What is committed now, in one snapshot: taken when nobody rewrites a table, which would look empty to it."""
    with Observer(url, schema) as observer:
        return read_by(observer)


def read_by(observer: Observer) -> State:
    """The same in a session that is open."""
    observer.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    observer.run(f"LOCK TABLE {', '.join(COLUMNS)} IN ACCESS SHARE MODE")
    state = {table: _read_table(observer, table) for table in COLUMNS}
    observer.run("COMMIT")
    return state


def _read_table(observer: Observer, table: str) -> dict[str, Row]:
    columns = COLUMNS[table]
    rows = observer.run(f"SELECT {', '.join(f'{column}::text' for column in columns)} FROM {table}")
    return {str(row[0]): dict(zip(columns, row, strict=True)) for row in rows}


def day_of(row: Row, days: DayRange) -> str | None:
    """The day partition of a row that has one."""
    created = str(row["created_at"])
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2} .*", created) or created.endswith("BC"):
        return None
    day = created[:10]
    return day if str(days.first) <= day <= str(days.last) else None


def is_dead(table: str, row: Row, days: DayRange) -> bool:
    """True for a row that cannot be typed, or has no partition to be in."""
    if table in BY_DAY and day_of(row, days) is None:
        return True
    texts = (value for value in row.values() if value is not None and not value.isascii())
    if any(re.search("[\ud800-\udfff]", value) for value in texts):
        return True  # bytes that are no text
    stamps = (value for name in STAMPS if (value := row[name]) is not None)
    if any("infinity" in value or value.endswith("BC") or len(value.split("-")[0]) != 4 for value in stamps):
        return True
    return any(row.get(name) == "NaN" for name in MONEY) or any(
        not _is_date(str(row[name])) for name in DATES if name in row
    )


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _split(row: Row, column: str) -> tuple[str, str]:
    day, _, time = str(row[column]).partition(" ")
    return day, time


Mapped = tuple[str | None, ...]


@dataclass(frozen=True)
class FactTable:
    """How a fact is read from the warehouse, and what its source row makes of it."""

    source: str
    query: str
    expected: Callable[[Row], Mapped]


def _sales_order(row: Row) -> Mapped:
    same = ("staff_id", "counterparty_id", "units_sold", "unit_price", "currency_id", "design_id")
    agreed = ("agreed_payment_date", "agreed_delivery_date", "agreed_delivery_location_id")
    return (
        row["sales_order_id"],
        *_split(row, "created_at"),
        *_split(row, "last_updated"),
        *(row[name] for name in (*same, *agreed)),
    )


def _purchase_order(row: Row) -> Mapped:
    same = ("staff_id", "counterparty_id", "item_code", "item_quantity", "item_unit_price", "currency_id")
    agreed = ("agreed_delivery_date", "agreed_payment_date", "agreed_delivery_location_id")
    return (
        row["purchase_order_id"],
        *_split(row, "created_at"),
        *_split(row, "last_updated"),
        *(row[name] for name in (*same, *agreed)),
    )


def _payment(row: Row) -> Mapped:
    same = ("transaction_id", "counterparty_id", "payment_amount", "currency_id", "payment_type_id", "paid")
    return (
        row["payment_id"],
        *_split(row, "created_at"),
        *_split(row, "last_updated"),
        *(row[name] for name in (*same, "payment_date")),
    )


FACTS: dict[str, FactTable] = {
    "fact_sales_order": FactTable(
        "sales_order",
        "sales_record_id, _operation, _recorded_at, sales_order_id, created_date, created_time, last_updated_date, "
        "last_updated_time, sales_staff_id, counterparty_id, units_sold, unit_price, currency_id, design_id, "
        "agreed_payment_date, agreed_delivery_date, agreed_delivery_location_id",
        _sales_order,
    ),
    "fact_purchase_order": FactTable(
        "purchase_order",
        "purchase_record_id, _operation, _recorded_at, purchase_order_id, created_date, created_time, "
        "last_updated_date, last_updated_time, staff_id, counterparty_id, item_code, item_quantity, item_unit_price, "
        "currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id",
        _purchase_order,
    ),
    "fact_payment": FactTable(
        "payment",
        "payment_record_id, _operation, _recorded_at, payment_id, created_date, created_time, last_updated_date, "
        "last_updated_time, transaction_id, counterparty_id, payment_amount, currency_id, payment_type_id, paid, "
        "payment_date",
        _payment,
    ),
}


@dataclass(frozen=True)
class Dimension:
    """How a dimension is read from the warehouse, and what rows of its sources make of it.

    ``joined`` is the table and the column of the row that refers to it.
    """

    source: str
    query: str
    expected: Callable[[Row, Row], Mapped]
    joined: tuple[str, str] | None = None


def _named(*columns: str) -> Callable[[Row, Row], Mapped]:
    return lambda row, _: tuple(row[name] for name in columns)


_ADDRESS = ("address_line_1", "address_line_2", "district", "city", "postal_code", "country", "phone")
_CURRENCIES = {"GBP": "Pound Sterling", "USD": "US Dollar", "EUR": "Euro", "CHF": "Swiss Franc"}
DIMENSIONS: dict[str, Dimension] = {
    "dim_staff": Dimension(
        "staff",
        "staff_id, first_name, last_name, department_name, location, email_address",
        lambda staff, department: (
            *(staff[name] for name in ("staff_id", "first_name", "last_name")),
            department["department_name"],
            department["location"],
            staff["email_address"],
        ),
        ("department", "department_id"),
    ),
    "dim_location": Dimension(
        "address", f"location_id, {', '.join(_ADDRESS)}", lambda row, _: (row["address_id"], *map(row.get, _ADDRESS))
    ),
    "dim_currency": Dimension(
        "currency",
        "currency_id, currency_code, currency_name",
        lambda row, _: (
            row["currency_id"],
            row["currency_code"],
            _CURRENCIES.get(str(row["currency_code"]), row["currency_code"]),
        ),
    ),
    "dim_design": Dimension(
        "design",
        "design_id, design_name, file_location, file_name",
        _named("design_id", "design_name", "file_location", "file_name"),
    ),
    "dim_counterparty": Dimension(
        "counterparty",
        "counterparty_id, counterparty_legal_name, counterparty_legal_address_line_1, "
        "counterparty_legal_address_line_2, counterparty_legal_district, counterparty_legal_city, "
        "counterparty_legal_postal_code, counterparty_legal_country, counterparty_legal_phone_number",
        lambda row, address: (
            row["counterparty_id"],
            row["counterparty_legal_name"],
            *map(address.get, _ADDRESS),
        ),
        ("address", "legal_address_id"),
    ),
    "dim_payment_type": Dimension(
        "payment_type", "payment_type_id, payment_type_name", _named("payment_type_id", "payment_type_name")
    ),
    "dim_transaction": Dimension(
        "transaction",
        "transaction_id, transaction_type, sales_order_id, purchase_order_id, _created_date",
        lambda row, _: (
            *(row[name] for name in ("transaction_id", "transaction_type", "sales_order_id", "purchase_order_id")),
            _split(row, "created_at")[0],
        ),
    ),
}
# Which column of a fact leads to which dimension.
REFERENCES = {
    "sales_order": {
        "staff_id": "staff",
        "counterparty_id": "counterparty",
        "currency_id": "currency",
        "design_id": "design",
        "agreed_delivery_location_id": "address",
    },
    "purchase_order": {
        "staff_id": "staff",
        "counterparty_id": "counterparty",
        "currency_id": "currency",
        "agreed_delivery_location_id": "address",
    },
    "payment": {
        "transaction_id": "transaction",
        "counterparty_id": "counterparty",
        "currency_id": "currency",
        "payment_type_id": "payment_type",
    },
}
