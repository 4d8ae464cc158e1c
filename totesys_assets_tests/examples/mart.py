"""A mart that is replaced by day, and one that is replaced whole: both follow the star, and the audit says so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, date, datetime

import psycopg
import pytest

import totesys_assets
from totesys_assets.assets.describe import query_lineage
from totesys_assets.audit.audit import audit, checks
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.load.load import load
from totesys_assets.load.restore import differing, restore
from totesys_assets.staleness.decide import Request, everything
from totesys_assets.transform import build as build_module
from totesys_assets.transform import schemas
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import FIRST_DAY, Platform

MART, WHOLE_MART = "mart_department_day", "mart_design"
# Dagster notes each day of a run: of all days since 2024, for minutes.
ALL_OF_AUGUST = everything(catalogue(), DayRange(FIRST_DAY, date(2024, 8, 31)))
_ROWS = f"""
SELECT created_date::text, currency_id, department_name, orders, units, revenue::text FROM {MART} ORDER BY 1, 2, 3
"""
# The same figures, made in the warehouse of its facts and dimensions.
_FROM_THE_STAR = """
SELECT created_date::text, currency_id, department_name, count(*), sum(units_sold), sum(units_sold * unit_price)::text
FROM current_sales_order JOIN dim_staff ON staff_id = sales_staff_id GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_WHOLE_ROWS = f"SELECT design_name, versions FROM {WHOLE_MART} ORDER BY 1"
_WHOLE_FROM_THE_STAR = """
SELECT design_name, count(*) FROM fact_sales_order JOIN dim_design USING (design_id) GROUP BY 1 ORDER BY 1
"""

# Orders that share a day, a currency, both or neither with the one that is there.
_ORDERS = """
INSERT INTO sales_order
SELECT (jsonb_populate_record(sale, jsonb_build_object(
    'sales_order_id', number,
    'currency_id', 1 + number % 2,
    'created_at', sale.created_at + number / 14 * interval '1 day'
))).*
FROM sales_order AS sale, generate_series(10, 17) AS number
"""


_SHARE_FROM_THE_STAR = """
SELECT created_date, day_name, sum(units_sold), (SELECT sum(units_sold) FROM fact_sales_order)
FROM current_sales_order JOIN dim_date ON date_id = created_date GROUP BY 1, 2 ORDER BY 1
"""


def rows(platform: Platform) -> list[tuple[object, ...]]:
    """The rows of the mart by day. Both marts are what follows from the star."""
    found = platform.query(_ROWS)
    assert found == platform.query(_FROM_THE_STAR)
    assert platform.query(_WHOLE_ROWS) == platform.query(_WHOLE_FROM_THE_STAR)
    assert platform.query("SELECT * FROM mart_share ORDER BY 1") == platform.query(_SHARE_FROM_THE_STAR)
    return found


def outcomes(platform: Platform) -> set[str]:
    """What the audit says of both marts."""
    wanted = [pair for pair in checks(catalogue()) if "/mart_" in pair[0]]
    assert {check for _, check in wanted} >= {"records_equal_lake", "references_found"}
    return {finding.outcome for finding in audit(platform.core, wanted)}


@pytest.mark.refreshed
def test_they_follow_every_change_of_facts_and_dimensions(platform: Platform) -> None:
    platform.sql(_ORDERS)
    platform.refresh()
    first = rows(platform)
    assert len(first) == 5
    assert outcomes(platform) == {"equal"}
    day = date.fromisoformat(str(first[0][0]))
    assert platform.run(Request((f"mart/{MART}", f"warehouse/{MART}"), DayRange(day, day))).success
    assert rows(platform) == first  # those of the other days too
    for change in (
        "UPDATE sales_order SET units_sold = units_sold + 7 WHERE sales_order_id = 1",
        "UPDATE sales_order SET created_at = created_at + interval '1 day' WHERE sales_order_id = 1",
        "UPDATE department SET department_name = 'Renamed'",
        "UPDATE design SET design_name = design_name || ' II'",
    ):
        before = rows(platform), platform.query(_WHOLE_ROWS)
        platform.sql(change)
        platform.refresh()
        assert (rows(platform), platform.query(_WHOLE_ROWS)) != before, change
    assert outcomes(platform) == {"equal"}
    platform.sql("TRUNCATE payment, transaction, sales_order")
    platform.refresh(accept_deletions=True)
    assert rows(platform) == []
    assert platform.look().requests == []
    assert outcomes(platform) == {"equal"}


