"""Committing to the lake: appending and replacing rows, so that of two concurrent writers only one succeeds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import RemoveAction

from totesys_assets.engine import one_line
from totesys_assets.errors import LakeFailed
from totesys_assets.lake.background import Background
from totesys_assets.lake.compact import MERGING, tidy
from totesys_assets.lake.encoding import encodings
from totesys_assets.lake.marks import left, mark
from totesys_assets.lake.written import Written, write
from totesys_assets.stages import LAKE, count, stage

# delta-rs keeps a file in memory until it is complete, one per month at the same time. With its default of 100 MB per
# file, that is all of a table of ten million rows. The nightly compaction merges small files into large ones.
_FILE_BYTES = 8_000_000
# With a commit of files that were written before: how many rows they have. delta-rs notes it of its own writes only.
_ROWS = "totesys.rows"


class LostRace(Exception):
    """Another writer committed to the table after it was opened. Discard what was computed from it."""


def append(
    table: DeltaTable,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    writer: str,
    marks: Mapping[str, int] | None = None,
    *,
    is_large: bool = False,
    said: Mapping[str, str] | None = None,
) -> None:
    """Append batches. Raises LostRace if ``writer`` has committed since ``table`` was opened.

    Delta lets two appends succeed at once, so each commit carries the next number under its writer's name: the slower
    of two gets LostRace. It must open the table and compute again; to retry with the next number would be wrong,
    but where both are known to be about other days (capture/beside.py).
    ``marks`` (name -> number) are committed with it; marks.py reads them. ``said``: more about the commit, for its
    entry in the table's history. ``is_large``: no file is held in memory; delta-rs holds one for each month.
    """
    if is_large:
        commit(written_beside(table, batches, schema), writer, marks, said=said)
        return
    _commit(table, batches, schema, writer, mode="append", predicate=None, marks=marks or {}, said=said)


def written_beside(table: DeltaTable, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Written:
    """Files with the batches, for ``commit``. Raises LakeFailed where they cannot be written."""
    try:
        with stage(LAKE):
            return write(table, batches, schema)
    except OSError as error:
        raise unwritable(table, error) from error
    finally:
        pa.default_memory_pool().release_unused()


def replace(
    table: DeltaTable,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    writer: str,
    predicate: str | None,
    marks: Mapping[str, int] | None = None,
) -> None:
    """Replace the rows for which ``predicate`` is true (None: all), in one commit, fenced as ``append`` is.

    It also raises LostRace after a compaction. The predicate is always given for that: without one, delta-rs would not
    notice the compaction, and would leave the merged file, which this writer never saw, beside the new rows.
    """
    if not table.file_uris():  # nothing to replace
        append(table, batches, schema, writer, marks)
        return
    _commit(table, batches, schema, writer, mode="overwrite", predicate=predicate or "true", marks=marks or {})


def commit(
    written: Written,
    writer: str,
    marks: Mapping[str, int] | None = None,
    *,
    instead_of: Sequence[str] = (),
    said: Mapping[str, str] | None = None,
) -> None:
    """Commit files that are written already, fenced as ``append`` is. Whoever loses the race has the files still.

    ``said``: more about the commit, for its entry in the table's history.
    ``instead_of``: paths of the table's files that this commit removes. It also raises LostRace when a compaction is
    under way, or has come between.
    """
    table = written.table
    all_marks = _numbered(table, writer, marks or {})
    if instead_of:
        # delta-rs does not notice that another has merged the files which this commit removes.
        merging = mark(table, MERGING) or 0
        if merging > time.time():
            raise LostRace(f"The files of {table.table_uri} are being merged.")
        all_marks[MERGING] = merging
    before, now = table.version(), int(time.time() * 1000)
    gone = [RemoveAction(path, data_change=True, deletion_timestamp=now) for path in instead_of]
    with stage(LAKE):
        try:
            table.create_write_transaction(
                [*written.actions, *gone],
                "append",
                table.schema(),
                table.metadata().partition_columns,
                commit_properties=_properties(all_marks, {**(said or {}), _ROWS: str(written.rows)}),
            )
        except CommitFailedError as error:
            raise LostRace(str(error)) from error
        except (OSError, DeltaError) as error:
            raise unwritable(table, error) from error
        with suppress(OSError, DeltaError):  # what is committed is committed; who uses the handle again loses a race
            table.update_incremental()
    left(table, before, all_marks)
    tidy(table)


def rows_added(commit: Mapping[str, Any]) -> int:
    """How many rows a commit added, as the table's history tells of it; 0 where it does not tell."""
    return int(commit.get("operationMetrics", {}).get("num_added_rows", commit.get(_ROWS, 0)))


def _numbered(table: DeltaTable, writer: str, marks: Mapping[str, int]) -> dict[str, int]:
    try:
        return {writer: (mark(table, writer) or 0) + 1, **marks}
    except (OSError, DeltaError) as error:  # it reads the log
        raise unwritable(table, error) from error


def _properties(marks: Mapping[str, int], said: Mapping[str, str] | None = None) -> CommitProperties:
    transactions = [Transaction(name, number) for name, number in marks.items()]
    return CommitProperties(custom_metadata=dict(said) if said else None, app_transactions=transactions)


def _commit(
    table: DeltaTable,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    writer: str,
    *,
    mode: Literal["append", "overwrite"],
    predicate: str | None,
    marks: Mapping[str, int],
    said: Mapping[str, str] | None = None,
) -> None:
    before, all_marks = table.version(), _numbered(table, writer, marks)
    with stage(LAKE), Background(batches) as background:
        try:
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(schema, background),
                mode=mode,  # type: ignore[arg-type]  # its overloads take one literal each
                predicate=predicate,
                commit_properties=_properties(all_marks, said),
                writer_properties=encodings(table),
                target_file_size=_FILE_BYTES,
            )
        except CommitFailedError as error:
            raise LostRace(str(error)) from error
        except Exception as error:
            if background.failure is not None:  # delta-rs passes on only the text of an error in the batches
                raise background.failure from error
            if isinstance(error, (OSError, DeltaError)):
                raise unwritable(table, error) from error
            raise
        finally:
            count(LAKE, -background.waited)
            # What its threads have freed, the allocator would keep: 100 MB after a million rows.
            pa.default_memory_pool().release_unused()
    left(table, before, all_marks)
    tidy(table)


def unwritable(table: DeltaTable, error: Exception) -> LakeFailed:
    """The error for a commit that failed in delta-rs."""
    return LakeFailed(
        f"The lake table at {table.table_uri} cannot be written: {one_line(error)}. "
        "Nothing was committed; check the disk or the bucket, then refresh."
    )
