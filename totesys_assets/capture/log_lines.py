"""Lines of the log: what it says of a table's rows, typed, and of each row the first rule that it breaks.

Belongs here: reading them from the journal, and a row's text as a dead letter has it. Does not belong here: what
follows of them (log_versions.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture import log_statements
from totesys_assets.capture.log_piece import LSN, ORDINAL, STRETCH, TABLE
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.lake.read import register
from totesys_assets.source.rules import Rule, first_broken, most_bytes, short, too_long, without_partition
from totesys_assets.source.totesys.pgoutput import CUT, DELETE, TRUNCATE, Flags, Messages, Relation
from totesys_assets.source.totesys.rows import is_text
from totesys_assets.source.typed_text import typed
from totesys_assets.sql_text import literal, quoted

# Types whose values row_to_json writes without quotes, and those that it writes with a T, by their oids.
_BARE, _MOMENTS = {20, 21, 23, 26, 700, 701, 1700}, {1114, 1184}
_BOOLEAN = 16


class Undecided(PlatformError):
    """The log alone does not tell what a row is like: the table must be compared."""


def left_out(hidden: Iterable[int], since: int, also: Collection[int]) -> tuple[int, ...]:
    """Which of the transactions that a snapshot hides were not taken before: up to ``since``, all but ``also`` were.

    What was taken is not hidden, though its id may look so when ids have gone half the way round.
    """
    before = frozenset(also)
    return tuple(each for each in hidden if each >= since or each in before)


@dataclass(frozen=True)
class Behind:
    """What of the journal a table is behind with: what was committed from ``since`` on, before ``until``.

    ``stretch`` is the journal's, positions are those of the log. ``also`` are transactions of before ``since`` that
    were left out, and ``hidden`` those that are left out now, because the snapshot does not show them. ``columns`` are
    those of the last row that was taken from the log; nothing if none was. ``is_rewritten``: the rows are in another
    file since, and may be others, without a word in the log. ``unnoted``: versions that were committed from there on
    may be in the lake without a word in the ledger, of a capture that was killed.
    """

    stretch: int
    since: int
    until: int
    also: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()
    columns: str = ""
    newest: int | None = None
    is_rewritten: bool = False
    unnoted: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the journal has nothing more of the table, ``newest`` being its newest change there."""
        return not self.also and self.newest is not None and self.newest < self.since

    @property
    def oldest(self) -> int:
        """The position before which nothing of it lies."""
        return min((self.since, *self.also))

    @cached_property
    def left_out(self) -> tuple[int, ...]:
        """The transactions that are for the next to take, of what it is behind with."""
        return left_out(self.hidden, self.since, self.also)

    @property
    def condition(self) -> str:
        """SQL condition of the journal's rows."""
        also = f" OR {LSN} IN ({', '.join(map(str, self.also))})" if self.also else ""
        hidden = f" AND {LSN} NOT IN ({', '.join(map(str, self.hidden))})" if self.hidden else ""
        return f"{STRETCH} = {self.stretch} AND {LSN} < {self.until} AND ({LSN} >= {self.since}{also}){hidden}"


