"""Captures of other days beside one another: what the later commits, and when it must compare again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from totesys_assets.capture import beside, lost_ledger
from totesys_assets.capture.comparison import Comparison
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.capture.ledger import LAST, Ledger
from totesys_assets.capture.lost_ledger import ingestion_name
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange
from totesys_assets.errors import LakeFailed, StaleSnapshot
from totesys_assets.lake import commit as commit_module
from totesys_assets.lake.commit import commit
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import RECORDED
from totesys_assets.lake.tables import Lake
from totesys_assets.source.interface import SourceSnapshot
from totesys_assets_tests.conftest import Platform

TABLE = catalogue().source["sales_order"]
DAYS = [DayRange.of(day) for day in ("2024-08-20", "2024-09-10", "2024-10-10")]


@pytest.fixture
def months(platform: Platform) -> Platform:
    """An order on each of the days."""
    for number, days in enumerate(DAYS[1:], 2):
        platform.sql(
            f"INSERT INTO sales_order SELECT {number}, '{days.first} 08:00', last_updated, design_id, staff_id, "
            "counterparty_id, 5, unit_price, currency_id, agreed_delivery_date, agreed_payment_date, "
            "agreed_delivery_location_id FROM sales_order WHERE sales_order_id = 1"
        )
    return platform


def taken(platform: Platform, snapshot: SourceSnapshot, days: DayRange) -> Captured:
    """Capture one range."""
    return capture(
        snapshot,
        Lake(platform.settings.lake_uri),
        TABLE,
        all_days=platform.all_days,
        days=days,
        run_id="test",
        changes_only=True,
        is_range=True,
    )


def everything(platform: Platform, snapshot: SourceSnapshot) -> None:
    """Capture all days, as a refresh does."""
    days = platform.all_days
    capture(snapshot, platform.lake, TABLE, all_days=days, days=days, run_id="test", changes_only=True)


def held(platform: Platform) -> DeltaTable:
    return Lake(platform.settings.lake_uri).existing(TABLE)


def orders(platform: Platform) -> list[int]:
    """The orders that the lake has, in the order in which they were recorded."""
    rows = held(platform).to_pyarrow_table().to_pylist()
    return [row["sales_order_id"] for row in sorted(rows, key=lambda row: row["_recorded_at"])]


def in_between(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once, when a capture has read all of its rows and is about to commit them."""
    done = list[bool]()

    def late(*arguments: object, **named: object) -> None:
        if not done:
            done.append(True)
            act()
        commit(*arguments, **named)  # type: ignore[arg-type]

    patch.setattr(beside, "commit", late)


