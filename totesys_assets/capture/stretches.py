"""Stretches of a table's history in which every committed version was seen, as the ledger notes them.

Belongs here: beginning and ending a stretch, and which there are. Does not belong here: when a table is followed
(following.py). Outside of stretches, history has what comparisons saw: of a row that changed more than once between
two refreshes, the last state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Self

from totesys_assets.capture.ledger import Entry
from totesys_assets.capture.log_notes import FOLLOWED, LogNote

# Asset of the ledger's entries about stretches. The partition is the table with the moment at which one began, the
# state when it ended, and why; empty while it goes on.
STRETCHES = "followed"
_COMPARED = "the table was compared once, for its columns had changed, or the log alone did not tell what became of it"
_MISSED = "a comparison found versions that the log had not told of"


@dataclass(frozen=True)
class Stretch:
    """From ``since`` to ``until`` (None: it goes on) every version was seen. ``reason``: why it ended."""

    since: datetime
    until: datetime | None = None
    reason: str | None = None

    def covers(self, moment: datetime) -> bool:
        """Whether it was followed at a ``moment``, of which UTC is the time zone unless it has another."""
        at = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return self.since <= at and (self.until is None or at <= self.until)


@dataclass(frozen=True)
class Going:
    """The stretch that goes on, as it is noted with how far its table is: since when, and up to when it was noted.

    Both are ISO moments of the source's clock; empty in notes of versions that knew of no stretches.
    """

    since: str = ""
    until: str = ""


class Seen(Enum):
    """How a capture came to know what a table is: told by the log, compared, or compared and found to be more."""

    TOLD, COMPARED, MISSED = range(3)

    @classmethod
    def of(cls, missed: Mapping[str, int] | None, *, was_told: bool) -> Self:
        """``missed``: by partition, what a comparison found besides."""
        return cls.MISSED if any((missed or {}).values()) else cls.TOLD if was_told else cls.COMPARED


def begun(
    table: str, before: Going, as_of: datetime, newest: Mapping[str, Mapping[str, Entry]], how: Seen
) -> list[Entry]:
    """The entries that ``table`` is followed from the snapshot ``as_of`` on, and that the stretch ``before`` ended.

    ``newest``: the ledger's entries; ``how`` it is known what the table is now.
    """
    entries = [_entry(table, as_of.isoformat(), "")]
    ended = newest.get(STRETCHES, {}).get(f"{table} {before.since}")
    if ended is not None and not ended.state:
        reason = _MISSED if how is Seen.MISSED else _why(newest, datetime.fromisoformat(before.until)) or _COMPARED
        entries.insert(0, _entry(table, before.since, json.dumps({"until": before.until, "reason": reason})))
    return entries


def stretches(newest: Mapping[str, Mapping[str, Entry]], table: str) -> list[Stretch]:
    """The stretches of ``table``, the oldest first, of the newest entries of a ledger.

    One in which nothing of the table was captured is no more than a moment: it is left out, unless it says why the
    table is not followed now, or that a comparison found what the log had not told of.
    """
    found = []
    for partition, entry in newest.get(STRETCHES, {}).items():
        name, _, since = partition.rpartition(" ")
        if name == table:
            found.append(_stretch(since, entry, newest))
    found.sort(key=lambda each: each.since)
    return [each for each in found if each.until != each.since or each.reason == _MISSED or each is found[-1]]


def _stretch(since: str, entry: Entry, newest: Mapping[str, Mapping[str, Entry]]) -> Stretch:
    began = datetime.fromisoformat(since)
    if entry.state:
        told = json.loads(entry.state)
        return Stretch(began, datetime.fromisoformat(told["until"]), told["reason"])
    table, note = entry.partition.rpartition(" ")[0], LogNote.of(newest)
    how_far = newest.get(FOLLOWED, {}).get(table)
    noted = json.loads(how_far.state) if how_far is not None else {}
    until = datetime.fromisoformat(noted["as_of"]) if noted.get("as_of") else began
    if note.since is not None and noted.get("stretch") == note.stretch:
        return Stretch(began)
    return Stretch(began, until, note.loss.reason if note.loss is not None else _COMPARED)


def _why(newest: Mapping[str, Mapping[str, Entry]], until: datetime) -> str | None:
    """Why the log as a whole was lost after ``until``; None if it was not. The clocks may differ by a little."""
    loss = LogNote.of(newest).loss
    return loss.reason if loss is not None and loss.at >= until else None


def _entry(table: str, since: str, state: str) -> Entry:
    return Entry(STRETCHES, f"{table} {since}", state, 0, datetime.now(UTC), "")
