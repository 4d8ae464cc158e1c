"""The command line's mark: the state in which nothing was left to do, kept as a file in the home.

The sensor keeps the same mark in its cursor. Losing either costs one comparison of fingerprints, nothing else. The
file is not in Dagster's database, so that a refresh that finds nothing to do need not wait for Dagster.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_FILE = "mark"


def read_mark(home: Path) -> str | None:
    """The last mark, or None."""
    with suppress(OSError):
        return (home / _FILE).read_text(encoding="utf-8")
    return None


def marked_at(home: Path, lake: str) -> datetime | None:
    """When the look began that left the last mark, if it was of this lake: then nothing was left to do."""
    mark = read_mark(home)
    with suppress(OSError):
        if mark is None or f'"{lake} ' not in mark:
            return None
        return datetime.fromtimestamp((home / _FILE).stat().st_mtime, UTC)
    return None


def write_mark(home: Path, mark: str, looked_at: float) -> None:
    """Keep a mark for the next look; the time of the file is that of the look, in seconds since 1970."""
    with suppress(OSError):  # where nothing may be written, the next look compares
        home.mkdir(parents=True, exist_ok=True)
        (home / _FILE).write_text(mark, encoding="utf-8")  # a mark that was written by half equals no other
        os.utime(home / _FILE, (looked_at, looked_at))


def cursor_of(mark: str, looked_at: float) -> str:
    """The sensor's cursor: a mark, and when the look began that found nothing to do, in seconds since 1970."""
    return f"{looked_at:.3f} {mark}"


def parse_cursor(cursor: str | None) -> tuple[str | None, float | None]:
    """The mark of a sensor's cursor, and when the look began. Both are None for a cursor of another form."""
    looked_at, _, mark = (cursor or "").partition(" ")
    with suppress(ValueError):
        return mark or None, float(looked_at)
    return None, None
