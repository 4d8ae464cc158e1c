"""Locks between processes of one machine: files that the kernel unlocks when the holding process ends.

Belongs here: taking them, waiting for them, and saying for whom. Does not belong here: what they protect.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from totesys_assets.errors import PlatformError
from totesys_assets.local import homes

if TYPE_CHECKING:
    import psutil

Report = Callable[[str], None]
# Seconds until a waiting process says for whom it waits, and until it says so again.
FIRST_WORD_SECONDS, NEXT_WORD_SECONDS = 3.0, 60.0
_POLL_SECONDS = 0.02
_LONGEST_NAME = 60


class Locked(PlatformError):
    """Another process has held a lock for too long."""


@contextmanager
def opened(lock: Path) -> Iterator[int]:
    """Give the lock's file, made if need be, as a descriptor that programs we start do not inherit."""
    # Read-only, so that a normal user's process can share a lock file that root created.
    file = os.open(lock, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        yield file
    finally:
        os.close(file)


def locked(file: int, operation: int) -> bool:
    """Try ``fcntl.flock`` with a non-blocking ``operation``. Returns whether the file is locked now."""
    with suppress(BlockingIOError):
        fcntl.flock(file, operation)
        return True
    return False


@contextmanager
def held(lock: Path, what: str, say: Report, timeout: float) -> Iterator[None]:
    """Hold ``lock`` for the block, ``what`` being what its holder does with it, as in "which fills ToteSys".

    A waiting process says for whom it waits after three seconds, and raises Locked after ``timeout`` seconds.
    """
    began, word = time.monotonic(), FIRST_WORD_SECONDS
    with opened(lock) as file:
        while not locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            waited = time.monotonic() - began
            if waited > timeout:
                raise Locked(
                    f"Waited {waited:.0f} s for {holder(lock)}, which {what}. End it, or see why it does not go on."
                )
            if waited > word:
                say(f"waiting for {holder(lock)}, which {what}")
                word = waited + NEXT_WORD_SECONDS
            time.sleep(_POLL_SECONDS)
        _note(lock)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # said aloud: a forked child may still have the file open


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold ``lock`` for the block. Raises Locked at once, naming the process that holds it."""
    homes.prepare(lock.parent)
    with opened(lock) as file:
        if not locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            raise Locked(
                f"{what} is already running on {lock.parent}: {holder(lock)}. Stop it with Ctrl-C there, or set "
                "TOTESYS_HOME to another folder."
            )
        _note(lock)
        yield


def holder(lock: Path) -> str:
    """The process that holds the lock, if known: id, command, since when, and whether it is stopped."""
    import psutil  # here: nobody waits, as a rule

    process = taken_by(lock)
    with suppress(psutil.Error):
        if process is not None:
            since = f"{datetime.fromtimestamp(process.create_time()):%H:%M:%S}"
            stopped, number = process.status() == psutil.STATUS_STOPPED, process.pid
            hint = f", and is stopped: kill -CONT {number} lets it go on, kill -9 {number} ends it" if stopped else ""
            return f"process {number} ({_name(process.cmdline())}, running since {since}{hint})"
    return "another process"


def taken_by(lock: Path) -> psutil.Process | None:
    """The process that took the lock last, if it is known and lives."""
    import psutil

    with suppress(OSError, ValueError, psutil.Error):
        number, noted = lock.read_text(encoding="ascii").split()
        process = psutil.Process(int(number))
        if process.create_time() <= float(noted) + 1:  # else the number has been given away again
            return process
    return None


def _name(command: list[str]) -> str:
    """The command, roughly as it was typed: without the interpreter and the folders of programs."""
    words = command[1:] if len(command) > 1 and Path(command[0]).name.startswith("python") else command
    text = " ".join([Path(words[0]).name, *words[1:]]) if words else "unknown"
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"


def _note(lock: Path) -> None:
    """Note in the file who holds the lock, unless another user created the file."""
    with suppress(OSError):
        lock.write_text(f"{os.getpid()} {time.time():.3f}", encoding="ascii")
