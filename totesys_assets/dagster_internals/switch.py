"""The entry to this folder: each function uses its modules, or stock Dagster if the instance is a stock one.

Belongs here: whether an instance uses the folder, and the stock way of everything that the platform calls. Does not
belong here: private parts of Dagster. The modules beside this one import those, and are imported only when an instance
uses them. Storages, launcher and coordinator are not called from here, because dagster.yaml names them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg


def in_use(instance: dg.DagsterInstance) -> bool:
    """Whether the instance uses this folder. It does not if dagster-postgres' own storage keeps its events.

    So one file, deploy/stock/dagster.yaml, switches all parts off, and no two settings can contradict each other.
    """
    return not type(instance.event_log_storage).__module__.startswith("dagster_postgres.")


@dg.executor(name="lanes")
def steps_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Runs steps side by side, in threads; with stock Dagster one after the other."""
    stock = dg.in_process_executor
    create = stock.executor_creation_fn
    assert create is not None  # noqa: S101 - it is None only for an executor without a function
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
    """Run a job in this process, with its own executor. A step's error is not raised; it is in the result."""
    with _sigterm_as_before():
        if not in_use(instance):
            return job.execute_in_process(run_config=run_config, instance=instance, tags=tags, raise_on_error=False)
        from totesys_assets.dagster_internals.in_process_run import execute

        return execute(job, instance, run_config=run_config, tags=tags)


@contextmanager
def _sigterm_as_before() -> Iterator[None]:
    """Leave SIGTERM after the block as it was before. Dagster lets it do what SIGINT does, after its runs, too.

    That is nothing in a program that a script started in the background: it could not be ended any more.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():  # in no other is it changed
            signal.signal(signal.SIGTERM, before)


def purge_records(instance: dg.DagsterInstance, before: float, seconds: float) -> str:
    """Remove Dagster's records of runs that ended before that moment, for about so many seconds. Says what was done."""
    if not in_use(instance):
        return "Stock Dagster keeps its records: nothing was removed."
    from totesys_assets.dagster_internals.purge import purge

    purged = purge(instance, before, seconds)
    rest = "" if purged.is_all else " The time is up: the next night goes on."
    return f"Removed {purged.runs} runs and {purged.events} events.{rest}"


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
