"""Capture: what ToteSys did, case by case, on a real PostgreSQL and real Delta tables."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from threading import Event, Thread

import duckdb
import psycopg
import psycopg.conninfo
import pytest
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture import difference
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.capture.lost_ledger import corrected, ingestion_name, is_unknown, missing_entries
from totesys_assets.catalogue.catalogue import Table, catalogue, lake_schema
from totesys_assets.days import DayRange
from totesys_assets.errors import (
    ConcurrentWriters,
    ConnectionFailed,
    MassDeletion,
    PlatformError,
    SchemaDrift,
    StaleSnapshot,
    WrongDatabase,
)
from totesys_assets.lake.commit import append
from totesys_assets.lake.tables import INGESTION, LEDGER, Lake
from totesys_assets.load.origin import open_sources
from totesys_assets.names import TOTESYS
from totesys_assets.source.interface import SourceSnapshot
from totesys_assets.source.shared_snapshot import SharedSnapshot
from totesys_assets.source.totesys import Totesys
from totesys_assets_tests.audit.test_beside_a_refresh import interrupt
from totesys_assets_tests.conftest import FIRST_DAY, Platform

SOURCE = {name: table for name, table in catalogue().source.items() if table.group == TOTESYS}
# The order of TRADE was placed on this day.
ORDER_DAY = date(2024, 8, 20)

# Orders like that of TRADE, a hundred on each of ten days, then again: number of the first, how many, first day.
MORE_ORDERS = """
INSERT INTO sales_order
SELECT %s + n, stamp, stamp, 1, 1, 1, 1001 + n, 2.43, 3, '2024-08-24', '2024-08-23', 1
FROM generate_series(0, %s - 1) AS n, LATERAL (SELECT %s::timestamp + n / 100 %% 10 * interval '1 day') AS s(stamp)
"""
ONE_ORDER = [2, 1, ORDER_DAY]


def add_orders(platform: Platform, count: int, *, first: int = 2, day: date = ORDER_DAY) -> None:
    platform.sql(MORE_ORDERS, [first, count, day])


def capture_from(
    snapshot: SourceSnapshot,
    platform: Platform,
    table: str = "sales_order",
    *,
    days: DayRange | None = None,
    accept_deletions: bool = False,
    changes_only: bool = True,
) -> Captured:
    return capture(
        snapshot,
        platform.lake,
        SOURCE[table],
        all_days=platform.all_days,
        days=days or platform.all_days,
        run_id="test",
        accept_deletions=accept_deletions,
        changes_only=changes_only,
    )


def refresh(
    platform: Platform, table: str = "sales_order", *, days: DayRange | None = None, accept_deletions: bool = False
) -> Captured:
    """Capture one table from a snapshot of its own."""
    with platform.totesys.snapshot() as snapshot:
        return capture_from(snapshot, platform, table, days=days, accept_deletions=accept_deletions)


def versions(platform: Platform, table: str = "sales_order") -> list[dict[str, object]]:
    """All versions in the lake, in the order of their making; of one instant, departures first."""
    held = platform.lake.find(INGESTION, table)
    if held is None:
        return []
    rows = held.to_pyarrow_table().to_pylist()
    key = SOURCE[table].key
    return sorted(rows, key=lambda row: (row["_recorded_at"], row["_operation"] != "delete", row[key]))


def story(platform: Platform, *columns: str, table: str = "sales_order") -> list[tuple[object, ...]]:
    """What happened, version by version: the operation and some columns."""
    return [(row["_operation"], *(row[column] for column in columns)) for row in versions(platform, table)]


def commits(platform: Platform, table: str = "sales_order") -> tuple[int, str]:
    """Commits to the table and to the ledger so far."""
    held = platform.lake.find(INGESTION, table)
    return (-1 if held is None else held.version()), Ledger(platform.lake).mark()


def entry(platform: Platform, table: str = "sales_order", partition: str = str(ORDER_DAY)) -> Entry:
    return Ledger(platform.lake).newest()[f"{INGESTION}/{table}"][partition]


# What changes in ToteSys


def test_a_first_capture_takes_every_row_of_every_table_as_it_stands(platform: Platform) -> None:
    with platform.totesys.snapshot() as snapshot:
        for name, table in SOURCE.items():
            captured = capture_from(snapshot, platform, name)
            assert captured.total("inserted") == captured.total("rows") == captured.versions > 0
            with psycopg.connect(platform.totesys_url) as connection:
                columns = ", ".join(f"{column.name}::text" for column in table.columns if column.labels) or "NULL"
                in_source = connection.execute(f"SELECT *, {columns} FROM {name} ORDER BY {table.key}").fetchall()
            held = platform.lake.find(INGESTION, name)
            assert held is not None
            arrow = held.to_pyarrow_table()
            assert arrow.schema.equals(lake_schema(table, versioned=True))
            rows = [tuple(row[column.name] for column in table.columns) for row in versions(platform, name)]
            assert rows == [row[: len(table.columns)] for row in in_source]


def test_a_new_order_is_one_insert(platform: Platform) -> None:
    refresh(platform)
    add_orders(platform, 1)
    assert refresh(platform).versions == 1
    assert story(platform, "sales_order_id") == [("insert", 1), ("insert", 2)]


def test_a_changed_order_gets_a_second_version_and_keeps_its_first(platform: Platform) -> None:
    refresh(platform)
    platform.sql("UPDATE sales_order SET units_sold = 2000, last_updated = '2024-09-01 10:00:00.5'")
    refresh(platform)
    assert story(platform, "units_sold", "last_updated") == [
        ("insert", 1001, datetime(2024, 8, 20, 9, 10, 11, 123000)),
        ("update", 2000, datetime(2024, 9, 1, 10, 0, 0, 500000)),
    ]


def test_an_order_changed_without_a_new_timestamp_gets_a_second_version(platform: Platform) -> None:
    refresh(platform)
    platform.sql("UPDATE sales_order SET agreed_delivery_date = '2024-09-30'")
    refresh(platform)
    stamp = datetime(2024, 8, 20, 9, 10, 11, 123000)
    assert story(platform, "agreed_delivery_date", "last_updated") == [
        ("insert", "2024-08-24", stamp),
        ("update", "2024-09-30", stamp),
    ]


def test_an_order_changed_and_changed_back_has_three_versions(platform: Platform) -> None:
    refresh(platform)
    for units in (2000, 1001):
        platform.sql("UPDATE sales_order SET units_sold = %s", [units])
        refresh(platform)
    assert story(platform, "units_sold") == [("insert", 1001), ("update", 2000), ("update", 1001)]


def test_an_update_that_changes_nothing_adds_no_version_but_is_compared_only_once(platform: Platform) -> None:
    refresh(platform)
    before, (data, _) = entry(platform), commits(platform)
    platform.sql("UPDATE sales_order SET units_sold = units_sold")
    assert refresh(platform).versions == 0
    assert commits(platform)[0] == data
    assert entry(platform).state != before.state
    assert "totesys/sales_order" not in platform.look().stale


def test_a_value_that_turns_null_and_back_is_seen_both_times(platform: Platform) -> None:
    refresh(platform, "address")
    platform.sql("UPDATE address SET district = NULL WHERE address_id = 1")
    refresh(platform, "address")
    platform.sql("UPDATE address SET district = '' WHERE address_id = 1")
    refresh(platform, "address")
    assert story(platform, "district", table="address")[2:] == [("update", None), ("update", "")]


def test_a_deleted_order_leaves_its_last_known_row_marked_as_deleted(platform: Platform) -> None:
    refresh(platform)
    platform.sql("UPDATE transaction SET sales_order_id = NULL")
    platform.sql("DELETE FROM sales_order")
    captured = refresh(platform)
    assert (captured.total("deleted"), captured.total("rows")) == (1, 0)
    assert story(platform, "sales_order_id", "units_sold") == [("insert", 1, 1001), ("delete", 1, 1001)]
    assert refresh(platform).versions == 0


def test_an_order_deleted_and_entered_anew_is_inserted_twice(platform: Platform) -> None:
    refresh(platform, "payment")
    platform.sql("CREATE TABLE aside AS TABLE payment")
    platform.sql("DELETE FROM payment WHERE payment_id = 2")
    refresh(platform, "payment")
    platform.sql("INSERT INTO payment SELECT * FROM aside WHERE payment_id = 2")
    refresh(platform, "payment")
    mine = [(operation,) for operation, key in story(platform, "payment_id", table="payment") if key == 2]
    assert mine == [("insert",), ("delete",), ("insert",)]


def test_an_order_deleted_and_entered_anew_between_two_captures_is_no_change(platform: Platform) -> None:
    refresh(platform, "payment")
    platform.sql("CREATE TABLE aside AS TABLE payment; DELETE FROM payment; INSERT INTO payment TABLE aside")
    assert refresh(platform, "payment").versions == 0


def test_an_order_more_than_a_year_old_is_watched_like_any_other(platform: Platform) -> None:
    assert platform.all_days.last - ORDER_DAY > timedelta(days=365)
    add_orders(platform, 1, day=platform.all_days.last - timedelta(days=1))
    refresh(platform)
    platform.sql("UPDATE sales_order SET staff_id = 1, design_id = 1, unit_price = 3.99 WHERE sales_order_id = 1")
    refresh(platform)
    assert story(platform, "sales_order_id", "unit_price")[2:] == [("update", 1, Decimal("3.99"))]


def test_an_order_committed_late_with_an_old_stamp_arrives_once(platform: Platform) -> None:
    with psycopg.connect(platform.totesys_url) as slow:
        slow.execute(MORE_ORDERS, ONE_ORDER)
        add_orders(platform, 1, first=3, day=date(2024, 9, 2))
        refresh(platform)
        assert story(platform, "sales_order_id") == [("insert", 1), ("insert", 3)]
    refresh(platform)
    refresh(platform)
    assert story(platform, "sales_order_id") == [("insert", 1), ("insert", 3), ("insert", 2)]


def test_an_order_rolled_back_never_arrives(platform: Platform) -> None:
    with psycopg.connect(platform.totesys_url) as undecided:
        undecided.execute(MORE_ORDERS, ONE_ORDER)
        refresh(platform)
        undecided.rollback()
    refresh(platform)
    assert story(platform, "sales_order_id") == [("insert", 1)]


def test_an_order_prepared_in_two_phases_arrives_when_it_is_committed(platform: Platform) -> None:
    with psycopg.connect(platform.totesys_url, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute(MORE_ORDERS, ONE_ORDER)
        connection.execute("PREPARE TRANSACTION 'order two'")
        refresh(platform)
        connection.execute("COMMIT PREPARED 'order two'")
    refresh(platform)
    assert story(platform, "sales_order_id") == [("insert", 1), ("insert", 2)]


def test_rows_written_behind_a_savepoint_arrive(platform: Platform) -> None:
    with psycopg.connect(platform.totesys_url) as connection:
        with connection.transaction():
            connection.execute(MORE_ORDERS, ONE_ORDER)
        refresh(platform)
    refresh(platform)
    assert story(platform, "sales_order_id") == [("insert", 1), ("insert", 2)]


def test_the_tables_of_one_snapshot_show_one_instant(platform: Platform) -> None:
    with platform.totesys.snapshot() as snapshot:
        capture_from(snapshot, platform, "sales_order")
        add_orders(platform, 1)
        platform.sql("UPDATE transaction SET transaction_type = 'PURCHASE' WHERE transaction_id = 1")
        platform.sql("DELETE FROM payment")
        capture_from(snapshot, platform, "transaction")
        capture_from(snapshot, platform, "payment")
    assert story(platform, "transaction_type", table="transaction") == [("insert", "SALE"), ("insert", "PURCHASE")]
    assert len(versions(platform, "payment")) == 2
    stamps = {
        row["_recorded_at"] for name in ("sales_order", "transaction", "payment") for row in versions(platform, name)
    }
    assert stamps == {snapshot.taken_at.replace(tzinfo=UTC)}


def test_an_order_whose_creation_day_changes_leaves_one_day_and_joins_another(platform: Platform) -> None:
    refresh(platform)
    platform.sql("UPDATE sales_order SET created_at = created_at + interval '40 days'")
    captured = refresh(platform)
    assert [
        (made.partition, made.inserted, made.deleted) for made in captured.entries if made.inserted + made.deleted
    ] == [
        ("2024-08-20", 0, 1),
        ("2024-09-29", 1, 0),
    ]
    assert [(operation, created.date()) for operation, created in story(platform, "created_at")] == [  # type: ignore[attr-defined]
        ("insert", date(2024, 8, 20)),
        ("delete", date(2024, 8, 20)),
        ("insert", date(2024, 9, 29)),
    ]
    assert refresh(platform).versions == 0


def test_an_order_may_come_back_to_its_old_day(platform: Platform) -> None:
    refresh(platform)
    for interval in ("40 days", "-40 days"):
        platform.sql("UPDATE sales_order SET created_at = created_at + %s::interval", [interval])
        refresh(platform)
    moves = [(operation, created.month) for operation, created in story(platform, "created_at")]  # type: ignore[attr-defined]
    assert moves == [("insert", 8), ("delete", 8), ("insert", 9), ("delete", 9), ("insert", 8)]


def test_a_day_rewritten_as_a_whole_by_the_next_transaction_is_noticed(platform: Platform) -> None:
    # Numbers and transaction ids are both dense: combined carelessly, the same set of combinations comes out again.
    platform.sql("DELETE FROM payment; DELETE FROM transaction; DELETE FROM sales_order")
    platform.sql(
        "INSERT INTO sales_order SELECT 1024 + n, '2024-08-20', '2024-08-20', 1, 1, 1, 1001, 2.43, 3, '2024-08-24', "
        "'2024-08-23', 1 FROM generate_series(0, 1023) AS n"
    )
    for _ in range(3):
        refresh(platform)
        assert "totesys/sales_order" not in platform.look().stale
        platform.sql("UPDATE sales_order SET units_sold = units_sold + 1")
        assert platform.look().stale["totesys/sales_order"] == {"2024-08-20"}


def test_capturing_some_days_leaves_all_others_alone(platform: Platform) -> None:
    add_orders(platform, 300)
    refresh(platform)
    others = entry(platform, partition="2024-08-22")
    platform.sql("UPDATE sales_order SET units_sold = 7")
    captured = refresh(platform, days=DayRange(ORDER_DAY, date(2024, 8, 21)))
    assert {made.partition for made in captured.entries if made.updated} == {"2024-08-20", "2024-08-21"}
    assert {made.partition for made in captured.entries} == {"2024-08-20", "2024-08-21"}
    assert entry(platform, partition="2024-08-22") == others
    assert platform.look().stale["totesys/sales_order"] == {"2024-08-22"}


def test_a_day_emptied_and_a_day_filled_are_both_seen_in_a_range_across_months(platform: Platform) -> None:
    add_orders(platform, 1, day=date(2024, 12, 31))
    refresh(platform)
    platform.sql("DELETE FROM sales_order WHERE sales_order_id = 2")
    add_orders(platform, 1, first=3, day=date(2025, 1, 1))
    captured = refresh(platform, days=DayRange(date(2024, 12, 31), date(2025, 1, 1)))
    assert [(made.inserted, made.deleted, made.rows) for made in captured.entries] == [(0, 1, 0), (1, 0, 1)]


# Doing it again


def test_a_second_capture_adds_nothing_and_commits_nothing(platform: Platform) -> None:
    for name in ("sales_order", "address"):
        refresh(platform, name)
        before = commits(platform, name)
        captured = refresh(platform, name)
        assert (captured.versions, commits(platform, name)) == (0, before)


def test_the_same_snapshot_captured_twice_adds_nothing(platform: Platform) -> None:
    with platform.totesys.snapshot() as snapshot:
        capture_from(snapshot, platform)
        assert capture_from(snapshot, platform).versions == 0


@pytest.mark.refreshed
@pytest.mark.thorough
@pytest.mark.parametrize("noted", [False, True], ids=["at once", "after another day was captured"])
def test_rows_that_went_while_the_ledger_was_lost_are_asked_for(platform: Platform, noted: bool) -> None:
    add_orders(platform, 1, day=ORDER_DAY - timedelta(days=1))
    platform.refresh()
    platform.sql("DELETE FROM sales_order WHERE sales_order_id = 2; TRUNCATE payment")
    shutil.rmtree(platform.lake.location("ledger"))
    if noted:
        refresh(platform, days=DayRange(ORDER_DAY, ORDER_DAY))
        refresh(platform, "payment", days=DayRange(FIRST_DAY, FIRST_DAY))
    platform.refresh()
    assert story(platform, "sales_order_id")[-1] == ("delete", 2)
    counts = "SELECT (SELECT count(*) FROM current_sales_order), (SELECT count(*) FROM current_payment)"
    assert platform.query(counts) == [(1, 0)]
    assert platform.look().requests == []


def test_a_lost_ledger_costs_a_comparison_and_no_version(platform: Platform) -> None:
    refresh(platform)
    refresh(platform, "address")
    shutil.rmtree(platform.lake.location("ledger"))
    assert {"totesys/sales_order", "totesys/address"} <= platform.look().stale.keys()
    assert refresh(platform).versions == refresh(platform, "address").versions == 0
    assert entry(platform).rows == 1


# Values


def test_text_is_passed_on_untouched(platform: Platform) -> None:
    texts = [
        "O'Keefe",
        'say "hello", then leave',
        "00123",
        "  spaces  ",
        "",
        "tab\tand\nnew line\r\n",
        r"\usr\local \N \\. 'quoted'",
        "👜 tote 🇬🇧 \u200d",
        "שלום ‮abc‬ مرحبا",
        "日本語 e\u0301 é",
        "NULL",
        "x" * 1_000_000,
    ]
    for number, text in enumerate(texts, start=2):
        platform.sql("INSERT INTO design VALUES (%s, now(), %s, %s, %s, now())", [number, text, text, text])
    refresh(platform, "design")
    held = versions(platform, "design")[1:]
    assert [row["design_name"] for row in held] == texts
    assert [row["file_name"] for row in held] == texts
    assert refresh(platform, "design").versions == 0


def test_money_and_milliseconds_are_exact(platform: Platform) -> None:
    prices = ["0.01", "2.43", "0.10", "99999999.99", "-99999999.99", "33333333.33"]
    for number, price in enumerate(prices):
        platform.sql(
            "INSERT INTO sales_order SELECT 2 + %s, '2024-08-20 23:59:59.999', '2024-08-20 00:00:00.001', 1, 1, 1, "
            "2147483647, %s, 3, '2024-08-24', '0001-01-01', 1",
            [number, price],
        )
    refresh(platform)
    held = versions(platform)[1:]
    assert [row["unit_price"] for row in held] == [Decimal(price) for price in prices]
    assert {row["created_at"] for row in held} == {datetime(2024, 8, 20, 23, 59, 59, 999000)}
    assert {row["last_updated"] for row in held} == {datetime(2024, 8, 20, 0, 0, 0, 1000)}
    assert {row["units_sold"] for row in held} == {2147483647}
    assert refresh(platform).versions == 0


# Clocks and competitors


def test_a_version_made_while_the_clock_was_set_back_is_still_the_newest(platform: Platform) -> None:
    refresh(platform)
    platform.sql("UPDATE sales_order SET units_sold = 7")
    with platform.totesys.snapshot() as snapshot:
        earlier = replace(snapshot, taken_at=snapshot.taken_at - timedelta(hours=1))
        capture_from(earlier, platform)
    assert story(platform, "units_sold") == [("insert", 1001), ("update", 7)]
    refresh(platform)
    platform.sql("UPDATE transaction SET sales_order_id = NULL")
    platform.sql("DELETE FROM sales_order")
    with platform.totesys.snapshot() as snapshot:
        capture_from(replace(snapshot, taken_at=snapshot.taken_at - timedelta(hours=1)), platform)
    assert story(platform, "units_sold")[2:] == [("delete", 7)]


@pytest.fixture
def overtaken(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object], int], None]:
    """Lets a competitor act each time after a capture opened the table that it compares with."""

    def arrange(competitor: Callable[[], object], times: int) -> None:
        open_versions, left = Lake.open_versions, [None] * times

        def open_and_be_overtaken(lake: Lake, table: Table) -> DeltaTable:
            opened = open_versions(lake, table)
            if left:
                left.pop()
                competitor()
            return opened

        monkeypatch.setattr(Lake, "open_versions", open_and_be_overtaken)

    return arrange


def test_of_two_captures_at_once_only_one_adds_the_versions(
    platform: Platform, overtaken: Callable[[Callable[[], object], int], None]
) -> None:
    refresh(platform)
    add_orders(platform, 3)
    platform.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 1")
    others: list[Captured] = []
    with platform.totesys.snapshot() as snapshot:
        overtaken(lambda: others.append(capture_from(snapshot, platform)), 1)
        assert capture_from(snapshot, platform).versions == 0
    assert [other.versions for other in others] == [4]
    assert story(platform, "sales_order_id") == [
        ("insert", 1),
        ("update", 1),
        ("insert", 2),
        ("insert", 3),
        ("insert", 4),
    ]


def test_two_first_captures_at_once_add_each_row_once(platform: Platform) -> None:
    add_orders(platform, 500)
    work = partial(
        capture,
        lake=platform.lake,
        table=SOURCE["sales_order"],
        all_days=platform.all_days,
        days=platform.all_days,
        run_id="test",
    )
    snapshots = [SharedSnapshot(platform.totesys) for _ in range(3)]
    threads = [
        Thread(target=shared.read, args=("sales_order", work), kwargs={"table_count": 1}) for shared in snapshots
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(versions(platform)) == 501
    assert platform.look().stale.get("totesys/sales_order") is None


def test_a_capture_from_an_older_snapshot_than_the_last_undoes_nothing(platform: Platform) -> None:
    refresh(platform)
    with platform.totesys.snapshot() as old:
        add_orders(platform, 1)
        platform.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 1")
        refresh(platform)
        with pytest.raises(StaleSnapshot, match=r"later snapshot.*Nothing is lost; refresh again"):
            capture_from(old, platform)
    assert refresh(platform).versions == 0
    assert story(platform, "sales_order_id", "units_sold") == [
        ("insert", 1, 1001),
        ("update", 1, 7),
        ("insert", 2, 1001),
    ]


def test_a_shared_snapshot_that_proves_too_old_is_replaced_by_a_new_one(platform: Platform) -> None:
    shared = SharedSnapshot(platform.totesys)
    seen = []

    def work(snapshot: SourceSnapshot) -> Captured:
        seen.append(snapshot.order(catalogue().source["sales_order"]))
        return capture_from(snapshot, platform)

    with shared.snapshot("address", table_count=2) as snapshot:
        capture_from(snapshot, platform, "address")
    add_orders(platform, 1)
    refresh(platform)
    assert shared.read("sales_order", work, table_count=2).versions == 0
    assert len(seen) == 2
    assert story(platform, "sales_order_id") == [("insert", 1), ("insert", 2)]


def test_snapshots_are_ordered_by_what_they_see(platform: Platform) -> None:
    orders, table = [], catalogue().source["sales_order"]
    with psycopg.connect(platform.totesys_url) as slow:
        slow.execute("UPDATE design SET design_name = 'slow'")
        add_orders(platform, 1)
        with platform.totesys.snapshot() as snapshot:
            orders.append(snapshot.order(table))
    for _ in range(2):
        with platform.totesys.snapshot() as snapshot:
            orders.append(snapshot.order(table))
    add_orders(platform, 1, first=3)
    with platform.totesys.snapshot() as snapshot:
        orders.append(snapshot.order(table))
    assert orders[0] < orders[1] <= orders[2] < orders[3]


def test_a_capture_that_always_loses_says_so(
    platform: Platform, overtaken: Callable[[Callable[[], object], int], None]
) -> None:
    refresh(platform)
    add_orders(platform, 1)
    table = SOURCE["sales_order"]

    def commit() -> None:
        held = platform.lake.find(INGESTION, table.name)
        assert held is not None
        append(held, [], lake_schema(table, versioned=True), "capture:sales_order")

    overtaken(commit, 5)
    with pytest.raises(ConcurrentWriters, match=r'committed to "sales_order" 5 times.*refresh again'):
        refresh(platform)
    assert refresh(platform).versions == 1


# Guards


# table: (what was done to it, how it is put)
DRIFT = {
    "sales_order": ("ADD COLUMN discount numeric(4,1) NOT NULL DEFAULT 0", '"discount" (numeric(4,1)) is new'),
    "payment": ("DROP COLUMN paid", '"paid" is missing'),
    "design": ("ALTER COLUMN design_name TYPE varchar(80)", '"design_name" is character varying(80) instead of text'),
    "staff": ("RENAME COLUMN first_name TO name", '"first_name" is missing; "name" (text) is new'),
    "purchase_order": (
        "ALTER COLUMN item_unit_price TYPE numeric(12,4)",
        '"item_unit_price" is numeric(12,4) instead of numeric(10,2)',
    ),
}


def test_a_changed_structure_is_named_and_nothing_of_the_table_is_written(platform: Platform) -> None:
    for table, (change, finding) in DRIFT.items():
        platform.sql(f"ALTER TABLE {table} {change}")
        with pytest.raises(SchemaDrift) as raised:
            refresh(platform, table)
        expected = f'Table "{table}" of ToteSys has changed: {finding}. Nothing of it was captured.'
        assert str(raised.value).startswith(expected)
        assert platform.lake.find(INGESTION, table) is None
    assert platform.lake.find(LEDGER) is None
    assert refresh(platform, "address").versions == 2  # the others go on


def test_a_missing_table_is_named_with_those_found_instead(platform: Platform) -> None:
    platform.sql("ALTER TABLE sales_order RENAME TO orders")
    with pytest.raises(
        WrongDatabase, match=r'has no table "sales_order" in schema "public" \(found: "orders".*Set TOTESYS_URL'
    ):
        refresh(platform)


def test_an_empty_database_is_not_taken_for_totesys(platform: Platform) -> None:
    with (
        Totesys(platform.warehouse_url, allow_superuser=True).snapshot() as snapshot,
        pytest.raises(WrongDatabase, match=r"found: no tables at all"),
    ):
        capture_from(snapshot, platform)


def test_a_view_in_place_of_a_table_is_refused(platform: Platform) -> None:
    platform.sql("ALTER TABLE sales_order RENAME TO orders")
    platform.sql("CREATE VIEW sales_order AS TABLE orders")
    with pytest.raises(
        WrongDatabase, match=r'"sales_order" in database .* is a view, and such a relation hides changes'
    ):
        refresh(platform)


@pytest.fixture
def reader(platform: Platform) -> Iterator[tuple[str, Totesys]]:
    """Name of a role that may log in and no more, and ToteSys as it sees it."""
    name = f"reader_{platform.totesys_url.rpartition('_')[2]}"
    platform.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield name, Totesys(psycopg.conninfo.make_conninfo(platform.totesys_url, user=name, password="secret"))
    platform.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_login_that_may_not_read_a_table_is_told_what_to_grant(
    platform: Platform, reader: tuple[str, Totesys]
) -> None:
    name, totesys = reader
    with (
        totesys.snapshot() as snapshot,
        pytest.raises(WrongDatabase, match=r'may not read table "sales_order".*GRANT SELECT ON "public"."sales_order"'),
    ):
        capture_from(snapshot, platform)
    platform.sql(f"GRANT SELECT ON sales_order TO {name}")
    with totesys.snapshot() as snapshot:
        assert capture_from(snapshot, platform).versions == 1


def test_rows_hidden_by_row_security_are_an_error_and_not_deletions(
    platform: Platform, reader: tuple[str, Totesys]
) -> None:
    name, totesys = reader
    refresh(platform)
    platform.sql(f"GRANT SELECT ON sales_order TO {name}")
    platform.sql("ALTER TABLE sales_order ENABLE ROW LEVEL SECURITY")
    with (
        totesys.snapshot() as snapshot,
        pytest.raises(PlatformError, match=r"Row-level security of table \"sales_order\" may hide rows"),
    ):
        capture_from(snapshot, platform)
    assert len(versions(platform)) == 1


def test_most_rows_gone_at_once_is_taken_for_an_accident_until_accepted(platform: Platform) -> None:
    add_orders(platform, 99)
    refresh(platform)
    before = commits(platform)
    platform.sql("DELETE FROM sales_order WHERE sales_order_id > 10")
    with pytest.raises(MassDeletion, match=r'"sales_order" had 100 rows and now has 10.*--accept-deletions'):
        refresh(platform)
    assert commits(platform) == before
    assert refresh(platform, accept_deletions=True).total("deleted") == 90
    assert refresh(platform).versions == 0


def test_half_of_the_rows_may_go_unasked(platform: Platform) -> None:
    add_orders(platform, 99)
    refresh(platform)
    platform.sql("DELETE FROM sales_order WHERE sales_order_id > 50")
    assert refresh(platform).total("deleted") == 50


def backfill(platform: Platform, day: date) -> Captured:
    with platform.totesys.snapshot() as snapshot:
        return capture_from(snapshot, platform, days=DayRange(day, day), changes_only=False)


def test_a_backfill_tells_a_day_that_was_emptied_from_a_table_that_was(platform: Platform) -> None:
    other = ORDER_DAY - timedelta(days=1)
    add_orders(platform, 20, day=other)
    add_orders(platform, 40, first=22)
    refresh(platform)
    platform.sql("DELETE FROM sales_order WHERE created_at < %s", [ORDER_DAY])
    assert backfill(platform, other).total("deleted") == 20
    platform.sql("DELETE FROM sales_order WHERE sales_order_id > 3")
    with pytest.raises(MassDeletion, match=r'"sales_order" had 41 rows and now has 1'):
        backfill(platform, ORDER_DAY)


def test_a_backfill_examines_no_days_but_its_own_unless_rows_are_gone(platform: Platform) -> None:
    add_orders(platform, 40)
    refresh(platform)
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 5")
    one_day = DayRange(ORDER_DAY, ORDER_DAY)
    for gone, scans_of_everything in ((), 0), ((7,), 1):
        platform.sql("DELETE FROM sales_order WHERE sales_order_id = ANY(%s)", [list(gone)])
        with platform.totesys.snapshot() as snapshot:
            captured = capture_from(snapshot, platform, days=one_day, changes_only=False)
            assert (captured.versions, len(snapshot.scans)) == (1, scans_of_everything)


# Failures


def test_a_source_that_cannot_be_reached_is_said_so_without_the_password(platform: Platform) -> None:
    password = str(psycopg.conninfo.conninfo_to_dict(platform.totesys_url)["password"])
    for wrong, finding in (
        ({"port": "1"}, "Connection refused"),
        ({"password": "hunter2"}, "password authentication failed"),
        ({"user": "nobody", "password": "hunter2"}, "password authentication failed"),
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
    ):
        url = psycopg.conninfo.make_conninfo(platform.totesys_url, **wrong)
        with (
            pytest.raises(
                ConnectionFailed, match=rf"TOTESYS_URL cannot be reached: .*{finding}.* Check the URL"
            ) as raised,
            Totesys(url).snapshot(),
        ):
            pass
        error: BaseException | None = raised.value
        while error is not None:
            assert password not in repr(error)
            assert "hunter2" not in repr(error)
            error = error.__cause__


KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'totesys_assets'
"""


