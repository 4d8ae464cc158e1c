"""Fingerprints of ToteSys: what tells, per day, whether a table's rows are still those that we hold.

Belongs here: the scans, and what of the table's structure is part of a state. Does not belong here: what to do about a
difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange, Days, days_of
from totesys_assets.digest import POSTGRES
from totesys_assets.source.rows import examined_sql, within_sql
from totesys_assets.source.totesys.remembered import ByDay
from totesys_assets.source.totesys.structure import SourceTable
from totesys_assets.sql_text import literal, quoted

# Transaction ids lie on a circle of this size.
CIRCLE = 2**32
# The day of rows that no range of days can ever have: before the first of these, after the last, infinite, none at all.
# All rows of a table that is one set are there too.
NO_DAY = ""
_FIRST, _END = "0001-01-01", "9999-01-01"

# xmin changes with every write to a row, whatever last_updated says. It is the hash's seed and must not be packed into
# the value: hashint8 folds the two halves of a bigint into one, and a whole day rewritten by the next transaction would
# keep its hash. XOR does not mind the order, but two equal hashes cancel out: hence the count beside it.
# Rows are gathered by date first, written as text then: to_char of every row took half of the scan's time. The branch
# without rows hides the statistics of the day's column from PostgreSQL's planner. With them it expects as many dates as
# there are moments, and does not share the scan among processes. Without them it expects 200 dates, and
# shares the scan of a table that is large enough, as far as max_parallel_workers_per_gather lets it.
_HASHED = """
SELECT {name} AS day, sum(rows)::bigint AS rows, bit_xor(hash)::text AS hash, min(low)::text AS low,
    max(high)::text AS high
FROM (
    SELECT date, count(*) AS rows, bit_xor(hash) AS hash, min(place) AS low, max(place) AS high
    FROM (
        SELECT {date} AS date, hashint8extended({key}::bigint, xmin::text::bigint) AS hash, {place} AS place
        FROM {table} WHERE {within}
        UNION ALL SELECT NULL, NULL, NULL WHERE false
    ) AS hashed
    GROUP BY 1
) AS dates
GROUP BY 1
"""

# age() counts back from one id, which stays the same for a transaction. It says of an id that is more than half the
# circle away that it is yet to come: such a row is none of those that were written of late. The first condition leaves
# next to none to the second, and OFFSET 0 keeps PostgreSQL from working both out for every aggregate. It does not share
# this scan among processes, as it does the other; by xmin::text, of which it would, it takes as long as the other.
_WRITTEN = """
SELECT count(*) AS rows, count(place) AS written, min(place)::text AS low, max(place)::text AS high
FROM (
    SELECT CASE WHEN age(xmin) <= (SELECT age({first}::xid)) AND age(xmin) >= 0 THEN ctid END AS place
    FROM {table} OFFSET 0
) AS placed
"""


@dataclass(frozen=True)
class Places:
    """Where the rows are of which the transaction id is ``floor`` or a later: between ``low`` and ``high`` (ctid).

    If these are empty, there are no such rows. They hold for one snapshot: VACUUM FULL may move rows after it.
    """

    floor: int
    low: str = ""
    high: str = ""

    @property
    def condition(self) -> str:
        """SQL condition of what lies there. Of a table of several relations it is true in each of them."""
        return f"ctid >= '{self.low}'::tid AND ctid <= '{self.high}'::tid" if self.low else "false"


def is_written(floor: int, xmax: int) -> str:
    """Condition of the rows with ids from ``floor`` on, all of which are below ``xmax``."""
    return f"(xmin::text::bigint - {floor % CIRCLE} + {CIRCLE}) % {CIRCLE} < {xmax - floor}"


def _date(table: Table) -> str:
    return f"{quoted(table.day_column)}::date" if table.day_column else "NULL::date"


def _name() -> str:
    is_day = f"date >= {literal(_FIRST)} AND date < {literal(_END)}"
    return f"CASE WHEN {is_day} THEN {POSTGRES.day.format('date')} ELSE {literal(NO_DAY)} END"


def scan(table: Table, relation: str, within: str = "true", written: str = "") -> str:
    """SELECT of day, rows and hash of every day that has rows ``within`` a condition.

    ``written``: a condition of rows of which to tell the lowest and the highest place as well.
    """
    return _HASHED.format(
        name=_name(),
        date=_date(table),
        key=quoted(table.key),
        place=f"CASE WHEN {written} THEN ctid END" if written else "NULL::tid",
        table=relation,
        within=within,
    )


def written_since(relation: str, first: int) -> str:
    """SELECT of the number of rows, of those with transaction ids from ``first`` on, and of their places."""
    return _WRITTEN.format(table=relation, first=literal(str(first % CIRCLE)))


def on(table: Table, days: Collection[str]) -> str:
    """Condition of the rows on ``days``, at least one."""
    if table.day_column is None:
        return "true"
    column = quoted(table.day_column)
    conditions = [within_sql(table, days_of(dated))] if (dated := [day for day in days if day != NO_DAY]) else []
    if NO_DAY in days:
        conditions.append(f"({column} >= {literal(_FIRST)} AND {column} < {literal(_END)}) IS NOT TRUE")
    return f"({' OR '.join(conditions)})"


def examined(table: Table, days: Days | None, all_days: DayRange) -> str:
    """Condition of the rows examined with ``days``; without any, of all."""
    return examined_sql(table, days, all_days) if days is not None and table.day_column else "true"


def by_partition(table: Table, all_days: DayRange, days: ByDay) -> dict[str, tuple[int, int]]:
    """Rows and hash of the partitions that days are examined with: what has none, with the first (source/rows.py)."""
    first, end = all_days.first.isoformat(), all_days.end.isoformat()
    in_days = table.day_column is not None
    return gathered(
        ((day if first <= day < end else first) if in_days else WHOLE, found) for day, found in days.items()
    )


def gathered(parts: Iterable[tuple[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    """Rows and hash of what several parts are together, by name."""
    found: dict[str, tuple[int, int]] = {}
    for name, (rows, hash_) in parts:
        before, mixed = found.get(name, (0, 0))
        found[name] = before + rows, mixed ^ hash_
    return found


def structure(found: SourceTable, table: Table) -> str:
    """Digest of what ``table`` is in the source and of what the catalogue says of it, types and rules.

    Either may change what every row reads as, or whether it is a dead letter, without a row being written. Another
    relation in the table's place, or among its parts, may have rows with transaction ids from before the last capture.
    """
    is_source = [found.columns, found.identities, found.relations]
    declared = [(each.name, each.type, each.nullable, each.labels, each.is_date_text) for each in table.columns]
    return hashlib.sha256(repr([declared, *is_source]).encode()).hexdigest()[:12]
