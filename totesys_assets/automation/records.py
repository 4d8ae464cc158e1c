"""Reading Dagster's records of runs, ticks and checks, for the alerts and the status.

Belongs here: what the records say, and the sentence to show for a failure. Does not belong here: what is worth a
message (incidents.py). Nothing is written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import dagster as dg

from totesys_assets.names import (
    BACKFILL_TAG,
    CHANGES,
    LEFT_OUT_TAG,
    LOOKED_AT_TAG,
    NO_DEAD_LETTERS,
    NOTHING_MISSED,
    QUIET_UNTIL_TAG,
    RANGE_TAG,
    REFRESHES,
    TOLD_TAG,
    VERSIONS_TAG,
    WILL_RETRY_TAG,
)
from totesys_assets.staleness.mark import parse_cursor

# How many records are read to find the newest of a kind. Fewer than this are made between two evaluations of the
# sensor freshness, half a minute apart: a tick of ``changes`` takes nine seconds, and a refresh a few.
_NEWEST = 20
# Dagster writes the error's class before its message. For these classes the message alone is shown.
_FOR_USERS = ("totesys_assets.errors.", f"{dg.Failure.__module__}.{dg.Failure.__qualname__}")

_GONE = ".DagsterCodeLocationNotFoundError"

# Statuses of ticks, as Dagster spells them.
SKIPPED, SUCCESS, FAILURE = "SKIPPED", "SUCCESS", "FAILURE"


class Error(Protocol):
    """An error as Dagster keeps it; its class has no public name."""

    @property
    def message(self) -> str:
        """The class of the error and what it said."""

    @property
    def cause(self) -> Error | None:
        """The error that led to it."""


@dataclass(frozen=True)
class Lag:
    """How long a commit waited at most for the refresh that brought it, in seconds. ``number`` grows run by run."""

    number: int
    run_id: str
    seconds: float


@dataclass(frozen=True)
class Seen:
    """The newest moments of each kind, in seconds since 1970; None if there is none.

    ``up_to_date``: when a look began that found nothing to do, or whose refresh succeeded and skipped no table.
    ``failed``: when a refresh failed of which a message told. ``finished``: the newest refresh that has ended.
    ``lags``: of the newest refreshes that left nothing out, the oldest first.
    """

    up_to_date: float | None
    failed: float | None
    finished: str | None
    lags: tuple[Lag, ...]


def seen(instance: dg.DagsterInstance) -> Seen:
    """Read the newest records."""
    quiet = [looked_at for _, looked_at in map(parse_cursor, _cursors(instance)) if looked_at is not None]
    succeeded = _refreshes(instance, dg.DagsterRunStatus.SUCCESS)
    complete = [record for record in succeeded if not _is_partial(record.dagster_run)]
    failed = _refreshes(instance, dg.DagsterRunStatus.FAILURE)
    told = [_ended(record) for record in failed if TOLD_TAG in record.dagster_run.tags]
    finished = sorted([*succeeded, *failed], key=lambda record: record.storage_id)
    return Seen(
        up_to_date=max([*quiet, *map(_looked_at, complete)], default=None),
        failed=max(told, default=None),
        finished=finished[-1].dagster_run.run_id if finished else None,
        lags=tuple(_lags(complete)),
    )


def _is_partial(run: dg.DagsterRun) -> bool:
    """Whether a refresh left tables or days out."""
    return bool({LEFT_OUT_TAG, BACKFILL_TAG} & run.tags.keys()) or RANGE_TAG.items() <= run.tags.items()


def _lags(complete: list[dg.RunRecord]) -> Iterator[Lag]:
    """Of refreshes that a look requested: what they brought was committed after the newest moment when nothing waited.

    That is one which the sensor knew, or the look of the refresh before.
    """
    before = 0.0
    for record in sorted(complete, key=lambda record: record.storage_id):
        with suppress(ValueError):
            since = max(before, float(record.dagster_run.tags.get(QUIET_UNTIL_TAG, "")))
            if since:
                yield Lag(record.storage_id, record.dagster_run.run_id, round(max(0.0, _ended(record) - since), 1))
        before = max(before, _looked_at(record))


def newest_trouble(instance: dg.DagsterInstance) -> tuple[float, str | None, str] | None:
    """The newest failure: when, the run if it was one, and what failed, in a sentence."""
    ticks = _ticks(instance, FAILURE)[:1]
    failed = _refreshes(instance, dg.DagsterRunStatus.FAILURE)[:1]
    partial = [run for run in _refreshes(instance, dg.DagsterRunStatus.SUCCESS) if LEFT_OUT_TAG in run.dagster_run.tags]
    found: list[tuple[float, str | None, str]] = [
        *((_end(tick), None, sentence(tick.error)) for tick in ticks if tick.error),
        *((_ended(run), run.dagster_run.run_id, why_failed(instance, run.dagster_run.run_id)) for run in failed),
        *((_ended(run), run.dagster_run.run_id, run.dagster_run.tags[LEFT_OUT_TAG]) for run in partial),
    ]
    return max(found, default=None, key=lambda each: each[0])


def trouble(instance: dg.DagsterInstance, since: float) -> tuple[str | None, str]:
    """The newest failure after ``since``: the run if it was one, and what failed, in a sentence."""
    newest = newest_trouble(instance)
    if newest is None or newest[0] < since:
        return None, (
            "Nothing failed since then: check that Dagster's daemon runs and the sensor changes is on, and whether a "
            "refresh is under way."
        )
    return newest[1:]


def newest_tick_failure(instance: dg.DagsterInstance) -> str | None:
    """Why the newest tick of ``changes`` failed; None if it did not fail, or if there was no tick."""
    newest = max(
        (tick for status in (FAILURE, SUCCESS, SKIPPED) for tick in _ticks(instance, status)[:1]),
        default=None,
        key=_end,
    )
    return sentence(newest.error) if newest is not None and newest.error else None


def mark_of_sensor(instance: dg.DagsterInstance) -> str | None:
    """The mark in the cursor of the sensor ``changes``; None if it has none."""
    return next((mark for mark, _ in map(parse_cursor, _cursors(instance)) if mark), None)


def told_before(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float | None:
    """When the newest run failed of which a message told, of refreshes or of the run's job; None if there is none."""
    told = {TOLD_TAG: "true"}
    alike = (
        dg.RunsFilter(tags={**REFRESHES, **told})
        if is_refresh(run)
        else dg.RunsFilter(job_name=run.job_name, tags=told)
    )
    return max(map(_ended, instance.get_run_records(alike, limit=1)), default=None)


