"""A hot standby as ToteSys, with transactions open on its primary, and what it is after a promotion."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from totesys_assets.automation.watch import Probe
from totesys_assets.catalogue.catalogue import ddl
from totesys_assets.engine import readable_errors
from totesys_assets.errors import PlatformError
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.staleness.look import look
from totesys_assets_tests.conftest import TRADE, Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.servers import Standby


@pytest.fixture(scope="module")
def primary_url(standby: tuple[EmbeddedServer, Standby]) -> str:
    primary, _ = standby
    primary.create_database("totesys")
    with psycopg.connect(primary.url("totesys")) as connection:
        connection.execute(ddl("totesys.sql"))
        connection.execute(TRADE)
    return primary.url("totesys")


@pytest.fixture(scope="module")
def shared(
    standby: tuple[EmbeddedServer, Standby],
    primary_url: str,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Platform]:
    """A platform with the standby for its source."""
    standby[1].catch_up()
    folder = tmp_path_factory.mktemp("following")
    with make_platform(standby[1].url("totesys"), postgres_server.database(), folder) as platform:
        yield platform


@pytest.fixture
def following(standby: tuple[EmbeddedServer, Standby], shared: Platform) -> Platform:
    """The platform, up to date."""
    standby[1].catch_up()
    shared.refresh()
    return shared


def price(platform: Platform) -> list[tuple[object, ...]]:
    return platform.query("SELECT unit_price::int FROM current_sales_order WHERE sales_order_id = 1")


UPDATE = "UPDATE sales_order SET unit_price = %s WHERE sales_order_id = 1"


def test_a_commit_that_does_not_change_the_text_of_a_standbys_snapshot_is_noticed(
    standby: tuple[EmbeddedServer, Standby], primary_url: str, following: Platform
) -> None:
    with (
        psycopg.connect(primary_url) as oldest,
        psycopg.connect(primary_url) as slow,
        psycopg.connect(primary_url) as quick,
    ):
        # Of three ids the last is finished first, the middle one then, so that neither end of what is open moves.
        oldest.execute("UPDATE staff SET first_name = 'oldest' WHERE staff_id = 1")
        slow.execute(UPDATE, [77])
        quick.execute("UPDATE design SET design_name = 'quick' WHERE design_id = 1")
        quick.commit()
        standby[1].catch_up()
        following.refresh()
        with following.totesys.snapshot() as before, Probe(following.totesys_url) as probe:
            seen = following.look()
            assert seen.mark is not None
            probe.note()
            slow.commit()
            standby[1].catch_up()
            with following.totesys.snapshot() as after:
                assert before.text == after.text
                assert before.instant != after.instant
                table = following.core.catalogue.source["sales_order"]
                assert before.is_overtaken(table, after.order(table))
                assert not after.is_overtaken(table, before.order(table))
                assert not after.is_overtaken(table, after.order(table))
            assert probe.moved()
            again = look(following.core, unless=seen.mark)
            assert not again.probed_only
            assert "totesys/sales_order" in again.stale
    following.refresh()
    assert price(following) == [(77,)]


def test_on_a_standby_where_nothing_is_replayed_nothing_has_changed(
    standby: tuple[EmbeddedServer, Standby], following: Platform
) -> None:
    standby[1].catch_up()
    for _ in range(5):  # a server writes to its WAL now and then, also when nobody asks it to
        with Probe(following.totesys_url) as probe:
            seen = following.look()
            probe.note()
            again = look(following.core, unless=seen.mark)
            if again.probed_only and not probe.moved():
                break
    else:
        pytest.fail("a look finds something new each time")


def test_a_query_that_the_replay_breaks_off_says_what_to_set(
    standby: tuple[EmbeddedServer, Standby], primary_url: str, following: Platform
) -> None:
    with psycopg.connect(standby[1].url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        connection.execute("SELECT pg_reload_conf()")
    try:
        with following.totesys.snapshot() as snapshot, ThreadPoolExecutor() as threads:
            slow = threads.submit(snapshot.rows, "SELECT pg_sleep(30)::text FROM public.staff")
            with psycopg.connect(primary_url, autocommit=True) as connection:
                connection.execute("UPDATE staff SET last_name = last_name || '.'")
                connection.execute("VACUUM staff")
            with pytest.raises(PlatformError, match="set hot_standby_feedback on"), readable_errors("It failed"):
                slow.result()
    finally:
        with psycopg.connect(standby[1].url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
            connection.execute("SELECT pg_reload_conf()")


def test_a_lock_that_comes_from_the_primary_is_said_to_be_one(
    standby: tuple[EmbeddedServer, Standby], primary_url: str, following: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totesys_assets.source.totesys.LOCK_TIMEOUT", {"lock_timeout": "200ms"})
    with psycopg.connect(primary_url) as connection:
        connection.execute("LOCK TABLE design IN ACCESS EXCLUSIVE MODE")
        standby[1].catch_up()
        [problem] = following.look().problems
        assert 'Table "design" is left for the next refresh: a change that comes from the primary has it' in str(
            problem
        )
    standby[1].catch_up()
    assert following.look().problems == []


@pytest.mark.thorough
def test_a_promoted_standby_is_another_server_and_goes_on_without_a_gap(
    standby: tuple[EmbeddedServer, Standby], primary_url: str, following: Platform
) -> None:
    with psycopg.connect(primary_url, autocommit=True) as connection:
        connection.execute(UPDATE, [78])
    standby[1].catch_up()
    with Probe(following.totesys_url) as probe:
        seen = following.look()
        probe.note()
        standby[1].promote()
        assert probe.moved()
    with psycopg.connect(following.totesys_url, autocommit=True) as connection:
        connection.execute("UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 1")
    again = look(following.core, unless=seen.mark)
    assert not again.probed_only
    following.refresh()
    assert price(following) == [(78,)]
    assert following.look().requests == []
    with psycopg.connect(following.totesys_url, autocommit=True) as connection:
        connection.execute(UPDATE, [79])
    following.refresh()
    assert price(following) == [(79,)]
