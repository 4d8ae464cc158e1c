"""The lake: Delta tables in a folder or a bucket, through delta-rs.

Belongs here: where tables lie, creating and opening them, reading them into DuckDB, committing to them behind a fence.
Does not belong here: what the rows mean.

    <lake>/ingestion/<source table>    every version of every row, append-only
    <lake>/processed/<star table>      the star tables
    <lake>/ledger, <lake>/dead_letter  what was done, and what could not be typed
    <lake>/schema_registry             how the source's tables were seen to be
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Schema,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from totesys_assets.catalogue.catalogue import MONTH, OPERATION, RECORDED_AT, Table, catalogue, lake_schema
from totesys_assets.days import Days
from totesys_assets.errors import PlatformError
from totesys_assets.resources.engine import BATCH_ROWS, one_line, quoted
from totesys_assets.stages import LAKE, count, stage

if TYPE_CHECKING:
    import pyarrow.dataset

log = logging.getLogger(__name__)

INGESTION, PROCESSED = "ingestion", "processed"
LEDGER, DEAD_LETTER, REGISTRY = "ledger", "dead_letter", "schema_registry"
# Noted with the commits to an ingestion table: the newest _recorded_at in it, in microseconds since 1970. It grows with
# every commit, so that what was recorded since some moment is what was committed since.
RECORDED = "recorded_at"

# Commits from one checkpoint of a table's log to the next. A refresh opens tables fifty times, and each time reads what
# was committed since the last checkpoint: with Delta's own 100 that took twice as long.
_CHECKPOINTS = {"delta.checkpointInterval": "20"}

# Who merges files notes until when nobody else may: in seconds since 1970, 0 when it is done. No merge takes as long;
# after one that was killed, the files of its table are left as they are for that time.
_MERGING, _MERGING_SECONDS = "merging", 3600

# Files in one folder of a table before they are merged: every read of the folder opens them all.
MOST_FILES = 32

# delta-rs keeps a file in memory until it is complete, and one for each month at a time: with its own 100 MB, all of a
# table of ten million rows. The nightly compaction makes large files of small ones.
_FILE_BYTES = 8_000_000

# Commits are exclusive through conditional PUT; without it two writers could both win. Checksums of what is written
# are asked for by buckets that lock objects for a time (object lock with a default retention).
_S3 = {"aws_conditional_put": "etag", "aws_checksum_algorithm": "sha256"}


class LostRace(Exception):
    """Another writer committed to the table after it was opened: what was computed from it must be thrown away."""


class Lake:
    """All tables of the lake under one URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._options = _S3 if uri.startswith("s3://") else None

    def location(self, *parts: str) -> str:
        """URI of a table."""
        return "/".join([self.uri, *parts])

    def require(self) -> None:
        """Raise PlatformError where there is no lake yet."""
        if self.find(LEDGER) is None:
            raise PlatformError(f"There is no lake at {self.uri} yet. Run: totesys refresh.")

    def find(self, *parts: str) -> DeltaTable | None:
        """The table as it is now, or None where nothing was written yet."""
        try:
            return DeltaTable(self.location(*parts), storage_options=self._options)
        except TableNotFoundError:
            return None
        except (OSError, DeltaError) as error:
            raise PlatformError(f"The lake at {self.uri} cannot be read: {one_line(error)}.") from error

    def open_versions(self, table: Table) -> DeltaTable:
        """The ingestion table of ``table``, created when missing."""
        return self._open(table, lake_schema(table, versioned=True), INGESTION, append_only=True)

    def open_existing(self, table: Table) -> DeltaTable:
        """The ingestion table of ``table``. Raises PlatformError where nothing was captured yet; writes nothing."""
        found = self.find(INGESTION, table.name)
        if found is None:
            raise PlatformError(f'The lake at {self.uri} holds no "{table.name}" yet. Run: totesys refresh.')
        return found

    def open_star(self, table: Table) -> DeltaTable:
        """The processed table of ``table``, created when missing."""
        return self._open(table, lake_schema(table, versioned=False), PROCESSED, append_only=False)

    def open_plain(self, name: str, schema: pa.Schema, description: str) -> DeltaTable:
        """The ledger, the dead letters or the schema registry, created when missing."""
        found = self.find(name)
        if found is not None:
            return _with_new_columns(found, schema)
        return self._create([name], schema, [], description, append_only=True)

    def size(self) -> int:
        """Bytes that the lake takes: of a folder all its files, of a bucket those that are read."""
        if self._options is None:
            size = 0
            for _, _, names, folder in os.fwalk(self.uri) if Path(self.uri).is_dir() else ():
                for name in names:
                    with suppress(FileNotFoundError):  # merged away meanwhile
                        size += os.lstat(name, dir_fd=folder).st_size
            return size
        tables = [table for table in (self.find(*parts) for parts in self._all()) if table is not None]
        return sum(int(pc.sum(pa.table(table.get_add_actions()).column("size_bytes")).as_py() or 0) for table in tables)

    def compact(self) -> dict[str, int]:
        """Merge small files in every table: location -> files merged. No row changes.

        The star tables and the ledger also drop files that a week ago were replaced; those of ingestion stay for ever.
        A star table that is built at the same time is left to the next compaction.
        """
        merged = {}
        for parts in self._all():
            table = self.find(*parts)
            if table is None:
                continue
            try:
                merged["/".join(parts)] = _merge_files(table)
            except CommitFailedError:
                continue
            if parts[0] != INGESTION:
                table.vacuum(dry_run=False)
        return merged

    @staticmethod
    def _all() -> Iterator[tuple[str, ...]]:
        tables = catalogue()
        yield from ((INGESTION, name) for name in tables.source)
        yield from ((PROCESSED, name) for name in tables.star)
        yield from ((LEDGER,), (DEAD_LETTER,), (REGISTRY,))

    def _open(self, table: Table, schema: pa.Schema, zone: str, *, append_only: bool) -> DeltaTable:
        found = self.find(zone, table.name)
        if found is not None:
            return _with_new_columns(found, schema)
        folders = [MONTH] if table.day_column else []
        return self._create([zone, table.name], schema, folders, table.description, append_only=append_only)

    def _create(
        self, parts: Sequence[str], schema: pa.Schema, folders: list[str], description: str, *, append_only: bool
    ) -> DeltaTable:
        try:
            return DeltaTable.create(
                self.location(*parts),
                schema=schema,
                mode="ignore",
                partition_by=folders,
                description=description,
                configuration=_CHECKPOINTS | ({"delta.appendOnly": "true"} if append_only else {}),
                storage_options=self._options,
            )
        except CommitFailedError:  # "ignore" looks before it writes: of two first writers the slower comes here
            return DeltaTable(self.location(*parts), storage_options=self._options)
        except (OSError, DeltaError) as error:
            raise PlatformError(f"The lake at {self.uri} cannot be written: {one_line(error)}.") from error


