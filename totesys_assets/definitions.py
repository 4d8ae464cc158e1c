"""Where everything meets: the assets, what automates them, and the resources they use."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import dagster as dg

from totesys_assets.assets.ingestion import ingestion_assets
from totesys_assets.assets.processed import processed_assets
from totesys_assets.assets.warehouse import warehouse_assets
from totesys_assets.automation.alerts import audit_alert, failure_alert, freshness_sensor
from totesys_assets.automation.audit_checks import audit_checks
from totesys_assets.automation.jobs import asset_jobs, compact_job
from totesys_assets.automation.partitions import daily_partitions
from totesys_assets.automation.schedules import audit_schedule, compaction_schedule, nightly_schedule
from totesys_assets.automation.sensors import changes_sensor, first_audit_sensor
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.dagster_internals.executor import lanes_executor
from totesys_assets.local.home import Databases, databases
from totesys_assets.resources.lake import Lake
from totesys_assets.resources.notices import Notices
from totesys_assets.resources.session import Session
from totesys_assets.resources.totesys import Totesys
from totesys_assets.resources.warehouse import Warehouse
from totesys_assets.settings import Settings


def build_definitions(
    settings: Settings | None = None, resources: Mapping[str, object] | None = None
) -> dg.Definitions:
    """All definitions. ``settings`` default to the environment's; ``resources`` replace those made from them."""
    settings = settings or Settings.from_env()
    tables, partitions = catalogue(), daily_partitions(settings)
    refresh, everything, backfill, audit = asset_jobs(tables)
    compact = compact_job()
    return dg.Definitions(
        assets=[
            *ingestion_assets(tables, partitions, settings),
            *processed_assets(tables, partitions),
            *warehouse_assets(tables, partitions, settings.warehouse_schema),
        ],
        asset_checks=[audit_checks(tables, settings)],
        jobs=[refresh, everything, backfill, audit, compact],
        schedules=[audit_schedule(), nightly_schedule(settings), compaction_schedule(compact)],
        sensors=[
            changes_sensor(settings),
            first_audit_sensor(),
            freshness_sensor(settings),
            failure_alert(),
            audit_alert(audit),
        ],
        resources={**make_resources(settings), **(resources or {})},
        executor=lanes_executor,
    )


def make_resources(settings: Settings) -> dict[str, Any]:
    """The outside world, opened when a run or a sensor first needs it and closed at its end."""

    @dg.resource
    def open_databases(_context: dg.InitResourceContext) -> Iterator[Databases]:
        with databases(settings, dagster=False) as urls:
            yield urls

    @dg.resource(required_resource_keys={"databases"})
    def open_session(context: dg.InitResourceContext) -> Iterator[Session]:
        session = Session(Totesys.of(settings, context.resources.databases.totesys))
        try:
            yield session
        finally:
            session.close()

    @dg.resource(required_resource_keys={"databases"})
    def open_warehouse(context: dg.InitResourceContext) -> Iterator[Warehouse]:
        warehouse = Warehouse(context.resources.databases.warehouse, settings.warehouse_schema)
        with ExitStack() as stack:
            stack.callback(warehouse.close)
            if context.run is not None:  # it is None for a sensor's tick
                stack.enter_context(warehouse.alive(context.run.run_id))
            yield warehouse

    return {
        "databases": open_databases,
        "session": open_session,
        "warehouse": open_warehouse,
        "lake": Lake(settings.lake_uri),
        "notices": Notices(settings.alert_topic, settings.ui_url),
    }


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads, from the environment's settings."""
    return build_definitions()
