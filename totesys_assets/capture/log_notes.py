"""What the ledger notes of following the log as a whole: since when it is followed, or why it is not.

Belongs here: the note, and how it goes from one state to the next. Does not belong here: when the log is given up
(following.py), and how far each table is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.lake.tables import Lake

# Asset of the ledger's entries about the log; of tables by their names, and of all of it under the empty name.
FOLLOWED = "log"


@dataclass(frozen=True)
class Loss:
    """Following ended, or could not begin: when, and why. ``seen_until``: all that was committed by then was seen.

    ``seen_until`` is None where nothing was followed before. ``again``: why it could not begin again since, if that is
    for another reason.
    """

    at: datetime
    reason: str
    seen_until: datetime | None = None
    again: str = ""

    @property
    def why(self) -> str:
        """Why it ended, and why it is not followed by now."""
        return f"{self.reason.rstrip('.')}; and it cannot begin again: {self.again}" if self.again else self.reason


@dataclass(frozen=True)
class LogNote:
    """``since``: the log is followed since then; None if it is not. ``loss``: the last one; None if there was none.

    ``tried_at``: when this was noted, which is when it was last tried where it is not followed. ``stretch``: of the
    journal, since ``since``.
    """

    since: datetime | None = None
    loss: Loss | None = None
    tried_at: datetime | None = None
    stretch: int = 0

    @classmethod
    def of(cls, newest: Mapping[str, Mapping[str, Entry]]) -> Self:
        """The note among the newest entries of a ledger."""
        entry = newest.get(FOLLOWED, {}).get("")
        if entry is None:
            return cls()
        told: dict[str, Any] = json.loads(entry.state)
        loss = None
        if "lost_at" in told:
            loss = Loss(_moment(told["lost_at"]), told["lost"], _moment(told.get("seen")), told.get("again", ""))
        return cls(_moment(told.get("since")), loss, entry.recorded_at, told.get("stretch", 0))

    def begun(self, stretch: int = 0) -> Self:
        """The log is followed from now on, in a ``stretch`` of the journal."""
        return replace(self, since=datetime.now(UTC), stretch=stretch)

    def lost(self, reason: str, seen_until: datetime | None) -> Self:
        """It is not followed from now on; or still not, for another reason perhaps."""
        if self.since is None and self.loss is not None:
            return replace(self, loss=replace(self.loss, again=reason if reason != self.loss.reason else ""))
        seen = max(self.since, seen_until or self.since) if self.since is not None else None
        return replace(self, since=None, loss=Loss(datetime.now(UTC), reason, seen))

    @property
    def entry(self) -> Entry:
        """The ledger's entry of it."""
        told: dict[str, Any] = {"since": self.since.isoformat(), "stretch": self.stretch} if self.since else {}
        if self.loss is not None:
            told |= {"lost_at": self.loss.at.isoformat(), "lost": self.loss.reason, "again": self.loss.again}
            told |= {"seen": self.loss.seen_until.isoformat()} if self.loss.seen_until else {}
        return Entry(FOLLOWED, "", json.dumps(told), 0, datetime.now(UTC), "")


def read_note(lake: Lake) -> LogNote:
    """What the ledger of a lake notes of following the log."""
    return LogNote.of(Ledger(lake).newest([FOLLOWED]))


def _moment(text: str | None) -> Any:
    return datetime.fromisoformat(text) if text else None
