"""What the catalogue says of the tables: what was agreed with others holds, and the rest follows from the DDL.

SOURCE and STAR are the agreement, written by hand as a second opinion: ToteSys as it is published, and the star as it
was ordered. A column or a table may be added to the DDL without a line here; one that was agreed may not change or go.
All else is derived from the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
import sqlglot
from sqlglot import exp

from totesys_assets.catalogue.catalogue import (
    COMMIT_LSN,
    OPERATION,
    RECORDED_AT,
    Column,
    Table,
    catalogue,
    ddl,
    lake_schema,
)
from totesys_assets.catalogue.queries import REFERENCES, query_of

pytestmark = pytest.mark.pure

TABLES = catalogue()

# A column: name, type, then "null", "key", "identity", "unique", "day" (the table is partitioned by it), "date" (a text
# that holds one) and "-> table" where they hold.
STAMPS = ["created_at timestamp(3)", "last_updated timestamp(3)"]
DAY_STAMPS = ["created_at timestamp(3) day", "last_updated timestamp(3)"]
SOURCE = {
    "address": [
        "address_id int key",
        "address_line_1 text",
        "address_line_2 text null",
        "district text null",
        "city text",
        "postal_code text",
        "country text",
        "phone text",
        *STAMPS,
    ],
    "counterparty": [
        "counterparty_id int key",
        "counterparty_legal_name text",
        "legal_address_id int -> address",
        "commercial_contact text null",
        "delivery_contact text null",
        *STAMPS,
    ],
    "currency": ["currency_id int key", "currency_code varchar(3)", *STAMPS],
    "department": [
        "department_id int key",
        "department_name text",
        "location text null",
        "manager text null",
        *STAMPS,
    ],
    "design": [
        "design_id int key",
        "created_at timestamp(3)",
        "design_name text",
        "file_location text",
        "file_name text",
        "last_updated timestamp(3)",
    ],
    "staff": [
        "staff_id int key",
        "first_name text",
        "last_name text",
        "department_id int -> department",
        "email_address text",
        *STAMPS,
    ],
    "payment_type": ["payment_type_id int key", 'payment_type_name "PaymentTypeName"', *STAMPS],
    "sales_order": [
        "sales_order_id int key",
        *DAY_STAMPS,
        "design_id int -> design",
        "staff_id int -> staff",
        "counterparty_id int -> counterparty",
        "units_sold int",
        "unit_price numeric(10,2)",
        "currency_id int -> currency",
        "agreed_delivery_date text date",
        "agreed_payment_date text date",
        "agreed_delivery_location_id int -> address",
    ],
    "purchase_order": [
        "purchase_order_id int key",
        *DAY_STAMPS,
        "staff_id int -> staff",
        "counterparty_id int -> counterparty",
        "item_code text",
        "item_quantity int",
        "item_unit_price numeric(10,2)",
        "currency_id int -> currency",
        "agreed_delivery_date text date",
        "agreed_payment_date text date",
        "agreed_delivery_location_id int -> address",
    ],
    "transaction": [
        "transaction_id int key",
        'transaction_type "TransactionType"',
        "sales_order_id int null unique -> sales_order",
        "purchase_order_id int null unique -> purchase_order",
        *DAY_STAMPS,
    ],
    "payment": [
        "payment_id int key",
        *DAY_STAMPS,
        "transaction_id int unique -> transaction",
        "counterparty_id int -> counterparty",
        "payment_amount numeric(10,2)",
        "currency_id int -> currency",
        "payment_type_id int -> payment_type",
        "paid boolean",
        "payment_date text date",
        "company_ac_number int",
        "counterparty_ac_number int",
    ],
}
LABELS = {
    ("payment_type", "payment_type_name"): ("SALES_RECEIPT", "SALES_REFUND", "PURCHASE_PAYMENT", "PURCHASE_REFUND"),
    ("transaction", "transaction_type"): ("SALE", "PURCHASE"),
}

OF_DIMENSIONS = ["_is_deleted boolean", "_recorded_at timestamptz"]
OF_FACTS = ["_operation varchar", "_recorded_at timestamptz"]
SPLIT_STAMPS = [
    "created_date date day -> dim_date",
    "created_time time",
    "last_updated_date date -> dim_date",
    "last_updated_time time",
]
STAR = {
    "dim_date": [
        "date_id date key",
        "year int",
        "month int",
        "day int",
        "day_of_week int",
        "day_name varchar",
        "month_name varchar",
        "quarter int",
    ],
    "dim_staff": [
        "staff_id int key",
        "first_name varchar",
        "last_name varchar",
        "department_name varchar",
        "location varchar null",
        "email_address varchar",
        *OF_DIMENSIONS,
    ],
    "dim_location": [
        "location_id int key",
        "address_line_1 varchar",
        "address_line_2 varchar null",
        "district varchar null",
        "city varchar",
        "postal_code varchar",
        "country varchar",
        "phone varchar",
        *OF_DIMENSIONS,
    ],
    "dim_currency": ["currency_id int key", "currency_code varchar", "currency_name varchar", *OF_DIMENSIONS],
    "dim_design": [
        "design_id int key",
        "design_name varchar",
        "file_location varchar",
        "file_name varchar",
        *OF_DIMENSIONS,
    ],
    "dim_counterparty": [
        "counterparty_id int key",
        "counterparty_legal_name varchar",
        "counterparty_legal_address_line_1 varchar",
        "counterparty_legal_address_line_2 varchar null",
        "counterparty_legal_district varchar null",
        "counterparty_legal_city varchar",
        "counterparty_legal_postal_code varchar",
        "counterparty_legal_country varchar",
        "counterparty_legal_phone_number varchar",
        *OF_DIMENSIONS,
    ],
    "dim_payment_type": ["payment_type_id int key", "payment_type_name varchar", *OF_DIMENSIONS],
    "dim_transaction": [
        "transaction_id int key",
        "transaction_type varchar",
        "sales_order_id int null",
        "purchase_order_id int null",
        "_created_date date day",
        *OF_DIMENSIONS,
    ],
    "fact_sales_order": [
        "sales_record_id bigint key identity",
        "sales_order_id int",
        *SPLIT_STAMPS,
        "sales_staff_id int -> dim_staff",
        "counterparty_id int -> dim_counterparty",
        "units_sold int",
        "unit_price numeric(10,2)",
        "currency_id int -> dim_currency",
        "design_id int -> dim_design",
        "agreed_payment_date date -> dim_date",
        "agreed_delivery_date date -> dim_date",
        "agreed_delivery_location_id int -> dim_location",
        *OF_FACTS,
    ],
    "fact_purchase_order": [
        "purchase_record_id bigint key identity",
        "purchase_order_id int",
        *SPLIT_STAMPS,
        "staff_id int -> dim_staff",
        "counterparty_id int -> dim_counterparty",
        "item_code varchar",
        "item_quantity int",
        "item_unit_price numeric(10,2)",
        "currency_id int -> dim_currency",
        "agreed_delivery_date date -> dim_date",
        "agreed_payment_date date -> dim_date",
        "agreed_delivery_location_id int -> dim_location",
        *OF_FACTS,
    ],
    "fact_payment": [
        "payment_record_id bigint key identity",
        "payment_id int",
        *SPLIT_STAMPS,
        "transaction_id int -> dim_transaction",
        "counterparty_id int -> dim_counterparty",
        "payment_amount numeric(10,2)",
        "currency_id int -> dim_currency",
        "payment_type_id int -> dim_payment_type",
        "paid boolean",
        "payment_date date -> dim_date",
        *OF_FACTS,
    ],
}

# Short name of a type -> PostgreSQL's own spelling, the lake's type.
TYPES = {
    "int": ("integer", pa.int32()),
    "bigint": ("bigint", pa.int64()),
    "text": ("text", pa.string()),
    "varchar": ("character varying", pa.string()),
    "varchar(3)": ("character varying(3)", pa.string()),
    "varchar(14)": ("character varying(14)", pa.string()),
    "varchar(100)": ("character varying(100)", pa.string()),
    "boolean": ("boolean", pa.bool_()),
    "numeric(5,2)": ("numeric(5,2)", pa.decimal128(5, 2)),
    "numeric(6,2)": ("numeric(6,2)", pa.decimal128(6, 2)),
    "numeric(10,2)": ("numeric(10,2)", pa.decimal128(10, 2)),
    "numeric(18,2)": ("numeric(18,2)", pa.decimal128(18, 2)),
    "numeric(18,8)": ("numeric(18,8)", pa.decimal128(18, 8)),
    "date": ("date", pa.date32()),
    "time": ("time without time zone", pa.string()),
    "timestamp(3)": ("timestamp(3) without time zone", pa.timestamp("us")),
    "timestamptz": ("timestamp with time zone", pa.timestamp("us", tz="UTC")),
    '"PaymentTypeName"': ('"PaymentTypeName"', pa.string()),
    '"TransactionType"': ('"TransactionType"', pa.string()),
}
# Star table -> (source table, {star column: source columns where the name is not simply the same}).
SPLIT = {
    "created_date": "created_at",
    "created_time": "created_at",
    "last_updated_date": "last_updated",
    "last_updated_time": "last_updated",
}
DELETED = {"_is_deleted": "_operation"}
LINEAGE: dict[str, tuple[str, dict[str, str | list[tuple[str, str]]]]] = {
    "dim_staff": (
        "staff",
        {
            "department_name": [("department", "department_name")],
            "location": [("department", "location")],
            "_recorded_at": [("department", "_recorded_at"), ("staff", "_recorded_at")],
            **DELETED,
        },
    ),
    "dim_location": ("address", {"location_id": "address_id", **DELETED}),
    "dim_currency": ("currency", {"currency_name": "currency_code", **DELETED}),
    "dim_design": ("design", {**DELETED}),
    "dim_counterparty": (
        "counterparty",
        {
            "counterparty_legal_address_line_1": [("address", "address_line_1")],
            "counterparty_legal_address_line_2": [("address", "address_line_2")],
            "counterparty_legal_district": [("address", "district")],
            "counterparty_legal_city": [("address", "city")],
            "counterparty_legal_postal_code": [("address", "postal_code")],
            "counterparty_legal_country": [("address", "country")],
            "counterparty_legal_phone_number": [("address", "phone")],
            "_recorded_at": [("address", "_recorded_at"), ("counterparty", "_recorded_at")],
            **DELETED,
        },
    ),
    "dim_payment_type": ("payment_type", {**DELETED}),
    "dim_transaction": ("transaction", {"_created_date": "created_at", **DELETED}),
    "fact_sales_order": ("sales_order", {"sales_staff_id": "staff_id", **SPLIT}),
    "fact_purchase_order": ("purchase_order", {**SPLIT}),
    "fact_payment": ("payment", {**SPLIT}),
}


def spelled(column: Column) -> str:
    short = {postgres: name for name, (postgres, _) in TYPES.items()}
    words = [column.name, short.get(column.type, column.type)]
    words += ["null"] if column.nullable else []
    words += ["key"] if column.is_key else []
    words += ["identity"] if column.is_identity else []
    words += ["unique"] if column.is_unique and not column.is_key else []
    words += ["day"] if column.is_day else []
    words += ["date"] if column.is_date_text else []
    words += ["->", column.references] if column.references else []
    return " ".join(words)


def require_agreed(tables: Mapping[str, Table], name: str, agreed: list[str]) -> None:
    """Fail unless the table has the agreed columns as they were agreed, in that order, whatever it has besides."""
    assert name in tables, f'The agreed table "{name}" is not in the catalogue.'
    there = {column.name: spelled(column) for column in tables[name].columns}
    names = [line.split()[0] for line in agreed]
    problems = [
        f"agreed: {line}; the DDL has: {there.get(column, 'no such column')}"
        for column, line in zip(names, agreed, strict=True)
        if there.get(column) != line
    ]
    if not problems and [column for column in there if column in names] != names:
        problems = [f"agreed order: {', '.join(names)}; the DDL has: {', '.join(there)}"]
    said = "\n".join(problems)
    assert not problems, f'Table "{name}" is not as agreed. If the agreement changed, change it here too.\n{said}'


EVERYTHING = {**TABLES.source, **TABLES.star}
COLUMNS = [(table.name, column) for table in EVERYTHING.values() for column in table.columns]
BY_DAY = {table: column.name for table, column in COLUMNS if column.is_day}


@pytest.mark.parametrize("name", SOURCE)
def test_a_table_of_totesys_has_the_agreed_columns_in_their_physical_order(name: str) -> None:
    require_agreed(TABLES.source, name, SOURCE[name])


@pytest.mark.parametrize("name", STAR)
def test_a_star_table_has_the_agreed_columns_in_their_order(name: str) -> None:
    require_agreed(TABLES.star, name, STAR[name])


@pytest.mark.parametrize("name", TABLES.star)
def test_a_star_table_has_its_technical_columns_after_the_others(name: str) -> None:
    technical = [column.is_technical for column in TABLES.star[name].columns]
    assert technical == sorted(technical)


def test_a_column_that_is_not_as_agreed_is_named_with_both_and_one_more_is_no_matter() -> None:
    agreed = SOURCE["currency"]
    require_agreed(TABLES.source, "currency", agreed[:1] + agreed[2:])
    with pytest.raises(AssertionError, match=r"agreed: currency_code text; the DDL has: currency_code varchar\(3\)"):
        require_agreed(TABLES.source, "currency", ["currency_id int key", "currency_code text", *STAMPS])
    with pytest.raises(AssertionError, match="agreed: symbol text; the DDL has: no such column"):
        require_agreed(TABLES.source, "currency", [*agreed, "symbol text"])
    with pytest.raises(AssertionError, match="agreed order: created_at, currency_id; the DDL has: currency_id"):
        require_agreed(TABLES.source, "currency", [STAMPS[0], agreed[0]])


def test_the_agreed_enumerations_have_their_labels_in_order() -> None:
    found = {(table, column.name): column.labels for table, column in COLUMNS if column.labels}
    assert {enumeration: found.get(enumeration) for enumeration in LABELS} == LABELS


def test_a_length_is_that_of_the_type() -> None:
    limits = [(column.type, column.max_length) for _, column in COLUMNS if column.max_length is not None]
    assert ("character varying(3)", 3) in limits
    assert [kind for kind, length in limits if kind != f"character varying({length})"] == []


def test_facts_are_told_apart_by_key_day_and_the_time_they_were_recorded_and_dimensions_have_no_versions() -> None:
    found = {name: table.version_key for name, table in TABLES.star.items() if name in STAR}
    assert found == {
        name: (f"{name.removeprefix('fact_')}_id", "created_date", "_recorded_at") if name.startswith("fact_") else ()
        for name in STAR
    }


def test_created_at_is_set_by_the_source_and_last_updated_by_nobody() -> None:
    created = re.findall(r"^    created_at (.+?),? --", ddl("totesys.sql"), re.MULTILINE)
    updated = re.findall(r"^    last_updated (.+?),? --", ddl("totesys.sql"), re.MULTILINE)
    assert len(created) >= len(SOURCE)
    assert set(created) == {"timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP"}
    assert set(updated) == {"timestamp(3) NOT NULL"}


def test_the_source_restricts_every_deletion_that_is_referred_to_save_that_of_an_order() -> None:
    actions = re.findall(r"REFERENCES (\w+) (ON UPDATE \w+ ON DELETE \w+(?: NULL)?)", ddl("totesys.sql"))
    assert len(actions) == ddl("totesys.sql").count("REFERENCES") > 0
    loose = [(table, action) for table, action in actions if action != "ON UPDATE CASCADE ON DELETE RESTRICT"]
    assert loose == [
        ("sales_order", "ON UPDATE CASCADE ON DELETE SET NULL"),
        ("purchase_order", "ON UPDATE CASCADE ON DELETE SET NULL"),
    ]


def test_every_table_and_every_column_is_described() -> None:
    assert [name for name, table in EVERYTHING.items() if not table.description.startswith("One row per ")] == []
    assert [f"{table}.{column.name}" for table, column in COLUMNS if len(column.description) < 5] == []


def test_a_description_belongs_to_its_own_column() -> None:
    payment = TABLES.source["payment"].by_name
    assert payment["counterparty_ac_number"].description == "bank account of the counterparty, eight digits"
    assert payment["paid"].description == "whether the money has moved"
    assert TABLES.source["sales_order"].by_name["design_id"].description == "the design sold"
    assert "trade" in TABLES.star["dim_date"].description


def test_a_table_is_partitioned_by_the_one_column_that_its_ddl_names() -> None:
    assert {name: table.day_column for name, table in EVERYTHING.items() if table.day_column} == BY_DAY
    assert len(BY_DAY) == len([column for _, column in COLUMNS if column.is_day])


@pytest.mark.parametrize("name", TABLES.source)
def test_the_lake_keeps_a_source_table_in_exact_types_with_the_version_after_it(name: str) -> None:
    expected = [*fields(TABLES.source[name]), pa.field(OPERATION, pa.string(), False)]
    expected += [pa.field(RECORDED_AT, pa.timestamp("us", tz="UTC"), False), pa.field(COMMIT_LSN, pa.int64())]
    assert lake_schema(TABLES.source[name], versioned=True) == pa.schema([*expected, *month(name)])


@pytest.mark.parametrize("name", TABLES.star)
def test_the_lake_keeps_a_star_table_in_exact_types_without_its_identity(name: str) -> None:
    assert lake_schema(TABLES.star[name], versioned=False) == pa.schema([*fields(TABLES.star[name]), *month(name)])


def fields(table: Table) -> list[pa.Field[Any]]:
    """What the lake must keep of the table's own columns, by the types of their DDL."""
    types = dict(TYPES.values())
    unknown = sorted({column.type for column in table.columns} - types.keys())
    assert not unknown, f'"{table.name}" has types that TYPES does not know: {", ".join(unknown)}. Add them there.'
    return [pa.field(each.name, types[each.type], each.nullable) for each in table.columns if not each.is_identity]


