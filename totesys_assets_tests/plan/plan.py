"""The plan for a size and a rate: what runs where, how long, what it costs, and which limit is reached first.

Belongs here: what is put together of the simulations, the constants and the prices. Does not belong here: words
(page.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import yaml

from totesys_assets.variables import RANGE_ROWS, RECORD_DAYS
from totesys_assets_tests.deploy import prices
from totesys_assets_tests.plan.constants import DOCS, MILLION, PLACES, PLAN, document, value
from totesys_assets_tests.plan.first_load import Outcome
from totesys_assets_tests.plan.steady import Cycle, Delays, Saturated, simulate
from totesys_assets_tests.plan.work import Machines, on_aws

HOUR, DAY = 3600.0, 86_400.0
DAYS_A_MONTH = prices.HOURS / 24
GB, TB = 1e9, 1e12
Engine = Literal["duckdb", "spark"]
Unit = Literal["seconds", "bytes", ""]


@dataclass(frozen=True)
class Inputs:
    """What is asked for. ``changes``: a second, in ``hours`` of each day. ``silent``: the part without a new timestamp.

    ``days``: of history. ``touched``: the newest days in which the changes of a refresh lie.
    """

    orders: float = 1e9
    changes: float = 5_000
    silent: float = 0.1
    days: int = 3_650
    touched: int = 7
    hours: float = 24
    engine: Engine = "duckdb"
    range_rows: float = RANGE_ROWS
    at_once: int = 2
    index: bool = True

    @property
    def rows(self) -> float:
        """Of all tables of ToteSys."""
        counted = document(PLAN)["rows"]
        return self.orders * float(sum(counted.values())) / float(counted["sales_order"])

    @property
    def rows_a_day(self) -> float:
        """Rows of a day of history."""
        return self.rows / self.days

    @property
    def changes_a_month(self) -> float:
        """Versions that a month adds."""
        return self.changes * self.hours * HOUR * DAYS_A_MONTH


@dataclass(frozen=True)
class Limit:
    """How much of what is there the plan uses, in a unit, and what happens when it is all used."""

    name: str
    used: float
    of: float
    unit: Unit
    then: str

    @property
    def part(self) -> float:
        """1 is the limit."""
        return self.used / self.of


@dataclass(frozen=True)
class Plan:
    """All that follows from the inputs."""

    inputs: Inputs

    @cached_property
    def warehouse(self) -> int:
        """vCPU of the warehouse: as many as keep it at most half busy, and as many as the first load keeps busy."""
        busy = self.inputs.changes * self.per_change("warehouse")
        wanted = max(2 * busy, self.inputs.at_once * 2)
        return next((vcpu for vcpu in prices.R7G_HOURS if vcpu >= wanted), max(prices.R7G_HOURS))

    @cached_property
    def task(self) -> tuple[float, float]:
        """vCPU and GB of a large run's task."""
        return prices.sizes(prices.services())["run"]

    @cached_property
    def load(self) -> Outcome:
        """The first load."""
        return self.loaded()

    def loaded(self, at_once: int | None = None, index: bool | None = None, task: float | None = None) -> Outcome:
        """The first load, otherwise."""
        inputs = self.inputs
        machines = Machines(
            self.task[0] if task is None else task,
            self.warehouse,
            self.warehouse,
            at_once or inputs.at_once,
            inputs.index if index is None else index,
        )
        return on_aws(inputs.rows, inputs.range_rows, machines, self.slower)

    def per_change(self, place: str) -> float:
        """Seconds of a processor for one change."""
        partitions = value("partitions, change") if place == "warehouse" else 1
        return value(f"change, {place}") / MILLION * partitions

    @cached_property
    def cycle(self) -> Cycle:
        """A refresh that follows the log. What a change adds is done one after the other: steps wait for each other."""
        inputs = self.inputs
        over_s3 = value("refresh over S3") + value("S3") * value("refresh per ms of S3")
        of_days = inputs.touched * inputs.rows_a_day / MILLION
        marts = of_days * (value("marts") * self.slower + value("marts compared"))
        per_change = sum(self.per_change(place) for place in PLACES)
        spread = value("refresh, 95 %") / value("refresh, median") - 1
        return Cycle(value("look in the log"), over_s3 + marts, per_change, spread)

    @property
    def slower(self) -> float:
        """How much longer the engine takes for what it builds."""
        return value("Spark") if self.inputs.engine == "spark" else 1.0

    @cached_property
    def following(self) -> Delays | Saturated:
        """The steady state, following the log."""
        return simulate(self.cycle, self.inputs.changes)

    @cached_property
    def comparing(self) -> Delays | Saturated:
        """The steady state on the primary without the log: each look counts all rows, each capture scans once more."""
        return simulate(self.cycle_of_looks(value("look")), self.inputs.changes)

    @cached_property
    def hashing(self) -> Delays | Saturated:
        """The same on a standby, where each look hashes every row."""
        return simulate(self.cycle_of_looks(value("hashing")), self.inputs.changes)

    def cycle_of_looks(self, per_million: float) -> Cycle:
        """A refresh by comparison. A look always finds something, so that none is followed by a pause."""
        scan = self.scan(per_million)
        return replace(self.cycle, look=scan, fixed=self.cycle.fixed + self.scan(value("scan")))

    def scan(self, per_million: float) -> float:
        """Seconds for one scan of all rows of ToteSys: by its processors or by its disk."""
        rows = self.inputs.rows
        workers = value("scan workers") + 1
        return max(rows / MILLION * per_million / workers, rows * value("source") / value("gp3, bytes"))

    def times_a_month(self, what: str) -> float:
        """How often ``audit`` or ``compare`` is priced: every night; once a month if no run may take so long."""
        return DAYS_A_MONTH if self.nightly(what) <= longest_run() else 1.0

    def fits_a_night(self, what: str) -> float:
        """Up to how many orders ``audit`` or ``compare`` is over before Dagster ends its run."""
        return self.inputs.orders * longest_run() / self.nightly(what)

    def nightly(self, what: str, months: float = 0.0) -> float:
        """Seconds of the nightly ``audit`` or ``compare``, after so many months: it works one thing after the other."""
        inputs = self.inputs
        versions = inputs.rows + months * inputs.changes_a_month
        of = {"client": versions, "source": inputs.rows, "warehouse": versions}
        return sum(value(f"{what}, {place}") * of[place] for place in PLACES) / MILLION

    @property
    def refreshes_a_month(self) -> float:
        """Refreshes that a month has while changes come; none while the delay grows."""
        found = self.following
        return 0.0 if isinstance(found, Saturated) else found.refreshes * self.inputs.hours * DAYS_A_MONTH

    def records(self) -> float:
        """Bytes that Dagster keeps of refreshes, before the nightly purge removes the oldest."""
        events = value("events of a refresh") + self.inputs.touched * value("events of a day")
        return self.refreshes_a_month / DAYS_A_MONTH * RECORD_DAYS * events * value("event")

    def lake(self, months: float) -> float:
        """Bytes of the lake; of a night's changes before they are merged, and of a week's journal."""
        inputs = self.inputs
        added = months * inputs.changes_a_month * value("lake")
        unmerged = 7 / DAYS_A_MONTH * inputs.changes_a_month * value("lake, change") if months else 0.0
        return inputs.rows * value("lake") + added + unmerged

    def stored(self, months: float) -> float:
        """Bytes of the warehouse."""
        inputs = self.inputs
        return inputs.rows * value("warehouse") + months * inputs.changes_a_month * value("warehouse, change")

    def months_of_disk(self) -> float:
        """After how many months the warehouse fills the largest disk."""
        return (value("RDS, size") - self.stored(0)) / (self.stored(1) - self.stored(0))

    def limits(self) -> list[Limit]:
        """What is used of each limit, the nearest first."""
        inputs, most, rate = self.inputs, longest_run(), self.inputs.changes
        table = share_of_largest() * self.scan(value("scan"))
        endless = "more comes than goes: the delay grows without end"
        ended = "Dagster ends the run, and the next is ended too"
        written = rate * (value("wal") + value("warehouse, change"))
        found = [
            Limit("the nightly audit", self.nightly("audit"), most, "seconds", ended),
            Limit("the nightly comparison", self.nightly("compare"), most, "seconds", ended),
            Limit("a range", longest(self.load), most, "seconds", ended),
            Limit("the first look", self.scan(value("hashing")), value("tick"), "seconds", "Dagster gives up the tick"),
            Limit("a scan of the largest table", table, HOUR, "seconds", "ToteSys ends the statement"),
            Limit("changes a second, one refresh after the other", rate, 1 / self.cycle.per_change, "", endless),
            Limit("warehouse: processors", rate * self.per_change("warehouse"), self.warehouse, "", endless),
            Limit(
                "warehouse: bytes written a second", written, value("gp3, bytes"), "bytes", "loads wait for the disk"
            ),
            Limit(
                "warehouse: I/Os a second", rate * value("index I/O"), value("gp3, I/O"), "", "loads wait for the disk"
            ),
            Limit("warehouse: its size after a year", self.stored(12), value("RDS, size"), "bytes", "loads fail"),
            Limit("days in Dagster's UI", inputs.days, value("partitions of days"), "", "the UI is slow"),
        ]
        return sorted(found, key=lambda each: -each.part)


def longest(load: Outcome) -> float:
    """Seconds of the longest run of a load."""
    return max(end - begin for begin, end in zip(load.began, load.ended, strict=True))


def share_of_largest() -> float:
    """Which part of all rows the largest table of ToteSys has."""
    rows = document(PLAN)["rows"].values()
    return float(max(rows) / sum(rows))


def longest_run() -> float:
    """Seconds after which Dagster ends a run on AWS."""
    path = DOCS.parent / "deploy" / "docker" / "dagster.yaml"
    return float(yaml.safe_load(path.read_text(encoding="utf-8"))["run_monitoring"]["max_runtime_seconds"])
