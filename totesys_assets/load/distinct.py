"""Whether the keys of rows are distinct, found without having all of them in memory.

Belongs here: how that is found. Does not belong here: what depends on it (load.py, copying.py).
"""

from __future__ import annotations

import duckdb
import numpy as np

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.sql_text import quoted

# Numbers that are marked at once, one byte for each.
_MARKED_AT_ONCE = 32_000_000
# Numbers are marked if there is no more than this many of them, held or not, for each row: else others are skipped for
# longer than it takes to count.
_SPARSE = 8
# Distinct keys that are counted at once: 100 MB.
_COUNTED_AT_ONCE = 2_000_000
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


def is_doubled(connection: duckdb.DuckDBPyConnection, table: Table, rows: str) -> bool:
    """True when a key is on more than one day; to look at the keys costs less than to sort all rows by them."""
    if table.day_column is None or table.is_mart:
        return False
    return not are_distinct(connection, table.version_key[0] if table.is_fact else table.key, rows)


def are_distinct(connection: duckdb.DuckDBPyConnection, column: str, rows: str) -> bool:
    """Whether each of ``rows``, a table or query of DuckDB, has a value in a column, and no two have the same."""
    key = quoted(column)
    told = f"SELECT count(*), count({key}), any_value(typeof({key})), min({key}), max({key}) FROM {rows} AS star"
    ((count, held, kind, low, high),) = connection.execute(told).fetchall()
    if held < count:
        return False
    if kind in _NUMBERS and high - low < _SPARSE * count:
        return _are_marked_once(connection, key, rows, low, high)
    return _are_counted_once(connection, key, rows, count)


def _are_marked_once(connection: duckdb.DuckDBPyConnection, key: str, rows: str, low: int, high: int) -> bool:
    """By a mark for each number from ``low`` to ``high``: hashing all of them takes ten times as long."""
    for first in range(low, high + 1, _MARKED_AT_ONCE):
        last = min(first + _MARKED_AT_ONCE - 1, high)
        marks, count = np.zeros(last - first + 1, dtype=np.bool_), 0
        query = f"SELECT CAST({key} AS BIGINT) FROM {rows} AS star WHERE {key} BETWEEN {first} AND {last}"
        for batch in engine.batches(connection.execute(query)):
            marks[batch.column(0).to_numpy() - first] = True
            count += len(batch)
        if np.count_nonzero(marks) < count:
            return False
    return True


def _are_counted_once(connection: duckdb.DuckDBPyConnection, key: str, rows: str, count: int) -> bool:
    """By their remainders, so that not all of them are in memory at once."""
    parts = 1 + count // _COUNTED_AT_ONCE
    query = f"SELECT count(*) > count(DISTINCT {key}) FROM {rows} AS star WHERE hash({key}) % {parts} ="
    return not any(connection.execute(f"{query} {part}").fetchone() == (True,) for part in range(parts))
