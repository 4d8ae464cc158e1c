"""The lake stays quick to read: what frequent refreshes leave is merged as they go."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.table import TableOptimizer

from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.lake import compact
from totesys_assets.lake.compact import MOST_FILES
from totesys_assets.lake.tables import LEDGER, Lake

pytestmark = pytest.mark.pure


def versions(ledger: Ledger) -> int:
    """Entries that the ledger has, each of which notes one version."""
    return sum(total.versions for totals in ledger.totals().values() for total in totals.values())


def entry(asset: str, number: int) -> Entry:
    return Entry(asset, str(number), "state", 1, datetime.now(UTC), "run", inserted=1)


def files(lake: Lake) -> list[str]:
    table = lake.find(LEDGER)
    assert table is not None
    return table.file_uris()


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


def test_a_commit_merges_no_file_that_is_large_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, lake = Ledger(Lake(str(tmp_path))), Lake(str(tmp_path))
    many = [entry("large", number) for number in range(3_000)]
    ledger.append(many)
    (large,) = files(lake)
    monkeypatch.setattr(compact, "_SMALL_BYTES", Path(large).stat().st_size)
    for number in range(MOST_FILES + 1):
        ledger.append([entry("small", number)])
    assert large in files(lake)
    assert len(files(lake)) < 10
    assert versions(ledger) == len(many) + MOST_FILES + 1


def test_writers_that_merge_files_at_once_double_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "MOST_FILES", 4)
    ledger = Ledger(Lake(str(tmp_path)))
    ledger.append([entry("first", 0)])

    def write(asset: str) -> None:
        for number in range(15):
            ledger.append([entry(asset, number)])

    threads = [Thread(target=write, args=[asset]) for asset in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions(ledger) == 31


def test_of_two_merges_of_the_same_files_one_is_made(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    ledger = Ledger(lake)
    for number in range(5):
        ledger.append([entry("asset", number)])
    first, second = lake.open(LEDGER), lake.open(LEDGER)
    assert first is not None
    assert second is not None
    assert compact.merge_files(first) == 5
    with pytest.raises(CommitFailedError):
        compact.merge_files(second)
    assert versions(ledger) == 5


def test_files_are_left_alone_while_somebody_merges_and_for_an_hour_if_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        monkeypatch.setattr(compact, "_note_merging", lambda *_: None)
        raise Killed

    lake = Lake(str(tmp_path))
    ledger = Ledger(lake)
    for number in range(5):
        ledger.append([entry("asset", number)])
    with monkeypatch.context() as patch:
        patch.setattr(TableOptimizer, "compact", killed)
        with pytest.raises(Killed):
            lake.compact()
    monkeypatch.undo()
    assert lake.compact() == {"ledger": 0}
    later = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    assert lake.compact() == {"ledger": 5}
    assert versions(ledger) == 5


def test_files_that_no_merge_would_make_fewer_are_not_merged_at_each_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "_SMALL_BYTES", 32_000)
    for _ in range(MOST_FILES + 2):
        write_deltalake(str(tmp_path), pa.table({"text": [os.urandom(20_000)]}), mode="append")
    table = DeltaTable(str(tmp_path))
    compact.tidy(table)
    assert DeltaTable(str(tmp_path)).version() == MOST_FILES + 1
