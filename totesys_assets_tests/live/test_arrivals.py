"""Arrivals in the terminal of `totesys up`: which tables, how many versions of each fact, how long after the commit."""

from __future__ import annotations

import re
import threading
import time

import psycopg
import pytest

from totesys_assets.databases import Databases
from totesys_assets.errors import PlatformError
from totesys_assets.live import session
from totesys_assets.live.arrivals import Arrivals
from totesys_assets.platform import Platform as Core
from totesys_assets.staleness.following import begin_following, end_following
from totesys_assets.staleness.look import look
from totesys_assets_tests.conftest import Platform


def told(arrivals: Arrivals) -> str:
    """What is told once nothing more was loaded between two looks."""
    return arrivals.next() or arrivals.next()


def test_new_versions_are_counted_by_fact_and_told_once(platform: Platform) -> None:
    arrivals = Arrivals(platform.warehouse)  # nothing is there yet
    assert told(arrivals) == ""
    platform.refresh()
    first = r"loaded fact_sales_order \+1, fact_purchase_order \+1, fact_payment \+2, fact_"
    assert re.search(rf"^{first}[^ ]* \+\d+, dim_.* \(at most [\d.]+ s after it was seen\)$", told(arrivals))
    assert (told(arrivals), told(Arrivals(platform.warehouse))) == ("", "")
    platform.sql("UPDATE payment SET payment_amount = payment_amount + 1")
    platform.refresh()
    assert re.search(r"^loaded fact_payment \+2, mart_.* \(at most [\d.]+ s after it was seen\)$", told(arrivals))
    platform.sql("UPDATE design SET design_name = 'Other'")
    platform.refresh()
    assert re.search(r"^loaded dim_design(, \w+)*$", told(arrivals))
    assert told(arrivals) == ""


@pytest.mark.refreshed
def test_what_one_refresh_loads_is_told_at_once_and_what_never_ends_all_the_same(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrivals = Arrivals(platform.warehouse)
    for table, units in ("sales_order", 1), ("purchase_order", 2):
        column = "units_sold" if table == "sales_order" else "item_quantity"
        platform.sql(f"UPDATE {table} SET {column} = {column} + {units}")
        platform.refresh()
        assert arrivals.next() == ""
    assert re.search(r"^loaded fact_sales_order \+1, fact_purchase_order \+1, mart_", arrivals.next())
    monkeypatch.setattr("totesys_assets.live.arrivals._MOST_LOOKS", 2)
    found, began = [], time.monotonic()
    for pause in (0, 2, 2):
        time.sleep(pause)
        platform.sql("UPDATE sales_order SET units_sold = units_sold + 1")
        platform.refresh()
        found.append(arrivals.next())
    assert found[:2] == ["", ""]
    oldest = re.search(r"^loaded fact_sales_order \+3, .* \(at most ([\d.]+) s after", found[2])
    assert oldest
    assert float(oldest[1]) < time.monotonic() - began - 4  # it was loaded with the first of them


def follow(platform: Platform, core: Core) -> None:
    """One refresh of a platform that follows the log."""
    begin_following(core)
    (request,) = look(core).requests
    end_following(core)
    assert platform.run(request).success


def change_and_follow(platform: Platform, core: Core) -> None:
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 1")
    follow(platform, core)


def test_where_the_log_is_followed_the_time_is_that_since_the_commit(followed: Platform) -> None:
    arrivals, core = Arrivals(followed.warehouse), followed.core
    change_and_follow(followed, core)  # by comparison: the log begins here
    assert re.search(r"mart_\w+ \([\d.]+ s after it was seen\)$", told(arrivals))
    followed.sql("UPDATE sales_order SET units_sold = units_sold + 1")
    committed = time.monotonic()
    time.sleep(2)
    follow(followed, core)
    found = re.search(r"fact_sales_order \+1, .* \(([\d.]+) s after its commit in ToteSys\)$", told(arrivals))
    assert found
    assert 2 <= float(found[1]) <= time.monotonic() - committed


def test_where_the_log_was_lost_the_time_is_that_since_it_was_seen(followed: Platform) -> None:
    arrivals, core = Arrivals(followed.warehouse), followed.core
    for moment in ("it was seen", "its commit"):
        change_and_follow(followed, core)
        assert f" s after {moment}" in told(arrivals)
    with psycopg.connect(followed.totesys_url, autocommit=True) as connection:
        dropped = connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").fetchall()
    assert len(dropped) == 1
    change_and_follow(followed, core)
    assert " s after it was seen" in told(arrivals)


@pytest.mark.refreshed
def test_a_call_that_fails_loses_nothing(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals = Arrivals(platform.warehouse)
    platform.sql("UPDATE payment SET payment_amount = payment_amount + 1")
    platform.refresh()
    assert arrivals.next() == ""
    with monkeypatch.context() as patch:
        patch.setattr(arrivals, "_followed", fails)
        with pytest.raises(PlatformError, match="away"):
            arrivals.next()
    assert arrivals.next().startswith("loaded fact_payment +2, mart_payments_day (")


def fails(*_: object) -> None:
    raise psycopg.OperationalError("away")


@pytest.mark.refreshed
def test_a_problem_is_told_once_and_that_it_is_over(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str]] = []
    answers = iter([None, None, "", "loaded dim_design", None])
    stop = threading.Event()

    def answer(_: Arrivals) -> str:
        answered = next(answers, stop)
        if answered is stop:
            stop.set()
        if answered is None:
            fails()
        return str(answered) if answered is not stop else ""

    monkeypatch.setattr(Arrivals, "next", answer)
    monkeypatch.setattr(session, "_POLL_SECONDS", 0.01)
    urls = Databases(platform.totesys_url, platform.warehouse_url)
    session._report_loads(urls, platform.settings, stop, lambda who, what: said.append((who, what)))
    assert said == [
        ("error", "what arrives in the warehouse cannot be told: away"),
        ("warehouse", "what arrives in the warehouse is told again"),
        ("warehouse", "loaded dim_design"),
        ("error", "what arrives in the warehouse cannot be told: away"),
        ("warehouse", "what arrives in the warehouse is told again"),
    ]


@pytest.mark.refreshed
def test_a_fact_that_is_gone_does_not_end_the_telling(platform: Platform) -> None:
    arrivals = Arrivals(platform.warehouse)
    platform.sql("UPDATE payment SET payment_amount = payment_amount + 1")
    platform.refresh()
    with platform.warehouse.connect() as connection:
        connection.execute("DROP TABLE public.fact_payment CASCADE")
    assert re.search(r"^loaded fact_payment, mart_\w+$", told(arrivals))
    assert told(arrivals) == ""
    platform.refresh()
    assert re.search(r"^loaded fact_payment \+\d ", told(arrivals))
