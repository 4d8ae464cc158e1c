"""What must be read to bring a table up to date: ids on their circle, and what is in doubt is read as a whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import duckdb
import pytest

from totesys_assets.capture.changes import Changes, all_of, changes
from totesys_assets.capture.ledger import EMPTY, Entry
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.source.interface import Fingerprint
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets.source.totesys.structure import SourceTable

pytestmark = pytest.mark.pure

TABLE = catalogue().source["sales_order"]
NOW = datetime(2024, 8, 22)
ONE, TWO = "2024-08-20", "2024-08-21"


def snapshot(xmax: int, *, server: str = "here", label: str = "") -> Snapshot:
    nobody = cast("duckdb.DuckDBPyConnection", None)
    tables = {"sales_order": SourceTable(identities={"created_at": label}, unique=(frozenset(["sales_order_id"]),))}
    return Snapshot(nobody, f"{xmax}:{xmax}:", server, server, "totesys", NOW, tables)


def entry(day: str, xmin_floor: int, taken: Snapshot, hash_: str = "old") -> Entry:
    state = f"{taken.state_prefix(TABLE)}|1|{hash_}"
    return Entry("ingestion/sales_order", day, state, 1, NOW.replace(tzinfo=UTC), "run", xmin_floor=xmin_floor)


def found(*days: str, rows: int = 1) -> dict[str, Fingerprint]:
    return {day: Fingerprint(rows, f"new {day}") for day in days}


def read(written: Changes, xmin: int) -> bool:
    """Whether a row that bears ``xmin`` is read."""
    condition = written.written.replace("xmin::text::bigint", f"{xmin}::bigint")
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {condition}").fetchone() == (True,)


def test_what_was_written_since_the_oldest_capture_of_the_stale_days_is_read() -> None:
    now = snapshot(200)
    known = {ONE: entry(ONE, 120, now), TWO: entry(TWO, 150, now)}
    written = changes(now, TABLE, [ONE, TWO], found(ONE, TWO), known)
    assert [read(written, xmin) for xmin in (3, 119, 120, 150, 199, 200)] == [False, False, True, True, True, False]
    assert (set(written.dated), set(written.whole)) == ({ONE, TWO}, set())


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


@pytest.mark.parametrize("xmin_floor", [2**31, 0])
def test_halfway_round_the_circle_and_without_a_floor_everything_is_read(xmin_floor: int) -> None:
    now = snapshot(2**32)
    assert changes(now, TABLE, [ONE], found(ONE), {ONE: entry(ONE, xmin_floor, now)}) == all_of([ONE])


def test_of_another_server_or_structure_everything_is_read() -> None:
    for before in (snapshot(100, server="there"), snapshot(100, label="renamed")):
        known = {ONE: entry(ONE, 50, before)}
        assert changes(snapshot(100), TABLE, [ONE], found(ONE), known) == all_of([ONE])


def test_a_day_that_was_never_captured_is_read_as_a_whole_beside_the_others() -> None:
    now = snapshot(200)
    written = changes(now, TABLE, [ONE, TWO], found(ONE, TWO), {ONE: entry(ONE, 150, now)})
    assert (set(written.dated), set(written.whole)) == ({ONE}, {TWO})


def test_a_day_that_was_emptied_is_stale_once_and_read_as_a_whole_when_rows_come_back() -> None:
    now = snapshot(200)
    known = {ONE: entry(ONE, 150, now)}
    assert changes(now, TABLE, [ONE], {}, known).dated == {ONE}
    known = {ONE: replace(known[ONE], state=EMPTY)}
    assert not changes(now, TABLE, [ONE], {}, known).stale
    assert changes(now, TABLE, [ONE], found(ONE), known) == all_of([ONE])
