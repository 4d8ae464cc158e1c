"""Snapshots of sources that are small enough to be copied: files, or the answer of a service.

Belongs here: copying a table into DuckDB as text, typing its values there, fingerprints of what it holds. Does not
belong here: where the text comes from, which is what a source of this kind says (``CopiedSnapshot.texts``).

A table is copied when it is first asked for. Its state is a digest of its text, so that whatever differs is compared.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Self

import pyarrow as pa

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Column, Table
from totesys_assets.days import DayRange, Days
from totesys_assets.digest import DUCKDB
from totesys_assets.engine import quoted
from totesys_assets.errors import PlatformError, SchemaDrift
from totesys_assets.source.interface import Fingerprint, SourceSnapshot
from totesys_assets.source.rows import row_key
from totesys_assets.source.rules import Rule, first_broken, without_partition
from totesys_assets.stages import FINGERPRINT, stage

# A snapshot lives for some minutes. One that is later by more than this is from before the clock was set back.
_LONGEST_LIFE = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1)

# Values of another text than their type's have are NULL; the row says so in _broken, and has its text in _raw.
_COPY = """
CREATE TABLE {relation} AS
SELECT {columns}, {broken} AS _broken, CAST(to_json(texts) AS VARCHAR) AS _raw FROM texts
"""
_FINGERPRINT = """
SELECT {partition}, count(*), CAST(sum(CAST('0x' || left(sha256(_raw), 15) AS BIGINT)) AS VARCHAR) FROM {relation}
GROUP BY 1
"""
_KEYS = """
SELECT count(*) FILTER (WHERE {missing}), count(*) - count(DISTINCT {key}) FROM {relation}
"""


class CopiedSnapshot(SourceSnapshot):
    """A snapshot of ``source`` (its name), whose tables are copied into DuckDB when they are asked for.

    ``instant``: see ``SourceSnapshot``. ``ignores_new``: a column that the catalogue has not is left out.
    """

    dialect = DUCKDB

    def __init__(self, source: str, instant: str, *, ignores_new: bool = True) -> None:
        self.connection = engine.connect()
        self.connection.execute("CREATE SCHEMA source")
        self.taken_at = datetime.now(UTC).replace(tzinfo=None)
        self.lifetime = source
        self._source, self._instant, self._ignores_new = source, instant, ignores_new
        self._copied: dict[str, list[str] | PlatformError] = {}

    @abstractmethod
    def texts(self, table: Table) -> pa.Table:
        """All rows of ``table``, every value as text or NULL. Raises a PlatformError where it cannot be read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        engine.close(self.connection)

    @property
    def instant(self) -> str:
        """Equal for two snapshots that show the same rows, read in the same way."""
        return f"{self._instant} {'known' if self._ignores_new else 'all'}"

    @property
    def identity(self) -> str:
        """A state is a digest of what the table holds: states may always be compared."""
        return self._source

    @property
    def order(self) -> int:
        """The moment of the snapshot, in microseconds, by the clock of this machine."""
        return (self.taken_at - _EPOCH) // _MICROSECOND

    def is_overtaken(self, order: int) -> bool:
        """True if a snapshot of this ``order`` was taken later."""
        return 0 < order - self.order < _LONGEST_LIFE // _MICROSECOND

    def require(self, table: Table) -> None:
        """Copy ``table``, if that was not done yet. Raises the same error every time if it cannot be copied."""
        if table.name not in self._copied:
            try:
                with engine.readable_errors(f'"{table.name}" could not be read'):
                    self._copied[table.name] = self._copy(table)
            except PlatformError as error:
                self._copied[table.name] = error
        found = self._copied[table.name]
        if isinstance(found, PlatformError):
            raise found

    def columns(self, table: Table) -> dict[str, str]:
        """Column -> ``text``, as the source has them."""
        found = self._copied.get(table.name)
        return dict.fromkeys(found, "text") if isinstance(found, list) else {}

    def structure(self, table: Table) -> str:
        """Digest of the columns that there are, and of what the catalogue says of them, types and rules."""
        declared = [(each.name, each.type, each.nullable, each.labels, each.is_date_text) for each in table.columns]
        found = sorted(self.columns(table))
        return hashlib.sha256(repr([declared, table.primary_key, found]).encode()).hexdigest()[:12]

    def fingerprints(
        self,
        table: Table,
        all_days: DayRange,
        days: Days | None = None,  # noqa: ARG002 - all rows were copied
    ) -> dict[str, Fingerprint]:
        """Fingerprint of every partition that has rows."""
        self.require(table)
        prefix = self.state_prefix(table)
        query = _FINGERPRINT.format(partition=self.partition(table, all_days), relation=self.relation(table))
        with stage(FINGERPRINT):
            return {key: Fingerprint(rows, f"{prefix}|{rows}|{hash_}") for key, rows, hash_ in self.rows(query)}

    def relation(self, table: Table) -> str:
        """The copy of the table."""
        return f"source.{quoted(table.name)}"

    def select(self, table: Table, all_days: DayRange) -> str:
        """SELECT of a table's columns and ``_broken``."""
        columns = ", ".join(quoted(column.name) for column in table.columns)
        broken = first_broken(without_partition(table, all_days))
        return f"SELECT {columns}, coalesce({broken}, _broken) AS _broken FROM {self.relation(table)}"

    def letters(self, table: Table, all_days: DayRange) -> str:
        """SELECT of key, partition and text of a table's rows."""
        partition = self.partition(table, all_days)
        return f"SELECT {row_key(table)} AS row_key, {partition} AS partition, _raw AS raw FROM {self.relation(table)}"

    def read(self, sql: str) -> str:
        """The source is asked in ``connection`` itself."""
        return sql

    def _copy(self, table: Table) -> list[str]:
        """Copy a table, and return the columns that it was found with."""
        texts = self.texts(table)
        self._require_columns(table, texts.column_names)
        self.connection.register("texts", texts)
        try:
            self.connection.execute(
                _COPY.format(
                    relation=self.relation(table),
                    columns=", ".join(f"{_typed(column)} AS {quoted(column.name)}" for column in table.columns),
                    broken=first_broken(_rules(table)),
                )
            )
        finally:
            self.connection.unregister("texts")
        self._require_keys(table)
        return list(texts.column_names)

    def _require_columns(self, table: Table, found: list[str]) -> None:
        wrong = [f'"{column.name}" is missing' for column in table.columns if column.name not in found]
        wrong += [f'"{name}" is new' for name in found if name not in table.by_name and not self._ignores_new]
        wrong += [f'"{name}" is there twice' for name in sorted({each for each in found if found.count(each) > 1})]
        if wrong:
            raise SchemaDrift(
                f'Table "{table.name}" of the source "{self._source}" has other columns: {"; ".join(wrong)}. Nothing '
                f"of it was captured. Change catalogue/{self._source}.sql to match, then refresh."
            )

    def _require_keys(self, table: Table) -> None:
        """Refuse a table with rows that cannot be told from others."""
        keys = [quoted(name) for name in table.primary_key]
        query = _KEYS.format(
            missing=" OR ".join(f"{key} IS NULL" for key in keys),
            key=f"({', '.join(keys)})",
            relation=self.relation(table),
        )
        [(missing, doubled)] = self.rows(query)
        if missing or doubled:
            what = f"rows without a key: {missing}" if missing else f"rows with the key of another: {doubled}"
            raise PlatformError(
                f'A row of "{table.name}" is known by {", ".join(keys)}. It has {what}. Nothing of it was captured: '
                "give every row a key of its own, then refresh."
            )


