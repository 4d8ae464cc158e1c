"""A warehouse and another lake than the one that it was loaded from: lost, set back, a second one."""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake

import totesys_assets
from totesys_assets.audit.audit import audit
from totesys_assets.audit.findings import LEDGER
from totesys_assets.capture.difference import capture
from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.lost_ledger import write_off
from totesys_assets.catalogue.catalogue import Catalogue, _tables, catalogue, lake_schema
from totesys_assets.commands import main
from totesys_assets.days import DayRange
from totesys_assets.errors import ConcurrentWriters, LakeChanged, PlatformError
from totesys_assets.lake.commit import append
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.load import load as load_module
from totesys_assets.load.adopt import _chunks
from totesys_assets.load.load import load
from totesys_assets.load.restore import differing, restore
from totesys_assets.source.shared_snapshot import OpenSnapshots
from totesys_assets.transform.build import build
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform, PostgresServer, Refreshed, begin, make_platform

ORDERS = "SELECT sales_order_id, units_sold, _operation FROM history_sales_order ORDER BY sales_order_id, valid_from"
CURRENT = "SELECT sales_order_id, units_sold FROM current_sales_order ORDER BY 1"
RECORDS = (
    "SELECT 'sales', count(*) FROM fact_sales_order UNION ALL SELECT 'purchases', count(*) FROM fact_purchase_order "
    "UNION ALL SELECT 'payments', count(*) FROM fact_payment ORDER BY 1"
)


def with_lake(platform: Platform, folder: str) -> Platform:
    """The same platform with another lake beside its own."""
    uri = str(Path(platform.settings.lake_uri).with_name(folder))
    return replace(platform, settings=replace(platform.settings, lake_uri=uri))


def bring_up(platform: Platform, *, adopt_lake: bool = False, lake_only: bool = False) -> None:
    """Compare, build and load everything, as ``refresh --full`` does, without Dagster."""
    tables, days, lake = catalogue(), platform.all_days, platform.lake
    with closing(OpenSnapshots(platform.core.sources)) as snapshots:
        for source in tables.source.values():
            snapshot = snapshots.now[source.group]
            capture(snapshot, lake, source, all_days=days, days=days, run_id="test", adopt_lake=adopt_lake)
    with closing(platform.warehouse) as warehouse:
        for table in tables.warehouse.values():
            build(lake, tables, table, days=days, run_id="test")
            if not lake_only:
                load(warehouse, lake, table, days=days, run_id="test", adopt_lake=adopt_lake)


def adopt(platform: Platform) -> None:
    bring_up(platform, adopt_lake=True)


def load_one(platform: Platform, name: str) -> None:
    star, days = catalogue().star[name], platform.all_days
    load(platform.warehouse, platform.lake, star, days=days, run_id="test", adopt_lake=True)


def require_all_well(platform: Platform) -> None:
    """Nothing is left to do, nothing is added by doing everything again, and the audit finds nothing."""
    assert platform.look().requests == []
    before = platform.query(RECORDS)
    bring_up(platform)
    assert platform.query(RECORDS) == before
    findings = audit(platform.core)
    assert [(each.asset, each.check, each.detail) for each in findings if not each.passed and not each.warning] == []
    assert any(each.check == "records_equal_lake" and each.passed for each in findings)


def story(platform: Platform) -> None:
    """Two versions of the one order of TRADE, one of another."""
    platform.sql(
        "INSERT INTO sales_order SELECT 2, created_at, last_updated, design_id, staff_id, counterparty_id, 5, "
        "unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id "
        "FROM sales_order WHERE sales_order_id = 1"
    )
    bring_up(platform)
    platform.sql("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 1")
    bring_up(platform)
    assert platform.query(ORDERS) == [(1, 1001, "insert"), (1, 7, "update"), (2, 5, "insert")]


@pytest.fixture(scope="module")
def beginning(postgres_server: PostgresServer, trade_template: str, scratch: Path) -> Refreshed:
    """The story, told once."""
    return begin(postgres_server, trade_template, scratch / "story", story)


