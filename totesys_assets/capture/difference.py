"""The difference between the source and the lake, appended to the lake as versions.

Belongs here: reading the rows of the days asked for, comparing them column by column with the newest versions held,
and committing what is new, changed or gone. Does not belong here: which days to ask for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets.capture import dead_letters
from totesys_assets.capture.changes import Changes, changes, ranges
from totesys_assets.capture.fingerprint import Fingerprint, fingerprints, is_structure, partition_sql, within_sql
from totesys_assets.capture.generation import reached, settle
from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.capture.registry import CAPTURED, drift_noted, note
from totesys_assets.catalogue.catalogue import MONTH, OPERATION, RECORDED_AT, Table, lake_schema
from totesys_assets.days import WHOLE, DayRange, chunks
from totesys_assets.errors import ConcurrentWriters, MassDeletion, StaleSnapshot
from totesys_assets.resources import engine
from totesys_assets.resources.engine import CHUNK_ROWS, literal, quoted
from totesys_assets.resources.lake import (
    INGESTION,
    RECORDED,
    REGISTRY,
    Lake,
    LostRace,
    append,
    conform,
    microseconds,
    moment_sql,
    newest_first,
    recorded_until,
    register,
)
from totesys_assets.resources.totesys import ALIAS, READ, Snapshot
from totesys_assets.stages import DIFFERENCE, EXTRACT, stage, timed

log = logging.getLogger(__name__)

_ATTEMPTS = 5
# No fingerprint is ever this: what was captured before the ledger was lost is compared anew.
_UNKNOWN = "unknown"
# A table of fewer rows than this may lose most of them without anybody being asked.
_MASS_DELETION_ROWS = 20
# Keys that may stand in a statement, one by one.
_FEW_KEYS = 1000

# The source's rows of some days, each with the first rule that it breaks, if any.
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

# Every row that the source has on a stale day is among those held and those read. Where these are as many as the source
# has, none is gone; elsewhere the keys tell. A row held alternates between insert and delete, so these need only be
# counted to know how many are there.
_NUMBERS = """
SELECT partition, sum(rows) FROM (
    SELECT {partition} AS partition, CASE _operation WHEN 'insert' THEN 1 WHEN 'delete' THEN -1 ELSE 0 END AS rows
    FROM (SELECT _operation, {day} AS _day FROM versions_held)
    UNION ALL
    SELECT {partition}, 1 FROM incoming ANTI JOIN (SELECT * FROM newest WHERE _operation <> 'delete') AS present
    ON present.{key} = incoming.{key} AND present._day = incoming._day
)
GROUP BY 1
"""

# The newest versions held, of each row on each day.
_NEWEST = """
SELECT * FROM (SELECT *, {day} AS _day FROM versions_held) AS versions WHERE {within}
QUALIFY row_number() OVER (PARTITION BY {key}, _day ORDER BY _recorded_at DESC) = 1
"""

# Which rows held are not there any more: where all rows of the days were read, and where some were.
_NOT_READ = """
SELECT * FROM held WHERE _operation <> 'delete'
    AND NOT EXISTS (SELECT 1 FROM incoming WHERE incoming.{key} = held.{key} AND incoming._day = held._day)
"""
_NOT_AMONG_KEYS = """
SELECT * FROM ({newest}) AS newest WHERE _operation <> 'delete'
    AND NOT EXISTS (SELECT 1 FROM source_keys WHERE row_key = newest.{key} AND source_keys._day = newest._day)
"""

# A row is known by its key within its day: should its created_at ever change, it leaves one day and joins another.
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
-- a row that turned bad is still there: its last good version stands
WHERE NOT EXISTS (SELECT 1 FROM incoming WHERE incoming.{key} = leaving.{key} AND incoming._broken IS NOT NULL)
"""


@dataclass(frozen=True)
class Captured:
    """What one capture of one table did: an entry for each of its partitions, changed or not."""

    entries: list[Entry]

    def total(self, name: str) -> int:
        """Sum of a count over the partitions: rows, inserted, updated, deleted or rejected."""
        return sum(getattr(entry, name) for entry in self.entries)

    @property
    def versions(self) -> int:
        """Versions added to the lake."""
        return self.total("inserted") + self.total("updated") + self.total("deleted")


def asset_name(table: Table) -> str:
    """Name of a source table's asset in the ledger."""
    return f"{INGESTION}/{table.name}"


def forgotten(lake: Lake, table: Table) -> dict[str, Entry]:
    """What the ledger would know of ``table``, had it not been lost: the partitions that hold rows, in unknown states.

    Without them, a day whose rows went while the ledger was lost would have neither a fingerprint nor an entry, and
    nobody would ask for it.
    """
    held = lake.find(INGESTION, table.name)
    if held is None:
        return {}
    day = f"strftime({quoted(table.day_column)}, '%Y-%m-%d')" if table.day_column else literal(WHOLE)
    connection = engine.connect()
    try:
        rows = connection.execute(
            f"SELECT partition, count(*) FROM (SELECT *, {day} AS partition FROM {register(connection, 'held', held)} "
            f"QUALIFY {newest_first([table.key, 'partition'])}) WHERE {OPERATION} <> 'delete' GROUP BY 1"
        ).fetchall()
    finally:
        connection.close()
    now = datetime.now(UTC)
    return {key: Entry(asset_name(table), key, _UNKNOWN, count, now, "") for key, count in rows}


def capture(
    snapshot: Snapshot,
    lake: Lake,
    table: Table,
    *,
    all_days: DayRange,
    days: DayRange | None,
    run_id: str,
    accept_deletions: bool = False,
    changes_only: bool = False,
) -> Captured:
    """Bring the lake's versions of ``table`` up to what ``snapshot`` shows, for ``days`` (None: the whole table).

    ``changes_only`` reads no more than may have been written since the last capture (changes.py); else every row of the
    days is compared.
    Data first, then the ledger. Doing it twice adds nothing. Raises WrongDatabase, SchemaDrift, MassDeletion,
    StaleSnapshot when another writer captured from a later snapshot, and ConcurrentWriters when other writers win five
    times in a row.
    """
    failed = f'Capture of "{table.name}" failed, and will be done again by the next refresh'
    ledger = Ledger(lake)
    snapshot = settle(ledger, snapshot)
    wanted = days if table.day_column else None
    with engine.readable_errors(failed), drift_noted(lake, snapshot, table):
        found = fingerprints(snapshot, table, all_days, wanted)
    if lake.find(INGESTION, table.name) is None:
        ledger.forget(asset_name(table), run_id)
    known = ledger.newest([asset_name(table)]).get(asset_name(table), {})
    if lake.find(REGISTRY) is None or not any(is_structure(snapshot, table, each.state) for each in known.values()):
        note(lake, snapshot, table, CAPTURED)
    lost = {} if known else forgotten(lake, table)
    known = known or lost
    partitions = wanted.keys if wanted is not None else [WHOLE]
    if not accept_deletions:
        rows = {key: entry.rows for key, entry in known.items()}
        now = dict.fromkeys(partitions, 0) | {key: each.rows for key, each in found.items()}
        if not changes_only and any(now[key] < rows.get(key, 0) for key in partitions):
            # A day that was emptied, or a table? Only a look at all days tells.
            with engine.readable_errors(failed):
                everything = fingerprints(snapshot, table, all_days)
            now = dict.fromkeys(rows, 0) | {key: each.rows for key, each in everything.items()}
        _refuse_mass_deletion(table, sum(rows.values()), sum((rows | now).values()))
    written = changes(snapshot, table, partitions, found, known) if changes_only else None
    for _ in range(_ATTEMPTS):
        comparison = _Comparison(snapshot, lake, table, all_days, wanted, found, written)
        with engine.readable_errors(failed):
            try:
                comparison.commit()
            except LostRace:
                log.info("%s: another refresh committed first; comparing again", table.name)
                continue
        captured = Captured(comparison.entries(run_id, known))
        # Nothing new to say about a partition is not said again.
        new = {
            entry.partition: entry
            for entry in captured.entries
            if entry.missed or entry.state != _state(known, entry.partition)
        }
        if lost or new:
            ledger.append([*(lost | new).values(), reached(snapshot, run_id)])
        return captured
    raise ConcurrentWriters(
        f'Other refreshes committed to "{table.name}" {_ATTEMPTS} times while this one compared it. '
        "Nothing is lost; refresh again."
    )


def _state(known: Mapping[str, Entry], partition: str) -> str:
    return known[partition].state if partition in known else ""


def _refuse_mass_deletion(table: Table, before: int, now: int) -> None:
    if before >= _MASS_DELETION_ROWS and now < before / 2:
        raise MassDeletion(
            f'"{table.name}" had {before:,} rows and now has {now:,}: a wrong database, a truncated table or lost '
            "rights. Nothing of it was captured. If the rows were meant to go: totesys refresh --accept-deletions."
        )


class _Comparison:
    """One table against one state of the lake: computed once, committed once or thrown away."""

    def __init__(
        self,
        snapshot: Snapshot,
        lake: Lake,
        table: Table,
        all_days: DayRange,
        days: DayRange | None,
        found: dict[str, Fingerprint],
        changes: Changes | None,
    ) -> None:
        self._snapshot, self._lake, self._table = snapshot, lake, table
        self._relation = snapshot.relation(table)
        self._all_days, self._days, self._found = all_days, days, found
        # Dead letters are looked at again even if nobody touched them: a rule or the calendar may have moved on.
        self._dead = dead_letters.open_keys(lake, table) if changes is not None else []
        self._changes = changes if len(self._dead) <= _FEW_KEYS else None
        self._counts: Counter[tuple[str, str]] = Counter()

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
            self._counts[partition, "rejected"] = count
        for attempt in range(_ATTEMPTS):
            try:
                dead_letters.keep(connection, self._lake, self._table, self._partitions())
                return
            except LostRace:
                if attempt == _ATTEMPTS - 1:
                    raise

    def _partitions(self) -> list[str]:
        return self._days.keys if self._days is not None else [WHOLE]

    def _versions(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable) -> Iterator[pa.RecordBatch]:
        """Batches of versions to append, so that no whole table is ever in memory."""
        if not held.file_uris():
            yield from self._all_as_new(connection)
        elif self._changes is not None:
            self._read_source(connection, self._where_changed(self._changes), self._partitions())
            with stage(DIFFERENCE):
                self._compare_changes(connection, held, self._changes)
            yield from self._difference(connection)
        else:
            rows = {partition: fingerprint.rows for partition, fingerprint in self._found.items()}
            for piece in chunks(self._days, rows, CHUNK_ROWS) if self._days is not None else [None]:
                self._read_source(connection, self._where(piece), piece.keys if piece else [WHOLE])
                with stage(DIFFERENCE):
                    self._compare(connection, held, piece)
                yield from self._difference(connection)

    def _difference(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        counts = f"SELECT {self._partition()}, {OPERATION}, count(*) FROM difference GROUP BY ALL"
        for partition, operation, count in connection.execute(counts).fetchall():
            self._counts[partition, operation] += count
        rows = engine.batches(connection.execute(f"SELECT {self._lake_columns()} FROM difference"))
        yield from timed(DIFFERENCE, rows)

    def _all_as_new(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        """The first capture: there is nothing to compare with, and every good row is passed on as it comes."""
        query, rule = self._source_query(self._where(self._days))
        stream = (
            f"SELECT {self._lake_columns()} FROM (SELECT * REPLACE (coalesce(_broken, {rule}) AS _broken), "
            f"'insert' AS {OPERATION}, (SELECT taken_at FROM capture_time) AS {RECORDED_AT}, {self._day()} AS _day "
            f"FROM ({READ}))"
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
            self._note_rejected(connection, self._where(self._days), self._partitions())
        rejected = dict(connection.execute("SELECT partition, count(*) FROM rejected GROUP BY 1").fetchall())
        for partition in self._partitions():
            rows = self._found.get(partition, Fingerprint(0, "")).rows
            self._counts[partition, "insert"] = rows - rejected.get(partition, 0)

    def _day(self) -> str:
        """DuckDB expression of a row's day; one and the same for all rows of a table that is one set."""
        column = self._table.day_column
        return f"CAST({quoted(column)} AS DATE)" if column else "DATE '0001-01-01'"

    def _lake_columns(self) -> str:
        return f"*, strftime(_day, '%Y-%m') AS {MONTH}" if self._table.day_column else "*"

    def _partition(self) -> str:
        """DuckDB expression of a row's partition, of its ``_day``."""
        return "strftime(_day, '%Y-%m-%d')" if self._table.day_column else literal(WHOLE)

    def _source_query(self, where: str) -> tuple[str, str]:
        """What to ask of the source, and the rule that the engine adds: a broken row is named, the others are not."""
        columns = ", ".join(
            quoted(column.name) + (f"::text AS {quoted(column.name)}" if column.labels else "")
            for column in self._table.columns
        )
        broken = dead_letters.first_broken(dead_letters.source_rules(self._table, self._all_days))
        rule = dead_letters.first_broken(dead_letters.engine_rules(self._table))
        return f"SELECT {columns}, {broken} AS _broken FROM {self._relation} {where}", rule

    def _read_source(self, connection: duckdb.DuckDBPyConnection, where: str, partitions: list[str]) -> None:
        query, rule = self._source_query(where)
        with stage(EXTRACT):
            connection.execute(_INCOMING.format(rule=rule, day=self._day()), [query])
        if connection.execute("SELECT count(_broken) FROM incoming").fetchone() != (0,):
            self._note_rejected(connection, where, partitions)

    def _note_rejected(self, connection: duckdb.DuckDBPyConnection, where: str, partitions: list[str]) -> None:
        """Add the broken rows of ``incoming`` to the rejected, with their raw text."""
        key = quoted(self._table.key)
        keys = connection.execute(f"SELECT {key} FROM incoming WHERE _broken IS NOT NULL").fetchall()
        if len(keys) <= _FEW_KEYS:
            where = f"WHERE {key} IN ({', '.join(str(row[0]) for row in keys)})"
        raw = (
            f"SELECT {key}::text AS row_key, {partition_sql(self._table, self._all_days)} AS partition, "
            f"row_to_json(t)::text AS raw FROM {self._relation} AS t {where}"
        )
        connection.execute(_REJECTED.format(key=key), [raw, partitions])

    def _where_changed(self, changes: Changes) -> str:
        dead = ", ".join(self._dead)
        written = f"({changes.written} OR {quoted(self._table.key)} IN ({dead}))" if dead else f"({changes.written})"
        if self._days is None:
            return f"WHERE {written}" if not changes.whole else ""
        whole = "".join(f" OR {self._between(each)}" for each in ranges(changes.whole))
        nowhere = f"{self._between(self._all_days)} IS NOT TRUE"
        return f"WHERE ({written} AND {self._between(self._days)}){whole} OR {nowhere}"

    def _compare_changes(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable, changes: Changes) -> None:
        register(connection, "versions_held", held, self._days)
        key, partition, stale = quoted(self._table.key), self._partition(), sorted(changes.stale)
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE newest AS {self._newest(f'{key} IN (SELECT {key} FROM incoming)')}"
        )
        numbers = connection.execute(_NUMBERS.format(key=key, day=self._day(), partition=partition)).fetchall()
        uncertain = self._uncertain(stale, dict(numbers))
        connection.execute(f"CREATE OR REPLACE TEMP TABLE source_keys AS {self._source_keys(uncertain)}")
        within = f"{partition} IN (SELECT unnest(CAST($uncertain AS VARCHAR[])))" if uncertain else "false"
        leaving = _NOT_AMONG_KEYS.format(key=key, newest=self._newest(within))
        parameters = {"uncertain": uncertain} if uncertain else {}
        connection.execute(self._difference_sql("SELECT * FROM newest", leaving), parameters)

    def _newest(self, within: str) -> str:
        return _NEWEST.format(day=self._day(), key=quoted(self._table.key), within=within)

    def _uncertain(self, partitions: list[str], counts: Mapping[str, int]) -> list[str]:
        """The partitions that have not as many rows in the source as are held or were read: something is gone."""
        return [each for each in partitions if counts.get(each, 0) != self._found.get(each, Fingerprint(0, "")).rows]

    def _source_keys(self, partitions: list[str]) -> str:
        """DuckDB query of the keys that the source has on some partitions."""
        if not partitions:
            return "SELECT NULL::INT AS row_key, NULL::DATE AS _day WHERE false"
        where = " OR ".join(self._between(each) for each in ranges(frozenset(partitions))) or "true"
        day = quoted(self._table.day_column) if self._table.day_column else "NULL"
        keys = f"SELECT {quoted(self._table.key)} AS row_key, {day}::date AS _day FROM {self._relation}"
        own = "_day" if self._table.day_column else self._day()
        return f"SELECT row_key, {own} AS _day FROM postgres_query('{ALIAS}', {literal(f'{keys} WHERE {where}')})"

    def _where(self, piece: DayRange | None) -> str:
        """PostgreSQL condition of the rows created in ``piece``, and of those that belong to no day at all.

        The latter are dead letters of the first day; but one that left a day of ``piece`` is not gone from there.
        """
        if piece is None:
            return ""
        return f"WHERE {self._between(piece)} OR {self._between(self._all_days)} IS NOT TRUE"

    def _between(self, days: DayRange) -> str:
        return within_sql(self._table, days)

    def _compare(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable, piece: DayRange | None) -> None:
        register(connection, "versions_held", held, piece)
        within = f"_day BETWEEN DATE '{piece.first}' AND DATE '{piece.last}'" if piece else "true"
        leaving = _NOT_READ.format(key=quoted(self._table.key))
        connection.execute(self._difference_sql(self._newest(within), leaving))

    def _difference_sql(self, held: str, leaving: str) -> str:
        columns = [quoted(column.name) for column in self._table.columns]
        return _DIFFERENCE.format(
            held=held,
            leaving=leaving,
            key=quoted(self._table.key),
            incoming_columns=", ".join(f"incoming.{name}" for name in columns),
            leaving_columns=", ".join(f"leaving.{name}" for name in columns),
            changed=" OR ".join(f"incoming.{name} IS DISTINCT FROM held.{name}" for name in columns),
        )

    def entries(self, run_id: str, known: Mapping[str, Entry]) -> list[Entry]:
        """What to write in the ledger, for every partition that was compared; ``known`` is what it says so far."""
        return [self._entry(partition, run_id, known) for partition in self._partitions()]

    def _entry(self, partition: str, run_id: str, known: Mapping[str, Entry]) -> Entry:
        fingerprint = self._found.get(partition, Fingerprint(0, ""))
        inserted, updated, deleted = (self._counts[partition, each] for each in ("insert", "update", "delete"))
        return Entry(
            asset=asset_name(self._table),
            partition=partition,
            state=fingerprint.state,
            rows=fingerprint.rows,
            recorded_at=self._snapshot.taken_at.replace(tzinfo=UTC),
            run_id=run_id,
            inserted=inserted,
            updated=updated,
            deleted=deleted,
            rejected=self._counts[partition, "rejected"],
            # Versions where the fingerprint has stayed the same: what only a comparison of content finds.
            missed=inserted + updated + deleted if fingerprint.state == _state(known, partition) else 0,
            anchor=self._snapshot.xmin,
        )
