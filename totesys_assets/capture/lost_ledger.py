"""Where ledger and lake do not agree: one of them was lost, or a capture was killed between its two commits.

Belongs here: entries that the ledger has not, made from the lake; and entries of what the lake has lost, a table or
some versions. Does not belong here: the ledger itself (ledger.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.beside import committed, is_commit_to
from totesys_assets.capture.ledger import EMPTY, LAST, Entry, Ledger, state_of
from totesys_assets.catalogue.catalogue import OPERATION, Catalogue, Table
from totesys_assets.days import WHOLE
from totesys_assets.errors import ConcurrentWriters
from totesys_assets.lake.commit import LostRace
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import RECORDED, register
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.lake.versions import newest_first
from totesys_assets.sql_text import literal, quoted

# No fingerprint is ever this: what was captured before the ledger was lost is compared anew.
_UNKNOWN = "unknown"
# Each loss is a write-off of another.
_ATTEMPTS = 5
# Of each table of a lake, by its place: what the ledger noted last, and the commit that was searched and had no more.
_SEARCHED: dict[str, tuple[str, str]] = {}


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
    day, newest = _partition(table), newest_first([*table.primary_key, "partition"])
    with engine.session() as connection:
        rows = connection.execute(
            f"SELECT partition, count(*) FILTER ({OPERATION} <> 'delete') FROM (SELECT *, {day} AS partition "
            f"FROM {register(connection, 'held', held)} QUALIFY {newest}) GROUP BY 1"
        ).fetchall()
    now = datetime.now(UTC)
    return {key: Entry(ingestion_name(table), key, _UNKNOWN if count else EMPTY, count, now, "") for key, count in rows}


def write_off(lake: Lake, table: Table, run_id: str) -> None:
    """Take back in the ledger what it notes of versions that the lake has lost: the lake is adopted without them.

    What takes it back is an entry with a count below zero, so that the sums are what the lake holds. Its partition is
    compared: the state that was noted is of what the lake has lost. Of two that do so at once, one does. Raises
    ConcurrentWriters if others were faster again and again.
    """
    for _ in range(_ATTEMPTS):
        with suppress(LostRace):
            _write_off(lake, table, run_id)
            return
    raise ConcurrentWriters(
        f'Others wrote off what the lake has lost of "{table.name}" {_ATTEMPTS} times while this refresh did. '
        "Nothing more is lost; refresh again with --adopt-lake."
    )


def _write_off(lake: Lake, table: Table, run_id: str) -> None:
    ledger, name = Ledger(lake), ingestion_name(table)
    fence = f"write_off:{table.name}"
    number = ledger.fence(fence)
    noted, newest = ledger.totals().get(name, {}), ledger.newest([name]).get(name, {})
    held = lake.find(INGESTION, table.name)
    counts: dict[str, int] = {}
    if held is not None:
        with engine.session() as connection:
            versions = register(connection, "held", held)
            counts = dict(
                connection.execute(f"SELECT {_partition(table)}, count(*) FROM {versions} GROUP BY 1").fetchall()
            )
    lost = {key: each.versions - counts.get(key, 0) for key, each in noted.items()}
    taken_back = (
        replace(newest[key], state=_UNKNOWN, run_id=run_id, inserted=-count, updated=0, deleted=0, missed=0)
        for key, count in lost.items()
        if count > 0
    )
    ledger.append(taken_back, behind=(fence, number))


def _partition(table: Table) -> str:
    """DuckDB expression of a row's partition."""
    return f"strftime({quoted(table.day_column)}, '%Y-%m-%d')" if table.day_column else literal(WHOLE)


def corrected(catalogue: Catalogue, lake: Lake, held: Mapping[str, DeltaTable | None]) -> dict[str, dict[str, Entry]]:
    """The ledger's newest entries. Those of ingestion tables that the lake has lost are left out.

    Those that the ledger should have of a table, and has not, are made from the lake and added. ``held``: the ingestion
    tables, opened before the entries are read.
    """
    noted = Ledger(lake).newest()
    for table in catalogue.source.values():
        found = held[table.name]
        if ingestion_name(table) in noted and is_gone(found, table.name, noted):
            found = lake.find(INGESTION, table.name)  # it may have been captured for the first time meanwhile
            if is_gone(found, table.name, noted):
                del noted[ingestion_name(table)]
        if missing := missing_entries(lake, table, found, noted):
            noted[ingestion_name(table)] = noted.get(ingestion_name(table), {}) | missing
    return noted


def is_gone(held: DeltaTable | None, name: str, noted: Mapping[str, Mapping[str, Entry]]) -> bool:
    """Whether the lake has lost the table ``name`` that the ledger's entries ``noted`` are about.

    ``held`` is the one in its place: none, or a new one, which a build that reads it or another capture has begun.
    """
    if held is None:
        return True
    last = noted.get(LAST, {}).get(name)
    if last is None or last.state == committed(held):
        return False
    return mark(held, RECORDED) is None or not is_commit_to(held, last.state)


def is_unknown(entry: Entry) -> bool:
    """Whether an entry was made from the lake, which does not tell what the rows of the source were like."""
    return entry.state == _UNKNOWN


def is_lost(known: Mapping[str, Entry]) -> bool:
    """Whether all that is ``known`` of a table was made from the lake: the ledger has no word of a capture."""
    return bool(known) and not any(each.run_id for each in known.values())


def missing_entries(
    lake: Lake, table: Table, held: DeltaTable | None, noted: Mapping[str, Mapping[str, Entry]]
) -> dict[str, Entry]:
    """Entries for the partitions of the lake's table ``held`` that the ledger, as ``noted``, does not mention.

    All of them if the ledger was lost; else those of a capture that was killed between its two commits. If their rows
    were deleted since, only these entries make the next refresh capture them. The search reads the whole table. Of two
    ranges that raced, the later may be left without a note for long: a process searches what it committed once.
    """
    known, last = noted.get(ingestion_name(table), {}), noted.get(LAST, {}).get(table.name)
    if held is None:
        return {}
    now = committed(held)
    searched = (last.state if last is not None else "", now)
    if known and (now == searched[0] or _SEARCHED.get(held.table_uri) == searched):
        return {}
    missing = {key: entry for key, entry in entries_from_lake(lake, table).items() if not state_of(known, key)}
    if known and not missing:
        _SEARCHED[held.table_uri] = searched
    return missing


def last_entries(ledger: Ledger, table: Table, began: str, before: str, now: str, run_id: str) -> list[Entry]:
    """The ledger's entry that up to the commit ``now`` all that the lake has of ``table`` is noted; none if it may not.

    ``began``: the last commit when the capture began, if nothing was left to note; ``before``: the one before ``now``,
    empty if it is that one. A capture of other days that committed in between notes that itself, unless it is killed:
    then nothing but what is missing here tells the next look to search for what it left.
    """
    if before not in ("", began) and not before.endswith(" None"):
        last = ledger.newest([LAST]).get(LAST, {}).get(table.name)
        if last is None or last.state != before:
            return []
    return [Entry(LAST, table.name, now, 0, datetime.now(UTC), run_id)]
