"""The processed zone: one asset per star table and mart, built in the lake by its SELECT.

Belongs here: the factory. Does not belong here: what a table is made of, which is its SQL in star/ or marts/.
"""

import logging

import dagster as dg

from totesys_assets.assets import blocked
from totesys_assets.assets.describe import (
    GROUPS,
    OWNERS,
    changes_only,
    ddl_reference,
    definition_metadata,
    failures,
    keys,
    query_lineage,
    query_reference,
    record_partitions,
    row_count,
    run_days,
    total_row_count,
)
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.catalogue.consistency import require_days
from totesys_assets.catalogue.queries import query_of
from totesys_assets.counting import counted
from totesys_assets.days import WHOLE
from totesys_assets.lake.tables import PROCESSED, Lake
from totesys_assets.load.one_pass import OnePass
from totesys_assets.transform.build import build
from totesys_assets.transform.engines.interface import Engine
from totesys_assets.variables import DUCKDB

log = logging.getLogger(__name__)
PRIORITY = 20


def processed_assets(
    catalogue: Catalogue, partitions: dg.PartitionsDefinition[str], engine_name: str
) -> list[dg.AssetsDefinition]:
    """The assets ``star/<table>`` and ``mart/<table>``, those that have days built by the engine of that name."""
    return [_processed_asset(catalogue, table, partitions, engine_name) for table in catalogue.warehouse.values()]


def _processed_asset(
    catalogue: Catalogue, table: Table, partitions: dg.PartitionsDefinition[str], engine_name: str
) -> dg.AssetsDefinition:
    query = query_of(table.name)
    if table.is_mart and table.day_column:
        require_days(catalogue, table)

    @dg.asset(
        key=dg.AssetKey([table.group, table.name]),
        deps=keys(catalogue.star, query.reads) or keys(catalogue.source, query.sources),
        group_name=GROUPS[table.group],
        description=f"{table.description} {query.description}",
        kinds={engine_name if table.day_column else DUCKDB, "deltalake"},
        owners=OWNERS,
        metadata={
            **definition_metadata(
                table,
                f"{PROCESSED}.{table.name}",
                "deltalake",
                defined_in=[query_reference(table), ddl_reference(table)],
            ),
            "query": dg.MarkdownMetadataValue(f"```sql\n{query.sql}```"),
        },
        partitions_def=partitions if table.day_column else None,
        backfill_policy=dg.BackfillPolicy.single_run() if table.day_column else None,
        check_specs=blocked.checks(table.group, table.name),
        op_tags={"dagster/priority": str(PRIORITY - table.is_fact - 2 * table.is_mart)},
    )
    def _asset(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        engine: dg.ResourceParam[Engine],
        one_pass: dg.ResourceParam[OnePass],
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # with [None], Dagster wants a tuple for result and check
        days, by_changes = run_days(context), changes_only(context)
        with failures(), one_pass.engine(table, engine) as made_by:
            built = build(
                lake, catalogue, table, days=days, run_id=context.run.run_id, changes_only=by_changes, made_by=made_by
            )
        log.info("%s: %s built", table.asset, counted(built.rows, "row"))
        metadata = {entry.partition: row_count(entry.rows, of_partition=days is not None) for entry in built.entries}
        # The UI reads lineage off the newest materialisation, which is that of the last partition.
        newest = metadata.setdefault(days.keys[-1] if days is not None else WHOLE, {})
        newest["engine"] = engine.name if table.day_column else DUCKDB
        newest["dagster/column_lineage"] = query_lineage(catalogue, table)
        newest.update(total_row_count(lake, f"{PROCESSED}/{table.name}"))
        waits = blocked.waits(context.instance, catalogue, table.group, table.name)
        return dg.MaterializeResult(
            metadata=record_partitions(context, days, metadata), check_results=[blocked.result(waits)]
        )

    return _asset
