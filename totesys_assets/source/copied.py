"""Snapshots of sources that are small enough to be copied: files, or the answer of a service.

Belongs here: copying a table into DuckDB as text, with its values typed, and fingerprints of what it holds. Does not
belong here: which text stands for which value (typed_text.py), and where the text comes from, which is what a source
of this kind says (``CopiedSnapshot.texts``).

A table is copied when it is first asked for, and bears the time of its own copy. Its state is a digest of its text, so
that whatever differs is compared.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Self

import duckdb
import pyarrow as pa

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.digest import DUCKDB
from totesys_assets.engine import one_line
from totesys_assets.errors import PlatformError, SchemaDrift
from totesys_assets.source.interface import Fingerprint, SourceSnapshot
from totesys_assets.source.rows import row_key
from totesys_assets.source.rules import first_broken, without_partition
from totesys_assets.source.seen import Seen
from totesys_assets.source.typed_text import rules, typed
from totesys_assets.sql_text import literal, quoted
from totesys_assets.stages import FINGERPRINT, stage

# What a source may say of a row beside its values: why it is broken, as ``column: reason``, and where it is from.
BROKEN, ORIGIN = NOTES = ("_broken", "_origin")
# The column of a dead letter that is about no column: a whole file, or one of its rows.
FILE = "file"

# A snapshot lives for some minutes. One that is later by more than this is from before the clock was set back.
_LONGEST_LIFE = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1)

# Values of another form than their type's are NULL; the row says so in _broken, and has its text in _raw. The columns
# of the text have names of their own, because those of the source may be any: two that differ only in their case, or
# one that is called as the relation.
_COPY = """
CREATE TABLE {relation} AS
SELECT {columns}, {broken} AS _broken, CAST(json_object({raw}) AS VARCHAR) AS _raw FROM copied_text
"""
_FINGERPRINT = """
SELECT {partition}, count(*),
    CAST(sum(CAST('0x' || left(sha256(_raw || coalesce(_broken, '')), 15) AS BIGINT)) AS VARCHAR)
