"""The statements of a comparison: what is asked of the source, and what DuckDB is asked to compare.

Belongs here: their text, for one table. Does not belong here: when they are run, and on which rows (comparison.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from totesys_assets.capture import dead_letters
from totesys_assets.capture.changes import Changes
from totesys_assets.catalogue.catalogue import COMMIT_LSN, OPERATION, RECORDED_AT, Table
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.source.interface import SourceSnapshot
from totesys_assets.source.rows import examined_sql, row_key
from totesys_assets.source.rules import first_broken, is_outside
from totesys_assets.sql_text import literal, quoted

# The source's rows of some days, each with the first rule that it breaks, if any, and its day, if that has a partition.
_INCOMING = """
CREATE OR REPLACE TEMP TABLE incoming AS
SELECT * REPLACE (coalesce(_broken, {rule}) AS _broken), {day} AS _day FROM ({rows})
"""

# Broken rows with their raw text, as the source itself writes it.
_REJECTED = """
INSERT INTO rejected
SELECT source.row_key, source.partition, incoming._broken, source.raw
FROM incoming JOIN ({letters}) AS source ON source.row_key = {row_key}
WHERE incoming._broken IS NOT NULL AND list_contains(?, source.partition)
"""

# The same for a table where several rows may have the same key: one letter for each key and day that has no good row.
_REJECTED_ONCE = """
INSERT INTO rejected
SELECT row_key, partition, bad._broken, source.raw
FROM (
    SELECT {row_key} AS row_key, {partition} AS partition, _broken FROM incoming
    QUALIFY _broken IS NOT NULL AND row_number() OVER (PARTITION BY {row_key}, _day ORDER BY _broken NULLS FIRST) = 1
) AS bad
JOIN (
    SELECT * FROM ({letters}) QUALIFY row_number() OVER (PARTITION BY row_key, partition ORDER BY raw) = 1
) AS source USING (row_key, partition)
WHERE list_contains(?, partition)
"""

# A row held alternates between insert and delete, so these need only be counted to know how many are there.
_HELD = """
SELECT {partition}, sum(CASE _operation WHEN 'insert' THEN 1 WHEN 'delete' THEN -1 ELSE 0 END)
FROM (SELECT _operation, {day} AS _day FROM versions_held) GROUP BY 1
"""
_NOT_HELD = """
SELECT {partition}, count(*)
FROM incoming ANTI JOIN (SELECT * FROM newest WHERE _operation <> 'delete') AS held
ON {same_key} AND held._day = incoming._day
GROUP BY 1
"""

# The newest versions held, of each row on each day.
_NEWEST = """
SELECT * FROM (SELECT *, {day} AS _day FROM versions_held) AS versions WHERE {within}
QUALIFY row_number() OVER (PARTITION BY {keys}, _day ORDER BY _recorded_at DESC) = 1
"""

# A row is known by its key within its day: should its created_at ever change, it leaves one day and joins another. It
# stands on a day for as long as the source has it there, good or bad: one that turned bad keeps its last good version.
_LEAVING = """
SELECT * FROM held WHERE _operation <> 'delete'
    AND NOT EXISTS (SELECT 1 FROM incoming WHERE {same_key} AND incoming._day = held._day)
"""
_DIFFERENCE = """
CREATE OR REPLACE TEMP TABLE difference AS
WITH incoming AS (SELECT * FROM temp.incoming WHERE {part}),
held AS (SELECT * FROM ({held}) WHERE {part}),
leaving AS ({leaving}),
compared AS (
    SELECT {incoming_columns}, incoming._day, coalesce(held._operation, 'delete') = 'delete' AS _is_insert,
        {changed} AS _is_changed
    FROM incoming LEFT JOIN held ON {same_key} AND held._day = incoming._day
    WHERE incoming._broken IS NULL
),
meant AS (SELECT * FROM compared{one_each})
SELECT {columns}, CASE WHEN _is_insert THEN 'insert' ELSE 'update' END AS _operation, taken_at AS _recorded_at, _day
FROM meant CROSS JOIN capture_time
WHERE _is_insert OR _is_changed
UNION ALL
SELECT {leaving_columns}, 'delete', taken_at, leaving._day
FROM leaving CROSS JOIN capture_time
"""


@dataclass(frozen=True)
class Chunk:
    """What is compared at once: some days (None: a table that is one set), and of these one of so many parts by key."""

    days: Days | None
    part: int = 0
    parts: int = 1

    def of_key(self, key: str) -> str:
        """SQL condition of the part's rows, by a key that is a number."""
        return f"abs({key} % {self.parts}) = {self.part}" if self.parts > 1 else "true"


