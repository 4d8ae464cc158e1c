"""Folders of a process on the disk: for what does not fit in a DuckDB's memory, and for files on their way to a bucket.

The files of every DuckDB have the same names, and none is locked. Two with one folder would read each other's rows, or
crash. A process locks a folder in the system's folder for temporary files, for as long as it lives. There it has all
of its own. What a killed process left, the next one removes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from functools import lru_cache
from itertools import count
from pathlib import Path

_NAME = "totesys-duckdb"
_NUMBERS = count()
# What is no folder, leads elsewhere, or is not for us.
_OF_OTHERS = (errno.ENOTDIR, errno.ELOOP, errno.EACCES)


def folder() -> str:
    """A folder that is not there yet. Who makes it, as DuckDB does when it has something to spill, removes it."""
    return str(_of_process(os.getpid()) / str(next(_NUMBERS)))


@lru_cache(maxsize=1)
def _of_process(_: int) -> Path:
    """The first folder that no process holds, without what a killed one left there. A forked process has another."""
    for number in count():
        place = Path(tempfile.gettempdir(), f"{_NAME}-{number}")
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
        if _is_ours(place):
            for left in place.iterdir():
                shutil.rmtree(left, ignore_errors=True)
            return place
    raise AssertionError  # there is always a next number


def _is_ours(place: Path) -> bool:
    """Whether the folder is this user's and this process could lock it; the lock lasts as long as the process."""
    try:
        opened = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _OF_OTHERS:
            return False
        raise
    if os.fstat(opened).st_uid == os.geteuid():
        with suppress(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    os.close(opened)
    return False
