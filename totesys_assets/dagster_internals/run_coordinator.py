"""The run coordinator, ``run_coordinator`` in dagster.yaml: Dagster's queue, which a run skips if nothing else runs.

Belongs here: whether a run must queue, and how often the daemon begins ticks of sensors. Does not belong here: how long
a run waits in Dagster's queue, and how it is launched (run_launcher.py).
"""

from __future__ import annotations

import sys
from typing import Any

from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterRun,
    DagsterRunStatus,
    QueuedRunCoordinator,
    RunsFilter,
    SubmitRunContext,
)
from dagster._core.launcher import LaunchRunContext

from totesys_assets.names import SENSOR_NAME_TAG

_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
# The daemon begins ticks of sensors every five seconds. What is committed between a tick that requested a run and the
# next would wait for that. A round in which no tick begins costs some milliseconds.
_ROUND_SECONDS = 1


class PromptRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, but a sensor's run starts at once if no other run is unfinished, because no limit applies to it.

    The daemon reads the queue once a second at most. Only a sensor's run skips it: the daemon submits it, and the
    daemon has the launcher's fork server. If the queue releases another run at the same instant, two refreshes run side
    by side. That is safe, though one of them works in vain.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if sensors := sys.modules.get("dagster._daemon.sensor"):  # only the daemon has it
            vars(sensors)["MIN_INTERVAL_LOOP_TIME"] = _ROUND_SECONDS

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Launch the run, or put it into the queue. Dagster reports an error as the run's failure."""
        run = context.dagster_run
        if SENSOR_NAME_TAG not in run.tags or run.status != DagsterRunStatus.NOT_STARTED or self._any_beside(run):
            return super().submit_run(context)
        starting = DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, run.job_name)
        self._instance.report_dagster_event(starting, run_id=run.run_id)
        run = self._instance.get_run_by_id(run.run_id) or run
        self._instance.run_launcher.launch_run(LaunchRunContext(run, context.workspace))
        return run

    def _any_beside(self, run: DagsterRun) -> bool:
        unfinished = self._instance.get_runs(RunsFilter(statuses=_UNFINISHED), limit=2)
        return any(each.run_id != run.run_id for each in unfinished)