@pytest.mark.refreshed
def test_a_lake_that_was_lost_is_noticed_before_anything_is_written(platform: Platform) -> None:
    before = platform.query(RECORDS), platform.warehouse.mark()
    shutil.rmtree(platform.lake.uri)
    with pytest.raises(LakeChanged, match=r"from a lake, and the place .* has none.*If it is only away.*--adopt-lake"):
        platform.look()
    for options in ([], ["--full"], ["--from", "2024-08-20", "--to", "2024-08-20"]):
        refused = CliRunner().invoke(main, ["refresh", *options])
        assert refused.exit_code == 1
        assert isinstance(refused.exception, LakeChanged) or "--adopt-lake" in refused.output
    assert not Path(platform.lake.uri).exists()
    with pytest.raises(LakeChanged, match="loaded from another lake"):  # without a look before
        bring_up(platform)
    assert (platform.query(RECORDS), platform.warehouse.mark()) == before


@pytest.mark.refreshed
def test_after_a_lake_was_lost_the_warehouse_goes_on_without_a_doubled_or_a_lost_record(platform: Platform) -> None:
    shutil.rmtree(platform.lake.uri)
    platform.sql("UPDATE sales_order SET units_sold = 8 WHERE sales_order_id = 2")
    platform.sql("DELETE FROM payment WHERE payment_id = 1")
    platform.sql("UPDATE purchase_order SET created_at = '2024-08-22 10:00'")
    platform.sql("DELETE FROM transaction WHERE transaction_id = 2")
    platform.sql("UPDATE design SET design_name = 'new'")
    adopt(platform)
    assert platform.query(ORDERS) == [(1, 1001, "insert"), (1, 7, "update"), (2, 5, "insert"), (2, 8, "update")]
    assert platform.query("SELECT payment_id, _operation FROM fact_payment ORDER BY 1, payment_record_id") == [
        (1, "insert"),
        (1, "delete"),
        (2, "insert"),
    ]
    assert platform.query("SELECT created_date::text, _operation FROM fact_purchase_order ORDER BY 1, 2 DESC") == [
        ("2024-08-21", "insert"),
        ("2024-08-21", "delete"),
        ("2024-08-22", "insert"),
    ]
    assert platform.query("SELECT transaction_id, _is_deleted FROM dim_transaction ORDER BY 1") == [
        (1, False),
        (2, True),
    ]
    assert platform.query("SELECT DISTINCT design_name FROM dim_design") == [("new",)]
    platform.sql("UPDATE sales_order SET units_sold = 9 WHERE sales_order_id = 1")
    bring_up(platform)
    assert platform.query(CURRENT) == [(1, 9), (2, 8)]
    assert platform.query("SELECT count(*) FROM fact_sales_order") == [(5,)]
    require_all_well(platform)


@pytest.mark.thorough
@pytest.mark.refreshed
def test_a_lake_that_was_set_back_is_noticed_also_after_it_captured_anew(platform: Platform) -> None:
    kept = Path(platform.lake.uri).with_name("backup")
    shutil.copytree(platform.lake.uri, kept)
    platform.sql("UPDATE sales_order SET units_sold = 8 WHERE sales_order_id = 1")
    bring_up(platform)
    before = platform.query(RECORDS)
    shutil.rmtree(platform.lake.uri)
    shutil.copytree(kept, platform.lake.uri)
    with pytest.raises(LakeChanged, match=r'from versions of "sales_order" up to 20.*set back'):
        platform.look()
    findings = audit(platform.core)
    assert "set back" in next(each.detail for each in findings if each.asset == "warehouse/fact_sales_order")
    # As a version of before would have it: the lake captures first, and is then newer than the warehouse.
    platform.sql("UPDATE sales_order SET units_sold = 6 WHERE sales_order_id = 1")
    bring_up(platform, lake_only=True)
    with pytest.raises(LakeChanged, match="set back"):
        bring_up(platform)
    assert platform.query(RECORDS) == before
    adopt(platform)
    assert platform.query(ORDERS) == [
        *((1, 1001, "insert"), (1, 7, "update"), (1, 8, "update"), (1, 6, "update")),
        (2, 5, "insert"),
    ]
    require_all_well(platform)


