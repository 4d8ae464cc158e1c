"""Fingerprints: one scan that tells, per day, whether a table's rows are still those that we hold.

Belongs here: the fingerprint's SQL. Does not belong here: what to do about a difference.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.resources.engine import literal, quoted
from totesys_assets.resources.totesys import Snapshot

# xmin changes with every write to a row, whatever last_updated says. It is the hash's seed and must not be packed into
# the value: hashint8 folds the two halves of a bigint into one, and a whole day rewritten by the next transaction would
# keep its hash. XOR does not mind the order, but two equal hashes cancel out: hence the count beside it.
_FINGERPRINT = """
SELECT {partition} AS partition, count(*) AS rows,
    bit_xor(hashint8extended({key}::bigint, xmin::text::bigint))::text AS hash
FROM {table}
GROUP BY 1
"""


@dataclass(frozen=True)
class Fingerprint:
    """How many rows a partition has, and a hash of their keys and transaction ids on that server."""

    rows: int
    state: str


def partition_sql(table: Table, days: DayRange) -> str:
    """PostgreSQL expression of a row's partition, as text.

    A row whose created_at has no partition (before the first day, in the future, infinite) is examined with the first
    day, where it becomes a dead letter: no row is out of sight.
    """
    if table.day_column is None:
        return literal(WHOLE)
    column = quoted(table.day_column)
    first, end = literal(days.first.isoformat()), literal(days.end.isoformat())
    return f"CASE WHEN {column} >= {first} AND {column} < {end} THEN to_char({column}, 'YYYY-MM-DD') ELSE {first} END"


def fingerprints(snapshot: Snapshot, table: Table, days: DayRange) -> dict[str, Fingerprint]:
    """Fingerprint of every partition that has rows, by partition key. ``days`` is the range of all partitions.

    One sequential scan in the source. Raises what ``Snapshot.require`` raises.
    """
    snapshot.require(table)
    prefix = origin(snapshot, table)
    sql = _FINGERPRINT.format(partition=partition_sql(table, days), key=quoted(table.key), table=quoted(table.name))
    return {partition: Fingerprint(rows, f"{prefix}|{rows}|{hash_}") for partition, rows, hash_ in snapshot.rows(sql)}


def origin(snapshot: Snapshot, table: Table) -> str:
    """What all states of ``table`` begin with that may be compared with each other by transaction ids."""
    return f"{snapshot.server}#{snapshot.generation}|{structure(snapshot, table)}"


def structure(snapshot: Snapshot, table: Table) -> str:
    """Digest of what ``table`` is in the source and of what the catalogue says of it, types and rules.

    Either may change what every row reads as, or whether it is a dead letter, without a row being written.
    """
    found = snapshot.tables[table.name]
    declared = [(each.name, each.type, each.nullable, each.labels, each.is_date_text) for each in table.columns]
    return hashlib.sha256(repr([declared, found.columns, found.identities]).encode()).hexdigest()[:12]


def is_structure(snapshot: Snapshot, table: Table, state: str) -> bool:
    """True when ``state``, of a fingerprint, was taken of a table of the structure that ``table`` has now."""
    return state.split("|")[1:2] == [structure(snapshot, table)]
