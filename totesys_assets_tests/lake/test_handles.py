"""Handles of tables: those of readers are used again while they are true, those of writers are nobody else's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from totesys_assets.errors import PlatformError
from totesys_assets.lake import handles
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


def test_a_commit_that_vanished_is_no_state_to_go_on_with(lake: Lake) -> None:
    add(lake, 2)
    assert values(lake.find("ledger")) == [1, 2]
    (Path(lake.uri) / "ledger/_delta_log/00000000000000000001.json").unlink()
    assert values(lake.find("ledger")) == [1]
    (Path(lake.uri) / "ledger/_delta_log/00000000000000000000.json").write_text("{")
    with pytest.raises(PlatformError, match="cannot be read"):
        lake.find("ledger")
