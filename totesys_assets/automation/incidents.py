"""Incidents: which failures, and which staleness, are worth a message, and when they are over.

Pure functions of moments (seconds since 1970). No Dagster, no I/O. Does not belong here: finding the moments
(alerts.py), and how a message is sent (notices.py).

The platform is up to date at the end of a look that found nothing to do, and of a refresh that succeeded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

_HOUR = 3600
# A day, and what one night may take longer than the one before.
_NIGHTLY_WITHIN = 26 * _HOUR
# A watch with a longer gap than this begins anew: a machine that slept through the night did not forget its work.
_GAP = 1 * _HOUR


def is_worth_a_message(failed: float, told: float | None) -> bool:
    """Whether a run that failed is worth a message. ``told``: when the last one failed that was; None if none was.

    Refreshes are tried again every ten minutes or more often. Of one cause there is at most one message an hour.
    """
    return told is None or failed - told >= _HOUR


def overdue(ended: Mapping[str, float | None], since: float, now: float) -> list[str]:
    """The nightly jobs of which no run has ended for more than a day. ``ended``: job -> when its newest run did.

    ``since``: when somebody began to watch. A job that has not run yet is due a day after that.
    """
    return [job for job, moment in ended.items() if now - max(moment or 0.0, since) > _NIGHTLY_WITHIN]


@dataclass(frozen=True)
class Known:
    """What one evaluation keeps for the next: when the platform was last up to date, whether staleness was reported.

    ``counted`` is the run after which the ``open`` dead letters were counted; only runs change their number.
    ``blocked`` and ``missed``: tables reported as such, with the reason. ``log_lost``: the loss of the log that was
    reported last, by its moment, and ``log_open`` until it is over; ``kept_told`` while too much of it is kept.
    ``since`` and ``at``: when the watch began, and when this was kept. ``measured``: the number of the newest refresh
    whose lag was told, -1 at first. ``overdue`` and ``off``: what was reported as such.
    Losing all of this costs at most one message of each kind.
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
    since: float = 0.0
    at: float = 0.0
    measured: int = -1
    overdue: list[str] = field(default_factory=list)
    off: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, cursor: str | None, now: float) -> Known:
        """What ``cursor`` holds; without one the clock starts now."""
        try:
            known = cls(**json.loads(cursor or ""))
        except (TypeError, ValueError):  # there is none yet, or another version wrote it
            known = cls(up_to_date=now)
        # A clock that was ahead for a while must not hide that it is stale until that moment comes.
        return replace(
            known, at=now, up_to_date=min(known.up_to_date, now), since=known.since if now - known.at <= _GAP else now
        )

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
    """The verdict on a platform last up to date at ``up_to_date``, of whose refresh that failed at ``failed`` was told.

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


def news_of_overdue(reported: Sequence[str], found: Sequence[str]) -> tuple[str, str] | None:
    """Subject and text of the message about nightly jobs that are overdue; None if there is nothing new."""
    new, over = [job for job in found if job not in reported], [job for job in reported if job not in found]
    if new:
        return f"ToteSys: no run of {' and '.join(new)} ended last night", (
            f"None has for {_NIGHTLY_WITHIN // _HOUR} hours. Its schedule is off, the daemon was down at night, or the "
            "run waits or still runs: see the schedule and the list of runs. Start the job by hand to make up for it."
        )
    return (f"ToteSys: a run of {' and '.join(over)} has ended again", "It is over.") if over else None


def news_of_off(reported: Sequence[str], found: Sequence[str]) -> tuple[str, str] | None:
    """Subject and text of the message about sensors and schedules that were switched off; None if nothing is new."""
    new, over = [name for name in found if name not in reported], [name for name in reported if name not in found]
    if new:
        return f"ToteSys: switched off: {', '.join(new)}", (
            "Somebody switched it off in the UI. What it does stays undone, and what it tells untold, until it is on."
        )
    return (f"ToteSys: on again: {', '.join(over)}", "It is over.") if over else None


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment is not None else "then"


def _named(tables: list[str]) -> str:
    return f"the table {tables[0]}" if len(tables) == 1 else f"{len(tables)} tables"
