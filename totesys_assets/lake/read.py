"""Reading the lake: tables in DuckDB, and what the files and commits of a table say of its rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from totesys_assets.catalogue.catalogue import MONTH, RECORDED_AT
from totesys_assets.days import Days
from totesys_assets.engine import BATCH_ROWS, quoted

if TYPE_CHECKING:
    import pyarrow.dataset

# Noted with the commits to an ingestion table: the newest _recorded_at in it, in microseconds since 1970. It grows with
# every commit, so that what was recorded since some moment is what was committed since.
RECORDED = "recorded_at"


def register(connection: duckdb.DuckDBPyConnection, name: str, table: DeltaTable, days: Days | None = None) -> str:
    """Make a table's state readable in DuckDB under ``name``, only the months of ``days`` where given.

    Returns the quoted name. Nothing is read yet: DuckDB pulls the columns and rows that a query asks for.
    """
    months = [(MONTH, "in", days.months)] if days is not None else None
    folder = _folder_of(table)
    # Left alone, delta-rs hands over every byte through Python.
    filesystem = SubTreeFileSystem(folder, LocalFileSystem()) if folder is not None else None
    files: Any = table.to_pyarrow_dataset(file_pruning_predicate=months, filesystem=filesystem)
    # A bucket takes its time for every file, so more of them are asked for at once.
    connection.register(name, _frugal(files, files_ahead=4 if folder is None else 1))
    return quoted(name)


def _folder_of(table: DeltaTable) -> str | None:
    """The folder that a table lies in, None if it is a bucket's."""
    place = urlsplit(table.table_uri)
    return unquote(place.path) if place.scheme == "file" else None


def _frugal(files: pyarrow.dataset.FileSystemDataset, files_ahead: int) -> pyarrow.dataset.FileSystemDataset:
    """The same files, read little ahead of who asks: Arrow itself reads 64 batches of 131,072 rows ahead.

    That takes up to 450 MB, and longer too, for they are out of the processor's caches when their turn comes.
    """
    from pyarrow.dataset import FileSystemDataset, Scanner  # here: slow to import

    class FrugalDataset(FileSystemDataset):
        def scanner(self, **asked: Any) -> Scanner:  # type: ignore[override]  # asked for by DuckDB, by name
            """A scanner of the columns and rows that DuckDB asks for."""
            scan: Any = super().scanner
            scanner: Scanner = scan(**asked, batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=files_ahead)
            return scanner

    return FrugalDataset(list(files.get_fragments()), files.schema, files.format, files.filesystem)


def recorded_until(table: DeltaTable) -> int:
    """The newest ``_recorded_at`` in an ingestion table, in microseconds since 1970; 0 for an empty one."""
    noted = table.transaction_version(RECORDED)
    if noted is not None or not table.file_uris():
        return noted or 0
    connection = duckdb.connect()  # a table of before this was noted
    try:
        row = connection.execute(f"SELECT epoch_us(max({RECORDED_AT})) FROM {register(connection, 'held', table)}")
        return int(row.fetchall()[0][0] or 0)
    finally:
        connection.close()


def bounds(table: DeltaTable, column: str) -> tuple[Any, Any] | None:
    """The least and the greatest value of a column, as the files note it. None: no rows, or not all of them noted it.

    Of a timestamp to the millisecond.
    """
    files = pa.table(table.get_add_actions(flatten=True))
    if not {f"min.{column}", f"max.{column}"} <= set(files.column_names):
        return None
    least, greatest = files.column(f"min.{column}"), files.column(f"max.{column}")
    if not files.num_rows or least.null_count or greatest.null_count:
        return None
    return pc.min(least).as_py(), pc.max(greatest).as_py()


def lies_within(table: DeltaTable, column: str, days: Days) -> bool:
    """True when all rows of a table have their ``column``, a date or a timestamp, on ``days``, as its files note it."""
    if not table.file_uris():
        return True
    found = bounds(table, column)
    if found is None:
        return False
    least, greatest = (each.date() if isinstance(each, datetime) else each for each in found)
    return any(least in each and greatest in each for each in days.ranges)


def microseconds(moment: datetime) -> int:
    """A moment as microseconds since 1970; a naive one is UTC."""
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def moment_sql(moment: int) -> str:
    """A moment in microseconds since 1970 as an SQL expression for DuckDB."""
    return f"make_timestamptz({moment})"
