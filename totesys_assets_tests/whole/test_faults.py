"""Faults around the platform: refreshes at once, servers and stores that fail, parts that are lost or set back."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from totesys_assets.automation import sensors
from totesys_assets.automation.sensors import GRACE_SECONDS
from totesys_assets.capture import ledger
from totesys_assets.catalogue.catalogue import catalogue, ddl
from totesys_assets.days import DayRange
from totesys_assets.lake import commit
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.postgres.session_settings import SETTINGS
from totesys_assets.source import totesys
from totesys_assets.staleness.decide import Request, everything, partitioned
from totesys_assets_tests.conftest import TRADE, Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.complete import FACTS, State, look_at, require_complete
from totesys_assets_tests.harness.kills import (
    Before,
    Kill,
    Set,
    asked_for,
    context,
    kill,
    killed,
    meet,
    power_cut,
    slow_reads,
    start,
    start_recorded,
    start_tick,
)
from totesys_assets_tests.harness.shop import Shop, Street, prepare, trade

COMPARISON = "totesys_assets.capture.comparison"
LOAD, MERGE = "totesys_assets.load.load", "totesys_assets.load.merge"
AUGUST = DayRange(date(2024, 8, 20), date(2024, 8, 22))
ALL_OF_AUGUST = Request(tuple(partitioned(catalogue())), AUGUST)


@pytest.fixture
def shop(street: Street) -> Iterator[Shop]:
    """A shop with one round of trade that is not refreshed yet; complete at the end of the test."""
    with street.shop() as shop:
        shop.trade()
        yield shop
        shop.complete()


def failures_of(platform: Platform) -> list[str]:
    """Sentences of what fails in one refresh, in this process."""
    return [failure for request in platform.look().requests for failure in platform.run(request).failures]


# Refreshes at once


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("totesys_assets.assets.ingestion:capture", marks=pytest.mark.thorough),
        f"{COMPARISON}:append",
        pytest.param("totesys_assets.capture.dead_letters:append", marks=pytest.mark.thorough),
        pytest.param("totesys_assets.capture.ledger:write_deltalake", marks=pytest.mark.thorough),
        pytest.param("totesys_assets.transform.engines.in_duckdb:replace", marks=pytest.mark.thorough),
        pytest.param(f"{LOAD}:Ledger.newest", marks=pytest.mark.thorough),
        pytest.param(f"{LOAD}:note", marks=pytest.mark.thorough),
    ],
)
def test_of_two_refreshes_that_meet_anywhere_nothing_is_lost_or_doubled(shop: Shop, place: str) -> None:
    barrier = context().Barrier(2)
    both = [start(shop.platform, Before(place, partial(meet, barrier))) for _ in range(2)]
    # What one could not do because the other did it is no failure of the platform; it is said in one sentence.
    assert all("refresh again" in failure for each in both for failure in each.failures())


@pytest.mark.thorough
def test_two_first_refreshes_at_once_fill_an_empty_warehouse_once(platform: Platform) -> None:
    before = look_at(platform)
    barrier = context().Barrier(2)
    meeting = Before("totesys_assets.warehouse.schema:_is_applied", partial(meet, barrier))
    both = [start(platform, meeting) for _ in range(2)]
    assert all("refresh again" in failure for each in both for failure in each.failures())
    platform.refresh()
    require_complete(platform, before)


@pytest.mark.thorough
def test_a_backfill_beside_a_refresh_disturbs_nothing(shop: Shop) -> None:
    barrier = context().Barrier(2)
    meeting = Before(f"{COMPARISON}:append", partial(meet, barrier))
    both = [start(shop.platform, meeting), start(shop.platform, meeting, requests=[ALL_OF_AUGUST])]
    assert all("refresh again" in failure for each in both for failure in each.failures())


@pytest.mark.thorough
@pytest.mark.refreshed
def test_refreshes_of_a_slow_store_while_totesys_goes_on_lose_nothing(platform: Platform) -> None:
    slow = Before("totesys_assets.lake.commit:write_deltalake", partial(time.sleep, 0.5))
    both = [start(platform, slow) for _ in range(2)]
    for number in range(20):
        platform.sql("UPDATE sales_order SET units_sold = %s", [number])
        platform.sql(
            "INSERT INTO purchase_order SELECT %s, '2024-08-21 10:00:00', '2024-08-21 10:00:00', 1, 1, 'ITEM', 1, "
            "5.25, 2, '2024-08-23', '2024-08-26', 2",
            [100 + number],
        )
    assert all("refresh again" in failure for each in both for failure in each.failures())
    platform.refresh()
    require_complete(platform)


# Servers


# A process that is killed leaves to the kernel what it wrote: only the machine's loss of power is what fsync is for.
UNSYNCED = {"fsync": "off"}


class Site:
    """A platform on two servers of its own, which may go away and come back elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.source, self.warehouse = (EmbeddedServer(folder / name, UNSYNCED) for name in ("source", "warehouse"))
        self._number = 0
        self.rounds = count(1)
        for server in (self.source, self.warehouse):
            server.start()

    def databases(self) -> tuple[str, str]:
        """URLs of a new source, filled, and a new warehouse."""
        self._number += 1
        self.source.create_database(f"totesys_{self._number}")
        self.warehouse.create_database(f"warehouse_{self._number}")
        with psycopg.connect(self.source.url(f"totesys_{self._number}")) as connection:
            connection.execute(ddl("totesys.sql"))
            connection.execute(TRADE)
        return self.source.url(f"totesys_{self._number}"), self.warehouse.url(f"warehouse_{self._number}")

    def moved(self, platform: Platform) -> Platform:
        """The platform after the servers were started again, on other ports."""
        self.source.start()
        self.warehouse.start()
        source = self.source.url(f"totesys_{self._number}")
        warehouse = self.warehouse.url(f"warehouse_{self._number}")
        settings = replace(platform.settings, totesys_url=source, warehouse_url=warehouse)
        return replace(platform, settings=settings, totesys_url=source, warehouse_url=warehouse)


