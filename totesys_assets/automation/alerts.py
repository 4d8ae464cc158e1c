"""The alert sensors about runs: they find failed runs and what the audit found, and send messages about them.

Belongs here: the thin Dagster wrappers. Does not belong here: the sensor that looks every minute how everything is
(freshness.py), what is worth a message (incidents.py), what Dagster has recorded (records.py), how a message is sent
(notices.py), and bringing in changes (sensors.py).

The sensors run in the process that loads the definitions. They read Dagster's records. None of them connects to ToteSys
or the warehouse, and none waits, so they never delay ``changes``.
"""

from __future__ import annotations

import time
from typing import Any

import dagster as dg

from totesys_assets.automation.freshness import freshness_sensor
from totesys_assets.automation.incidents import is_worth_a_message
from totesys_assets.automation.records import differences, is_refresh, told_before, why_failed, will_retry
from totesys_assets.names import REFUSED_TAG, TOLD_TAG
from totesys_assets.notices import AUDIT_DIFFERS, RUN_FAILED, TASK_REFUSED, Notices
from totesys_assets.settings import Settings

# A failure is reported within this time. An evaluation that finds no failure costs one query.
FAILURE_SECONDS = 15
AUDIT_SECONDS = 60


def alert_sensors(settings: Settings, audit: Any) -> list[dg.SensorDefinition]:
    """The sensors that send messages; ``audit`` is the job of the audit."""
    return [freshness_sensor(settings), failure_alert(), audit_alert(audit)]


def failure_alert() -> dg.SensorDefinition:
    """The sensor ``alert_on_failure``: a line for each run that failed, a message for those worth one."""

    @dg.run_failure_sensor(
        name="alert_on_failure",
        minimum_interval_seconds=FAILURE_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports failed runs, of refreshes and of each other job at most one an hour; the sensor freshness "
        "reports that refreshes succeed again. A run that Dagster retries is not reported.",
    )
    def _alert(context: dg.RunFailureSensorContext, notices: dg.ResourceParam[Notices]) -> None:
        run, instance = context.dagster_run, context.instance
        if will_retry(run):
            return
        notices.line(RUN_FAILED, run_id=run.run_id, job=run.job_name)
        if refused := run.tags.get(REFUSED_TAG):
            notices.line(TASK_REFUSED, run_id=run.run_id, cause=refused)
        record = instance.get_run_record_by_id(run.run_id)
        failed = (record.end_time if record else None) or time.time()
        if not is_worth_a_message(failed, told_before(instance, run)):
            return
        what = "a refresh" if is_refresh(run) else f"the job {run.job_name}"
        why = why_failed(instance, run.run_id)
        if notices.send(f"ToteSys: {what} failed", why, failed, run.run_id):
            instance.add_run_tags(run.run_id, {TOLD_TAG: "true"})

    return _alert


def audit_alert(audit: Any) -> dg.SensorDefinition:
    """The sensor ``alert_on_audit``: a line and a message when the job ``audit`` has found a difference."""

    @dg.run_status_sensor(
        dg.DagsterRunStatus.SUCCESS,
        name="alert_on_audit",
        monitored_jobs=[audit],
        minimum_interval_seconds=AUDIT_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports the differences that the audit found. Its warnings are about the data as the source holds "
        "them, and are not reported.",
    )
    def _alert(context: dg.RunStatusSensorContext, notices: dg.ResourceParam[Notices]) -> None:
        run_id = context.dagster_run.run_id
        found = differences(context.instance, run_id)
        if found:
            notices.line(AUDIT_DIFFERS, findings=len(found))
            notices.send(
                f"ToteSys: differences found by the audit: {len(found)}", "\n".join(found), time.time(), run_id
            )

    return _alert
