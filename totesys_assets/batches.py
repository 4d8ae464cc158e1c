"""Arrow batches of a bounded size, in rows and in bytes.

Belongs here: making batches larger or smaller. Does not belong here: where they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

# Rows that DuckDB works on at a time: it gives no fewer.
VECTOR_ROWS = 2048
# A batch of usual rows has less.
_MOST_BYTES = 16_000_000


def sized(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    """The same rows, in batches of at most ``most``, and of about 16 MB. None that comes has over ``VECTOR_ROWS``."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + len(batch), size + batch.get_total_buffer_size()
        if rows + VECTOR_ROWS > most or size > _MOST_BYTES:
            yield from _in_parts(pa.Table.from_batches(held), 1 + size // _MOST_BYTES)
            held, rows, size = [], 0, 0
    if held:
        yield from _in_parts(pa.Table.from_batches(held), 1)


def _in_parts(table: pa.Table, parts: int) -> Iterator[pa.RecordBatch]:
    """So many batches, each with memory of its own."""
    step = -(-len(table) // parts)
    for begin in range(0, len(table), step or 1):
        rows = range(begin, min(begin + step, len(table)))
        part = table if parts == 1 else table.take(pa.array(rows))
        yield from part.combine_chunks().to_batches()
