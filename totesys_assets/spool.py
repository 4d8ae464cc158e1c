"""Arrow batches on the disk, to be read again as often as needed: whatever there is of them takes no memory.

Belongs here: one such file. Does not belong here: what DuckDB writes of its own that does not fit (spill.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from io import IOBase
from types import TracebackType
from typing import Literal, Self, cast

import pyarrow as pa

from totesys_assets import spill

# So much stays in memory: a few changes need no file.
_IN_MEMORY_BYTES = 1_000_000


class Spool:
    """Batches of one ``schema``, in the order in which they were added; gone after the block.

    Raises TemporaryFilesFailed.
    """

    def __init__(self, schema: pa.Schema) -> None:
        # It has no name, so that nothing is left of a process that is killed.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - for the block
        self._writer = pa.ipc.new_stream(self._opened("w"), schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a batch."""
        with spill.told():
            self._writer.write_batch(batch)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All of them, one by one. Nothing may be added from then on, nor may they be read twice at once."""
        with spill.told():
            self._writer.close()
            self._file.seek(0)
        yield from pa.ipc.open_stream(self._opened("r"))

    def _opened(self, mode: Literal["r", "w"]) -> pa.PythonFile:
        return pa.PythonFile(cast(IOBase, self._file), mode=mode)
