"""Committing to the lake: appending and replacing rows behind a fence, of which one of two writers gets through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from totesys_assets.engine import one_line
from totesys_assets.errors import PlatformError
from totesys_assets.lake.background import Background
from totesys_assets.lake.compact import tidy
from totesys_assets.lake.encoding import encodings
from totesys_assets.stages import LAKE, count, stage

# delta-rs keeps a file in memory until it is complete, and one for each month at a time: with its own 100 MB, all of a
# table of ten million rows. The nightly compaction makes large files of small ones.
_FILE_BYTES = 8_000_000


class LostRace(Exception):
    """Another writer committed to the table after it was opened: what was computed from it must be thrown away."""


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
    with stage(LAKE), Background(batches) as background:
        try:
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(schema, background),
                mode=mode,  # type: ignore[arg-type]  # its overloads take one literal each
                predicate=predicate,
                commit_properties=CommitProperties(app_transactions=[fence, *notes]),
                writer_properties=encodings(table),
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


def unwritable(table: DeltaTable, error: Exception) -> PlatformError:
    """What to say when delta-rs fails to commit."""
    return PlatformError(
        f"The lake table at {table.table_uri} cannot be written: {one_line(error)}. "
        "Nothing was committed; check the disk or the bucket, then refresh."
    )


def conform(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches of DuckDB's result in exactly the lake's types. Raises ValueError for a NULL where none may be."""
    for batch in batches:
        yield batch.select(schema.names).cast(schema)
