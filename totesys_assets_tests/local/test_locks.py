"""Locks between processes: who waits says for whom, and the lock of a process that is gone is free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from totesys_assets.local import locks
from totesys_assets.local.locks import Locked, held, holder, only_one

HOLD = """
import sys, time
from pathlib import Path
from totesys_assets.local.locks import held

with held(Path(sys.argv[1]), "sleeps", print, 10):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def another(lock: Path, seconds: float = 600) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(lock), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_who_waits_says_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "FIRST_WORD_SECONDS", 0.1)
    lock, said = tmp_path / "lock", list[str]()
    with another(lock, seconds=1) as process, held(lock, "sleeps", said.append, 30):
        (told,) = said
        assert f"waiting for process {process.pid} (" in told
        assert told.endswith("which sleeps")


def test_who_waits_for_a_stopped_process_is_told_and_does_not_wait_for_ever(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with another(lock) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(Locked, match=f"kill -CONT {process.pid} lets it go on"), held(lock, "x", print, 0.2):
            pytest.fail("the lock is held")


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with another(lock) as process:
        process.send_signal(signal.SIGSTOP)
        process.kill()
        process.wait()
        with held(lock, "x", print, 0.2):
            pass


def test_a_process_that_has_the_number_by_now_is_not_named(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"{os.getpid()} 1000000000.0")
    assert holder(lock) == "another process"
    lock.write_text("nonsense")
    assert holder(lock) == "another process"


def test_the_only_one_is_named_to_the_next(tmp_path: Path) -> None:
    lock = tmp_path / "up.lock"
    with another(lock) as process:
        with (
            pytest.raises(Locked, match=rf"already running on .*: process {process.pid} \("),
            only_one(lock, "totesys up"),
        ):
            pytest.fail("the lock is held")
        process.kill()
        process.wait()
        with only_one(lock, "totesys up"):
            assert f"process {os.getpid()} (" in holder(lock)
