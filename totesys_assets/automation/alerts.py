"""Alerts: the sensors that notice what somebody should know, and tell it.

Belongs here: the thin Dagster wrappers. Does not belong here: what is worth telling (incidents.py), what Dagster has
recorded (records.py), how it is told (notices.py), and bringing in changes (sensors.py).

They are evaluated where the definitions are loaded, and read Dagster's records; of the lake, the dead letters after a
refresh. None touches ToteSys or the warehouse, and none waits: ``changes`` does not notice them.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import dagster as dg

from totesys_assets.assets.blocked import blocked
from totesys_assets.automation.incidents import Known, Verdict, is_told, judge, news_of_blocked
from totesys_assets.automation.records import (
    differences,
    failed_before,
    is_refresh,
    seen,
    trouble,
    why_failed,
    will_retry,
)
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.notices import (
    AUDIT_DIFFERS,
    BLOCKED,
    DEAD_LETTERS,
    RUN_FAILED,
    STALE,
    UP_TO_DATE,
    Notices,
)
from totesys_assets.settings import Settings

log = logging.getLogger(__name__)

# A failure is told within this time. An evaluation that finds none is one query.
FAILURE_SECONDS = 15
AUDIT_SECONDS = 60
FRESHNESS_SECONDS = 60


def failure_alert() -> dg.SensorDefinition:
    """The sensor ``alert_on_failure``: a line for each run that failed, a message for those worth one."""

    @dg.run_failure_sensor(
        name="alert_on_failure",
        minimum_interval_seconds=FAILURE_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of failed runs. Of refreshes that fail again and again, the first and one an hour; that it "
        "is over, the sensor freshness tells. A run that Dagster tries again is not told of.",
    )
    def _alert(context: dg.RunFailureSensorContext, notices: dg.ResourceParam[Notices]) -> None:
        run, instance = context.dagster_run, context.instance
        if will_retry(run):
            return
        notices.line(RUN_FAILED, run_id=run.run_id, job=run.job_name)
        record = instance.get_run_record_by_id(run.run_id)
        failed = (record.end_time if record else None) or time.time()
        refresh = is_refresh(run)
        if refresh and not is_told(failed, failed_before(instance, run.run_id)):
            return
        what = "a refresh" if refresh else f"the job {run.job_name}"
        notices.send(f"ToteSys: {what} failed", why_failed(instance, run.run_id), failed, run.run_id)

    return _alert


def audit_alert(audit: Any) -> dg.SensorDefinition:
    """The sensor ``alert_on_audit``: a line and a message when the job ``audit`` has found a difference."""

    @dg.run_status_sensor(
        dg.DagsterRunStatus.SUCCESS,
        name="alert_on_audit",
        monitored_jobs=[audit],
        minimum_interval_seconds=AUDIT_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of what the audit found, but for warnings, which are about the data as ToteSys has them.",
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


def freshness_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor ``freshness``: when all was last up to date, what is blocked, how many dead letters there are."""

    @dg.sensor(
        name="freshness",
        minimum_interval_seconds=FRESHNESS_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks every minute when the platform was last up to date: at the end of a look that found nothing "
        "to do, or of a refresh that succeeded. Tells when that is too long ago, which tables cannot be captured, and "
        "when it is over. Its cursor remembers what was told; losing it costs a message at most.",
    )
    def _freshness(
        context: dg.SensorEvaluationContext, notices: dg.ResourceParam[Notices], lake: dg.ResourceParam[Lake]
    ) -> dg.SensorResult:
        now = time.time()
        known, found = Known.read(context.cursor, now), seen(context.instance)
        verdict = judge(known, found.up_to_date, found.failed, now, settings.stale_minutes * 60)
        stale_told = _tell(notices, context.instance, known, verdict)
        known = replace(_count(lake, known, found.finished), up_to_date=verdict.up_to_date, stale_told=stale_told)
        reasons = blocked(context.instance, catalogue())
        known = _tell_blocked(notices, known, reasons, now)
        if known.counted is not None:
            notices.line(DEAD_LETTERS, open=known.open)
        reason = f"Last up to date {now - known.up_to_date:.0f} s ago. Dead letters: {known.open}."
        reason += f" Not captured: {', '.join(reasons)}. {' '.join(dict.fromkeys(reasons.values()))}" if reasons else ""
        return dg.SensorResult(skip_reason=reason, cursor=known.write())

    return _freshness


def _tell(notices: Notices, instance: dg.DagsterInstance, known: Known, verdict: Verdict) -> bool:
    """Tell what there is to tell. Returns whether it is on people's minds that the platform is stale."""
    if verdict.is_news:
        notices.line(UP_TO_DATE)
    minutes = verdict.stale_minutes
    if minutes is not None:
        notices.line(STALE, minutes=minutes)
        if known.stale_told:
            return True
        run_id, what = trouble(instance, verdict.up_to_date)
        return notices.send(f"ToteSys: stale for {minutes} minutes", what, verdict.up_to_date, run_id)
    if verdict.is_over and not notices.send("ToteSys: up to date again", "It is over.", verdict.up_to_date):
        return known.stale_told  # to be tried again
    return False


def _tell_blocked(notices: Notices, known: Known, reasons: dict[str, str], now: float) -> Known:
    """Tell of tables that are blocked, or no longer are, once."""
    if reasons:
        notices.line(BLOCKED, tables=len(reasons))
    news = news_of_blocked(known.blocked, reasons)
    if news is not None and not notices.send(*news, now):
        return known  # to be tried again
    return replace(known, blocked=reasons)


def _count(lake: Lake, known: Known, finished: str | None) -> Known:
    """The open dead letters, counted anew when a refresh has ended since."""
    if finished in (None, known.counted):
        return known
    try:
        return replace(known, counted=finished, open=open_dead_letters(lake).num_rows)
    except PlatformError as error:  # which the sensor changes fails for, and freshness tells in time
        log.warning("The dead letters were not counted: %s", error)
        return known
