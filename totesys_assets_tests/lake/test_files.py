"""Which files of a table are read, and that DuckDB reads of them what Arrow does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, Schema, write_deltalake
from deltalake.schema import PrimitiveType

from totesys_assets import engine
from totesys_assets.capture import dead_letters, ledger, registry
from totesys_assets.catalogue.catalogue import catalogue, lake_schema
from totesys_assets.days import DayRange, DaySet
from totesys_assets.lake import files as files_module
from totesys_assets.lake.files import Files
from totesys_assets.lake.read import holds_moment, microseconds, register
from totesys_assets.lake.tables import Lake
from totesys_assets_tests.rows import SEEN, hold, version

pytestmark = pytest.mark.pure

ORDER = catalogue().source["sales_order"]
AUGUST, LATER, SEPTEMBER = datetime(2024, 8, 1, 8), datetime(2024, 8, 31, 23, 59, 59, 999000), datetime(2024, 9, 30)


@pytest.fixture
def table(tmp_path: Path) -> DeltaTable:
    """A file for each of three orders, recorded a second after the other."""
    lake = Lake(str(tmp_path / "lake"))
    for number, moment in enumerate((AUGUST, LATER, SEPTEMBER)):
        seen = SEEN + timedelta(seconds=number, microseconds=1_001)
        hold(lake, "sales_order", version("sales_order", "insert", seen, sales_order_id=number, created_at=moment))
    return lake.open_versions(ORDER)


def orders(table: DeltaTable, **asked: Any) -> list[int]:
    """The orders in the files that are read."""
    with engine.session() as connection:
        held = register(connection, "held", table, **asked)
        return [key for (key,) in connection.execute(f"SELECT sales_order_id FROM {held} ORDER BY 1").fetchall()]


def on(*days: date) -> DaySet:
    return DaySet(tuple(DayRange(day, day) for day in days))


@pytest.mark.parametrize(
    ("days", "of_month", "of_day"),
    [
        (on(AUGUST.date()), [0, 1], [0]),
        (on(LATER.date()), [0, 1], [1]),
        (on(AUGUST.date(), SEPTEMBER.date()), [0, 1, 2], [0, 2]),
        (on(date(2024, 8, 15)), [0, 1], []),
        (on(date(2024, 10, 1)), [], []),
        (DayRange(date(2024, 8, 31), date(2024, 9, 30)), [0, 1, 2], [1, 2]),
    ],
)
@pytest.mark.parametrize("by_arrow", [False, True])
def test_only_files_that_may_hold_rows_of_the_days_are_read(
    table: DeltaTable,
    days: DayRange | DaySet,
    of_month: list[int],
    of_day: list[int],
    by_arrow: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if by_arrow:
        monkeypatch.setattr(files_module, "folder_of", lambda _: None)
    assert orders(table, days=days) == of_month
    assert orders(table, days=days, column="created_at") == of_day


def test_only_files_with_something_recorded_since_a_moment_are_read(table: DeltaTable) -> None:
    moments = [microseconds(SEEN + timedelta(seconds=number, microseconds=1_001)) for number in range(3)]
    assert orders(table, since=0) == [0, 1, 2]
    assert orders(table, since=moments[0]) == [0, 1, 2]
    assert orders(table, since=moments[1]) == [1, 2]
    assert orders(table, since=moments[2]) == [2]
    assert orders(table, since=moments[2] + 1_000_000) == []
    assert Files(table, since=moments[1]).rows == 2
    assert [holds_moment(table, moments[1] + more) for more in (-1, 0, 1)] == [False, True, False]


def test_only_files_that_may_hold_a_value_are_read(table: DeltaTable) -> None:
    assert orders(table, within=("sales_order_id", 1, 1)) == [1]
    assert orders(table, within=("sales_order_id", 3, 9)) == []
    assert orders(table, within=("_operation", "insert", "insert")) == [0, 1, 2]
    assert orders(table, within=("unheard_of", 1, 1)) == [0, 1, 2]


def test_files_can_be_asked_for_by_name(table: DeltaTable) -> None:
    names = Files(table).paths
    assert len(orders(table, named=set(names[:2]))) == 2
    assert orders(table, named=set()) == []


@pytest.mark.parametrize("by_arrow", [False, True])
def test_files_of_one_name_in_the_folders_of_several_months_are_told_apart(
    table: DeltaTable, by_arrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(str(files_module.folder_of(table)))
    for key in (0, 2):  # as Spark writes them
        (path,) = Files(table, within=("sales_order_id", key, key)).paths
        other = f"{path.rpartition('/')[0]}/part-0.parquet"
        (folder / path).rename(folder / other)
        for entry in (folder / "_delta_log").glob("*.json"):
            entry.write_text(entry.read_text().replace(path, other))
    table = DeltaTable(folder)
    if by_arrow:
        monkeypatch.setattr(files_module, "folder_of", lambda _: None)
    names = {path for path in Files(table).paths if path.endswith("2024-09/part-0.parquet")}
    assert orders(table, named=names) == [2]
    assert orders(table, days=on(SEPTEMBER.date())) == [2]


def test_a_file_without_statistics_may_hold_anything(tmp_path: Path) -> None:
    rows = pa.table({"sales_order_id": [1], "created_at": [AUGUST], "_recorded_at": [SEEN]})
    write_deltalake(tmp_path, rows, configuration={"delta.dataSkippingNumIndexedCols": "0"})
    asked = {"days": on(date(2030, 1, 1)), "column": "created_at", "since": microseconds(SEEN) + 1_000_000}
    assert orders(DeltaTable(tmp_path), **asked) == [1]


def rows(table: DeltaTable, columns: Sequence[str] = ("*",)) -> tuple[list[Any], list[Any]]:
    """Columns with their types, and rows."""
    with engine.session() as connection:
        query = f"SELECT {', '.join(columns)} FROM {register(connection, 'held', table)} ORDER BY 1"
        described = [(name, type_) for name, type_, *_ in connection.execute(f"DESCRIBE {query}").fetchall()]
        return described, connection.execute(query).fetchall()


def by_arrow(table: DeltaTable, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any]]:
    with monkeypatch.context() as patch:
        patch.setattr(files_module, "folder_of", lambda _: None)
        return rows(table)


@pytest.mark.parametrize("name", catalogue().source)
def test_duckdb_reads_what_arrow_reads(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, source = Lake(str(tmp_path)), catalogue().source[name]
    hold(lake, name)
    empty = lake.open_versions(source)
    assert rows(empty) == by_arrow(empty, monkeypatch)
    hold(lake, name, version(name))
    table = lake.open_versions(source)
    assert rows(table) == by_arrow(table, monkeypatch)
    assert rows(table)[0] == rows(empty)[0]
    assert [column for column, _ in rows(table)[0]] == lake_schema(source, versioned=True).names


def test_a_column_that_is_newer_than_a_file_is_empty_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_deltalake(tmp_path, pa.table({"n": pa.array([1], pa.int32())}))
    table = DeltaTable(tmp_path)
    types = ["integer", "string", "decimal(10,2)", "timestamp_ntz", "timestamp", "date", "boolean", "double"]
    new = [Field(f"c{number}", PrimitiveType(type_)) for number, type_ in enumerate(types)]
    table.alter.add_columns(Schema(new).fields)
    assert rows(table) == by_arrow(table, monkeypatch)
    assert rows(table)[1] == [(1, *[None] * 8)]
    later = pa.table({"c0": pa.array([5], pa.int32()), "n": pa.array([2], pa.int32())})
    write_deltalake(table, later, mode="append", schema_mode="merge")
    assert rows(table) == by_arrow(table, monkeypatch)
    assert rows(table)[1] == [(1, *[None] * 8), (2, 5, *[None] * 7)]


@pytest.mark.parametrize("name", ["it's here", "what?", "a=b", "100%", "a b*", "ünï"])
def test_the_folder_of_a_lake_may_have_any_name(tmp_path: Path, name: str) -> None:
    lake = Lake(str(tmp_path / name))
    hold(lake, "sales_order", version("sales_order"))
    hold(lake, "currency", version("currency"))
    assert orders(lake.open_versions(ORDER), days=on(date(2024, 8, 20)), column="created_at") == [1]
    assert len(rows(lake.open_versions(catalogue().source["currency"]))[1]) == 1


def test_every_type_of_the_lake_is_known() -> None:
    tables = [lake_schema(table, versioned=True) for table in catalogue().source.values()]
    tables += [lake_schema(table, versioned=False) for table in catalogue().warehouse.values()]
    tables += [ledger._SCHEMA, registry._SCHEMA, dead_letters.SCHEMA]
    assert all(files_module._type(field.type) for schema in tables for field in schema)


def test_a_table_with_features_of_other_writers_is_left_to_delta_rs(
    table: DeltaTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Files(table).select is not None
    monkeypatch.setattr(files_module, "_FEATURES", set())
    assert Files(table).select is None
    assert orders(table) == [0, 1, 2]


def test_the_moments_of_statistics_are_cut_off_as_is_reckoned_with(tmp_path: Path) -> None:
    exact = datetime(2024, 8, 20, 23, 59, 59, 999999, tzinfo=UTC)
    write_deltalake(tmp_path, pa.table({"_recorded_at": [exact]}))
    found = pa.table(DeltaTable(tmp_path).get_add_actions(flatten=True)).to_pylist()[0]
    assert timedelta(0) <= exact - found["max._recorded_at"] < files_module._CUT_OFF
    assert found["min._recorded_at"] <= exact
