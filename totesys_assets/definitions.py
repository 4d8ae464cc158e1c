"""Where everything meets: the assets, what automates them, and the resources they use."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import dagster as dg

from totesys_assets.assets.describe import query_lineage
from totesys_assets.assets.ingestion import ingestion_assets
from totesys_assets.assets.processed import processed_assets
from totesys_assets.assets.resources import make_resources
from totesys_assets.assets.warehouse import warehouse_assets
from totesys_assets.automation.alerts import alert_sensors
from totesys_assets.automation.audit_checks import audit_checks
from totesys_assets.automation.jobs import asset_jobs, compact_job, fetch_rates_job, purge_job
from totesys_assets.automation.partitions import daily_partitions
from totesys_assets.automation.schedules import schedules
from totesys_assets.automation.sensors import changes_sensor, first_audit_sensor
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.dagster_internals.switch import steps_executor
from totesys_assets.days import partition_range
from totesys_assets.settings import Settings


def build_definitions(settings: Settings | None = None, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions. ``settings`` default to the environment's; ``resources`` replace those made from them."""
    settings = settings or Settings.from_env()
    tables, partitions = catalogue(), daily_partitions(settings)
    (*refreshes, audit), others = asset_jobs(tables), (compact_job(), fetch_rates_job(settings), purge_job(settings))
    return dg.Definitions(
        assets=[
            *ingestion_assets(tables, partitions, settings.first_day),
            *processed_assets(tables, partitions, settings.engine),
            *warehouse_assets(tables, partitions, settings.warehouse_schema),
        ],
        asset_checks=[audit_checks(tables, settings)],
        jobs=[*refreshes, audit, *others],
        schedules=schedules(settings, *others),
        sensors=[changes_sensor(settings), first_audit_sensor(), *alert_sensors(settings, audit)],
        resources={**make_resources(settings), **(resources or {})},
        executor=steps_executor,
    )


def warm_up() -> None:
    """Read and build what all runs need, before the fork server forks."""
    defs().get_repository_def().get_all_jobs()
    for table in catalogue().warehouse.values():
        query_lineage(catalogue(), table)


# As long as settings and days are the same, a run that was forked has the definitions of its parent.
_built = lru_cache(maxsize=1)(lambda settings, _: build_definitions(settings))


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads, from the environment's settings."""
    return _built(settings := Settings.from_env(), partition_range(settings.first_day))
