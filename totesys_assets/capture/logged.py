"""One table brought up to what a snapshot shows from the journal: every version that was committed on the way.

Belongs here: committing what log_versions.py makes, behind the same fences as a comparison. Does not belong here: when
the journal may be believed (following.py), and what the ledger notes of it (difference.py).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from functools import cached_property

import duckdb
import pyarrow.compute as pc
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture import dead_letters
from totesys_assets.capture.beside import committed, require_newest
from totesys_assets.capture.comparison import ATTEMPTS
from totesys_assets.capture.following import (
    Reach,
    are_letters_ahead,
    behind,
    letter_marks,
    marks,
    reached_journal,
    said,
)
from totesys_assets.capture.ledger import EMPTY, Entry
from totesys_assets.capture.log_lines import Behind, Undecided
from totesys_assets.capture.log_parts import room
from totesys_assets.capture.log_versions import LogVersions
from totesys_assets.capture.lost_ledger import is_lost, is_unknown
from totesys_assets.catalogue.catalogue import COMMIT_LSN, RECORDED_AT, Table, lake_schema
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.errors import StaleSnapshot
from totesys_assets.lake.commit import LostRace, append
from totesys_assets.lake.conform import conform
from totesys_assets.lake.read import microseconds, recorded_until, register
from totesys_assets.lake.tables import INGESTION, JOURNAL, Lake
from totesys_assets.source.interface import Fingerprint, SourceSnapshot
from totesys_assets.sql_text import literal, quoted
from totesys_assets.stages import DIFFERENCE, stage

log = logging.getLogger(__name__)
# Raises MassDeletion for rows before and now.
Refuse = Callable[[int, int], None]


def follow(
    snapshot: SourceSnapshot,
    lake: Lake,
    table: Table,
    all_days: DayRange,
    reached: Reach | None,
    newest: Mapping[str, Mapping[str, Entry]],
    known: Mapping[str, Entry],
    refuse: Refuse | None,
) -> Logged | None:
    """Bring a table from the journal to what ``snapshot`` shows. None where it must be compared, to begin or anew.

    ``newest``: the ledger's entries, ``known`` those of the table. Raises StaleSnapshot where another refresh was
    quicker, and what ``refuse`` raises.
    """
    held = lake.find(INGESTION, table.name)
    logged = prepared(snapshot, lake, table, all_days, reached, newest, known, held)
    if logged is None:
        return None
    try:
        logged.commit(refuse)
    except Undecided as reason:
        log.info("%s is compared: %s", table.name, reason)
        return None
    except LostRace as race:
        raise StaleSnapshot(f'Another refresh captured "{table.name}". Nothing is lost; refresh again.') from race
    return logged


def prepared(
    snapshot: SourceSnapshot,
    lake: Lake,
    table: Table,
    all_days: DayRange,
    reached: Reach | None,
    newest: Mapping[str, Mapping[str, Entry]],
    known: Mapping[str, Entry],
    held: DeltaTable | None,
) -> Logged | None:
    """What the journal says of a table that is as ``held`` shows it. None where it must be compared."""
    if reached is None or held is None:
        return None
    found = behind(reached, held, table, newest, snapshot.file(table))
    if found is None or not _has_structure(snapshot, table, known) or are_letters_ahead(lake, table, found[0]):
        return None
    # Of a day that only the lake knows of, its rows may be gone: no fingerprint tells.
    is_noted = found[1] and not any(map(is_unknown, known.values()))
    return Logged(snapshot, lake, table, all_days, known, reached, held, found[0], is_noted)


def _has_structure(snapshot: SourceSnapshot, table: Table, known: Mapping[str, Entry]) -> bool:
    """Whether rows read as they did when they were captured.

    They may read as something else since, or be of another table, though the log has told of no change. That it is the
    log of the same server, which has not lost what it told, is for the journal to say. Of days that a capture did
    not note, for it was killed, it is not known; where it is not known of any, there is nothing to follow from.
    """
    noted = [each.state for each in known.values() if each.fingerprint and not is_unknown(each)]
    return not is_lost(known) and all(snapshot.has_structure(table, each) for each in noted)


class Logged:
    """What the journal, as it was ``reached``, says of one table: what ``snapshot`` shows and ``held`` has not.

    ``behind``: what of the journal that is. ``known``: the ledger's entries of the table. ``is_noted``: they are about
    all that was taken from the journal, and the journal tells all that was done since.
    """

    def __init__(
        self,
        snapshot: SourceSnapshot,
        lake: Lake,
        table: Table,
        all_days: DayRange,
        known: Mapping[str, Entry],
        reached: Reach,
        held: DeltaTable,
        behind: Behind,
        is_noted: bool,
    ) -> None:
        self._snapshot, self._lake, self._table = snapshot, lake, table
        self._all_days, self.known, self._behind = all_days, known, behind
        self._reached, self._held = reached, held
        self.is_noted = is_noted
        # Versions by partition and operation, and dead letters by partition; rows of the source that came to a
        # partition less those that left it.
        self.counts: Counter[tuple[str, str]] = Counter()
        self._came: Counter[str] = Counter()
        # Changes in the journal, what it says the table's columns are, the newest commit to the lake and, if that is
        # this one's, the one before it.
        self.changes, self.columns, self.before, self.committed = 0, behind.columns, "", ""

    @property
    def is_rewritten(self) -> bool:
        """Whether its rows may be others, without a word in the log."""
        return self._behind.is_rewritten

    @property
    def touched(self) -> set[str]:
        """The partitions that are not as they were."""
        touched = {partition for partition, _ in self.counts} | {key for key, count in self._came.items() if count}
        return touched | self.unnoted

    @cached_property
    def unnoted(self) -> set[str]:
        """The partitions of versions that a capture committed and was killed before it noted: nobody has read them."""
        if self._behind.unnoted is None:
            return set()
        column = self._table.day_column
        day = f"strftime({quoted(column)}, '%Y-%m-%d')" if column else literal(WHOLE)
        with engine.session() as connection:
            rows = connection.execute(
                f"SELECT DISTINCT {day} FROM {register(connection, 'held', self._held)} "
                f"WHERE {COMMIT_LSN} >= {self._behind.unnoted}"
            ).fetchall()
        return {key for (key,) in rows}

    @property
    def found(self) -> dict[str, Fingerprint]:
        """The fingerprints of all partitions that have rows, as of the snapshot, or had some since the one before."""
        found = {key: Fingerprint(each.rows, each.fingerprint) for key, each in self.known.items() if each.fingerprint}
        prefix, behind = self._snapshot.state_prefix(self._table), self._behind
        # What was left out of it is for the next to take, which may find nothing else that is new.
        until = f"{behind.until}-{len(behind.left_out)}" if behind.left_out else f"{behind.until}"
        for key in self.touched:
            before = found.pop(key, None)
            rows = (before.rows if before is not None else 0) + self._came[key]
            if rows > 0 or before is None:  # a row that came and went on an empty day is two versions
                found[key] = Fingerprint(rows, f"{prefix}|{rows}|log {behind.stretch:x} {until}")
        return found

    @property
    def entries(self) -> dict[str, Entry]:
        """The ledger's entries of what was touched, as they would be now."""
        now, moment, found = {}, self._snapshot.read_at(self._table).replace(tzinfo=UTC), self.found
        for key in self.touched:
            there = found.get(key, Fingerprint(0, EMPTY))
            now[key] = Entry(f"{INGESTION}/{self._table.name}", key, there.state, there.rows, moment, "")
        return now

    def look(self) -> None:
        """Find out what ``commit`` would do to the table as it was held. Raises Undecided and StaleSnapshot."""
        if self._behind.is_empty:
            return
        if self._lake.lacks_columns(self._held, self._table):
            raise Undecided("the lake's table is of an older version")
        with self._room() as connection:
            made = self._make(connection, self._held)
            if made is not None:
                self._note_letters(*made.letters(0))

    def commit(self, refuse: Refuse | None) -> None:
        """Append versions, then dead letters. Raises Undecided, LostRace, StaleSnapshot, and what ``refuse`` raises."""
        held = self._lake.open_versions(self._table)
        self.before = self.committed = committed(held)
        if self.committed != committed(self._held):  # what was taken from the journal meanwhile would be taken again
            raise LostRace(f"another capture committed to {held.table_uri}")
        if self._behind.is_empty:
            return
        with self._room() as connection:
            made = self._make(connection, held)
            if made is None:
                return
            if refuse is not None:
                rows = sum(entry.rows for entry in self.known.values())
                refuse(rows, rows + sum(self._came.values()))
            recorded_at = self._append(made, connection, held)
            self._keep_letters(made, connection, recorded_at)

    @contextmanager
    def _room(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A session for what the journal says. What does not fit in its memory is undecided, and holds nothing up."""
        try:
            with room(self._lake.find(JOURNAL), self._behind.oldest, self._behind.until) as connection:
                yield connection
        except duckdb.Error as error:
            if not engine.is_out_of_memory(error):
                raise
            raise Undecided(f'so much of "{self._table.name}" is new that there is no memory for it') from error

    def _make(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable) -> LogVersions | None:
        require_newest(self._snapshot, self._table, held)
        journal = reached_journal(self._lake, self._reached)
        letters = dead_letters.open_dead_letters(self._lake)
        mine = letters.filter(pc.field("table_name") == self._table.name)
        made = LogVersions(connection, self._table, self._all_days, mine)
        with stage(DIFFERENCE):
            made.make(journal, held, self._behind)
        self.changes, self.columns, self.counts, self._came = made.changes, made.columns, made.counts, made.came
        return made if made.changes else None

    def _append(self, made: LogVersions, connection: duckdb.DuckDBPyConnection, held: DeltaTable) -> int:
        """Commit the versions; returns when the newest was recorded."""
        # Before the versions are read: the next statement of a session ends a result.
        newest = connection.execute(f"SELECT epoch_us(max({RECORDED_AT})) FROM difference").fetchall()
        if newest[0][0] is None:
            return recorded_until(held)
        recorded_at, schema = int(newest[0][0]), lake_schema(self._table, versioned=True)
        batches = conform(made.batches(), schema, self._table.day_column)
        noted = {
            self._snapshot.lifetime: self._snapshot.order(self._table),
            **marks(self._behind, recorded_at, has_letters=made.has_letters),
        }
        words = said(self._behind, recorded_at)
        append(held, batches, schema, f"capture:{self._table.name}", noted, said=words)
        self.committed = committed(held)
        self._lake.share(held, INGESTION, self._table.name)
        return recorded_at

    def _keep_letters(self, made: LogVersions, connection: duckdb.DuckDBPyConnection, recorded_at: int) -> None:
        taken_at = max(recorded_at, microseconds(self._snapshot.read_at(self._table)))
        for attempt in range(ATTEMPTS):
            partitions, letters = made.letters(taken_at)
            self._note_letters(partitions, letters)
            try:
                if partitions:
                    told = letter_marks(self._table, self._behind)
                    dead_letters.keep(connection, self._lake, self._table, partitions, told)
                return
            except LostRace:
                if attempt == ATTEMPTS - 1:
                    raise

    def _note_letters(self, partitions: list[str], letters: Counter[str]) -> None:
        for partition in {*partitions, *self.touched}:
            self.counts[partition, "rejected"] = letters[partition]
