"""The report: medians and ratios of what was measured, where it was measured, and the guard that compares two reports.

Belongs here: arithmetic on runs, and the JSON document. Does not belong here: measuring, printing and drawing.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from totesys_assets_tests.bench.answers import Answers
from totesys_assets_tests.bench.competitors import CopyPipe
from totesys_assets_tests.bench.latency import Latency
from totesys_assets_tests.bench.meter import memory_kind
from totesys_assets_tests.bench.rounds import OURS, Run

GUARD_TOLERANCE = 0.25
YARDSTICK = CopyPipe().name
PACKAGES = ("dagster", "duckdb", "deltalake", "psycopg", "pyarrow")
Document = dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """The runs of one tool in one scenario at one scale: medians, and how far the seconds are apart.

    ``ratios`` says how many times as long it took as each of the others: the yardstick that ran before it, and, for
    the full load of ours, the peers. ``cpu_ratios`` says the same of processor time, of programs and servers together:
    other work on the machine changes it less.
    """

    scale: str
    scenario: str
    tool: str
    rounds: int
    rows: int
    seconds: float
    least_seconds: float
    most_seconds: float
    rows_per_second: float
    client_cpu_seconds: float
    server_cpu_seconds: float
    peak_memory_bytes: int
    lake_bytes: int
    database_bytes: int
    dagster_events: int | None
    inside: float | None
    in_the_run: float | None
    stages: dict[str, float]
    work: dict[str, float]
    ratios: dict[str, float]
    cpu_ratios: dict[str, float]


def figures(runs: Sequence[Run]) -> list[Figures]:
    """The figures of every scale, scenario and tool, in the order in which they were first measured."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.scale, run.scenario, run.tool), []).append(run)
    medians = {key: _median(run.seconds for run in group) for key, group in groups.items()}
    processors = {key: _median(_cpu(run) for run in group) for key, group in groups.items()}
    return [_figures(group, medians, processors) for group in groups.values()]


def _cpu(run: Run) -> float:
    return run.client_cpu_seconds + run.server_cpu_seconds


def _figures(
    runs: Sequence[Run], medians: dict[tuple[str, str, str], float], processors: dict[tuple[str, str, str], float]
) -> Figures:
    first = runs[0]
    seconds = _median(run.seconds for run in runs)
    rows = round(_median(run.rows for run in runs))
    events = [run.dagster_events for run in runs if run.dagster_events is not None]
    inside = [run.inside for run in runs if run.inside is not None]
    in_the_run = [run.in_the_run for run in runs if run.in_the_run is not None]
    yardsticks = [run.yardstick_seconds for run in runs if run.yardstick_seconds]
    ratios = {YARDSTICK: round(seconds / _median(yardsticks), 3)} if yardsticks else {}
    if first.tool == OURS:
        for (scale, scenario, tool), median in medians.items():
            if (scale, scenario) == (first.scale, first.scenario) and tool not in (OURS, YARDSTICK):
                ratios[tool] = round(seconds / median, 3)
    # A long yardstick ran before the first scenario only.
    beside = {tool: cpu for (scale, _, tool), cpu in reversed(processors.items()) if scale == first.scale}
    beside |= {
        tool: cpu for (scale, which, tool), cpu in processors.items() if (scale, which) == (first.scale, first.scenario)
    }
    cpu = _median(_cpu(run) for run in runs)
    cpu_ratios = {tool: round(cpu / beside[tool], 3) for tool in ratios if beside.get(tool)}
    return Figures(
        first.scale,
        first.scenario,
        first.tool,
        len(runs),
        rows,
        round(seconds, 3),
        min(run.seconds for run in runs),
        max(run.seconds for run in runs),
        round(rows / seconds, 1),
        round(_median(run.client_cpu_seconds for run in runs), 3),
        round(_median(run.server_cpu_seconds for run in runs), 3),
        round(_median(run.peak_memory_bytes for run in runs)),
        round(_median(run.lake_bytes for run in runs)),
        round(_median(run.database_bytes for run in runs)),
        round(_median(events)) if events else None,
        round(_median(inside), 3) if inside else None,
        round(_median(in_the_run), 3) if in_the_run else None,
        _medians([run.stages for run in runs]),
        _medians([run.work for run in runs]),
        ratios,
        cpu_ratios,
    )


def _medians(stages: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in stages for name in each)
    return {name: round(_median(each.get(name, 0.0) for each in stages), 3) for name in names}


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def document(
    runs: Sequence[Run],
    latencies: Sequence[Latency],
    absent: dict[str, str],
    failed: Sequence[str],
    where: Document,
    sales_orders: dict[str, int],
    postgres: str,
    answers: Sequence[Answers] = (),
    *,
    follows_log: bool = False,
) -> Document:
    """Everything that was measured, and on what: what ``--json`` writes and ``--guard`` reads."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": where,
        "versions": versions(postgres),
        "memory_is": memory_kind(),
        "sales_orders": sales_orders,
        "follows_log": follows_log,
        "figures": [asdict(each) for each in figures(runs)],
        "latency": [_latency(each) for each in latencies],
        "questions": [asdict(each) for each in answers],
        "absent": absent,
        "failed": list(failed),
        "runs": [asdict(run) for run in runs],
    }


def _latency(measured: Latency) -> Document:
    ordered = sorted(measured.seconds)
    return {
        "scale": measured.scale,
        "samples": len(ordered),
        "p50": percentile(ordered, 50),
        "p95": percentile(ordered, 95),
        "least": ordered[0],
        "most": ordered[-1],
        "memory_bytes": measured.memory_bytes,
        "seconds": measured.seconds,
        "in_the_lake": _in_the_lake(sorted(measured.in_the_lake)),
    }


def _in_the_lake(ordered: Sequence[float]) -> Document | None:
    return {"p50": percentile(ordered, 50), "p95": percentile(ordered, 95)} if ordered else None


def percentile(ordered: Sequence[float], share: int) -> float:
    """The smallest value that ``share`` per cent of the values, which come in order, do not exceed."""
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def machine() -> Document:
    """What the bench runs on, and how busy that is now: a load above the number of cores spoils what follows."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def versions(postgres: str) -> dict[str, str]:
    """Versions of what does the work."""
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        **{package: metadata.version(package) for package in PACKAGES},
        "postgresql": postgres,
    }


def worse(measured: Document, stored: Document, tolerance: float = GUARD_TOLERANCE) -> list[str]:
    """What the guard complains of: ratios of ours that are worse than the stored ones by more than ``tolerance``.

    Ratios, not seconds, for another machine has other seconds. Only what both documents hold is compared; that there
    is nothing to compare is a complaint too.
    """
    now, then = _ratios(measured), _ratios(stored)
    common = [key for key in then if key in now]
    if not common:
        return ["nothing to compare: the stored bench has no scale and scenario in common with this one"]
    return [
        f"{scenario} at {scale}: {now[key]:.2f} times {_WORDS[kind]} {other}, was {then[key]:.2f}"
        for key in common
        for kind, scale, scenario, other in [key]
        if now[key] > then[key] * (1 + tolerance)
    ]


_WORDS = {"ratios": "as long as", "cpu_ratios": "the processor time of"}


def _ratios(bench: Document) -> dict[tuple[str, str, str, str], float]:
    return {
        (kind, each["scale"], each["scenario"], other): ratio
        for each in bench["figures"]
        if each["tool"] == OURS
        for kind in _WORDS
        for other, ratio in each.get(kind, {}).items()  # a bench of before has none of the second
    }
