"""What the catalogue says of the 22 tables, against the schemas as they were agreed, written out here by hand."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
import sqlglot
from sqlglot import exp

from totesys_assets.catalogue.catalogue import OPERATION, RECORDED_AT, Column, catalogue, ddl, lake_schema
from totesys_assets.catalogue.queries import query_of

pytestmark = pytest.mark.pure

TABLES = catalogue()

# A column: name, type, then "null", "key", "identity", "unique" and "-> table" where they hold.
STAMPS = ["created_at timestamp(3)", "last_updated timestamp(3)"]
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
        *STAMPS,
        "design_id int -> design",
        "staff_id int -> staff",
        "counterparty_id int -> counterparty",
        "units_sold int",
        "unit_price numeric(10,2)",
        "currency_id int -> currency",
        "agreed_delivery_date text",
        "agreed_payment_date text",
        "agreed_delivery_location_id int -> address",
    ],
    "purchase_order": [
        "purchase_order_id int key",
        *STAMPS,
        "staff_id int -> staff",
        "counterparty_id int -> counterparty",
        "item_code text",
        "item_quantity int",
        "item_unit_price numeric(10,2)",
        "currency_id int -> currency",
        "agreed_delivery_date text",
        "agreed_payment_date text",
        "agreed_delivery_location_id int -> address",
    ],
    "transaction": [
        "transaction_id int key",
        'transaction_type "TransactionType"',
        "sales_order_id int null unique -> sales_order",
        "purchase_order_id int null unique -> purchase_order",
        *STAMPS,
    ],
    "payment": [
        "payment_id int key",
        *STAMPS,
        "transaction_id int unique -> transaction",
        "counterparty_id int -> counterparty",
        "payment_amount numeric(10,2)",
        "currency_id int -> currency",
        "payment_type_id int -> payment_type",
        "paid boolean",
        "payment_date text",
        "company_ac_number int",
        "counterparty_ac_number int",
    ],
}
LABELS = {
    ("payment_type", "payment_type_name"): ("SALES_RECEIPT", "SALES_REFUND", "PURCHASE_PAYMENT", "PURCHASE_REFUND"),
    ("transaction", "transaction_type"): ("SALE", "PURCHASE"),
}
DATES_AS_TEXT = {
    ("sales_order", "agreed_delivery_date"),
    ("sales_order", "agreed_payment_date"),
    ("purchase_order", "agreed_delivery_date"),
    ("purchase_order", "agreed_payment_date"),
    ("payment", "payment_date"),
}

OF_DIMENSIONS = ["_is_deleted boolean", "_recorded_at timestamptz"]
OF_FACTS = ["_operation varchar", "_recorded_at timestamptz"]
SPLIT_STAMPS = [
    "created_date date -> dim_date",
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
        "_created_date date",
        *OF_DIMENSIONS,
    ],
    "fact_sales_order": [
        "sales_record_id int key identity",
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
        "purchase_record_id int key identity",
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
        "payment_record_id int key identity",
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
    "text": ("text", pa.string()),
    "varchar": ("character varying", pa.string()),
    "varchar(3)": ("character varying(3)", pa.string()),
    "boolean": ("boolean", pa.bool_()),
    "numeric(10,2)": ("numeric(10,2)", pa.decimal128(10, 2)),
    "date": ("date", pa.date32()),
    "time": ("time without time zone", pa.string()),
    "timestamp(3)": ("timestamp(3) without time zone", pa.timestamp("us")),
    "timestamptz": ("timestamp with time zone", pa.timestamp("us", tz="UTC")),
    '"PaymentTypeName"': ('"PaymentTypeName"', pa.string()),
    '"TransactionType"': ('"TransactionType"', pa.string()),
}
BY_DAY = {
    "sales_order": "created_at",
    "purchase_order": "created_at",
    "transaction": "created_at",
    "payment": "created_at",
    "dim_transaction": "_created_date",
    "fact_sales_order": "created_date",
    "fact_purchase_order": "created_date",
    "fact_payment": "created_date",
}

EVERY_DATE_OF_A_FACT = [
    ("payment", "created_at"),
    ("payment", "last_updated"),
    ("payment", "payment_date"),
    ("purchase_order", "agreed_delivery_date"),
    ("purchase_order", "agreed_payment_date"),
    ("purchase_order", "created_at"),
    ("purchase_order", "last_updated"),
    ("sales_order", "agreed_delivery_date"),
    ("sales_order", "agreed_payment_date"),
    ("sales_order", "created_at"),
    ("sales_order", "last_updated"),
]
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
    words += ["->", column.references] if column.references else []
    return " ".join(words)


def test_the_source_has_its_eleven_tables_and_no_other() -> None:
    assert sorted(TABLES.source) == sorted(SOURCE)
    assert len(TABLES.source) == 11


def test_the_star_has_its_eleven_tables_and_no_other() -> None:
    assert sorted(TABLES.star) == sorted(STAR)
    assert len(TABLES.star) == 11


@pytest.mark.parametrize("name", SOURCE)
def test_a_source_table_has_exactly_its_columns_in_their_physical_order(name: str) -> None:
    assert [spelled(column) for column in TABLES.source[name].columns] == SOURCE[name]


@pytest.mark.parametrize("name", STAR)
def test_a_star_table_has_exactly_the_official_columns_and_the_technical_ones_after_them(name: str) -> None:
    columns = TABLES.star[name].columns
    assert [spelled(column) for column in columns] == STAR[name]
    technical = [column.is_technical for column in columns]
    assert technical == sorted(technical)


def test_the_keys_are_those_of_the_tables() -> None:
    assert {name: table.key for name, table in TABLES.source.items()} == {name: f"{name}_id" for name in SOURCE}
    assert {table.key for table in TABLES.star.values() if table.is_fact} == {
        "sales_record_id",
        "purchase_record_id",
        "payment_record_id",
    }


def test_the_enums_have_their_labels_in_order_and_nothing_else_has_any() -> None:
    found = {
        (table.name, column.name): column.labels
        for table in (*TABLES.source.values(), *TABLES.star.values())
        for column in table.columns
        if column.labels
    }
    assert found == LABELS


def test_the_texts_that_hold_dates_are_declared() -> None:
    found = {
        (table.name, column.name) for table in TABLES.source.values() for column in table.columns if column.is_date_text
    }
    assert found == DATES_AS_TEXT


def test_only_the_currency_code_is_limited_in_length() -> None:
    limits = {
        (table.name, column.name): column.max_length
        for table in (*TABLES.source.values(), *TABLES.star.values())
        for column in table.columns
        if column.max_length is not None
    }
    assert limits == {("currency", "currency_code"): 3}


def test_facts_are_told_apart_by_key_day_and_the_time_they_were_recorded_and_dimensions_have_no_versions() -> None:
    assert {name: table.version_key for name, table in TABLES.star.items() if table.is_fact} == {
        "fact_sales_order": ("sales_order_id", "created_date", "_recorded_at"),
        "fact_purchase_order": ("purchase_order_id", "created_date", "_recorded_at"),
        "fact_payment": ("payment_id", "created_date", "_recorded_at"),
    }


def test_created_at_is_set_by_the_source_and_last_updated_by_nobody() -> None:
    created = re.findall(r"^    created_at (.+?),? --", ddl("totesys.sql"), re.MULTILINE)
    updated = re.findall(r"^    last_updated (.+?),? --", ddl("totesys.sql"), re.MULTILINE)
    assert created == ["timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP"] * 11
    assert updated == ["timestamp(3) NOT NULL"] * 11


def test_the_source_restricts_every_deletion_that_is_referred_to_save_that_of_an_order() -> None:
    actions = re.findall(r"REFERENCES (\w+) (ON UPDATE \w+ ON DELETE \w+(?: NULL)?)", ddl("totesys.sql"))
    assert len(actions) == ddl("totesys.sql").count("REFERENCES") == 17
    loose = [(table, action) for table, action in actions if action != "ON UPDATE CASCADE ON DELETE RESTRICT"]
    assert loose == [
        ("sales_order", "ON UPDATE CASCADE ON DELETE SET NULL"),
        ("purchase_order", "ON UPDATE CASCADE ON DELETE SET NULL"),
    ]


def test_every_table_and_every_column_is_described() -> None:
    everything = {**TABLES.source, **TABLES.star}
    assert [name for name, table in everything.items() if not table.description.startswith("One row per ")] == []
    assert [
        f"{table.name}.{column.name}"
        for table in everything.values()
        for column in table.columns
        if len(column.description) < 5
    ] == []


def test_a_description_belongs_to_its_own_column() -> None:
    payment = TABLES.source["payment"].by_name
    assert payment["counterparty_ac_number"].description == "bank account of the counterparty, eight digits"
    assert payment["paid"].description == "whether the money has moved"
    assert TABLES.source["sales_order"].by_name["design_id"].description == "the design sold"
    assert "trade" in TABLES.star["dim_date"].description


def test_orders_transactions_and_payments_and_what_is_made_of_them_alone_are_partitioned_by_day() -> None:
    found = {
        name: table.day_column
        for name, table in {**TABLES.source, **TABLES.star}.items()
        if table.day_column is not None
    }
    assert found == BY_DAY


@pytest.mark.parametrize("name", SOURCE)
def test_the_lake_keeps_a_source_table_in_exact_types_with_the_version_after_it(name: str) -> None:
    table = TABLES.source[name]
    expected = [pa.field(column.name, TYPES[word][1], column.nullable) for column, word in typed(table.columns, SOURCE)]
    expected += [pa.field(OPERATION, pa.string(), False), pa.field(RECORDED_AT, pa.timestamp("us", tz="UTC"), False)]
    expected += [pa.field("_month", pa.string(), False)] if name in BY_DAY else []
    assert lake_schema(table, versioned=True) == pa.schema(expected)


@pytest.mark.parametrize("name", STAR)
def test_the_lake_keeps_a_star_table_in_exact_types_without_its_identity(name: str) -> None:
    table = TABLES.star[name]
    expected = [
        pa.field(column.name, TYPES[word][1], column.nullable)
        for column, word in typed(table.columns, STAR)
        if not column.is_identity
    ]
    expected += [pa.field("_month", pa.string(), False)] if name in BY_DAY else []
    assert lake_schema(table, versioned=False) == pa.schema(expected)


def typed(columns: tuple[Column, ...], tables: dict[str, list[str]]) -> list[tuple[Column, str]]:
    """Columns with their short types as they are written out above."""
    listed = next(
        listed for listed in tables.values() if [line.split()[0] for line in listed] == [c.name for c in columns]
    )
    return [(column, line.split()[1]) for column, line in zip(columns, listed, strict=True)]


def test_money_is_decimal_and_a_time_of_day_is_text_in_the_lake() -> None:
    schema = lake_schema(TABLES.star["fact_sales_order"], versioned=False)
    assert schema.field("unit_price").type == pa.decimal128(10, 2)
    assert schema.field("created_time").type == pa.string()
    assert schema.field("sales_order_id").type == pa.int32()


@pytest.mark.parametrize("name", STAR)
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
    assert [name for name in STAR if not query_of(name).description.endswith(".")] == []


def test_facts_read_history_and_dimensions_what_is_latest() -> None:
    for name in STAR:
        parsed = sqlglot.parse_one(query_of(name).sql, read="duckdb")
        zones = {table.db for table in parsed.find_all(exp.Table) if table.db} - {"reference"}
        assert zones == ({"history"} if name.startswith("fact_") or name == "dim_date" else {"latest"}), name


def lineage(name: str) -> dict[str, list[tuple[str, str]]]:
    columns = {table.name: (*table.by_name, OPERATION, RECORDED_AT) for table in TABLES.source.values()}
    return query_of(name).column_lineage(columns)


@pytest.mark.parametrize("name", LINEAGE)
def test_every_column_of_a_star_table_can_be_traced_to_the_columns_that_it_is_made_of(name: str) -> None:
    source, exceptions = LINEAGE[name]
    expected = {}
    for column in TABLES.star[name].lake_columns:
        origin = exceptions.get(column.name, column.name)
        expected[column.name] = [(source, origin)] if isinstance(origin, str) else origin
    assert lineage(name) == expected


def test_every_column_of_the_calendar_comes_from_every_date_that_a_fact_has() -> None:
    found = lineage("dim_date")
    assert set(found) == set(TABLES.star["dim_date"].by_name)
    assert found["date_id"] == EVERY_DATE_OF_A_FACT
    assert all(origins == EVERY_DATE_OF_A_FACT for origins in found.values())


@pytest.mark.parametrize("dialect", ["spark", "athena"])
@pytest.mark.parametrize("name", STAR)
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
