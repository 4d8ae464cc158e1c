"""One table compared with one state of the lake: computed once, committed once or thrown away.

Belongs here: reading the rows of the partitions asked for, in pieces, comparing them column by column with the newest
versions held, and committing what is new, changed or gone. Does not belong here: which partitions to ask for, and what
the ledger says of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets.capture import dead_letters
from totesys_assets.capture.changes import Changes
from totesys_assets.capture.fingerprint import Fingerprint, examined_sql, partition_sql
from totesys_assets.catalogue.catalogue import MONTH, OPERATION, RECORDED_AT, Table, lake_schema
from totesys_assets.days import WHOLE, DayRange, Days, chunks, days_of
from totesys_assets.errors import PlatformError, StaleSnapshot
from totesys_assets.lake.commit import LostRace, append, conform
from totesys_assets.lake.read import RECORDED, microseconds, moment_sql, recorded_until, register
from totesys_assets.lake.tables import Lake
from totesys_assets.resources import engine
from totesys_assets.resources.engine import CHUNK_ROWS, literal, quoted
from totesys_assets.resources.totesys import READ, Snapshot
from totesys_assets.stages import DIFFERENCE, EXTRACT, stage, timed

ATTEMPTS = 5
# Keys that may stand in a statement, one by one.
_FEW_KEYS = 1000

# The source's rows of some days, each with the first rule that it breaks, if any, and its day, if that has a partition.
_INCOMING = f"""
CREATE OR REPLACE TEMP TABLE incoming AS
SELECT * REPLACE (coalesce(_broken, {{rule}}) AS _broken), {{day}} AS _day FROM ({READ})
"""

# Broken rows with their raw text, as the source itself writes it.
_REJECTED = f"""
INSERT INTO rejected
SELECT source.row_key, source.partition, incoming._broken, source.raw
FROM incoming JOIN ({READ}) AS source ON source.row_key = CAST(incoming.{{key}} AS VARCHAR)
WHERE incoming._broken IS NOT NULL AND list_contains(?, source.partition)
"""

# A row held alternates between insert and delete, so these need only be counted to know how many are there.
_HELD = """
SELECT {partition}, sum(CASE _operation WHEN 'insert' THEN 1 WHEN 'delete' THEN -1 ELSE 0 END)
FROM (SELECT _operation, {day} AS _day FROM versions_held) GROUP BY 1
"""
_NOT_HELD = """
SELECT {partition}, count(*)
FROM incoming ANTI JOIN (SELECT * FROM newest WHERE _operation <> 'delete') AS present
ON present.{key} = incoming.{key} AND present._day = incoming._day
GROUP BY 1
"""

# The newest versions held, of each row on each day.
_NEWEST = """
SELECT * FROM (SELECT *, {day} AS _day FROM versions_held) AS versions WHERE {within}
QUALIFY row_number() OVER (PARTITION BY {key}, _day ORDER BY _recorded_at DESC) = 1
"""

# A row is known by its key within its day: should its created_at ever change, it leaves one day and joins another. It
# stands on a day for as long as the source has it there, good or bad: one that turned bad keeps its last good version.
_LEAVING = """
SELECT * FROM held WHERE _operation <> 'delete'
    AND NOT EXISTS (SELECT 1 FROM incoming WHERE incoming.{key} = held.{key} AND incoming._day = held._day)
"""
_DIFFERENCE = """
CREATE OR REPLACE TEMP TABLE difference AS
WITH held AS ({held}),
leaving AS ({leaving})
SELECT {incoming_columns},
    CASE WHEN coalesce(held._operation, 'delete') = 'delete' THEN 'insert' ELSE 'update' END AS _operation,
    taken_at AS _recorded_at, incoming._day AS _day
FROM incoming LEFT JOIN held ON held.{key} = incoming.{key} AND held._day = incoming._day CROSS JOIN capture_time
WHERE incoming._broken IS NULL AND (coalesce(held._operation, 'delete') = 'delete' OR {changed})
UNION ALL
SELECT {leaving_columns}, 'delete', taken_at, leaving._day
FROM leaving CROSS JOIN capture_time
"""


@dataclass(frozen=True)
class _Piece:
    """What is compared at once: some days (None: a table that is one set), and of these one of so many parts by key."""

    days: Days | None
    part: int = 0
    parts: int = 1

    def of_key(self, key: str) -> str:
        """SQL condition of the part's rows, for DuckDB and PostgreSQL alike."""
        return f"abs({key} % {self.parts}) = {self.part}" if self.parts > 1 else "true"


def committed(held: DeltaTable) -> str:
    """Which commit of a capture to an ingestion table was the last."""
    return _commit(held, held.transaction_version(RECORDED))


def _commit(held: DeltaTable, recorded_at: int | None) -> str:
    return f"{held.metadata().id} {recorded_at}"


