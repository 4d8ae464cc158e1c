"""Values that are given as text: the one form that each type has, and the value of a text of that form.

Belongs here: forms, the SQL that types a text of them, and the rules that a text of another form breaks. Does not
belong here: where the text comes from, and how its rows are kept (copied.py).

DuckDB's own casts are too kind: they round, and they leave out what follows a date. So a text is cast only if it has
the form of its type to the last character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from totesys_assets.catalogue.catalogue import Column
from totesys_assets.source.rules import Rule
from totesys_assets.sql_text import literal

_NUMBER = r"[+-]?\d+"
_BOOLEAN = "(?i)(true|t|yes|y|1|false|f|no|n|0)"
_DAY = r"\d{4}-\d{2}-\d{2}"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d"
# A moment without an offset would be a guess.
_OFFSET = r"(Z|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)"
_ANY_FRACTION = r"(\.\d+)?"
_MICROSECONDS, _MILLISECONDS = 6, 3

_CASTS = {
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}


def typed(column: Column, text: str) -> str:
    """DuckDB expression of the value that the expression ``text`` stands for; NULL where it has another form.

    A time of day becomes the text HH:MM:SS.mmm, as the lake keeps it.
    """
    if _is_plain_text(column):
        return text
    if _is_time_of_day(column):
        value = f"strftime(DATE '1970-01-01' + try_cast({text} AS TIME), '%H:%M:%S.%g')"
    else:
        value = f"try_cast({text} AS {_cast(column.arrow)})"
    return f"CASE WHEN {_has_form(column, text, _fraction(column))} THEN {value} END"


def rules(column: Column, text: str) -> Iterator[Rule]:
    """Rules that ``text`` may break: it has another form, is no such value, or cannot be kept exactly."""
    if column.max_length is not None:
        yield column, f"length({text}) > {column.max_length}", f"is longer than {column.max_length} characters"
    if _is_plain_text(column):
        yield column, f"contains({text}, chr(0))", "has the character U+0000, which PostgreSQL cannot hold"
        return
    value = typed(column, text)
    yield column, f"NOT {_has_form(column, text, _ANY_FRACTION)}", f"is no {column.type}"
    yield column, f"NOT {_has_form(column, text, _fraction(column))}", f"is not exact as {column.type}"
    yield column, f"{text} IS NOT NULL AND {value} IS NULL", f"is no {column.type}"
    if pa.types.is_date(column.arrow) or pa.types.is_timestamp(column.arrow):
        yield column, f"year({value}) NOT BETWEEN 1 AND 9999", "is no time between the years 1 and 9999"


def _is_time_of_day(column: Column) -> bool:
    return re.match(r"time\b", column.type) is not None


def _is_plain_text(column: Column) -> bool:
    return pa.types.is_string(column.arrow) and not _is_time_of_day(column)


def _cast(arrow: pa.DataType) -> str:
    return f"DECIMAL({arrow.precision}, {arrow.scale})" if pa.types.is_decimal(arrow) else _CASTS[arrow]


def _has_form(column: Column, text: str, fraction: str) -> str:
    """DuckDB condition: ``text`` has the form of the column's type, with this ``fraction`` where it may have one."""
    if pa.types.is_boolean(column.arrow):
        form = _BOOLEAN
    elif pa.types.is_date(column.arrow):
        form = _DAY
    elif _is_time_of_day(column):
        form = f"{_TIME}{fraction}"
    elif pa.types.is_timestamp(column.arrow):
        form = f"{_DAY}[T ]{_TIME}{fraction}{_OFFSET if column.arrow.tz else ''}"
    else:
        form = f"{_NUMBER}{fraction}"
    return f"regexp_full_match({text}, {literal(form)})"


def _fraction(column: Column) -> str:
    """The fraction that a column keeps exactly: as many digits as it has, and zeros."""
    digits = _digits(column)
    return rf"(\.\d{{1,{digits}}}0*)?" if digits else r"(\.0+)?"


def _digits(column: Column) -> int:
    if pa.types.is_decimal(column.arrow):
        return int(column.arrow.scale)
    if not column.type.startswith("time"):
        return 0
    stated = re.search(r"\((\d)\)", column.type)
    most = _MILLISECONDS if _is_time_of_day(column) else _MICROSECONDS
    return min(int(stated[1]), most) if stated else most
