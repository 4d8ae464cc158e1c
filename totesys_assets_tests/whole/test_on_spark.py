"""The whole platform with TOTESYS_ENGINE=spark: the same warehouse, a clean audit, and a server that is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from totesys_assets.audit.audit import audit
from totesys_assets.lake.files import listed
from totesys_assets.lake.tables import PROCESSED
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.sail import Sail, needs_sail

pytestmark = needs_sail
# In another month than the others: a refresh that changes one month must leave the other's rows.
ORDER = """
    INSERT INTO sales_order SELECT 2, created_at, created_at, 1, 1, 1, 5000, 3.10, 1, '2024-10-12', '2024-10-13', 1
    FROM (VALUES (timestamp '2024-10-09 10:11:12')) AS sale (created_at)
"""


@pytest.fixture
def databases(postgres_server: PostgresServer, trade_template: str) -> Iterator[tuple[str, str]]:
    name = os.urandom(4).hex()
    source = postgres_server.template(f"totesys_{name}", trade_template)
    yield source, postgres_server.database(f"warehouse_{name}")
    postgres_server.drop(f"totesys_{name}", f"warehouse_{name}")


def engine_of(platform: Platform, asset: str) -> object:
    """What the newest materialisation of an asset says that it was built with."""
    event = platform.instance.get_latest_materialization_event(dg.AssetKey(asset.split("/")))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.metadata["engine"].value


def require_clean(platform: Platform) -> None:
    assert {finding.outcome for finding in audit(platform.core)} <= {"equal", "warning"}
    assert platform.look().requests == []


def test_a_platform_on_spark_is_refreshed_audited_and_completed_after_its_server_died(
    databases: tuple[str, str], tmp_path: Path
) -> None:
    server, other = Sail(), Sail()
    try:
        with make_platform(*databases, tmp_path, TOTESYS_ENGINE="spark", SPARK_REMOTE=server.remote) as platform:
            platform.sql(ORDER)
            platform.refresh()
            require_clean(platform)
            made_by = {each: engine_of(platform, each) for each in ("star/fact_sales_order", "star/dim_design")}
            assert made_by == {"star/fact_sales_order": "spark", "star/dim_design": "duckdb"}
            sales = platform.lake.find(PROCESSED, "fact_sales_order")
            assert sales is not None
            paths = listed(sales).column("path").to_pylist()
            assert paths
            assert all(str(path).startswith("spark-") for path in paths)
            platform.sql("UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 1")
            platform.sql("DELETE FROM payment WHERE payment_id = (SELECT max(payment_id) FROM payment)")
            server.kill()
            outcomes = [platform.run(request) for request in platform.look().requests]
            failures = [failure for outcome in outcomes for failure in outcome.failures]
            assert any(failure.startswith("SPARK_REMOTE cannot be reached") for failure in failures), failures
            before = platform.query("SELECT count(*) FROM fact_sales_order")
        with make_platform(*databases, tmp_path, TOTESYS_ENGINE="spark", SPARK_REMOTE=other.remote) as platform:
            platform.refresh()
            require_clean(platform)
            ((rows,),), ((rows_before,),) = platform.query("SELECT count(*) FROM fact_sales_order"), before
            assert rows == int(str(rows_before)) + 1
            assert platform.query("SELECT count(DISTINCT created_date) FROM mart_sales_day") == [(2,)]
    finally:
        for each in (server, other):
            each.kill()
