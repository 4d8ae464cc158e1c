"""What a first capture passes its versions on to, so that they need not be read again from the lake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets.lake.commit import append
from totesys_assets.lake.read import RECORDED


class Onward(Protocol):
    """Takes the versions of one table along while they are captured. Nothing of it ever fails a capture."""

    def along(self, versions: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
        """The same batches, one by one; the receivers have them, too. About so many ``rows`` are to come."""
        ...

    def captured(self, origin: str, until: int) -> None:
        """They were committed, as all that the table ``origin`` holds, up to the moment ``until`` (microseconds)."""
        ...

    def abandon(self) -> None:
        """They were not committed: forget what was made of them."""
        ...


def append_first(
    held: DeltaTable,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    writer: str,
    marks: Mapping[str, int],
    onward: Onward | None,
    count: int,
) -> None:
    """Append the first versions of a table, about ``count``, and pass them ``onward``. Raises as ``append`` does."""
    if onward is None:
        append(held, batches, schema, writer, marks, is_large=True)
        return
    try:
        append(held, onward.along(batches, count), schema, writer, marks, is_large=True)
        onward.captured(str(held.metadata().id), marks[RECORDED])
    except BaseException:
        onward.abandon()
        raise
