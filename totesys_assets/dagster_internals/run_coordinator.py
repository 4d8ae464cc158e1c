"""Dagster's run coordinator, ``run_coordinator`` in dagster.yaml: a queue that nobody waits in without reason.

Belongs here: whether a run must wait at all. Does not belong here: how long it waits and for what, which is Dagster's
queue, and how it is launched (run_launcher.py).
"""

from __future__ import annotations

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


class PromptRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, but for a sensor's run when no other run is under way: nothing can limit it; it starts at once.

    The queue is looked at every second at best. Only a sensor's run, for it is the daemon that submits it, and the
    daemon has the launcher's fork server. Should the queue let another run go in the same instant, two refreshes run
    beside one another, which is in vain for one of them, and safe.
    """

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Launch the run, or put it into the queue. What it raises, Dagster reports as the run's failure."""
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
