"""Moments of the past: as users write them, and whether the lake knows of them.

Belongs here: reading what stands for a moment, and refusing one that nothing was recorded of. Does not belong here:
what is read as of a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from totesys_assets.errors import PlatformError
from totesys_assets.sql_text import literal

if TYPE_CHECKING:
    import duckdb
    from deltalake import DeltaTable

    from totesys_assets.lake.tables import Lake


def parsed(value: str | date | datetime) -> datetime:
    """The moment, in UTC, of a text as ISO 8601 writes dates and times, of a date (its first instant), or of a time.

    What names no zone is in UTC. Raises ValueError for a text that is neither, in a sentence.
    """
    try:
        found = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if not isinstance(found, datetime):
            found = datetime.combine(found, time())
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{value!r} is no date or time: write it as 2026-01-31 or 2026-01-31T12:30:00+00:00."
        ) from None


def moment_of(value: str | date | datetime) -> datetime:
    """``parsed``, of something that may have been recorded. Raises PlatformError for what is none, or yet to come."""
    try:
        moment = parsed(value)
    except ValueError as error:
        raise PlatformError(str(error)) from None
    if moment > datetime.now(UTC):
        raise PlatformError(f"{moment:%Y-%m-%d %H:%M:%S} UTC is yet to come: nothing was recorded by then.")
    return moment


def require_recorded(
    connection: duckdb.DuckDBPyConnection, lake: Lake, sources: Mapping[str, DeltaTable], moment: datetime
) -> str:
    """Refuse a moment of which the lake knows nothing, rather than show a business without a single row.

    Returns a sentence that names the tables whose records begin later; empty if there is none. Raises PlatformError,
    which says where the lake's records begin.
    """
    from totesys_assets.catalogue.catalogue import RECORDED_AT
    from totesys_assets.lake.read import register, since_1970

    firsts = [
        f"SELECT {literal(name)}, epoch_us(min({RECORDED_AT})) FROM {register(connection, f'dated_{name}', held)}"
        for name, held in sources.items()
    ]
    if not firsts:
        return ""
    found = connection.execute(" UNION ALL ".join(firsts)).fetchall()
    begins = {name: since_1970(first) for name, first in sorted(found) if first is not None}
    first = min(begins.values(), default=None)
    if first is None or moment < first:
        known = f"its first record is of {first:%Y-%m-%d %H:%M:%S} UTC" if first else "it holds no record"
        raise PlatformError(f"The lake at {lake.uri} knows nothing of {moment:%Y-%m-%d %H:%M:%S} UTC: {known}.")
    later = [f"{name} (at {begin:%Y-%m-%d %H:%M:%S} UTC)" for name, begin in begins.items() if begin > moment]
    return f"The lake's records of these begin later, so they are empty here: {', '.join(later)}." if later else ""
