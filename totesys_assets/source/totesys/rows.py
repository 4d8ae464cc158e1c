"""Rows of ToteSys: what it is asked for, and which values must be caught by the server itself.

Belongs here: SQL of PostgreSQL, made of the catalogue. Does not belong here: rules that the engine can tell, which are
in capture/dead_letters.py, and which bytes are no text (text.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from totesys_assets.catalogue.catalogue import Column, Table
from totesys_assets.days import DayRange
from totesys_assets.source.rules import Rule, first_broken, most_bytes, shortened, too_long, without_partition
from totesys_assets.source.totesys import text
from totesys_assets.sql_text import quoted


def select(table: Table, relation: str, all_days: DayRange, encoding: str) -> str:
    """SELECT of a table's columns, and of the first rule that a row breaks."""
    columns = ", ".join(_column(column, encoding, most_bytes(table.name)) for column in table.columns)
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
        if is_text(column):
            yield column, f"octet_length({name}) > {most_bytes(table.name)}", too_long(table.name)
        if column.type.startswith("numeric"):
            yield column, f"{name} = 'NaN'", "is not a number"
        elif column.name == table.day_column:
            continue
        elif column.type.startswith("timestamp"):
            outside = f"NOT ({name} >= '0001-01-01' AND {name} < '9999-12-31 23:59:59.9995')"
            yield column, outside, "is no time between the years 1 and 9999"


def readable(table: Table, encoding: str) -> str:
    """Condition: all text of a row can be sent, in ``encoding`` of the source, and is not too long for it."""
    texts, most = [quoted(each.name) for each in table.columns if is_text(each)], most_bytes(table.name)
    long = " OR ".join(f"octet_length({name}) > {most}" for name in texts)
    sent = _sent(table, encoding)
    return f"{sent} AND ({long}) IS NOT TRUE" if long else sent


def _sent(table: Table, encoding: str) -> str:
    conditions = [condition for column in table.columns if (condition := _invalid(column, encoding))]
    return f"({' OR '.join(conditions)}) IS NOT TRUE" if conditions else "true"


def raw(table: Table, encoding: str) -> str:
    """Expression of the raw text of row ``t``; where it cannot be sent, with its bytes written out."""
    texts, most = [quoted(each.name) for each in table.columns if is_text(each)], most_bytes(table.name)
    is_long = " OR ".join(f"octet_length({name}) > {most}" for name in texts) or "false"
    columns = [quoted(each.name) for each in table.columns]
    short = ", ".join(f"{shortened(f't.{name}', most)} AS {name}" if name in texts else f"t.{name}" for name in columns)
    short = f"(SELECT row_to_json(short) FROM (SELECT {short}) AS short)"
    plain, sent = f"CASE WHEN {is_long} THEN {short} ELSE row_to_json(t) END::text", _sent(table, encoding)
    return plain if sent == "true" else f"CASE WHEN {sent} THEN {plain} ELSE {text.escaped(plain, encoding)} END"


def _column(column: Column, encoding: str, most: int) -> str:
    """A column of the SELECT: labels as text, and nothing in place of what cannot be sent."""
    name = quoted(column.name)
    if column.labels:
        return f"{name}::text AS {name}"
    if not is_text(column):
        return name
    long = f"octet_length({name}) > {most}"
    invalid = _invalid(column, encoding)
    return f"CASE WHEN {f'{invalid} OR ' if invalid else ''}{long} THEN NULL ELSE {name} END AS {name}"


def is_text(column: Column) -> bool:
    """Whether a column's values are text of any length."""
    return column.type.startswith(("text", "character", "varchar")) and not column.labels


def _invalid(column: Column, encoding: str) -> str | None:
    return text.invalid(quoted(column.name), encoding) if is_text(column) else None
