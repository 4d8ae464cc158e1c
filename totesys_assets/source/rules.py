"""Rules that a row may break, as SQL: the text of the first that it breaks, and the one that all sources share.

Belongs here: how a broken rule is written. Does not belong here: the rules of one kind of source, which are with it,
and those that the engine adds, which are in capture/dead_letters.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from totesys_assets.catalogue.catalogue import Column, Table
from totesys_assets.days import DayRange
from totesys_assets.sql_text import literal, quoted

SEPARATOR = ": "

# A column, the condition of a value that breaks the rule, and the reason.
Rule = tuple[Column, str, str]


def first_broken(rules: Iterable[Rule]) -> str:
    """SQL that gives ``column: reason`` of the first broken rule, or NULL."""
    cases = " ".join(
        f"WHEN {condition} THEN {literal(column.name + SEPARATOR + reason)}" for column, condition, reason in rules
    )
    return f"CASE {cases} END" if cases else "NULL"


def without_partition(table: Table, all_days: DayRange) -> Iterator[Rule]:
    """The rule of a partitioned table that a row lies on one of ``all_days``. It comes first: see ``is_outside``."""
    if table.day_column:
        name = quoted(table.day_column)
        first, end = literal(all_days.first.isoformat()), literal(all_days.end.isoformat())
        outside = f"NOT ({name} >= {first} AND {name} < {end})"
        reason = f"lies outside the days from {all_days.first} to tomorrow that have a partition"
        yield table.by_name[table.day_column], outside, reason


def is_outside(table: Table) -> str:
    """DuckDB condition of ``_broken``: by its day column the row lies on no day that has a partition."""
    return f"starts_with(_broken, {literal(f'{table.day_column}{SEPARATOR}')})"
