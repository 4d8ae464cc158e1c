"""Which rows of the lake's table a load of some days reads.

Belongs here: queries and conditions of days. Does not belong here: what becomes of the rows (merge.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import RECORDED_AT, Table
from totesys_assets.days import DayRange, Days
from totesys_assets.lake.read import bounds, register
from totesys_assets.sql_text import quoted

# The rows of some days, and of those that left one of these days what other days know of them.
_ROWS_AND_WHEREABOUTS = """
(SELECT * FROM star_files WHERE {within}
UNION ALL
SELECT * FROM star_files_of_all_days WHERE NOT ({within})
    AND {key} IN (SELECT {key} FROM star_files WHERE {within} AND _is_deleted))
"""


def rows_of_days(connection: duckdb.DuckDBPyConnection, star: DeltaTable, table: Table, days: Days | None) -> str:
    """The star's rows of ``days``, as what an SQL FROM takes."""
    source = register(connection, "star_files", star, days, column=table.day_column)
    within = within_days(table, days)
    if days is not None and not table.is_fact and not table.is_mart:
        gone = connection.execute(f"SELECT count(*) FROM {source} WHERE {within} AND _is_deleted").fetchone()
        if gone != (0,):
            register(connection, "star_files_of_all_days", star)
            return _ROWS_AND_WHEREABOUTS.format(within=within, key=quoted(table.key))
    return f"(SELECT * FROM {source} WHERE {within})"


def within_days(table: Table, days: Days | None) -> str:
    """SQL condition of the rows of ``days``, for DuckDB and PostgreSQL."""
    ranges = days.ranges if days is not None else ()
    conditions = [f"{table.day_column} BETWEEN DATE '{each.first}' AND DATE '{each.last}'" for each in ranges]
    return f"({' OR '.join(conditions)})" if conditions else "true"


def by_month(star: DeltaTable, table: Table) -> Sequence[str]:
    """Conditions that cut the rows by month, one month after the other; one that all meet where they cannot be cut.

    Those of a fact must have been recorded at once, for their records have numbers by that. So nothing is sorted at
    large.
    """
    days, recorded = bounds(star, table.day_column) if table.day_column else None, bounds(star, RECORDED_AT)
    if days is None or (table.is_fact and (recorded is None or recorded[0] != recorded[1])):
        return ("true",)
    day, months = quoted(str(table.day_column)), DayRange(*days).by_month()
    return [f"{day} BETWEEN DATE '{month.first}' AND DATE '{month.last}'" for month in months]
