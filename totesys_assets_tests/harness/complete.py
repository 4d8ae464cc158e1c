"""What it means that a platform is complete: source, lake and warehouse compared by statements of their own.

Belongs here: the expectation, written by hand over the source, and the checks. Nothing of the platform's own way from
the source to the star is used for what is expected; it is only asked, at the end, whether it sees anything left to do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

import psycopg
import pyarrow.compute as pc

from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import capture
from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.source.interface import SourceSnapshot
from totesys_assets_tests.conftest import Platform

Rows = list[tuple[object, ...]]
Contents = dict[str, Rows]

_ISO = r"'^\d{4}-\d\d-\d\d$'"


@dataclass(frozen=True)
class _Fact:
    """A fact by hand: its columns in the warehouse, the same over the source, and which source rows are bad."""

    source: str
    key: str
    columns: str
    expected: str
    bad: str


_SPLIT = "created_at::date, created_at::time, last_updated::date, last_updated::time"
_SPLIT_COLUMNS = "created_date, created_time, last_updated_date, last_updated_time"


def _as_date(column: str) -> str:
    return f"CASE WHEN {column} ~ {_ISO} THEN {column}::date END"


_ORDER_DATES = f"{_as_date('agreed_payment_date')}, {_as_date('agreed_delivery_date')}"
_BAD_ORDER = f"agreed_payment_date !~ {_ISO} OR agreed_delivery_date !~ {_ISO}"

FACTS = {
    "fact_sales_order": _Fact(
        "sales_order",
        "sales_order_id",
        f"sales_order_id, {_SPLIT_COLUMNS}, sales_staff_id, counterparty_id, units_sold, unit_price, currency_id, "
        "design_id, agreed_payment_date, agreed_delivery_date, agreed_delivery_location_id",
        f"sales_order_id, {_SPLIT}, staff_id, counterparty_id, units_sold, unit_price, currency_id, design_id, "
        f"{_ORDER_DATES}, agreed_delivery_location_id",
        f"{_BAD_ORDER} OR unit_price = 'NaN'",
    ),
    "fact_purchase_order": _Fact(
        "purchase_order",
        "purchase_order_id",
        f"purchase_order_id, {_SPLIT_COLUMNS}, staff_id, counterparty_id, item_code, item_quantity, item_unit_price, "
        "currency_id, agreed_payment_date, agreed_delivery_date, agreed_delivery_location_id",
        f"purchase_order_id, {_SPLIT}, staff_id, counterparty_id, item_code, item_quantity, item_unit_price, "
        f"currency_id, {_ORDER_DATES}, agreed_delivery_location_id",
        f"{_BAD_ORDER} OR item_unit_price = 'NaN'",
    ),
    "fact_payment": _Fact(
        "payment",
        "payment_id",
        f"payment_id, {_SPLIT_COLUMNS}, transaction_id, counterparty_id, payment_amount, currency_id, "
        "payment_type_id, paid, payment_date",
        f"payment_id, {_SPLIT}, transaction_id, counterparty_id, payment_amount, currency_id, payment_type_id, paid, "
        f"{_as_date('payment_date')}",
        f"payment_date !~ {_ISO} OR payment_amount = 'NaN'",
    ),
}

# Dimension: its columns in the warehouse, and the query that gives the same of the source. The first is the key.
DIMENSIONS = {
    "dim_staff": (
        "staff_id, first_name, last_name, department_name, location, email_address",
        "SELECT staff_id, first_name, last_name, department_name, location, email_address "
        "FROM staff JOIN department USING (department_id)",
    ),
    "dim_location": (
        "location_id, address_line_1, address_line_2, district, city, postal_code, country, phone",
        "SELECT address_id, address_line_1, address_line_2, district, city, postal_code, country, phone FROM address",
    ),
    "dim_currency": ("currency_id, currency_code", "SELECT currency_id, currency_code FROM currency"),
    "dim_design": (
        "design_id, design_name, file_location, file_name",
        "SELECT design_id, design_name, file_location, file_name FROM design",
    ),
    "dim_counterparty": (
        "counterparty_id, counterparty_legal_name, counterparty_legal_address_line_1, "
        "counterparty_legal_address_line_2, counterparty_legal_district, counterparty_legal_city, "
        "counterparty_legal_postal_code, counterparty_legal_country, counterparty_legal_phone_number",
        "SELECT counterparty_id, counterparty_legal_name, address_line_1, address_line_2, district, city, "
        "postal_code, country, phone FROM counterparty JOIN address ON address_id = legal_address_id",
    ),
    "dim_payment_type": (
        "payment_type_id, payment_type_name",
        "SELECT payment_type_id, payment_type_name::text FROM payment_type",
    ),
    "dim_transaction": (
        "transaction_id, transaction_type, sales_order_id, purchase_order_id",
        "SELECT transaction_id, transaction_type::text, sales_order_id, purchase_order_id FROM transaction",
    ),
}
_VIEWS = [f"{view}_{fact.source}" for fact in FACTS.values() for view in ("current", "history")]
TABLES = ("dim_date", *DIMENSIONS, *FACTS)


@dataclass(frozen=True)
class State:
    """What a reader of the warehouse sees, table by table, at one moment."""

    tables: Contents
    current: Contents  # of each fact, the business columns of its current rows
    versions: dict[str, dict[object, tuple[object, ...]]]  # of each fact, by record number: operation, then the same


def look_at(platform: Platform) -> State:
    """The contents of the warehouse; a table that is not there yet is empty."""
    schema = platform.settings.warehouse_schema
    with psycopg.connect(platform.warehouse_url, options=f"-c search_path={schema}") as connection:
        there = {
            str(name)
            for (name,) in connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'v')", [schema]
            )
        }
        tables = {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() if name in there else []
            for name in (*TABLES, *_VIEWS)
        }
        current = {
            name: connection.execute(f"SELECT {fact.columns} FROM current_{fact.source} ORDER BY 1").fetchall()
            if f"current_{fact.source}" in there
            else []
            for name, fact in FACTS.items()
        }
        versions = {}
        for name, fact in FACTS.items():
            number = catalogue().star[name].key
            query = f"SELECT {number}, _operation, {fact.columns} FROM {name}"
            versions[name] = {row[0]: row[1:] for row in connection.execute(query)} if name in there else {}
    return State(tables, current, versions)


def require_old_or_new(seen: State, old: State, new: State) -> None:
    """No table, and no view of it, shows anything but its state before or its state after the refresh."""
    for name in (*TABLES, *_VIEWS):
        assert seen.tables[name] in (old.tables[name], new.tables[name]), f"{name} is half loaded"


def require_complete(platform: Platform, before: State | None = None) -> State:
    """All that the source says is in the warehouse, once, and nothing is left to do. Returns what is there.

    ``before`` is the complete state before the source's last change (or that of an empty warehouse): the records added
    since must be exactly those that the change explains, and all that were there must stand untouched.
    """
    after = look_at(platform)
    with psycopg.connect(platform.totesys_url, options="-c TimeZone=UTC") as source:
        bad = {
            name: source.execute(f"SELECT {fact.key} FROM {fact.source} WHERE {fact.bad} ORDER BY 1").fetchall()
            for name, fact in FACTS.items()
        }
        for name, fact in FACTS.items():
            good = f"SELECT {fact.expected} FROM {fact.source} WHERE NOT ({fact.bad}) ORDER BY 1"
            _require_fact(name, source.execute(good).fetchall(), {key for (key,) in bad[name]}, before, after)
        for name, (columns, query) in DIMENSIONS.items():
            expected = source.execute(f"{query} ORDER BY 1").fetchall()
            _require_dimension(platform, name, columns, expected, before, after)
    _require_calendar(after)
    assert {(row["table_name"], row["row_key"]) for row in open_dead_letters(platform.lake).to_pylist()} == {
        (fact.source, str(key)) for name, fact in FACTS.items() for (key,) in bad[name]
    }
    _require_lake(platform)
    seen = platform.look()
    assert (seen.stale, seen.requests, seen.problems) == ({}, [], [])
    _require_full_comparison_adds_nothing(platform)
    assert look_at(platform) == after
    return after


def _require_fact(name: str, good: Rows, bad: set[object], before: State | None, after: State) -> None:
    current = {row[0]: row for row in after.current[name]}
    assert len(current) == len(after.current[name])
    held = {row[0]: row for row in before.current[name]} if before else current
    # A row that turned bad keeps its last good version.
    expected = {row[0]: row for row in good} | {key: held[key] for key in bad if key in held}
    assert current == expected, name
    records = [tuple(row) for row in after.tables[name]]
    assert len(records) == len(after.versions[name]), f"{name} has a number twice"
    if before is None:
        return
    kept = before.tables[name]
    assert [row for row in records if row in set(kept)] == kept, f"{name} has lost or changed records"
    added = [version for number, version in after.versions[name].items() if number not in before.versions[name]]
    explained = [
        *(("insert", *row) for key, row in expected.items() if key not in held),
        *(("update", *row) for key, row in expected.items() if key in held and held[key] != row),
        *(("delete", *row) for key, row in held.items() if key not in expected),
    ]
    assert sorted(added, key=repr) == sorted(explained, key=repr), f"{name} has not exactly the versions expected"


def _require_dimension(
    platform: Platform, name: str, columns: str, expected: Rows, before: State | None, after: State
) -> None:
    assert platform.query(f"SELECT {columns} FROM {name} WHERE NOT _is_deleted ORDER BY 1") == expected, name
    gone = {row[0] for row in after.tables[name]} - {row[0] for row in expected}
    if before is not None:
        assert gone == {row[0] for row in before.tables[name]} - {row[0] for row in expected}, name


def _require_calendar(after: State) -> None:
    """Whole years from the first to two after the last day of trade, and every other day that a fact names."""
    created = {row[2] for name in FACTS for row in after.tables[name] if isinstance(row[2], date)}
    named = {value for name in FACTS for row in after.tables[name] for value in row if type(value) is date}
    first, end = date(min(created).year, 1, 1), date(max(created).year + 3, 1, 1)
    days = {first + timedelta(days=number) for number in range((end - first).days)} | named
    assert [row[0] for row in after.tables["dim_date"]] == sorted(days)


def _require_lake(platform: Platform) -> None:
    """No version is doubled: each differs from the one before it, and an insert comes first."""
    for name, table in catalogue().source.items():
        held = platform.lake.existing(table)
        columns = list(table.by_name)
        history: dict[object, list[Mapping[str, object]]] = defaultdict(list)
        data = held.to_pyarrow_table()
        for row in data.take(pc.sort_indices(data, [("_recorded_at", "ascending")])).to_pylist():
            day = row[table.day_column] if table.day_column else None
            key = tuple(row[name] for name in table.primary_key)
            history[key, day.date() if isinstance(day, datetime) else day].append(row)
        for versions in history.values():
            assert versions[0]["_operation"] == "insert", name
            for earlier, later in pairwise(versions):
                assert later["_recorded_at"] > earlier["_recorded_at"], name  # type: ignore[operator]
                again = later["_operation"] == "insert"
                assert again == (earlier["_operation"] == "delete"), name
                if later["_operation"] == "update":
                    assert [later[column] for column in columns] != [earlier[column] for column in columns], name
    for name, fact in FACTS.items():
        source, star = catalogue().source[fact.source], catalogue().star[name]
        identity = f"SELECT {fact.key}, _operation, _recorded_at FROM {name}"
        warehouse = sorted(platform.query(identity), key=repr)
        for held in (platform.lake.existing(source), platform.lake.open_processed(star)):
            rows = held.to_pyarrow_table(columns=[fact.key, "_operation", "_recorded_at"]).to_pylist()
            # Moments of one zone each: compared as what they are, not as they are written.
            found = [(row[fact.key], row["_operation"], row["_recorded_at"]) for row in rows]
            assert len(found) == len(warehouse), f"{name} of lake and warehouse differ"
            assert set(found) == set(warehouse), f"{name} of lake and warehouse differ"


# By lake and table: the rows of the source and the files of the lake that were compared last, and were equal.
_COMPARED: dict[tuple[str, str], tuple[object, ...]] = {}


def _require_full_comparison_adds_nothing(platform: Platform) -> None:
    """A table whose rows and files are those of the last comparison is not compared again: it would find the same."""
    totesys, *others = platform.core.sources
    with totesys.snapshot() as snapshot, psycopg.connect(platform.totesys_url) as source:
        for name, table in totesys.tables.items():
            rows = source.execute(f"SELECT md5(string_agg({name}::text, ' ' ORDER BY {name}::text)) FROM {name}")
            seen = (platform.totesys_url, *rows.fetchall(), *sorted(platform.lake.existing(table).file_uris()))
            if _COMPARED.get((platform.lake.uri, name)) == seen:
                continue
            _require_equal(platform, snapshot, table)
            _COMPARED[platform.lake.uri, name] = seen
    for other in others:
        with other.snapshot() as snapshot:
            for table in other.tables.values():
                _require_equal(platform, snapshot, table)


def _require_equal(platform: Platform, snapshot: SourceSnapshot, table: Table) -> None:
    days = platform.all_days if table.day_column else None
    captured = capture(snapshot, platform.lake, table, all_days=platform.all_days, days=days, run_id="comparison")
    assert captured.versions == 0, table.name
