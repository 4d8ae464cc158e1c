"""Random interleavings of writers, refreshes and mishaps: nothing is lost, nothing doubled. `make soak` goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from totesys_assets_tests.harness.machine import Interleavings
from totesys_assets_tests.harness.world import Laboratory

QUICK = settings(
    max_examples=8,
    stateful_step_count=25,
    derandomize=True,  # the same series everywhere; other ones are for `make soak`
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


def test_whatever_happens_in_whatever_order_the_warehouse_has_every_state_once(laboratory: Laboratory) -> None:
    machine = type("Machine", (Interleavings,), {"laboratory": laboratory})
    run_state_machine_as_test(machine, settings=QUICK)
    tally = laboratory.tally
    assert tally.lost == tally.doubled == 0
    # That it was worth the while.
    assert tally.interleavings >= QUICK.max_examples
    assert min(tally.refreshes, tally.statements, tally.faults, tally.versions) > 50