def test_a_connection_lost_between_two_tables_is_an_error_and_the_next_capture_completes(platform: Platform) -> None:
    with platform.totesys.snapshot() as snapshot:
        capture_from(snapshot, platform, "address")
        platform.sql(KILL)
        with pytest.raises(PlatformError, match=r'Capture of "sales_order" failed, and will be done again'):
            capture_from(snapshot, platform)
    assert [refresh(platform, name).versions for name in ("address", "sales_order")] == [0, 1]


def test_a_connection_lost_in_the_middle_of_a_read_is_an_error_and_nothing_is_written(platform: Platform) -> None:
    add_orders(platform, 100_000)
    failures: list[BaseException] = []
    done = Event()

    def work() -> None:
        try:
            refresh(platform)
        except BaseException as error:
            failures.append(error)
        done.set()

    worker = Thread(target=work, daemon=True)
    worker.start()
    reading = KILL + """AND state = 'active' AND query LIKE '%"agreed_delivery_location_id"%'"""
    with psycopg.connect(platform.totesys_url, autocommit=True) as connection:
        while not done.is_set() and not connection.execute(reading).fetchall():
            pass
    assert done.wait(60)
    assert [type(failure) for failure in failures] == [PlatformError]
    assert str(failures[0]).startswith('Capture of "sales_order" failed, and will be done again by the next refresh:')
    assert versions(platform) == []
    assert refresh(platform).versions == 100_001


