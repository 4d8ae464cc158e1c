"""The warehouse made anew from the lake: as it is, and as it was."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.commands import main
from totesys_assets.errors import LakeChanged, PlatformError
from totesys_assets.load.load import load
from totesys_assets.load.restore import differing, restore
from totesys_assets.refresh import _Runs
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform, PostgresServer, Refreshed, begin

# A story in three refreshes; between them, moments.
SECOND = (
    "UPDATE sales_order SET units_sold = 2000",
    "UPDATE department SET location = 'Leeds' WHERE department_id = 2",
    "DELETE FROM payment WHERE payment_id = 1",
)
THIRD = (
    "UPDATE sales_order SET units_sold = 1001",
    "UPDATE purchase_order SET created_at = '2024-08-22 10:00'",
    "DELETE FROM transaction WHERE transaction_id = 2",
)


def schema(platform: Platform, name: str) -> Warehouse:
    return Warehouse(platform.warehouse_url, name)


def rows(platform: Platform, name: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(platform.warehouse_url, options=f"-c search_path={name}") as connection:
        return connection.execute(query).fetchall()


def tell(platform: Platform) -> list[datetime]:
    """Refresh three times; the moments after each."""
    moments = []
    for statements in ((), SECOND, THIRD):
        for statement in statements:
            platform.sql(statement)
        platform.refresh()
        [[newest]] = platform.query("SELECT max(_recorded_at) FROM history_sales_order")
        assert isinstance(newest, datetime)
        moments.append(newest + timedelta(milliseconds=1))
    return moments


@pytest.fixture(scope="module")
def moments() -> list[datetime]:
    """The moments of the story, in its order."""
    return []


@pytest.fixture(scope="module")
def beginning(
    postgres_server: PostgresServer, trade_template: str, scratch: Path, moments: list[datetime]
) -> Refreshed:
    """The story, told once."""
    return begin(postgres_server, trade_template, scratch / "restored", lambda platform: moments.extend(tell(platform)))


@pytest.mark.refreshed
def test_replayed_from_the_lake_alone_the_warehouse_is_the_same_down_to_its_record_numbers(platform: Platform) -> None:
    for zone in ("processed", "ledger"):  # made of the versions, and not needed
        shutil.rmtree(Path(platform.lake.uri, zone))
    target = schema(platform, "again")
    written = restore(target, platform.lake)
    assert written["fact_sales_order"] == 3
    assert differing(platform.warehouse, target) == []
    for table in platform.warehouse.catalogue.star:
        query = f"SELECT * FROM {table} ORDER BY 1"
        assert rows(platform, "again", query) == platform.query(query), table
    for view in ("current_sales_order", "current_payment", "history_purchase_order", "fact_purchase_orders"):
        query = f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4"
        assert rows(platform, "again", query) == platform.query(query), view


@pytest.mark.refreshed
def test_a_restore_tells_for_how_long_it_writes_and_a_refused_one_never_does(platform: Platform) -> None:
    target, seen = schema(platform, "again"), list[int]()

    @contextmanager
    def writing() -> Iterator[None]:
        seen.append(len(target.relations()))
        yield
        seen.append(len(target.relations()))

    restore(target, platform.lake, writing=writing())
    assert len(seen) == 2
    assert seen[0] == 0 < seen[1]
    with pytest.raises(PlatformError, match="is not empty"):
        restore(target, platform.lake, writing=writing())
    assert len(seen) == 2


@pytest.mark.refreshed
def test_a_difference_between_two_schemas_is_told_by_table(platform: Platform) -> None:
    target = schema(platform, "again")
    restore(target, platform.lake)
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute("UPDATE again.dim_staff SET last_name = 'OKeefe'")
        connection.execute("DELETE FROM again.fact_payment WHERE payment_id = 1")
    assert differing(platform.warehouse, target) == ["dim_staff", "fact_payment"]


@pytest.mark.refreshed
def test_as_of_a_moment_the_star_is_what_was_recorded_by_then(platform: Platform, moments: list[datetime]) -> None:
    stars = ["first", "second", "third"]
    for name, moment in zip(stars, moments, strict=True):
        restore(schema(platform, name), platform.lake, as_of=moment)
    query = "SELECT units_sold FROM current_sales_order"
    assert [rows(platform, name, query) for name in stars] == [[(1001,)], [(2000,)], [(1001,)]]
    query = "SELECT count(*) FROM fact_sales_order"
    assert [rows(platform, name, query) for name in stars] == [[(1,)], [(2,)], [(3,)]]
    query = "SELECT location FROM dim_staff"
    assert [rows(platform, name, query) for name in stars] == [[("Leds",)], [("Leeds",)], [("Leeds",)]]
    query = "SELECT payment_id FROM current_payment ORDER BY 1"
    assert [rows(platform, name, query) for name in stars] == [[(1,), (2,)], [(2,)], [(2,)]]
    query = "SELECT _is_deleted FROM dim_transaction WHERE transaction_id = 2"
    assert [rows(platform, name, query) for name in stars] == [[(False,)], [(False,)], [(True,)]]
    query = "SELECT created_date::text FROM current_purchase_order"
    assert [rows(platform, name, query) for name in stars] == [[("2024-08-21",)], [("2024-08-21",)], [("2024-08-22",)]]
    assert differing(platform.warehouse, schema(platform, "third")) == []


@pytest.mark.refreshed
def test_a_star_as_it_was_is_not_brought_up_to_date(
    platform: Platform, moments: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(schema(platform, "then"), platform.lake, as_of=moments[0])
    platform.settings = type(platform.settings)(**{**vars(platform.settings), "warehouse_schema": "then"})
    before = rows(platform, "then", "SELECT * FROM fact_sales_order")
    with pytest.raises(LakeChanged, match=r'Schema "then" of the warehouse is the star as it was recorded at 20'):
        platform.refresh()
    with psycopg.connect(platform.warehouse_url) as connection:  # as of a table that is new in the catalogue
        connection.execute("""DELETE FROM "then"._ledger WHERE table_name = 'dim_staff'""")
    for name in ("fact_sales_order", "dim_staff", "mart_sales_day"):  # as somebody may ask for in Dagster's UI
        with pytest.raises(LakeChanged, match="and stays so"):
            load(
                platform.warehouse,
                platform.lake,
                catalogue().warehouse[name],
                days=None,
                run_id="a run",
                adopt_lake=True,
            )
    monkeypatch.setattr(_Runs, "execute", lambda *_: pytest.fail("a run was started"))  # it would only be refused later
    for command in (["refresh", "--adopt-lake"], ["refresh", "--full"], ["status"], ["audit"]):
        refused = CliRunner().invoke(main, command, env={"WAREHOUSE_SCHEMA": "then"})
        assert refused.exit_code == 1
        assert 'Schema "then" of the warehouse is the star as it was recorded at 20' in refused.output
    assert rows(platform, "then", "SELECT * FROM fact_sales_order") == before


@pytest.mark.refreshed
def test_a_moment_before_the_first_record_is_refused_and_nothing_is_made(platform: Platform) -> None:
    target = schema(platform, "before")
    with pytest.raises(PlatformError, match=r"knows nothing of 2024-01-01 00:00:00 UTC: its first record is of 20"):
        restore(target, platform.lake, as_of=datetime(2024, 1, 1, tzinfo=UTC))
    assert target.relations() == []


@pytest.mark.refreshed
def test_a_schema_that_holds_something_is_left_alone(platform: Platform) -> None:
    before = platform.query("SELECT * FROM fact_sales_order")
    with pytest.raises(PlatformError, match=r'Schema "public" of the warehouse is not empty'):
        restore(platform.warehouse, platform.lake)
    assert platform.query("SELECT * FROM fact_sales_order") == before


def test_a_lake_without_versions_cannot_be_replayed(platform: Platform) -> None:
    target = schema(platform, "again")
    with pytest.raises(PlatformError, match=r'holds no "address" yet'):
        restore(target, platform.lake)
    assert target.relations() == []


@pytest.mark.refreshed
def test_a_replayed_schema_may_take_the_place_of_the_warehouse(platform: Platform) -> None:
    restore(schema(platform, "again"), platform.lake)
    before = rows(platform, "again", "SELECT * FROM fact_sales_order ORDER BY 1")
    platform.settings = type(platform.settings)(**{**vars(platform.settings), "warehouse_schema": "again"})
    platform.refresh()
    assert rows(platform, "again", "SELECT * FROM fact_sales_order ORDER BY 1") == before
    platform.sql("UPDATE sales_order SET units_sold = 3000")
    platform.refresh()
    assert rows(platform, "again", "SELECT units_sold FROM current_sales_order") == [(3000,)]


@pytest.mark.refreshed
def test_the_commands_say_where_the_tables_are_and_whether_they_are_equal(
    platform: Platform, moments: list[datetime]
) -> None:
    replayed = CliRunner().invoke(main, ["replay", "--into", "once again"])
    assert replayed.exit_code == 0, replayed.output
    assert "WAREHOUSE_SCHEMA='once again' " in replayed.output  # as a shell takes it
    assert "Equal to schema public in every table and column." in replayed.output
    moment = moments[-1] + timedelta(seconds=1)  # the command takes whole seconds
    then = CliRunner().invoke(main, ["as-of", f"{moment:%Y-%m-%dT%H:%M:%S}"])
    assert then.exit_code == 0, then.output
    assert f"rows in schema as_of_{moment:%Y%m%d_%H%M%S}. To open it:\nWAREHOUSE_SCHEMA=as_of_" in then.output
    assert "As of the last refresh before that moment: ToteSys." in then.output
    drop = shlex.split(then.output.splitlines()[-1])[-1]  # the last word of the command that it ends with
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute(drop.encode())
        assert connection.execute("SELECT to_regnamespace(%s)", [f"as_of_{moment:%Y%m%d_%H%M%S}"]).fetchone() == (None,)
    used = CliRunner().invoke(main, ["replay", "--into", "public"])
    assert used.exit_code == 1
    assert 'Schema "public" is the warehouse in use.' in used.output.replace("\n", " ")
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute("DELETE FROM fact_payment WHERE payment_id = 1")
    unequal = CliRunner().invoke(main, ["replay", "--into", "once_more"])
    assert unequal.exit_code == 1
    assert "Not equal to schema public: fact_payment." in unequal.output