def _typed(column: Column) -> str:
    """DuckDB expression of a column's value, of its text; NULL where the text is of another type."""
    name = f"texts.{quoted(column.name)}"
    return name if pa.types.is_string(column.arrow) else f"try_cast({name} AS {_duckdb_type(column.arrow)})"


def _duckdb_type(arrow: pa.DataType) -> str:
    if pa.types.is_decimal(arrow):
        return f"DECIMAL({arrow.precision}, {arrow.scale})"
    return _TYPES[arrow]


_TYPES = {
    pa.int32(): "INTEGER",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}


def _rules(table: Table) -> Iterator[Rule]:
    """Rules that text may break: it is of another type, or cannot be kept exactly."""
    for column in table.columns:
        name, typed = f"texts.{quoted(column.name)}", _typed(column)
        if column.max_length is not None:
            yield column, f"length({name}) > {column.max_length}", f"is longer than {column.max_length} characters"
        if pa.types.is_string(column.arrow):
            continue
        yield column, f"{name} IS NOT NULL AND {typed} IS NULL", f"is no {column.type}"
        if pa.types.is_integer(column.arrow) or pa.types.is_decimal(column.arrow):  # DuckDB rounds what has too many
            exact = f"try_cast({name} AS DECIMAL(38, 12))"
            yield column, f"{exact} IS DISTINCT FROM {typed}", f"is not exact as {column.type}"
        elif column.type.startswith(("date", "timestamp")):
            outside = f"NOT (isfinite({typed}) AND year({typed}) BETWEEN 1 AND 9999)"
            yield column, outside, "is no time between the years 1 and 9999"
