"""Merging small files of a table into larger ones, by one process at a time. No row changes."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from totesys_assets.engine import one_line
from totesys_assets.lake.encoding import encodings
from totesys_assets.lake.files import listed
from totesys_assets.lake.marks import mark

log = logging.getLogger(__name__)

# A process that merges files notes until when nobody else may, in seconds since 1970; 0 when it is done. A merge takes
# less time than this. After a merge that was killed, the table's files are not merged until then.
MERGING, _MERGING_SECONDS = "merging", 3600

# A folder with more files than this is merged, because every read of the folder opens them all.
MOST_FILES = 32
# Of those, files of less than this. Larger ones are left to the nightly merge: to write one takes so much memory, and
# each refresh that has another file would do it again.
_SMALL_BYTES = 32_000_000


def tidy(table: DeltaTable) -> None:
    """Merge the small files of each folder that has too many. Every refresh adds one, and every read opens all.

    No row changes. Does nothing while another process merges or replaces files.
    """
    folders = table.metadata().partition_columns
    files = listed(table)
    # Not Arrow's group_by, which imports all of pyarrow.dataset.
    rows = files.select(["size_bytes", *(f"partition.{folder}" for folder in folders)]).to_pylist()
    # Any two of these fit in one file of a merge. Of larger ones it might merge none, at each commit anew.
    small = [row for row in rows if row["size_bytes"] < _SMALL_BYTES // 2]
    counts = Counter(tuple(row[f"partition.{folder}"] for folder in folders) for row in small)
    for values, count in counts.items():
        if count > MOST_FILES:
            only = [(folder, "=", value) for folder, value in zip(folders, values, strict=True)]
            try:
                merge_files(table, only, _SMALL_BYTES)
            except (CommitFailedError, DeltaError, OSError) as error:
                # The rows are committed; another process or the next commit merges the files.
                log.warning("%s: files were not merged: %s", table.table_uri, one_line(error))
                return


def merge_files(table: DeltaTable, folder: Sequence[tuple[str, str, Any]] = (), size: int | None = None) -> int:
    """Merge small files, in one folder if given; returns how many. Returns 0 while another process merges.

    ``size``: in bytes, of what a merge makes; by itself, delta-rs makes files of 100 MB.

    delta-rs does not notice two concurrent merges of the same files (since its pull request 3982): both would commit,
    and every row would be there twice. So a merge begins with a commit that reserves the table, and that only one of
    two processes can make.
    """
    now = int(time.time())
    if (mark(table, MERGING) or 0) > now:
        return 0
    _note_merging(table, now + _MERGING_SECONDS)
    try:
        metrics = table.optimize.compact(
            partition_filters=list(folder) or None, target_size=size, writer_properties=encodings(table)
        )
    finally:
        _note_merging(table, 0)
    return int(metrics["numFilesRemoved"])


def _note_merging(table: DeltaTable, until: int) -> None:
    nothing = pa.schema(table.schema().to_arrow()).empty_table()  # type: ignore[arg-type]  # as in encodings
    mark = CommitProperties(app_transactions=[Transaction(MERGING, until)])
    write_deltalake(table, nothing, mode="append", commit_properties=mark)
