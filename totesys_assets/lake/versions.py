"""Versions in SQL: which of the versions of a row, or of its states on several days, is the one that holds."""

from __future__ import annotations

from collections.abc import Iterable

from totesys_assets.catalogue.catalogue import OPERATION, RECORDED_AT
from totesys_assets.engine import quoted


def newest_first(key: Iterable[str], day: str | None = None) -> str:
    """SQL for DuckDB's QUALIFY that keeps the newest version per ``key``, and per day where its column is given.

    A row that moves to another day leaves there and arrives here in one instant: the arrival is the newer.
    """
    columns = ", ".join([*(quoted(name) for name in key), *([f"CAST({quoted(day)} AS DATE)"] if day else [])])
    order = f"{quoted(RECORDED_AT)} DESC, {quoted(OPERATION)} = 'delete'"
    return f"row_number() OVER (PARTITION BY {columns} ORDER BY {order}) = 1"


def present_first(key: str, is_gone: str, day: str) -> str:
    """SQL for DuckDB's QUALIFY that keeps one of a row's newest states, of which it has one per day that it was on.

    To leave one day says nothing of another: the days may have been captured one by one, in any order. So a presence
    comes before a departure, whichever is newer; of two presences the newer is right, for the other day's is not
    compared yet.
    """
    order = f"{is_gone}, {quoted(RECORDED_AT)} DESC, {quoted(day)} DESC"
    return f"row_number() OVER (PARTITION BY {quoted(key)} ORDER BY {order}) = 1"
