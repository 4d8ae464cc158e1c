"""The ingestion zone: one asset per table of a source, which captures it into the lake.

Belongs here: the factory. Does not belong here: how capture works, which is capture/.
"""

import logging
from datetime import date
from functools import partial
from threading import Lock
from typing import Any

import dagster as dg

from totesys_assets.assets import blocked, missed
from totesys_assets.assets.describe import (
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
)
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.counting import counted
from totesys_assets.days import WHOLE, partition_range
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.load.one_pass import OnePass
from totesys_assets.names import (
    ACCEPT_DELETIONS_TAG,
    ADOPT_LAKE_TAG,
    LANE_TAG,
    NO_DEAD_LETTERS,
    SEEN_TAG,
    STAR,
    TOTESYS,
    VERSIONS_TAG,
    WAREHOUSE,
)
from totesys_assets.source.interface import SourceSnapshot
from totesys_assets.source.shared_snapshot import SharedSnapshots
from totesys_assets.staleness.look import unknown_columns
from totesys_assets.transform.passing import can_pass

log = logging.getLogger(__name__)
# Source first, so that its snapshot is given up before anything else is done; the small tables before the large.
PRIORITY = 30
# Captures of two sources may end at once: each adds to what the run's tag says.
_TAGS = Lock()


def ingestion_assets(
    catalogue: Catalogue, partitions: dg.PartitionsDefinition[str], first_day: date
) -> list[dg.AssetsDefinition]:
    """The assets ``<source>/<table>``."""
    return [
        _ingestion_asset(table, partitions, first_day, _priority(catalogue, table))
        for table in catalogue.source.values()
    ]


def _priority(catalogue: Catalogue, table: Table) -> int:
    """Sets first. Large tables of which a dimension is made come before the others: facts wait for its load."""
    made = [each for each in catalogue.star.values() if not each.is_fact and can_pass(catalogue, each) == table.name]
    return PRIORITY if table.day_column is None else PRIORITY - 1 if made else PRIORITY - 2


def _ingestion_asset(
    table: Table, partitions: dg.PartitionsDefinition[str], first_day: date, priority: int
) -> dg.AssetsDefinition:
    key = dg.AssetKey([table.group, table.name])
    source, kind = ("ToteSys", "postgres") if table.group == TOTESYS else (table.group, table.group)

    @dg.asset(
        key=key,
        group_name=INGESTION,
        description=(
            f"{table.description} Every version that a refresh saw, as it was in {source}, with when and how it came "
            "to be. Captured by comparison with the source, whatever last_updated says."
        ),
        kinds={kind, "deltalake"},
        owners=OWNERS,
        metadata=definition_metadata(
            table,
            f"{INGESTION}.{table.name}",
            "deltalake",
            defined_in=[ddl_reference(table)],
            versioned=True,
        ),
        partitions_def=partitions if table.day_column else None,
        backfill_policy=dg.BackfillPolicy.single_run() if table.day_column else None,
        op_tags={"dagster/priority": str(priority), LANE_TAG: table.group},
        check_specs=[
            *blocked.checks(table.group, table.name),
            missed.spec(table),
            dg.AssetCheckSpec(
                NO_DEAD_LETTERS,
                asset=key,
                description="No row of the days just captured breaks a type or a rule. Those that do are kept aside, "
                f"with the reason and their raw text, until they are mended in {source}.",
            ),
        ],
    )
    def _asset(
        context: dg.AssetExecutionContext,
        shared_snapshots: dg.ResourceParam[SharedSnapshots],
        lake: dg.ResourceParam[Lake],
        one_pass: dg.ResourceParam[OnePass],
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # with [None], Dagster wants a tuple for result and check
        days = run_days(context)
        table_count = sum(key.path[0] == table.group for key in context.job_def.asset_layer.selected_asset_keys)
        unknown: list[str] = []

        def comparison(snapshot: SourceSnapshot) -> Captured:
            unknown[:] = unknown_columns(snapshot, table)
            return compare(snapshot)

        compare = partial(
            capture,
            lake=lake,
            table=table,
            all_days=partition_range(first_day),
            days=days,
            run_id=context.run.run_id,
            changes_only=changes_only(context),
            seen=context.run.tags.get(SEEN_TAG, ""),
            accept_deletions=context.run.tags.get(ACCEPT_DELETIONS_TAG) == "true",
            adopt_lake=context.run.tags.get(ADOPT_LAKE_TAG) == "true",
            is_range=is_range(context),
            onward=None if is_range(context) else one_pass.onward(table, _to_be_made(context)),
        )
        with failures():
            captured = shared_snapshots.of(table.group).read(table.name, comparison, table_count=table_count)
        compared, added = counted(captured.total("rows"), "row"), counted(captured.versions, "version")
        log.info("%s: %s compared, %s added", table.asset, compared, added)
        _tag_versions(context, table, captured)
        checks = [
            _check(captured),
            missed.result(table, captured.missed),
            *map(blocked.result, blocked.of_captured(table, None, unknown)),
        ]
        return dg.MaterializeResult(metadata=_report(context, lake, table, captured), check_results=checks)

    return _asset


def _to_be_made(context: dg.AssetExecutionContext) -> set[str]:
    """The star tables that this very run builds and loads."""
    selected = context.job_def.asset_layer.selected_asset_keys
    built, loaded = ({key.path[1] for key in selected if key.path[0] == group} for group in (STAR, WAREHOUSE))
    return built & loaded


def _tag_versions(context: dg.AssetExecutionContext, table: Table, captured: Captured) -> None:
    """Say in the run's tags how many versions it added, table by table: the list of runs shows them."""
    if not captured.versions:
        return
    added = f"{table.name} {captured.versions}"
    with _TAGS:
        run = context.instance.get_run_by_id(context.run.run_id)  # the context's is as it began
        before = run.tags.get(VERSIONS_TAG) if run is not None else None
        context.instance.add_run_tags(context.run.run_id, {VERSIONS_TAG: f"{before}, {added}" if before else added})


def _report(context: dg.AssetExecutionContext, lake: Lake, table: Table, captured: Captured) -> dict[str, Any]:
    days = run_days(context)
    metadata: dict[str, dict[str, Any]] = {
        entry.partition: {
            **row_count(entry.rows, of_partition=table.day_column is not None),
            "versions_added": entry.inserted + entry.updated + entry.deleted,
            **({"missed": entry.missed} if entry.missed else {}),
        }
        for entry in captured.entries
    }
    newest = metadata.setdefault(days.keys[-1] if days is not None else WHOLE, {})
    newest.update(total_row_count(lake, f"{INGESTION}/{table.name}"))
    return record_partitions(context, days, metadata)


def _check(captured: Captured) -> dg.AssetCheckResult:
    rejected = captured.total("rejected")
    rows = f"{counted(rejected, 'row')} {'is' if rejected == 1 else 'are'}"
    return dg.AssetCheckResult(
        check_name=NO_DEAD_LETTERS,
        passed=rejected == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"dead_letters": rejected},
        description=f"{rows} in the dead letters: see totesys dead-letters" if rejected else None,
    )
