"""Incidents: when what the runs and the sensor tell is worth a message, and when it is over.

Pure functions of moments (seconds since 1970). No Dagster, no I/O. Does not belong here: finding the moments
(alerts.py), and how a message is sent (notices.py).

The platform is up to date at the end of a look that found nothing to do, and of a refresh that succeeded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

_HOUR = 3600


def is_told(failed: float, before: float | None) -> bool:
    """Whether a refresh that failed is worth a message. ``before``: when the refresh before it failed, None if not.

    The sensor tries again at intervals of ten minutes at most, for as long as it takes. Told are the first failure and
    the first of each further hour by the clock.
    """
    return before is None or int(before) // _HOUR != int(failed) // _HOUR


@dataclass(frozen=True)
class Known:
    """What an evaluation leaves to the next: when the platform was last seen up to date, whether staleness was told.

    ``counted`` is the run after which ``open`` dead letters were counted; they change with runs only. ``blocked`` are
    the tables that were told of, with the reason. Losing all this costs a message at most.
    """

    up_to_date: float
    stale_told: bool = False
    counted: str | None = None
    open: int = 0
    blocked: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None, now: float) -> Known:
        """What ``cursor`` holds; without one the clock starts now."""
        try:
            return cls(**json.loads(cursor or ""))
        except (TypeError, ValueError):  # none yet, or that of another version
            return cls(up_to_date=now)

    def write(self) -> str:
        """The cursor."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Verdict:
    """``up_to_date``: the newest such moment, ``is_news`` if it is newer than the one known.

    ``stale_minutes``: since when it is too long ago, else None. ``is_over``: failures or staleness that were told of
    have come to an end.
    """

    up_to_date: float
    is_news: bool
    stale_minutes: int | None
    is_over: bool


def judge(known: Known, up_to_date: float | None, failed: float | None, now: float, patience: float) -> Verdict:
    """What to say of a platform last up to date at ``up_to_date``, whose newest failed refresh ended at ``failed``.

    It is stale when it was not up to date for ``patience`` seconds.
    """
    newest = max(known.up_to_date, up_to_date or 0.0)
    age = now - newest
    has_failed = failed is not None and known.up_to_date < failed < newest
    return Verdict(
        up_to_date=newest,
        is_news=newest > known.up_to_date,
        stale_minutes=int(age // 60) if age > patience else None,
        is_over=age <= patience and (known.stale_told or has_failed),
    )


def news_of_blocked(told: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, str] | None:
    """Subject and text of the message about tables that cannot be captured; None if all of it was told.

    ``told`` and ``found``: table -> reason. A table is told of once, though the reason changes, and when it is over.
    """
    new, over = [name for name in found if name not in told], [name for name in told if name not in found]
    if not new and not over:
        return None
    text = list(dict.fromkeys(found[name] for name in new))
    text += [f"Captured again: {', '.join(over)}."] if over else []
    text += [f"Still not captured: {', '.join(name for name in found if name in told)}."] if found.keys() & told else []
    subject = f"{_named(new)} cannot be captured" if new else f"{_named(over)} can be captured again"
    return f"ToteSys: {subject}", "\n".join(text)


def _named(tables: list[str]) -> str:
    return f"the table {tables[0]}" if len(tables) == 1 else f"{len(tables)} tables"
