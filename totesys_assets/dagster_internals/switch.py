"""The door of this room: what the platform asks of Dagster's inside, with the room's parts or with stock Dagster.

Belongs here: whether an instance uses the room, and the stock way of everything that the platform calls. Does not
belong here: private parts of Dagster, which the modules beside this one import. They are imported only when an instance
uses them: under an instance of stock Dagster nothing of them is loaded. Storages, launcher and coordinator are not
called from here, for dagster.yaml names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg


def in_use(instance: dg.DagsterInstance) -> bool:
    """Whether the instance uses this room. It does not if dagster-postgres' own storage keeps its events.

    So one file, deploy/stock/dagster.yaml, switches off all parts of the room, and no two settings can disagree.
    """
    return not type(instance.event_log_storage).__module__.startswith("dagster_postgres.")


@dg.executor(name="lanes")
def steps_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """The steps of a run side by side, in threads; under stock Dagster one after the other."""
    stock = dg.in_process_executor
    create = stock.executor_creation_fn
    assert create is not None  # noqa: S101 - it is None only of an executor that was made without a function
    in_process = create(dg.InitExecutorContext(context.job, stock, {"retries": {"enabled": {}}}, context.instance))
    if not in_use(context.instance):
        return in_process
    from totesys_assets.dagster_internals.executor import SideBySideExecutor

    return SideBySideExecutor(in_process)


def execute_here(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    *,
    run_config: Mapping[str, object],
    tags: Mapping[str, str],
) -> dg.ExecuteInProcessResult:
    """Run a job in this process, with the job's own executor. An error of a step is in the result, and not raised."""
    if not in_use(instance):
        return job.execute_in_process(run_config=run_config, instance=instance, tags=tags, raise_on_error=False)
    from totesys_assets.dagster_internals.in_process_run import execute

    return execute(job, instance, run_config=run_config, tags=tags)


def record_partitions(
    context: dg.AssetExecutionContext, own: Mapping[str, Mapping[str, Any]], others: Mapping[str, Mapping[str, Any]]
) -> None:
    """Attach metadata to the partitions of a run's ``own`` range, and report that ``others`` were materialised."""
    if in_use(context.instance):
        from totesys_assets.dagster_internals.partition_events import record

        record(context, own, others)
        return
    for key, metadata in others.items():
        context.log_event(dg.AssetMaterialization(context.asset_key, metadata=metadata, partition=key))
    for key, metadata in own.items():
        context.add_asset_metadata(metadata, partition_key=key)