@pytest.fixture(scope="module")
def site(scratch: Path) -> Iterator[Site]:
    site = Site(scratch / "site")
    yield site
    site.source.stop()
    site.warehouse.stop()


@pytest.fixture(scope="module")
def settled(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform on the site, refreshed."""
    with make_platform(*site.databases(), tmp_path_factory.mktemp("placed")) as platform:
        prepare(platform)
        platform.refresh()
        yield platform


@pytest.fixture
def placed(site: Site, settled: Platform) -> Platform:
    """The platform where its servers are now; what was done in it before is complete."""
    return site.moved(settled)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("totesys_assets.assets.warehouse:load", marks=pytest.mark.thorough),
        f"{MERGE}:_insert_facts",
        pytest.param(f"{MERGE}:_upsert_dimension", marks=pytest.mark.thorough),
        pytest.param(f"{LOAD}:note", marks=pytest.mark.thorough),
    ],
)
def test_a_warehouse_that_loses_its_power_mid_load_is_completed_when_it_is_back(
    site: Site, placed: Platform, place: str
) -> None:
    before = require_complete(placed)
    trade(placed, next(site.rounds))
    failures = start(placed, Before(place, partial(power_cut, site.warehouse.folder))).failures()
    assert failures
    back = site.moved(placed)
    assert look_at(back).tables["fact_sales_order"] == before.tables["fact_sales_order"]
    back.refresh()
    require_complete(back, before)


@pytest.mark.thorough
def test_a_source_that_loses_its_power_mid_read_is_completed_when_it_is_back(site: Site, placed: Platform) -> None:
    before = require_complete(placed)
    trade(placed, next(site.rounds))
    refresh = start(placed, slow_reads)
    wait_until_read(placed)
    power_cut(site.source.folder)
    assert any("failed, and will be done again by the next refresh" in each for each in refresh.failures())
    assert look_at(placed) == before
    back = site.moved(placed)
    back.refresh()
    require_complete(back, before)


def wait_until_read(platform: Platform) -> None:
    """Wait until the source is being read by a process that reads slowly."""
    reading = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1)%' AND pid <> pg_backend_pid()"
    with psycopg.connect(platform.totesys_url, autocommit=True) as connection:
        while not connection.execute(f"{reading} AND datname = current_database() AND state = 'active'").fetchall():
            time.sleep(0.01)


CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'totesys_assets'
"""


@pytest.mark.thorough
@pytest.mark.parametrize("times", [1, 3])
def test_refreshes_whose_connections_are_cut_at_random_complete_in_the_end(shop: Shop, times: int) -> None:
    dice = random.Random(7)  # the same cuts every time
    for url in (shop.platform.totesys_url, shop.platform.warehouse_url) * times:
        refresh = start(shop.platform)
        with psycopg.connect(url, autocommit=True) as connection:
            while refresh.process.is_alive():
                time.sleep(dice.uniform(0.05, 0.8))
                connection.execute(CUT)
        assert [failure for failure in refresh.failures() if "\n" in failure] == []


def test_a_read_that_takes_too_long_is_given_up_with_a_sentence(shop: Shop) -> None:
    impatient = {**SETTINGS, "statement_timeout": "300ms"}
    refresh = start(shop.platform, slow_reads, Set("totesys_assets.postgres.session_settings:SETTINGS", impatient))
    sentence = re.compile(
        r'Capture of "(\w+)" failed, and will be done again by the next refresh: .*'
        r"ERROR: +canceling statement due to statement timeout\."
    )
    found = [sentence.fullmatch(failure) for failure in refresh.failures()]
    assert {match[1] for match in found if match} == {
        *("address", "sales_order", "purchase_order", "payment", "transaction")
    }


@pytest.mark.thorough
def test_a_table_that_somebody_locks_waits_and_the_others_go_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.platform.sql("UPDATE design SET design_name = 'locked'")
    monkeypatch.setattr(totesys, "LOCK_TIMEOUT", {"lock_timeout": "200ms"})
    with psycopg.connect(shop.platform.totesys_url, application_name="migration") as connection:
        connection.execute("LOCK TABLE design IN ACCESS EXCLUSIVE MODE")
        sentence = (
            f'Table "design" is left for the next refresh: process {connection.info.backend_pid} '
            f"(role {connection.info.user}, application migration) has it locked for itself."
        )
        seen = shop.platform.look()
        assert [str(problem) for problem in seen.problems] == [sentence]
        assert {"totesys/address", "totesys/sales_order", "totesys/payment"} <= seen.stale.keys()
        outcome = shop.platform.run(everything(catalogue(), AUGUST))
        assert outcome.failures == [sentence]
    assert set(shop.platform.look().stale) == {"totesys/design", "star/dim_design", "warehouse/dim_design"}


# Stores

TIMED_OUT = OSError("operation timed out")
TAKEN = CommitFailedError("version 1 is taken")
UNCLEAR = DeltaError("Generic S3 error: timeout")


@pytest.mark.parametrize(
    ("module", "table", "error"),
    [
        ("totesys_assets.lake.commit", "ingestion/sales_order", TIMED_OUT),
        pytest.param("totesys_assets.lake.commit", "ingestion/sales_order", TAKEN, marks=pytest.mark.thorough),
        pytest.param("totesys_assets.lake.commit", "dead_letter", UNCLEAR, marks=pytest.mark.thorough),
        pytest.param("totesys_assets.lake.commit", "processed/fact_sales_order", TAKEN, marks=pytest.mark.thorough),
        pytest.param("totesys_assets.lake.commit", "processed/dim_location", UNCLEAR, marks=pytest.mark.thorough),
        pytest.param("totesys_assets.capture.ledger", "ledger", TIMED_OUT, marks=pytest.mark.thorough),
    ],
    ids=lambda value: value if isinstance(value, str) and "." not in value else type(value).__name__,
)
def test_a_commit_that_succeeded_and_was_reported_as_failed_is_not_repeated(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, module: str, table: str, error: Exception
) -> None:
    lies = [error]

    def write(target: DeltaTable, *arguments: Any, **named: Any) -> None:
        write_deltalake(target, *arguments, **named)
        if lies and target.table_uri.rstrip("/").endswith(table):
            raise lies.pop()

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.write_deltalake", write)
        failures_of(shop.platform)
    assert lies == []


def test_a_store_that_refuses_everything_for_a_while_is_said_so_and_costs_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any, **_named: Any) -> None:
        raise OSError("503 Slow Down")

    with monkeypatch.context() as patch:
        patch.setattr(commit, "write_deltalake", refuse)
        patch.setattr(ledger, "write_deltalake", refuse)
        for _ in range(2):
            failures = failures_of(shop.platform)
            assert len(failures) == 5
            assert all("cannot be written: 503 Slow Down." in failure for failure in failures)
    assert look_at(shop.platform) == shop.state


