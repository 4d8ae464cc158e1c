"""A look finds what hashing every row would find, and hashes next to none; capture reads where rows were written."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from totesys_assets.audit.audit import audit
from totesys_assets.audit.findings import OVERDUE
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.days import DayRange, Days
from totesys_assets.source.interface import Fingerprint
from totesys_assets.source.totesys import looks
from totesys_assets.source.totesys.fingerprint import CIRCLE, Places, scan
from totesys_assets.source.totesys.remembered import ByDay
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets.staleness.look import look
from totesys_assets_tests.conftest import Platform

ORDERS = catalogue().source["sales_order"]
FIRST = date(2024, 8, 20)
EVERYTHING = "true"
COPY = """
INSERT INTO sales_order SELECT n, %s::date + n * interval '1 day', last_updated, design_id, staff_id, counterparty_id,
    units_sold, unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id
FROM sales_order, generate_series(%s::int, %s::int) AS n WHERE sales_order_id = 1
"""


@pytest.fixture(autouse=True)
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The conditions under which rows of orders were hashed, but for those that were written, where they lie."""
    hash_, conditions = looks.hashed, list[str]()

    def note(
        snapshot: Snapshot, table: Table, within: str = EVERYTHING, floor: int | None = None
    ) -> tuple[ByDay, Places | None]:
        if table.name == ORDERS.name and not within.startswith("ctid"):
            conditions.append(within)
        return hash_(snapshot, table, within, floor)

    monkeypatch.setattr(looks, "hashed", note)
    return conditions


@pytest.fixture
def orders(platform: Platform, hashed: list[str]) -> Platform:
    """A platform of a ToteSys with twenty orders on as many days, which was looked at."""
    platform.sql(COPY, [FIRST, 2, 20])
    found(platform)
    assert hashed == [EVERYTHING]
    hashed.clear()
    return platform


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def found(platform: Platform, days: DayRange | None = None) -> dict[str, Fingerprint]:
    """What a look finds."""
    with platform.totesys.snapshot() as snapshot:
        return snapshot.changed_fingerprints(ORDERS, days or platform.all_days)


def require_found(platform: Platform, hashed: list[str], *conditions: str) -> None:
    """Another look finds what is there, by hashing the rows under these conditions."""
    with platform.totesys.snapshot() as snapshot:
        seen = snapshot.changed_fingerprints(ORDERS, platform.all_days)
        assert hashed == list(conditions)
        assert seen == snapshot.fingerprints(ORDERS, platform.all_days)
    hashed.clear()


def on(*days: int) -> str:
    """The condition of the orders on some days, each by its number."""
    dates = [FIRST + timedelta(days=day) for day in days]
    ranges = (f"(\"created_at\" >= '{each}' AND \"created_at\" < '{each + timedelta(days=1)}')" for each in dates)
    return f"(({' OR '.join(ranges)}))"


def test_of_a_new_and_of_a_changed_order_only_their_days_are_hashed(orders: Platform, hashed: list[str]) -> None:
    require_found(orders, hashed)
    orders.sql(COPY, [FIRST - timedelta(days=15), 21, 21])
    orders.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 3")
    require_found(orders, hashed, on(3, 6))
    orders.sql("UPDATE sales_order SET last_updated = last_updated WHERE sales_order_id = 3")
    require_found(orders, hashed, on(3))


def test_of_nothing_but_new_orders_only_these_are_hashed(orders: Platform, hashed: list[str]) -> None:
    orders.sql(COPY, [FIRST - timedelta(days=15), 21, 23])
    orders.sql(COPY, [FIRST, 40, 40])
    require_found(orders, hashed)


def test_a_scan_of_all_rows_is_shared_among_processes_though_no_two_rows_are_of_one_moment(orders: Platform) -> None:
    orders.sql(COPY, [FIRST, 21, 20_000])
    orders.sql("UPDATE sales_order SET created_at = %s::date + sales_order_id * interval '1 minute'", [FIRST])
    with psycopg.connect(orders.totesys_url) as connection:
        connection.execute("ANALYZE sales_order")
        connection.execute("SET LOCAL parallel_setup_cost = 0; SET LOCAL min_parallel_table_scan_size = 0")
        plan = connection.execute(f"EXPLAIN {scan(ORDERS, 'sales_order')}".encode()).fetchall()
    assert any("Partial" in line for (line,) in plan), plan