@pytest.mark.thorough
@pytest.mark.refreshed
def test_two_lakes_may_take_turns(platform: Platform) -> None:
    other = with_lake(platform, "another")
    with pytest.raises(LakeChanged):
        other.look()
    adopt(other)
    assert platform.query(ORDERS) == [(1, 1001, "insert"), (1, 7, "update"), (2, 5, "insert")]
    platform.sql("UPDATE sales_order SET units_sold = 8 WHERE sales_order_id = 2")
    bring_up(other)
    with pytest.raises(LakeChanged, match="from another lake"):
        platform.look()
    platform.sql("UPDATE sales_order SET units_sold = 9 WHERE sales_order_id = 2")
    adopt(platform)
    expected = [(1, 1001, "insert"), (1, 7, "update"), (2, 5, "insert"), (2, 8, "update"), (2, 9, "update")]
    assert platform.query(ORDERS) == expected
    adopt(other)
    assert platform.query(ORDERS) == expected
    require_all_well(other)


@pytest.mark.refreshed
def test_a_lake_as_it_was_is_adopted_without_a_trace(platform: Platform) -> None:
    before = platform.query(RECORDS), platform.warehouse.mark()
    adopt(platform)
    assert (platform.query(RECORDS), platform.warehouse.mark()) == before


def test_the_command_adopts_through_dagster(
    postgres_server: PostgresServer, trade_template: str, tmp_path: Path
) -> None:
    source = postgres_server.template("totesys_adopted", trade_template)
    today = datetime.now(UTC).date()
    with make_platform(source, postgres_server.database(), tmp_path, today) as platform:
        for table in ("sales_order", "purchase_order", "transaction", "payment"):
            platform.sql(f"UPDATE {table} SET created_at = current_date")
        bring_up(platform)
        shutil.rmtree(Path(platform.lake.uri, INGESTION))  # and not the ledger
        platform.sql("UPDATE sales_order SET units_sold = 8")
        outcome = CliRunner().invoke(main, ["refresh", "--adopt-lake"])
        assert outcome.exit_code == 0, outcome.output
        assert platform.query("SELECT units_sold, _operation FROM fact_sales_order ORDER BY sales_record_id") == [
            (1001, "insert"),
            (8, "update"),
        ]
        assert platform.look().requests == []
        noted = [each for each in audit(platform.core) if each.check == LEDGER]
        assert [(each.asset, each.detail) for each in noted if not each.passed] == []
        assert len(noted) > 10


@pytest.mark.thorough
@pytest.mark.refreshed
def test_a_warehouse_of_before_lakes_were_noted_notices_another_one_by_its_newest_record(platform: Platform) -> None:
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute("DELETE FROM _ledger WHERE partition = 'lake'")
    before = platform.query(RECORDS)
    other = with_lake(platform, "another")
    with pytest.raises(LakeChanged, match="does not hold those of that moment"):
        bring_up(other)
    assert platform.query(RECORDS) == before
    bring_up(platform)  # and notes the lake
    with pytest.raises(LakeChanged):
        other.look()


@pytest.mark.thorough
@pytest.mark.refreshed
def test_a_second_warehouse_is_not_disturbed_by_an_adoption_in_the_first(
    platform: Platform, postgres_server: PostgresServer
) -> None:
    other = with_lake(platform, "another")
    second = replace(other, warehouse_url=postgres_server.database())
    bring_up(second)
    adopt(other)
    platform.sql("UPDATE sales_order SET units_sold = 9 WHERE sales_order_id = 2")
    bring_up(second)
    bring_up(other)
    assert second.query(CURRENT) == other.query(CURRENT) == [(1, 7), (2, 9)]
    require_all_well(second)


@pytest.mark.refreshed
def test_a_replayed_schema_knows_the_lake_that_it_was_made_of(platform: Platform) -> None:
    again = Warehouse(platform.warehouse_url, "again")
    restore(again, platform.lake)
    used = replace(platform, settings=replace(platform.settings, warehouse_schema="again"))
    bring_up(used)
    with pytest.raises(LakeChanged):
        with_lake(used, "another").look()


@pytest.mark.thorough
@pytest.mark.refreshed
def test_replay_is_equal_to_an_adopted_warehouse_in_what_came_after(platform: Platform) -> None:
    other = with_lake(platform, "another")
    platform.sql("DELETE FROM payment WHERE payment_id = 1")
    platform.sql("DELETE FROM transaction WHERE transaction_id = 2")
    adopt(other)
    platform.sql("UPDATE sales_order SET units_sold = 9 WHERE sales_order_id = 2")
    bring_up(other)
    again = Warehouse(platform.warehouse_url, "again")
    restore(again, Lake(other.settings.lake_uri))
    assert differing(other.warehouse, again) == []


