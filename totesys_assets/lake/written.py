"""Files of a Delta table that are written and not committed: nobody sees them until a commit names them.

Belongs here: writing batches into such files, and finding those that something else wrote. Does not belong here: what a
commit says of a file (footers.py), and the commit (commit.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake.transaction import AddAction

from totesys_assets.lake.encoding import arrow_encodings
from totesys_assets.lake.footers import add_action
from totesys_assets.lake.storage import Storage, file_system, storage_of

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyarrow.parquet import FileMetaData, ParquetWriter

# A row group is what a reader decodes at once: DuckDB's own size.
_GROUP_ROWS = 122_880
# Rows of all folders that wait for their row groups to be full.
_WAITING_BYTES = 16_000_000
# A file that has become so large is closed, and another begun.
_FILE_BYTES = 32_000_000
# After so many rows, what was freed is given back: between what others hold, the allocator keeps it, up to 200 MB.
_GIVEN_BACK_ROWS = 500_000
# Files that are open at once, and what encodes each.
_OPEN_FILES = 32


@dataclass(frozen=True)
class Written:
    """Files that were written beside ``table``: an add action for each, with its statistics."""

    table: DeltaTable
    actions: Sequence[AddAction] = ()
    rows: int = 0

    def discard(self) -> None:
        """Remove the files, of which it is known that no commit names them. What cannot be removed stays."""
        storage_of(self.table).remove([each.path for each in self.actions])


class Writer:
    """Writes batches of one ``schema`` into files of ``table``, one after the other in each of its folders.

    ``close`` ends them; a block that is left by an error removes them. Memory: 16 MB of rows that wait, whatever their
    order, and the row group that is being encoded.
    """

    def __init__(self, table: DeltaTable, schema: pa.Schema) -> None:
        self._table, self._storage = table, storage_of(table)
        self._folders = table.metadata().partition_columns
        self._schema = pa.schema([each for each in schema if each.name not in self._folders])
        self._options = arrow_encodings(self._schema)
        self._open: dict[tuple[str, ...], _File] = {}
        self._waiting: dict[tuple[str, ...], _Waiting] = {}
        self._done: list[_File] = []
        self._kept_rows = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abandon()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch. Raises OSError where the files cannot be written, and TemporaryFilesFailed."""
        with self._storage.writing():
            self._write(batch)

    def _write(self, batch: pa.RecordBatch) -> None:
        for values, part in self._parts(batch):
            waiting = self._waiting.setdefault(values, _Waiting())
            waiting.add(part)
            if waiting.rows >= _GROUP_ROWS:
                self._flush(values)
        while sum(each.size for each in self._waiting.values()) > _WAITING_BYTES:
            self._flush(max(self._waiting, key=lambda values: self._waiting[values].size))

    def close(self) -> Written:
        """End all files, and tell what they hold. Raises as ``write``."""
        with self._storage.writing():
            for values in [*self._waiting]:
                self._flush(values)
            last = [*self._open.values()]
            self._open.clear()
            self._end(last)
            self._storage.close()
        actions = [each.action() for each in self._done]
        return Written(self._table, actions, sum(each.rows for each in self._done))

    def abandon(self) -> None:
        """End all files, and remove them."""
        self._waiting.clear()
        files = [*self._open.values(), *self._done]
        for each in files:
            with suppress(OSError, ValueError):
                each.close()
        self._storage.remove([each.path for each in files])
        self._storage.close()

    def _parts(self, batch: pa.RecordBatch) -> Iterator[tuple[tuple[str, ...], pa.RecordBatch]]:
        """The rows of each folder, without the columns that its name tells."""
        if not self._folders:
            yield (), batch.select(self._schema.names)
            return
        (folder,) = self._folders
        months = batch.column(folder).dictionary_encode()
        if months.null_count:
            raise ValueError(f"A row for {self._table.table_uri} has no {folder}.")
        rows = batch.select(self._schema.names)
        if len(months.dictionary) == 1:
            yield (str(months.dictionary[0]),), rows
            return
        import pyarrow.compute as pc  # here: only files of several folders need it

        for number, month in enumerate(months.dictionary.to_pylist()):
            yield (str(month),), rows.filter(pc.equal(months.indices, pa.scalar(number)))

    def _flush(self, values: tuple[str, ...]) -> None:
        rows = pa.Table.from_batches(self._waiting.pop(values).batches)
        file = self._open.get(values)
        if file is None:
            if len(self._open) >= _OPEN_FILES:
                self._end([self._open.pop(max(self._open, key=lambda each: self._open[each].rows))])
            file = self._open[values] = _File(self._storage, self._schema, dict(self._named(values)), self._options)
        file.write(rows)
        self._kept_rows += len(rows)
        if self._kept_rows >= _GIVEN_BACK_ROWS:
            self._kept_rows = 0
            del rows
            pa.default_memory_pool().release_unused()
        if file.size > _FILE_BYTES:
            self._end([self._open.pop(values)])
        elif self._storage.is_crowded():
            self._end([self._open.pop(max(self._open, key=lambda each: self._open[each].size))])

    def _named(self, values: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        return zip(self._folders, values, strict=True)

    def _end(self, files: Sequence[_File]) -> None:
        self._done += files
        for each in files:
            each.close()
        self._storage.complete([each.path for each in files])


def write(table: DeltaTable, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Written:
    """Write all ``batches``. Raises OSError, and what the batches raise; then no file is left."""
    with Writer(table, schema) as writer:
        for batch in batches:
            writer.write(batch)
        return writer.close()


def batches_of(written: Written, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of files that ``write`` has written, as batches of ``schema``. Raises OSError where one is gone."""
    from pyarrow.parquet import ParquetFile

    storage = storage_of(written.table)
    for action in written.actions:
        with storage.open(action.path) as stream, ParquetFile(stream) as file:
            for batch in file.iter_batches(_GROUP_ROWS):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                for name, value in action.partition_values.items():
                    columns[name] = pa.repeat(value, len(batch))
                arrays = [columns[field.name].cast(field.type) for field in schema]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def found(table: DeltaTable, sizes: Mapping[str, int], values: Iterable[dict[str, str]]) -> Written:
    """Files that something else wrote into the folder of ``table``: their ``sizes``, and the values of their folders.

    By their relative paths. Their footers are read. Raises OSError where one is missing or no Parquet file.
    """
    from pyarrow.parquet import read_metadata

    files, actions, rows = file_system(table, sizes), [], 0
    for (path, size), of_folders in zip(sizes.items(), values, strict=True):
        try:
            footer = read_metadata(path, filesystem=files)
        except pa.ArrowInvalid as error:
            raise OSError(f"{path} is no Parquet file: {error}") from error
        actions.append(add_action(path, size, of_folders, footer))
        rows += footer.num_rows
    return Written(table, actions, rows)


def listed_in(table: DeltaTable, folder: str) -> dict[str, int]:
    """The Parquet files below ``folder``, and their sizes. All paths are relative to the folder of ``table``."""
    files = storage_of(table).files(folder)
    return {path: files[path] for path in sorted(files) if path.endswith(".parquet")}


@dataclass
class _Waiting:
    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    size: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        self.rows += len(batch)
        self.size += batch.nbytes


class _File:
    """One file while it is written, and its footer afterwards."""

    def __init__(self, storage: Storage, schema: pa.Schema, values: dict[str, str], options: dict[str, Any]) -> None:
        from pyarrow.parquet import ParquetWriter

        folder = "".join(f"{name}={value}/" for name, value in values.items())
        self.path, self.values, self.rows = f"{folder}part-{uuid.uuid4()}.parquet", values, 0
        self._footers: list[FileMetaData] = []
        self._stream = storage.create(self.path)
        self._writer: ParquetWriter = ParquetWriter(
            self._stream, schema, metadata_collector=self._footers, store_decimal_as_integer=True, **options
        )
        self._size: int | None = None

    @property
    def size(self) -> int:
        return self._size if self._size is not None else int(self._stream.tell())

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows, row_group_size=max(len(rows), 1))
        self.rows += len(rows)

    def close(self) -> None:
        if self._size is None:
            self._writer.close()
            self._size = int(self._stream.tell())
            self._stream.close()

    def action(self) -> AddAction:
        return add_action(self.path, self.size, self.values, self._footers[0])