def test_at_the_same_instant_nothing_is_read(orders: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    with orders.totesys.snapshot() as snapshot:
        seen = snapshot.fingerprints(ORDERS, orders.all_days)
        monkeypatch.setattr(Snapshot, "rows", None)
        assert snapshot.changed_fingerprints(ORDERS, orders.all_days) == seen


def test_locks_and_what_was_rolled_back_are_no_writing(orders: Platform, hashed: list[str]) -> None:
    with psycopg.connect(orders.totesys_url) as session:
        session.execute("SELECT FROM sales_order FOR UPDATE")
        session.commit()
        session.execute("UPDATE sales_order SET units_sold = 7")
        session.rollback()
    orders.sql("UPDATE design SET design_name = 'moved on'")
    require_found(orders, hashed)


def test_an_order_that_is_gone_has_everything_hashed(orders: Platform, hashed: list[str]) -> None:
    orders.sql("DELETE FROM sales_order WHERE sales_order_id = 5")
    require_found(orders, hashed, EVERYTHING)


def test_an_order_that_is_gone_is_not_made_up_for_by_a_new_one(orders: Platform, hashed: list[str]) -> None:
    orders.sql("DELETE FROM sales_order WHERE sales_order_id = 5")
    orders.sql(COPY, [FIRST - timedelta(days=15), 21, 21])
    require_found(orders, hashed, on(6), EVERYTHING)
    orders.sql("DELETE FROM sales_order WHERE sales_order_id = 21")
    orders.sql(COPY, [FIRST - timedelta(days=15), 21, 21])
    require_found(orders, hashed, on(6))


def test_an_order_that_moves_is_missed_where_it_was(orders: Platform, hashed: list[str]) -> None:
    orders.sql("UPDATE sales_order SET created_at = '2024-08-27' WHERE sales_order_id = 2")
    require_found(orders, hashed, on(7), EVERYTHING)


NEW = """
INSERT INTO sales_order SELECT %(new)s, '2024-08-20'::date + %(two)s * interval '1 day', last_updated, design_id,
    staff_id, counterparty_id, units_sold, unit_price, currency_id, agreed_delivery_date, agreed_payment_date,
    agreed_delivery_location_id
FROM sales_order ORDER BY sales_order_id LIMIT 1
"""
WRITINGS = {
    NEW: 8,
    "UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = %(one)s": 4,
    "UPDATE sales_order SET created_at = '2024-08-19'::date + %(two)s WHERE sales_order_id = %(one)s": 3,
    "UPDATE sales_order SET created_at = 'infinity' WHERE sales_order_id = %(one)s": 1,
    "DELETE FROM sales_order WHERE sales_order_id = %(one)s": 3,
    "DELETE FROM sales_order WHERE created_at = (SELECT min(created_at) FROM sales_order)": 1,
}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_written_a_look_finds_what_hashing_all_would(
    orders: Platform, hashed: list[str], seed: int
) -> None:
    chance, new = random.Random(seed), count(100)
    orders.sql("UPDATE sales_order SET created_at = '2024-08-20'::date + sales_order_id % 6")
    found(orders)
    hashed.clear()
    with psycopg.connect(orders.totesys_url) as late:
        for _ in range(40):
            for writing in chance.choices([*WRITINGS], [*WRITINGS.values()], k=chance.choice([1, 1, 2, 3])):
                values = {"one": chance.randrange(1, 21), "two": chance.randrange(8), "new": next(new)}
                if writing == NEW and chance.random() < 0.3:
                    late.execute(NEW, values)  # of which the snapshots to come may know the id, and see nothing
                else:
                    orders.sql(writing, values)
            if chance.random() < 0.3:
                late.commit()
            with orders.totesys.snapshot() as snapshot:
                seen = snapshot.changed_fingerprints(ORDERS, orders.all_days)
                assert seen == snapshot.fingerprints(ORDERS, orders.all_days)
    assert any(each != EVERYTHING for each in hashed)  # most of the others are those of ``fingerprints``


@pytest.mark.parametrize("how", ["COMMIT", "a savepoint", "prepared"])
def test_a_transaction_that_was_open_during_a_look_is_seen_by_the_next(
    orders: Platform, hashed: list[str], how: str
) -> None:
    with psycopg.connect(orders.totesys_url, autocommit=True) as late:
        late.execute("BEGIN")
        late.execute("UPDATE design SET design_name = 'has an id'")
        if how == "a savepoint":
            late.execute("SAVEPOINT one")
        late.execute("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 3")
        if how == "a savepoint":
            late.execute("RELEASE one")
        if how == "prepared":
            late.execute("PREPARE TRANSACTION 'order three'")
        orders.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 9")
        require_found(orders, hashed, on(9))
        late.execute("COMMIT PREPARED 'order three'" if how == "prepared" else "COMMIT")
    require_found(orders, hashed, on(3, 9))


@pytest.mark.parametrize("moment", ["infinity", "0044-03-15 BC", "9999-12-31", "2999-01-01", "12024-08-20"])
def test_orders_without_a_partition_are_looked_at_too(orders: Platform, hashed: list[str], moment: str) -> None:
    orders.sql("UPDATE sales_order SET created_at = %s WHERE sales_order_id = 4", [moment])
    with orders.totesys.snapshot() as snapshot:
        assert found(orders) == snapshot.fingerprints(ORDERS, orders.all_days)
    hashed.clear()
    orders.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id IN (1, 4)")
    with orders.totesys.snapshot() as snapshot:
        seen = found(orders)
        assert hashed[0] != EVERYTHING
        assert seen == snapshot.fingerprints(ORDERS, orders.all_days)
        assert seen.keys() <= set(orders.all_days.keys)
        assert (seen[str(orders.all_days.first)].rows, sum(each.rows for each in seen.values())) == (1, 20)


def test_a_day_that_gets_a_partition_takes_its_orders_from_the_first(orders: Platform, hashed: list[str]) -> None:
    """Days that are not partitions yet, or no longer by a clock that was set back: no row need be written for that."""
    for last in (FIRST + timedelta(days=9), FIRST + timedelta(days=19), FIRST + timedelta(days=5)):
        days = DayRange(FIRST, last)
        with orders.totesys.snapshot() as snapshot:
            assert found(orders, days) == snapshot.fingerprints(ORDERS, days)
    assert set(hashed) == {EVERYTHING}  # by the comparisons
    assert len(hashed) == 3


@pytest.mark.parametrize("change", ["lifetime", "server", "generation", "structure", "schema"])
def test_of_another_server_or_table_nothing_is_remembered(orders: Platform, hashed: list[str], change: str) -> None:
    """A cold copy can be put in the place of the data while a server is down: every start of it is another lifetime."""
    with orders.totesys.snapshot() as snapshot:
        if change == "structure":
            columns = replace(snapshot.tables["sales_order"], relations="another")
            other = replace(snapshot, tables=snapshot.tables | {"sales_order": columns})
        elif change == "schema":
            orders.sql("CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.sales_order (LIKE sales_order)")
            other = replace(snapshot, schema="elsewhere")
        else:
            changed: dict[str, Any] = {change: 1 if change == "generation" else "another"}
            other = replace(snapshot, **changed)
        other.changed_fingerprints(ORDERS, orders.all_days)
    assert hashed == [EVERYTHING]


def test_a_look_at_an_earlier_instant_than_the_last_does_not_rely_on_it(
    orders: Platform, hashed: list[str], stack: ExitStack
) -> None:
    with psycopg.connect(orders.totesys_url) as running:  # so that ids alone do not tell which of the two is later
        running.execute("UPDATE design SET design_name = 'has an id'")
        earlier = stack.enter_context(orders.totesys.snapshot())
        orders.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 3")
        require_found(orders, hashed, on(3))
        seen = earlier.changed_fingerprints(ORDERS, orders.all_days)
        assert hashed == [EVERYTHING]
        assert seen == earlier.fingerprints(ORDERS, orders.all_days)


def test_ids_from_the_other_side_of_their_circle_are_not_relied_on(orders: Platform, hashed: list[str]) -> None:
    with orders.totesys.snapshot() as snapshot:
        for width, condition in ((CIRCLE // 4 - 1, []), (CIRCLE // 4, [EVERYTHING]), (CIRCLE, [EVERYTHING])):
            later = replace(snapshot, text=f"{snapshot.xmin + width}:{snapshot.xmin + width}:", looks={}, scans={})
            kept = later.remembered.of("sales_order")
            assert kept is not None
            later.changed_fingerprints(ORDERS, orders.all_days)
            later.remembered.note("sales_order", kept)
            assert (width, hashed) == (width, condition)
            hashed.clear()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sales_order": 1}', '{"sales_order": {"days": {}}}'])
def test_without_a_readable_file_everything_is_hashed(orders: Platform, hashed: list[str], text: str) -> None:
    path = remembered(orders)
    assert json.loads(path.read_text())["sales_order"]["days"]["2024-08-22"][0] == 1
    path.write_text(text)
    require_found(orders, hashed, EVERYTHING)
    require_found(orders, hashed)
    path.unlink()
    path.mkdir()  # nothing can be kept
    require_found(orders, hashed, EVERYTHING)


def remembered(platform: Platform) -> Path:
    return platform.settings.home / "looked_at"


# Capturing what a look, or the capture's own scan, has found


def brought_in(platform: Platform, *, looked: bool, days: Days | None = None) -> tuple[Captured, str]:
    """Capture what changed, in the snapshot of a look or in one of its own; and the condition of what was read."""
    asked = list[str]()
    with platform.totesys.snapshot() as snapshot, pytest.MonkeyPatch.context() as patch:
        rows = Snapshot.written_since

        def note(*arguments: object) -> tuple[str, frozenset[str]]:
            told = rows(*arguments)  # type: ignore[arg-type]
            asked.append(told[0])
            return told

        patch.setattr(Snapshot, "written_since", note)
        if looked:
            snapshot.changed_fingerprints(ORDERS, platform.all_days)
        done = capture(
            snapshot,
            platform.lake,
            ORDERS,
            all_days=platform.all_days,
            days=days or platform.all_days,
            run_id="test",
            changes_only=True,
        )
    return done, asked[-1]


PARTITIONED = """
ALTER TABLE sales_order RENAME TO whole;
CREATE TABLE sales_order (LIKE whole) PARTITION BY RANGE (created_at);
CREATE TABLE august PARTITION OF sales_order FOR VALUES FROM (MINVALUE) TO ('2024-09-01');
CREATE TABLE later PARTITION OF sales_order FOR VALUES FROM ('2024-09-01') TO (MAXVALUE);
INSERT INTO sales_order SELECT * FROM whole;
"""


@pytest.mark.parametrize("kind", ["plain", "partitioned"])
@pytest.mark.parametrize("looked", [True, False])
def test_what_was_written_is_read_where_it_lies(orders: Platform, looked: bool, kind: str) -> None:
    if kind == "partitioned":
        orders.sql(PARTITIONED)
    brought_in(orders, looked=looked)
    found(orders)  # a look in between, which finds nothing
    changes = {
        "UPDATE sales_order SET units_sold = 7 WHERE sales_order_id IN (3, 19)": (0, 2, 0),
        f"INSERT INTO sales_order SELECT 30, '{FIRST}', last_updated, design_id, staff_id, counterparty_id, 1, "
        "unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id "
        "FROM sales_order WHERE sales_order_id = 1; UPDATE sales_order SET units_sold = 8 WHERE sales_order_id = 19": (
            (1, 1, 0)
        ),
        "DELETE FROM sales_order WHERE sales_order_id = 4": (0, 0, 1),
        "UPDATE sales_order SET created_at = '2024-08-27' WHERE sales_order_id = 2": (1, 0, 1),
    }
    for statement, expected in changes.items():
        orders.sql(statement)
        done, condition = brought_in(orders, looked=looked)
        assert "ctid" in condition or "false" in condition
        assert tuple(done.total(each) for each in ("inserted", "updated", "deleted")) == expected, statement
    assert brought_in(orders, looked=looked)[0].versions == 0


def test_what_a_look_found_is_captured_later_in_full(orders: Platform) -> None:
    """A run may fail, or leave out days: the next look knows the rows, and yet they are still to be read."""
    brought_in(orders, looked=True)
    orders.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 3")
    found(orders)
    orders.sql("UPDATE sales_order SET units_sold = 8 WHERE sales_order_id = 9")
    done, condition = brought_in(orders, looked=True)
    assert "ctid" not in condition  # which of them lie where is not known
    assert done.total("updated") == 2


def test_places_are_in_the_order_of_blocks(orders: Platform) -> None:
    rows = [
        ("2024-08-20", 1, "5", "(9,3)", "(10,1)"),
        ("2024-08-21", 1, "5", "(10,2)", "(9,70)"),
        ("", 1, "5", None, None),
    ]
    with orders.totesys.snapshot() as snapshot, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshot, "rows", lambda *_: rows)
        assert looks.hashed(snapshot, ORDERS, EVERYTHING, 5)[1] == Places(5, "(9,3)", "(10,1)")


def test_places_hold_for_the_snapshot_that_found_them(orders: Platform) -> None:
    brought_in(orders, looked=True)
    orders.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 3")
    with orders.totesys.snapshot() as snapshot:
        snapshot.changed_fingerprints(ORDERS, orders.all_days)
        assert snapshot.places
    with orders.totesys.snapshot() as another:
        assert not another.places
    orders.sql("VACUUM FULL sales_order")
    assert brought_in(orders, looked=True)[0].total("updated") == 1


# What proves the looks


@contextmanager
def blind_looks() -> Iterator[None]:
    """Looks that see no writing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks, "_since", lambda _snapshot, _table, fact: (fact.days, None))
        yield


@pytest.mark.refreshed
def test_what_looks_do_not_see_the_audit_does_and_a_comparison_brings_in(platform: Platform) -> None:
    assert look(platform.core).stale == {}
    platform.sql("UPDATE sales_order SET units_sold = 7")
    with blind_looks():
        seen = look(platform.core)
        assert seen.mark is not None
        overdue = [
            each.asset for each in audit(platform.core, marks=[seen.mark]) if each.check == OVERDUE and not each.passed
        ]
        assert "totesys/sales_order" in overdue
        with platform.totesys.snapshot() as snapshot:
            captured = capture(
                snapshot, platform.lake, ORDERS, all_days=platform.all_days, days=platform.all_days, run_id="full"
            )
    assert captured.total("updated") == 1