@pytest.mark.thorough
def test_a_ledger_that_cannot_be_written_after_the_data_costs_a_comparison(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any, **_named: Any) -> None:
        raise OSError("503 Slow Down")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "write_deltalake", refuse)
        assert len(failures_of(shop.platform)) == 5


@pytest.mark.parametrize("lost", [pytest.param("ledger", marks=pytest.mark.thorough), "processed"])
def test_what_can_be_made_again_may_be_lost_although_only_one_day_changes(shop: Shop, lost: str) -> None:
    shop.complete()
    shutil.rmtree(Path(shop.platform.settings.lake_uri, lost))
    shop.platform.sql("UPDATE payment SET paid = NOT paid WHERE payment_id = 1")


@pytest.mark.thorough
def test_a_lost_star_table_is_built_again_whole_even_if_a_backfill_of_one_day_comes_first(shop: Shop) -> None:
    shop.complete()
    shutil.rmtree(Path(shop.platform.settings.lake_uri, "processed", "fact_purchase_order"))
    assert shop.platform.run(replace(ALL_OF_AUGUST, days=DayRange(AUGUST.last, AUGUST.last))).success


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_disk_that_is_full_is_said_so_and_nothing_is_lost(platform: Platform, small_disk: Path) -> None:
    on_disk = replace(platform, settings=replace(platform.settings, lake_uri=str(small_disk / "lake")))
    on_disk.refresh()
    before = require_complete(on_disk)
    platform.sql("UPDATE sales_order SET units_sold = 7")
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        fill(ballast)
    (failure,) = failures_of(on_disk)
    assert "cannot be written: " in failure
    assert "No space left on device" in failure
    assert look_at(on_disk) == before
    ballast.unlink()
    on_disk.refresh()
    require_complete(on_disk, before)


