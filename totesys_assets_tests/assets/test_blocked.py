"""Blocked tables: seen on every asset that they concern, in the sensor, in the alerts, and gone when it is over."""

from __future__ import annotations

import dagster as dg
import psycopg
import pytest

from totesys_assets.assets import blocked
from totesys_assets.assets.blocked import CAN_BE_CAPTURED, NO_NEW_COLUMNS, UPSTREAM_CAPTURED
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.catalogue.queries import query_of
from totesys_assets.staleness.look import Examined
from totesys_assets_tests.automation.test_sensor import tick
from totesys_assets_tests.conftest import Platform

TABLES = catalogue()
WAITING = [
    *("star/fact_sales_order", "warehouse/fact_sales_order", "star/dim_date", "warehouse/dim_date"),
    *("mart/mart_sales_day", "warehouse/mart_sales_day"),
]


def failed(instance: dg.DagsterInstance) -> dict[tuple[str, str], str]:
    """The checks that say something bad at present: (asset, check) -> what."""
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(blocked.check_keys(TABLES))
    events = {key: record.event.dagster_event for key, record in latest.items() if record.event}
    found = {key: event.asset_check_evaluation_data for key, event in events.items() if event}
    return {
        ("/".join(key.asset_key.path), key.name): each.description or ""
        for key, each in found.items()
        if not each.passed
    }


def number_of_evaluations(instance: dg.DagsterInstance) -> int:
    histories = [
        instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
        for key in blocked.check_keys(TABLES)
    ]
    return sum(map(len, histories))


@pytest.mark.refreshed
@pytest.mark.parametrize(
    ("block", "mend", "reason"),
    [
        (
            "ALTER TABLE sales_order RENAME COLUMN units_sold TO units",
            "ALTER TABLE sales_order RENAME COLUMN units TO units_sold",
            '"units_sold" is missing',
        ),
        (
            "ALTER TABLE sales_order RENAME TO orders",
            "ALTER TABLE orders RENAME TO sales_order",
            'no table "sales_order"',
        ),
    ],
    ids=["renamed column", "renamed table"],
)
def test_a_blocked_table_is_seen_on_its_asset_and_on_what_waits_for_it_until_it_is_over(
    platform: Platform, block: str, mend: str, reason: str
) -> None:
    tick(platform)
    assert failed(platform.instance) == {}
    platform.sql(block)
    with pytest.raises(dg.Failure, match=reason):
        tick(platform)
    found = failed(platform.instance)
    assert found.keys() == {
        ("totesys/sales_order", CAN_BE_CAPTURED),
        *((asset, UPSTREAM_CAPTURED) for asset in WAITING),
    }
    assert reason in found["totesys/sales_order", CAN_BE_CAPTURED]
    assert all(found[asset, UPSTREAM_CAPTURED].startswith("Waits for totesys/sales_order. ") for asset in WAITING)
    assert blocked.blocked(platform.instance, TABLES.source) == {
        "sales_order": found["totesys/sales_order", CAN_BE_CAPTURED]
    }
    before = number_of_evaluations(platform.instance)
    with pytest.raises(dg.Failure):
        tick(platform)
    assert number_of_evaluations(platform.instance) == before
    platform.sql(mend)
    tick(platform)
    assert failed(platform.instance) == {}
    assert blocked.blocked(platform.instance, TABLES.source) == {}


def test_a_source_of_which_nothing_can_be_captured_turns_all_of_it_red(platform: Platform) -> None:
    platform.sql("ALTER SCHEMA public RENAME TO elsewhere; CREATE SCHEMA public")
    with pytest.raises(dg.Failure, match='which has no table "address"') as failure:
        tick(platform)
    assert str(failure.value.description).count("which has no table") == 1
    assert str(failure.value.description).endswith("(And 10 more tables.)")
    lost = {name for name, table in TABLES.source.items() if table.group == "totesys"}
    assert set(blocked.blocked(platform.instance, TABLES.source)) == lost
    made = [name for name in TABLES.warehouse if lost & set(query_of(name).sources)]
    assert (len(lost), len(made)) == (11, 16)  # all but what is made of files and of rates alone
    assert len(failed(platform.instance)) == 11 + 2 * 16


@pytest.mark.refreshed
def test_a_table_that_another_session_stands_in_the_way_of_names_that_session(platform: Platform) -> None:
    with psycopg.connect(platform.totesys_url, application_name="a migration") as other:
        other.execute("LOCK TABLE design IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(dg.Failure, match="a migration"):
            tick(platform)
    assert "a migration" in failed(platform.instance)["totesys/design", CAN_BE_CAPTURED]
    tick(platform)
    assert failed(platform.instance) == {}


@pytest.mark.refreshed
def test_a_new_column_is_a_warning_on_its_table_as_long_as_it_is_there(platform: Platform) -> None:
    platform.sql("ALTER TABLE design ADD COLUMN colour text")
    tick(platform)
    ((key, text),) = failed(platform.instance).items()
    assert key == ("totesys/design", NO_NEW_COLUMNS)
    assert '"colour"' in text
    platform.sql("UPDATE design SET design_name = 'Cotton'")
    platform.refresh()
    assert failed(platform.instance) == {key: text}  # said with the capture, too
    platform.sql("ALTER TABLE design DROP COLUMN colour")
    tick(platform)
    assert failed(platform.instance) == {}


def test_a_table_that_goes_on_without_a_column_has_a_warning_that_names_it() -> None:
    found = blocked.evaluations(TABLES, Examined(unknown={"design": ["colour", "size"]}))
    (warning,) = [each for each in found if not each.passed]
    assert (warning.asset_key, warning.check_name) == (dg.AssetKey(["totesys", "design"]), NO_NEW_COLUMNS)
    assert warning.severity == dg.AssetCheckSeverity.WARN
    assert '"colour", "size"' in (warning.description or "")


@pytest.mark.refreshed
def test_what_is_brought_up_to_date_beside_a_blocked_table_says_so_with_its_newest_materialisation(
    platform: Platform,
) -> None:
    platform.sql("ALTER TABLE sales_order RENAME COLUMN units_sold TO units")
    with pytest.raises(dg.Failure):
        tick(platform)
    platform.sql("UPDATE payment SET paid = NOT paid, last_updated = last_updated + interval '1 day'")
    (outcome,) = platform.refresh()
    for asset, passed in (("warehouse/dim_date", False), ("warehouse/fact_payment", True)):
        key = dg.AssetCheckKey(dg.AssetKey(asset.split("/")), UPSTREAM_CAPTURED)
        record = platform.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert (record.run_id, record.evaluation.passed if record.evaluation else None) == (outcome.run_id, passed)
