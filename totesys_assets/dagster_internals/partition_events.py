"""Materialisations of many partitions, recorded at once.

Dagster's public ways take a partition at a time: ``context.log_event`` a transaction for each event,
``context.add_asset_metadata`` a copy of all that was added before. Of a range of partitions it makes an event for each,
and sends each through Python's logging, where steps that run side by side wait for one another.

Here Dagster makes the event of the last partition only. The storage makes those of the others of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEventBatchMetadata
from dagster._core.execution.context.metadata_logging import AssetMetadataHandle, OutputMetadataAccumulator

from totesys_assets.dagster_internals.storage import PooledEventLogStorage


def record(
    context: dg.AssetExecutionContext, own: Mapping[str, Mapping[str, Any]], others: Mapping[str, Mapping[str, Any]]
) -> None:
    """As ``switch.record_partitions``, which calls it."""
    step, key = context.get_step_execution_context(), context.asset_key
    if others:
        last = _store_with_the_last(step, others)
        materialization = dg.AssetMaterialization(key, metadata=others[last], partition=last)
        dg.DagsterEvent.asset_materialization(step, materialization, DagsterEventBatchMetadata("", is_end=True))
    last = _store_with_the_last(step, own)
    # From these Dagster makes its event when the step has ended.
    step.asset_partition_key_range_for_output = lambda _: dg.PartitionKeyRange(last, last)
    recorded: dict[Any, Mapping[str, Any]] = {AssetMetadataHandle(asset_key=key, partition_key=last): own[last]}
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata=recorded)


def _store_with_the_last(step: dg.StepExecutionContext, partitions: Mapping[str, Mapping[str, Any]]) -> str:
    """Have all ``partitions`` stored when the event of the last one comes. Returns that one."""
    *others, last = partitions
    log = partial(dg.DagsterLogManager.log_dagster_event, step.log)

    def record(
        level: int, msg: str, dagster_event: dg.DagsterEvent, batch_metadata: DagsterEventBatchMetadata | None = None
    ) -> None:
        if batch_metadata is None:  # the event of something else
            log(level, msg, dagster_event)
            return
        entry = dg.EventLogEntry(  # type: ignore[no-untyped-call]
            error_info=None,
            level=level,
            user_message=msg,
            run_id=step.run_id,
            timestamp=time.time(),
            step_key=dagster_event.step_key,
            job_name=step.job_name,
            dagster_event=dagster_event,
        )
        storage = step.instance.event_log_storage
        if isinstance(storage, PooledEventLogStorage):
            storage.store_materializations(entry, {each: partitions[each] for each in others})
            return
        for each in others:
            storage.store_event(_of_another(entry, each, partitions[each]))
        storage.store_event(entry)

    step.log.log_dagster_event = record  # type: ignore[method-assign,assignment]
    return last


def _of_another(entry: dg.EventLogEntry, partition: str, metadata: Mapping[str, Any]) -> dg.EventLogEntry:
    """The materialisation of another partition in the same step."""
    event = entry.get_dagster_event()
    data = event.step_materialization_data
    materialization = data.materialization._replace(partition=partition).with_metadata(metadata)
    return entry._replace(
        dagster_event=event._replace(event_specific_data=data._replace(materialization=materialization))
    )