@pytest.mark.thorough
@pytest.mark.refreshed
def test_a_change_of_one_order_writes_one_row_of_the_mart(platform: Platform) -> None:
    platform.sql(_ORDERS)
    platform.refresh()
    query = f"SELECT (created_date, currency_id, department_name)::text, xmin::text FROM {MART}"
    before = {key: writer for key, writer, *_ in platform.query(query)}
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 7 WHERE sales_order_id = 1")
    platform.refresh()
    after = {key: writer for key, writer, *_ in platform.query(query)}
    assert before.keys() == after.keys()
    assert sum(before[key] != after[key] for key in before) == 1


@pytest.mark.thorough
@pytest.mark.refreshed
def test_the_audit_turns_red_when_somebody_changes_a_row(platform: Platform) -> None:
    platform.refresh()
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute(f"UPDATE {platform.settings.warehouse_schema}.{MART} SET revenue = revenue + 0.01")
    assert outcomes(platform) == {"equal", "different"}
    assert platform.run(ALL_OF_AUGUST).success
    assert outcomes(platform) == {"equal"}


@pytest.mark.thorough
@pytest.mark.refreshed
def test_they_follow_from_the_lake_alone_now_and_as_of_a_moment(platform: Platform) -> None:
    platform.refresh()
    first, moment = rows(platform), datetime.now(UTC)
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 7")
    platform.refresh()
    made = Warehouse(platform.warehouse_url, "made_anew")
    restore(made, platform.lake)
    assert differing(platform.warehouse, made) == []
    as_it_was = Warehouse(platform.warehouse_url, "as_it_was")
    restore(as_it_was, platform.lake, as_of=moment)
    then = replace(platform, settings=replace(platform.settings, warehouse_schema="as_it_was"))
    assert then.query(_ROWS) == first != rows(platform)
    read = totesys_assets.read(MART, lake=platform.settings.lake_uri)
    assert sorted(map(str, read.revenue)) == sorted(str(row[5]) for row in rows(platform))


@pytest.mark.thorough
@pytest.mark.refreshed
def test_they_go_on_with_another_lake(platform: Platform) -> None:
    platform.refresh()
    before = rows(platform)
    shutil.rmtree(platform.settings.lake_uri)
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 7")
    assert platform.run(replace(ALL_OF_AUGUST, adopt_lake=True)).success
    assert platform.query(_ROWS) == platform.query(_FROM_THE_STAR) != before
    assert outcomes(platform) == {"equal"}


@pytest.mark.refreshed
def test_rows_with_one_key_are_refused_in_a_sentence(platform: Platform) -> None:
    platform.sql(_ORDERS)
    platform.refresh()
    coarse = replace(catalogue().marts[MART], primary_key=("created_date",))
    with pytest.raises(PlatformError, match=r"makes \d rows with the same key \(created_date = 20.*marts.sql"):
        load(platform.warehouse, platform.lake, coarse, days=platform.all_days, run_id="test")


def test_the_graph_shows_what_they_are_made_of() -> None:
    tables = catalogue()
    lineage = query_lineage(tables, tables.marts[MART]).deps_by_column
    assert {dep.asset_key.to_user_string() + "/" + dep.column_name for dep in lineage["revenue"]} == {
        "star/fact_sales_order/units_sold",
        "star/fact_sales_order/unit_price",
    }
    assert [dep.asset_key.to_user_string() for dep in lineage["department_name"]] == ["star/dim_staff"]


@pytest.mark.refreshed
def test_a_row_without_a_value_that_must_be_there_is_refused_in_a_sentence(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    select = replace(query_of(MART), sql=query_of(MART).sql.replace("SUM(sale.units_sold * sale.unit_price)", "NULL"))
    for each in (build_module, schemas):
        monkeypatch.setattr(each, "query_of", lambda name: select if name == MART else query_of(name))
    mart = catalogue().marts[MART]
    with pytest.raises(PlatformError, match='SELECT of mart/mart_department_day gives rows without "revenue"'):
        build_module.build(platform.lake, catalogue(), mart, days=ALL_OF_AUGUST.days, run_id="test")


@pytest.mark.thorough
@pytest.mark.refreshed
def test_a_mart_of_another_shape_is_made_anew(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.refresh()
    mart = catalogue().marts[WHOLE_MART]
    before = platform.query(_WHOLE_ROWS)
    shorter = replace(mart, columns=mart.columns[:1])
    for shape in (shorter, mart):
        tables = replace(catalogue(), marts={**catalogue().marts, WHOLE_MART: shape})
        warehouse = Warehouse(platform.warehouse_url, platform.settings.warehouse_schema, tables)
        warehouse.migrate()
        build_module.build(platform.lake, tables, shape, days=None, run_id="test")
        load(warehouse, platform.lake, shape, days=None, run_id="test")
        columns = platform.query(f"SELECT * FROM {WHOLE_MART}")
        assert len(columns[0]) == len(shape.columns)
    assert platform.query(_WHOLE_ROWS) == before