def month(name: str) -> list[pa.Field[Any]]:
    """The folder of a table that is partitioned."""
    return [pa.field("_month", pa.string(), False)] if name in BY_DAY else []


def test_money_is_decimal_and_a_time_of_day_is_text_in_the_lake() -> None:
    schema = lake_schema(TABLES.star["fact_sales_order"], versioned=False)
    assert schema.field("unit_price").type == pa.decimal128(10, 2)
    assert schema.field("created_time").type == pa.string()
    assert schema.field("sales_order_id").type == pa.int32()


@pytest.mark.parametrize("name", TABLES.star)
def test_a_star_select_gives_the_columns_of_its_table_by_name_and_in_order(name: str) -> None:
    query = sqlglot.parse_one(query_of(name).sql, read="duckdb")
    assert isinstance(query, exp.Query)
    assert query.named_selects == [column.name for column in TABLES.star[name].lake_columns]


@pytest.mark.parametrize(
    ("name", "sources"),
    [
        ("dim_date", ("sales_order", "purchase_order", "payment")),
        ("dim_staff", ("staff", "department")),
        ("dim_location", ("address",)),
        ("dim_currency", ("currency",)),
        ("dim_design", ("design",)),
        ("dim_counterparty", ("counterparty", "address")),
        ("dim_payment_type", ("payment_type",)),
        ("dim_transaction", ("transaction",)),
        ("fact_sales_order", ("sales_order",)),
        ("fact_purchase_order", ("purchase_order",)),
        ("fact_payment", ("payment",)),
    ],
)
def test_a_star_table_knows_the_source_tables_that_it_is_made_of(name: str, sources: tuple[str, ...]) -> None:
    assert query_of(name).sources == sources


