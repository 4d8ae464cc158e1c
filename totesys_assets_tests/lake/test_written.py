"""Files that are written beside a table, and committed later: what a reader sees, the fence, and their statistics."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from totesys_assets.catalogue.catalogue import Table, catalogue, lake_schema
from totesys_assets.days import DayRange
from totesys_assets.lake import written as written_module
from totesys_assets.lake.commit import LostRace, append, commit, rows_added
from totesys_assets.lake.compact import _note_merging, merge_files
from totesys_assets.lake.files import Files, listed
from totesys_assets.lake.marks import mark
from totesys_assets.lake.tables import Lake
from totesys_assets.lake.written import Writer, found, listed_in, write
from totesys_assets_tests.rows import table_rows, version

pytestmark = pytest.mark.pure

ORDERS = catalogue().source["sales_order"]
SCHEMA = lake_schema(ORDERS, versioned=True)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "the lake"))


def orders(*days: str, first: int = 1) -> list[pa.RecordBatch]:
    rows = [
        version("sales_order", sales_order_id=first + number, created_at=datetime.fromisoformat(day))
        | {"_month": day[:7]}
        for number, day in enumerate(days)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA).to_batches()


def keys(table: DeltaTable | None) -> list[int]:
    assert table is not None
    return sorted(row["sales_order_id"] for row in table_rows(table, ["sales_order_id"]))


def parquet_files(table: DeltaTable) -> set[str]:
    return set(listed_in(table, ""))


def test_nobody_sees_the_files_before_the_commit(lake: Lake) -> None:
    table = lake.open_versions(ORDERS)
    written = write(table, orders("2026-01-31", "2026-02-01", "2026-01-01"), SCHEMA)
    assert written.rows == 3
    assert keys(lake.find("ingestion", "sales_order")) == []
    commit(written, "capture", {"recorded": 7})
    held = lake.find("ingestion", "sales_order")
    assert held is not None
    assert keys(held) == [1, 2, 3]
    assert (mark(held, "capture"), mark(held, "recorded")) == (1, 7)
    assert [rows_added(each) for each in held.history()] == [3, 0]
    assert sorted(map(str, listed(held).column("partition._month"))) == ["2026-01", "2026-02"]


def test_the_slower_of_two_loses_the_race_and_has_its_files_still(lake: Lake) -> None:
    slow, quick = lake.open_versions(ORDERS), lake.open_versions(ORDERS)
    written = write(slow, orders("2026-01-31"), SCHEMA)
    append(quick, orders("2026-01-30", first=5), SCHEMA, "capture")
    with pytest.raises(LostRace):
        commit(written, "capture")
    assert keys(lake.find("ingestion", "sales_order")) == [5]
    again = lake.open_versions(ORDERS)
    commit(written_module.Written(again, written.actions, written.rows), "capture")
    assert keys(lake.find("ingestion", "sales_order")) == [1, 5]


def test_files_can_take_the_place_of_others(lake: Lake) -> None:
    star = catalogue().star["fact_sales_order"]
    schema = lake_schema(star, versioned=False)
    table = lake.open_processed(star)
    append(table, star_rows_of(1), schema, "build")
    append(table, star_rows_of(2, "2026-02"), schema, "build")
    gone = [str(path) for path in listed(table).column("path") if "2026-01" in str(path)]
    late = lake.open_processed(star)
    commit(write(table, star_rows_of(3), schema), "build", instead_of=gone)
    assert keys(lake.find("processed", star.name)) == [2, 3]
    with pytest.raises(LostRace):
        commit(write(late, star_rows_of(4), schema), "other", instead_of=gone)
    assert keys(lake.find("processed", star.name)) == [2, 3]


@pytest.mark.parametrize("when", ["between", "under way"])
def test_files_that_were_merged_meanwhile_are_not_replaced(lake: Lake, when: str) -> None:
    """delta-rs would leave the merged file, which has the old rows, beside the new ones."""
    star = catalogue().star["fact_sales_order"]
    schema = lake_schema(star, versioned=False)
    table = lake.open_processed(star)
    for key in (1, 2):
        append(table, star_rows_of(key), schema, "build")
    if when == "under way":
        _note_merging(lake.open_processed(star), int(time.time()) + 60)
    late = lake.open_processed(star)
    written = write(late, star_rows_of(3), schema)
    if when == "between":
        assert merge_files(lake.open_processed(star)) == 2
    with pytest.raises(LostRace):
        commit(written, "build", instead_of=[str(path) for path in listed(late).column("path")])
    assert keys(lake.find("processed", star.name)) == [1, 2]


def star_rows_of(key: int, month: str = "2026-01") -> list[pa.RecordBatch]:
    schema = lake_schema(catalogue().star["fact_sales_order"], versioned=False)
    row = dict.fromkeys(schema.names)
    filled = {"sales_order_id": key, "created_date": date.fromisoformat(f"{month}-01"), "_month": month}
    defaults = {each.name: _value(each.type) for each in schema if not each.nullable}
    return pa.Table.from_pylist([{**row, **defaults, **filled}], schema=schema).to_batches()


def test_no_more_files_are_open_at_once_than_it_says(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_module, "_OPEN_FILES", 2)
    monkeypatch.setattr(written_module, "_GROUP_ROWS", 1)
    table = lake.open_versions(ORDERS)
    with Writer(table, SCHEMA) as writer:
        for number in range(12):
            (batch,) = orders(f"2026-{1 + number % 4:02}-01", first=number)
            writer.write(batch)
            assert len(writer._open) <= 2
        commit(writer.close(), "capture")
    assert keys(lake.find("ingestion", "sales_order")) == list(range(12))


def test_files_that_no_commit_names_are_removed_by_the_compaction_after_a_week(lake: Lake) -> None:
    star = catalogue().star["fact_sales_order"]
    table = lake.open_processed(star)
    append(table, star_rows_of(1), lake_schema(star, versioned=False), "build")
    left = write(table, star_rows_of(2), lake_schema(star, versioned=False))
    (path,) = (Path(lake.location("processed", star.name), each.path) for each in left.actions)
    lake.compact()
    assert path.exists()
    os.utime(path, times=(0, 0))
    lake.compact()
    assert not path.exists()
    assert keys(lake.find("processed", star.name)) == [1]


def _value(type_: pa.DataType) -> Any:
    if pa.types.is_timestamp(type_):
        return datetime(2026, 1, 1, tzinfo=UTC if type_.tz else None)
    if pa.types.is_date(type_):
        return date(2026, 1, 1)
    return Decimal(1) if pa.types.is_decimal(type_) else "x" if pa.types.is_string(type_) else 1


def test_an_error_in_the_batches_leaves_no_file(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_module, "_GROUP_ROWS", 1)
    table = lake.open_versions(ORDERS)

    def batches() -> Any:
        yield from orders("2026-01-31", "2026-02-01")
        assert len(parquet_files(table)) == 2
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write(table, batches(), SCHEMA)
    assert parquet_files(table) == set()


def test_a_row_without_a_month_is_refused(lake: Lake) -> None:
    row = version("sales_order") | {"_month": None}
    with pytest.raises(ValueError, match="has no _month"):
        write(lake.open_versions(ORDERS), pa.Table.from_pylist([row], schema=SCHEMA).to_batches(), SCHEMA)


def test_files_that_are_discarded_are_gone(lake: Lake) -> None:
    table = lake.open_versions(ORDERS)
    written = write(table, orders("2026-01-31"), SCHEMA)
    assert len(parquet_files(table)) == 1
    written.discard()
    assert parquet_files(table) == set()


def test_rows_in_any_order_become_few_files_and_little_waits(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_module, "_GROUP_ROWS", 4)
    monkeypatch.setattr(written_module, "_WAITING_BYTES", 1500)
    table = lake.open_versions(ORDERS)
    days = [f"2026-{month:02}-0{day}" for day in range(1, 8) for month in range(1, 5)]
    with Writer(table, SCHEMA) as writer:
        for number, day in enumerate(days):
            (batch,) = orders(day, first=number)
            writer.write(batch)
            assert sum(each.size for each in writer._waiting.values()) <= 1500
        written = writer.close()
    assert len(written.actions) == 4
    commit(written, "capture")
    assert keys(lake.find("ingestion", "sales_order")) == list(range(len(days)))


def test_a_large_file_is_followed_by_another(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_module, "_GROUP_ROWS", 1)
    monkeypatch.setattr(written_module, "_FILE_BYTES", 1)
    table = lake.open_versions(ORDERS)
    written = write(table, [*orders("2026-01-31"), *orders("2026-01-30", first=2)], SCHEMA)
    assert len(written.actions) == 2
    commit(written, "capture")
    assert keys(lake.find("ingestion", "sales_order")) == [1, 2]


@pytest.mark.parametrize("table", [*catalogue().source.values()], ids=lambda table: table.name)
def test_statistics_are_those_that_delta_rs_itself_notes(lake: Lake, table: Table) -> None:
    schema = lake_schema(table, versioned=True)
    month = {"_month": "2024-08"} if table.day_column else {}
    rows = pa.Table.from_pylist([version(table.name) | month, version(table.name) | month], schema=schema)
    ours, theirs = Lake(f"{lake.uri}/a").open_versions(table), Lake(f"{lake.uri}/b").open_versions(table)
    commit(write(ours, rows.to_batches(), schema), "capture")
    append(theirs, rows.to_batches(), schema, "capture")
    found, wanted = (listed(each).to_pylist()[0] for each in (ours, theirs))
    for name, value in wanted.items():
        if name in ("path", "size_bytes", "modification_time"):
            continue
        if isinstance(value, datetime):  # delta-rs cuts them off after the millisecond
            assert timedelta() <= found[name] - value < timedelta(milliseconds=1), name
        else:
            assert found[name] == value, name


MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
PLAIN_TYPES: dict[str, Any] = {
    "number": pa.int64(),
    "price": pa.decimal128(38, 9),
    "text": pa.string(),
    "day": pa.date32(),
    "moment": pa.timestamp("us"),
    "instant": pa.timestamp("us", tz="UTC"),
    "ratio": pa.float64(),
    "bytes": pa.binary(),
    "is_so": pa.bool_(),
}
PLAIN = pa.schema(PLAIN_TYPES)
ROWS = st.fixed_dictionaries(
    {
        "number": st.none() | st.integers(-(2**63), 2**63 - 1),
        "price": st.none()
        | st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20), max_value=10**20),
        "text": st.none() | st.text(st.characters(codec="utf-8"), max_size=100),
        "day": st.none() | st.dates(),
        "moment": st.none() | MOMENTS,
        "instant": st.none() | MOMENTS.map(lambda each: each.replace(tzinfo=UTC)),
        "ratio": st.none() | st.floats(),
        "bytes": st.none() | st.binary(max_size=9),
        "is_so": st.none() | st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_no_row_lies_outside_the_bounds_that_are_noted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any]
) -> None:
    """A reader leaves out a file whose bounds say that it has nothing of what is asked for."""
    table = DeltaTable.create(str(tmp_path_factory.mktemp("bounds") / "t"), schema=PLAIN)
    commit(write(table, pa.Table.from_pylist(rows, schema=PLAIN).to_batches(), PLAIN), "any")
    (noted,) = listed(table).to_pylist()
    assert noted["num_records"] == len(rows)
    for name in PLAIN.names:
        values = [row[name] for row in rows if row[name] is not None]
        assert noted[f"null_count.{name}"] == len(rows) - len(values)
        least, greatest = noted.get(f"min.{name}"), noted.get(f"max.{name}")
        if values and name in ("number", "day", "moment", "instant"):
            assert (least, greatest) == (min(values), max(values)), name
        if name == "ratio":
            assert least is None
            assert greatest is None
        assert least is None or least <= min(values), name
        assert greatest is None or max(values) <= greatest, name


def test_files_of_another_writer_are_found_with_their_statistics(lake: Lake) -> None:
    table = lake.open_versions(ORDERS)
    rows = pa.Table.from_batches(orders("2026-03-01", "2026-03-02"))
    folder = Path(lake.location("ingestion", "sales_order"), "_month=2026-03", "engine")
    folder.mkdir(parents=True)
    pq.write_table(rows.drop_columns(["_month"]), folder / "x.parquet")
    (folder / "_SUCCESS").touch()
    sizes = listed_in(table, "_month=2026-03/engine")
    written = found(table, sizes, [{"_month": "2026-03"}])
    assert written.rows == 2
    commit(written, "build")
    held = lake.open_versions(ORDERS)
    assert keys(held) == [1, 2]
    assert Files(held, DayRange(date(2026, 3, 3), date(2026, 3, 4)), "created_at").rows == 0


def test_a_file_that_is_no_parquet_is_an_error(lake: Lake) -> None:
    table = lake.open_versions(ORDERS)
    path = Path(lake.location("ingestion", "sales_order"), "x.parquet")
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(OSError, match="no Parquet file"):
        found(table, {"x.parquet": 1}, [{"_month": "2026-01"}])
