"""Interrupted at any instant, a first refresh ends soon, in words, and leaves no process; the next one completes it."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from totesys_assets_tests.harness.home import Home

pytestmark = pytest.mark.thorough

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A first refresh of so little takes longer, with its servers, on any machine.
LONGEST = 6.0


@pytest.mark.parametrize("seed", range(8))
def test_a_first_refresh_interrupted_again_and_again_is_completed_by_the_next(seed: int, scratch: Path) -> None:
    chosen, home = random.Random(seed), Home(scratch / f"interrupted_{seed}")
    for _ in range(3):
        after, kind, twice = chosen.uniform(0.05, LONGEST), chosen.choice(KINDS), chosen.random() < 0.3
        process = home.start("refresh", "--scale", "0.02")
        time.sleep(after)
        process.send_signal(kind)
        if twice:
            time.sleep(chosen.uniform(0, 0.3))
            process.send_signal(kind)
        text, _ = process.communicate(timeout=30)
        told = f"{kind.name} after {after:.2f} s{', twice' if twice else ''}: {text}"
        # A traceback of Python's own start, before there is anything of ours, names no module of the package.
        assert "/totesys_assets/" not in text, told
        assert "unexpected" not in text, told
        assert process.returncode in (0, -kind, 128 + kind), told
        assert nothing_left(home), told
    ended = home.run("refresh", "--scale", "0.02")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    audited = home.run("audit")
    assert audited.returncode == 0, audited.stdout + audited.stderr


def nothing_left(home: Home) -> bool:
    """Whether no process of the home is left; a server whose commands were ended at once stops within seconds."""
    deadline = time.monotonic() + 30
    while home.processes():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
