"""Capturing a table: the difference between the source and the lake, appended to the lake as versions, and noted.

Belongs here: what a capture decides before it compares, and what it notes in the ledger afterwards. Does not belong
here: the comparison itself (comparison.py), and which days to ask for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial

from totesys_assets import engine
from totesys_assets.capture.beside import committed
from totesys_assets.capture.changes import all_of, captured_of, changes, is_stale
from totesys_assets.capture.comparison import ATTEMPTS, Comparison
from totesys_assets.capture.following import followed_entries, reach
from totesys_assets.capture.generation import assign_generation, complete_entries, seen_until, source_entries
from totesys_assets.capture.ledger import EMPTY, Entry, Ledger, state_of
from totesys_assets.capture.logged import Logged, Refuse, follow
from totesys_assets.capture.lost_ledger import ingestion_name, is_gone, last_entries, missing_entries, write_off
from totesys_assets.capture.missed import Missed, note_missed
from totesys_assets.capture.onward import Onward
from totesys_assets.capture.refusals import refuse_mass_deletion, require_first_day
from totesys_assets.capture.registry import CAPTURED, drift_noted, may_be_new, note
from totesys_assets.capture.stretches import Seen
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.errors import ConcurrentWriters
from totesys_assets.lake.commit import LostRace
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.source.interface import Fingerprint, SourceSnapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Captured:
    """What one capture of one table did: an entry for each of its partitions, changed or not.

    ``missed``: what the last comparison of the table found that should have been known; this one, or one before it.
    """

    entries: list[Entry]
    missed: Missed | None = None

    def total(self, name: str) -> int:
        """Sum of a count over the partitions: rows, inserted, updated, deleted or rejected."""
        return sum(getattr(entry, name) for entry in self.entries)

    @property
    def versions(self) -> int:
        """Versions added to the lake."""
        return self.total("inserted") + self.total("updated") + self.total("deleted")


def capture(
    snapshot: SourceSnapshot,
    lake: Lake,
    table: Table,
    *,
    all_days: DayRange,
    days: Days | None,
    run_id: str,
    accept_deletions: bool = False,
    changes_only: bool = False,
    adopt_lake: bool = False,
    seen: str = "",
    onward: Onward | None = None,
    is_range: bool = False,
) -> Captured:
    """Bring the lake's versions of ``table`` up to what ``snapshot`` shows, for ``days`` (None: the whole table).

    ``changes_only`` looks at the days that are stale, and reads no more of them than may have been written since the
    last capture (changes.py); else every row of the days is compared.
    ``adopt_lake``: what the ledger notes and the lake has lost is written off first.
    ``seen``: the days are all that were stale when ``generation.seen_until`` was this; it is noted with them.
    ``is_range``: other days may be captured at the same time, and are left to others.
    ``onward``: has the versions of a first capture, too, as they come.
    Data first, then the ledger. Doing it twice adds nothing. Raises WrongDatabase, SchemaDrift, MassDeletion,
    StaleSnapshot when another writer captured from a later snapshot, and ConcurrentWriters when other writers win five
    times in a row.
    """
    failed = f'Capture of "{table.name}" failed, and will be done again by the next refresh'
    ledger = Ledger(lake)
    if adopt_lake:
        write_off(lake, table, run_id)
    newest = ledger.newest()
    snapshot = assign_generation(ledger, snapshot, newest)
    with engine.readable_errors(failed), drift_noted(lake, snapshot, table):
        snapshot.require(table)
    held = lake.find(INGESTION, table.name)
    if is_gone(held, table.name, newest):
        ledger.forget(ingestion_name(table), run_id)
        newest = ledger.newest()
    known = newest.get(ingestion_name(table), {})
    if may_be_new(lake, table) or not any(snapshot.has_structure(table, each.state) for each in known.values()):
        note(lake, snapshot, table, CAPTURED)
    missing = missing_entries(lake, table, held, newest)
    known = known | missing
    require_first_day(table, all_days, known)
    days, began = days if table.day_column else None, committed(held) if held is not None else ""
    if is_range and days is not None and (others := missing.keys() - set(days.keys)):
        # Another range may be about to note them: what is left of a killed one, the look after all ranges finds.
        missing, began = {key: entry for key, entry in missing.items() if key not in others}, ""
    beside = days if days != all_days and (is_range or not changes_only) else None
    refuse = None if accept_deletions else partial(refuse_mass_deletion, table)
    with engine.readable_errors(failed):
        reached = reach(lake, snapshot, table)
        logged = follow(snapshot, lake, table, all_days, reached, newest, known, refuse)
        if logged is not None and logged.is_noted and changes_only:
            result = _taken(logged, days)
        else:
            begins = reached is not None and (logged is None or not logged.is_noted) and not is_range
            before = {**known, **logged.entries} if logged is not None else known
            result = _compare(
                snapshot,
                lake,
                table,
                all_days,
                days,
                before,
                refuse,
                onward,
                beside,
                changes_only=changes_only,
                begins=begins,
            )
            if logged is not None:
                result = _after(logged, result)
    snapshot.keep(table)
    entries = _entries(snapshot, table, result, known, run_id)
    # Nothing new to say about a partition is not said again.
    new = {each.partition: each for each in entries if each.missed or each.state != state_of(known, each.partition)}
    noted = [*(missing | new).values()]
    columns, file = logged.columns if logged is not None else "", snapshot.file(table)
    has_news = noted or logged is None or logged.changes or logged.is_rewritten
    if reached is not None and result.is_complete and has_news:
        how = Seen.of(result.missed, was_told=logged is not None and not logged.is_rewritten)
        noted += followed_entries(table, reached, result.committed, newest, file, columns=columns, how=how)
    is_whole = not changes_only and days in (None, all_days)
    told, missed = note_missed(newest, entries, table.name, by_log=logged is not None, is_whole=is_whole)
    noted += told
    if noted:
        last = last_entries(ledger, table, began, result.before, result.committed, run_id)
        complete = complete_entries(snapshot, table.name, seen_until(snapshot) if result.is_complete else seen, run_id)
        ledger.append([*noted, *last, *complete, *source_entries(snapshot, run_id)])
    return Captured(entries, missed)


@dataclass(frozen=True)
class _Result:
    """What a capture found on ``partitions``, and did.

    ``found``: their fingerprints. ``counts``: versions by partition and operation, and dead letters by partition.
    ``missed``: how many of the versions, by partition, the log should have told of; None where it is not followed.
    ``committed``: the newest commit to the lake. ``is_complete``: all of the table is as the snapshot shows it.
    ``before``: the commit before it; empty if it is the one that the capture began with.
    """

    partitions: Sequence[str]
    found: Mapping[str, Fingerprint]
    counts: Counter[tuple[str, str]]
    committed: str
    is_complete: bool
    missed: Mapping[str, int] | None = None
    before: str = ""


def _taken(logged: Logged, days: Days | None) -> _Result:
    """What was taken from the journal: on all days that it told of, also on those that nobody asked for."""
    partitions = sorted({*(days.keys if days is not None else [WHOLE]), *logged.touched})
    return _Result(partitions, logged.found, logged.counts, logged.committed, is_complete=True, before=logged.before)


def _after(logged: Logged, compared: _Result) -> _Result:
    """A comparison after what was taken from the journal. What it found besides, the log has missed."""
    counts, missed = Counter(logged.counts), Counter[str]()
    for (partition, what), count in compared.counts.items():
        is_letters = what == "rejected"
        counts[partition, what] = count if is_letters else counts[partition, what] + count
        missed[partition] += 0 if is_letters else count
    is_new = {key for key, count in missed.items() if count}
    if logged.is_rewritten:
        missed.clear()
    found = dict(logged.found)
    for partition in compared.partitions:
        now, known = compared.found.get(partition), found.get(partition)
        # A partition that is as it was keeps its state: what is made of it need not be made anew.
        is_told = logged.is_noted or partition in logged.unnoted
        if now is None or known is None or now.rows != known.rows or partition in is_new or not is_told:
            found.pop(partition, None)
            found |= {partition: now} if now is not None else {}
    is_complete = logged.is_noted or compared.is_complete
    # Of days that nobody compared, and of which a killed capture has changed the rows, their number is not known.
    uncounted = set() if is_complete else logged.unnoted & logged.known.keys()
    partitions = sorted({*compared.partitions, *(logged.touched - uncounted)})
    before = logged.before if compared.before == logged.committed else compared.before
    return _Result(partitions, found, counts, compared.committed, is_complete, missed, before)


def _compare(
    snapshot: SourceSnapshot,
    lake: Lake,
    table: Table,
    all_days: DayRange,
    days: Days | None,
    known: Mapping[str, Entry],
    refuse: Refuse | None,
    onward: Onward | None,
    beside: Days | None,
    *,
    changes_only: bool,
    begins: bool,
) -> _Result:
    """Compare a table with the source. ``begins``: all that is stale of it, so that it can be followed from here on."""
    is_complete = days is None or (days == all_days and not changes_only)
    partitions = days.keys if days is not None else [WHOLE]
    if begins and changes_only and days is not None:
        is_complete = True
        found = snapshot.fingerprints(table, all_days)
        partitions = sorted({*partitions, *(key for key in found.keys() | known.keys() if is_stale(key, found, known))})
    elif changes_only:
        found = snapshot.changed_fingerprints(table, all_days, days, captured_of(partitions, known))
    else:
        found = snapshot.fingerprints(table, all_days, days)
    if refuse is not None:
        rows = {key: entry.rows for key, entry in known.items()}
        now = dict.fromkeys(partitions, 0) | {key: each.rows for key, each in found.items()}
        if not changes_only and any(now[key] < rows.get(key, 0) for key in partitions):
            # A day that was emptied, or a table? Only a look at all days tells.
            everything = snapshot.fingerprints(table, all_days)
            now = dict.fromkeys(rows, 0) | {key: each.rows for key, each in everything.items()}
        refuse(sum(rows.values()), sum((rows | now).values()))
    to_read = changes(snapshot, table, partitions, found, known) if changes_only else all_of(partitions)
    for _ in range(ATTEMPTS):
        comparison = Comparison(snapshot, lake, table, all_days, found, to_read, onward, beside)
        try:
            comparison.commit()
        except LostRace:
            log.info("%s: another refresh committed first; comparing again", table.name)
            continue
        counts, before = comparison.counts, comparison.before
        return _Result(partitions, found, counts, comparison.committed, is_complete, before=before)
    raise ConcurrentWriters(
        f'Other refreshes committed to "{table.name}" {ATTEMPTS} times while this one compared it. '
        "Nothing is lost; refresh again."
    )


def _entries(
    snapshot: SourceSnapshot, table: Table, result: _Result, known: Mapping[str, Entry], run_id: str
) -> list[Entry]:
    """What to write in the ledger, for every partition of the result; ``known`` is what it says so far."""
    # Where rows share a key, the one that is left in the end may be an old one, which its transaction id does not show.
    entries, ids = [], None if snapshot.may_double(table) else snapshot.transactions
    partitions, found, counts = result.partitions, result.found, result.counts
    for partition in partitions:
        fingerprint = found.get(partition, Fingerprint(0, ""))
        inserted, updated, deleted = (counts[partition, each] for each in ("insert", "update", "delete"))
        state = fingerprint.state
        # Emptied; or the last day of a table that has never had a row, and so was captured all the same.
        is_new = not found and not any(each.state for each in known.values())
        if not state and (state_of(known, partition) or (is_new and partition == partitions[-1])):
            state = EMPTY
        if result.missed is not None:
            missed = result.missed.get(partition, 0)
        else:  # versions where the fingerprint has stayed the same: what only a comparison of content finds
            missed = inserted + updated + deleted if state == state_of(known, partition) else 0
        entries.append(
            Entry(
                asset=ingestion_name(table),
                partition=partition,
                state=state,
                rows=fingerprint.rows,
                recorded_at=snapshot.read_at(table).replace(tzinfo=UTC),
                run_id=run_id,
                inserted=inserted,
                updated=updated,
                deleted=deleted,
                rejected=counts[partition, "rejected"],
                missed=missed,
                xmin_floor=ids.xmin if ids is not None else 0,
            )
        )
    return entries
