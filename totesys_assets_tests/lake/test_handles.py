"""Handles of tables: those of readers are used again while they are current, those of writers are nobody else's."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from totesys_assets.errors import LakeFailed, PlatformError
from totesys_assets.lake import handles
from totesys_assets.lake.commit import append
from totesys_assets.lake.files import listed
from totesys_assets.lake.marks import mark
from totesys_assets.lake.tables import Lake


def add(lake: Lake, *values: int) -> None:
    """A commit of somebody else's."""
    write_deltalake(lake.location("ledger"), pa.table({"value": values}), mode="append")


def values(table: DeltaTable | None) -> list[int]:
    assert table is not None
    return sorted(each for each in table.to_pyarrow_table()["value"].to_pylist() if each is not None)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    add(lake, 1)
    return lake


def test_a_table_that_nobody_wrote_to_is_not_opened_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    found = lake.find("ledger")
    monkeypatch.setattr(handles, "DeltaTable", None)
    assert lake.find("ledger") is found
    assert values(found) == [1]


def test_what_was_committed_since_is_found_and_an_older_handle_stays_as_it_is(lake: Lake) -> None:
    found = lake.find("ledger")
    add(lake, 2)
    assert values(lake.find("ledger")) == [1, 2]
    assert values(found) == [1]


def test_a_table_that_was_removed_is_not_found_and_one_made_anew_is_another(lake: Lake) -> None:
    old = lake.find("ledger")
    shutil.rmtree(lake.uri)
    assert lake.find("ledger") is None
    for number in range(20):  # of the same size, and within a millisecond or two
        add(lake, number)
        new = lake.find("ledger")
        assert values(new) == [number]
        shutil.rmtree(lake.uri)
    assert identity(old) != identity(new)


def identity(table: DeltaTable | None) -> object:
    assert table is not None
    return table.metadata().id


def test_a_writer_has_a_handle_of_its_own(lake: Lake) -> None:
    found, mine, other = lake.find("ledger"), lake.open("ledger"), lake.open("ledger")
    assert mine is not None
    assert mine is not other
    write_deltalake(mine, pa.table({"value": [2]}), mode="append")
    assert [values(each) for each in (found, mine, other, lake.find("ledger"))] == [[1], [1, 2], [1], [1, 2]]