def test_every_star_select_says_in_its_first_line_what_it_gives() -> None:
    assert [name for name in TABLES.star if not query_of(name).description.endswith(".")] == []


def test_facts_read_history_and_dimensions_what_is_latest() -> None:
    for name, table in TABLES.star.items():
        parsed = sqlglot.parse_one(query_of(name).sql, read="duckdb")
        zones = {table.db for table in parsed.find_all(exp.Table) if table.db} - {"reference"}
        assert zones == ({"history"} if table.is_fact or name == "dim_date" else {"latest"}), name


def lineage(name: str) -> dict[str, list[tuple[str, str]]]:
    columns = {table.name: (*table.by_name, OPERATION, RECORDED_AT) for table in TABLES.source.values()}
    return query_of(name).column_lineage(columns)


@pytest.mark.parametrize("name", LINEAGE)
def test_every_agreed_column_of_a_star_table_can_be_traced_to_the_columns_that_it_is_made_of(name: str) -> None:
    (source, exceptions), found, expected = LINEAGE[name], lineage(name), {}
    for column in (line.split()[0] for line in STAR[name] if "identity" not in line.split()):
        origin = exceptions.get(column, column)
        expected[column] = [(source, origin)] if isinstance(origin, str) else origin
    assert {column: found.get(column) for column in expected} == expected


