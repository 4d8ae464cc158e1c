"""Following the log of a source: up to where the journal holds it, as a snapshot shows it, and how far each table is.

Belongs here: beginning and giving up, which transactions a snapshot shows, what is noted of each table. Does not belong
here: the journal itself (journal.py), and what is made of it (log_versions.py, logged.py).

A capture brings a table to what one snapshot shows, whether it compares or follows the log. So it takes from the
journal what the snapshot shows, and leaves the rest to the next. Of one row nothing is left out of the middle: whoever
writes a row waits until the transaction that wrote it before can be seen.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import duckdb
from deltalake import DeltaTable

from totesys_assets.capture.beside import committed
from totesys_assets.capture.how_far import HowFar, how_far, taken
from totesys_assets.capture.journal import POSITION, PRUNED, Drained, Journal, edition
from totesys_assets.capture.journaled import hidden_transactions, newest_changes
from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.capture.log_lines import Behind, Undecided, left_out
from totesys_assets.capture.log_notes import FOLLOWED, read_note
from totesys_assets.capture.stretches import Going, Seen, begun
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.errors import ConcurrentWriters, ConnectionFailed, LakeFailed, LogBusy, PlatformError
from totesys_assets.lake.commit import LostRace
from totesys_assets.lake.history import commits
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import RECORDED
from totesys_assets.lake.tables import DEAD_LETTER, JOURNAL, Lake
from totesys_assets.source.interface import SourceSnapshot

if TYPE_CHECKING:
    from totesys_assets.source.totesys.log import Log

log = logging.getLogger(__name__)

# Marks of a commit that was made from the journal: its _recorded_at, the stretch of the journal, the position up to
# which it is used, and how many transactions of before that were left out: which, the commit says in its metadata.
_BY_LOG, _STRETCH, _SINCE, _LEFT_OUT = "log_recorded", "log_stretch", "log_since", "log_left_out"
# The same as the first, where dead letters follow the versions: without them the log does not tell what a row is like.
_LETTERS = "log_letters"
_SAID = "totesys.left_out"
_AGAIN_SECONDS = 60  # after the log was lost or could not begin
_BUSY_SECONDS = 10
_SWITCHED_OFF = "it was switched off"


@dataclass(frozen=True)
class Reach:
    """How far the journal goes for a snapshot: all that it shows lies before ``until`` in ``stretch``.

    ``hidden`` are the transactions before ``until`` that it does not show; what was committed before ``kept_from`` was
    removed from the journal. ``newest``: of each table that has changes there, where the newest was committed.
    ``told`` are the tables of which the log tells every change. ``as_of``: when the snapshot was taken. ``journal``
    is its edition.
    """

    stretch: int
    until: int
    hidden: tuple[int, ...]
    kept_from: int = 0
    newest: Mapping[str, int] = field(default_factory=dict)
    told: frozenset[str] = frozenset()
    as_of: datetime = datetime.min
    journal: str = ""


_REACHES: WeakKeyDictionary[duckdb.DuckDBPyConnection, Reach | None] = WeakKeyDictionary()


def begin(lake: Lake, source_log: Log) -> None:
    """Follow a log if that is wanted, or end that. What stands in the way is noted, and tried again a minute later."""
    journal = Journal(lake, source_log.schema, source_log.tables)
    stretch = journal.stretch
    if stretch and not source_log.wanted:
        _give_up(lake, journal, source_log, stretch, _SWITCHED_OFF)
    if stretch or not source_log.wanted or _tried_lately(lake):
        return
    try:
        journal.begin(source_log)
    except LostRace:  # another refresh begins, and notes it
        return
    except PlatformError as error:
        _give_up(lake, journal, source_log, stretch, str(error))
    else:
        Ledger(lake).append([read_note(lake).begun(journal.stretch).entry])


def reach(lake: Lake, snapshot: SourceSnapshot, table: Table) -> Reach | None:
    """How far the journal goes for a snapshot, to which it is brought up, once.

    None where the log is not followed, or does not tell all of ``table``: one that is not published, or has parts, say.
    Where the log does not go on, that is noted, and the next refresh begins anew. Raises ConnectionFailed,
    LakeFailed, and LogBusy while somebody else reads it.
    """
    if snapshot.log is None or not snapshot.log.wanted:
        return None
    if snapshot.connection not in _REACHES:
        _REACHES[snapshot.connection] = _reach(lake, snapshot, snapshot.log)
    found = _REACHES[snapshot.connection]
    return found if found is not None and table.name in found.told else None


def _reach(lake: Lake, snapshot: SourceSnapshot, source_log: Log) -> Reach | None:
    journal = Journal(lake, source_log.schema, source_log.tables)
    stretch = journal.stretch
    if not stretch:
        return None
    for is_last in (False, True):  # a session was ended in the middle, say: once more
        try:
            drained = _drain(journal, source_log)
            break
        except (ConnectionFailed, ConcurrentWriters, LakeFailed, LogBusy):  # the slot keeps what was not read
            raise
        except PlatformError as error:
            if is_last:
                _give_up(lake, journal, source_log, stretch, str(error))
                return None
    held = journal.find()
    if held is None or journal.stretch != stretch:  # somebody else gave it up, and began anew
        return None
    if (note := read_note(lake)).since is None:  # whoever gave it up was killed before it had
        Ledger(lake).append([note.begun(stretch).entry])
    hidden = hidden_transactions(held, stretch, drained.position, snapshot)
    newest = newest_changes(held, stretch, drained.position)
    kept_from, as_of = mark(held, PRUNED) or 0, _as_of(snapshot)
    return Reach(stretch, drained.position, hidden, kept_from, newest, drained.told, as_of, edition(held))


def reached_journal(lake: Lake, reach: Reach) -> DeltaTable:
    """The journal, which may have grown since it was reached. Raises Undecided where it has lost something since."""
    held = lake.find(JOURNAL)
    if held is None or edition(held) != reach.journal:
        raise Undecided("the journal is not any more what it was when the log was read")
    return held


def _drain(journal: Journal, source_log: Log) -> Drained:
    """Bring the journal up to the end of the log. Waits a little while somebody else reads it."""
    for _ in range(_BUSY_SECONDS):
        with suppress(LogBusy):
            return journal.drain(source_log)
        time.sleep(1)
    return journal.drain(source_log)


def behind(
    reach: Reach, held: DeltaTable | None, table: Table, newest: Mapping[str, Mapping[str, Entry]], file: int
) -> tuple[Behind, bool] | None:
    """What of the journal ``table`` is behind with; and whether that, and what the ledger notes, is all there is of it.

    None where the table must be compared first. That includes one that was begun anew: no commit to it is noted, and
    none was made from the journal. ``newest``: the ledger's entries. ``file``: where its rows are now.
    """
    if held is None:
        return None
    noted = how_far(newest, table)
    if noted is not None and min((noted.since, *noted.also)) < reach.kept_from:
        return None
    if noted is not None and noted.stretch == reach.stretch and noted.commit == committed(held):
        newest_change = reach.newest.get(table.name, 0)
        since, until, is_rewritten = noted.since, reach.until, noted.file != file
        found = Behind(
            reach.stretch, since, until, noted.also, reach.hidden, noted.columns, newest_change, is_rewritten
        )
        return found, not is_rewritten
    # A capture that was killed before it could note what it had committed.
    if not is_by_log(held) or mark(held, _STRETCH) != reach.stretch or mark(held, _LETTERS) == mark(held, _BY_LOG):
        return None
    if (also := _left_out(held)) is not None:
        unnoted = min((noted.since, *noted.also)) if noted is not None and noted.stretch == reach.stretch else 0
        since, is_rewritten = mark(held, _SINCE) or 0, noted is not None and noted.file != file
        found = Behind(
            reach.stretch, since, reach.until, also, reach.hidden, is_rewritten=is_rewritten, unnoted=unnoted
        )
        return (found, False) if found.oldest >= reach.kept_from else None
    return None


def _left_out(held: DeltaTable) -> tuple[int, ...] | None:
    """The transactions that the newest commit from the journal left out; None where its words are not there any more.

    Raises LakeFailed where the log of the table cannot be read.
    """
    if not mark(held, _LEFT_OUT):
        return ()
    for commit in commits(held):
        if (words := commit.get(_SAID)) is not None:
            recorded_at, *positions = map(int, str(words).split())
            return tuple(positions) if recorded_at == mark(held, _BY_LOG) else None
    return None


def is_by_log(held: DeltaTable) -> bool:
    """Whether the newest versions in a table of the lake were made from the journal, and so are dated by commits."""
    return mark(held, RECORDED) is not None and mark(held, _BY_LOG) == mark(held, RECORDED)


def marks(behind: Behind, recorded_at: int, *, has_letters: bool) -> dict[str, int]:
    """What a commit of versions from the journal leaves with the table, beside its ``_recorded_at``."""
    return {
        **({_LETTERS: recorded_at} if has_letters else {}),
        RECORDED: recorded_at,
        _BY_LOG: recorded_at,
        _STRETCH: behind.stretch,
        _SINCE: behind.until,
        _LEFT_OUT: len(behind.left_out),
    }


def letter_marks(table: Table, behind: Behind) -> dict[str, int]:
    """What a commit of dead letters from the journal leaves with them: up to where they are told."""
    return {f"{_STRETCH}:{table.name}": behind.stretch, f"{_SINCE}:{table.name}": behind.until}


def are_letters_ahead(lake: Lake, table: Table, behind: Behind) -> bool:
    """Whether dead letters were kept of what is still to be taken, and so too late for what the log leaves out."""
    held = lake.find(DEAD_LETTER) if not behind.is_empty else None
    if held is None or mark(held, f"{_STRETCH}:{table.name}") != behind.stretch:
        return False
    return (mark(held, f"{_SINCE}:{table.name}") or 0) > behind.since


def said(behind: Behind, recorded_at: int) -> dict[str, str]:
    """What such a commit says in its metadata, for who finds that it was not noted in the ledger any more."""
    return {_SAID: " ".join(map(str, (recorded_at, *behind.left_out)))}


def followed_entries(
    table: Table,
    reach: Reach,
    commit: str,
    newest: Mapping[str, Mapping[str, Entry]],
    file: int,
    *,
    columns: str = "",
    how: Seen = Seen.COMPARED,
) -> list[Entry]:
    """The ledger's entries that ``table`` is what the snapshot of ``reach`` shows, as of a ``commit`` to the lake.

    ``newest``: its entries. ``file``: where the source has the rows. ``how`` it is known what they are: if not from the
    log alone, they are followed from here on.
    """
    before, as_of = how_far(newest, table), reach.as_of.isoformat()
    goes_on = how is Seen.TOLD and before is not None and before.seen_since != ""
    since = before.seen_since if before is not None and goes_on else as_of
    known = before if before is not None and before.stretch == reach.stretch else HowFar("", 0, 0)
    hidden = left_out(reach.hidden, known.since, known.also)
    noted = asdict(HowFar(commit, reach.stretch, reach.until, hidden, columns, file, as_of, since))
    entry = Entry(FOLLOWED, table.name, json.dumps(noted), 0, datetime.now(UTC), "")
    going = Going(before.seen_since, before.as_of) if before is not None else Going()
    return [entry] if goes_on else [entry, *begun(table.name, going, reach.as_of, newest, how)]


def _as_of(snapshot: SourceSnapshot) -> datetime:
    return snapshot.taken_at.replace(tzinfo=UTC)


def _tried_lately(lake: Lake) -> bool:
    note = read_note(lake)
    if note.since is not None or note.tried_at is None or (note.loss and note.loss.why == _SWITCHED_OFF):
        return False
    return (datetime.now(UTC) - note.tried_at).total_seconds() < _AGAIN_SECONDS


def _seen_until(lake: Lake, journal: Journal) -> datetime | None:
    """Up to when every committed version is in the lake's tables; None where nothing is followed.

    What the journal has and a table has not taken yet will be compared: it was not seen in that table.
    """
    held, seen = journal.find(), journal.seen_until
    if held is None or seen is None:
        return None
    newest = newest_changes(held, journal.stretch, mark(held, POSITION) or 0).items()
    noted = taken(Ledger(lake).newest([FOLLOWED]), journal.stretch)
    waiting = [noted[name] for name, position in newest if name in noted and position >= noted[name].since]
    waiting += [each for each in noted.values() if each.also]
    return min([seen, *(datetime.fromisoformat(each.as_of) for each in waiting if each.as_of)])


def _give_up(lake: Lake, journal: Journal, source_log: Log, stretch: int, reason: str) -> None:
    """Give up the ``stretch`` of the journal, unless somebody else has, and has begun another."""
    if journal.stretch not in (stretch, 0):
        return
    Ledger(lake).append([read_note(lake).lost(reason, _seen_until(lake, journal)).entry])
    log.warning("The log of ToteSys is not followed: %s", reason)
    with suppress(PlatformError, LostRace):  # a server that is gone, say: whoever begins anew tries again
        journal.end(source_log, stretch)