def _with_new_columns(table: DeltaTable, schema: pa.Schema) -> DeltaTable:
    """Add the columns that the catalogue has and the table has not; what lies there already has NULL in them."""
    held = {field.name for field in table.schema().fields}
    new = [field.with_nullable(True) for field in schema if field.name not in held]
    if new:
        table.alter.add_columns(Schema.from_arrow(pa.schema(new)).fields)
    return table


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


def append(
    table: DeltaTable,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    writer: str,
    marks: Mapping[str, int] | None = None,
) -> None:
    """Append batches, provided that ``writer`` did not commit since ``table`` was opened; else LostRace.

    A plain append never conflicts with another, so every commit carries the next number of its writer's name: the
    slower of two gets LostRace, and must open the table and compute anew, never re-label what it has.
    ``marks`` are committed along, for ``table.transaction_version`` to tell.
    """
    _commit(table, batches, schema, writer, mode="append", predicate=None, marks=marks or {})


def replace(
    table: DeltaTable,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    writer: str,
    predicate: str | None,
    marks: Mapping[str, int] | None = None,
) -> None:
    """Replace the rows for which ``predicate`` is true (None: all), in one commit, fenced as ``append`` is.

    It also loses the race against a compaction: without any predicate delta-rs would not notice one, and would leave
    the merged file, which this writer never saw, beside the new rows.
    """
    if not table.file_uris():  # nothing to replace, and nothing to look through for it
        append(table, batches, schema, writer, marks)
        return
    _commit(table, batches, schema, writer, mode="overwrite", predicate=predicate or "true", marks=marks or {})


