"""Incidents: which failures, and which staleness, are worth a message, and when they are over.

Pure functions of moments (seconds since 1970). No Dagster, no I/O. Does not belong here: finding the moments
(alerts.py), and how a message is sent (notices.py).

The platform is up to date at the end of a look that found nothing to do, and of a refresh that succeeded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime

_HOUR = 3600


def is_worth_a_message(failed: float, before: float | None) -> bool:
    """Whether a refresh that failed is worth a message. ``before``: when the refresh before it failed; None if not.

    The sensor retries every ten minutes or more often, until a refresh succeeds. The first failure is reported, and
    then the first of every hour by the clock.
    """
    return before is None or int(before) // _HOUR != int(failed) // _HOUR


@dataclass(frozen=True)
class Known:
    """What one evaluation keeps for the next: when the platform was last up to date, whether staleness was reported.

    ``counted`` is the run after which the ``open`` dead letters were counted; only runs change their number.
    ``blocked`` and ``missed``: tables reported as such, with the reason. ``log_lost``: the loss of the log that was
    reported last, by its moment, and ``log_open`` until it is over; ``kept_told`` while too much of it is kept. Losing
    all of this costs at most one message of each kind.
    """

    up_to_date: float
    stale_told: bool = False
    counted: str | None = None
    open: int = 0
    blocked: dict[str, str] = field(default_factory=dict)
    missed: dict[str, str] = field(default_factory=dict)
    log_lost: str = ""
    log_open: bool = False
    kept_told: bool = False

    @classmethod
    def read(cls, cursor: str | None, now: float) -> Known:
        """What ``cursor`` holds; without one the clock starts now."""
        try:
            return cls(**json.loads(cursor or ""))
        except (TypeError, ValueError):  # there is none yet, or another version wrote it
            return cls(up_to_date=now)

    def write(self) -> str:
        """The cursor."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Verdict:
    """``up_to_date``: when the platform was last up to date; ``is_news`` if that was not known before.

    ``stale_minutes``: how long ago that was, if it is too long; else None. ``is_over``: the failures or the staleness
    that were reported have ended.
    """

    up_to_date: float
    is_news: bool
    stale_minutes: int | None
    is_over: bool


def judge(known: Known, up_to_date: float | None, failed: float | None, now: float, stale_after: float) -> Verdict:
    """The verdict on a platform last up to date at ``up_to_date``, whose newest failed refresh ended at ``failed``.

    It is stale if it was last up to date more than ``stale_after`` seconds ago.
    """
    newest = max(known.up_to_date, up_to_date or 0.0)
    age = now - newest
    has_failed = failed is not None and known.up_to_date < failed < newest
    return Verdict(
        up_to_date=newest,
        is_news=newest > known.up_to_date,
        stale_minutes=int(age // 60) if age > stale_after else None,
        is_over=age <= stale_after and (known.stale_told or has_failed),
    )


def news_of_blocked(reported: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, str] | None:
    """Subject and text of the message about tables that cannot be captured; None if there is nothing new.

    ``reported`` and ``found``: table -> reason. A table is reported once, even if the reason changes, and again when it
    can be captured.
    """
    new, over = [name for name in found if name not in reported], [name for name in reported if name not in found]
    if not new and not over:
        return None
    text = list(dict.fromkeys(found[name] for name in new))
    text += [f"Captured again: {', '.join(over)}."] if over else []
    text += (
        [f"Still not captured: {', '.join(name for name in found if name in reported)}."]
        if found.keys() & reported
        else []
    )
    subject = f"{_named(new)} cannot be captured" if new else f"{_named(over)} can be captured again"
    return f"ToteSys: {subject}", "\n".join(text)


def news_of_missed(reported: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, str] | None:
    """Subject and text of the message about versions that only a comparison found; None if there is nothing new.

    ``reported`` and ``found``: table -> what was missed. It is reported again when another comparison finds more.
    """
    new = [name for name, what in found.items() if reported.get(name) != what]
    over = [name for name in reported if name not in found]
    if new:
        return f"ToteSys: a comparison found what was missed of {_named(new)}", "\n".join(found[name] for name in new)
    if over:
        return f"ToteSys: nothing is missed any more of {_named(over)}", "The last comparison found nothing to mend."
    return None


def news_of_log(
    known: Known, lost_at: datetime | None, reason: str, seen_until: datetime | None, since: datetime | None
) -> tuple[str, str] | None:
    """Subject and text of the message about following the log; None if there is nothing new.

    ``lost_at``, ``reason`` and ``seen_until`` are of the last loss; ``since``: it is followed since then, None if not.
    """
    if lost_at is None:
        return None
    why = f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
    seen = f" Every version that was committed until {_at(seen_until)} was seen." if seen_until is not None else ""
    twice = "of a row that changed more than once between two refreshes, the last state was seen."
    over = f"It is followed again since {_at(since)}.{seen} In between tables were compared: {twice}" if since else ""
    if lost_at.isoformat() != known.log_lost:
        if over:
            return "ToteSys: its log was not followed for a while", f"From {_at(lost_at)}: {why} {over}"
        return "ToteSys: its log is not followed", (
            f"{why}{seen} Until it goes on, which is tried every minute, tables are compared: {twice}"
        )
    return ("ToteSys: its log is followed again", over) if known.log_open and over else None


def news_of_kept(told: bool, percent: int, half: int) -> tuple[str, str] | None:
    """Subject and text of the message about how much of the log is kept for us; None if there is nothing new."""
    if percent > half and not told:
        return f"ToteSys: {percent} % of the log that its server may keep for us is kept", (
            "At 80 % the log is given up, and tables are compared. Either the platform was away for long, which is "
            "over by now; or a transaction stays open in ToteSys, see pg_stat_activity; or the limit is small for what "
            "the server writes: raise max_slot_wal_keep_size."
        )
    if percent <= half and told:
        return "ToteSys: its server keeps less log for us again", f"It keeps {percent} % of what it may."
    return None


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment is not None else "then"


def _named(tables: list[str]) -> str:
    return f"the table {tables[0]}" if len(tables) == 1 else f"{len(tables)} tables"
