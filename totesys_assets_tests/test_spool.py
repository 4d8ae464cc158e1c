"""Batches on the disk: read as they were added, as often as asked, and gone after the block."""

from __future__ import annotations

import pyarrow as pa
import pytest

from totesys_assets.spool import Spool

pytestmark = pytest.mark.pure

COLUMNS: list[tuple[str, pa.DataType]] = [("number", pa.int64()), ("bytes", pa.binary())]
SCHEMA = pa.schema(COLUMNS)


@pytest.mark.parametrize("size", [10, 400_000])
def test_batches_are_read_as_they_were_added_and_take_no_memory(size: int) -> None:
    before = pa.total_allocated_bytes()
    with Spool(SCHEMA) as spool:
        for number in range(30):
            spool.add(pa.RecordBatch.from_pylist([{"number": number, "bytes": bytes([number]) * size}], SCHEMA))
        assert pa.total_allocated_bytes() - before < 2_000_000
        for _ in range(2):
            found = [row for batch in spool.batches() for row in batch.to_pylist()]
            assert found == [{"number": number, "bytes": bytes([number]) * size} for number in range(30)]
    with pytest.raises(ValueError, match="closed"):
        next(spool.batches())
