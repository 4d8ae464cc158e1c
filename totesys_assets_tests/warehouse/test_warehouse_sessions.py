"""Sessions with the warehouse: behind a pooler, with hostile defaults, beside other sessions that hold locks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic

import psycopg
import pytest
from psycopg import sql

from totesys_assets.errors import PlatformError
from totesys_assets.load.load import load
from totesys_assets.postgres import locks
from totesys_assets.staleness.decide import Request
from totesys_assets.warehouse import warehouse
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform, PostgresServer
from totesys_assets_tests.harness.servers import HOSTILE, hostile_login, transaction_pooler
from totesys_assets_tests.load.test_load import load_only, prepare, refresh

STARS = ("dim_currency", "dim_transaction", "fact_sales_order")
RECORDS = (
    "SELECT sales_order_id, created_time::text, unit_price::text, _recorded_at FROM fact_sales_order ORDER BY 1, 4"
)


@contextmanager
def transaction_of(url: str, *statements: str, name: str = "some BI tool") -> Iterator[None]:
    """Somebody else's session, idle in a transaction in which it ran ``statements``."""
    with closing(psycopg.connect(url, application_name=name)) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield


def other(platform: Platform, url: str, folder: Path) -> Platform:
    """The same platform with another way to the warehouse."""
    return Platform(platform.settings, platform.totesys_url, url, platform.instance)


def test_through_a_transaction_pooler_everything_is_loaded_as_without(
    platform: Platform, postgres_server: PostgresServer, tmp_path: Path, scratch: Path
) -> None:
    hostile = hostile_login(platform.warehouse_url, {"TimeZone": "America/New_York", "DateStyle": "SQL, DMY"})
    with transaction_pooler(scratch / "pooler", [hostile]) as [pooled]:
        behind = other(platform, pooled, tmp_path)
        refresh(behind, *STARS)
        platform.sql("UPDATE sales_order SET units_sold = 5")
        refresh(behind, *STARS)
        through, contents = platform.query(RECORDS), behind.warehouse.contents()
        with behind.warehouse.alive("some run"):
            assert behind.warehouse.is_alive("some run")
            assert not behind.warehouse.is_alive("another run")
            assert behind.warehouse.contents() == contents
        assert not behind.warehouse.is_alive("some run")
    straight = Warehouse(postgres_server.database())
    for star in STARS:
        load_only(other(platform, straight._url, tmp_path), star)
    with psycopg.connect(straight._url) as connection:
        assert connection.execute(RECORDS.encode()).fetchall() == through != []
    assert straight.contents() == contents


def test_rows_are_staged_in_whatever_session_a_pooler_gives_a_transaction(platform: Platform, scratch: Path) -> None:
    with transaction_pooler(scratch / "turns", [platform.warehouse_url]) as [pooled]:
        one, found = Warehouse(pooled), set[object]()
        with closing(one):
            for units in range(1, 6):
                platform.sql("UPDATE sales_order SET units_sold = %s", [units])
                prepare(platform, "fact_sales_order")
                table = one.catalogue.warehouse["fact_sales_order"]
                load(one, platform.lake, table, days=platform.all_days, run_id="test")
                with one.transaction("some lock") as connection:
                    found |= {*warehouse.rows(connection, "SELECT pg_backend_pid()")}
                assert len(one._idle) == 1
    assert len(found) > 1
    newest = "SELECT DISTINCT units_sold FROM current_sales_order"
    assert platform.query(newest) == [(5,)]
    assert platform.query("SELECT count(*) FROM fact_sales_order WHERE units_sold = 3") == [(1,)]


def test_whatever_a_role_has_set_nothing_is_loaded_otherwise(platform: Platform, tmp_path: Path) -> None:
    refresh(platform, *STARS)
    before = platform.query(RECORDS)
    hostile = hostile_login(platform.warehouse_url, HOSTILE)
    platform.sql("UPDATE sales_order SET units_sold = 6")
    behind = other(platform, hostile, tmp_path)
    refresh(behind, *STARS)
    after = platform.query(RECORDS)
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
    assert behind.warehouse.loaded() == platform.warehouse.loaded()


def test_a_login_for_which_no_trigger_runs_loads_nothing(platform: Platform, tmp_path: Path) -> None:
    refresh(platform, *STARS)
    before = platform.query(RECORDS)
    platform.sql("UPDATE sales_order SET units_sold = 5")
    replica = hostile_login(platform.warehouse_url, {"session_replication_role": "replica"})
    with pytest.raises(PlatformError, match="session_replication_role = replica, with which no trigger keeps count"):
        refresh(other(platform, replica, tmp_path), *STARS)
    assert platform.query(RECORDS) == before


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_warehouse_that_cannot_hold_every_text_is_refused(
    postgres_server: PostgresServer, encoding: str, platform: Platform, tmp_path: Path
) -> None:
    url = postgres_server.database()
    name = f"odd_{encoding.lower()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0 LOCALE 'C'").format(
                sql.Identifier(name), sql.Literal(encoding)
            )
        )
    odd = Warehouse(url.rpartition("/")[0] + f"/{name}")
    with pytest.raises(PlatformError, match=rf'database "{name}" has the encoding {encoding}.*ENCODING \'UTF8\''):
        odd.migrate()
    prepare(platform, "dim_currency")
    with pytest.raises(PlatformError, match=encoding):
        load_only(other(platform, odd._url, tmp_path), "dim_currency")


# Locks


