"""Rows as a table of the lake has them: in its types, and with the month that is their folder.

Belongs here: this form. Does not belong here: how rows are written (written.py), and committed (commit.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from totesys_assets.catalogue.catalogue import MONTH

# So many months are listed, from the first to the last of a batch; of more, those that there are.
_LISTED = 10_000


def conform(batches: Iterable[pa.RecordBatch], schema: pa.Schema, day: str | None) -> Iterator[pa.RecordBatch]:
    """Batches of DuckDB's result in the lake's exact types, with their months.

    ``day``: the column, a date or time, whose month it is; None where rows have none. Raises ValueError for a NULL in
    a column without NULLs.
    """
    typed = pa.schema([each for each in schema if each.name != MONTH])
    for batch in batches:
        rows = batch.select(typed.names).cast(typed)
        if day is not None:
            rows = rows.append_column(schema.field(MONTH), months(rows.column(day))).select(schema.names)
        yield rows


def months(days: pa.Array[Any]) -> pa.Array[Any]:
    """The month of each date or time as text, YYYY-MM. Raises ValueError for a NULL."""
    if days.null_count:
        raise ValueError("A row has no day, and so no month.")
    if not len(days):
        return pa.array([], pa.string())
    numbers = days.to_numpy(zero_copy_only=False).astype("datetime64[M]")
    first, last = numbers.min(), numbers.max()
    if first == last:
        return pa.repeat(str(first), len(days))
    if (last - first).astype(int) < _LISTED:
        names, places = np.arange(first, last + 1), (numbers - first).astype(np.int32)
    else:
        names, places = np.unique(numbers, return_inverse=True)
    return pa.DictionaryArray.from_arrays(places, np.datetime_as_string(names).astype(object)).cast(pa.string())
