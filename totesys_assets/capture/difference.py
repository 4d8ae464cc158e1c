"""Capturing a table: the difference between the source and the lake, appended to the lake as versions, and noted.

Belongs here: what a capture decides before it compares, and what it notes in the ledger afterwards. Does not belong
here: the comparison itself (comparison.py), and which days to ask for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.changes import all_of, captured_of, changes
from totesys_assets.capture.comparison import ATTEMPTS, Comparison, committed
from totesys_assets.capture.generation import assign_generation, complete_entries, seen_until, source_entries
from totesys_assets.capture.ledger import EMPTY, LAST, Entry, Ledger, state_of
from totesys_assets.capture.registry import CAPTURED, drift_noted, may_be_new, note
from totesys_assets.catalogue.catalogue import OPERATION, Table
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.errors import ConcurrentWriters, MassDeletion, PlatformError
from totesys_assets.lake.commit import LostRace
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.lake.versions import newest_first
from totesys_assets.source.interface import Fingerprint, SourceSnapshot
from totesys_assets.sql_text import literal, quoted

log = logging.getLogger(__name__)

# No fingerprint is ever this: what was captured before the ledger was lost is compared anew.
_UNKNOWN = "unknown"
# A table of fewer rows than this may lose most of them without anybody being asked.
_MASS_DELETION_ROWS = 20


@dataclass(frozen=True)
class Captured:
    """What one capture of one table did: an entry for each of its partitions, changed or not."""

    entries: list[Entry]

    def total(self, name: str) -> int:
        """Sum of a count over the partitions: rows, inserted, updated, deleted or rejected."""
        return sum(getattr(entry, name) for entry in self.entries)

    @property
    def versions(self) -> int:
        """Versions added to the lake."""
        return self.total("inserted") + self.total("updated") + self.total("deleted")


def ingestion_name(table: Table) -> str:
    """Name of a source table's asset in the ledger."""
    return f"{INGESTION}/{table.name}"


def entries_from_lake(lake: Lake, table: Table) -> dict[str, Entry]:
    """Entries of ``table`` made from the lake alone: the partitions that it holds, in unknown states.

    They stand in for a lost ledger. Without them, a day whose rows were deleted meanwhile would have neither a
    fingerprint nor an entry, and would never be captured. A partition whose rows are all deleted is empty.
    """
    held = lake.find(INGESTION, table.name)
    if held is None:
        return {}
    day = f"strftime({quoted(table.day_column)}, '%Y-%m-%d')" if table.day_column else literal(WHOLE)
    newest = newest_first([*table.primary_key, "partition"])
    with engine.session() as connection:
        rows = connection.execute(
            f"SELECT partition, count(*) FILTER ({OPERATION} <> 'delete') FROM (SELECT *, {day} AS partition "
            f"FROM {register(connection, 'held', held)} QUALIFY {newest}) GROUP BY 1"
        ).fetchall()
    now = datetime.now(UTC)
    return {key: Entry(ingestion_name(table), key, _UNKNOWN if count else EMPTY, count, now, "") for key, count in rows}