def will_retry(run: dg.DagsterRun) -> bool:
    """Whether Dagster retries a failed run by itself."""
    return run.tags.get(WILL_RETRY_TAG) == "true"


def is_refresh(run: dg.DagsterRun) -> bool:
    """Whether the run is a refresh."""
    return all(run.tags.get(name) in values for name, values in REFRESHES.items())


def versions_of(instance: dg.DagsterInstance, run_id: str) -> dict[str, int]:
    """How many versions a run captured, by source table, as its tags say. Empty if there were none."""
    run = instance.get_run_by_id(run_id)
    noted = run.tags.get(VERSIONS_TAG, "") if run is not None else ""
    found: Counter[str] = Counter()
    for table, count in re.findall(r"(\w+) (\d+)", noted):  # a table may be there again, by a step that was retried
        found[table] += int(count)
    return dict(found)


def why_failed(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed: the sentence of its first failed step, and how many others failed."""
    steps = list(_events(instance, run_id, dg.DagsterEventType.STEP_FAILURE))
    if steps:
        others = f" ({len(steps) - 1} more steps failed.)" if len(steps) > 1 else ""
        return step_failure(steps[0]) + others
    for event in _events(instance, run_id, dg.DagsterEventType.RUN_FAILURE):
        # A run that another process reported as failed has no error, only a message.
        error = getattr(event.event_specific_data, "error", None)
        return sentence(error) if error is not None else event.message or "The run failed."
    return "The run failed."


def differences(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """A sentence for each check of the audit that failed in a run with severity ERROR."""
    evaluated = _events(instance, run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    checks = [event.asset_check_evaluation_data for event in evaluated]
    return [
        f"{check.asset_key.to_user_string()}: {check.description or check.check_name}"
        for check in checks
        if not check.passed
        and check.severity == dg.AssetCheckSeverity.ERROR
        and check.check_name not in (NO_DEAD_LETTERS, NOTHING_MISSED)
    ]


def step_failure(event: dg.DagsterEvent) -> str:
    """The description that an asset gave to its failure, or else the sentence of its error."""
    failure = event.step_failure_data
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return failure.user_failure_data.description
    return sentence(failure.error) if failure.error is not None else f"{event.step_key} failed."


def sentence(error: Error) -> str:
    """The message of the first error in the chain that is meant for users, or else of the innermost."""
    chain = list(_causes(error))
    for each in chain:
        if each.message.startswith(_FOR_USERS):
            return each.message.partition(": ")[2].strip()
    return chain[-1].message.strip()


def _causes(error: Error | None) -> Iterator[Error]:
    while error is not None:
        yield error
        error = error.cause


def _events(instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType) -> Iterator[dg.DagsterEvent]:
    for record in instance.get_records_for_run(run_id, of_type=kind).records:
        yield record.event_log_entry.get_dagster_event()


def _refreshes(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> list[dg.RunRecord]:
    """Refreshes of that status, newest first."""
    records = instance.get_run_records(dg.RunsFilter(statuses=[status], tags=REFRESHES), limit=_NEWEST)
    return [record for record in records if not will_retry(record.dagster_run)]


def _states(instance: dg.DagsterInstance) -> list[Any]:
    """Dagster's state of the sensor ``changes``: one, or none before its first tick."""
    return [state for state in instance.all_instigator_state() if state.instigator_name == CHANGES]


def _cursors(instance: dg.DagsterInstance) -> list[str | None]:
    """The cursor of the sensor ``changes``, if there is one."""
    if instance.schedule_storage is None:  # an instance that lives for one process has no sensors
        return []
    return [getattr(state.instigator_data, "cursor", None) for state in _states(instance)]


def _ticks(instance: dg.DagsterInstance, status: str) -> list[Any]:
    """Ticks of the sensor ``changes`` of that status, newest first, but for those that the end of a daemon cut off."""
    found: list[Any] = []
    for state in _states(instance):
        ids = state.instigator_origin_id, state.selector_id
        for newest in instance.get_ticks(*ids, limit=1):
            # The class of a tick's status has no public name, but every tick has an instance of it.
            ticks = instance.get_ticks(*ids, limit=_NEWEST, statuses=[type(newest.status)(status)])
            found += [tick for tick in ticks if not _was_cut_off(tick)]
    return found


def _was_cut_off(tick: Any) -> bool:
    """Whether the code location was there when a tick began, and gone when it ended: so it is when a daemon ends."""
    return any(each.message.partition(": ")[0].endswith(_GONE) for each in _causes(tick.error))


def _looked_at(record: dg.RunRecord) -> float:
    """When the look began that requested a run. A run without a look compares everything after its creation."""
    created = record.create_timestamp.timestamp()
    with suppress(ValueError):  # anybody may set the tag to anything
        looked_at = float(record.dagster_run.tags.get(LOOKED_AT_TAG, ""))
        if 0 < looked_at <= created:
            return looked_at
    return created


def _ended(record: dg.RunRecord) -> float:
    return record.end_time or 0.0


def _end(tick: Any) -> float:
    return float(tick.end_timestamp or tick.timestamp)
