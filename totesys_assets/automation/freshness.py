"""The sensor ``freshness``: twice a minute it finds out how everything is, and sends messages about what is not well.

Belongs here: the thin Dagster wrapper, and sending each message once. Does not belong here: what is worth a message
(incidents.py), what must go on by itself (duties.py), what Dagster has recorded (records.py).

It runs in the process that loads the definitions. It reads Dagster's records; after a refresh, the dead letters of the
lake; and, where the log is to be followed, the lake's notes of that. It connects neither to ToteSys nor to the
warehouse. That it was evaluated has a line of its own: the daemon asked, and Dagster's database answered. Without that
line, all is silent because nothing runs.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import dagster as dg

from totesys_assets.assets.blocked import blocked
from totesys_assets.assets.missed import missed
from totesys_assets.automation.duties import last_ended, switched_off
from totesys_assets.automation.incidents import (
    Known,
    Verdict,
    judge,
    news_of_blocked,
    news_of_kept,
    news_of_log,
    news_of_missed,
    news_of_off,
    news_of_overdue,
    overdue,
)
from totesys_assets.automation.records import Lag, seen, trouble
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.journal import HALF, kept_percent
from totesys_assets.capture.log_notes import read_note
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.notices import (
    BLOCKED,
    DEAD_LETTERS,
    HEARTBEAT,
    LOG_KEPT,
    LOG_LOST,
    MISSED,
    OVERDUE,
    REFRESHED,
    STALE,
    SWITCHED_OFF,
    UP_TO_DATE,
    Notices,
)
from totesys_assets.settings import Settings

log = logging.getLogger(__name__)

# Often enough that no minute is without a heartbeat, on a busy machine either.
FRESHNESS_SECONDS = 30


def freshness_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor ``freshness``: when all was last up to date, what is blocked, missed, overdue or off."""

    @dg.sensor(
        name="freshness",
        minimum_interval_seconds=FRESHNESS_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Finds out twice a minute when the platform was last up to date: when a look found nothing to do, "
        "or a refresh succeeded. Reports when that is too long ago, which tables cannot be captured, what only a "
        "comparison found, which nightly job is overdue, what was switched off, that the log of ToteSys is not "
        "followed or too much of it is kept, and when any of it is over. Its cursor holds what was reported; losing "
        "the cursor costs at most one message of each kind.",
    )
    def _freshness(
        context: dg.SensorEvaluationContext, notices: dg.ResourceParam[Notices], lake: dg.ResourceParam[Lake]
    ) -> dg.SensorResult:
        now = time.time()
        known, found = Known.read(context.cursor, now), seen(context.instance)
        verdict = judge(known, found.up_to_date, found.failed, now, settings.stale_minutes * 60)
        notices.line(HEARTBEAT)
        known = _report_lags(notices, known, found.lags)
        stale_told = _report_staleness(notices, context.instance, known, verdict)
        known = replace(_count(lake, known, found.finished), up_to_date=verdict.up_to_date, stale_told=stale_told)
        reasons = blocked(context.instance, catalogue().source)
        known = _report_blocked(notices, known, reasons, now)
        known = _report_missed(notices, known, missed(context.instance, catalogue()), now)
        known = _report_duties(notices, context.instance, known, now)
        if settings.follows_log:
            known = _report_log(notices, lake, known, now)
        if known.counted is not None:
            notices.line(DEAD_LETTERS, open=known.open)
        reason = f"Last up to date {now - known.up_to_date:.0f} s ago. Dead letters: {known.open}."
        reason += f" Not captured: {', '.join(reasons)}. {' '.join(dict.fromkeys(reasons.values()))}" if reasons else ""
        return dg.SensorResult(skip_reason=reason, cursor=known.write())

    return _freshness


def _report_staleness(notices: Notices, instance: dg.DagsterInstance, known: Known, verdict: Verdict) -> bool:
    """Send the due messages. Returns True while a staleness alert is open."""
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
        return known.stale_told  # the next evaluation tries again
    return False


def _report_lags(notices: Notices, known: Known, lags: tuple[Lag, ...]) -> Known:
    """A line for each refresh that has ended since."""
    if known.measured >= 0:  # at first only the newest is noted
        for lag in lags:
            if lag.number > known.measured:
                notices.line(REFRESHED, run_id=lag.run_id, seconds=lag.seconds)
    return replace(known, measured=max([known.measured, 0, *(lag.number for lag in lags)]))


def _report_duties(notices: Notices, instance: dg.DagsterInstance, known: Known, now: float) -> Known:
    """Report once which nightly job is overdue and what is switched off, and once that it no longer is."""
    late, off = overdue(last_ended(instance), known.since, now), switched_off(instance)
    if late:
        notices.line(OVERDUE, jobs=len(late))
    if off:
        notices.line(SWITCHED_OFF, parts=len(off))
    news = news_of_overdue(known.overdue, late)
    known = known if news is not None and not notices.send(*news, now) else replace(known, overdue=late)
    news = news_of_off(known.off, off)
    return known if news is not None and not notices.send(*news, now) else replace(known, off=off)


def _report_blocked(notices: Notices, known: Known, reasons: dict[str, str], now: float) -> Known:
    """Report once that a table is blocked, and once that it no longer is."""
    if reasons:
        notices.line(BLOCKED, tables=len(reasons))
    news = news_of_blocked(known.blocked, reasons)
    if news is not None and not notices.send(*news, now):
        return known  # the next evaluation tries again
    return replace(known, blocked=reasons)


def _report_missed(notices: Notices, known: Known, found: dict[str, str], now: float) -> Known:
    """Report once what a comparison found missed of tables, and once that the next one found nothing."""
    if found:
        notices.line(MISSED, tables=len(found))
    news = news_of_missed(known.missed, found)
    if news is not None and not notices.send(*news, now):
        return known
    return replace(known, missed=found)


def _report_log(notices: Notices, lake: Lake, known: Known, now: float) -> Known:
    """Report once that the log is not followed, and once that it is again; and the same of how much of it is kept."""
    try:
        note, kept = read_note(lake), kept_percent(lake)
    except PlatformError as error:  # as in _count
        log.warning("It was not looked up how the log is followed: %s", error)
        return known
    notices.line(LOG_KEPT, percent=kept)
    news = news_of_kept(known.kept_told, kept, HALF)
    if news is None or notices.send(*news, now):
        known = replace(known, kept_told=kept > HALF)
    loss, is_lost = note.loss, note.loss is not None and note.since is None
    if loss is None:
        return known
    news = news_of_log(known, loss.at, loss.reason, loss.seen_until, note.since)
    if is_lost or (news is not None and loss.at.isoformat() != known.log_lost):  # also one that is over by now
        notices.line(LOG_LOST, minutes=int(now - loss.at.timestamp()) // 60)
    if news is not None and not notices.send(*news, now):
        return known
    return replace(known, log_lost=loss.at.isoformat(), log_open=is_lost)


def _count(lake: Lake, known: Known, finished: str | None) -> Known:
    """``known`` with the number of open dead letters, counted again if a refresh has ended since."""
    if finished in (None, known.counted):
        return known
    try:
        return replace(known, counted=finished, open=open_dead_letters(lake).num_rows)
    except PlatformError as error:  # the sensor changes fails for the same reason, which freshness reports
        log.warning("The dead letters were not counted: %s", error)
        return known
