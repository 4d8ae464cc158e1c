"""What the failures of an embedded PostgreSQL mean, in a sentence that says what to do."""

import errno
import os
from pathlib import Path

from totesys_assets.errors import PlatformError

BEGIN_BYTES = 300_000_000  # two servers with a small ToteSys, its warehouse and Dagster's records took 230 MB


class EmbeddedError(PlatformError):
    """An embedded server cannot do what was asked; the message says why, and what to do."""


def is_full(said: str) -> bool:
    """Whether that was said because a disk is full."""
    return os.strerror(errno.ENOSPC) in said or "free disk space" in said  # the latter after a write cut short


def disk_full(folder: Path, free: int | None = None) -> str:
    """What to say where the disk of a folder is full, or has only so many bytes ``free``."""
    state = "is full" if free is None else f"has {free // 1_000_000} MB free"
    return (
        f"The disk of {folder} {state}: the embedded PostgreSQL servers need about {BEGIN_BYTES // 1_000_000} MB to "
        "begin with. Free some space, or set TOTESYS_HOME to a folder on another disk."
    )


def explain(failure: str, folder: Path) -> str:
    """What a server's failure means, in a sentence that says what to do, as far as it is known."""
    if is_full(failure):
        return disk_full(folder)
    if os.strerror(errno.EACCES) in failure:
        return (
            f"What PostgreSQL needs in {folder} belongs to another user: run as that user, or set TOTESYS_HOME to "
            f"another folder. ({failure})"
        )
    return f"PostgreSQL in {folder} does not work:\n{failure}"
