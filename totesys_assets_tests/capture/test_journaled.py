"""What a look asks the journal costs no more than what is new in it."""
# ruff: noqa: F811 - fixtures of another module

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from totesys_assets import engine
from totesys_assets.capture.following import _seen_until
from totesys_assets.capture.journal import POSITION, Journal, stretch_of
from totesys_assets.capture.journaled import hidden_transactions, newest_changes
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import JOURNAL
from totesys_assets_tests.capture.test_followed import names, rename, server, source  # noqa: F401 - fixtures
from totesys_assets_tests.harness.followed import Followed
from totesys_assets_tests.harness.source import COLUMNS


def test_a_look_reads_no_more_of_the_journal_than_is_new(source: Followed) -> None:
    source.run(rename(1, "a"), rename(1, "b"), "UPDATE payment SET paid = true")
    source.refresh()
    files = [*Path(source.lake.uri, JOURNAL).rglob("*.parquet")]
    assert files
    for file in files:
        file.unlink()
    source.run(rename(1, "c"), rename(1, "d"))
    source.refresh()
    assert source.is_on
    assert names(source)[-4:] == ["a", "b", "c", "d"]
    assert _seen_until(source.lake, Journal(source.lake, "public", COLUMNS))


def test_what_a_snapshot_does_not_show_is_found_in_all_of_the_journal_when_ids_begin_anew(source: Followed) -> None:
    source.run(rename(1, "a"))
    source.refresh()
    held = source.lake.find(JOURNAL)
    assert held is not None
    stretch, until = stretch_of(held), mark(held, POSITION) or 0
    with source.totesys.snapshot() as snapshot, engine.session() as connection:
        rows = connection.execute(
            f"SELECT DISTINCT commit_lsn, xid FROM {register(connection, 'j', held)} WHERE stretch = {stretch}"
        ).fetchall()
        (position, xid) = max(rows)
        for xmin, hidden in ((xid + 1, ()), (xid, (position,)), (2**32 + xid, (position,)), (2**32 - 5, (position,))):
            shown = replace(snapshot, text=f"{xmin}:{xmin}:")
            found = hidden_transactions(held, stretch, until, shown)
            assert [each for each in found if each == position] == list(hidden)
            assert not hidden_transactions(held, stretch, position, shown) or xmin != xid
    assert newest_changes(held, stretch, until)["design"] == position
    assert "design" not in newest_changes(held, stretch, position)  # who was slower looks from an earlier position