@pytest.mark.thorough
@pytest.mark.refreshed
def test_an_adoption_that_broke_off_half_way_is_taken_up_without_a_doubled_record(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = with_lake(platform, "another")
    platform.sql("UPDATE sales_order SET units_sold = 8 WHERE sales_order_id = 2")

    def break_off(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("between the lake's commit and the warehouse's")

    bring_up(other, lake_only=True)
    load_one(other, "dim_design")
    monkeypatch.setattr(load_module, "written", break_off)
    with pytest.raises(RuntimeError):
        load_one(other, "fact_sales_order")
    assert platform.query("SELECT count(*) FROM fact_sales_order") == [(3,)]
    with pytest.raises(LakeChanged):
        other.look()
    platform.sql("UPDATE sales_order SET units_sold = 9 WHERE sales_order_id = 1")
    with pytest.raises(LakeChanged):
        bring_up(other)
    assert platform.query("SELECT count(*) FROM fact_sales_order") == [(3,)]
    adopt(other)
    assert platform.query(ORDERS) == [
        (1, 1001, "insert"),
        (1, 7, "update"),
        (1, 9, "update"),
        (2, 5, "insert"),
        (2, 8, "update"),
    ]
    require_all_well(other)


@pytest.mark.thorough
@pytest.mark.refreshed
def test_what_is_captured_while_a_lake_is_adopted_is_neither_lost_nor_doubled(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(platform.warehouse_url) as connection:  # by a clock that was an hour ahead
        connection.execute("UPDATE fact_sales_order SET _recorded_at = now() + interval '1 hour' WHERE units_sold = 5")
    other = with_lake(platform, "another")
    bring_up(other, lake_only=True)
    orders = catalogue().source["sales_order"]

    def captured_first(table: DeltaTable, *arguments: Any) -> None:
        if table.table_uri.rstrip("/").endswith("/sales_order"):
            monkeypatch.undo()
            platform.sql("UPDATE sales_order SET units_sold = 8 WHERE sales_order_id = 2")
            with platform.totesys.snapshot() as snapshot:
                capture(
                    snapshot, other.lake, orders, all_days=platform.all_days, days=platform.all_days, run_id="between"
                )
        append(table, *arguments)

    monkeypatch.setattr("totesys_assets.load.adopt.append", captured_first)
    load_one(other, "fact_sales_order")
    assert platform.query(ORDERS) == [(1, 1001, "insert"), (1, 7, "update"), (2, 5, "insert"), (2, 8, "update")]
    adopt(other)
    assert platform.query(ORDERS) == [(1, 1001, "insert"), (1, 7, "update"), (2, 5, "insert"), (2, 8, "update")]
    require_all_well(other)


def test_a_fact_is_adopted_by_the_months_of_all_its_sources_that_have_days(tmp_path: Path) -> None:
    ddl = """
    CREATE TABLE rate (rate_date date PRIMARY KEY -- by day: the day
    );
    CREATE TABLE noted (id int PRIMARY KEY, noted_at timestamp NOT NULL -- by day: when
    );
    CREATE TABLE undated (id int PRIMARY KEY);
    """
    tables = Catalogue({table.name: table for table in _tables("files", ddl)}, {})
    lake = Lake(f"{tmp_path}/lake")
    given = {"_operation": "insert", "_recorded_at": datetime.now(UTC)}
    rows: dict[str, list[dict[str, Any]]] = {
        "rate": [{"rate_date": date(2024, 8, day), "_month": "2024-08"} for day in (20, 30)],
        "noted": [{"id": 1, "noted_at": datetime(2024, 9, 2, 10), "_month": "2024-09"}],
        "undated": [{"id": 1}],
    }
    sources = {name: lake.open_versions(table) for name, table in tables.source.items()}
    for name, table in tables.source.items():
        schema = lake_schema(table, versioned=True)
        filled = pa.Table.from_pylist([{**given, **row} for row in rows[name]], schema=schema)
        write_deltalake(sources[name], filled, mode="append")

    def chunks(*names: str) -> list[DayRange | None]:
        return list(_chunks(catalogue().star["fact_payment"], tables, {name: sources[name] for name in names}))

    august, all_of_it = DayRange(date(2024, 8, 20), date(2024, 8, 30)), DayRange(date(2024, 8, 20), date(2024, 9, 2))
    assert chunks("rate", "undated") == [august]
    assert chunks("rate", "noted", "undated") == list(all_of_it.by_month())
    assert chunks("undated") == [None]


@pytest.mark.refreshed
@pytest.mark.parametrize("is_tried_before", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_one_table_of_a_lake_that_was_set_back_beside_its_ledger_is_adopted(
    platform: Platform, is_tried_before: bool
) -> None:
    folder = Path(platform.lake.uri, INGESTION, "sales_order")
    kept = folder.with_name("backup")
    shutil.copytree(folder, kept)
    platform.sql("UPDATE sales_order SET units_sold = 8 WHERE sales_order_id = 1")
    bring_up(platform)
    shutil.rmtree(folder)
    kept.rename(folder)
    with pytest.raises(LakeChanged, match=r'from versions of "sales_order" up to 20.*set back'):
        platform.look()
    if is_tried_before:
        write_off(platform.lake, catalogue().source["sales_order"], "killed before it captured")
    adopt(platform)
    assert platform.query(ORDERS) == [(1, 1001, "insert"), (1, 7, "update"), (1, 8, "update"), (2, 5, "insert")]
    assert {each.missed for each in Ledger(platform.lake).totals()["ingestion/sales_order"].values()} == {0}
    require_all_well(platform)


@pytest.mark.refreshed
def test_a_table_without_a_row_that_the_lake_has_lost_is_not_stale_for_ever(platform: Platform) -> None:
    shutil.rmtree(Path(platform.lake.uri, INGESTION, "sales_target"))
    adopt(platform)
    assert platform.look().requests == []


@pytest.mark.refreshed
def test_of_a_moment_before_a_lost_table_was_begun_anew_it_is_said_to_be_empty(platform: Platform) -> None:
    moment = datetime.now(UTC)
    shutil.rmtree(Path(platform.lake.uri, INGESTION, "payment"))
    adopt(platform)
    said: list[str] = []
    restore(Warehouse(platform.warehouse_url, "before"), platform.lake, as_of=moment, say=said.append)
    [sentence] = said
    assert re.fullmatch(
        r"The lake's records of these begin later, so they are empty here: payment \(at 20.* UTC\)\.", sentence
    )
    with pytest.warns(UserWarning, match="are empty here: payment"):
        totesys_assets.read("dim_date", as_of=moment, lake=platform.lake.uri)
    with pytest.raises(PlatformError, match="knows nothing of"):
        totesys_assets.read("fact_payment", as_of=moment, lake=platform.lake.uri)
    restore(Warehouse(platform.warehouse_url, "after"), platform.lake, as_of=datetime.now(UTC), say=said.append)
    assert said == [sentence]


@pytest.mark.refreshed
@pytest.mark.parametrize("late", ["append", "_write"])
def test_of_two_that_write_off_the_same_at_once_one_does(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    orders, act = catalogue().source["sales_order"], getattr(Ledger, late)
    shutil.rmtree(Path(platform.lake.uri, INGESTION, "sales_order"))

    def overtaken(ledger: Ledger, *arguments: Any, **named: Any) -> None:
        monkeypatch.undo()
        write_off(Lake(platform.lake.uri), orders, "another")
        act(ledger, *arguments, **named)

    monkeypatch.setattr(Ledger, late, overtaken)
    write_off(platform.lake, orders, "this one")
    noted = Ledger(Lake(platform.lake.uri)).totals()["ingestion/sales_order"]
    assert {each.versions for each in noted.values()} == {0}
    entries = Lake(platform.lake.uri).find("ledger")
    assert entries is not None
    runs = entries.to_pyarrow_table().column("run_id").to_pylist()
    assert ("another" in runs, "this one" in runs) == (True, False)


@pytest.mark.refreshed
def test_who_loses_every_race_of_writing_off_is_told_so(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "fence", lambda *_: -1)
    shutil.rmtree(Path(platform.lake.uri, INGESTION, "sales_order"))
    with pytest.raises(ConcurrentWriters, match='of "sales_order" 5 times'):
        write_off(platform.lake, catalogue().source["sales_order"], "test")
