"""The lake on real Delta tables in a folder: commits behind a fence, replacing by days, compaction, the ledger."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from multiprocessing import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture import ledger as ledger_module
from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.catalogue.catalogue import catalogue, lake_schema
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.lake.commit import LostRace, append, replace
from totesys_assets.lake.conform import conform
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import Lake
from totesys_assets.lake.versions import newest_first
from totesys_assets_tests.rows import SEEN, hold, table_rows, version

pytestmark = pytest.mark.pure

CURRENCY, TRANSACTION = catalogue().source["currency"], catalogue().star["dim_transaction"]
VERSIONS = lake_schema(CURRENCY, versioned=True)
TRANSACTIONS = lake_schema(TRANSACTION, versioned=False)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def currencies(*keys: int) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist([version("currency", currency_id=key) for key in keys], schema=VERSIONS).to_batches()


def transactions(*rows: tuple[int, str]) -> list[pa.RecordBatch]:
    """(key, day) of rows of dim_transaction."""
    return pa.Table.from_pylist(
        [
            {
                "transaction_id": key,
                "transaction_type": "SALE",
                "_created_date": date.fromisoformat(day),
                "_is_deleted": False,
                "_recorded_at": SEEN,
                "_month": day[:7],
            }
            for key, day in rows
        ],
        schema=TRANSACTIONS,
    ).to_batches()


def held(table: DeltaTable | None, key: str = "currency_id") -> list[int]:
    assert table is not None
    return [row[key] for row in table_rows(table, [key])]


def held_transactions(lake: Lake) -> list[tuple[int, str]]:
    rows = table_rows(lake.open_processed(TRANSACTION), ["transaction_id"])
    return [(row["transaction_id"], row["_created_date"].isoformat()) for row in rows]


def between(first: str, last: str) -> str:
    days = f"_created_date >= '{first}' AND _created_date <= '{last}'"
    return f"{days} AND _month >= '{first[:7]}' AND _month <= '{last[:7]}'"


# Tables


def test_a_table_that_was_never_written_is_not_found_and_looking_makes_nothing(lake: Lake, tmp_path: Path) -> None:
    assert lake.find("ingestion", "currency") is None
    with pytest.raises(PlatformError, match=r'holds no "currency" yet\. Run: totesys refresh\.'):
        lake.existing(CURRENCY)
    assert list(tmp_path.iterdir()) == []


def test_tables_lie_in_their_zones_by_name_with_their_description(lake: Lake, tmp_path: Path) -> None:
    versions, star = lake.open_versions(CURRENCY), lake.open_processed(TRANSACTION)
    assert (tmp_path / "lake/ingestion/currency/_delta_log").is_dir()
    assert (tmp_path / "lake/processed/dim_transaction/_delta_log").is_dir()
    assert versions.metadata().description == CURRENCY.description
    assert star.metadata().description == TRANSACTION.description


def test_what_grows_by_the_day_lies_in_folders_by_month_and_what_does_not_in_one(lake: Lake) -> None:
    append(lake.open_versions(CURRENCY), currencies(1), VERSIONS, "a")
    append(lake.open_processed(TRANSACTION), transactions((1, "2024-08-31"), (2, "2024-09-01")), TRANSACTIONS, "a")
    assert lake.open_versions(CURRENCY).metadata().partition_columns == []
    folders = {Path(uri).parent.name for uri in lake.open_processed(TRANSACTION).file_uris()}
    assert folders == {"_month=2024-08", "_month=2024-09"}


def test_many_may_create_a_table_at_the_same_time_and_all_have_the_same(lake: Lake) -> None:
    starts = threading.Barrier(4)

    def open_at_once(_: int) -> pa.Schema:
        starts.wait()
        return lake.open_versions(CURRENCY).to_pyarrow_dataset().schema

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(open_at_once, range(4))) == {VERSIONS}
    append(lake.open_versions(CURRENCY), currencies(1), VERSIONS, "capture")
    assert held(lake.open_versions(CURRENCY)) == [1]


def test_only_the_folders_of_the_days_asked_for_are_opened(lake: Lake) -> None:
    append(lake.open_processed(TRANSACTION), transactions((1, "2024-08-31"), (2, "2024-09-01")), TRANSACTIONS, "a")
    table = lake.open_processed(TRANSACTION)
    for uri in table.file_uris():
        if "_month=2024-09" in uri:
            Path(uri).unlink()
    connection = engine.connect()
    try:
        source = register(connection, "held", table, DayRange(date(2024, 8, 1), date(2024, 8, 31)))
        assert connection.execute(f"SELECT transaction_id FROM {source}").fetchall() == [(1,)]
    finally:
        connection.close()


def test_a_folder_of_any_name_can_be_read(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "a lake, ü"))
    append(lake.open_processed(TRANSACTION), transactions((1, "2024-08-31"), (2, "2024-09-01")), TRANSACTIONS, "a")
    with engine.connect() as connection:
        source = register(connection, "held", lake.open_processed(TRANSACTION))
        assert connection.execute(f"SELECT sum(transaction_id) FROM {source}").fetchall() == [(3,)]


# The fence


def test_of_two_appends_from_one_state_the_first_wins_and_the_second_changes_nothing(lake: Lake) -> None:
    first, second = lake.open_versions(CURRENCY), lake.open_versions(CURRENCY)
    append(first, currencies(1), VERSIONS, "capture")
    with pytest.raises(LostRace):
        append(second, currencies(2), VERSIONS, "capture")
    assert held(lake.open_versions(CURRENCY)) == [1]
    append(lake.open_versions(CURRENCY), currencies(2), VERSIONS, "capture")
    assert held(lake.open_versions(CURRENCY)) == [1, 2]


def test_the_fence_holds_later_too_and_not_only_for_the_first_commit(lake: Lake) -> None:
    for key in range(3):
        append(lake.open_versions(CURRENCY), currencies(key), VERSIONS, "capture")
    first, second = lake.open_versions(CURRENCY), lake.open_versions(CURRENCY)
    append(first, currencies(3), VERSIONS, "capture")
    with pytest.raises(LostRace):
        append(second, currencies(3), VERSIONS, "capture")
    assert held(lake.open_versions(CURRENCY)) == [0, 1, 2, 3]
    assert lake.open_versions(CURRENCY).transaction_version("capture") == 4


def test_a_handle_goes_stale_even_if_the_other_commit_was_made_long_ago(lake: Lake) -> None:
    stale = lake.open_versions(CURRENCY)
    for key in range(3):
        append(lake.open_versions(CURRENCY), currencies(key), VERSIONS, "capture")
    with pytest.raises(LostRace):
        append(stale, currencies(9), VERSIONS, "capture")


def test_the_same_handle_may_go_on_after_its_own_commit(lake: Lake) -> None:
    table = lake.open_versions(CURRENCY)
    append(table, currencies(1), VERSIONS, "capture")
    append(table, currencies(2), VERSIONS, "capture")
    assert held(lake.open_versions(CURRENCY)) == [1, 2]


def test_writers_of_other_names_do_not_stop_each_other(lake: Lake) -> None:
    first, second = lake.open_versions(CURRENCY), lake.open_versions(CURRENCY)
    append(first, currencies(1), VERSIONS, "capture:currency")
    append(second, currencies(2), VERSIONS, "capture:staff")
    assert held(lake.open_versions(CURRENCY)) == [1, 2]


def test_of_many_appends_at_once_exactly_one_wins(lake: Lake) -> None:
    lake.open_versions(CURRENCY)
    starts = threading.Barrier(4)

    def append_at_once(key: int) -> bool:
        table = lake.open_versions(CURRENCY)
        starts.wait()
        try:
            append(table, currencies(key), VERSIONS, "capture")
        except LostRace:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(append_at_once, range(4)))
    assert won.count(True) == 1
    assert held(lake.open_versions(CURRENCY)) == [won.index(True)]


def test_of_two_replacements_from_one_state_the_first_wins_whether_of_days_or_of_all(lake: Lake) -> None:
    for predicate in (between("2024-08-01", "2024-08-31"), None):
        first, second = lake.open_processed(TRANSACTION), lake.open_processed(TRANSACTION)
        replace(first, transactions((1, "2024-08-20")), TRANSACTIONS, "build", predicate)
        with pytest.raises(LostRace):
            replace(second, transactions((2, "2024-08-20")), TRANSACTIONS, "build", predicate)
        assert held_transactions(lake) == [(1, "2024-08-20")]


# Replacing


def test_replacing_days_leaves_the_others_alone(lake: Lake) -> None:
    days = ["2024-07-31", "2024-08-01", "2024-08-02", "2024-08-03", "2024-09-01"]
    replace(lake.open_processed(TRANSACTION), transactions(*enumerate(days)), TRANSACTIONS, "build", None)
    again = transactions((11, "2024-08-01"), (12, "2024-08-02"))
    replace(lake.open_processed(TRANSACTION), again, TRANSACTIONS, "build", between("2024-08-01", "2024-08-02"))
    assert held_transactions(lake) == [
        (0, "2024-07-31"),
        (3, "2024-08-03"),
        (4, "2024-09-01"),
        (11, "2024-08-01"),
        (12, "2024-08-02"),
    ]


def test_days_replaced_by_nothing_are_empty_and_the_others_are_not(lake: Lake) -> None:
    rows = transactions((1, "2024-08-01"), (2, "2024-08-02"), (3, "2024-09-01"))
    replace(lake.open_processed(TRANSACTION), rows, TRANSACTIONS, "build", None)
    replace(lake.open_processed(TRANSACTION), [], TRANSACTIONS, "build", between("2024-08-02", "2024-09-30"))
    assert held_transactions(lake) == [(1, "2024-08-01")]
    replace(lake.open_processed(TRANSACTION), [], TRANSACTIONS, "build", None)
    assert held_transactions(lake) == []


def test_readers_of_an_older_state_keep_it_while_rows_are_replaced(lake: Lake) -> None:
    replace(lake.open_processed(TRANSACTION), transactions((1, "2024-08-01")), TRANSACTIONS, "build", None)
    before = lake.open_processed(TRANSACTION)
    replace(lake.open_processed(TRANSACTION), transactions((2, "2024-08-01")), TRANSACTIONS, "build", None)
    assert held(before, "transaction_id") == [1]


def write_over(table: DeltaTable) -> None:
    replace(table, currencies(9), VERSIONS, "capture", None)


def write_over_some(table: DeltaTable) -> None:
    replace(table, currencies(9), VERSIONS, "capture", "currency_id = 1")


def delete(table: DeltaTable) -> None:
    table.delete("currency_id = 1")


@pytest.mark.parametrize("change", [write_over, write_over_some, delete])
def test_what_was_ingested_can_only_be_added_to(lake: Lake, change: Callable[[DeltaTable], None]) -> None:
    append(lake.open_versions(CURRENCY), currencies(1, 2), VERSIONS, "capture")
    with pytest.raises(Exception, match="append-only"):
        change(lake.open_versions(CURRENCY))
    assert held(lake.open_versions(CURRENCY)) == [1, 2]


# Batches that fail


class Broken(Exception):
    """What goes wrong in the making of batches."""


def broken(after: int) -> Iterator[pa.RecordBatch]:
    for key in range(after):
        yield from currencies(key)
    raise Broken(f"after {after}")


def batch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


@pytest.mark.parametrize("after", [0, 1, 20])
def test_batches_that_fail_raise_their_own_error_and_leave_neither_commit_nor_thread(lake: Lake, after: int) -> None:
    append(lake.open_versions(CURRENCY), currencies(100), VERSIONS, "capture")
    table = lake.open_versions(CURRENCY)
    with pytest.raises(Broken, match=f"^after {after}$"):
        append(table, broken(after), VERSIONS, "capture")
    assert lake.open_versions(CURRENCY).version() == 1
    assert held(lake.open_versions(CURRENCY)) == [100]
    assert batch_threads() == []
    append(table, currencies(101), VERSIONS, "capture")
    assert held(lake.open_versions(CURRENCY)) == [100, 101]


def test_a_commit_that_fails_stops_the_making_of_batches(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def endless() -> Iterator[pa.RecordBatch]:
        while True:
            made.append(1)
            time.sleep(0.05)
            yield from currencies(1)

    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("totesys_assets.lake.commit.write_deltalake", fail)
    with pytest.raises(PlatformError, match=r"cannot be written: No space left on device\. Nothing was committed"):
        append(lake.open_versions(CURRENCY), endless(), VERSIONS, "capture")
    assert batch_threads() == []
    assert len(made) < 10


def test_batches_may_be_made_by_reading_another_table_of_the_lake(lake: Lake) -> None:
    append(lake.open_versions(CURRENCY), currencies(1, 2), VERSIONS, "capture")
    design = catalogue().source["design"]
    schema = lake_schema(design, versioned=True)

    def copies() -> Iterator[pa.RecordBatch]:
        keys = held(lake.open_versions(CURRENCY))
        yield from pa.Table.from_pylist([version("design", design_id=key) for key in keys], schema=schema).to_batches()

    append(lake.open_versions(design), copies(), schema, "capture")
    assert held(lake.open_versions(design), "design_id") == [1, 2]


def test_batches_are_brought_into_the_columns_and_types_of_the_lake(lake: Lake) -> None:
    row = version("currency", currency_id=7)
    loose = pa.RecordBatch.from_pylist([dict(reversed(row.items()))])
    assert loose.schema != VERSIONS
    (exact,) = conform([loose], VERSIONS, None)
    assert exact.schema == VERSIONS
    assert exact.to_pylist() == [row]


def test_a_missing_value_where_none_may_be_is_refused(lake: Lake) -> None:
    nothing = pa.RecordBatch.from_pylist([version("currency", currency_code=None)])
    with pytest.raises(ValueError, match="currency_code"):
        append(lake.open_versions(CURRENCY), conform([nothing], VERSIONS, None), VERSIONS, "capture")
    assert held(lake.open_versions(CURRENCY)) == []


def test_the_newest_version_is_that_recorded_last_and_of_two_at_once_the_one_that_is_there() -> None:
    connection = engine.connect()
    try:
        rows = "(VALUES (1, 1, 'insert'), (1, 2, 'delete'), (2, 1, 'delete'), (2, 1, 'insert'), (3, 1, 'insert'))"
        found = connection.execute(
            f"SELECT * FROM {rows} AS v (id, _recorded_at, _operation) QUALIFY {newest_first(['id'])} ORDER BY id"
        ).fetchall()
    finally:
        connection.close()
    assert found == [(1, 2, "delete"), (2, 1, "insert"), (3, 1, "insert")]


# Compaction


def fill(lake: Lake) -> None:
    for key in range(5):
        append(lake.open_versions(CURRENCY), currencies(key), VERSIONS, "capture")
        append(lake.open_processed(TRANSACTION), transactions((key, f"2024-0{8 + key % 2}-01")), TRANSACTIONS, "build")
        Ledger(lake).append([entry("ingestion/currency", "*", f"state {key}")])


def test_compaction_merges_files_and_changes_no_row(lake: Lake) -> None:
    fill(lake)
    rows = table_rows(lake.open_versions(CURRENCY), ["currency_id"]), held_transactions(lake), Ledger(lake).newest()
    assert lake.compact() == {"ingestion/currency": 5, "processed/dim_transaction": 5, "ledger": 5}
    after = table_rows(lake.open_versions(CURRENCY), ["currency_id"]), held_transactions(lake), Ledger(lake).newest()
    assert after == rows
    assert len(lake.open_versions(CURRENCY).file_uris()) == 1
    assert len(lake.open_processed(TRANSACTION).file_uris()) == 2  # one per month
    assert set(lake.compact().values()) == {0}


def test_compaction_keeps_the_numbers_of_the_fence_and_disturbs_no_append(lake: Lake) -> None:
    fill(lake)
    opened_before = lake.open_versions(CURRENCY)
    lake.compact()
    assert lake.open_versions(CURRENCY).transaction_version("capture") == 5
    assert lake.open_processed(TRANSACTION).transaction_version("build") == 5
    append(opened_before, currencies(5), VERSIONS, "capture")
    assert held(lake.open_versions(CURRENCY)) == [0, 1, 2, 3, 4, 5]
    stale = lake.open_versions(CURRENCY)
    append(lake.open_versions(CURRENCY), currencies(6), VERSIONS, "capture")
    with pytest.raises(LostRace):
        append(stale, currencies(6), VERSIONS, "capture")


@pytest.mark.parametrize("predicate", [None, between("2024-08-01", "2024-08-31")])
def test_a_replacement_computed_before_a_compaction_is_refused_for_it_would_double_the_rows(
    lake: Lake, predicate: str | None
) -> None:
    fill(lake)
    before = held_transactions(lake)
    stale = lake.open_processed(TRANSACTION)
    lake.compact()
    with pytest.raises(LostRace):
        replace(stale, transactions((9, "2024-08-01")), TRANSACTIONS, "build", predicate)
    assert held_transactions(lake) == before


def test_compaction_leaves_a_table_that_is_replaced_meanwhile_to_the_next_time_and_goes_on(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    stale, open_ = lake.open_processed(TRANSACTION), lake.open
    replace(lake.open_processed(TRANSACTION), transactions((9, "2024-08-01")), TRANSACTIONS, "build", None)
    monkeypatch.setattr(lake, "open", lambda *parts: stale if parts[-1] == "dim_transaction" else open_(*parts))
    assert lake.compact() == {"ingestion/currency": 5, "ledger": 5}
    monkeypatch.undo()
    assert held_transactions(lake) == [(9, "2024-08-01")]
    assert lake.compact().keys() == {"ingestion/currency", "processed/dim_transaction", "ledger"}


def test_the_files_of_ingestion_outlive_their_compaction(lake: Lake, tmp_path: Path) -> None:
    fill(lake)
    before = set((tmp_path / "lake/ingestion").rglob("*.parquet"))
    lake.compact()
    assert before < set((tmp_path / "lake/ingestion").rglob("*.parquet"))
    assert held(DeltaTable(lake.location("ingestion", "currency"), version=3)) == [0, 1, 2]


def test_compaction_of_an_empty_lake_does_nothing(lake: Lake, tmp_path: Path) -> None:
    assert lake.compact() == {}
    assert list(tmp_path.iterdir()) == []


# Places that cannot be used


def test_a_lake_in_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    lake = Lake(str(tmp_path / "file"))
    with pytest.raises(PlatformError, match=rf"^The lake at {tmp_path}/file cannot be written: .*\.$"):
        lake.open_versions(CURRENCY)
    with pytest.raises(PlatformError, match="cannot be written"):
        lake.open_processed(TRANSACTION)
    with pytest.raises(PlatformError, match="cannot be written"):
        Ledger(lake).append([entry("star/dim_date", "*", "state")])


def test_a_lake_whose_log_is_damaged_says_so(lake: Lake, tmp_path: Path) -> None:
    hold(lake, "currency", version("currency"))
    (log,) = (tmp_path / "lake/ingestion/currency/_delta_log").glob("*01.json")
    log.write_text("not JSON", encoding="ascii")
    with pytest.raises(PlatformError, match=r"^The lake at .* cannot be read: .*\.$"):
        lake.find("ingestion", "currency")


def test_a_bucket_that_cannot_be_reached_is_said_so_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    with pytest.raises(PlatformError, match=r"^The lake at s3://bucket/prefix cannot be read: ") as caught:
        Lake("s3://bucket/prefix").find("ledger")
    assert "s3cret" not in str(caught.value)
    assert "\x1b" not in str(caught.value)  # no colours in a sentence


# The ledger


def entry(asset: str, partition: str, state: str, **values: Any) -> Entry:
    return Entry(asset, partition, state, **{"rows": 1, "recorded_at": SEEN, "run_id": "run", **values})


def test_an_entry_comes_back_as_it_was_written(lake: Lake) -> None:
    recorded_at = datetime(2024, 8, 20, 9, 10, 11, 123456, tzinfo=UTC)
    written = Entry("ingestion/payment", "2024-08-20", "server|3|-42", 3, recorded_at, "run 7", 1, 2, 4, 5)
    Ledger(lake).append([written])
    assert Ledger(lake).newest() == {"ingestion/payment": {"2024-08-20": written}}


def test_the_newest_entry_is_that_appended_last_whatever_the_clocks_say(lake: Lake) -> None:
    ledger = Ledger(lake)
    ledger.append([entry("a", "1", "first", recorded_at=SEEN + timedelta(days=9)), entry("a", "2", "only")])
    ledger.append([entry("a", "1", "second")])
    ledger.append([entry("b", "1", "other")])
    states = {asset: {key: each.state for key, each in found.items()} for asset, found in ledger.newest().items()}
    assert states == {"a": {"1": "second", "2": "only"}, "b": {"1": "other"}}
    assert list(ledger.newest(["b"])) == ["b"]
    assert ledger.newest(["c"]) == ledger.newest([]) == {}


def test_the_sequence_grows_with_every_append_and_compaction_does_not_set_it_back(lake: Lake) -> None:
    for number in range(3):
        Ledger(lake).append([entry("a", "1", f"state {number}"), entry("a", "2", f"state {number}")])
    lake.compact()
    Ledger(lake).append([entry("a", "1", "after compaction")])
    table = lake.find("ledger")
    assert table is not None
    rows = table_rows(table, ["sequence", "partition"])
    assert [row["state"] for row in rows if row["partition"] == "1"][-1] == "after compaction"
    sequences = [row["sequence"] for row in rows if row["partition"] == "1"]
    assert sequences == sorted(set(sequences))
    assert Ledger(lake).newest()["a"]["1"].state == "after compaction"


def test_of_two_entries_appended_at_once_the_one_recorded_later_is_the_newest(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(lake).append([entry("a", "1", "before")])
    for late, early in ((0, 1), (1, 0)):
        handles = [lake.open("ledger"), lake.open("ledger")]
        monkeypatch.setattr(Ledger, "_open", lambda *_, handles=handles: handles.pop())
        for hours in (late, early):
            Ledger(lake).append([entry("a", "1", f"{hours}", recorded_at=SEEN + timedelta(hours=hours))])
        monkeypatch.undo()
        assert Ledger(lake).newest()["a"]["1"].state == "1"


def test_what_a_process_noted_itself_is_not_read_again_and_what_others_noted_is(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(lake).append([entry("a", "1", "first")])
    assert Ledger(lake).newest()["a"]["1"].state == "first"
    read = list[set[str]]()

    def noted(connection: duckdb.DuckDBPyConnection, name: str, table: DeltaTable, *, named: set[str]) -> str:
        read.append(named)
        return register(connection, name, table, named=named)

    monkeypatch.setattr(ledger_module, "register", noted)
    Ledger(lake).append([entry("a", "1", "its own")])
    assert Ledger(lake).newest()["a"]["1"].state == "its own"
    assert read == []
    Ledger(Lake(lake.uri)).append([entry("a", "1", "another's")])
    assert Ledger(lake).newest()["a"]["1"].state == "another's"
    assert [len(names) for names in read] == [1]


def test_what_others_noted_while_an_entry_was_written_is_still_read(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(lake).append([entry("a", "1", "first")])
    assert len(Ledger(lake).newest()["a"]) == 1
    write = Ledger._write

    def overtaken(self: Ledger, table: DeltaTable, data: pa.Table, behind: tuple[str, int] | None) -> None:
        monkeypatch.undo()
        Ledger(Lake(lake.uri)).append([entry("a", "2", "another's")])
        write(self, table, data, behind)

    monkeypatch.setattr(Ledger, "_write", overtaken)
    Ledger(lake).append([entry("a", "1", "its own")])
    assert {key: each.state for key, each in Ledger(lake).newest()["a"].items()} == {"1": "its own", "2": "another's"}


def test_the_mark_of_the_ledger_changes_with_every_append_and_with_nothing_else(lake: Lake) -> None:
    ledger = Ledger(lake)
    before = ledger.mark()
    assert ledger.newest() == {}
    ledger.append([])
    assert ledger.mark() == before
    ledger.append([entry("a", "1", "state")])
    first = ledger.mark()
    assert first != before
    ledger.append(iter(()))
    assert ledger.mark() == first
    ledger.append([entry("a", "1", "state")])
    assert ledger.mark() != first


def test_another_ledger_of_as_many_appends_has_another_mark(lake: Lake) -> None:
    Ledger(lake).append([entry("a", "1", "state")])
    mark = Ledger(lake).mark()
    shutil.rmtree(lake.uri)
    Ledger(lake).append([entry("a", "1", "state")])
    assert Ledger(lake).mark() != mark


def test_the_ledger_can_only_be_added_to(lake: Lake) -> None:
    Ledger(lake).append([entry("a", "1", "state")])
    table = lake.find("ledger")
    assert table is not None
    with pytest.raises(Exception, match="append-only"):
        table.delete()
    assert Ledger(lake).newest()["a"]["1"].state == "state"


ROUNDS = 8


def be_the_first(folder: Path, name: str, together: Barrier, said: Queue[str]) -> None:
    """As one of several processes: open tables of a new lake, and write to its ledger, all at the same time."""
    for number in range(ROUNDS):
        lake = Lake(str(folder / str(number)))
        together.wait(60)
        try:
            Ledger(lake).append([entry(name, "1", "state")])
            said.put(f"{number} {lake.open_versions(CURRENCY).metadata().id}")
        except Exception as error:
            said.put(f"{number} {error!r}")


def test_of_processes_that_are_the_first_at_once_one_creates_a_table_and_the_others_open_it(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    together, said, names = spawn.Barrier(3), spawn.Queue(), ["one", "other", "third"]
    processes = [spawn.Process(target=be_the_first, args=(tmp_path, name, together, said)) for name in names]
    for process in processes:
        process.start()
    answers = sorted({said.get(timeout=60) for _ in range(ROUNDS * len(names))})
    for process in processes:
        process.join()
    assert [answer.partition(" ")[0] for answer in answers] == [str(number) for number in range(ROUNDS)]
    for number in range(ROUNDS):
        assert sorted(Ledger(Lake(str(tmp_path / str(number)))).newest()) == names
