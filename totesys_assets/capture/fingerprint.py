"""Fingerprints: one scan that tells, per day, whether a table's rows are still those that we hold.

Belongs here: the fingerprint's SQL. Does not belong here: what to do about a difference.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.engine import literal, quoted
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets.stages import FINGERPRINT, stage

# xmin changes with every write to a row, whatever last_updated says. It is the hash's seed and must not be packed into
# the value: hashint8 folds the two halves of a bigint into one, and a whole day rewritten by the next transaction would
# keep its hash. XOR does not mind the order, but two equal hashes cancel out: hence the count beside it.
# Rows are gathered by day first, days by partition then: to_char of every row took half of the scan's time.
_FINGERPRINT = """
SELECT {partition} AS partition, sum(rows)::bigint AS rows, bit_xor(hash)::text AS hash
FROM (
    SELECT {day} AS day, count(*) AS rows, bit_xor(hashint8extended({key}::bigint, xmin::text::bigint)) AS hash
    FROM {table} WHERE {within}
    GROUP BY 1
) AS days
GROUP BY 1
"""

# More ranges of days than this are asked for day by day.
_FEW_RANGES = 8


@dataclass(frozen=True)
class Fingerprint:
    """How many rows a partition has, and a hash of their keys and transaction ids on that server."""

    rows: int
    state: str


def partition_sql(table: Table, all_days: DayRange) -> str:
    """PostgreSQL expression of a row's partition, as text.

    A row whose created_at has no partition (before the first day, in the future, infinite) is examined with the first
    day, where it becomes a dead letter: no row is out of sight.
    """
    if table.day_column is None:
        return literal(WHOLE)
    return _partition_sql(quoted(table.day_column), all_days)


def _partition_sql(moment: str, all_days: DayRange) -> str:
    first, end = literal(all_days.first.isoformat()), literal(all_days.end.isoformat())
    return f"CASE WHEN {moment} >= {first} AND {moment} < {end} THEN to_char({moment}, 'YYYY-MM-DD') ELSE {first} END"


def within_sql(table: Table, days: Days) -> str:
    """PostgreSQL condition of the rows created on ``days``."""
    column = quoted(str(table.day_column))
    if len(days.ranges) > _FEW_RANGES:  # a list is looked up by its hash
        return f"{column}::date IN ({', '.join(literal(key) for key in days.keys)})"
    ranges = (
        f"({column} >= {literal(each.first.isoformat())} AND {column} < {literal(each.end.isoformat())})"
        for each in days.ranges
    )
    return f"({' OR '.join(ranges)})"


def examined_sql(table: Table, days: Days, all_days: DayRange) -> str:
    """PostgreSQL condition of the rows examined with ``days``: with the first one, those that have no partition."""
    within = within_sql(table, days)
    return f"({within} OR {within_sql(table, all_days)} IS NOT TRUE)" if all_days.first in days else within


def fingerprints(
    snapshot: Snapshot, table: Table, all_days: DayRange, days: Days | None = None
) -> dict[str, Fingerprint]:
    """Fingerprint of every partition that has rows, by partition key; with ``days``, at least those of these days.

    One sequential scan in the source, unless the snapshot was asked before. Raises what ``Snapshot.require`` raises.
    """
    snapshot.require(table)
    scanned = snapshot.scans.get((table.name, all_days))
    if scanned is None:
        days = None if days == all_days else days
        scanned = _scan(snapshot, table, all_days, days)
        if days is None:
            snapshot.scans[table.name, all_days] = scanned
    prefix = state_prefix(snapshot, table)
    return {partition: Fingerprint(rows, f"{prefix}|{rows}|{hash_}") for partition, rows, hash_ in scanned}


def _scan(snapshot: Snapshot, table: Table, all_days: DayRange, days: Days | None) -> list[tuple[str, int, str]]:
    within = "true"
    if days is not None and table.day_column:
        within = examined_sql(table, days, all_days)
    sql = _FINGERPRINT.format(
        partition=_partition_sql("day", all_days) if table.day_column else literal(WHOLE),
        day=f"{quoted(table.day_column)}::date" if table.day_column else "NULL",
        key=quoted(table.key),
        table=snapshot.relation(table),
        within=within,
    )
    with stage(FINGERPRINT):
        return snapshot.rows(sql)


def state_prefix(snapshot: Snapshot, table: Table) -> str:
    """How the states of ``table`` begin. Transaction ids are comparable only between states with the same prefix."""
    return f"{snapshot.server}#{snapshot.generation}|{structure(snapshot, table)}"


def structure(snapshot: Snapshot, table: Table) -> str:
    """Digest of what ``table`` is in the source and of what the catalogue says of it, types and rules.

    Either may change what every row reads as, or whether it is a dead letter, without a row being written. Another
    relation in the table's place, or among its parts, may have rows with transaction ids from before the last capture.
    """
    found = snapshot.tables[table.name]
    is_source = [found.columns, found.identities, found.relations]
    declared = [(each.name, each.type, each.nullable, each.labels, each.is_date_text) for each in table.columns]
    return hashlib.sha256(repr([declared, *is_source]).encode()).hexdigest()[:12]


def is_structure(snapshot: Snapshot, table: Table, state: str) -> bool:
    """True when ``state``, of a fingerprint, was taken of a table of the structure that ``table`` has now."""
    return state.split("|")[1:2] == [structure(snapshot, table)]
