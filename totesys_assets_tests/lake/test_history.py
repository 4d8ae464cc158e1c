"""What the commits to a table say of themselves is read as delta-rs reads it, as far back as the log goes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from totesys_assets.capture.dead_letters import SCHEMA
from totesys_assets.errors import LakeFailed
from totesys_assets.lake.commit import append
from totesys_assets.lake.history import commits
from totesys_assets.lake.tables import Lake

pytestmark = pytest.mark.pure
ROW = pa.Table.from_pylist([dict.fromkeys(SCHEMA.names)], schema=SCHEMA).to_batches()


def test_commits_are_what_delta_rs_says_and_end_where_the_log_does(tmp_path: Path) -> None:
    table = Lake(str(tmp_path / "the lake")).open_plain("dead_letter", SCHEMA, "")
    append(table, ROW, SCHEMA, "one", said={"totesys.days": "2024-01-01"})
    append(table, ROW, SCHEMA, "two", is_large=True)
    told = [{key: value for key, value in each.items() if key != "version"} for each in table.history()]
    assert [*commits(table)] == told
    assert [each.get("totesys.days") for each in told] == [None, "2024-01-01", None]
    log = tmp_path / "the lake" / "dead_letter" / "_delta_log"
    (log / f"{0:020}.json").unlink()
    assert [*commits(table)] == told[:2]
    (log / f"{1:020}.json").unlink()
    (log / f"{1:020}.json").mkdir()
    with pytest.raises(LakeFailed, match="cannot be read"):
        [*commits(table)]
