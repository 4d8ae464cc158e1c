"""What a copied source showed: at the same instant it is known without a copy, and rows can still be asked for."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pytest

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import DayRange
from totesys_assets.source.copied import CopiedSnapshot
from totesys_assets.source.seen import Seen
from totesys_assets_tests.source.test_copied_source import DAYS, GOOD, TABLE, Row

pytestmark = pytest.mark.pure


class Snapshot(CopiedSnapshot):
    """A snapshot of one row that counts how often it is read; ``broken``: a file that cannot be."""

    def __init__(self, seen: Seen, row: Row, *, instant: str = "now", broken: bool = False) -> None:
        super().__init__("readings", instant, seen=seen)
        self._row, self._broken, self.reads = row, broken, 0

    def texts(self, table: Table) -> pa.Table:
        self.reads += 1
        if self._broken:
            self.refuse(table, "a file", "file: cannot be read", "{}")
        return pa.table({name: pa.array([text], pa.string()) for name, text in self._row.items()})


def test_at_the_same_instant_fingerprints_and_columns_are_known_without_a_copy() -> None:
    seen = Seen()
    with Snapshot(seen, GOOD) as first, Snapshot(seen, GOOD) as second:
        expected = first.fingerprints(TABLE, DAYS)
        assert list(expected) == ["2024-08-20"]
        assert second.fingerprints(TABLE, DAYS) == expected
        assert second.columns(TABLE) == first.columns(TABLE) != {}
        assert (first.reads, second.reads) == (1, 0)
        rows = second.rows(second.select(TABLE, DAYS))
        assert rows == first.rows(first.select(TABLE, DAYS))
        assert (len(rows), second.reads) == (1, 1)


def test_another_instant_and_other_days_are_read() -> None:
    seen = Seen()
    later = DayRange(date(2024, 8, 19), date(2024, 8, 26))
    with (
        Snapshot(seen, GOOD) as first,
        Snapshot(seen, {**GOOD, "number": "8"}, instant="then") as other,
        Snapshot(seen, {**GOOD, "number": "8"}, instant="then") as longer,
    ):
        before = first.fingerprints(TABLE, DAYS)
        assert other.fingerprints(TABLE, DAYS) != before
        longer.fingerprints(TABLE, later)
        assert (other.reads, longer.reads) == (1, 1)


def test_what_could_not_be_read_is_tried_again() -> None:
    seen = Seen()
    with Snapshot(seen, GOOD, broken=True) as first, Snapshot(seen, GOOD) as second:
        first.fingerprints(TABLE, DAYS)
        second.fingerprints(TABLE, DAYS)
        assert second.reads == 1
