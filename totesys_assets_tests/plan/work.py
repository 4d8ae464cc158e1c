"""What the steps of a load need: processors of the run, of ToteSys' and of the warehouse's server, and their disks.

Belongs here: rows turned into steps, on AWS and on the machine that was measured. Does not belong here: time
(first_load.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from totesys_assets_tests.plan.constants import MILLION, PLACES, PLAN, document, value
from totesys_assets_tests.plan.first_load import Outcome, Part, Resource, Step, simulate

CLOCK = "clock"
# Of what a run takes for a row: reading and writing the lake, building the star, loading. By docs/scaling.md.
_CAPTURE, _BUILD, _LOAD = 1.1, 1.3, 0.9
_CLIENT = _CAPTURE + _BUILD + _LOAD
# Dimensions are loaded before facts, so that a reader of a fact finds what it refers to.
_FIRST = "transaction"


@dataclass(frozen=True)
class Machines:
    """Where a load runs on AWS. ``index``: whether ToteSys has an index on created_at, so that a range reads itself."""

    task: float
    source: float
    warehouse: float
    at_once: int
    index: bool = True


def shares() -> dict[str, float]:
    """Which part of all rows each large table of ToteSys has, the smallest first."""
    rows = document(PLAN)["rows"]
    large = {table: count for table, count in sorted(rows.items(), key=lambda item: item[1]) if count > 100_000}
    return {table: count / sum(large.values()) for table, count in large.items()}


def on_aws(rows: float, range_rows: float, machines: Machines, slower: float = 1.0) -> Outcome:
    """The simulated first load of ``rows`` rows of ToteSys, in ranges; its star is built so much ``slower``."""
    ranges = math.ceil(rows / range_rows)
    runs = [list(_range(number, rows / ranges, rows, machines, slower)) for number in range(ranges)]
    disk = Resource(value("gp3, bytes"), value("gp3, bytes"))
    resources = {
        CLOCK: Resource(math.inf, 1),
        "source": Resource(machines.source, 1),
        "warehouse": Resource(machines.warehouse, 1),
        "source's disk": disk,
        "warehouse's disk": disk,
        **{f"task {number}": Resource(machines.task, 1) for number in range(ranges)},
    }
    return simulate(runs, resources, machines.at_once)


def _range(number: int, own: float, everything: float, machines: Machines, slower: float) -> Iterable[Step]:
    """The steps of a range of ``own`` rows among ``everything``."""
    task, before = f"task {number}", "begin"
    yield Step("begin", (Part(CLOCK, value("task begins")), Part(task, value("load fixed, client"))))
    scanned = 2 * (own if machines.index else everything)
    client = value("load in ranges, client") / _CLIENT
    for table, share in shares().items():
        rows = own * share / MILLION
        capture = (
            Part(task, rows * client * _CAPTURE),
            Part("source", rows * value("load in ranges, source") + scanned * share / MILLION * value("scan")),
            Part("source's disk", scanned * share * value("source")),
        )
        yield Step(f"capture {table}", capture, frozenset({before}))
        before = f"capture {table}"
    yield from _built_and_loaded(task, own, client, slower)


def _built_and_loaded(task: str, own: float, client: float, slower: float) -> Iterable[Step]:
    for table, share in shares().items():
        rows = own * share / MILLION
        yield Step(f"build {table}", (Part(task, rows * client * _BUILD * slower),), frozenset({f"capture {table}"}))
    for table, share in sorted(shares().items(), key=lambda item: item[0] != _FIRST):
        rows = own * share / MILLION
        load = (
            Part(task, rows * client * _LOAD),
            Part("warehouse", rows * value("load in ranges, warehouse") * value("partitions, load")),
            Part("warehouse's disk", rows * MILLION * (value("wal") + value("warehouse"))),
        )
        after = {f"build {table}"} | ({f"load {_FIRST}"} - {f"load {table}"})
        yield Step(f"load {table}", load, frozenset(after), lock=table)


@dataclass(frozen=True)
class OneRun:
    """A load in one run on one machine: how long it takes, and processor seconds of all programs and servers."""

    seconds: float
    processors: float


def on_one_machine(rows: float, cores: float) -> OneRun:
    """A load of ``rows`` rows in one run, by a machine of ``cores`` processors that is client and both servers."""
    machine = "machine"
    fixed = [Part(machine, value(f"load fixed, {place}")) for place in PLACES]
    # Starting, looking and what Dagster notes of each day are one thread's work, or one session's.
    steps, before = [Step("begin", (Part(machine, sum(part.needs for part in fixed)),))], "begin"
    client = value("load, client") / _CLIENT
    for table, share in shares().items():
        count = rows * share / MILLION
        read = (Part(machine, count * client * _CAPTURE), Part(machine, count * value("load, source")))
        load = (Part(machine, count * client * _LOAD), Part(machine, count * value("load, warehouse")))
        steps += [
            Step(f"capture {table}", read, frozenset({before})),
            Step(f"build {table}", (Part(machine, count * client * _BUILD),), frozenset({f"capture {table}"})),
            Step(f"load {table}", load, frozenset({f"build {table}"}), lock=table),
        ]
        before = f"capture {table}"
    outcome = simulate([steps], {machine: Resource(cores, 1)}, at_once=1)
    return OneRun(outcome.seconds, outcome.used[machine])