@dataclass(frozen=True)
class Statements:
    """The statements for one table. ``letters``: the (key, partition) of those of its rows that are dead letters."""

    snapshot: SourceSnapshot
    table: Table
    all_days: DayRange
    changes: Changes
    letters: Sequence[tuple[str, str]]

    @property
    def relation(self) -> str:
        """The table in the source."""
        return self.snapshot.relation(self.table)

    @property
    def keys(self) -> str:
        """The columns of the table's key, as a list."""
        return ", ".join(quoted(name) for name in self.table.primary_key)

    @property
    def _columns(self) -> list[str]:
        return [quoted(column.name) for column in self.table.columns]

    @property
    def same_key(self) -> str:
        """DuckDB condition of an incoming row and a held one: they have the same key."""
        return " AND ".join(f"incoming.{quoted(name)} = held.{quoted(name)}" for name in self.table.primary_key)

    @property
    def is_numbered(self) -> bool:
        """Whether the key is one number, by which rows can be cut into parts."""
        return len(self.table.primary_key) == 1 and pa.types.is_integer(self.table.by_name[self.table.key].arrow)

    def day(self) -> str:
        """DuckDB expression of a good row's day; one and the same for all rows of a table that is one set."""
        column = self.table.day_column
        return f"CAST({quoted(column)} AS DATE)" if column else "DATE '0001-01-01'"

    def incoming_day(self) -> str:
        """DuckDB expression of an incoming row's day; none where that has no partition.

        That is for the source to say: a time of the far past or future reaches DuckDB as any other.
        """
        if self.table.day_column is None:
            return self.day()
        return f"CASE WHEN NOT coalesce({is_outside(self.table)}, false) THEN {self.day()} END"

    def lake_columns(self) -> str:
        """DuckDB's select list of the columns that the lake has."""
        return f"*, CAST(NULL AS BIGINT) AS {COMMIT_LSN}"

    def partition(self) -> str:
        """DuckDB expression of the partition that a row is examined with, of its ``_day``."""
        first = literal(self.all_days.first.isoformat())
        return f"coalesce(strftime(_day, '%Y-%m-%d'), {first})" if self.table.day_column else literal(WHOLE)

    def of_keys(self, keys: Iterable[str]) -> str:
        """SQL condition of the rows with these keys, given as text."""
        if self.is_numbered:
            return f"{self.keys} IN ({', '.join(sorted(keys))})"
        return f"{row_key(self.table)} IN ({', '.join(literal(key) for key in sorted(keys))})"

    def where_written(self, chunk: Chunk) -> str:
        """The source's condition of what may have been written since it was captured, and of the dead letters."""
        letters = {key for key, partition in self.letters if partition in self.changes.dated}
        written = f"({self.changes.written}{f' OR {self.of_keys(letters)}' if letters else ''})"
        conditions = [written, chunk.of_key(self.keys)]
        if chunk.days is not None:  # between the first and the last is soon said; what is too much is left out later
            conditions.append(self._examined(DayRange(chunk.days.first, chunk.days.last)))
        return f"WHERE {' AND '.join(conditions)}"

    def where(self, chunk: Chunk) -> str:
        """The source's condition of all rows of a chunk."""
        conditions = [chunk.of_key(self.keys)] + ([self._examined(chunk.days)] if chunk.days is not None else [])
        return f"WHERE {' AND '.join(conditions)}"

    def _examined(self, days: Days) -> str:
        return examined_sql(self.table, days, self.all_days)

    def within(self, chunk: Chunk) -> str:
        """DuckDB condition of the versions held of a chunk."""
        ranges = chunk.days.ranges if chunk.days is not None else ()
        days = [f"_day BETWEEN DATE '{each.first}' AND DATE '{each.last}'" for each in ranges]
        return f"({' OR '.join(days) or 'true'}) AND {chunk.of_key(self.keys)}"

    def newest(self, within: str) -> str:
        """DuckDB query for the newest versions held, of each row on each day, where ``within`` is true."""
        return _NEWEST.format(day=self.day(), keys=self.keys, within=within)

    def text_bytes(self) -> str:
        """DuckDB query for the number of bytes that the text in ``incoming`` has."""
        texts = [f"sum(strlen({quoted(each.name)}))" for each in self.table.columns if pa.types.is_string(each.arrow)]
        return f"SELECT {' + '.join(f'coalesce({each}, 0)' for each in [*texts, '0'])} FROM incoming"

    def difference(self, held: str, leaving: str, part: str = "true") -> str:
        """DuckDB statement that makes ``difference``: what is new, changed or gone in ``incoming`` against ``held``.

        ``part``: a condition of keys; only of its rows.
        """
        columns = self._columns
        return _DIFFERENCE.format(
            held=held,
            leaving=leaving,
            part=part,
            same_key=self.same_key,
            columns=", ".join(columns),
            incoming_columns=", ".join(f"incoming.{name}" for name in columns),
            one_each=self._one_each("_is_changed", *columns),
            leaving_columns=", ".join(f"leaving.{name}" for name in columns),
            changed=" OR ".join(f"incoming.{name} IS DISTINCT FROM held.{name}" for name in columns),
        )

    def incoming(self, where: str) -> str:
        """DuckDB statement that makes ``incoming``: the source's rows, each with the first rule that it breaks."""
        return _INCOMING.format(rule=self._engine_rule(), day=self.incoming_day(), rows=self._rows(where))

    def first_capture(self, where: str) -> str:
        """DuckDB query that takes every row of the source as new."""
        return (
            f"SELECT {self.lake_columns()} "
            f"FROM (SELECT * REPLACE (coalesce(_broken, {self._engine_rule()}) AS _broken), "
            f"'insert' AS {OPERATION}, (SELECT taken_at FROM capture_time) AS {RECORDED_AT}, "
            f"{self.incoming_day()} AS _day FROM ({self._rows(where)}))"
            + self._one_each("_broken IS NOT NULL", *self._columns)
        )

    @property
    def may_double(self) -> bool:
        """Whether several rows of the source may have the same key."""
        return self.snapshot.may_double(self.table)

    def _one_each(self, *order: str) -> str:
        """Clause that keeps one row for each key and day, the first by ``order``.

        Empty if no two rows can have the same key: it would sort all rows.
        """
        if not self.may_double:
            return ""
        return f" QUALIFY row_number() OVER (PARTITION BY {self.keys}, _day ORDER BY {', '.join(order)}) = 1"

    def _rows(self, where: str) -> str:
        """DuckDB query for rows of the source, of which it names those that it cannot give exactly."""
        return self.snapshot.read(f"{self.snapshot.select(self.table, self.all_days)} {where}")

    def _engine_rule(self) -> str:
        """The rules that the engine adds."""
        return first_broken(dead_letters.engine_rules(self.table))

    def rejected(self, where: str) -> str:
        """DuckDB statement that notes the broken rows of ``incoming`` with their text, of a list of partitions."""
        letters = self.snapshot.read(f"{self.snapshot.letters(self.table, self.all_days)} {where}")
        if self.may_double:
            return _REJECTED_ONCE.format(row_key=row_key(self.table), partition=self.partition(), letters=letters)
        return _REJECTED.format(row_key=row_key(self.table, "incoming"), letters=letters)

    def rows_held(self) -> str:
        """DuckDB query for the number of rows held, by partition."""
        return _HELD.format(partition=self.partition(), day=self.day())

    def rows_not_held(self) -> str:
        """DuckDB query for the number of rows in ``incoming`` that are not held, by partition."""
        return _NOT_HELD.format(partition=self.partition(), same_key=self.same_key)

    def leaving(self) -> str:
        """DuckDB query for what is held and no longer in ``incoming``."""
        return _LEAVING.format(same_key=self.same_key)