def _commit(
    table: DeltaTable,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    writer: str,
    *,
    mode: Literal["append", "overwrite"],
    predicate: str | None,
    marks: Mapping[str, int],
) -> None:
    fence = Transaction(writer, (table.transaction_version(writer) or 0) + 1)
    notes = [Transaction(name, number) for name, number in marks.items()]
    with stage(LAKE), _Background(batches) as background:
        try:
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(schema, background),
                mode=mode,  # type: ignore[arg-type]  # its overloads take one literal each
                predicate=predicate,
                commit_properties=CommitProperties(app_transactions=[fence, *notes]),
                writer_properties=_encodings(table),
                target_file_size=_FILE_BYTES,
            )
        except CommitFailedError as error:
            raise LostRace(str(error)) from error
        except Exception as error:
            if background.failure is not None:  # delta-rs only passes on the text of what went wrong in the batches
                raise background.failure from error
            if isinstance(error, (OSError, DeltaError)):
                raise unwritable(table, error) from error
            raise
        finally:
            count(LAKE, -background.waited)
    tidy(table)


def _encodings(table: DeltaTable) -> WriterProperties:
    """How columns are written: what is a number at heart as differences, times of day by what they have in common.

    parquet's default, a dictionary, is given up again for nearly all of these once it has grown too large. A million
    sales orders take a third of the time so, and half of the space.
    """
    encodings: dict[str, Literal["DELTA_BINARY_PACKED", "DELTA_BYTE_ARRAY"]] = {}
    for column in pa.schema(table.schema().to_arrow()):  # type: ignore[arg-type]  # it speaks Arrow's C interface
        if pa.types.is_integer(column.type) or pa.types.is_temporal(column.type):
            encodings[column.name] = "DELTA_BINARY_PACKED"
        elif column.name in _times_of_day():
            encodings[column.name] = "DELTA_BYTE_ARRAY"
    return WriterProperties(
        default_column_properties=ColumnProperties(statistics_enabled="CHUNK"),
        column_properties={
            name: ColumnProperties(dictionary_enabled=False, statistics_enabled="CHUNK", encoding=encoding)
            for name, encoding in encodings.items()
            if name not in table.metadata().partition_columns
        },
    )


@cache
def _times_of_day() -> frozenset[str]:
    columns = (column for table in catalogue().star.values() for column in table.columns)
    return frozenset(column.name for column in columns if column.type.startswith("time "))


def tidy(table: DeltaTable) -> None:
    """Merge the files of a folder that has gathered too many: every refresh leaves one, and every read opens all.

    No row changes. If somebody else is merging or replacing at the moment, it is theirs to do.
    """
    folders = table.metadata().partition_columns
    files = pa.table(table.get_add_actions(flatten=True))
    counts = files.group_by([f"partition.{folder}" for folder in folders]).aggregate([([], "count_all")]).to_pylist()
    for row in counts:
        if row["count_all"] > MOST_FILES:
            only = [(folder, "=", row[f"partition.{folder}"]) for folder in folders]
            try:
                _merge_files(table, only)
            except (CommitFailedError, DeltaError, OSError) as error:
                # Somebody else's to do, or for the next time: what was to be written is written.
                log.warning("%s: files were not merged: %s", table.table_uri, one_line(error))
                return


