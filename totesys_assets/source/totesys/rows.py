"""Rows of ToteSys: what it is asked for, and which values must be caught by the server itself.

Belongs here: SQL of PostgreSQL, made of the catalogue. Does not belong here: rules that the engine can tell, which are
in capture/dead_letters.py, and which bytes are no text (text.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from totesys_assets.catalogue.catalogue import Column, Table
from totesys_assets.days import DayRange
from totesys_assets.source.rules import Rule, first_broken, without_partition
from totesys_assets.source.totesys import text
from totesys_assets.sql_text import quoted


def select(table: Table, relation: str, all_days: DayRange, encoding: str) -> str:
    """SELECT of a table's columns, and of the first rule that a row breaks."""
    columns = ", ".join(_column(column, encoding) for column in table.columns)
    return f"SELECT {columns}, {first_broken(source_rules(table, all_days, encoding))} AS _broken FROM {relation}"


def source_rules(table: Table, all_days: DayRange, encoding: str = "UTF8") -> Iterator[Rule]:
    """Values that must be caught in the source, with text in ``encoding``.

    DuckDB reads numeric NaN as 0.00 and cannot tell a timestamp of the far past or future: neither may be believed.
    """
    yield from without_partition(table, all_days)
    for column in table.columns:
        name = quoted(column.name)
        if invalid := _invalid(column, encoding):
            yield column, invalid, f"holds bytes that are no text, in a database of encoding {encoding}"
        if column.type.startswith("numeric"):
            yield column, f"{name} = 'NaN'", "is not a number"
        elif column.name == table.day_column:
            continue
        elif column.type.startswith("timestamp"):
            outside = f"NOT ({name} >= '0001-01-01' AND {name} < '9999-12-31 23:59:59.9995')"
            yield column, outside, "is no time between the years 1 and 9999"


def readable(table: Table, encoding: str) -> str:
    """Condition: all text of a row can be sent, in ``encoding`` of the source."""
    conditions = [condition for column in table.columns if (condition := _invalid(column, encoding))]
    return f"({' OR '.join(conditions)}) IS NOT TRUE" if conditions else "true"


def raw(table: Table, encoding: str) -> str:
    """Expression of the raw text of row ``t``; where it cannot be sent, with its bytes written out."""
    plain, sent = "row_to_json(t)::text", readable(table, encoding)
    return plain if sent == "true" else f"CASE WHEN {sent} THEN {plain} ELSE {text.escaped(plain, encoding)} END"


def _column(column: Column, encoding: str) -> str:
    """A column of the SELECT: labels as text, and nothing in place of what cannot be sent."""
    name = quoted(column.name)
    if column.labels:
        return f"{name}::text AS {name}"
    invalid = _invalid(column, encoding)
    return f"CASE WHEN {invalid} THEN NULL ELSE {name} END AS {name}" if invalid else name


def _invalid(column: Column, encoding: str) -> str | None:
    is_text = column.type.startswith(("text", "character")) and not column.labels
    return text.invalid(quoted(column.name), encoding) if is_text else None
