"""The tables of the lake: where they are, and creating and opening them.

Belongs here: the folders, and the properties of a new table. Does not belong here: which handles may be used again
(handles.py), reading (read.py), writing (commit.py) and merging files (compact.py).

A table that is found is there to be read: its handle is shared, and stays as it is. A table that is opened may be
written to: its handle belongs to the caller, and moves on with each commit.

    <lake>/ingestion/<source table>    every version of every row, append-only
    <lake>/processed/<table>           the star tables and the marts
    <lake>/ledger, <lake>/dead_letter  what each stage did, and the rows that break a type or a rule
    <lake>/schema_registry             the structures that the source's tables had
    <lake>/journal                     what the log of ToteSys told of
    <lake>/file_copy                   the last good copy of each dropped file, written by source/dropped.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError

from totesys_assets.catalogue.catalogue import MONTH, Table, catalogue, lake_schema
from totesys_assets.engine import one_line
from totesys_assets.errors import LakeFailed, PlatformError
from totesys_assets.lake.compact import merge_files
from totesys_assets.lake.files import listed
from totesys_assets.lake.handles import Handles, storage_options

T = TypeVar("T")
INGESTION, PROCESSED = "ingestion", "processed"
LEDGER, DEAD_LETTER, REGISTRY, JOURNAL = "ledger", "dead_letter", "schema_registry", "journal"

# Commits between two checkpoints of a table's log: who opens a table reads the commits since the last checkpoint, and
# who looks up a mark reads them again. With Delta's default of 100 that took twice as long as with 20; in a bucket,
# where each commit is two requests, 20 took a third more than 10.
_CHECKPOINTS = {"delta.checkpointInterval": "10"}

# Two processes, or the captures of two sources, may be the first to write to a table. delta-rs tries a commit that
# failed again as the next version: the slower would then create the table over that of the other, which could append
# nothing to it any more. Without such a try, it gets an error and opens what the other made.
_ONE_CREATOR = CommitProperties(max_commit_retries=0)


class Lake:
    """All tables of the lake under one URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        # Called before a table is made where there is no lake: it raises PlatformError if there should be one.
        self.may_begin: Callable[[], None] | None = None
        self._options = storage_options(uri)
        self._handles = Handles(self._options)

    def location(self, *parts: str) -> str:
        """URI of a table."""
        return "/".join([self.uri, *parts])

    def require(self) -> None:
        """Raise PlatformError if there is no lake yet."""
        if self.find(LEDGER) is None:
            raise PlatformError(f"There is no lake at {self.uri} yet. Run: totesys refresh.")

    def find(self, *parts: str) -> DeltaTable | None:
        """The table as it is now, to be read; None if nothing was written to it yet."""
        return self._asked(self._handles.find, parts)

    def find_version(self, version: int, *parts: str) -> DeltaTable | None:
        """The table as it was at ``version``, to be read; None where its log does not go back so far."""
        return self._asked(lambda uri: self._handles.find_version(uri, version), parts)

    def has_files(self, paths: Sequence[str], *parts: str) -> bool:
        """True if these files of a table are all there: those that a version of long ago had may be removed."""
        return self._asked(lambda uri: self._handles.has_files(uri, paths), parts)

    def open(self, *parts: str) -> DeltaTable | None:
        """The table as it is now, to be written to; None if nothing was written to it yet."""
        return self._asked(self._handles.open, parts)

    def share(self, table: DeltaTable, *parts: str) -> None:
        """Give the handle of a table that was opened to those who read, when nothing more is written with it."""
        self._handles.share(self.location(*parts), table)

    def _asked(self, ask: Callable[[str], T], parts: Sequence[str]) -> T:
        try:
            return ask(self.location(*parts))
        except (OSError, DeltaError) as error:
            raise LakeFailed(f"The lake at {self.uri} cannot be read: {one_line(error)}.") from error

    @contextmanager
    def moving(self, *parts: str) -> Iterator[DeltaTable | None]:
        """The table as it is now, also to be written to, for the block; other threads wait. None as ``find``."""
        with ExitStack() as stack:
            yield self._asked(lambda uri: stack.enter_context(self._handles.moving(uri)), parts)

    def find_versions(self, table: Table) -> DeltaTable:
        """The ingestion table of ``table``, to be read, with all columns; created if missing."""
        found = self.find(INGESTION, table.name)
        if found is None or self.lacks_columns(found, table):
            found = self.open_versions(table)
        return found

    def lacks_columns(self, versions: DeltaTable, table: Table) -> bool:
        """Whether an ingestion table has not all columns of ``table``: an older version made it."""
        return bool(_new_columns(versions, lake_schema(table, versioned=True)))

    def open_versions(self, table: Table) -> DeltaTable:
        """The ingestion table of ``table``, to be written to, created if missing."""
        return self._open(table, lake_schema(table, versioned=True), INGESTION, append_only=True)

    def existing(self, table: Table) -> DeltaTable:
        """The ingestion table of ``table``, to be read. Raises PlatformError if nothing was captured yet."""
        found = self.find(INGESTION, table.name)
        if found is None:
            raise PlatformError(f'The lake at {self.uri} holds no "{table.name}" yet. Run: totesys refresh.')
        return found

    def holds(self, table: Table) -> bool:
        """True if there is a processed table of ``table``, and it has the shape that a mart should have."""
        found = self.find(PROCESSED, table.name)
        return found is not None and not (table.is_mart and _is_of_another_shape(found, table))

    def open_processed(self, table: Table) -> DeltaTable:
        """The processed table of a star table or mart, to be written to, created if missing.

        A mart of another shape is begun anew.
        """
        if table.is_mart and (found := self.find(PROCESSED, table.name)) and _is_of_another_shape(found, table):
            schema, folders = lake_schema(table, versioned=False), [MONTH] if table.day_column else []
            parts = [PROCESSED, table.name]
            return self._create(parts, schema, folders, table.description, append_only=False, mode="overwrite")
        return self._open(table, lake_schema(table, versioned=False), PROCESSED, append_only=False)

    def open_plain(
        self,
        name: str,
        schema: pa.Schema,
        description: str,
        found: DeltaTable | None = None,
        *,
        append_only: bool = True,
    ) -> DeltaTable:
        """A table that is neither of a source nor of the star, to be written to, created if missing.

        ``found`` is a handle that the caller has; ``append_only``: of a new table, no row is ever removed.
        """
        found = found if found is not None else self.open(name)
        if found is not None:
            return _with_new_columns(found, schema)
        return self._create([name], schema, [], description, append_only=append_only)

    def present(self) -> list[str]:
        """The tables that a lake in a folder has. Of a bucket none are told: to ask for each would take too long."""
        if self._options is not None:
            return []
        return ["/".join(parts) for parts in self._all() if Path(self.uri, *parts, "_delta_log").is_dir()]

    def size(self) -> int:
        """Size of the lake in bytes: in a folder all files, in a bucket only the files that are read."""
        if self._options is None:
            size = 0
            for _, _, names, folder in os.fwalk(self.uri) if Path(self.uri).is_dir() else ():
                for name in names:
                    with suppress(FileNotFoundError):  # removed by a merge
                        size += os.lstat(name, dir_fd=folder).st_size
            return size
        return sum(int(pc.sum(listed(table).column("size_bytes")).as_py() or 0) for table in self.tables())

    def tables(self) -> list[DeltaTable]:
        """All tables that were begun, as they are now, to be read."""
        return [table for table in (self.find(*parts) for parts in self._all()) if table is not None]

    def compact(self) -> dict[str, int]:
        """Merge small files in every table: location -> files merged. No row changes.

        Files that were replaced more than a week ago, and those that no commit names, are deleted, except those of
        ingestion tables, which are kept.
        A table that is being built is left to the next compaction.
        """
        merged = {}
        for parts in self._all():
            table = self.open(*parts)
            if table is None:
                continue
            try:
                merged["/".join(parts)] = merge_files(table)
            except CommitFailedError:
                continue
            if parts[0] != INGESTION:
                table.vacuum(dry_run=False, full=True)
        return merged

    @staticmethod
    def _all() -> Iterator[tuple[str, ...]]:
        tables = catalogue()
        yield from ((INGESTION, name) for name in tables.source)
        yield from ((PROCESSED, name) for name in tables.warehouse)
        yield from ((LEDGER,), (DEAD_LETTER,), (REGISTRY,), (JOURNAL,))

    def _open(self, table: Table, schema: pa.Schema, zone: str, *, append_only: bool) -> DeltaTable:
        found = self.open(zone, table.name)
        if found is not None:
            return _with_new_columns(found, schema)
        folders = [MONTH] if table.day_column else []
        return self._create([zone, table.name], schema, folders, table.description, append_only=append_only)

    def _create(
        self,
        parts: Sequence[str],
        schema: pa.Schema,
        folders: list[str],
        description: str,
        *,
        append_only: bool,
        mode: Literal["ignore", "overwrite"] = "ignore",
    ) -> DeltaTable:
        if self.may_begin is not None and self.find(LEDGER) is None:
            self.may_begin()
        try:
            return DeltaTable.create(
                self.location(*parts),
                schema=schema,
                mode=mode,
                partition_by=folders,
                description=description,
                configuration=_CHECKPOINTS | ({"delta.appendOnly": "true"} if append_only else {}),
                storage_options=self._options,
                commit_properties=_ONE_CREATOR if mode == "ignore" else None,
            )
        except CommitFailedError:  # "ignore" checks before it writes, so the slower of two first writers gets here
            return DeltaTable(self.location(*parts), storage_options=self._options)
        except (OSError, DeltaError) as error:
            raise LakeFailed(f"The lake at {self.uri} cannot be written: {one_line(error)}.") from error


def _is_of_another_shape(held: DeltaTable, table: Table) -> bool:
    """True where columns are gone or of another type, or the partitions are others: new columns can be added."""
    wanted = lake_schema(table, versioned=False)
    fields = {field.name: field.type for field in pa.schema(held.schema().to_arrow())}  # type: ignore[arg-type]  # Arrow's C interface
    known = {field.name: field.type for field in wanted}
    by_month = held.metadata().partition_columns == [MONTH]
    return by_month != bool(table.day_column) or any(known.get(name) != type_ for name, type_ in fields.items())


def _with_new_columns(table: DeltaTable, schema: pa.Schema) -> DeltaTable:
    """Add columns that are new in the catalogue. Existing rows have NULL in them."""
    if new := _new_columns(table, schema):
        table.alter.add_columns(Schema.from_arrow(pa.schema(new)).fields)
    return table


def _new_columns(table: DeltaTable, schema: pa.Schema) -> list[pa.Field[pa.DataType]]:
    held = {field.name for field in table.schema().fields}
    return [field.with_nullable(True) for field in schema if field.name not in held]
