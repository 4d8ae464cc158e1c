"""The rounds: scenarios, yardstick and peers in turns, so that all of them meet the same machine.

Belongs here: who comes after whom, and what is noted of each run. Does not belong here: medians and ratios (report.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from totesys_assets.errors import PlatformError
from totesys_assets_tests.bench.competitors import Competitor, CopyPipe, check
from totesys_assets_tests.bench.meter import Cost, Meter
from totesys_assets_tests.bench.sandbox import Sandbox
from totesys_assets_tests.bench.scenarios import FULL, Job, Scenario

OURS = "totesys"
# The yardstick is repeated before every scenario; one that takes longer than this, before the first of a round.
LONG_YARDSTICK_SECONDS = 30.0
Report = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One measured run: of whom, how long, what it cost, what it left on the disk.

    ``seconds`` is the whole process. ``inside``, ``stages`` and ``work`` are what a refresh says of itself;
    ``in_the_run`` is how long its run in Dagster took, which is the sum of the stages.
    ``yardstick_seconds`` is how long the yardstick took that ran last before it.
    """

    scale: str
    scenario: str
    tool: str
    round: int
    rows: int
    seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float
    peak_memory_bytes: int
    lake_bytes: int
    database_bytes: int
    yardstick_seconds: float | None = None
    dagster_events: int | None = None
    inside: float | None = None
    in_the_run: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)


@dataclass
class Rounds:
    """All rounds on one sandbox: ``runs`` as they were measured, ``absent`` for whom there are none, and why."""

    sandbox: Sandbox
    report: Report
    peers: Sequence[Competitor] = ()
    runs: list[Run] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def measure(self, scenarios: Sequence[Scenario], rounds: int) -> None:
        """Measure the scenarios, in their order, ``rounds`` times. Raises PlatformError when one of ours fails."""
        self.absent |= {peer.name: reason for peer in self.peers if (reason := peer.unfit())}
        if scenarios and FULL not in scenarios:
            self.load()
        for number in range(rounds):
            yardstick = 0.0
            for scenario in scenarios:
                if scenario is scenarios[0] or yardstick < LONG_YARDSTICK_SECONDS:
                    yardstick = self._competitor(CopyPipe(), scenario.name, number, None).seconds
                self._ours(scenario, number, yardstick)
            if FULL in scenarios:  # last, for what they do in ToteSys' server is no part of "nothing changed"
                self._peers(number, yardstick)

    def load(self) -> None:
        """A full load that is not measured."""
        self._refresh(FULL.prepare(self.sandbox, 0), Meter())

    def _peers(self, number: int, yardstick: float) -> None:
        for peer in self.peers:
            if peer.name in self.absent:
                continue
            try:
                self._competitor(peer, FULL.name, number, yardstick)
            except PlatformError as error:
                self.absent[peer.name] = f"at scale {self.sandbox.scale.name}: {error}"
                self.report(f"{peer.name} is left out from here on: {error}")

    def _ours(self, scenario: Scenario, number: int, yardstick: float) -> None:
        sandbox = self.sandbox
        job = scenario.prepare(sandbox, number)
        before = (sandbox.lake_bytes(), sandbox.database_bytes(sandbox.urls.warehouse), sandbox.events())
        sandbox.checkpoint()
        with Meter(sandbox.postmasters) as meter:
            said = self._refresh(job, meter)
        after = (sandbox.lake_bytes(), sandbox.database_bytes(sandbox.urls.warehouse), sandbox.events())
        lake, warehouse, events = (new - old for new, old in zip(after, before, strict=True))
        self._note(
            Run(
                self.sandbox.scale.name,
                scenario.name,
                OURS,
                number,
                job.rows,
                **_costs(meter.cost),
                lake_bytes=lake,
                database_bytes=warehouse,
                yardstick_seconds=yardstick,
                dagster_events=events,
                inside=round(said["seconds"], 3),
                in_the_run=round(sum(said["stages"].values()), 3),
                stages=said["stages"],
                work=said["work"],
            )
        )

    def _refresh(self, job: Job, meter: Meter) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(meter.run(self.sandbox.refresh(*job.arguments)))
        if said["changed"] != job.changes:
            expected = "something to do" if job.changes else "nothing to do"
            raise PlatformError(f"totesys refresh {' '.join(job.arguments)} should have found {expected}.")
        return said

    def _competitor(self, competitor: Competitor, scenario: str, number: int, yardstick: float | None) -> Run:
        """A competitor's run into a database of its own, which goes when its rows were counted."""
        sandbox = self.sandbox
        target = sandbox.target(f"bench_{competitor.name}")
        before = sandbox.database_bytes(target)
        sandbox.checkpoint()
        with Meter(sandbox.postmasters) as meter:
            competitor.load(sandbox, target, meter)
        rows = sandbox.rows()
        check(competitor, target, rows)
        run = Run(
            sandbox.scale.name,
            scenario,
            competitor.name,
            number,
            sum(rows.values()),
            **_costs(meter.cost),
            lake_bytes=0,
            database_bytes=sandbox.database_bytes(target) - before,
            yardstick_seconds=yardstick,
        )
        sandbox.drop(f"bench_{competitor.name}")
        self._note(run)
        return run

    def _note(self, run: Run) -> None:
        self.runs.append(run)
        self.report(f"{run.scale} round {run.round + 1}: {run.scenario}, {run.tool} {run.seconds:.2f} s")


def _costs(cost: Cost) -> dict[str, Any]:
    return {
        "seconds": round(cost.seconds, 3),
        "client_cpu_seconds": round(cost.client_cpu_seconds, 3),
        "server_cpu_seconds": round(cost.server_cpu_seconds, 3),
        "peak_memory_bytes": cost.peak_memory_bytes,
    }
