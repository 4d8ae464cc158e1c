"""The journal: each change of a row that the log of ToteSys told of, kept in the lake before the source forgets it.

Belongs here: bringing the journal up to the end of the log, so that each transaction is in it once, whatever happens.
Does not belong here: reading the log (source/totesys/log.py), and what becomes of the changes (log_versions.py).

A piece of the log is one commit to the lake, for all tables. Only then is the source told to forget it. So the slot is
never ahead of the journal; a piece that was written and not forgotten comes again, and must be what it was. Whatever
does not fit is a ``Gap``: then tables are compared, and the journal begins anew.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.log_piece import LSN, SCHEMA, SPOOLED, STRETCH, Piece, growing
from totesys_assets.errors import ConcurrentWriters, PlatformError
from totesys_assets.lake.commit import LostRace, append
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import RECORDED, register
from totesys_assets.lake.tables import JOURNAL, Lake
from totesys_assets.source.totesys.log import Log, slot_name
from totesys_assets.source.totesys.log_state import LogState
from totesys_assets.spool import Spool

_DESCRIPTION = "Every change of a row that the log of ToteSys told of, as it told of it, in the order of the commits"
# Marks of the journal's commits: the position in the log up to which it is complete, a random number for the stretch of
# the log since ``begin`` (0 after a gap), and digests of what must stay the same meanwhile.
POSITION = "log"
# Up to where it was removed again, of old age.
PRUNED = "log_pruned"
# How often something was removed from it.
PRUNINGS = "log_prunings"
_STRETCH = "log_stretch"
_SERVER, _PUBLICATION = "log_server", "log_publication"
# How much of what the server allows a slot to keep ours kept when it last passed half of it, in percent.
_KEPT = "log_kept"
_WRITER = "journal"
# Messages of a piece, unless one transaction has more.
_PIECE = 100_000
# A log that has nothing for us is forgotten in steps of a segment of it: each costs a commit.
_IDLE_BYTES = 16 * 2**20
_ATTEMPTS = 5
# The server's own writer takes up to a second to bring what was committed without waiting to the disk.
_WAIT_SECONDS, _MOST_WAITS = 0.01, 3000
# Of what the server allows a slot to keep: then it is dropped, before the server has to remove what it keeps.
_MOST_KEPT = 0.8
# In percent: above it, somebody should look.
HALF = 50


class Gap(PlatformError):
    """The log does not go on where the journal ends: what lies between was not seen."""


@dataclass(frozen=True)
class Drained:
    """What a drain did: changes added to the journal, and the position up to which it is complete now.

    ``told`` are the tables of which the log tells every change, and did since ``begin``.
    """

    changes: int
    position: int
    told: frozenset[str] = frozenset()


def stretch_of(held: DeltaTable) -> int:
    """A number for the stretch of the log that a journal holds without a gap; 0 if it has not begun."""
    return mark(held, _STRETCH) or 0


def edition(held: DeltaTable | None) -> str:
    """Differs as soon as a journal has lost something that it had: it was pruned, or removed and begun anew."""
    return "" if held is None else f"{held.metadata().id} {mark(held, PRUNINGS) or 0}"


def kept_percent(lake: Lake) -> int:
    """How much of what the server allows ours keeps, as of when it last passed half; 0 where it is not followed."""
    held = lake.find(JOURNAL)
    return 0 if held is None or not mark(held, _STRETCH) else mark(held, _KEPT) or 0


class Journal:
    """The journal of the ``tables`` in ``schema`` of the source, in a lake."""

    def __init__(self, lake: Lake, schema: str, tables: Collection[str]) -> None:
        self._lake, self._schema, self._tables = lake, schema, frozenset(tables)

    def find(self) -> DeltaTable | None:
        """The journal as it is now, to be read; None if there is none."""
        return self._lake.find(JOURNAL)

    @property
    def stretch(self) -> int:
        """A number for the stretch of the log that the journal holds without a gap; 0 if it has not begun."""
        held = self.find()
        return 0 if held is None else stretch_of(held)

    def position(self, log: Log) -> int | None:
        """The position up to which the journal holds the log, which is told its slot; None where it is not followed."""
        held = self.find()
        if held is None or not mark(held, _STRETCH):
            return None
        log.slot = _slot(held)
        return mark(held, POSITION)

    @property
    def seen_until(self) -> datetime | None:
        """When the newest transaction in the journal was committed; None where it has not begun, or has none."""
        held = self.find()
        recorded = mark(held, RECORDED) if held is not None and mark(held, _STRETCH) else None
        return datetime.fromtimestamp(recorded / 1_000_000, UTC) if recorded else None

    def begin(self, log: Log) -> None:
        """Begin anew, from now on, with a new slot. What was committed before is for a comparison to find.

        Raises LostRace where another begins, before its slot is touched.
        """
        held = self._lake.open_plain(JOURNAL, SCHEMA, _DESCRIPTION, append_only=False)
        if mark(held, _STRETCH):
            raise LostRace("another refresh has begun to follow the log")
        log.slot = _slot(held)
        self._commit(held, [], {_STRETCH: 0})
        log.finish()
        position, state = log.begin(), log.state()
        marks = {
            POSITION: position,
            _STRETCH: secrets.randbits(62) or 1,
            _SERVER: _number(state.server),
            _PUBLICATION: _number(str(state.publication)),
            PRUNED: 0,
            _KEPT: 0,
        }
        self._commit(held, [], marks)

    def end(self, log: Log, stretch: int) -> None:
        """Keep no log any more of a ``stretch``; of another, it is kept. What the journal holds stays there."""
        held = self._lake.open(JOURNAL)
        if held is None or stretch_of(held) not in (stretch, 0):
            return
        if mark(held, _STRETCH):
            self._commit(held, [], {_STRETCH: 0})
        log.slot = _slot(held)
        log.finish()

    def drain(self, log: Log) -> Drained:
        """Bring the journal up to the end of the log, and at least up to all that anybody can see by now.

        Raises Gap where the log does not go on, UnknownFormat, ConcurrentWriters, and what reading the log raises.
        """
        changes = attempts = written = waits = 0
        while True:
            held = self._lake.open(JOURNAL)
            if held is None or not mark(held, _STRETCH):
                raise Gap("the journal has not begun")
            log.slot = _slot(held)
            state = log.state()
            position, confirmed, flushed = _ends(held, state)
            self._note_kept(held, _kept_percent(state))
            written = written or _written(state)
            if flushed < written:  # what was committed without waiting for the disk can be seen, and not be read
                if not waits:  # once, for it takes a transaction id; the server's own writer then does it
                    log.flush()
                waits += 1
                if waits > _MOST_WAITS:
                    raise PlatformError("The server of ToteSys does not write its log to the disk.")
                time.sleep(_WAIT_SECONDS)
                continue
            if flushed <= position:
                return Drained(changes, position, state.told)
            try:
                found, is_last = self._piece(held, log, confirmed, position, flushed)
            except LostRace as race:
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise ConcurrentWriters(
                        "Other refreshes kept reading the log of ToteSys. Nothing is lost; refresh again."
                    ) from race
                continue
            changes += found
            if is_last:
                return Drained(changes, mark(held, POSITION) or position, state.told)

    def _piece(self, held: DeltaTable, log: Log, confirmed: int, position: int, flushed: int) -> tuple[int, bool]:
        """Write the next piece. Returns its changes, and whether the log has no more for now. Raises LostRace."""
        with Spool(SPOOLED) as spool:
            piece = Piece(spool, log.batches(flushed, _PIECE), position, stretch_of(held))
            is_last = piece.messages < _PIECE
            end = max(flushed, piece.end) if is_last else piece.end
            recorded = growing(piece.commits, mark(held, RECORDED) or 0)
            rows = piece.rows(recorded, self._schema, self._tables)
            first = next(rows, None)
            seam = _seam(piece, held, confirmed)
            if first is not None:
                self._commit(held, chain([first], rows, seam), {POSITION: end, RECORDED: int(recorded[-1])})
            else:
                list(seam)
                if end > position and (not is_last or end - position >= _IDLE_BYTES):
                    self._commit(held, [], {POSITION: end})
                elif (now := self.find()) is None or mark(now, POSITION) != position:
                    # Whoever was quicker let the server forget what it wrote, so that nothing was left to be read here.
                    raise LostRace("another refresh read the log meanwhile")
            upto = min(end, mark(held, POSITION) or 0)
            if upto > confirmed:
                log.forget(upto)
            return piece.changes, is_last

    def _note_kept(self, held: DeltaTable, kept: int) -> None:
        if (kept > HALF) != ((mark(held, _KEPT) or 0) > HALF):
            with suppress(LostRace):  # whoever was quicker has noted it
                self._commit(held, [], {_KEPT: kept})

    def _commit(self, held: DeltaTable, batches: Iterable[pa.RecordBatch], marks: dict[str, int]) -> None:
        append(held, batches, SCHEMA, _WRITER, marks)


def _slot(held: DeltaTable) -> str:
    return slot_name(str(held.metadata().id))


def _kept_percent(state: LogState) -> int:
    kept = state.slot.retained if state.slot is not None else None
    return 100 * (kept or 0) // state.keep_bytes if state.keep_bytes else 0


def _written(state: LogState) -> int:
    """The position up to which the server has written its log, on disk or not."""
    slot = state.slot
    return slot.restart + slot.retained if slot and slot.restart is not None and slot.retained is not None else 0


def _ends(held: DeltaTable, state: LogState) -> tuple[int, int, int]:
    """Where the journal ends, up to where the slot forgot the log, and where the log ends.

    Raises Gap unless the log goes on where the journal ends.
    """
    position = mark(held, POSITION) or 0
    slot, flushed = state.slot, state.flushed
    if slot is None or slot.confirmed is None:
        raise Gap("its slot is gone")
    if slot.lost:
        raise Gap(f"the server has removed what the slot kept ({slot.reason or slot.wal_status})")
    if not slot.ours:
        raise Gap("its slot is another's")
    if flushed is None:
        raise Gap("the server is a standby")
    if state.keep_bytes is None:
        raise Gap("max_slot_wal_keep_size sets no limit any more, so that the slot could fill the disk of the server")
    if (slot.retained or 0) > _MOST_KEPT * state.keep_bytes:
        raise Gap(
            f"the slot kept {slot.retained:,} bytes of the {state.keep_bytes:,} that it may: it is given up before"
        )
    if mark(held, _SERVER) != _number(state.server):
        raise Gap("it is another server, or one that was restored or failed over")
    if mark(held, _PUBLICATION) != _number(str(state.publication)):
        raise Gap("what is published was changed")
    if slot.confirmed > position:
        raise Gap("somebody else read the slot, or made it anew")
    if flushed < position:
        raise Gap("the server was set back to an earlier state")
    return position, slot.confirmed, flushed


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def _seam(piece: Piece, held: DeltaTable, confirmed: int) -> Iterator[pa.RecordBatch]:
    """Raise Gap unless what came again is what came before. It is asked when the rest of the piece was read."""
    until = min(piece.position, piece.end or piece.position)
    if confirmed < until:
        with engine.session() as connection:
            journal = register(connection, "journal", held)
            before = connection.execute(
                f"SELECT DISTINCT {LSN}, xid, epoch_us(committed_at) FROM {journal} "
                f"WHERE {STRETCH} = {piece.stretch} AND {LSN} >= {confirmed} AND {LSN} < {until}"
            ).fetchall()
        if {(each.lsn, each.xid, each.committed_at) for each in piece.again} != set(before):
            raise Gap("the log is not the one that was read: the server was set back to an earlier state")
    yield from ()
