"""News: the problems while everything runs live, each reported when it begins and when it is over.

Belongs here: comparing what Dagster's records and the dead letters say now with what was told before. Does not belong
here: printing it (commands/), and messages to people elsewhere (automation/alerts.py).
"""

from __future__ import annotations

from collections import Counter

import dagster as dg

from totesys_assets.assets import blocked
from totesys_assets.automation import records
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.errors import told_once
from totesys_assets.lake.tables import Lake
from totesys_assets.terminal import program

ERROR, GOOD = "error", "dagster"
Line = tuple[str, str]


class News:
    """What is new since the last call. The first call reports only problems that last."""

    def __init__(self, instance: dg.DagsterInstance, lake: Lake) -> None:
        self._instance, self._lake = instance, lake
        self._blocked: dict[str, str] = {}
        self._failed = {each.run_id for each in self._failures()}
        self._tick = records.newest_tick_failure(instance)
        self._finished: str | None = ""
        self._letters: Counter[str] = Counter()

    def next(self) -> list[Line]:
        """Lines that were not reported yet: ``error`` or ``dagster``, and a sentence."""
        return [*self._of_blocked(), *self._of_runs(), *self._of_ticks(), *self._of_dead_letters()]

    def _of_blocked(self) -> list[Line]:
        before, self._blocked = self._blocked, blocked.blocked(self._instance, catalogue())
        found = [why for table, why in self._blocked.items() if before.get(table) != why]
        lines = [(ERROR, why) for why in told_once(found, self._blocked)]  # one cause may hit many tables
        over = [f'"{table}" can be captured again' for table in before if table not in self._blocked]
        return lines + [(GOOD, what) for what in told_once(over, before)]

    def _of_runs(self) -> list[Line]:
        failed = [run for run in self._failures() if run.run_id not in self._failed]
        self._failed |= {run.run_id for run in failed}
        return [
            (ERROR, f"run {run.run_id[:8]} ({run.job_name}) failed: {records.why_failed(self._instance, run.run_id)}")
            for run in reversed(failed)
        ]

    def _of_ticks(self) -> list[Line]:
        before, self._tick = self._tick, records.newest_tick_failure(self._instance)
        if self._tick is None or self._tick == before:
            return []
        return [] if any(why in self._tick for why in self._blocked.values()) else [(ERROR, self._tick)]

    def _of_dead_letters(self) -> list[Line]:
        finished = records.seen(self._instance).finished
        if finished == self._finished:
            return []
        self._finished = finished
        letters = open_dead_letters(self._lake).column("table_name").to_pylist()
        before, self._letters = self._letters, Counter(map(str, letters))
        if self._letters == before:
            return []
        if not self._letters:
            return [(GOOD, "no row is in the dead letters any more")]
        tables = ", ".join(f"{count} of {table}" for table, count in sorted(self._letters.items()))
        return [(ERROR, f"in the dead letters: {tables}. {program()} dead-letters shows them, and why")]

    def _failures(self) -> list[dg.DagsterRun]:
        found = self._instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=10)
        return [run for run in found if not records.will_retry(run)]
