"""SQL that chooses the current version of a row, or the current one of its states on several days."""

from __future__ import annotations

from collections.abc import Iterable

from totesys_assets.catalogue.catalogue import OPERATION, RECORDED_AT
from totesys_assets.sql_text import quoted


def newest_first(key: Iterable[str], day: str | None = None) -> str:
    """SQL for DuckDB's QUALIFY that keeps the newest version per ``key``, and per day if its column is given.

    A row that moves to another day is deleted there and inserted here at the same instant; the insert counts as newer.
    """
    columns = ", ".join([*(quoted(name) for name in key), *([f"CAST({quoted(day)} AS DATE)"] if day else [])])
    order = f"{quoted(RECORDED_AT)} DESC, {quoted(OPERATION)} = 'delete'"
    return f"row_number() OVER (PARTITION BY {columns} ORDER BY {order}) = 1"


def present_first(key: Iterable[str], is_gone: str, day: str) -> str:
    """SQL for DuckDB's QUALIFY that keeps one of a row's newest states. It has one for each day that it was on.

    If a row moved between days that were captured separately, prefer a state that is not deleted; between two of those,
    the newer.
    """
    order = f"{is_gone}, {quoted(RECORDED_AT)} DESC, {quoted(day)} DESC"
    columns = ", ".join(quoted(name) for name in key)
    return f"row_number() OVER (PARTITION BY {columns} ORDER BY {order}) = 1"
