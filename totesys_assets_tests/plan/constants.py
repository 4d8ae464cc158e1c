"""The constants of the plan, each with its source: measured, listed by Amazon, or estimated.

Belongs here: every number that the simulations use, and how it follows from what was measured. What ``measure.py`` has
written in docs/plan.json is not repeated here: measure again, and the plan follows. Does not belong here: prices
(deploy/prices.py), simulating.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, Literal

from totesys_assets.dagster_home import ENVIRONMENT

DOCS = Path(__file__).parents[2] / "docs"
MILLION = 1e6
Kind = Literal["measured", "listed", "estimated"]
Document = dict[str, Any]
PLACES = ("client", "source", "warehouse")  # where a processor is busy: the run, and both servers


@dataclass(frozen=True)
class Figure:
    """A number, its unit, how it is known, and from where."""

    name: str
    value: float
    unit: str
    kind: Kind
    source: str


def document(name: str) -> Document:
    """A file of measured figures in docs/."""
    found: Document = json.loads(DOCS.joinpath(name).read_text(encoding="utf-8"))
    return found


def chosen(runs: list[Document], **wanted: object) -> list[Document]:
    """The runs that are so."""
    return [run for run in runs if all(run.get(key) == value for key, value in wanted.items())]


def noted(name: str) -> Callable[[Document], float]:
    """What a run has under that name."""
    return lambda run: float(run[name])


def processors(place: str) -> Callable[[Document], float]:
    """Processor seconds of a run in one of PLACES."""
    return noted(f"{place}_cpu_seconds")


def middle(runs: list[Document], of: Callable[[Document], float]) -> float:
    """The median over the runs."""
    return float(median(of(run) for run in runs))


def slope(runs: list[Document], of: Callable[[Document], float]) -> float:
    """By how much it grows with each row that a run concerns: least squares, never below 0."""
    xs, ys = [float(run["rows"]) for run in runs], [of(run) for run in runs]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return max(0.0, above / sum((x - mean_x) ** 2 for x in xs))


PLAN, TABLE, BENCH = "plan.json", "scaling.md", "bench.md"
# Without an index on created_at, a range scans each table twice, for fingerprints and for rows, and skips the rows of
# other days.
_SCANS = 2
_TICK = int(ENVIRONMENT["DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS"])
# Million rows of a range, as it was measured.
RANGE = 1


@cache
def figures() -> Mapping[str, Figure]:
    """All of them, by name. "Million" means rows of all tables of ToteSys; seconds of a processor unless said."""
    return {each.name: each for each in (*_loads(), *_live(), *_nights(), *_space(), *_other())}


def value(name: str) -> float:
    """The value of a figure."""
    return figures()[name].value


def _loads() -> list[Figure]:
    measured = document(PLAN)
    runs = measured["runs"]
    rows = sum(measured["rows"].values()) / MILLION
    small, whole = chosen(runs, what="load", scale="S"), chosen(runs, what="load", scale="M", range_rows=0)
    parts, larger = (chosen(runs, what="load", scale="M", range_rows=size * MILLION) for size in (RANGE, 2 * RANGE))
    few = middle(small, noted("rows")) / MILLION
    count, fewer = math.ceil(rows / RANGE), math.ceil(rows / RANGE / 2)
    of_more_ranges = middle(parts, processors("source")) - middle(larger, processors("source"))
    scan = of_more_ranges / (count - fewer) / _SCANS / rows
    made = [Figure("scan", scan, "s/million", "measured", f"{PLAN}, what more ranges cost ToteSys' server")]
    for place in PLACES:
        spent = processors(place)
        fixed, at_once, apart = middle(small, spent), middle(whole, spent), middle(parts, spent)
        per_row = (at_once - fixed) / (rows - few)
        scans = count * _SCANS * scan * rows if place == "source" else 0.0
        # The first range fills empty tables, as one run does. Only those after it are merged.
        merged = max(0.0, apart - fixed - scans - per_row * RANGE) / (rows - RANGE)
        made += [
            Figure(f"load fixed, {place}", max(0.0, fixed - per_row * few), "s", "measured", f"{PLAN}, load of S"),
            Figure(f"load, {place}", per_row, "s/million", "measured", f"{PLAN}, load of M less S"),
            Figure(f"load in ranges, {place}", merged, "s/million", "measured", f"{PLAN}, ranges of M after the first"),
        ]
    return made


def _live() -> list[Figure]:
    runs = document(PLAN)["runs"]
    one, bursts = (chosen(runs, what="burst", days=days) for days in (1, 30))
    made = [
        Figure(
            f"change, {place}",
            slope(bursts, processors(place)) * MILLION,
            "s/million changes",
            "measured",
            f"{PLAN}, bursts of up to 100,000 changes",
        )
        for place in PLACES
    ]
    events, more = middle(one, noted("events")), middle(bursts, noted("events"))
    made += [
        Figure("events of a refresh", events - (more - events) / 29, "events", "measured", f"{PLAN}, bursts"),
        Figure("events of a day", (more - events) / 29, "events", "measured", f"{PLAN}, bursts"),
    ]
    return [
        *made,
        Figure("refresh, median", 1.85, "seconds elapsed", "measured", f"{BENCH}, following the log, S"),
        Figure("refresh, 95 %", 1.98, "seconds elapsed", "measured", f"{BENCH}, following the log, S"),
        Figure("refresh over S3", 4.0, "seconds elapsed", "measured", f"{TABLE}, On S3: a server on the same machine"),
        Figure("refresh per ms of S3", 10 / 30, "seconds elapsed/ms", "measured", f"{TABLE}, On S3: 30 ms, 10 s later"),
        Figure("S3", 30, "ms/request", "estimated", "what the delay was measured with; Amazon promises no figure"),
        Figure("look", 0.1, "s/million", "measured", f"{TABLE}, a look that follows another"),
        Figure("hashing", 0.3, "s/million", "measured", f"{TABLE}, fingerprints of everything"),
        Figure("look in the log", 0.012, "s", "measured", f"{BENCH}, per look, M"),
        Figure("marts", 0.26, "s/million", "measured", f"{BENCH}, what is left of a full load: 1.1 s at M"),
        Figure("marts compared", 0.26, "s/million", "estimated", "two versions read take as long as one made"),
    ]


def _nights() -> list[Figure]:
    measured = document(PLAN)
    rows = sum(measured["rows"].values()) / MILLION
    made = []
    for what in ("audit", "compare"):
        runs = chosen(measured["runs"], what=what)
        for place in PLACES:
            spent = middle(runs, processors(place))
            made += [Figure(f"{what}, {place}", spent / rows, "s/million", "measured", f"{PLAN}, {what} of M")]
    return made


def _space() -> list[Figure]:
    measured = document(PLAN)
    runs, rows = measured["runs"], sum(measured["rows"].values())
    whole, bursts = chosen(runs, what="load", scale="M", range_rows=0), chosen(runs, what="burst", days=30)
    parts = chosen(runs, what="load", scale="M", range_rows=RANGE * MILLION)
    size, events = measured["dagster_bytes_and_events"]
    apart, whole_wal = middle(parts, noted("wal_bytes")), middle(whole, noted("wal_bytes"))
    in_ranges: tuple[str, Kind, str] = ("bytes/row", "measured", f"{PLAN}, ranges of M after the first")
    made = [
        Figure("source", measured["source_bytes"] / rows, "bytes/row", "measured", f"{PLAN}, M, keys included"),
        Figure("event", size / events, "bytes/event", "measured", f"{PLAN}, Dagster's database"),
        Figure("wal", (apart - whole_wal * RANGE * MILLION / rows) / (rows - RANGE * MILLION), *in_ranges),
    ]
    for name in ("lake", "warehouse"):
        made += [
            Figure(name, middle(whole, noted(f"{name}_bytes")) / rows, "bytes/row", "measured", f"{PLAN}, M"),
            Figure(
                f"{name}, change",
                slope(bursts, noted(f"{name}_bytes")),
                "bytes/change",
                "measured",
                f"{PLAN}, bursts, before files are merged" if name == "lake" else f"{PLAN}, bursts",
            ),
        ]
    return made


def _other() -> list[Figure]:
    spark = "decisions/79, one server of Sail on the same machine, a fact"
    return [
        Figure("partitions, load", 1.08, "times", "measured", "decisions/81, processor of the server"),
        Figure("partitions, change", 2.2, "times", "measured", "decisions/81, changes over all months"),
        Figure("Spark", 5, "times", "measured", spark),
        Figure("task begins", 90, "seconds elapsed", "estimated", "deploy.md: a minute or two"),
        Figure("GET of a refresh", 485, "requests", "measured", f"{TABLE}, On S3: GET and HEAD"),
        Figure("PUT of a refresh", 372, "requests", "measured", f"{TABLE}, On S3: LIST and PUT"),
        Figure("scan workers", 2, "processes", "listed", "PostgreSQL, max_parallel_workers_per_gather, and a leader"),
        Figure("index I/O", 2, "I/Os/change", "estimated", "a page read and written, were no index in memory"),
        Figure("gp3, bytes", 500e6, "bytes/s", "listed", "RDS, gp3 from 400 GiB on"),
        Figure("gp3, I/O", 12_000, "I/Os/s", "listed", "RDS, gp3 from 400 GiB on"),
        Figure("RDS, size", 64 * 2**40, "bytes", "listed", "RDS, the largest disk"),
        Figure("partitions of days", 25_000, "days", "estimated", "reported of Dagster's UI; not tried"),
        Figure("tick", _TICK, "seconds elapsed", "listed", "dagster_home.py, ENVIRONMENT"),
    ]
