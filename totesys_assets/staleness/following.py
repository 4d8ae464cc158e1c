"""Following the log of ToteSys, as whoever refreshes decides it, and what an operator is told of it.

Does not belong here: how tables follow from the log, which is capture/following.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from totesys_assets.capture import following
from totesys_assets.capture.journal import Journal
from totesys_assets.capture.log_notes import read_note
from totesys_assets.platform import Platform
from totesys_assets.source.totesys import Totesys
from totesys_assets.source.totesys.log import Log


@dataclass(frozen=True)
class LogCondition:
    """How the log is followed. ``since`` when it is; or ``lost_at`` and ``reason``: since when it is not, and why.

    ``behind_bytes`` of the log are not in the journal yet; the source keeps ``kept_bytes`` of it for us, of
    ``allowed_bytes``. None where it is not followed.
    """

    lost_at: datetime | None = None
    reason: str | None = None
    behind_bytes: int | None = None
    kept_bytes: int | None = None
    allowed_bytes: int | None = None
    since: datetime | None = None


def begin_following(platform: Platform) -> None:
    """Before a look: follow the log from now on, if that is wanted; or give it up. Raises ConnectionFailed."""
    if (log := _log(platform)) is not None:
        following.begin(platform.lake, log)


def end_following(platform: Platform) -> None:
    """End the sessions in which the log was read. The slot stays."""
    if (log := _log(platform)) is not None:
        log.close()


def log_condition(platform: Platform) -> LogCondition | None:
    """How the log is followed; None where that is not wanted. Raises ConnectionFailed."""
    log = _log(platform)
    if log is None or not log.wanted:
        return None
    note = read_note(platform.lake)
    position = Journal(platform.lake, log.schema, log.tables).position(log)
    if position is None:
        if note.loss is None or note.since is not None:
            return LogCondition(reason=_missing(log) or "it begins with the next refresh")
        return LogCondition(note.loss.at, note.loss.why)
    state = log.state()
    return LogCondition(
        behind_bytes=max(0, (state.flushed or position) - position),
        kept_bytes=state.slot.retained if state.slot else None,
        allowed_bytes=state.keep_bytes,
        since=note.since,
    )


def _missing(log: Log) -> str | None:
    """What keeps the log from beginning; None if nothing does. Tables that cannot be followed are compared."""
    needs = [each for each in log.needs(log.state()) if not each.met and not each.advice]
    names = [each.name for each in needs if not each.name.startswith("table ")]
    return f"`totesys log check` says what is missing: {', '.join(names)}" if names else None


def why_not_followed(platform: Platform) -> str | None:
    """Why the log is not followed though that is wanted; None where it is, or where it is not wanted."""
    log = _log(platform)
    if log is None or not log.wanted:
        return None
    note = read_note(platform.lake)
    return note.loss.why if note.since is None and note.loss is not None else None


def _log(platform: Platform) -> Log | None:
    return next((source.log for source in platform.sources if isinstance(source, Totesys)), None)
