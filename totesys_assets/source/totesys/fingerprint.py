"""Fingerprints of ToteSys: one scan that tells, per day, whether a table's rows are still those that we hold.

Belongs here: the scan, and what of the table's structure is part of a state. Does not belong here: what to do about a
difference.
"""

from __future__ import annotations

import hashlib

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.digest import POSTGRES
from totesys_assets.source.rows import examined_sql, partition_of
from totesys_assets.source.totesys.structure import SourceTable
from totesys_assets.sql_text import literal, quoted

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


def scan(table: Table, relation: str, all_days: DayRange, days: Days | None) -> str:
    """SELECT of partition, number of rows and hash of every partition that has rows; with ``days``, of these days."""
    return _FINGERPRINT.format(
        partition=partition_of("day", all_days, POSTGRES) if table.day_column else literal(WHOLE),
        day=f"{quoted(table.day_column)}::date" if table.day_column else "NULL",
        key=quoted(table.key),
        table=relation,
        within=examined_sql(table, days, all_days) if days is not None and table.day_column else "true",
    )


def structure(found: SourceTable, table: Table) -> str:
    """Digest of what ``table`` is in the source and of what the catalogue says of it, types and rules.

    Either may change what every row reads as, or whether it is a dead letter, without a row being written. Another
    relation in the table's place, or among its parts, may have rows with transaction ids from before the last capture.
    """
    is_source = [found.columns, found.identities, found.relations]
    declared = [(each.name, each.type, each.nullable, each.labels, each.is_date_text) for each in table.columns]
    return hashlib.sha256(repr([declared, *is_source]).encode()).hexdigest()[:12]
