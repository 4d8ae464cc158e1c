"""How a row is known, in SQL that PostgreSQL and DuckDB read alike: its key, and the partition that it is in."""

from __future__ import annotations

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.digest import Dialect
from totesys_assets.sql_text import literal, quoted

# More ranges of days than this are asked for day by day.
_FEW_RANGES = 8


def row_id(table: Table) -> str:
    """Expression that tells a row from the others of its day: the key itself, or the text of one of several columns."""
    return quoted(table.key) if len(table.primary_key) == 1 else row_key(table)


def row_key(table: Table, of: str = "") -> str:
    """Expression of a row's key as text. ``of``: the name of the relation that has the row."""
    names = [f"{of}.{quoted(name)}" if of else quoted(name) for name in table.primary_key]
    texts = [f"CAST({name} AS varchar)" for name in names]
    if len(texts) == 1:
        return texts[0]
    # A comma in a value is written twice, so that no two keys share one text.
    escaped = ", ".join(f"replace({text}, ',', ',,')" for text in texts)
    return f"concat_ws(', ', {escaped})"


def partition_sql(table: Table, all_days: DayRange, dialect: Dialect) -> str:
    """Expression of a row's partition, as text.

    A row whose day has no partition (before the first day, in the future, infinite) is examined with the first day,
    where it becomes a dead letter: no row is out of sight.
    """
    return partition_of(quoted(table.day_column), all_days, dialect) if table.day_column else literal(WHOLE)


def partition_of(moment: str, all_days: DayRange, dialect: Dialect) -> str:
    """Expression of the partition of ``moment``, an expression of a date or a time."""
    first, end = literal(all_days.first.isoformat()), literal(all_days.end.isoformat())
    day = dialect.day.format(moment)
    return f"CASE WHEN {moment} >= {first} AND {moment} < {end} THEN {day} ELSE {first} END"


def within_sql(table: Table, days: Days) -> str:
    """Condition of the rows on ``days``."""
    column = quoted(str(table.day_column))
    if len(days.ranges) > _FEW_RANGES:  # a list is looked up by its hash
        return f"{column}::date IN ({', '.join(literal(key) for key in days.keys)})"
    ranges = (
        f"({column} >= {literal(each.first.isoformat())} AND {column} < {literal(each.end.isoformat())})"
        for each in days.ranges
    )
    return f"({' OR '.join(ranges)})"


def examined_sql(table: Table, days: Days, all_days: DayRange) -> str:
    """Condition of the rows examined with ``days``: with the first one, those that have no partition."""
    within = within_sql(table, days)
    return f"({within} OR {within_sql(table, all_days)} IS NOT TRUE)" if all_days.first in days else within