@pytest.mark.parametrize("what", ["write", "batches_of"])
def test_files_that_cannot_be_written_again_are_a_failure_of_the_lake(
    months: Platform, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError("No space left on device")

    def loses_and_fails() -> None:
        taken(months, other, DAYS[1])
        where = commit_module if what == "write" else beside
        monkeypatch.setattr(where, what, fails if what == "write" else lambda *_: map(fails, [None]))

    with months.totesys.snapshot() as one, months.totesys.snapshot() as other:
        in_between(monkeypatch, loses_and_fails)
        with pytest.raises(LakeFailed, match="cannot be written: No space left on device"):
            taken(months, one, DAYS[0])


@pytest.mark.parametrize("earlier_commits_last", [True, False])
def test_what_another_committed_on_other_days_is_followed_without_reading_again(
    months: Platform, monkeypatch: pytest.MonkeyPatch, earlier_commits_last: bool
) -> None:
    comparisons: list[Comparison] = []
    compare = Comparison.commit

    def noted(self: Comparison) -> None:
        comparisons.append(self)
        compare(self)

    monkeypatch.setattr(Comparison, "commit", noted)
    with months.totesys.snapshot() as one, months.totesys.snapshot() as other:
        first, second = (one, other) if earlier_commits_last else (other, one)
        in_between(monkeypatch, partial(taken, months, second, DAYS[1]))
        assert taken(months, first, DAYS[0]).versions == 1
    assert len(comparisons) == 2
    assert orders(months) == [2, 1]  # what is committed later is recorded later, whatever snapshot it is of
    moments = held(months).to_pyarrow_table(columns=["_recorded_at"]).column(0).cast(pa.int64()).to_pylist()
    assert len(set(moments)) == 2
    assert mark(held(months), RECORDED) == max(int(each or 0) for each in moments)


def test_what_another_committed_on_one_of_its_days_is_compared_again(
    months: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = DayRange(DAYS[0].first, DAYS[1].last)
    with months.totesys.snapshot() as one, months.totesys.snapshot() as other:
        in_between(monkeypatch, partial(taken, months, one, DAYS[1]))
        assert taken(months, other, both).versions == 1
    assert orders(months) == [2, 1]


def test_days_of_which_nothing_is_held_are_passed_on_as_they_come(months: Platform) -> None:
    with months.totesys.snapshot() as snapshot:
        taken(months, snapshot, DAYS[1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Comparison, "_chunks", lambda *_: pytest.fail("There is nothing to compare with."))
            assert taken(months, snapshot, DAYS[0]).versions == 1
    months.sql("UPDATE sales_order SET units_sold = 6")
    with months.totesys.snapshot() as snapshot:
        assert taken(months, snapshot, DAYS[0]).total("updated") == 1


def test_an_earlier_snapshot_still_brings_days_of_which_no_later_one_has_told(months: Platform) -> None:
    with months.totesys.snapshot() as earlier:
        months.sql("UPDATE sales_order SET units_sold = 6")
        with months.totesys.snapshot() as later:
            taken(months, later, DAYS[1])
        assert taken(months, earlier, DAYS[0]).versions == 1
        with pytest.raises(StaleSnapshot):
            taken(months, earlier, DAYS[1])
        with pytest.raises(StaleSnapshot):  # an ordinary capture is about all days
            everything(months, earlier)
        assert taken(months, earlier, DAYS[2]).versions == 1


def test_a_later_commit_that_does_not_say_its_days_may_be_about_any(months: Platform) -> None:
    with months.totesys.snapshot() as earlier:
        months.sql("UPDATE sales_order SET units_sold = 6")
        with months.totesys.snapshot() as later:
            everything(months, later)
        with pytest.raises(StaleSnapshot):
            taken(months, earlier, DAYS[0])


def test_merged_files_are_no_news_of_any_day(months: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    with months.totesys.snapshot() as earlier:
        months.sql("UPDATE sales_order SET units_sold = 6")
        with months.totesys.snapshot() as later:
            taken(months, later, DAYS[1])
            taken(months, later, DAYS[2])
        in_between(monkeypatch, lambda: Lake(months.settings.lake_uri).compact())
        assert taken(months, earlier, DAYS[0]).versions == 1


def test_a_range_that_was_killed_before_it_noted_what_it_committed_is_not_covered_by_another(
    months: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its day may have lost all rows since: then nothing else makes a look ask for that day."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def commits_and_dies() -> None:
        with pytest.MonkeyPatch.context() as patch, months.totesys.snapshot() as other:
            patch.setattr(Ledger, "append", killed)
            with pytest.raises(KeyboardInterrupt):
                taken(months, other, DAYS[1])

    taken_before = Ledger(months.lake).newest().get(LAST, {})
    assert taken_before == {}
    with months.totesys.snapshot() as one:
        taken(months, one, DAYS[2])
        in_between(monkeypatch, commits_and_dies)
        taken(months, one, DAYS[0])
    months.sql("DELETE FROM sales_order WHERE sales_order_id = 2")
    assert DAYS[1].keys[0] in months.look().stale[TABLE.asset]


def test_what_the_later_of_two_ranges_left_without_a_note_is_searched_once(
    months: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    with months.totesys.snapshot() as snapshot:
        taken(months, snapshot, DAYS[0])
        taken(months, snapshot, DAYS[1])
    noted = {name: dict(entries) for name, entries in Ledger(months.lake).newest().items()}
    noted[LAST][TABLE.name] = replace(noted[LAST][TABLE.name], state="an earlier commit")
    searches: list[str] = []
    search = lost_ledger.entries_from_lake

    def counted(*arguments: Any) -> Any:
        searches.append("search")
        return search(*arguments)

    monkeypatch.setattr(lost_ledger, "entries_from_lake", counted)
    for _ in range(2):
        assert lost_ledger.missing_entries(months.lake, TABLE, held(months), noted) == {}
    assert searches == ["search"]
    months.sql("UPDATE sales_order SET units_sold = 6")
    with months.totesys.snapshot() as snapshot:
        taken(months, snapshot, DAYS[0])
    assert lost_ledger.missing_entries(months.lake, TABLE, held(months), noted) == {}
    assert len(searches) == 2  # another commit
    del noted[ingestion_name(TABLE)][next(iter(noted[ingestion_name(TABLE)]))]
    noted[LAST][TABLE.name] = replace(noted[LAST][TABLE.name], state="another")
    for _ in range(2):
        assert len(lost_ledger.missing_entries(months.lake, TABLE, held(months), noted)) == 1
    assert len(searches) == 4  # what is missing is told until it is noted
