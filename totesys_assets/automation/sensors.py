"""The sensors that request runs: ``changes`` refreshes what is stale, ``first_audit`` audits after the first refresh.

Belongs here: the thin Dagster wrappers, one refresh at a time, back-off after failures. Does not belong here: waiting
(watch.py), looking (staleness/look.py), deciding (staleness/decide.py), and the checks of blocked tables
(assets/blocked.py).
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import groupby, islice, takewhile

import dagster as dg

from totesys_assets.assets import blocked
from totesys_assets.assets.describe import own_checks
from totesys_assets.automation.schedules import day_tags
from totesys_assets.automation.watch import PAUSE_PER_LOOK, Probe, Wait
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.databases import Databases
from totesys_assets.days import Days, partition_range
from totesys_assets.lake.tables import Lake
from totesys_assets.load.origin import refuse_to_begin_anew
from totesys_assets.names import (
    ADOPT_LAKE_TAG,
    AUDIT,
    CHANGES,
    CHANGES_ONLY_TAG,
    DAYS_TAG,
    LEFT_OUT_TAG,
    LOOKED_AT_TAG,
    MADE,
    QUIET_UNTIL_TAG,
    RANGE_TAG,
    REFRESH,
    REFRESH_TAG,
    REFRESHES,
    SEEN_TAG,
    STOPPING_FILE,
    TABLES_TAG,
    WAREHOUSE,
)
from totesys_assets.platform import Platform
from totesys_assets.settings import Settings
from totesys_assets.source.shared_snapshot import SharedSnapshots
from totesys_assets.staleness.decide import Request
from totesys_assets.staleness.following import begin_following
from totesys_assets.staleness.look import Examined, look
from totesys_assets.staleness.mark import cursor_of, parse_cursor
from totesys_assets.staleness.ranges import first_turn
from totesys_assets.warehouse.warehouse import Warehouse

_SPANS_NAMED = 3
# Dagster's sensor loop runs every 5 s. With an interval of 5 s too, every second round would come a moment too early,
# and the sensor would tick only every 10 s.
INTERVAL_SECONDS = 1
# A tick should end just before a round of the loop, which then starts the next tick at once. A tick that ends just
# after a round leaves five seconds without a look. Nine seconds leave one for Dagster's own work, on a busy machine.
# Longer ticks would gain little, and delay the end of the daemon.
WAIT_SECONDS = 9.0
# A run shows that it is alive once its resources are open. On a busy machine that takes up to this long.
GRACE_SECONDS = 30
FIRST_AUDIT_SECONDS = 30
_AUDITED = "audited"
_FIRST_BACK_OFF_SECONDS = 10
_LONGEST_BACK_OFF_SECONDS = 600
# The pause is longest after seven failures, and nobody need count further.
_MOST_FAILURES = 7
_RECORDS_AT_FIRST, _MOST_RECORDS_AT_ONCE = 8, 500
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def back_off_seconds(failures: int) -> int:
    """How long to wait after ``failures`` failed refreshes in a row: 0, 10, 20, 40 s … at most ten minutes."""
    return min(_FIRST_BACK_OFF_SECONDS * 2 ** (failures - 1), _LONGEST_BACK_OFF_SECONDS) if failures else 0


def run_request(request: Request, left_out: str = "", quiet_until: float | None = None) -> dg.RunRequest:
    """Dagster's request for a run. It has no run key, because Dagster would never repeat a key after a failure.

    ``left_out``: tables that the look skipped, with the reasons. ``quiet_until``: when nothing was stale last, 0 if
    that is not known; None if it is not the sensor that asks.
    """
    return dg.RunRequest(
        job_name=REFRESH,
        asset_selection=[dg.AssetKey(asset.split("/")) for asset in request.assets],
        asset_check_keys=own_checks(request.assets),
        tags=(RANGE_TAG if request.is_range else REFRESH_TAG)
        | (day_tags(request.days) if request.days else {})
        | ({CHANGES_ONLY_TAG: "true"} if request.changes_only else {})
        | ({SEEN_TAG: request.seen} if request.seen else {})
        | ({LOOKED_AT_TAG: f"{request.looked_at:.3f}"} if request.looked_at else {})
        | ({QUIET_UNTIL_TAG: f"{quiet_until:.3f}"} if quiet_until is not None else {})
        | ({ADOPT_LAKE_TAG: "true"} if request.adopt_lake else {})
        | ({LEFT_OUT_TAG: left_out} if left_out else {})
        | {TABLES_TAG: _tables(request)}
        | ({DAYS_TAG: _days(request.days)} if request.days else {}),
    )


def _tables(request: Request) -> str:
    """The source tables that a run captures. If it captures none: the tables that it builds or loads."""
    captured = [asset for asset in request.assets if asset.partition("/")[0] not in MADE]
    return ", ".join(dict.fromkeys(asset.partition("/")[2] for asset in captured or request.assets))


def _days(days: Days) -> str:
    spans = [str(each.first) if len(each) == 1 else f"{each.first} to {each.last}" for each in days.ranges]
    few = ", ".join(spans[-_SPANS_NAMED:])
    return few if len(spans) <= _SPANS_NAMED else f"{few} and {len(spans) - _SPANS_NAMED} ranges before"


def fail_dead_runs(
    instance: dg.DagsterInstance, is_alive: Callable[[str], bool], now: datetime, grace_seconds: float
) -> list[str]:
    """Report refreshes whose process is gone as failed, and return their ids.

    Dagster's run launcher does not notice a killed process: its run would stay "started" for hours and block every
    other refresh. A run shows in the warehouse that it is alive, but not within its first ``grace_seconds``. A run that
    does not use the warehouse never shows it, and is left to Dagster's run monitoring.
    """
    dead = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags=REFRESHES)):
        run_id, assets = record.dagster_run.run_id, record.dagster_run.asset_selection
        if assets is not None and not any(asset.path[0] == WAREHOUSE for asset in assets):
            continue
        if now.timestamp() - (record.start_time or 0) > grace_seconds and not is_alive(run_id):
            instance.report_run_failed(record.dagster_run, "The run's process is gone. The next refresh does its work.")
            dead.append(run_id)
    return dead


def waiting_for(instance: dg.DagsterInstance, now: datetime) -> str | None:
    """Why the sensor does not look now: a refresh is under way, or failed a moment ago. None if it may look."""
    under_way = instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED, tags=REFRESHES), limit=1)
    if under_way:
        left_out = under_way[0].dagster_run.tags.get(LEFT_OUT_TAG)
        return "A refresh is under way; the next look sees everything." + (
            f" It left out: {left_out}" if left_out else ""
        )
    failures = failed_looks(instance)
    pause = _pause_after(failures, now)
    if pause:
        return f"{len(failures)} refreshes failed in a row; the next try is in {pause:.0f} s. See the last one."
    return None


def _pause_after(failures: list[float], now: datetime) -> float:
    """Seconds until the next try after looks that ``failed_looks`` tells of; 0 if it may be now."""
    pause = back_off_seconds(len(failures))
    return max(0.0, pause - (now.timestamp() - failures[0])) if failures else 0.0


def failed_looks(instance: dg.DagsterInstance) -> list[float]:
    """When that ended which each of the newest looks had asked for, as long as it failed; the newest first.

    The ranges that a look asked for are one try, which failed if one of them did.
    """
    looks = islice(([*runs] for _, runs in groupby(_refreshes(instance), key=_asked_by)), _MOST_FAILURES)
    failed = takewhile(lambda runs: any(run.dagster_run.status == dg.DagsterRunStatus.FAILURE for run in runs), looks)
    return [max(run.end_time or 0.0 for run in runs) for runs in failed]


def _refreshes(instance: dg.DagsterInstance) -> Iterator[dg.RunRecord]:
    """The newest first, read as they are asked for: few at first, for mostly the newest tells enough."""
    last, at_once = None, _RECORDS_AT_FIRST
    while page := instance.get_run_records(dg.RunsFilter(tags=REFRESHES), limit=at_once, cursor=last):
        yield from page
        last, at_once = page[-1].dagster_run.run_id, min(4 * at_once, _MOST_RECORDS_AT_ONCE)


def _asked_by(record: dg.RunRecord) -> str:
    """What the runs of one look have in common, and no others."""
    return record.dagster_run.tags.get(LOOKED_AT_TAG, record.dagster_run.run_id)


def changes_sensor(settings: Settings, wait_seconds: float = WAIT_SECONDS) -> dg.SensorDefinition:
    """The sensor ``changes``: a tick looks; if nothing is stale, it waits for a change for up to ``wait_seconds``."""

    @dg.sensor(
        name=CHANGES,
        job_name=REFRESH,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Waits for commits in ToteSys, compares the sources' fingerprints with the ledger and materialises "
        "only what is stale. Its cursor saves the comparison when nothing changed; without it nothing is missed.",
    )
    def _changes(
        context: dg.SensorEvaluationContext,
        shared_snapshots: dg.ResourceParam[SharedSnapshots],
        lake: dg.ResourceParam[Lake],
        warehouse: dg.ResourceParam[Warehouse],
        databases: dg.ResourceParam[Databases],
    ) -> dg.SensorResult:
        for run_id in fail_dead_runs(context.instance, warehouse.is_alive, datetime.now(UTC), GRACE_SECONDS):
            context.log.error(f"Run {run_id} was killed; its work is done again.")
        # Only the daemon's ticks have a log, and only they wait: a test of the sensor in the UI is answered at once.
        wait = Wait(wait_seconds if context.log_key else 0, settings.home / STOPPING_FILE)
        cursor, alarmed = context.cursor, False
        mark, quiet_until = parse_cursor(cursor)
        newly_blocked: list[str] = []

        def report(examined: Examined) -> None:
            newly_blocked[:] = blocked.report(context.instance, catalogue(), examined)

        with Probe(databases.totesys) as probe:
            while True:
                reason = waiting_for(context.instance, datetime.now(UTC))
                if reason is not None:
                    # Not asked for again and again: of a look with hundreds of ranges there are as many records.
                    pause = _pause_after(failed_looks(context.instance), datetime.now(UTC))
                    if not wait.until(lambda: waiting_for(context.instance, datetime.now(UTC)) is None, pause=pause):
                        return dg.SensorResult(skip_reason=reason, cursor=cursor)
                    alarmed = False
                    continue
                probe.note()
                started = time.monotonic()
                days = partition_range(settings.first_day)
                platform = Platform(shared_snapshots.sources, lake, warehouse, days, settings.range_rows)
                refuse_to_begin_anew(lake, warehouse)
                begin_following(platform)
                seen = look(platform, unless=mark, on_examined=report)
                for problem in seen.told:
                    context.log.error(problem)
                problems = " ".join(seen.told)
                # Dagster shows a tick that requests runs as green, even if it skipped tables. So a tick that finds a
                # newly blocked table requests nothing and fails; the next one, five seconds later, requests the rest.
                if newly_blocked:
                    raise dg.Failure(problems)
                if seen.requests:
                    quiet = max(quiet_until or 0.0, probe.quiet_until)
                    # The next look finds the rest.
                    now = first_turn(seen.requests, has_failed=bool(failed_looks(context.instance)))
                    return dg.SensorResult(run_requests=[run_request(each, problems, quiet) for each in now])
                if problems:  # everything else is up to date
                    raise dg.Failure(problems)
                mark, quiet_until = seen.mark, seen.looked_at
                cursor = cursor_of(mark or "", quiet_until)
                pause = PAUSE_PER_LOOK * (time.monotonic() - started) if alarmed else 0.0
                if not wait.until(probe.moved, pause=pause):
                    return dg.SensorResult(skip_reason="Nothing changed.", cursor=cursor)
                alarmed = True

    return _changes


def first_audit_sensor() -> dg.SensorDefinition:
    """The sensor ``first_audit``: it audits the first load at once, without waiting for the night."""

    @dg.sensor(
        name="first_audit",
        job_name=AUDIT,
        minimum_interval_seconds=FIRST_AUDIT_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Runs the audit once, after the first refresh that succeeds. It then runs every night.",
    )
    def _first_audit(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if context.cursor == _AUDITED or context.instance.get_run_records(dg.RunsFilter(job_name=AUDIT), limit=1):
            return dg.SensorResult(skip_reason="The first audit has been run.", cursor=_AUDITED)
        succeeded = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], tags=REFRESHES)
        if not context.instance.get_run_records(succeeded, limit=1):
            return dg.SensorResult(skip_reason="No refresh has succeeded yet.")
        if context.instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED, tags=REFRESHES), limit=1):
            return dg.SensorResult(skip_reason="A refresh is under way. An audit now would leave out what it loads.")
        return dg.SensorResult(run_requests=[dg.RunRequest()])

    return _first_audit
