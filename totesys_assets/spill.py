"""Folders of a process on the disk: for what does not fit in a DuckDB's memory, and for files on their way to a bucket.

The files of every DuckDB have the same names, and none is locked. Two with one folder would read each other's rows, or
crash. A process locks a folder in the system's folder for temporary files, for as long as it lives. There it has all
of its own. What a killed process left, the next one removes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
from pathlib import Path

from totesys_assets.errors import TemporaryFilesFailed

_NAME = "totesys-duckdb"
_NUMBERS = count()
# What Python calls a new file or folder there.
_RANDOM = re.compile(r"(tmp|totesys-)[a-z0-9_]{8}")
# What is no folder, leads elsewhere, or is not for us.
_OF_OTHERS = (errno.ENOTDIR, errno.ELOOP, errno.EACCES)
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What DuckDB says where its folder has no more room, and Python where no folder can be written.
_DUCKDB_FULL, _NONE = "max_temp_directory_size", "No usable temporary directory"


def folder() -> str:
    """A folder that is not there yet. Who makes it, as DuckDB does when it has something to spill, removes it."""
    with told():
        return str(_of_process(os.getpid()) / str(next(_NUMBERS)))


@contextmanager
def told() -> Iterator[None]:
    """Raise TemporaryFilesFailed for an OSError of the system, in a block that works with temporary files only."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # one of ours, of a bucket
            raise
        raise TemporaryFilesFailed(_sentence(error)) from error


def sentence(error: OSError) -> str | None:
    """What to do about an error of a temporary file; None for an error of something else."""
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else Path()
    is_ours = named.parent == _parent() and _RANDOM.fullmatch(named.name)
    return _sentence(error) if is_ours or _NONE in str(error) else None


def trouble(said: str) -> str | None:
    """What to do where DuckDB ``said`` that its folder fails, as a clause; None where it said something else."""
    if _DUCKDB_FULL in said or (_NAME in said and os.strerror(errno.ENOSPC) in said):
        return _clause(None)
    return _clause(said.rpartition(": ")[2]) if _NAME in said else None


def _sentence(error: OSError) -> str:
    clause = _clause(None if error.errno in _FULL else os.strerror(error.errno or 0))
    return f"{clause[0].upper()}{clause[1:]}. The next refresh does what is left to do."


def _clause(why: str | None) -> str:
    """``why``: what the system says, or None where the folder is full."""
    place, named = _parent(), os.environ.get("TMPDIR")
    if place is None:
        return "no folder can be written for temporary files: set TMPDIR to one that can"
    other = f" (TMPDIR names {named}, which could not be written)" if named and Path(named) != place else ""
    if why is None:
        return (
            f"{place}, the folder for temporary files, is full{other}: free some, or set TMPDIR to one with more room"
        )
    said = f"{why[:1].lower()}{why[1:]}"
    return f"{place}, the folder for temporary files, fails{other}: {said}. Set TMPDIR to one that can be written"


def _parent() -> Path | None:
    """The system's folder for temporary files, as it was found first; None where none can be written."""
    with suppress(OSError):
        return Path(tempfile.gettempdir())
    return None


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
