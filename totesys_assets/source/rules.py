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
# A text of more bytes is not carried. Of a table that has so many long ones that DuckDB has no memory for them, which
# works on 2,048 rows at a time, whatever is in them, the second is the limit, for as long as the process lives.
MOST_BYTES, _FEWER_BYTES = 4_194_304, 16_384
_CRAMPED: set[str] = set()
# So many characters of a text that is too long stand in the text of a dead letter.
_KEPT = 200
# Regular expression of what a dead letter has in place of a text: the end of one that was too long, or a byte that is
# no text (totesys/text.py). Both are in ASCII, which a database of any encoding has.
_INSTEAD = r" \([0-9]+ bytes\)\"|\\[0-7]{3}"

# A column, the condition of a value that breaks the rule, and the reason.
Rule = tuple[Column, str, str]


def first_broken(rules: Iterable[Rule]) -> str:
    """SQL that gives ``column: reason`` of the first broken rule, or NULL."""
    cases = " ".join(
        f"WHEN {condition} THEN {literal(column.name + SEPARATOR + reason)}" for column, condition, reason in rules
    )
    return f"CASE {cases} END" if cases else "NULL"


def cramp(table: str) -> bool:
    """Carry no long text of a table from here on, in this process. False if it is so already."""
    is_new = table not in _CRAMPED
    _CRAMPED.add(table)
    return is_new


def most_bytes(table: str) -> int:
    """How long a text of a table may be, in bytes."""
    return _FEWER_BYTES if table in _CRAMPED else MOST_BYTES


def too_long(table: str) -> str:
    """The reason of a text that is longer."""
    why = ", and there are too many such to be carried" if table in _CRAMPED else ""
    return f"is longer than {most_bytes(table):,} bytes{why}"


def shortened(text: str, most: int) -> str:
    """PostgreSQL expression of a text as a dead letter has it."""
    said = f"'... (' || octet_length({text}) || ' bytes)'"
    return f"CASE WHEN octet_length({text}) > {most} THEN left({text}, {_KEPT}) || {said} ELSE {text} END"


def short(text: str, most: int) -> str:
    """A text as a dead letter has it."""
    size = len(text.encode())
    return text if size <= most else f"{text[:_KEPT]}... ({size} bytes)"


def is_altered(raw: str) -> str:
    """DuckDB condition of a dead letter's text: values in it may be others, whatever rule the row breaks first."""
    return f"coalesce(regexp_matches({raw}, {literal(_INSTEAD)}), false)"


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