def test_a_handle_that_is_given_back_is_read_with(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = lake.open("ledger")
    assert mine is not None
    write_deltalake(mine, pa.table({"value": [2]}), mode="append")
    lake.share(mine, "ledger")
    with monkeypatch.context() as patch:
        patch.setattr(handles, "DeltaTable", None)
        assert lake.find("ledger") is mine
    add(lake, 3)
    lake.share(mine, "ledger")  # too late
    assert values(lake.find("ledger")) == [1, 2, 3]


def test_a_bucket_that_fails_after_a_commit_undoes_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.find("ledger")
    table = lake.open("ledger")
    assert table is not None
    write_deltalake(table, pa.table({"value": [2]}), mode="append")

    def fail(*_: object) -> None:
        raise OSError("Generic S3 error: connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(handles, "_files", fail)
        lake.share(table, "ledger")
    assert values(lake.find("ledger")) == [1, 2]


def test_a_commit_that_vanished_is_no_state_to_go_on_with(lake: Lake) -> None:
    add(lake, 2)
    assert values(lake.find("ledger")) == [1, 2]
    (Path(lake.uri) / "ledger/_delta_log/00000000000000000001.json").unlink()
    assert values(lake.find("ledger")) == [1]
    (Path(lake.uri) / "ledger/_delta_log/00000000000000000000.json").write_text("{")
    with pytest.raises(PlatformError, match="cannot be read"):
        lake.find("ledger")


def test_a_handle_that_another_thread_began_to_open_before_a_commit_is_not_handed_out_after_it(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, committed, asked = Event(), Event(), []
    is_current = handles._is_current

    def slow(*arguments: object, **options: object) -> DeltaTable:
        table = DeltaTable(*arguments, **options)  # type: ignore[arg-type]
        if not opened.is_set():
            opened.set()
            assert committed.wait(20)
        return table

    def noted(kept: handles._Kept) -> bool:
        asked.append(kept)
        return is_current(kept)

    monkeypatch.setattr(handles, "DeltaTable", slow)
    monkeypatch.setattr(handles, "_is_current", noted)
    with ThreadPoolExecutor(max_workers=2) as threads:
        first = threads.submit(lake.find, "ledger")
        assert opened.wait(20)
        add(lake, 2)
        second = threads.submit(lake.find, "ledger")
        time.sleep(0.05)  # it waits for the first
        committed.set()
        assert values(first.result(20)) == [1]
        assert values(second.result(20)) == [1, 2]
    assert asked  # what the first had opened was not believed


def moved(lake: Lake) -> list[int]:
    with lake.moving("ledger") as table:
        return values(table)


def test_the_handle_that_moves_reads_only_what_is_new(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert moved(lake) == [1]
    add(lake, 2)
    monkeypatch.setattr(handles, "DeltaTable", None)
    assert moved(lake) == [1, 2]
    with lake.moving("ledger") as table:
        assert table is not None
        write_deltalake(table, pa.table({"value": [3]}), mode="append")
    assert moved(lake) == [1, 2, 3]


def test_the_handle_that_moves_is_left_alone_while_nobody_writes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert moved(lake) == [1]
    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "update_incremental", None)
        assert moved(lake) == [1]
    add(lake, 2)
    assert moved(lake) == [1, 2]


def test_the_handle_that_moves_is_another_for_a_new_table_and_after_a_writer_that_failed(
    lake: Lake,
) -> None:
    add(lake, 2)
    assert moved(lake) == [1, 2]
    shutil.rmtree(lake.uri)
    with lake.moving("ledger") as table:
        assert table is None
    add(lake, 3)
    assert moved(lake) == [3]
    with pytest.raises(ZeroDivisionError), lake.moving("ledger") as first:
        raise ZeroDivisionError
    with lake.moving("ledger") as second:
        assert second is not first


def test_two_threads_never_have_the_handle_that_moves_at_once(lake: Lake) -> None:
    def write(value: int) -> None:
        with lake.moving("ledger") as table:
            assert table is not None
            before = table.version()
            write_deltalake(table, pa.table({"value": [value]}), mode="append")
            assert table.version() == before + 1

    with ThreadPoolExecutor(max_workers=8) as threads:
        list(threads.map(write, range(2, 18)))
    assert moved(lake) == list(range(1, 18))


SCHEMA = pa.schema([("value", pa.int64())])


def leave(table: DeltaTable, number: int) -> None:
    """A commit of somebody else's, with a mark."""
    left = CommitProperties(app_transactions=[Transaction("mark", number)])
    write_deltalake(table, pa.table({"value": [number]}), mode="append", commit_properties=left)


def test_a_mark_is_looked_up_once_for_each_state_of_a_handle(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.open("ledger")
    assert table is not None
    assert mark(table, "mark") is None
    leave(table, 5)
    assert mark(table, "mark") == 5
    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "transaction_version", None)
        assert mark(table, "mark") == 5
    leave(table, 6)
    assert mark(table, "mark") == 6


def commit(table: DeltaTable, marks: dict[str, int]) -> None:
    append(table, [pa.RecordBatch.from_pydict({"value": [7]}, schema=SCHEMA)], SCHEMA, "writer", marks)


def test_what_a_commit_of_ones_own_leaves_is_not_looked_up(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.open("ledger")
    assert table is not None
    leave(table, 5)
    assert (mark(table, "mark"), mark(table, "writer")) == (5, None)
    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "transaction_version", None)
        commit(table, {"own": 1})
        commit(table, {"own": 2})
        assert [mark(table, name) for name in ("mark", "writer", "own")] == [5, 2, 2]
    other = DeltaTable(lake.location("ledger"))
    assert [mark(other, name) for name in ("mark", "writer", "own")] == [5, 2, 2]


def test_a_log_that_cannot_be_read_before_a_commit_is_said_in_a_sentence(lake: Lake) -> None:
    table = lake.open("ledger")
    assert table is not None
    log = Path(lake.uri, "ledger/_delta_log")
    log.rename(log.with_name("elsewhere"))
    log.touch()
    with pytest.raises(LakeFailed, match=r"The lake table at .* cannot be written"):
        commit(table, {"own": 1})
    log.unlink()
    log.with_name("elsewhere").rename(log)
    commit(table, {"own": 1})
    assert mark(table, "own") == 1


def test_what_others_left_before_a_commit_of_ones_own_is_looked_up(lake: Lake) -> None:
    table = lake.open("ledger")
    assert table is not None
    leave(table, 5)
    assert mark(table, "mark") == 5
    leave(DeltaTable(lake.location("ledger")), 6)
    commit(table, {"own": 1})
    assert [mark(table, name) for name in ("mark", "writer", "own")] == [6, 1, 1]


def test_the_files_of_a_table_are_listed_once_for_each_state_of_a_handle(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.open("ledger")
    assert table is not None
    assert listed(table).num_rows == 1
    commit(table, {"own": 1})
    assert listed(table).num_rows == 2
    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "get_add_actions", None)
        assert listed(table).num_rows == 2
    leave(DeltaTable(lake.location("ledger")), 6)
    assert listed(table).num_rows == 2
    table.update_incremental()
    assert listed(table).num_rows == 3
    table.restore(0)
    assert listed(table).num_rows == 1


def test_a_writer_is_told_what_the_readers_know_of_the_very_same_state(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.open("ledger")
    assert table is not None
    leave(table, 5)
    found = lake.find("ledger")
    assert found is not None
    assert mark(found, "mark") == 5
    files = listed(found)
    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "transaction_version", None)
        patch.setattr(DeltaTable, "get_add_actions", None)
        mine = lake.open("ledger")
        assert mine is not None
        assert mark(mine, "mark") == 5
        assert listed(mine) == files
    # Set back by a commit, and written to again: as many commits, but others.
    newest = Path(lake.uri, "ledger/_delta_log/00000000000000000001.json")
    newest.unlink()
    leave(DeltaTable(lake.location("ledger")), 66)
    mine = lake.open("ledger")
    assert mine is not None
    assert mine.version() == found.version()
    assert mark(mine, "mark") == 66
    assert set(listed(mine)["path"].to_pylist()) != set(files["path"].to_pylist())