class Comparison:
    """One table of the source, and what is held of it."""

    def __init__(
        self,
        snapshot: Snapshot,
        lake: Lake,
        table: Table,
        all_days: DayRange,
        found: Mapping[str, Fingerprint],
        changes: Changes,
    ) -> None:
        self._snapshot, self._lake, self._table = snapshot, lake, table
        self._relation = snapshot.relation(table)
        self._all_days, self._found = all_days, found
        self._letters = dead_letters.open_keys(lake, table)
        # Dead letters are not held, and so must be read to know that they are still there.
        self._changes = changes if len(self._letters) <= _FEW_KEYS else changes.all_read()
        self.committed = ""
        # Versions by partition and operation, and dead letters by partition.
        self.counts: Counter[tuple[str, str]] = Counter()

    def commit(self) -> None:
        """Append versions, then dead letters, each behind its fence. Raises LostRace."""
        connection = self._snapshot.connection
        held = self._lake.open_versions(self._table)
        self._require_newest(held)
        schema = lake_schema(self._table, versioned=True)
        # Later than all that the table holds, even if the source's clock was set back: versions follow one another, and
        # what is made of them need only look at those recorded since.
        recorded_at = max(microseconds(self._snapshot.taken_at), recorded_until(held) + 1)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE capture_time AS SELECT {moment_sql(recorded_at)} AS taken_at")
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE rejected (row_key VARCHAR, partition VARCHAR, broken VARCHAR, raw VARCHAR)"
        )
        batches = conform(self._versions(connection, held), schema)
        first = next(batches, None)
        if first is not None:  # no commit at all when there is nothing to say
            marks = {self._snapshot.lifetime: self._snapshot.order, RECORDED: recorded_at}
            append(held, chain([first], batches), schema, f"capture:{self._table.name}", marks)
            self.committed = _commit(held, recorded_at)
        else:
            self.committed = committed(held)
        self._keep_dead_letters(connection)

    def _require_newest(self, held: DeltaTable) -> None:
        """Refuse to compare with versions from a later snapshot: what is new there would look gone or changed here."""
        if self._snapshot.is_overtaken(held.transaction_version(self._snapshot.lifetime) or 0):
            raise StaleSnapshot(
                f'Another refresh captured "{self._table.name}" from a later snapshot while this one held an earlier. '
                "Nothing is lost; refresh again."
            )

    def _keep_dead_letters(self, connection: duckdb.DuckDBPyConnection) -> None:
        for partition, count in connection.execute("SELECT partition, count(*) FROM rejected GROUP BY 1").fetchall():
            self.counts[partition, "rejected"] = count
        for _, partition in self._letters:
            if partition not in self._changes.stale:
                self.counts[partition, "rejected"] += 1
        for attempt in range(ATTEMPTS):
            try:
                dead_letters.keep(connection, self._lake, self._table, sorted(self._changes.stale))
                return
            except LostRace:
                if attempt == ATTEMPTS - 1:
                    raise

    # What is read, piece by piece, so that no whole table is ever in memory

    def _versions(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable) -> Iterator[pa.RecordBatch]:
        """Batches of versions to append."""
        if not held.file_uris():
            yield from self._all_as_new(connection)
            return
        whole = set(self._changes.whole)
        if self._changes.dated:
            pieces = self._pieces_of_changes()
            uncertain = self._uncertain(self._changes.dated, self._numbers(connection, held, pieces))
            whole |= uncertain
            if settled := self._changes.dated - uncertain:
                yield from self._changed(connection, held, pieces, settled)
        for piece in self._pieces(whole):
            self._read_source(connection, self._where(piece))
            self._note_rejected(connection, self._where(piece), whole)
            with stage(DIFFERENCE):
                register(connection, "versions_held", held, piece.days)
                self._compare(connection, self._newest(self._within(piece)), _LEAVING.format(key=self._key))
            yield from self._difference(connection)

    def _changed(
        self, connection: duckdb.DuckDBPyConnection, held: DeltaTable, pieces: list[_Piece], settled: frozenset[str]
    ) -> Iterator[pa.RecordBatch]:
        """What was written on the days of which all rows are among those held and those read: nothing is gone there."""
        for piece in pieces:
            if len(pieces) > 1:
                self._read_changes(connection, held, piece)
            others = f"DELETE FROM incoming WHERE NOT list_contains($settled, {self._partition()})"
            connection.execute(others, {"settled": sorted(settled)})
            self._note_rejected(connection, self._where_written(piece), settled)
            with stage(DIFFERENCE):
                self._compare(connection, "SELECT * FROM newest", "SELECT * FROM held WHERE false")
            yield from self._difference(connection)

    def _dated_days(self) -> Days | None:
        return days_of(self._changes.dated) if self._table.day_column else None

    def _numbers(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable, pieces: list[_Piece]) -> Counter[str]:
        """How many rows are held or were read, by partition. The last piece stays read."""
        register(connection, "versions_held", held, self._dated_days())
        names = {"partition": self._partition(), "day": self._day(), "key": self._key}
        numbers: Counter[str] = Counter()
        for partition, count in connection.execute(_HELD.format(**names)).fetchall():
            numbers[partition] += count
        for piece in pieces:
            self._read_changes(connection, held, piece)
            for partition, count in connection.execute(_NOT_HELD.format(**names)).fetchall():
                numbers[partition] += count
        return numbers

    def _uncertain(self, partitions: frozenset[str], numbers: Mapping[str, int]) -> frozenset[str]:
        """The partitions that have not as many rows in the source as are held or were read.

        If they have fewer, something is gone. If they have more, something is there that bears an old transaction id.
        """
        rows = {key: self._found.get(key, Fingerprint(0, "")).rows for key in partitions}
        return frozenset(key for key in partitions if numbers.get(key, 0) != rows[key])

    def _read_changes(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable, piece: _Piece) -> None:
        self._read_source(connection, self._where_written(piece))
        with stage(DIFFERENCE):
            register(connection, "versions_held", held, piece.days)
            keys = f"{self._key} IN (SELECT {self._key} FROM incoming)"
            connection.execute(f"CREATE OR REPLACE TEMP TABLE newest AS {self._newest(keys)}")

    def _difference(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        counts = f"SELECT {self._partition()}, {OPERATION}, count(*) FROM difference GROUP BY ALL"
        for partition, operation, count in connection.execute(counts).fetchall():
            self.counts[partition, operation] += count
        rows = engine.batches(connection.execute(f"SELECT {self._lake_columns()} FROM difference"))
        yield from timed(DIFFERENCE, rows)

    def _all_as_new(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        """The first capture: there is nothing to compare with, and every good row is passed on as it comes."""
        partitions = self._changes.stale
        if not partitions:
            return
        where = self._where(_Piece(days_of(partitions) if self._table.day_column else None))
        query, rule = self._source_query(where)
        stream = (
            f"SELECT {self._lake_columns()} FROM (SELECT * REPLACE (coalesce(_broken, {rule}) AS _broken), "
            f"'insert' AS {OPERATION}, (SELECT taken_at FROM capture_time) AS {RECORDED_AT}, "
            f"{self._incoming_day()} AS _day FROM ({READ}))"
        )
        bad = []
        for batch in timed(EXTRACT, engine.batches(connection.execute(stream, [query]))):
            broken = batch.column("_broken")
            if broken.null_count < len(broken):
                bad.append(batch.filter(broken.is_valid()).select([self._table.key, "_broken"]))
                batch = batch.filter(broken.is_null())
            if batch.num_rows:  # nothing but bad rows is nothing to commit
                yield batch
        if bad:
            connection.register("bad", pa.Table.from_batches(bad))
            connection.execute("CREATE OR REPLACE TEMP TABLE incoming AS SELECT * FROM bad")
            self._note_rejected(connection, where, partitions)
        rejected = dict(connection.execute("SELECT partition, count(*) FROM rejected GROUP BY 1").fetchall())
        for partition in partitions:
            rows = self._found.get(partition, Fingerprint(0, "")).rows
            self.counts[partition, "insert"] = rows - rejected.get(partition, 0)

    def _pieces(self, partitions: set[str]) -> Iterator[_Piece]:
        """Partitions to be read as a whole, cut by rows; a day that is too large by itself is cut by keys."""
        if not partitions:
            return
        rows = {key: self._found[key].rows for key in partitions if key in self._found}
        for days in chunks(days_of(partitions), rows, CHUNK_ROWS) if self._table.day_column else [None]:
            count = sum(rows.get(key, 0) for key in (days.keys if days else [WHOLE]))
            parts = max(1, -(-count // CHUNK_ROWS))
            yield from (_Piece(days, part, parts) for part in range(parts))

    def _pieces_of_changes(self) -> list[_Piece]:
        """Changes cut by keys, if they may be too many to be compared at once: then they are counted."""
        days, parts = self._dated_days(), 1
        if sum(self._found[key].rows for key in self._changes.dated if key in self._found) > CHUNK_ROWS:
            where = self._where_written(_Piece(days))
            query = f"SELECT count(*) FROM {self._relation} {where}"
            with stage(EXTRACT):
                parts = max(1, -(-self._snapshot.rows(query)[0][0] // CHUNK_ROWS))
        return [_Piece(days, part, parts) for part in range(parts)]

    def _read_source(self, connection: duckdb.DuckDBPyConnection, where: str) -> None:
        query, rule = self._source_query(where)
        with stage(EXTRACT):
            connection.execute(_INCOMING.format(rule=rule, day=self._incoming_day()), [query])

    def _note_rejected(
        self, connection: duckdb.DuckDBPyConnection, where: str, partitions: set[str] | frozenset[str]
    ) -> None:
        """Add the broken rows of ``incoming`` to the rejected, with their raw text."""
        key = self._key
        keys = connection.execute(f"SELECT {key} FROM incoming WHERE _broken IS NOT NULL").fetchall()
        if not keys:
            return
        if (None,) in keys:
            raise PlatformError(
                f'"{self._table.name}" has a row without {key}, by which rows are known. Nothing of it was captured: '
                "give every row of it one in ToteSys, then refresh."
            )
        if len(keys) <= _FEW_KEYS:
            where = f"WHERE {key} IN ({', '.join(str(row[0]) for row in keys)})"
        raw = (
            f"SELECT {key}::text AS row_key, {partition_sql(self._table, self._all_days)} AS partition, "
            f"{dead_letters.source_raw(self._table, self._snapshot.encoding)} AS raw FROM {self._relation} AS t {where}"
        )
        connection.execute(_REJECTED.format(key=key), [raw, sorted(partitions)])

    # The statements' parts

    @property
    def _key(self) -> str:
        return quoted(self._table.key)

    def _day(self) -> str:
        """DuckDB expression of a good row's day; one and the same for all rows of a table that is one set."""
        column = self._table.day_column
        return f"CAST({quoted(column)} AS DATE)" if column else "DATE '0001-01-01'"

    def _incoming_day(self) -> str:
        """DuckDB expression of an incoming row's day; none where that has no partition.

        That is for the source to say: a time of the far past or future reaches DuckDB as any other.
        """
        if self._table.day_column is None:
            return self._day()
        return f"CASE WHEN NOT coalesce({dead_letters.is_outside(self._table)}, false) THEN {self._day()} END"

    def _lake_columns(self) -> str:
        return f"*, strftime(_day, '%Y-%m') AS {MONTH}" if self._table.day_column else "*"

    def _partition(self) -> str:
        """DuckDB expression of the partition that a row is examined with, of its ``_day``."""
        first = literal(self._all_days.first.isoformat())
        return f"coalesce(strftime(_day, '%Y-%m-%d'), {first})" if self._table.day_column else literal(WHOLE)

    def _source_query(self, where: str) -> tuple[str, str]:
        """What to ask of the source, and the rule that the engine adds: a broken row is named, the others are not."""
        encoding = self._snapshot.encoding
        columns = ", ".join(dead_letters.source_column(column, encoding) for column in self._table.columns)
        broken = dead_letters.first_broken(dead_letters.source_rules(self._table, self._all_days, encoding))
        rule = dead_letters.first_broken(dead_letters.engine_rules(self._table))
        return f"SELECT {columns}, {broken} AS _broken FROM {self._relation} {where}", rule

    def _where_written(self, piece: _Piece) -> str:
        """PostgreSQL condition of what may have been written since it was captured, and of the dead letters."""
        letters = ", ".join(sorted({key for key, partition in self._letters if partition in self._changes.dated}))
        written = f"({self._changes.written}{f' OR {self._key} IN ({letters})' if letters else ''})"
        conditions = [written, piece.of_key(self._key)]
        if piece.days is not None:  # between the first and the last is soon said; what is too much is left out later
            conditions.append(self._examined(DayRange(piece.days.first, piece.days.last)))
        return f"WHERE {' AND '.join(conditions)}"

    def _where(self, piece: _Piece) -> str:
        """PostgreSQL condition of all rows of a piece."""
        conditions = [piece.of_key(self._key)] + ([self._examined(piece.days)] if piece.days is not None else [])
        return f"WHERE {' AND '.join(conditions)}"

    def _examined(self, days: Days) -> str:
        return examined_sql(self._table, days, self._all_days)

    def _within(self, piece: _Piece) -> str:
        """DuckDB condition of the versions held of a piece."""
        ranges = piece.days.ranges if piece.days is not None else ()
        days = [f"_day BETWEEN DATE '{each.first}' AND DATE '{each.last}'" for each in ranges]
        return f"({' OR '.join(days) or 'true'}) AND {piece.of_key(self._key)}"

    def _newest(self, within: str) -> str:
        return _NEWEST.format(day=self._day(), key=self._key, within=within)

    def _compare(self, connection: duckdb.DuckDBPyConnection, held: str, leaving: str) -> None:
        columns = [quoted(column.name) for column in self._table.columns]
        statement = _DIFFERENCE.format(
            held=held,
            leaving=leaving,
            key=self._key,
            incoming_columns=", ".join(f"incoming.{name}" for name in columns),
            leaving_columns=", ".join(f"leaving.{name}" for name in columns),
            changed=" OR ".join(f"incoming.{name} IS DISTINCT FROM held.{name}" for name in columns),
        )
        connection.execute(statement)