# The warehouse


def database(url: str) -> str:
    return url.rpartition("/")[2]


@pytest.mark.thorough
@pytest.mark.parametrize("rounds_lost", [1, 2])
def test_a_warehouse_restored_to_an_older_state_catches_up_with_every_version(
    shop: Shop, postgres_server: PostgresServer, rounds_lost: int
) -> None:
    url = shop.platform.warehouse_url
    postgres_server.template(f"{database(url)}_backup", database(url))
    rounds = [shop.complete()]
    for _ in range(rounds_lost):
        shop.trade()
        rounds.append(shop.complete())
    with psycopg.connect(url.replace(database(url), "postgres"), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{database(url)}"')
        connection.execute(f'ALTER DATABASE "{database(url)}_backup" RENAME TO "{database(url)}"')
    shop.platform.refresh()
    assert versions(look_at(shop.platform)) == versions(rounds[-1])
    shop.state = look_at(shop.platform)  # whose records have numbers of their own; complete, as the shop requires next


def versions(state: State) -> dict[str, list[str]]:
    """All versions of all facts, without their numbers."""
    return {name: sorted(repr(row[1:]) for row in state.tables[name]) for name in FACTS}


@pytest.mark.thorough
def test_a_new_warehouse_beside_an_old_lake_gets_the_whole_history(shop: Shop, postgres_server: PostgresServer) -> None:
    old = shop.complete()
    url = postgres_server.database()
    settings = replace(shop.platform.settings, warehouse_url=url)
    moved = replace(shop.platform, settings=settings, warehouse_url=url)
    moved.refresh()
    new = require_complete(moved)
    assert versions(new) == versions(old)
    assert any("'delete'" in row for row in versions(new)["fact_purchase_order"])


# Dagster


@pytest.mark.thorough
def test_a_tick_killed_while_it_looks_asks_for_the_same_the_next_time(shop: Shop, tmp_path: Path) -> None:
    expected = asked_for(shop.platform.settings, shop.platform.instance)
    assert "totesys/refresh" in expected[0]
    for place in ("source.totesys:Totesys._take", "staleness.look:_mark", "staleness.look:stale_partitions"):
        at = Kill("after", f"totesys_assets.{place}")
        killed(start_tick(shop.platform, tmp_path, at), at)
    assert start_tick(shop.platform, tmp_path).failures() == expected


@pytest.mark.thorough
def test_a_killed_run_holds_the_sensor_up_only_until_it_is_seen_to_be_dead(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "_FIRST_BACK_OFF_SECONDS", 0)  # runs of other tests failed
    expected = asked_for(shop.platform.settings, shop.platform.instance)
    at = Kill("before", f"{LOAD}:note", having="fact_sales_order")
    killed(start_recorded(shop.platform, tmp_path, at), at)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert asked_for(shop.platform.settings, instance) == ["A refresh is under way; the next look sees everything."]
        monkeypatch.setattr(sensors, "GRACE_SECONDS", -GRACE_SECONDS)
        (again,) = asked_for(shop.platform.settings, instance)
    # What was captured and built before the kill is not asked for again.
    assert "warehouse', 'fact_sales_order" in again
    assert len(again) < len(expected[0])


@pytest.mark.thorough
def test_dagsters_state_may_be_thrown_away_after_every_refresh(shop: Shop) -> None:
    kill(shop.platform, Kill("after", "totesys_assets.assets.processed:build"))
    shop.complete()
    shop.trade()