@pytest.mark.parametrize("name", TABLES.star)
def test_every_column_of_a_star_table_is_made_of_columns_of_the_source(name: str) -> None:
    found = lineage(name)
    of_the_world = REFERENCES["country"][1:] if name == "dim_country" else ()  # what comes with the package
    assert [*found] == [each.name for each in TABLES.star[name].lake_columns if each.name not in of_the_world]
    assert [column for column, origins in found.items() if not origins] == []


def test_every_column_of_the_calendar_comes_from_every_date_that_a_fact_has() -> None:
    dates = [
        (name, column.name)
        for name in sorted(query_of("dim_date").sources)
        for column in sorted(TABLES.source[name].columns, key=lambda each: each.name)
        if column.is_date_text or column.type.startswith(("timestamp", "date"))
    ]
    assert len(dates) > 10
    assert {column: origins for column, origins in lineage("dim_date").items() if origins != dates} == {}


@pytest.mark.parametrize("dialect", ["spark", "athena"])
@pytest.mark.parametrize("name", TABLES.star)
def test_a_star_select_is_translated_for_other_engines_without_anything_left_over(name: str, dialect: str) -> None:
    (translated,) = sqlglot.transpile(
        query_of(name).sql, read="duckdb", write=dialect, unsupported_level=sqlglot.ErrorLevel.RAISE
    )
    (again,) = sqlglot.parse(translated, read=dialect)
    assert isinstance(again, exp.Query)
    # What sqlglot does not know it passes on as it stands: formats and parts of dates that only DuckDB understands.
    assert "%g" not in translated
    assert "ISODOW" not in translated
    assert not any(select.find(exp.AggFunc) and select.args.get("joins") for select in again.find_all(exp.Select))
