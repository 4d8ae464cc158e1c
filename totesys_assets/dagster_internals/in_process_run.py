"""A run in this process with the executor of its job."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.execute_in_process import core_execute_in_process


def execute(
    job: dg.JobDefinition, instance: dg.DagsterInstance, *, run_config: Mapping[str, object], tags: Mapping[str, str]
) -> dg.ExecuteInProcessResult:
    """Like ``job.execute_in_process``, but with the job's own executor."""
    return core_execute_in_process(
        job=InMemoryJob(job),
        run_config=run_config,
        instance=instance,
        output_capturing_enabled=False,
        raise_on_error=False,
        run_tags=tags,
    )
