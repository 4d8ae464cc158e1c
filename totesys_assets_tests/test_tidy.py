"""The lake stays quick to read: what frequent refreshes leave is merged as they go."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.resources.lake import LEDGER, MOST_FILES, Lake


def test_many_small_commits_do_not_leave_as_many_files_and_lose_no_entry(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    ledger = Ledger(lake)
    for number in range(MOST_FILES + 3):
        ledger.append([Entry("asset", str(number % 5), f"state {number}", number, datetime.now(UTC), "run")])
    table = lake.find(LEDGER)
    assert table is not None
    assert len(table.file_uris()) <= 4
    newest = {partition: entry.rows for partition, entry in ledger.newest()["asset"].items()}
    assert sorted(newest.values()) == list(range(MOST_FILES - 2, MOST_FILES + 3))
