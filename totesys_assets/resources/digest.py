"""Digests of sets of rows that PostgreSQL and DuckDB compute alike, so that rows need not travel to be compared.

Belongs here: the canonical text of a row and the SQL that digests it. Does not belong here: what is compared.

A row's text is the text of its values, each behind its length in bytes, NULL as a dash: no two rows share one. Dates
and times go in as whole days and microseconds, because the engines write them differently. The digest of a set is its
number of rows and the sum of 60 bits of each row's SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from totesys_assets.catalogue.catalogue import Column
from totesys_assets.resources.engine import quoted


@dataclass(frozen=True)
class Dialect:
    """How one engine writes what the digest is made of."""

    text: Callable[[Column, str], str]
    bytes: str
    number: str


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


POSTGRES = Dialect(
    _postgres_text,
    "octet_length({})::text",
    "('x' || left(encode(sha256(convert_to({}, 'UTF8')), 'hex'), 15))::bit(60)::bigint",
)
DUCKDB = Dialect(_duckdb_text, "CAST(strlen({}) AS VARCHAR)", "CAST('0x' || left(sha256({}), 15) AS BIGINT)")


def row_number(columns: Sequence[Column], dialect: Dialect, names: Sequence[str] | None = None) -> str:
    """SQL for the 60 bits that stand for one row; ``names`` where the columns are called otherwise."""
    parts = []
    for column, name in zip(columns, names or [column.name for column in columns], strict=True):
        text = dialect.text(column, quoted(name))
        parts.append(f"coalesce({dialect.bytes.format(text)} || ':' || {text}, '-')")
    return dialect.number.format(f"({' || '.join(parts)})")


def set_digest(row: str) -> str:
    """SQL for the digest of a group of rows, as text: their number and the sum of ``row``, an expression."""
    return f"count(*) || ' ' || coalesce(sum({row}), 0)"
