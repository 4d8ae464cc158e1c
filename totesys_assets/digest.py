"""Digests of sets of rows that PostgreSQL and DuckDB compute alike, so that rows need not travel to be compared.

Belongs here: the canonical text of a row and the SQL that digests it. Does not belong here: what is compared.

A row's text is the text of its values, each behind its length in bytes, NULL as a dash: no two rows share one. It is
UTF-8 whatever the server keeps its texts in; one that says nothing of that (SQL_ASCII) is taken to hold it. Dates
and times go in as whole days and microseconds, because the engines write them differently. The digest of a set is its
number of rows and the sum of 60 bits of each row's SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from totesys_assets.catalogue.catalogue import Column
from totesys_assets.sql_text import quoted


@dataclass(frozen=True)
class Dialect:
    """How one engine writes what the digest is made of, and the day of a date or a time as text."""

    text: Callable[[Column, str], str]
    bytes: Callable[[Column, str], str]
    number: str
    day: str


def _postgres_text(column: Column, name: str) -> str:
    if column.type == "date":
        return f"({name} - DATE '1970-01-01')::text"
    if column.type.startswith("time"):
        return f"(extract(epoch FROM {name}) * 1000000)::bigint::text"
    return f"{name}::text"


def _duckdb_text(column: Column, name: str) -> str:
    if column.type == "date":
        return f"CAST({name} - DATE '1970-01-01' AS VARCHAR)"
    if column.type.startswith("time "):  # a time of day, which the lake keeps as text
        return f"CAST(epoch_us(CAST({name} AS TIME)) AS VARCHAR)"
    if column.type.startswith("time"):
        return f"CAST(epoch_us({name}) AS VARCHAR)"
    return f"CAST({name} AS VARCHAR)"


# From SQL_ASCII nothing can be converted: its bytes are taken as they are.
_UTF8 = "convert_to({}, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)"


def _postgres_bytes(column: Column, text: str) -> str:
    """Of a text as UTF-8; numbers and dates have as many in every encoding."""
    is_text = pa.types.is_string(column.arrow)
    return f"octet_length({_UTF8.format(text) if is_text else text})::text"


POSTGRES = Dialect(
    _postgres_text,
    _postgres_bytes,
    f"('x' || left(encode(sha256({_UTF8}), 'hex'), 15))::bit(60)::bigint",
    "to_char({}, 'YYYY-MM-DD')",
)
DUCKDB = Dialect(
    _duckdb_text,
    lambda _, text: f"CAST(strlen({text}) AS VARCHAR)",
    "CAST('0x' || left(sha256({}), 15) AS BIGINT)",
    "strftime({}, '%Y-%m-%d')",
)


def row_number(columns: Sequence[Column], dialect: Dialect, names: Sequence[str] | None = None) -> str:
    """SQL for the 60 bits that stand for one row; ``names`` where the columns are called otherwise."""
    parts = []
    for column, name in zip(columns, names or [column.name for column in columns], strict=True):
        text = dialect.text(column, quoted(name))
        parts.append(f"coalesce({dialect.bytes(column, text)} || ':' || {text}, '-')")
    return dialect.number.format(f"({' || '.join(parts)})")


def set_digest(row: str) -> str:
    """SQL for the digest of a group of rows, as text: their number and the sum of ``row``, an expression."""
    return f"count(*) || ' ' || coalesce(sum({row}), 0)"
