"""Materialisations of many partitions, recorded at once.

Dagster's public ways take a partition at a time: ``context.log_event`` a transaction for each event,
``context.add_asset_metadata`` a copy of all that was added before, which with 750 days is a fifth of all that Dagster
does in a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.events import DagsterEventBatchMetadata
from dagster._core.execution.context.metadata_logging import AssetMetadataHandle, OutputMetadataAccumulator


def record(
    context: dg.AssetExecutionContext, own: Mapping[str, Mapping[str, Any]], others: Mapping[str, Mapping[str, Any]]
) -> None:
    """As ``switch.record_partitions``, which calls it."""
    step, key = context.get_step_execution_context(), context.asset_key
    batch = str(uuid4())
    for number, (partition, metadata) in enumerate(others.items(), start=1):
        dg.DagsterEvent.asset_materialization(
            step,
            dg.AssetMaterialization(key, metadata=metadata, partition=partition),
            DagsterEventBatchMetadata(batch, is_end=number == len(others)),
        )
    recorded: dict[Any, Mapping[str, Any]] = {
        AssetMetadataHandle(asset_key=key, partition_key=partition): metadata for partition, metadata in own.items()
    }
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata=recorded)
