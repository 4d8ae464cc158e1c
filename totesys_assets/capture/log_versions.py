"""Versions of a table's rows, made of what the journal says of them: one for each transaction that changed a row.

Belongs here: filling in what the log left out, and the state of each row after each transaction against the one before.
Does not belong here: what the log says, typed (log_lines.py), and committing (logged.py).

What the log calls an insert, an update or a delete is not believed: only whether the row is there afterwards, and with
which values. A row that breaks a rule keeps its last good version for as long as it stays on its day, as in a
comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture import dead_letters, log_statements
from totesys_assets.capture.log_lines import Behind, LogLines, Undecided, raw_text
from totesys_assets.capture.log_parts import ALL, Part, parts
from totesys_assets.catalogue.catalogue import COMMIT_LSN, OPERATION, RECORDED_AT, Column, Table
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.digest import DUCKDB
from totesys_assets.lake.read import moment_sql, recorded_until, register
from totesys_assets.source.rows import partition_sql, row_key
from totesys_assets.source.rules import first_broken, is_altered
from totesys_assets.source.totesys.pgoutput import Messages, Relation
from totesys_assets.source.typed_text import typed
from totesys_assets.spool import Spool
from totesys_assets.sql_text import literal, quoted

_REJECTED = pa.schema([(name, pa.string()) for name in ("row_key", "partition", "broken", "raw")])


class LogVersions:
    """The versions that the journal adds to what is held of ``table``, in temporary tables of ``connection``.

    ``difference`` has the versions, with ``_day``, ``_recorded_at`` and ``_commit_lsn``. ``letters`` are the
    table's dead letters so far: row_key, partition, column_name, reason, raw.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        all_days: DayRange,
        letters: pa.Table,
    ) -> None:
        self._connection, self._table, self._all_days, self._letters = connection, table, all_days, letters
        self._columns = [quoted(column.name) for column in table.columns]
        self._keys = ", ".join(quoted(name) for name in table.primary_key)
        # What the table looked like to the log, in the last row.
        self.columns = ""
        self.changes = 0
        # Versions by partition and operation; rows that came to a partition in the source, less those that left it.
        self.counts: Counter[tuple[str, str]] = Counter()
        self.came: Counter[str] = Counter()
        # Columns with values that the log left out; condition of the changes in the journal.
        self._left_out: list[int] = []
        self._journaled = "false"
        # Whether rows are dead letters now, or were.
        self.has_letters = letters.num_rows > 0

    @property
    def _day(self) -> str:
        column = self._table.day_column
        return f"CAST({quoted(column)} AS DATE)" if column else "DATE '0001-01-01'"

    def make(self, journal: DeltaTable, held: DeltaTable, behind: Behind) -> None:
        """Make ``difference``. Raises Undecided."""
        self._connection.register("letters", self._letters)
        lines = LogLines(self._connection, self._table, self._all_days)
        self.changes = lines.read(journal, behind)
        self.columns, self._journaled = lines.columns, lines.condition(behind)
        if not self.changes:
            return
        self._connection.execute(log_statements.MOMENTS.format(after=recorded_until(held)))
        self._find_left_out()
        is_truncated = lines.truncations > 0
        # Of a row that gets another key, what was left out is found by the one before.
        is_one = bool(self._left_out) and self._any("FROM lines WHERE came_from IS NOT NULL")
        found = [ALL] if is_one else parts(self._connection, self._table, held if is_truncated else None)
        for number, part in enumerate(found):
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW part AS SELECT * FROM lines WHERE {part.condition}")
            self._find_base(held, part, is_truncated=is_truncated)
            self._fill()
            self._compare(is_first=number == 0)
            self._count(is_first=number == 0)
        counts = f"SELECT {self._partition}, {OPERATION}, count(*) FROM difference GROUP BY ALL"
        for partition, operation, count in self._connection.execute(counts).fetchall():
            self.counts[partition, operation] += count

    # What is held, and what the log left out

    def _find_base(self, held: DeltaTable, part: Part, *, is_truncated: bool) -> None:
        key, touched = self._table.primary_key[0], f"({self._keys}) IN (SELECT ({self._keys}) FROM part)"
        ends = f"SELECT min({quoted(key)}), max({quoted(key)}) FROM part"
        least, greatest = self._connection.execute(ends).fetchall()[0]
        if is_truncated:
            touched, within = part.condition, (key, *part.ends) if part.ends else None
        elif isinstance(least, int):  # files whose least and greatest key are known need not be read
            touched, within = f"{touched} AND {quoted(key)} BETWEEN {least} AND {greatest}", (key, least, greatest)
        else:
            within = None
        register(self._connection, "held", held, within=within)
        self._connection.execute(
            log_statements.BASE.format(
                columns=", ".join(self._columns),
                recorded_at=RECORDED_AT,
                operation=OPERATION,
                touched=touched,
                keys=self._keys,
                day=self._day,
            )
        )
        if is_truncated:
            self._connection.execute(log_statements.TRUNCATED.format(keys=self._keys))

    def _find_left_out(self) -> None:
        """Find out which columns have large values that the log left out."""
        flags = ", ".join(f"coalesce(bool_or(same_{i}), false)" for i, _ in enumerate(self._columns))
        found = self._connection.execute(f"SELECT {flags} FROM lines WHERE present").fetchall()[0]
        self._left_out = [i for i, is_left_out in enumerate(found) if is_left_out]

    def _fill(self) -> None:
        same = self._left_out
        if not same:
            self._connection.execute("CREATE OR REPLACE TEMP VIEW filled AS SELECT * FROM part")
            return
        is_left_out = " OR ".join(f"same_{i}" for i in same)
        key, letter = row_key(self._table), "letters.row_key IS NOT NULL"
        row, followed = key, ""
        if self._any(f"FROM part WHERE came_from IS NOT NULL AND ({is_left_out})"):
            row = "followed.row"
            followed = f"JOIN followed ON (part.lsn, part.ordinal, {key}) = (followed.lsn, followed.ordinal, row_key)"
            self._follow_rows(key)
        held = [
            f"CASE WHEN {letter} THEN {typed(column, _in_letter(column))} ELSE base.{name} END AS {name}"
            if i in same
            else f"base.{name}"
            for i, (column, name) in enumerate(zip(self._table.columns, self._columns, strict=True))
        ]
        self._connection.execute(
            log_statements.FILLED.format(
                fills=", ".join(f"fill_{i}" for i in same),
                replaced=", ".join(f"fill_{i}.v AS {self._columns[i]}" for i in same),
                missing=" OR ".join(f"fill_{i} IS NULL" for i in same),
                filling=", ".join(
                    f"last_value(CASE WHEN NOT coalesce(same_{i}, false) THEN {{'v': {self._columns[i]}}} END "
                    f"IGNORE NULLS) OVER earlier AS fill_{i}"
                    for i in same
                ),
                row=row,
                followed=followed,
                columns=", ".join(held),
                key=key,
                is_altered=is_altered("letters.raw"),
            )
        )
        if self._any("FROM filled WHERE missing"):
            raise Undecided(f'a large value of "{self._table.name}" that did not change is not held')

    def _follow_rows(self, key: str) -> None:
        """Number the rows that the lines are of: one that gets another key stays the same row."""
        lines = self._connection.execute(
            f"SELECT lsn, ordinal, {key}, came_from, present FROM lines WHERE NOT departed "
            "ORDER BY lsn, ordinal, present"
        ).fetchall()
        now: dict[str, str] = {}
        found = []
        for lsn, ordinal, name, came_from, present in lines:
            if came_from is not None:
                now[name] = now.pop(came_from, came_from)
                now[came_from] = f"{came_from} after {lsn} {ordinal}"  # whoever gets that key next is another row
            elif not present:
                now[name] = f"{name} after {lsn} {ordinal}"
            found.append((lsn, ordinal, name, now.setdefault(name, name)))
        columns = zip(*found, strict=True)
        self._connection.register(
            "followed", pa.table(dict(zip(("lsn", "ordinal", "row_key", "row"), columns, strict=True)))
        )

    # What became of the rows

    def _compare(self, *, is_first: bool) -> None:
        names = [column.name for column in self._table.columns]
        was = {name: quoted(f"was {name}") for name in names}
        self._connection.execute(
            log_statements.DIFFERENCE.format(
                into=_into("difference", is_first=is_first),
                rule=first_broken(dead_letters.engine_rules(self._table)),
                day=self._day,
                settled=", ".join(
                    f"CASE WHEN broken IS NULL THEN {name} ELSE first_value({name}) OVER since END AS {name}"
                    if name not in self._keys
                    else name
                    for name in self._columns
                ),
                lagged=", ".join(f"lag({quoted(name)}) OVER before AS {was[name]}" for name in names),
                keys=self._keys,
                columns=", ".join(self._columns),
                operation=OPERATION,
                differs=" OR ".join(f"{quoted(name)} IS DISTINCT FROM {was[name]}" for name in names),
                was=", ".join(f"{was[name]} AS {quoted(name)}" for name in names),
                moment="make_timestamptz(moment)",
                recorded_at=RECORDED_AT,
                commit_lsn=COMMIT_LSN,
            )
        )

    @property
    def _partition(self) -> str:
        first = literal(self._all_days.first.isoformat())
        return f"coalesce(strftime(_day, '%Y-%m-%d'), {first})" if self._table.day_column else literal(WHOLE)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The versions, as the lake has them, in the order of the commits."""
        order = f"ORDER BY {RECORDED_AT}, {OPERATION} <> 'delete'"
        return engine.batches(self._connection.execute(f"FROM difference {order}"))

    # Which rows there are now, and which of them are dead letters

    def _count(self, *, is_first: bool) -> None:
        """Note the last state of each row that was touched, and count those that came to a partition or left it."""
        self._connection.execute(
            log_statements.NOW.format(
                key=row_key(self._table),
                partition=partition_sql(self._table, self._all_days, DUCKDB),
                rule=first_broken(dead_letters.engine_rules(self._table)),
                keys=self._keys,
            )
        )
        for partition, count, broken in self._connection.execute(log_statements.CAME).fetchall():
            self.came[partition] += int(count)
            self.has_letters = self.has_letters or broken > 0
        self._connection.execute(
            log_statements.BROKEN.format(
                into_broken=_into("broken", is_first=is_first),
                into_touched=_into("touched", is_first=is_first),
                texts=", ".join(f"CAST(filled.{name} AS VARCHAR)" for name in self._columns),
            )
        )

    def letters(self, taken_at: int) -> tuple[list[str], Counter[str]]:
        """Make ``rejected`` and ``capture_time`` for dead_letters.keep, as of ``taken_at`` (microseconds since 1970).

        Returns the partitions that it is about, and of each partition the number of its dead letters.
        """
        if not self.has_letters:
            return [], Counter()
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE capture_time AS SELECT {moment_sql(taken_at)} AS taken_at"
        )
        self._connection.execute(log_statements.REJECTED)
        with Spool(_REJECTED) as spool:
            broken = self._connection.execute(log_statements.IN_JOURNAL.format(journaled=self._journaled))
            for batch in engine.batches(broken):
                spool.add(self._rejected(batch))
            self._connection.register("found", pa.RecordBatchReader.from_batches(_REJECTED, spool.batches()))
            self._connection.execute("INSERT INTO rejected BY NAME FROM found")
            self._connection.unregister("found")
        counts = self._connection.execute("SELECT partition, count(*) FROM rejected GROUP BY 1").fetchall()
        about = sorted(partition for (partition,) in self._connection.execute(log_statements.ABOUT).fetchall())
        self._connection.execute("DELETE FROM rejected WHERE NOT list_contains(?, partition)", [about])
        return about, Counter(dict(counts))

    def _rejected(self, broken: pa.RecordBatch) -> pa.RecordBatch:
        """What dead letters say of broken rows, with the raw text that the log has of each."""
        raw, names = [], [column.name for column in self._table.columns]
        for description, message, values in zip(
            *(broken.column(name).to_pylist() for name in ("relation", "message", "texts")), strict=True
        ):
            relation = Relation.read(description)
            rows = Messages(pa.array([message], pa.binary())).rows(relation)
            known = dict(zip(names, values, strict=True))
            texts = {name: text[0].as_py() for name, text in rows.values.items()}
            raw.append(raw_text(relation, texts | {name: known.get(name) for name in rows.unchanged}))
        columns = [*(broken.column(name) for name in ("row_key", "partition", "broken")), pa.array(raw, pa.string())]
        return pa.RecordBatch.from_arrays(columns, schema=_REJECTED)

    def _any(self, rows: str) -> bool:
        return bool(self._connection.execute(f"SELECT EXISTS (SELECT 1 {rows})").fetchall()[0][0])


def _into(table: str, *, is_first: bool) -> str:
    return f"CREATE TEMP TABLE {table} AS" if is_first else f"INSERT INTO {table}"


def _in_letter(column: Column) -> str:
    """DuckDB expression of a column's text in a dead letter's."""
    return f"json_extract_string(letters.raw, {literal(f'$.{quoted(column.name)}')})"