def test_a_first_load_and_its_readers_do_not_wait_for_a_reader_that_is_idle_in_a_transaction(
    platform: Platform,
) -> None:
    platform.warehouse.migrate()
    prepare(platform, "fact_sales_order")
    with transaction_of(platform.warehouse_url, "SELECT count(*) FROM fact_sales_order"):
        assert load_only(platform, "fact_sales_order").written == 1


def test_who_waits_for_another_load_is_told_for_whom_within_seconds(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(platform, "dim_currency")
    platform.warehouse.migrate()
    monkeypatch.setattr(locks.wait, "__defaults__", (0.5,))
    take = f"SELECT pg_advisory_xact_lock({locks.key(locks.LOAD_SPACE, 'public.dim_currency')})"
    began = monotonic()
    with (
        transaction_of(platform.warehouse_url, take, name="another refresh"),
        pytest.raises(
            PlatformError,
            match=r'Another refresh is loading "dim_currency": waited 0 s for session \d+ \(role totesys, anoth',
        ),
    ):
        load_only(platform, "dim_currency")
    assert monotonic() - began < 5
    assert load_only(platform, "dim_currency").written == 3


def test_a_range_waits_for_another_that_is_loading_the_table_for_as_long_as_that_takes(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(platform, "dim_currency")
    platform.warehouse.migrate()
    monkeypatch.setattr(locks.wait, "__defaults__", (0.2,))
    take = f"SELECT pg_advisory_xact_lock({locks.key(locks.LOAD_SPACE, 'public.dim_currency')})"
    load_of_it = Request(("warehouse/dim_currency",), None)
    with ThreadPoolExecutor() as pool, transaction_of(platform.warehouse_url, take):
        (failure,) = platform.run(load_of_it).failures
        assert "waited 0 s for session" in failure
        waiting = pool.submit(platform.run, replace(load_of_it, is_range=True))
        with pytest.raises(TimeoutError):
            waiting.result(timeout=2)
    assert waiting.result().success


@pytest.mark.parametrize(
    ("held", "work"),
    [
        ("LOCK TABLE dim_currency IN ACCESS EXCLUSIVE MODE", "load"),
        ("SELECT * FROM current_sales_order", "migrate"),
    ],
)
def test_who_stands_in_the_way_of_a_load_or_a_migration_is_named(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, held: str, work: str
) -> None:
    prepare(platform, "dim_currency")
    platform.warehouse.migrate()
    if work == "migrate":
        with psycopg.connect(platform.warehouse_url) as connection:
            connection.execute("TRUNCATE _migration")
    monkeypatch.setitem(warehouse._SETTINGS, "lock_timeout", "300ms")
    began = monotonic()
    with (
        transaction_of(platform.warehouse_url, held),
        pytest.raises(
            PlatformError, match=r'in schema "public" .* is in use by session \d+ \(role totesys, some BI tool'
        ),
    ):
        load_only(platform, "dim_currency") if work == "load" else platform.warehouse.migrate()
    assert monotonic() - began < 5
    assert load_only(platform, "dim_currency").written == 3


def test_a_load_whose_process_is_stopped_loses_its_locks_after_a_while(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(platform, "dim_currency")
    platform.warehouse.migrate()
    monkeypatch.setitem(warehouse._SETTINGS, "idle_in_transaction_session_timeout", "200ms")
    stopped = platform.warehouse.transaction("dim_currency")
    stopped.__enter__()
    assert load_only(platform, "dim_currency").written == 3
    with pytest.raises(Exception, match=r"terminat|closed|idle"):
        stopped.__exit__(None, None, None)


def test_a_run_stays_alive_in_spite_of_the_time_limits_of_its_role(platform: Platform, tmp_path: Path) -> None:
    hostile = hostile_login(platform.warehouse_url, {"idle_in_transaction_session_timeout": "100ms"})
    behind = Warehouse(hostile)
    with behind.alive("some run"):
        with psycopg.connect(platform.warehouse_url) as connection:
            connection.execute("SELECT pg_sleep(0.5)")
        assert platform.warehouse.is_alive("some run")


def test_a_run_ends_well_though_its_sign_of_life_was_cut(platform: Platform) -> None:
    with platform.warehouse.alive("some run"), psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s",
            [locks.RUN_SPACE],
        ).fetchall()
        assert ended == [(True,)]
    assert not platform.warehouse.is_alive("some run")


# Rows are sent until the session that they are for is ended, in a process of its own: that must not be aborted.
SENDS_UNTIL_CUT = """
import sys, threading, duckdb, psycopg
from totesys_assets.warehouse.warehouse import ALIAS, Warehouse

url = sys.argv[1]

def cut():
    with psycopg.connect(url, autocommit=True) as other:
        found = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_progress_copy WHERE tuples_processed > 100000"
        while not other.execute(found).fetchall():
            pass

warehouse = Warehouse(url)
threading.Thread(target=cut).start()
try:
    with warehouse.transaction("sent") as connection:
        connection.execute(f"INSERT INTO {ALIAS}.public.sent SELECT i FROM range(100_000_000) AS rows(i)")
except duckdb.Error as error:
    print("the session was lost" if "server closed" in str(error) else error)
with warehouse.transaction("sent") as connection:
    print(connection.execute(f"SELECT count(*) FROM {ALIAS}.public.sent").fetchall())
"""


def test_a_process_outlives_a_session_that_it_loses_while_it_sends_rows(postgres_server: PostgresServer) -> None:
    url = postgres_server.database("cut")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE sent (n bigint)")
    done = subprocess.run(
        [sys.executable, "-c", SENDS_UNTIL_CUT, url], check=False, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["the session was lost", "[(0,)]"]), done.stderr