def missing_entries(
    lake: Lake, table: Table, held: DeltaTable | None, noted: Mapping[str, Mapping[str, Entry]]
) -> dict[str, Entry]:
    """Entries for the partitions of the lake's table ``held`` that the ledger, as ``noted``, does not mention.

    All of them if the ledger was lost; else those of a capture that was killed between its two commits. If their rows
    were deleted since, only these entries make the next refresh capture them.
    """
    known, last = noted.get(ingestion_name(table), {}), noted.get(LAST, {}).get(table.name)
    if held is None or (known and (last is None or last.state == committed(held))):
        return {}
    return {key: entry for key, entry in entries_from_lake(lake, table).items() if not state_of(known, key)}


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
    seen: str = "",
) -> Captured:
    """Bring the lake's versions of ``table`` up to what ``snapshot`` shows, for ``days`` (None: the whole table).

    ``changes_only`` looks at the days that are stale, and reads no more of them than may have been written since the
    last capture (changes.py); else every row of the days is compared.
    ``seen``: the days are all that were stale when ``generation.seen_until`` was this; it is noted with them.
    Data first, then the ledger. Doing it twice adds nothing. Raises WrongDatabase, SchemaDrift, MassDeletion,
    StaleSnapshot when another writer captured from a later snapshot, and ConcurrentWriters when other writers win five
    times in a row.
    """
    failed = f'Capture of "{table.name}" failed, and will be done again by the next refresh'
    ledger = Ledger(lake)
    newest = ledger.newest()
    snapshot = assign_generation(ledger, snapshot, newest)
    days = days if table.day_column else None
    partitions = days.keys if days is not None else [WHOLE]
    with engine.readable_errors(failed), drift_noted(lake, snapshot, table):
        if changes_only:
            before = captured_of(partitions, newest.get(ingestion_name(table), {}))
            found = snapshot.changed_fingerprints(table, all_days, days, before)
        else:
            found = snapshot.fingerprints(table, all_days, days)
    held = lake.find(INGESTION, table.name)
    if held is None:
        ledger.forget(ingestion_name(table), run_id)
        newest = ledger.newest()
    known = newest.get(ingestion_name(table), {})
    if may_be_new(lake, table) or not any(snapshot.has_structure(table, each.state) for each in known.values()):
        note(lake, snapshot, table, CAPTURED)
    missing = missing_entries(lake, table, held, newest)
    known = known | missing
    require_first_day(table, all_days, known)
    if not accept_deletions:
        rows = {key: entry.rows for key, entry in known.items()}
        now = dict.fromkeys(partitions, 0) | {key: each.rows for key, each in found.items()}
        if not changes_only and any(now[key] < rows.get(key, 0) for key in partitions):
            # A day that was emptied, or a table? Only a look at all days tells.
            with engine.readable_errors(failed):
                everything = snapshot.fingerprints(table, all_days)
            now = dict.fromkeys(rows, 0) | {key: each.rows for key, each in everything.items()}
        _refuse_mass_deletion(table, sum(rows.values()), sum((rows | now).values()))
    to_read = changes(snapshot, table, partitions, found, known) if changes_only else all_of(partitions)
    for _ in range(ATTEMPTS):
        comparison = Comparison(snapshot, lake, table, all_days, found, to_read)
        with engine.readable_errors(failed):
            try:
                comparison.commit()
            except LostRace:
                log.info("%s: another refresh committed first; comparing again", table.name)
                continue
        snapshot.keep(table)
        captured = Captured(_entries(snapshot, table, partitions, found, known, comparison.counts, run_id))
        # Nothing new to say about a partition is not said again.
        new = {
            entry.partition: entry
            for entry in captured.entries
            if entry.missed or entry.state != state_of(known, entry.partition)
        }
        if missing or new:
            is_complete = days is None or (days == all_days and not changes_only)
            noted = complete_entries(snapshot, table.name, seen_until(snapshot) if is_complete else seen, run_id)
            last = Entry(LAST, table.name, comparison.committed, 0, datetime.now(UTC), run_id)
            ledger.append([*(missing | new).values(), last, *noted, *source_entries(snapshot, run_id)])
        return captured
    raise ConcurrentWriters(
        f'Other refreshes committed to "{table.name}" {ATTEMPTS} times while this one compared it. '
        "Nothing is lost; refresh again."
    )


def require_first_day(table: Table, all_days: DayRange, known: Mapping[str, Entry]) -> None:
    """Raise PlatformError if days of ``table`` that were captured are none of ``all_days``: the first was moved later.

    Else their rows would be dead letters of the new first day, and gone from the days that they are on.
    """
    first = min((key for key, entry in known.items() if entry.state and key != WHOLE), default=None)
    if first is not None and first < all_days.first.isoformat():
        raise PlatformError(
            f'TOTESYS_FIRST_DAY is {all_days.first}, but "{table.name}" was captured from {first} on, and days that '
            f"were captured cannot be left out. Set it to {first} or an earlier day; or begin anew, with another "
            "LAKE_URI and another WAREHOUSE_SCHEMA."
        )


def _refuse_mass_deletion(table: Table, before: int, now: int) -> None:
    if before >= _MASS_DELETION_ROWS and now < before / 2:
        raise MassDeletion(
            f'"{table.name}" had {before:,} rows and now has {now:,}: a wrong database, a truncated table or lost '
            "rights. Nothing of it was captured. If the rows were meant to go: totesys refresh --accept-deletions."
        )


def _entries(
    snapshot: SourceSnapshot,
    table: Table,
    partitions: Sequence[str],
    found: Mapping[str, Fingerprint],
    known: Mapping[str, Entry],
    counts: Counter[tuple[str, str]],
    run_id: str,
) -> list[Entry]:
    """What to write in the ledger, for every partition that was asked for; ``known`` is what it says so far."""
    entries, ids = [], snapshot.transactions
    for partition in partitions:
        fingerprint = found.get(partition, Fingerprint(0, ""))
        inserted, updated, deleted = (counts[partition, each] for each in ("insert", "update", "delete"))
        state = fingerprint.state
        # Emptied; or the last day of a table that never had a row, and so was captured all the same.
        if not state and (state_of(known, partition) or (not found and not known and partition == partitions[-1])):
            state = EMPTY
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
                # Versions where the fingerprint has stayed the same: what only a comparison of content finds.
                missed=inserted + updated + deleted if state == state_of(known, partition) else 0,
                xmin_floor=ids.xmin if ids is not None else 0,
            )
        )
    return entries
