"""What a comparison found that should have been known: noted of each table, until a comparison finds nothing more.

Belongs here: this note in the ledger. Does not belong here: counting, which is difference.py, and telling people of it
(assets/missed.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from totesys_assets.capture.ledger import Entry

# Asset of the ledger's entries that say of a table how many versions the last comparison found that the log, or a
# fingerprint, should have told of. The state says which of the two.
MISSED = "missed"
_BY_LOG, _BY_FINGERPRINT = "log", "fingerprint"


@dataclass(frozen=True)
class Missed:
    """``versions`` that a comparison found at ``at``, of which the log had not told (``by_log``), or no fingerprint."""

    versions: int
    at: datetime
    by_log: bool

    @classmethod
    def of(cls, newest: Mapping[str, Mapping[str, Entry]], table: str) -> Self | None:
        """What the newest entries of a ledger say of a table; None if nothing was missed."""
        entry = newest.get(MISSED, {}).get(table)
        if entry is None or not entry.rows:
            return None
        return cls(entry.rows, entry.recorded_at, entry.state == _BY_LOG)


def note_missed(
    newest: Mapping[str, Mapping[str, Entry]], of: Sequence[Entry], table: str, *, by_log: bool, is_whole: bool
) -> tuple[list[Entry], Missed | None]:
    """What to note of a capture with the entries ``of`` its partitions, at least one, and what is missed by then.

    Nothing to note if ``newest``, the ledger's entries before it, say the same. Only a comparison of all of the table
    (``is_whole``) says that nothing is missed any more.
    """
    before, versions, last = Missed.of(newest, table), sum(each.missed for each in of), of[-1]
    if not versions and (before is None or not is_whole):
        return [], before
    entry = Entry(MISSED, table, _BY_LOG if by_log else _BY_FINGERPRINT, versions, last.recorded_at, last.run_id)
    return [entry], Missed.of({MISSED: {table: entry}}, table)
