"""What the questions cost: each is asked of the warehouse after a full load, in a session of a reader.

Belongs here: asking and timing. Does not belong here: the questions (insights/), and whole processes (rounds.py).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from totesys_assets.insights.questions import defaults, questions
from totesys_assets.insights.reading import Reader
from totesys_assets_tests.bench.sandbox import Sandbox

REPEATS = 5
Report = Callable[[str], None]


@dataclass(frozen=True)
class Answers:
    """Milliseconds until the answer is there, by question: the median of REPEATS, after one that is not counted."""

    scale: str
    milliseconds: dict[str, float]


def measure(sandbox: Sandbox, report: Report) -> Answers:
    """Ask every question with its default parameters."""
    reader = Reader(sandbox.urls.warehouse, "public", variable="WAREHOUSE_URL", name="bench")
    parameters = defaults(datetime.now(UTC).date())
    found: dict[str, float] = {}
    try:
        for name in questions():
            reader.answer(name, **parameters)
            found[name] = round(statistics.median(_asked(reader, name, parameters) for _ in range(REPEATS)) * 1000, 1)
            report(f"{sandbox.scale.name} {name}: {found[name]:.1f} ms")
    finally:
        reader.close()
    return Answers(sandbox.scale.name, found)


def _asked(reader: Reader, name: str, parameters: dict[str, object]) -> float:
    started = time.perf_counter()
    reader.answer(name, **parameters)
    return time.perf_counter() - started