FROM {relation} GROUP BY 1
"""
_MISTYPED = "SELECT count(*), min({text}) FROM copied_text WHERE {text} IS NOT NULL AND {value} IS NULL"
_KEYS = """
SELECT count(*) FILTER (WHERE {missing}), count(*) - count(DISTINCT {key}) FROM {relation}
"""


class CopiedSnapshot(SourceSnapshot):
    """A snapshot of ``source`` (its name), whose tables are copied into DuckDB when they are asked for.

    ``instant``: see ``SourceSnapshot``. ``ignores_new``: a column that the catalogue has not is left out. ``seen``:
    what the snapshots before this one showed, to which it adds.
    """

    dialect = DUCKDB

    def __init__(self, source: str, instant: str, *, ignores_new: bool = True, seen: Seen | None = None) -> None:
        self.taken_at = _now()
        self.lifetime = source
        self._source, self._instant, self._ignores_new = source, instant, ignores_new
        self._seen = seen or Seen()
        self._open = ExitStack()
        # Table -> why it could not be copied; None if it was.
        self._copied: dict[str, PlatformError | None] = {}
        # Table -> its columns, as far as they were seen; and when its copy began and ended.
        self._found: dict[str, list[str]] = {}
        self._copied_at: dict[str, tuple[datetime, datetime]] = {}
        # Table -> what is a dead letter without being a row: its name, ``column: reason``, and raw text.
        self._refused: dict[str, list[tuple[str, str, str]]] = {}

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:  # type: ignore[override] # only a look that reads needs one
        """Opened when it is first asked for."""
        opened = self._open.enter_context(engine.session())
        opened.execute("CREATE SCHEMA source")
        return opened

    @abstractmethod
    def texts(self, table: Table) -> pa.Table:
        """All rows of ``table``, every value as text or NULL. Raises a PlatformError where it cannot be read.

        The columns that are called as in ``NOTES`` are no values: what the source says of the row.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def instant(self) -> str:
        """Equal for two snapshots that show the same rows, read in the same way."""
        return f"{self._instant} {'known' if self._ignores_new else 'all'}"

    @property
    def identity(self) -> str:
        """A state is a digest of what the table holds: states may always be compared."""
        return self._source

    def read_at(self, table: Table) -> datetime:
        """When ``table`` was copied."""
        return self._copied_at.get(table.name, (self.taken_at, self.taken_at))[1]

    def order(self, table: Table) -> int:
        """When the copy of ``table`` was complete, in microseconds, by the clock of this machine."""
        return _microseconds(self.read_at(table))

    def is_overtaken(self, table: Table, order: int) -> bool:
        """True if another copy of ``table`` was not complete when this one began: it may show what was written later.

        Nobody knows at which instant between its beginning and its end a copy was made.
        """
        begun, _ = self._copied_at.get(table.name, (self.taken_at, self.taken_at))
        return order != self.order(table) and 0 < order - _microseconds(begun) < _LONGEST_LIFE // _MICROSECOND

    def require(self, table: Table) -> None:
        """Copy ``table``, if that was not done yet. Raises the same error every time if it cannot be copied."""
        if table.name not in self._copied:
            self._copied[table.name] = self._problem(table)
        if (problem := self._copied[table.name]) is not None:
            raise problem

    def columns(self, table: Table) -> dict[str, str]:
        """Column -> ``text``, as the source has them, also where they are refused."""
        return dict.fromkeys(self._found.get(table.name, ()), "text")

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
        if (seen := self._seen.find(self.instant, table, all_days)) is not None:
            self._found.setdefault(table.name, seen[0])
            return seen[1]
        self.require(table)
        found = self._fingerprints(table, all_days)
        if not self._refused.get(table.name):  # what could not be read may be readable now
            self._seen.note(self.instant, table, all_days, self._found[table.name], found)
        return found

    def _fingerprints(self, table: Table, all_days: DayRange) -> dict[str, Fingerprint]:
        prefix = self.state_prefix(table)
        query = _FINGERPRINT.format(partition=self.partition(table, all_days), relation=self.relation(table))
        with stage(FINGERPRINT):
            found = {key: Fingerprint(rows, f"{prefix}|{rows}|{hash_}") for key, rows, hash_ in self.rows(query)}
        if refused := self.refused(table, all_days):
            where = refused[0][1]
            of_rows = found.get(where, Fingerprint(0, f"{prefix}|0|"))
            digest = hashlib.sha256(repr(refused).encode()).hexdigest()[:12]
            found[where] = Fingerprint(of_rows.rows, f"{of_rows.state}|{digest}")
        return found

    def refused(self, table: Table, all_days: DayRange) -> list[tuple[str, str, str, str]]:
        """What the source could not read as a row; examined with the first day, as rows that have none."""
        partition = all_days.first.isoformat() if table.day_column else WHOLE
        return [(name, partition, broken, raw) for name, broken, raw in sorted(self._refused.get(table.name, ()))]

    def refuse(self, table: Table, name: str, broken: str, raw: str) -> None:
        """Note a dead letter that is no row, for ``refused``: a file, or a line of it that has no key."""
        self._refused.setdefault(table.name, []).append((name, broken, raw))

    def relation(self, table: Table) -> str:
        """The copy of the table. Raises as ``require`` does."""
        self.require(table)
        return _relation(table)

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

    def _problem(self, table: Table) -> PlatformError | None:
        """Copy a table, or return why that cannot be done. A fault in a source's own code stops no other source."""
        what = f'"{table.name}" could not be read'
        begun = _now()
        try:
            with engine.readable_errors(what):
                texts = self.texts(table)
                self._copied_at[table.name] = begun, _now()
                self._copy(table, texts)
        except PlatformError as problem:
            return problem
        except Exception as error:
            fault = PlatformError(f"{what}: {type(error).__name__}: {one_line(error)}.")
            fault.__cause__ = error
            return fault
        return None

    def _copy(self, table: Table, texts: pa.Table) -> None:
        names = list(texts.column_names)
        found = self._found[table.name] = [name for name in names if name not in NOTES]
        self._require_columns(table, found)
        text = {name: f"copied_text.c{number}" for number, name in enumerate(names)}
        columns = sorted(table.columns, key=lambda column: column.name not in table.primary_key)  # keys are told first
        rules_broken = first_broken(rule for column in columns for rule in rules(column, text[column.name]))
        copy = _COPY.format(
            relation=_relation(table),
            columns=", ".join(f"{typed(each, text[each.name])} AS {quoted(each.name)}" for each in table.columns),
            broken=f"coalesce({text.get(BROKEN, 'NULL')}, {rules_broken})",
            raw=", ".join(f"{literal(name)}, {each}" for name, each in text.items() if name != BROKEN),
        )
        self.connection.register("copied_text", texts.rename_columns([f"c{number}" for number in range(len(names))]))
        try:
            self._require_typed_keys(table, text)
            self.connection.execute(copy)
        finally:
            self.connection.unregister("copied_text")
        self._require_keys(table)

    def _require_columns(self, table: Table, found: list[str]) -> None:
        wrong = [f'"{column.name}" is missing' for column in table.columns if column.name not in found]
        wrong += [f'"{name}" is new' for name in found if name not in table.by_name and not self._ignores_new]
        wrong += [f'"{name}" is there twice' for name in sorted({each for each in found if found.count(each) > 1})]
        if wrong:
            raise SchemaDrift(
                f'Table "{table.name}" of the source "{self._source}" has other columns: {"; ".join(wrong)}. Nothing '
                f"of it was captured. Change catalogue/{self._source}.sql to match, then refresh."
            )

    def _require_typed_keys(self, table: Table, text: Mapping[str, str]) -> None:
        """Refuse a table with a key that is no value of its type: the row would have none."""
        for name in table.primary_key:
            column = table.by_name[name]
            query = _MISTYPED.format(text=text[name], value=typed(column, text[name]))
            [(mistyped, example)] = self.rows(query)
            if mistyped:
                self._refuse(table, f'rows whose "{name}" is not exactly {column.type}: {mistyped}, as "{example}"')

    def _require_keys(self, table: Table) -> None:
        """Refuse a table with rows that cannot be told from others."""
        keys = [quoted(name) for name in table.primary_key]
        query = _KEYS.format(
            missing=" OR ".join(f"{key} IS NULL" for key in keys),
            key=f"({', '.join(keys)})",
            relation=_relation(table),
        )
        [(missing, doubled)] = self.rows(query)
        if missing or doubled:
            self._refuse(
                table, f"rows without a key: {missing}" if missing else f"rows with the key of another: {doubled}"
            )

    def _refuse(self, table: Table, what: str) -> None:
        keys = ", ".join(quoted(name) for name in table.primary_key)
        raise PlatformError(
            f'A row of "{table.name}" of the source "{self._source}" is known by {keys}. It has {what}. Nothing of it '
            "was captured: give every row a key of its own, then refresh."
        )


def _relation(table: Table) -> str:
    return f"source.{quoted(table.name)}"


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND
