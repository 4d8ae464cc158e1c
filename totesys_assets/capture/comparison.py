"""One table compared with one state of the lake: computed once, committed once or thrown away.

Belongs here: reading the rows of the partitions asked for, in chunks, comparing them column by column with the newest
versions held, and committing what is new, changed or gone. Does not belong here: which partitions to ask for, what the
ledger says of them, and the text of the statements (statements.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture import dead_letters
from totesys_assets.capture.beside import append_beside, committed, named, require_newest
from totesys_assets.capture.changes import Changes
from totesys_assets.capture.onward import Onward, append_first
from totesys_assets.capture.statements import Chunk, Statements
from totesys_assets.catalogue.catalogue import OPERATION, Table, lake_schema
from totesys_assets.days import WHOLE, DayRange, Days, chunks, days_of
from totesys_assets.engine import CHUNK_ROWS
from totesys_assets.errors import PlatformError, StaleSnapshot
from totesys_assets.lake.commit import LostRace, append
from totesys_assets.lake.conform import conform
from totesys_assets.lake.read import RECORDED, microseconds, moment_sql, recorded_until, register, rows_near
from totesys_assets.lake.tables import INGESTION, Lake
from totesys_assets.source.interface import Fingerprint, SourceSnapshot
from totesys_assets.source.rows import row_key
from totesys_assets.source.rules import cramp
from totesys_assets.stages import DIFFERENCE, EXTRACT, stage, timed

ATTEMPTS = 5
# Text that is compared at once: of 500,000 orders, 10 MB.
_PART_BYTES = 32_000_000
# Keys that may stand in a statement, one by one.
_FEW_KEYS = 1000


class Comparison:
    """One table of the source, and what is held of it. ``beside``: others may be capturing other days than these."""

    def __init__(
        self,
        snapshot: SourceSnapshot,
        lake: Lake,
        table: Table,
        all_days: DayRange,
        found: Mapping[str, Fingerprint],
        changes: Changes,
        onward: Onward | None = None,
        beside: Days | None = None,
    ) -> None:
        self._snapshot, self._lake, self._table = snapshot, lake, table
        self._all_days, self._found, self._onward, self._beside = all_days, found, onward, beside
        self._letters = dead_letters.open_keys(lake, table)
        # Dead letters are not held, and so must be read to know that they are still there.
        self._changes = changes if len(self._letters) <= _FEW_KEYS else changes.all_read()
        self._sql = Statements(snapshot, table, all_days, self._changes, self._letters)
        # The last commit of a capture to the lake before this one, and after it.
        self.before = self.committed = ""
        # Versions by partition and operation, and dead letters by partition.
        self.counts: Counter[tuple[str, str]] = Counter()

    def commit(self) -> None:
        """Append versions, then dead letters, each behind its fence. Raises LostRace.

        Raises StaleSnapshot where there is too much long text: in another snapshot, none of it is carried.
        """
        try:
            self._commit()
        except duckdb.Error as error:
            if not (engine.is_out_of_memory(error) and cramp(self._table.name)):
                raise
            said = f'"{self._table.name}" has too much long text. Nothing is lost; refresh again.'
            raise StaleSnapshot(said) from error

    def _commit(self) -> None:
        connection = self._snapshot.connection
        held = self._lake.open_versions(self._table)
        require_newest(self._snapshot, self._table, held, self._beside)
        self.before = self.committed = committed(held)
        schema = lake_schema(self._table, versioned=True)
        # Later than all that the table holds, even if the source's clock was set back: versions follow one another, and
        # what is made of them need only look at those recorded since.
        recorded_at = max(microseconds(self._snapshot.read_at(self._table)), recorded_until(held) + 1)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE capture_time AS SELECT {moment_sql(recorded_at)} AS taken_at")
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE rejected (row_key VARCHAR, partition VARCHAR, broken VARCHAR, raw VARCHAR)"
        )
        batches = conform(self._versions(connection, held), schema, self._table.day_column)
        first = next(batches, None)
        if first is not None:  # no commit at all when there is nothing to say
            batches = chain([first], batches)
            marks = {self._snapshot.lifetime: self._snapshot.order(self._table), RECORDED: recorded_at}
            into = (held, batches, schema, f"capture:{self._table.name}", marks)
            if self._beside is not None:
                done = append_beside(
                    self._snapshot, self._lake, self._table, held, batches, schema, recorded_at, self._beside
                )
                held, recorded_at, self.before = done.held, done.recorded_at, done.before
            elif held.file_uris():
                append(*into)
            else:
                append_first(
                    *into, self._onward, sum(self._found[key].rows for key in self._changes.stale & self._found.keys())
                )
            self.committed = named(held, recorded_at)
        self._lake.share(held, INGESTION, self._table.name)
        for letter in self._snapshot.refused(self._table, self._all_days):
            if letter[1] in self._changes.stale:
                connection.execute("INSERT INTO rejected VALUES (?, ?, ?, ?)", letter)
        self._keep_dead_letters(connection)

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

    # What is read, chunk by chunk, so that no whole table is ever in memory

    def _versions(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable) -> Iterator[pa.RecordBatch]:
        """Batches of versions to append."""
        beside = self._beside
        if not held.file_uris() or (beside is not None and not rows_near(held, beside, str(self._table.day_column))):
            yield from self._all_as_new(connection)
            return
        whole = set(self._changes.whole)
        if self._changes.dated:
            chunks = self._chunks_of_changes()
            uncertain = self._uncertain(self._changes.dated, self._numbers(connection, held, chunks))
            whole |= uncertain
            if certain := self._changes.dated - uncertain:
                yield from self._changed(connection, held, chunks, certain)
        for chunk in self._chunks(whole):
            self._read_source(connection, self._sql.where(chunk))
            self._note_rejected(connection, self._sql.where(chunk), whole)
            register(connection, "versions_held", held, chunk.days, column=self._table.day_column)
            for part in self._parts(connection):
                newest = self._sql.newest(f"{self._sql.within(chunk)} AND {part}")
                with stage(DIFFERENCE):
                    connection.execute(self._sql.difference(newest, self._sql.leaving(), part))
                yield from self._difference(connection)

    def _parts(self, connection: duckdb.DuckDBPyConnection) -> list[str]:
        """Conditions of keys that cut ``incoming`` into parts of so much text that they can be compared."""
        ((size,),) = connection.execute(self._sql.text_bytes()).fetchall()
        count = 1 + int(size) // _PART_BYTES
        return [f"hash({self._sql.keys}) % {count} = {each}" for each in range(count)] if count > 1 else ["true"]

    def _changed(
        self, connection: duckdb.DuckDBPyConnection, held: DeltaTable, chunks: list[Chunk], certain: frozenset[str]
    ) -> Iterator[pa.RecordBatch]:
        """Versions of the written rows, on days where no row was deleted: all rows are held or were read."""
        for chunk in chunks:
            if len(chunks) > 1:
                self._read_changes(connection, held, chunk)
            others = f"DELETE FROM incoming WHERE NOT list_contains($certain, {self._sql.partition()})"
            connection.execute(others, {"certain": sorted(certain)})
            self._note_rejected(connection, self._sql.where_written(chunk), certain)
            for part in self._parts(connection):
                with stage(DIFFERENCE):
                    difference = self._sql.difference("SELECT * FROM newest", "SELECT * FROM held WHERE false", part)
                    connection.execute(difference)
                yield from self._difference(connection)

    def _dated_days(self) -> Days | None:
        return days_of(self._changes.dated) if self._table.day_column else None

    def _numbers(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable, chunks: list[Chunk]) -> Counter[str]:
        """How many rows are held or were read, by partition. The last chunk stays read."""
        register(connection, "versions_held", held, self._dated_days(), column=self._table.day_column)
        numbers: Counter[str] = Counter()
        for partition, count in connection.execute(self._sql.rows_held()).fetchall():
            numbers[partition] += count
        for chunk in chunks:
            self._read_changes(connection, held, chunk)
            for partition, count in connection.execute(self._sql.rows_not_held()).fetchall():
                numbers[partition] += count
        return numbers

    def _uncertain(self, partitions: frozenset[str], numbers: Mapping[str, int]) -> frozenset[str]:
        """The partitions that have not as many rows in the source as are held or were read.

        If they have fewer, something is gone. If they have more, something is there that bears an old transaction id.
        """
        rows = {key: self._found.get(key, Fingerprint(0, "")).rows for key in partitions}
        return frozenset(key for key in partitions if numbers.get(key, 0) != rows[key])

    def _read_changes(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable, chunk: Chunk) -> None:
        self._read_source(connection, self._sql.where_written(chunk))
        with stage(DIFFERENCE):
            register(connection, "versions_held", held, chunk.days, column=self._table.day_column)
            keys = f"({self._sql.keys}) IN (SELECT ({self._sql.keys}) FROM incoming)"
            for number, part in enumerate(self._parts(connection)):
                into = "INSERT INTO newest" if number else "CREATE OR REPLACE TEMP TABLE newest AS"
                connection.execute(f"{into} {self._sql.newest(f'{keys} AND {part}')}")

    def _difference(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        counts = f"SELECT {self._sql.partition()}, {OPERATION}, count(*) FROM difference GROUP BY ALL"
        for partition, operation, count in connection.execute(counts).fetchall():
            self.counts[partition, operation] += count
        rows = engine.batches(connection.execute(f"SELECT {self._sql.lake_columns()} FROM difference"))
        yield from timed(DIFFERENCE, rows)

    def _all_as_new(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        """The first capture, or that of days of which nothing is held: every good row is passed on as it comes."""
        partitions = self._changes.stale
        if not partitions:
            return
        where = self._sql.where(Chunk(days_of(partitions) if self._table.day_column else None))
        bad, passed = [], Counter[str]()
        for batch in timed(EXTRACT, engine.batches(connection.execute(self._sql.first_capture(where)))):
            broken = batch.column("_broken")
            if broken.null_count < len(broken):
                bad.append(batch.filter(broken.is_valid()).select([*self._table.primary_key, "_broken", "_day"]))
                batch = batch.filter(broken.is_null())
            if batch.num_rows:  # nothing but bad rows is nothing to commit
                if self._sql.may_double:
                    passed.update(self._by_partition(batch))
                yield batch
        if bad:
            connection.register("bad", pa.Table.from_batches(bad))
            connection.execute("CREATE OR REPLACE TEMP TABLE incoming AS SELECT * FROM bad")
            self._note_rejected(connection, where, partitions)
        rejected = dict(connection.execute("SELECT partition, count(*) FROM rejected GROUP BY 1").fetchall())
        for partition in partitions:
            rows = self._found.get(partition, Fingerprint(0, "")).rows - rejected.get(partition, 0)
            self.counts[partition, "insert"] = passed[partition] if self._sql.may_double else rows

    def _by_partition(self, batch: pa.RecordBatch) -> dict[str, int]:
        """How many rows of a batch are of each partition."""
        if not self._table.day_column:
            return {WHOLE: batch.num_rows}
        counted = pc.value_counts(batch.column("_day"))
        return {str(day): count for day, count in zip(*map(pa.Array.to_pylist, counted.flatten()), strict=True)}

    def _chunks(self, partitions: set[str]) -> Iterator[Chunk]:
        """Partitions to be read as a whole, cut by rows; a day that is too large by itself is cut by keys."""
        if not partitions:
            return
        rows = {key: self._found[key].rows for key in partitions if key in self._found}
        for days in chunks(days_of(partitions), rows, CHUNK_ROWS) if self._table.day_column else [None]:
            count = sum(rows.get(key, 0) for key in (days.keys if days else [WHOLE]))
            parts = max(1, -(-count // CHUNK_ROWS)) if self._sql.is_numbered else 1
            yield from (Chunk(days, part, parts) for part in range(parts))

    def _chunks_of_changes(self) -> list[Chunk]:
        """Changes cut by keys, if they may be too many to be compared at once: then they are counted."""
        days, parts = self._dated_days(), 1
        if (
            self._sql.is_numbered
            and sum(self._found[key].rows for key in self._changes.dated if key in self._found) > CHUNK_ROWS
        ):
            where = self._sql.where_written(Chunk(days))
            query = f"SELECT count(*) FROM {self._sql.relation} {where}"
            with stage(EXTRACT):
                parts = max(1, -(-self._snapshot.rows(query)[0][0] // CHUNK_ROWS))
        return [Chunk(days, part, parts) for part in range(parts)]

    def _read_source(self, connection: duckdb.DuckDBPyConnection, where: str) -> None:
        with stage(EXTRACT):
            connection.execute(self._sql.incoming(where))

    def _note_rejected(
        self, connection: duckdb.DuckDBPyConnection, where: str, partitions: set[str] | frozenset[str]
    ) -> None:
        """Add the broken rows of ``incoming`` to the rejected, with their raw text."""
        query = f"SELECT {row_key(self._table)} FROM incoming WHERE _broken IS NOT NULL"
        keys = [key for (key,) in connection.execute(query).fetchall()]
        if not keys:
            return
        if None in keys:
            raise PlatformError(
                f'"{self._table.name}" has a row without {self._sql.keys}, by which rows are known. Nothing of it was '
                "captured: give every row of it one in its source, then refresh."
            )
        if len(keys) <= _FEW_KEYS:
            where = f"WHERE {self._sql.of_keys(keys)}"
        connection.execute(self._sql.rejected(where), [sorted(partitions)])
