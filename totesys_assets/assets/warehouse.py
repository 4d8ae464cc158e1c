"""The warehouse: one asset per star table and mart, merged into PostgreSQL.

Belongs here: the factory. Does not belong here: the merge, which is load/.
"""

import logging
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from totesys_assets.assets import blocked
from totesys_assets.assets.describe import (
    GROUPS,
    OWNERS,
    changes_only,
    ddl_reference,
    definition_metadata,
    failures,
    is_range,
    record_partitions,
    row_count,
    run_days,
    total_row_count,
    warehouse_lineage,
)
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.counting import counted
from totesys_assets.days import WHOLE
from totesys_assets.lake.tables import PROCESSED, Lake
from totesys_assets.load.load import load
from totesys_assets.load.one_pass import OnePass
from totesys_assets.names import ADOPT_LAKE_TAG, LANE_TAG, WAREHOUSE
from totesys_assets.postgres.locks import RANGE_TIMEOUT_SECONDS
from totesys_assets.warehouse.warehouse import Warehouse

log = logging.getLogger(__name__)
# Dimensions are loaded before facts, and facts before marts: a reader who sees a new row finds what it refers to.
PRIORITY = 10
# The nightly comparison loads every table, changed or not. The sensor ``freshness`` tells whether changes are in time.
FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26), warn_window=timedelta(hours=25))


def warehouse_assets(
    catalogue: Catalogue, partitions: dg.PartitionsDefinition[str], schema: str
) -> list[dg.AssetsDefinition]:
    """The assets ``warehouse/<table>``."""
    return [_warehouse_asset(catalogue, table, partitions, schema) for table in catalogue.warehouse.values()]


def _warehouse_asset(
    catalogue: Catalogue, table: Table, partitions: dg.PartitionsDefinition[str], schema: str
) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([WAREHOUSE, table.name]),
        deps=[dg.AssetKey([table.group, table.name])],
        group_name=GROUPS[WAREHOUSE],
        description=f"{table.description} Loaded in one transaction: readers see all of a refresh or nothing of it.",
        kinds={"postgres"},
        owners=OWNERS,
        metadata=definition_metadata(table, f"{schema}.{table.name}", "postgres", defined_in=[ddl_reference(table)]),
        freshness_policy=FRESHNESS,
        # A table without partitions is not loaded if it has not changed.
        output_required=table.day_column is not None,
        partitions_def=partitions if table.day_column else None,
        backfill_policy=dg.BackfillPolicy.single_run() if table.day_column else None,
        check_specs=blocked.checks(WAREHOUSE, table.name),
        op_tags={"dagster/priority": str(PRIORITY - table.is_fact - 2 * table.is_mart), LANE_TAG: WAREHOUSE},
    )
    def _asset(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        warehouse: dg.ResourceParam[Warehouse],
        one_pass: dg.ResourceParam[OnePass],
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        days = run_days(context)
        with failures(), one_pass.copy(table) as copy:
            loaded = load(
                warehouse,
                lake,
                table,
                days=days,
                run_id=context.run.run_id,
                changes_only=changes_only(context),
                adopt_lake=context.run.tags.get(ADOPT_LAKE_TAG) == "true",
                copy=copy,
                patience=RANGE_TIMEOUT_SECONDS if is_range(context) else None,
            )
        log.info("warehouse/%s: %s written", table.name, counted(loaded.written, "row"))
        metadata = {
            key: row_count(loaded.rows.get(key, 0), of_partition=days is not None)
            for key in (days.keys if days is not None else [WHOLE])
        }
        newest = metadata[days.keys[-1] if days is not None else WHOLE]
        newest.update(total_row_count(lake, f"{PROCESSED}/{table.name}"))
        newest["rows_written"] = loaded.written
        newest["dagster/column_lineage"] = warehouse_lineage(table)
        waits = blocked.waits(context.instance, catalogue, WAREHOUSE, table.name)
        if loaded.needed:
            yield dg.MaterializeResult(metadata=record_partitions(context, days, metadata))
        yield blocked.result(waits)

    return _asset