def _merge_files(table: DeltaTable, folder: Sequence[tuple[str, str, Any]] = ()) -> int:
    """Merge small files, in one folder where given; returns how many. 0 while somebody else does.

    delta-rs does not notice two merges of the same files at once (since its pull request 3982): both would commit, and
    every row would be there twice. So whoever merges takes the table for itself first, in a commit that only one makes.
    """
    now = int(time.time())
    if (table.transaction_version(_MERGING) or 0) > now:
        return 0
    _note_merging(table, now + _MERGING_SECONDS)
    try:
        metrics = table.optimize.compact(partition_filters=list(folder) or None, writer_properties=_encodings(table))
    finally:
        _note_merging(table, 0)
    return int(metrics["numFilesRemoved"])


def _note_merging(table: DeltaTable, until: int) -> None:
    nothing = pa.schema(table.schema().to_arrow()).empty_table()  # type: ignore[arg-type]  # as in _encodings
    mark = CommitProperties(app_transactions=[Transaction(_MERGING, until)])
    write_deltalake(table, nothing, mode="append", commit_properties=mark)


def unwritable(table: DeltaTable, error: Exception) -> PlatformError:
    """What to say when delta-rs fails to commit."""
    return PlatformError(
        f"The lake table at {table.table_uri} cannot be written: {one_line(error)}. "
        "Nothing was committed; check the disk or the bucket, then refresh."
    )


class _Background:
    """Makes batches in a thread of its own while delta-rs writes the ones before.

    Besides the gain, delta-rs pulls batches from one of its own threads, where it cannot be called again: batches that
    are made by reading another Delta table must come from elsewhere. Iterating raises what making the batches raised.
    """

    _WAIT_SECONDS = 0.1

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        # Few: each may be 20 MB, and the writer only has to be kept busy.
        self._ready: Queue[pa.RecordBatch | None] = Queue(maxsize=2)
        self._stop = Event()
        self._thread = Thread(target=self._make, name="batches", daemon=True)
        self.failure: BaseException | None = None
        self.waited = 0.0  # seconds in which the writer had nothing to write

    def __enter__(self) -> _Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _make(self) -> None:
        try:
            for batch in self._batches:
                if not self._put(batch):
                    return
        except BaseException as error:
            self.failure = error
        self._put(None)

    def _put(self, batch: pa.RecordBatch | None) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(batch, timeout=self._WAIT_SECONDS)
            except Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while (batch := self._next()) is not None:
            yield batch
        if self.failure is not None:
            raise self.failure

    def _next(self) -> pa.RecordBatch | None:
        asked = time.monotonic()
        batch = self._ready.get()
        self.waited += time.monotonic() - asked
        return batch


def conform(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches of DuckDB's result in exactly the lake's types. Raises ValueError for a NULL where none may be."""
    for batch in batches:
        yield batch.select(schema.names).cast(schema)


def newest_first(key: Iterable[str], day: str | None = None) -> str:
    """SQL for DuckDB's QUALIFY that keeps the newest version per ``key``, and per day where its column is given.

    A row that moves to another day leaves there and arrives here in one instant: the arrival is the newer.
    """
    columns = ", ".join([*(quoted(name) for name in key), *([f"CAST({quoted(day)} AS DATE)"] if day else [])])
    order = f"{quoted(RECORDED_AT)} DESC, {quoted(OPERATION)} = 'delete'"
    return f"row_number() OVER (PARTITION BY {columns} ORDER BY {order}) = 1"


def present_first(key: str, is_gone: str, day: str) -> str:
    """SQL for DuckDB's QUALIFY that keeps one of a row's newest states, of which it has one per day that it was on.

    To leave one day says nothing of another: the days may have been captured one by one, in any order. So a presence
    comes before a departure, whichever is newer; of two presences the newer is right, for the other day's is not
    compared yet.
    """
    order = f"{is_gone}, {quoted(RECORDED_AT)} DESC, {quoted(day)} DESC"
    return f"row_number() OVER (PARTITION BY {quoted(key)} ORDER BY {order}) = 1"
