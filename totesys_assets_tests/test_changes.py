"""What must be read to bring a table up to date: ids on their circle, and what is in doubt is read as a whole."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import cast

import duckdb
import pytest

from totesys_assets.capture.changes import Changes, changes, ranges
from totesys_assets.capture.fingerprint import Fingerprint, origin
from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange
from totesys_assets.resources.engine import CHUNK_ROWS
from totesys_assets.resources.source_structure import SourceTable
from totesys_assets.resources.totesys import Snapshot

TABLE = catalogue().source["sales_order"]
NOW = datetime(2024, 8, 22)
ONE, TWO = "2024-08-20", "2024-08-21"


def snapshot(xmax: int, *, server: str = "here", label: str = "") -> Snapshot:
    nobody = cast("duckdb.DuckDBPyConnection", None)
    tables = {"sales_order": SourceTable(identities={"created_at": label})}
    return Snapshot(nobody, f"{xmax}:{xmax}:", server, server, "totesys", NOW, tables)


def entry(day: str, anchor: int, taken: Snapshot, hash_: str = "old") -> Entry:
    state = f"{origin(taken, TABLE)}|1|{hash_}"
    return Entry("ingestion/sales_order", day, state, 1, NOW.replace(tzinfo=UTC), "run", anchor=anchor)


def found(*days: str, rows: int = 1) -> dict[str, Fingerprint]:
    return {day: Fingerprint(rows, f"new {day}") for day in days}


def read(written: Changes | None, xmin: int) -> bool:
    """Whether a row that bears ``xmin`` is read."""
    assert written is not None
    condition = written.written.replace("xmin::text::bigint", f"{xmin}::bigint")
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {condition}").fetchone() == (True,)


def test_what_was_written_since_the_oldest_capture_of_the_stale_days_is_read() -> None:
    now = snapshot(200)
    known = {ONE: entry(ONE, 120, now), TWO: entry(TWO, 150, now)}
    written = changes(now, TABLE, [ONE, TWO], found(ONE, TWO), known)
    assert [read(written, xmin) for xmin in (3, 119, 120, 150, 199, 200)] == [False, False, True, True, True, False]
    assert written is not None
    assert (set(written.stale), set(written.whole)) == ({ONE, TWO}, set())


def test_a_day_that_is_not_stale_has_no_say() -> None:
    now = snapshot(200)
    known = {ONE: entry(ONE, 20, now), TWO: entry(TWO, 150, now)}
    same = {ONE: Fingerprint(1, known[ONE].state)}
    written = changes(now, TABLE, [ONE, TWO], same | found(TWO), known)
    assert not read(written, 149)
    assert read(written, 150)


def test_ids_are_compared_on_their_circle() -> None:
    now = snapshot(2**32 + 10)
    written = changes(now, TABLE, [ONE], found(ONE), {ONE: entry(ONE, 2**32 - 5, now)})
    near_the_end = (2**32 - 6, 2**32 - 5, 2**32 - 1)
    assert [read(written, xmin) for xmin in near_the_end] == [False, True, True]
    assert [read(written, xmin) for xmin in (0, 9, 10, 3000)] == [True, True, False, False]


@pytest.mark.parametrize("anchor", [2**31, 0])
def test_halfway_round_the_circle_and_without_an_anchor_everything_is_read(anchor: int) -> None:
    now = snapshot(2**32)
    assert changes(now, TABLE, [ONE], found(ONE), {ONE: entry(ONE, anchor, now)}) is None


def test_of_another_server_or_structure_everything_is_read() -> None:
    for before in (snapshot(100, server="there"), snapshot(100, label="renamed")):
        known = {ONE: entry(ONE, 50, before)}
        assert changes(snapshot(100), TABLE, [ONE], found(ONE), known) is None


def test_a_day_that_was_never_captured_is_read_as_a_whole_beside_the_others() -> None:
    now = snapshot(200)
    written = changes(now, TABLE, [ONE, TWO], found(ONE, TWO), {ONE: entry(ONE, 150, now)})
    assert written is not None
    assert written.whole == {TWO}


def test_more_rows_than_fit_in_a_piece_are_left_to_be_read_piece_by_piece() -> None:
    now = snapshot(200)
    many = found(ONE) | found(TWO, rows=CHUNK_ROWS + 1)
    assert changes(now, TABLE, [ONE, TWO], many, {ONE: entry(ONE, 150, now)}) is None


def test_days_are_gathered_into_ranges() -> None:
    assert ranges(frozenset({ONE, TWO, "2024-08-25", "*"})) == [
        DayRange(date(2024, 8, 20), date(2024, 8, 21)),
        DayRange(date(2024, 8, 25), date(2024, 8, 25)),
    ]