def test_a_process_whose_source_dies_ends_by_itself(platform: Platform) -> None:
    script = f"""
import sys, psycopg
from totesys_assets.errors import PlatformError
from totesys_assets.source.totesys import Totesys

try:
    with Totesys(sys.argv[1], allow_superuser=True).snapshot() as snapshot:
        stream = snapshot.connection.execute("SELECT * FROM totesys.sales_order").to_arrow_reader(1)
        with psycopg.connect(sys.argv[1], autocommit=True) as connection:
            connection.execute({KILL!r})
        raise PlatformError("given up with the connection dead and a stream half read")
except PlatformError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, platform.totesys_url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "given up with the connection dead and a stream half read\n"


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond ``room`` bytes: writes fail as on a full disk, from delta-rs as from Python."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(platform: Platform) -> list[str]:
    return sorted(str(path) for path in Path(platform.lake.uri).rglob("*") if path.is_file())


def test_a_disk_that_is_full_from_the_start_is_said_so(platform: Platform) -> None:
    with full_disk(0), pytest.raises(PlatformError, match=r"The lake .* cannot be written"):
        refresh(platform)
    assert refresh(platform).versions == 1


def test_a_disk_that_fills_up_while_rows_are_written_leaves_nothing_half_written(platform: Platform) -> None:
    refresh(platform)
    add_orders(platform, 20_000)
    before, state = files(platform), versions(platform)
    with (
        full_disk(20_000),
        pytest.raises(PlatformError, match=r"cannot be written: .*Nothing was committed; check the disk"),
    ):
        refresh(platform)
    assert (versions(platform), files(platform)) == (state, before)
    assert refresh(platform).versions == 20_000


def test_a_disk_that_fills_up_before_the_ledger_is_written_costs_a_comparison(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Ledger.append

    def note_on_full_disk(ledger: Ledger, entries: Iterator[Entry]) -> None:
        with full_disk(0):
            note(ledger, entries)

    refresh(platform, "address")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", note_on_full_disk)
        with pytest.raises(PlatformError, match=r"cannot be written"):
            refresh(platform)
    assert len(versions(platform)) == 1
    assert "totesys/sales_order" in platform.look().stale
    assert refresh(platform).versions == 0
    assert "totesys/sales_order" not in platform.look().stale


@pytest.mark.parametrize("is_read", [False, True])
def test_a_lost_table_of_the_lake_is_captured_anew_although_a_backfill_of_one_day_comes_first(
    platform: Platform, is_read: bool
) -> None:
    add_orders(platform, 300)
    refresh(platform)
    before = len(versions(platform))
    shutil.rmtree(Path(platform.lake.uri, INGESTION, "sales_order"))
    if is_read:  # by a build, which begins an empty one in its place
        platform.lake.find_versions(catalogue().source["sales_order"])
        assert len(platform.look().stale["totesys/sales_order"]) == 3
    refresh(platform, days=DayRange(ORDER_DAY, ORDER_DAY))
    assert len(versions(platform)) < before
    stale = platform.look().stale["totesys/sales_order"]
    assert len(stale) == 2
    assert str(ORDER_DAY) not in stale
    refresh(platform)
    assert len(versions(platform)) == before
    assert "totesys/sales_order" not in platform.look().stale
    assert {total.missed for total in Ledger(platform.lake).totals()[f"{INGESTION}/sales_order"].values()} == {0}


def test_a_table_that_was_captured_first_while_a_look_was_under_way_is_not_taken_for_lost(platform: Platform) -> None:
    table = catalogue().source["sales_order"]
    refresh(platform)
    shutil.rmtree(Path(platform.lake.uri, INGESTION, table.name))
    none = open_sources(platform.lake, catalogue().source)
    new = none | {table.name: platform.lake.find_versions(table)}
    for opened in (none, new):
        assert ingestion_name(table) not in corrected(catalogue(), platform.lake, opened)
    refresh(platform)
    for opened in (none, new):
        assert corrected(catalogue(), platform.lake, opened) == Ledger(platform.lake).newest()


@pytest.fixture
def removed(platform: Platform, request: pytest.FixtureRequest) -> Callable[[], object]:
    """The lake has lost its orders of three days, or has them begun anew. Gives what another process does: one day."""
    add_orders(platform, 300)
    refresh(platform)
    shutil.rmtree(Path(platform.lake.uri, INGESTION, "sales_order"))
    if request.param:
        platform.lake.find_versions(catalogue().source["sales_order"])
    return lambda: refresh(platform, days=DayRange(ORDER_DAY, ORDER_DAY))


both_ways = pytest.mark.parametrize("removed", [False, True], ids=["removed", "begun anew"], indirect=True)


@both_ways
def test_a_lost_table_of_which_another_captures_a_day_during_a_look_is_stale_on_all(
    platform: Platform, removed: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, name = open_sources(platform.lake, catalogue().source), ingestion_name(catalogue().source["sales_order"])
    days = {key for key, entry in Ledger(platform.lake).newest()[name].items() if entry.rows}
    interrupt(monkeypatch, (Ledger, "newest"), catalogue().source["sales_order"], removed)
    found = corrected(catalogue(), platform.lake, opened)[name]
    assert len(days) == 3
    assert not any(entry.fingerprint and not is_unknown(entry) for entry in found.values())
    assert len(versions(platform)) == 101


@both_ways
def test_a_lost_table_of_which_another_captures_a_day_during_a_capture_is_captured_whole(
    platform: Platform, removed: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, days = catalogue().source["sales_order"], platform.core.all_days
    interrupt(monkeypatch, (difference, "assign_generation"), table, removed)
    with platform.totesys.snapshot() as snapshot:
        capture(snapshot, platform.lake, table, all_days=days, days=days, run_id="b", changes_only=True)
    assert len(versions(platform)) == 301


def test_what_a_killed_range_of_a_first_capture_left_is_searched_for_where_another_range_noted_its_own(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_orders(platform, 1, day=ORDER_DAY + timedelta(days=2))
    table, lake = catalogue().source["sales_order"], platform.lake

    def capture_range(day: date) -> None:
        with platform.totesys.snapshot() as snapshot:
            capture(
                snapshot,
                lake,
                table,
                all_days=platform.all_days,
                days=DayRange(day, day),
                run_id="a range",
                changes_only=True,
                is_range=True,
            )

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def other() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(difference, "last_entries", killed)
            with pytest.raises(KeyboardInterrupt):
                capture_range(ORDER_DAY + timedelta(days=2))

    interrupt(monkeypatch, (difference, "assign_generation"), table, other)
    capture_range(ORDER_DAY)
    noted = Ledger(lake).newest()
    assert noted[ingestion_name(table)].keys() == {str(ORDER_DAY)}
    assert missing_entries(lake, table, lake.find(INGESTION, table.name), noted).keys() == {"2024-08-22"}


def test_a_result_that_fails_midway_fails_as_the_engine_does() -> None:
    failing = "SELECT CASE WHEN i = 1999999 THEN error('too late') ELSE i::text END FROM range(2000000) AS r(i)"
    # A session of the platform, which has one thread: where several work, what they say hides the cause now and then.
    with engine.session() as connection, pytest.raises(duckdb.Error, match="too late"):
        for _ in engine.batches(connection.execute(failing)):
            pass
