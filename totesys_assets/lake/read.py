"""Reading the lake: tables in DuckDB, and statistics from the files and commits of a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import MONTH, RECORDED_AT
from totesys_assets.days import DayRange, Days
from totesys_assets.engine import BATCH_ROWS
from totesys_assets.lake.marks import mark
from totesys_assets.sql_text import quoted

if TYPE_CHECKING:
    import pyarrow.dataset

# The newest _recorded_at of an ingestion table, in microseconds since 1970, noted with each commit. It grows with every
# commit, so versions recorded after a moment are those committed after it.
RECORDED = "recorded_at"


def register(connection: duckdb.DuckDBPyConnection, name: str, table: DeltaTable, days: Days | None = None) -> str:
    """Make a table readable in DuckDB under ``name``; with ``days``, only the months that they touch.

    Returns the quoted name. Nothing is read yet: DuckDB reads the columns and rows that a query needs.
    """
    months = [(MONTH, "in", days.months)] if days is not None else None
    # Each file of a bucket has a latency, so several are read at once.
    connection.register(name, _frugal(_files(table, months), files_ahead=4 if _folder_of(table) is None else 1))
    return quoted(name)


def _files(table: DeltaTable, months: list[tuple[str, str, Any]] | None = None) -> pyarrow.dataset.FileSystemDataset:
    folder = _folder_of(table)
    # By default, delta-rs would pass every byte through Python.
    filesystem = SubTreeFileSystem(folder, LocalFileSystem()) if folder is not None else None
    files: Any = table.to_pyarrow_dataset(file_pruning_predicate=months, filesystem=filesystem)
    return files  # type: ignore[no-any-return]


def _folder_of(table: DeltaTable) -> str | None:
    """The folder of a table; None if the table is in a bucket."""
    place = urlsplit(table.table_uri)
    return unquote(place.path) if place.scheme == "file" else None


def _frugal(files: pyarrow.dataset.FileSystemDataset, files_ahead: int) -> pyarrow.dataset.FileSystemDataset:
    """The same files, with little read-ahead. Arrow's default reads 64 batches of 131,072 rows ahead.

    That takes up to 450 MB, and more time, because the batches have left the processor's caches when they are used.
    """
    from pyarrow.dataset import FileSystemDataset, Scanner  # here: slow to import

    class FrugalDataset(FileSystemDataset):
        def scanner(self, **asked: Any) -> Scanner:  # type: ignore[override]  # asked for by DuckDB, by name
            """A scanner of the columns and rows that DuckDB needs."""
            scan: Any = super().scanner
            scanner: Scanner = scan(**asked, batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=files_ahead)
            return scanner

    return FrugalDataset(list(files.get_fragments()), files.schema, files.format, files.filesystem)


def recorded_until(table: DeltaTable) -> int:
    """The newest ``_recorded_at`` in an ingestion table, in microseconds since 1970; 0 for an empty one."""
    noted = mark(table, RECORDED)
    if noted is not None or not table.file_uris():
        return noted or 0
    with engine.session() as connection:  # the table is older than this note
        row = connection.execute(f"SELECT epoch_us(max({RECORDED_AT})) FROM {register(connection, 'held', table)}")
        return int(row.fetchall()[0][0] or 0)


def holds_moment(table: DeltaTable, moment: int) -> bool:
    """True if a row was recorded at exactly ``moment``, in microseconds since 1970."""
    import pyarrow.dataset as ds  # here: slow to import

    at = ds.field(RECORDED_AT) == pa.scalar(moment, pa.timestamp("us", tz="UTC"))
    return bool(_files(table).head(1, columns=[RECORDED_AT], filter=at).num_rows)


def bounds(table: DeltaTable, column: str) -> tuple[Any, Any] | None:
    """The least and the greatest value of a column, from the files' statistics. None without rows or statistics.

    Timestamps are exact to the millisecond.
    """
    files = pa.table(table.get_add_actions(flatten=True))
    if not {f"min.{column}", f"max.{column}"} <= set(files.column_names):
        return None
    least, greatest = files.column(f"min.{column}"), files.column(f"max.{column}")
    if not files.num_rows or least.null_count or greatest.null_count:
        return None
    return pc.min(least).as_py(), pc.max(greatest).as_py()


def lies_within(table: DeltaTable, column: str, days: Days) -> bool:
    """True if the files' statistics show that ``column``, a date or a timestamp, is on ``days`` in every row."""
    if not table.file_uris():
        return True
    found = day_bounds(table, column)
    return found is not None and any(found.first in each and found.last in each for each in days.ranges)


def day_bounds(table: DeltaTable, column: str) -> DayRange | None:
    """The days from the least to the greatest value of a date or a timestamp. None without rows or statistics."""
    found = bounds(table, column)
    if found is None:
        return None
    return DayRange(*(each.date() if isinstance(each, datetime) else each for each in found))


def microseconds(moment: datetime) -> int:
    """A moment as microseconds since 1970; a naive one is UTC."""
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def moment_sql(moment: int) -> str:
    """A moment in microseconds since 1970 as an SQL expression for DuckDB."""
    return f"make_timestamptz({moment})"
