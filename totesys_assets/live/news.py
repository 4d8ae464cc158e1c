"""News: the problems while everything runs live, each reported when it begins and when it is over.

Belongs here: comparing what Dagster's records and the dead letters say now with what was told before. Does not belong
here: printing it (commands/), and messages to people elsewhere (automation/alerts.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import dagster as dg

from totesys_assets.assets import blocked
from totesys_assets.automation import records
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.errors import told_once
from totesys_assets.lake.tables import Lake
from totesys_assets.live.session import Line
from totesys_assets.terminal import program

ERROR, GOOD = "error", "dagster"


@dataclass(frozen=True)
class _Seen:
    """What one look saw: why each table is blocked, why each run failed, why the newest tick did, and dead letters.

    ``failed_at``: when a refresh failed that the look before did not see; ``up_to_date``: when the newest look began
    after which all was; both in seconds since 1970. ``finished``: the newest run that had ended when the dead letters
    were counted.
    """

    blocked: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    failed_at: float | None = None
    tick: str | None = None
    up_to_date: float = 0.0
    finished: str | None = ""
    letters: Mapping[str, int] = field(default_factory=dict)


class News:
    """What is new since the last call. The first call reports only problems that last."""

    def __init__(self, instance: dg.DagsterInstance, lake: Lake) -> None:
        self._instance, self._lake = instance, lake
        self._failed_at: float | None = None
        failed = dict.fromkeys(self._failures(), "")
        self._seen = _Seen(failed=failed, tick=records.newest_tick_failure(instance))

    def next(self) -> list[Line]:
        """Lines that were not reported yet: ``error`` or ``dagster``, and a sentence.

        Raises what Dagster's records or the lake raise. What that call would have told, a later one tells.
        """
        before, now = self._seen, self._look()
        self._seen = now
        ticks = _of_ticks(before, now)
        moments = [*([now.failed_at] if now.failed_at else []), *([time.time()] if ticks else [])]
        self._failed_at = max(moments, default=self._failed_at)
        failures = [*_of_runs(before, now), *ticks]
        return [*_of_blocked(before, now), *failures, *self._of_success(now), *_of_letters(before, now)]

    def _of_success(self, now: _Seen) -> list[Line]:
        """That refreshes and ticks which failed are over: all that was there later is in the warehouse."""
        if self._failed_at is None or now.up_to_date <= self._failed_at:
            return []
        self._failed_at = None
        return [(GOOD, "the warehouse is up to date again")]

    def _look(self) -> _Seen:
        before, instance = self._seen, self._instance
        new = {name: record for name, record in self._failures().items() if name not in before.failed}
        why = {
            name: f"run {name[:8]} ({record.dagster_run.job_name}) failed: {records.why_failed(instance, name)}"
            for name, record in new.items()
        }
        refreshes = [record for record in new.values() if records.is_refresh(record.dagster_run)]
        seen, letters = records.seen(instance), before.letters
        if seen.finished != before.finished:
            letters = Counter(map(str, open_dead_letters(self._lake).column("table_name").to_pylist()))
        return _Seen(
            blocked.blocked(instance, catalogue().source),
            {**before.failed, **why},
            max((record.end_time or time.time() for record in refreshes), default=None),
            records.newest_tick_failure(instance),
            seen.up_to_date or 0.0,
            seen.finished,
            letters,
        )

    def _failures(self) -> dict[str, dg.RunRecord]:
        """The newest runs that failed, the oldest first."""
        found = self._instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=10)
        runs = {record.dagster_run.run_id: record for record in reversed(found)}
        return {name: record for name, record in runs.items() if not records.will_retry(record.dagster_run)}


def _of_blocked(before: _Seen, now: _Seen) -> list[Line]:
    found = [why for table, why in now.blocked.items() if before.blocked.get(table) != why]
    lines = [(ERROR, why) for why in told_once(found, now.blocked)]  # one cause may hit many tables
    over = [f'"{table}" can be captured again' for table in before.blocked if table not in now.blocked]
    return lines + [(GOOD, what) for what in told_once(over, before.blocked)]


def _of_runs(before: _Seen, now: _Seen) -> list[Line]:
    return [(ERROR, why) for run, why in now.failed.items() if run not in before.failed]


def _of_ticks(before: _Seen, now: _Seen) -> list[Line]:
    if now.tick is None or now.tick == before.tick:
        return []
    return [] if any(why in now.tick for why in now.blocked.values()) else [(ERROR, now.tick)]


def _of_letters(before: _Seen, now: _Seen) -> list[Line]:
    if now.letters == before.letters:
        return []
    if not now.letters:
        return [(GOOD, "no row is in the dead letters any more")]
    tables = ", ".join(f"{count:,} of {table}" for table, count in sorted(now.letters.items()))
    are_fewer = sum(now.letters.values()) < sum(before.letters.values())
    still = "still " if are_fewer else ""
    return [
        (
            GOOD if are_fewer else ERROR,
            f"{still}in the dead letters: {tables}. {program()} dead-letters shows them, and why",
        )
    ]
