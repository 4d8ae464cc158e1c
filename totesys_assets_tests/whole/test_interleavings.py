"""Random interleavings of writers, refreshes and mishaps: nothing is lost, nothing doubled. `make soak` goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from totesys_assets_tests import soak
from totesys_assets_tests.harness.logged_world import LoggedLaboratory
from totesys_assets_tests.harness.machine import Interleavings, InterleavingsWithLog, InterleavingsWithRanges
from totesys_assets_tests.harness.world import Laboratory, Tally

# The same series everywhere, in which most kinds of mishaps have a place; other ones are for `make soak`.
SEED = 25
LOG_SEED = 11
RANGE_SEED = 3
SERIES = settings(
    max_examples=3,
    database=None,
    deadline=None,
    # An example is a whole world, with seconds of work in it.
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def laboratory(scratch: Path) -> Iterator[Laboratory]:
    folder = scratch / "laboratory"
    folder.mkdir()
    with Laboratory(folder).open() as opened:
        yield opened


@pytest.mark.parametrize(
    ("steps", "runs", "statements"), [(6, 3, 5), pytest.param(25, 10, 50, marks=pytest.mark.thorough)]
)
def test_whatever_happens_in_whatever_order_the_warehouse_has_every_state_once(
    laboratory: Laboratory, steps: int, runs: int, statements: int
) -> None:
    machine = type("Machine", (Interleavings,), {"laboratory": laboratory})
    run_state_machine_as_test(seed(SEED)(machine), settings=settings(SERIES, stateful_step_count=steps))
    tally = laboratory.tally
    assert tally.lost == tally.doubled == 0
    # That it was worth the while.
    assert tally.interleavings >= SERIES.max_examples
    assert min(tally.runs, tally.faults) > runs
    assert min(tally.statements, tally.versions) > statements


@pytest.mark.parametrize(("steps", "examples"), [(3, 1), pytest.param(25, 3, marks=pytest.mark.thorough)])
def test_whatever_happens_between_ranges_the_warehouse_has_every_state_once(
    laboratory: Laboratory, steps: int, examples: int
) -> None:
    machine = type("Machine", (InterleavingsWithRanges,), {"laboratory": laboratory})
    series = settings(SERIES, max_examples=examples, stateful_step_count=steps)
    run_state_machine_as_test(seed(RANGE_SEED)(machine), settings=series)
    assert laboratory.tally.lost == laboratory.tally.doubled == 0


@pytest.mark.thorough
def test_whatever_happens_marts_and_a_source_of_files_follow_too() -> None:
    tally, failure = soak.run_in_a_copy(SEED)
    assert not failure
    assert tally.lost == tally.doubled == 0
    # That it was worth the while.
    assert tally.runs > 10
    assert tally.faults > 2


@pytest.mark.parametrize(
    ("steps", "examples", "followed"), [(3, 1, 2), pytest.param(25, 3, 40, marks=pytest.mark.thorough)]
)
def test_whatever_happens_to_the_log_the_lake_has_every_committed_version_once(
    scratch: Path, steps: int, examples: int, followed: int
) -> None:
    """Where it could not be followed, every state that a refresh could see."""
    folder = scratch / f"logged_{steps}"
    folder.mkdir()
    with LoggedLaboratory(folder).open() as laboratory:
        machine = type("Machine", (InterleavingsWithLog,), {"laboratory": laboratory})
        series = settings(SERIES, max_examples=examples, stateful_step_count=steps)
        run_state_machine_as_test(seed(LOG_SEED)(machine), settings=series)
        tally = laboratory.tally
        assert tally.lost == tally.doubled == 0
        assert isinstance(laboratory, LoggedLaboratory)
        assert laboratory.followings.followed > followed


def test_every_second_seed_of_a_soak_has_marts_and_files_and_every_fourth_the_log(
    monkeypatch: pytest.MonkeyPatch, laboratory: Laboratory
) -> None:
    ran: list[str] = []

    def in_a_copy(number: int) -> tuple[Tally, str]:
        ran.append(f"{number} in a copy")
        return Tally(runs=2), "a row of the mart too many"

    def with_the_log(_tally: Tally, number: int) -> str:
        ran.append(f"{number} with the log")
        return ""

    def here(_laboratory: Laboratory, _kind: object, number: int) -> str:
        ran.append(f"{number} here")
        return ""

    monkeypatch.setattr(soak, "run_in_a_copy", in_a_copy)
    monkeypatch.setattr(soak, "run_with_the_log", with_the_log)
    monkeypatch.setattr(soak, "run_here", here)
    runs_before = laboratory.tally.runs
    every = soak.Soak(laboratory)
    for number in (6, 7, 8):
        every.run(number)
    assert ran == ["6 with the log", "7 in a copy", "8 here"]
    assert every.failures == {7: "a row of the mart too many"}
    assert laboratory.tally.runs == runs_before + 2


# A world as `make soak` has them: in a process that pytest knows nothing of.
OUTSIDE = """
import sys
from pathlib import Path
from totesys_assets_tests.harness.world import Laboratory

with Laboratory(Path(sys.argv[1])).open() as laboratory, laboratory.world() as world:
    world.refresh()
    print(world.tally.refreshes)
"""


def test_a_world_needs_nothing_of_pytest(scratch: Path) -> None:
    folder = scratch / "outside"
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TOTESYS_", "DAGSTER_"))}
    command = [sys.executable, "-W", "ignore", "-c", OUTSIDE, str(folder)]
    project = Path(__file__).parents[2]
    ran = subprocess.run(command, cwd=project, env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= 1


def test_a_soak_that_finds_something_says_so_with_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_something(_machine: object, *, settings: object) -> None:
        raise AssertionError("a row too many")

    monkeypatch.setattr(soak, "run_state_machine_as_test", find_something)
    report = tmp_path / "report.md"
    assert soak.main(["--minutes", "0", "--seed", "8", "--report", str(report)]) == 1
    assert "seed 8 failed" in capsys.readouterr().out
    assert "seeds 8 to 8: FAILED" in report.read_text()
    assert "AssertionError: a row too many" in report.read_text()