class LogLines:
    """Lines of one table, in the temporary tables ``lines``, ``transactions`` and ``truncated``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: Table, all_days: DayRange) -> None:
        self._connection, self._table, self._all_days = connection, table, all_days
        self._columns = [quoted(column.name) for column in table.columns]
        # What the table looks like to the log, in the last row; and how often it was emptied as a whole.
        self.columns, self.truncations = "", 0

    def read(self, journal: DeltaTable, behind: Behind) -> int:
        """Make them of the journal; returns how many changes there are. Raises Undecided."""
        self.columns = behind.columns
        null = "CAST(NULL AS VARCHAR)"
        nothing = (f"{typed(column, null)} AS {quoted(column.name)}" for column in self._table.columns)
        flags = ", ".join(f"CAST(NULL AS BOOLEAN) AS same_{i}" for i, _ in enumerate(self._columns))
        journaled = register(self._connection, "journal", journal, within=(LSN, behind.oldest, behind.until))
        journaled += f" WHERE {self.condition(behind)}"
        self._connection.execute(log_statements.TRANSACTIONS.format(journaled=journaled, truncate=chr(TRUNCATE)))
        counts = "SELECT coalesce(sum(changes), 0), coalesce(sum(truncations), 0) FROM transactions"
        changes, self.truncations = map(int, self._connection.execute(counts).fetchall()[0])
        if not changes:
            return 0
        self._connection.execute(log_statements.LINES.format(columns=", ".join(nothing), flags=flags))
        # In a session of its own: the next statement of a session ends a result.
        with engine.session() as reader:
            register(reader, "journal", journal, within=(LSN, behind.oldest, behind.until))
            rows = f"SELECT {LSN} AS lsn, {ORDINAL}, relation, message, octet_length(message) AS size FROM {journaled}"
            for batch in engine.batches(reader.execute(f"{rows} AND kind <> '{chr(TRUNCATE)}'")):
                if (np.asarray(batch.column("size")) <= CUT).any():
                    raise Undecided(f'a row of "{self._table.name}" is too large to be told from the log')
                described = batch.column("relation").dictionary_encode()
                numbers = np.asarray(described.indices)
                for number, description in enumerate(described.dictionary.to_pylist()):
                    self._add(batch.filter(pa.array(numbers == number)), self._relation(bytes(description or b"")))
        return changes

    def condition(self, behind: Behind) -> str:
        """SQL condition of the journal's rows that are about the table."""
        return f"{TABLE} = {literal(self._table.name)} AND {behind.condition}"

    def _relation(self, description: bytes) -> Relation:
        """The table as the log describes it. Raises Undecided if it was another before, or lacks a column."""
        relation = Relation.read(description)
        columns = repr((relation.oid, relation.columns, relation.keys))
        names = [name for name, *_ in relation.columns]
        missing = [column.name for column in self._table.columns if column.name not in names]
        if missing or (self.columns and self.columns != columns):
            raise Undecided(f'the columns of "{self._table.name}" were changed')
        if sorted(names[key] for key in relation.keys) != sorted(self._table.primary_key):
            whole = len(relation.keys) == len(names)  # REPLICA IDENTITY FULL
            if not whole:
                raise Undecided(f'rows of "{self._table.name}" are not known by their key in the log')
        self.columns = columns
        return relation

    def _add(self, batch: pa.RecordBatch, relation: Relation) -> None:
        messages = Messages(batch.column("message"))
        rows = messages.rows(relation)
        nothing = pa.nulls(len(messages), pa.string())
        same: dict[str, Flags] = rows.unchanged
        decoded: dict[str, Any] = {
            "lsn": batch.column("lsn"),
            "ordinal": batch.column("ordinal"),
            "deleted": pa.array(messages.kind == DELETE),
        }
        for i, column in enumerate(self._table.columns):
            decoded[f"text_{i}"] = rows.values[column.name]
            decoded[f"same_{i}"] = pa.array(same.get(column.name, np.zeros(len(messages), bool)))
            if column.name in self._table.primary_key:
                decoded[f"old_{i}"] = rows.old_keys.get(column.name, nothing)
        self._connection.register("decoded", pa.table(decoded))
        values = {column.name: typed(column, f"text_{i}") for i, column in enumerate(self._table.columns)}
        self._require_typed(values)
        old = {
            column.name: typed(column, f"old_{i}")
            for i, column in enumerate(self._table.columns)
            if column.name in rows.old_keys and column.name in self._table.primary_key
        }
        first = next(iter(old.values()), "NULL")
        changed = " OR ".join(f"{value} IS DISTINCT FROM {values[name]}" for name, value in old.items())
        changed = f"{first} IS NOT NULL AND ({changed})" if old else ""
        if len(old) > 1 and self._any(f"FROM decoded WHERE {changed}"):
            raise Undecided(f'a row of "{self._table.name}" has another key, which is of several columns')
        self._connection.execute(
            log_statements.ARRIVALS.format(
                came_from=f"CASE WHEN {changed} THEN CAST({first} AS VARCHAR) END" if old else "NULL",
                typed=", ".join(f"{value} AS {quoted(name)}" for name, value in values.items()),
                flags=", ".join(f"same_{i}" for i in range(len(values))),
                broken=first_broken(self._rules(values)),
            )
        )
        if changed:
            self._connection.execute(
                log_statements.DEPARTURES.format(
                    old_key=", ".join(f"{value} AS {quoted(name)}" for name, value in old.items()), changed=changed
                )
            )
        self._connection.unregister("decoded")

    def _require_typed(self, values: Mapping[str, str]) -> None:
        """Refuse text that is no value of its type; that a number or a time may be none is for the rules to say."""
        odd = [
            f"(text_{i} IS NOT NULL AND {values[column.name]} IS NULL)"
            for i, column in enumerate(self._table.columns)
            if not column.type.startswith(("numeric", "timestamp"))
        ]
        odd += [
            f"(text_{i} IS NOT NULL AND text_{i} <> 'NaN' AND {values[column.name]} IS NULL)"
            for i, column in enumerate(self._table.columns)
            if column.type.startswith("numeric")
        ]
        if odd and self._any(f"FROM decoded WHERE NOT deleted AND ({' OR '.join(odd)})"):
            raise Undecided(f'a row of "{self._table.name}" has a value of another type in the log')

    def _rules(self, values: Mapping[str, str]) -> Iterator[Rule]:
        """The rules that ToteSys is asked for in a comparison (source/totesys/rows.py), of the text in the log."""
        texts = {column.name: f"text_{i}" for i, column in enumerate(self._table.columns)}
        no_time = {name: f"({texts[name]} IS NOT NULL AND {value} IS NULL)" for name, value in values.items()}
        for column, _, reason in without_partition(self._table, self._all_days):
            value = values[column.name]
            first, end = (literal(each.isoformat()) for each in (self._all_days.first, self._all_days.end))
            yield column, f"{no_time[column.name]} OR NOT ({value} >= {first} AND {value} < {end})", reason
        for column in self._table.columns:
            if is_text(column):
                yield (
                    column,
                    f"strlen({texts[column.name]}) > {most_bytes(self._table.name)}",
                    too_long(self._table.name),
                )
            if column.type.startswith("numeric"):
                yield column, f"{texts[column.name]} = 'NaN'", "is not a number"
            elif column.type.startswith("timestamp") and column.name != self._table.day_column:
                outside = f"{no_time[column.name]} OR {values[column.name]} >= '9999-12-31 23:59:59.9995'"
                yield column, outside, "is no time between the years 1 and 9999"

    def _any(self, rows: str) -> bool:
        return bool(self._connection.execute(f"SELECT EXISTS (SELECT 1 {rows})").fetchall()[0][0])


def raw_text(relation: Relation, texts: Mapping[str, str | None]) -> str:
    """A row as PostgreSQL's row_to_json writes it."""

    def written(type_: int, text: str | None) -> str:
        if text is None:
            return "null"
        if type_ == _BOOLEAN:
            return "true" if text == "t" else "false"
        if type_ in _BARE and text.lstrip("-")[:1].isdigit():
            return text
        if type_ in _MOMENTS:
            text = text.replace(" ", "T", 1)
        return json.dumps(short(text, most_bytes(relation.name)), ensure_ascii=False)

    return (
        "{"
        + ",".join(
            f"{json.dumps(name, ensure_ascii=False)}:{written(type_, texts[name])}"
            for name, type_, _ in relation.columns
        )
        + "}"
    )
