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
from totesys_assets.capture.fingerprint import Fingerprint, fingerprints, is_structure, partition_sql
from totesys_assets.capture.generation import reached, settle
from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.capture.registry import CAPTURED, drift_noted, note
from totesys_assets.catalogue.catalogue import MONTH, OPERATION, Table, lake_schema
from totesys_assets.days import WHOLE, DayRange, chunks
from totesys_assets.errors import ConcurrentWriters, MassDeletion, StaleSnapshot
from totesys_assets.resources import engine
from totesys_assets.resources.engine import BATCH_ROWS, CHUNK_ROWS, literal, quoted
from totesys_assets.resources.lake import INGESTION, REGISTRY, Lake, LostRace, append, conform, newest_first, register
from totesys_assets.resources.totesys import READ, Snapshot

log = logging.getLogger(__name__)

_ATTEMPTS = 5
# No fingerprint is ever this: what was captured before the ledger was lost is compared anew.
_UNKNOWN = "unknown"
# A table of fewer rows than this may lose most of them without anybody being asked.
_MASS_DELETION_ROWS = 20

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

# A row is known by its key within its day: should its created_at ever change, it leaves one day and joins another.
# A version is never dated before the one it follows, even if the source's clock was set back.
_DIFFERENCE = """
CREATE OR REPLACE TEMP TABLE difference AS
WITH held AS (
    SELECT *, {day} AS _day FROM versions_held {within}
    QUALIFY row_number() OVER (PARTITION BY {key}, _day ORDER BY _recorded_at DESC) = 1
)
SELECT {incoming_columns},
    CASE WHEN coalesce(held._operation, 'delete') = 'delete' THEN 'insert' ELSE 'update' END AS _operation,
    greatest(taken_at, held._recorded_at + INTERVAL 1 MICROSECOND) AS _recorded_at, incoming._day AS _day
FROM incoming LEFT JOIN held ON held.{key} = incoming.{key} AND held._day = incoming._day CROSS JOIN capture_time
WHERE incoming._broken IS NULL AND (coalesce(held._operation, 'delete') = 'delete' OR {changed})
UNION ALL
SELECT {held_columns}, 'delete', greatest(taken_at, held._recorded_at + INTERVAL 1 MICROSECOND), held._day
FROM held CROSS JOIN capture_time
WHERE held._operation <> 'delete'
    AND NOT EXISTS (SELECT 1 FROM incoming WHERE incoming.{key} = held.{key} AND incoming._day = held._day)
    -- a row that turned bad is still there: its last good version stands
    AND NOT EXISTS (SELECT 1 FROM incoming WHERE incoming.{key} = held.{key} AND incoming._broken IS NOT NULL)
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
) -> Captured:
    """Bring the lake's versions of ``table`` up to what ``snapshot`` shows, for ``days`` (None: the whole table).

    Data first, then the ledger. Doing it twice adds nothing. Raises WrongDatabase, SchemaDrift, MassDeletion,
    StaleSnapshot when another writer captured from a later snapshot, and ConcurrentWriters when other writers win five
    times in a row.
    """
    failed = f'Capture of "{table.name}" failed, and will be done again by the next refresh'
    ledger = Ledger(lake)
    snapshot = settle(ledger, snapshot)
    with engine.readable_errors(failed), drift_noted(lake, snapshot, table):
        found = fingerprints(snapshot, table, all_days)
    if lake.find(INGESTION, table.name) is None:
        ledger.forget(asset_name(table), run_id)
    known = ledger.newest([asset_name(table)]).get(asset_name(table), {})
    if lake.find(REGISTRY) is None or not any(is_structure(snapshot, table, each.state) for each in known.values()):
        note(lake, snapshot, table, CAPTURED)
    lost = {} if known else forgotten(lake, table)
    known = known or lost
    if not accept_deletions:
        _refuse_mass_deletion(table, found, known)
    wanted = days if table.day_column else None
    for _ in range(_ATTEMPTS):
        comparison = _Comparison(snapshot, lake, table, all_days, wanted, found)
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


def _refuse_mass_deletion(table: Table, found: dict[str, Fingerprint], known: dict[str, Entry]) -> None:
    before = sum(entry.rows for entry in known.values())
    now = sum(fingerprint.rows for fingerprint in found.values())
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
    ) -> None:
        self._snapshot, self._lake, self._table = snapshot, lake, table
        self._all_days, self._days, self._found = all_days, days, found
        self._counts: Counter[tuple[str, str]] = Counter()

    def commit(self) -> None:
        """Append versions, then dead letters, each behind its fence. Raises LostRace."""
        connection = self._snapshot.connection
        held = self._lake.open_versions(self._table)
        self._require_newest(held)
        schema = lake_schema(self._table, versioned=True)
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE capture_time AS SELECT CAST(? AS TIMESTAMPTZ) AS taken_at",
            [self._snapshot.taken_at.replace(tzinfo=UTC)],
        )
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE rejected (row_key VARCHAR, partition VARCHAR, broken VARCHAR, raw VARCHAR)"
        )
        batches = conform(self._versions(connection, held), schema)
        first = next(batches, None)
        if first is not None:  # no commit at all when there is nothing to say
            marks = {self._snapshot.lifetime: self._snapshot.order}
            append(held, chain([first], batches), schema, f"capture:{self._table.name}", marks)
        self._keep_dead_letters(connection)

    def _require_newest(self, held: DeltaTable) -> None:
        """Refuse to compare with versions from a later snapshot: what is new there would look gone or changed here."""
        if (held.transaction_version(self._snapshot.lifetime) or 0) > self._snapshot.order:
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
        """Batches of versions to append, piece by piece, so that no whole table is ever in memory."""
        rows = {partition: fingerprint.rows for partition, fingerprint in self._found.items()}
        pieces = chunks(self._days, rows, CHUNK_ROWS) if self._days is not None else [None]
        for piece in pieces:
            self._read_source(connection, piece)
            self._compare(connection, held, piece)
            yield from connection.execute(f"SELECT {self._lake_columns()} FROM difference").to_arrow_reader(BATCH_ROWS)

    def _day(self) -> str:
        """DuckDB expression of a row's day; one and the same for all rows of a table that is one set."""
        column = self._table.day_column
        return f"CAST({quoted(column)} AS DATE)" if column else "DATE '0001-01-01'"

    def _lake_columns(self) -> str:
        return f"*, strftime(_day, '%Y-%m') AS {MONTH}" if self._table.day_column else "*"

    def _read_source(self, connection: duckdb.DuckDBPyConnection, piece: DayRange | None) -> None:
        table, where = self._table, self._where(piece)
        columns = ", ".join(
            quoted(column.name) + (f"::text AS {quoted(column.name)}" if column.labels else "")
            for column in table.columns
        )
        broken = dead_letters.first_broken(dead_letters.source_rules(table, self._all_days))
        rule = dead_letters.first_broken(dead_letters.engine_rules(table))
        rows = f"SELECT {columns}, {broken} AS _broken FROM {quoted(table.name)} {where}"
        connection.execute(_INCOMING.format(rule=rule, day=self._day()), [rows])
        if connection.execute("SELECT count(_broken) FROM incoming").fetchone() != (0,):
            partition, key = partition_sql(table, self._all_days), quoted(table.key)
            raw = (
                f"SELECT {key}::text AS row_key, {partition} AS partition, row_to_json(t)::text AS raw "
                f"FROM {quoted(table.name)} AS t {where}"
            )
            connection.execute(_REJECTED.format(key=key), [raw, piece.keys if piece else [WHOLE]])

    def _where(self, piece: DayRange | None) -> str:
        """PostgreSQL condition of the rows created in ``piece``, and of those that belong to no day at all.

        The latter are dead letters of the first day; but one that left a day of ``piece`` is not gone from there.
        """
        if piece is None:
            return ""
        return f"WHERE {self._between(piece)} OR {self._between(self._all_days)} IS NOT TRUE"

    def _between(self, days: DayRange) -> str:
        column = quoted(str(self._table.day_column))
        return f"({column} >= {literal(days.first.isoformat())} AND {column} < {literal(days.end.isoformat())})"

    def _compare(self, connection: duckdb.DuckDBPyConnection, held: DeltaTable, piece: DayRange | None) -> None:
        register(connection, "versions_held", held, piece)
        table = self._table
        columns = [quoted(column.name) for column in table.columns]
        connection.execute(
            _DIFFERENCE.format(
                day=self._day(),
                within=f"WHERE _day BETWEEN DATE '{piece.first}' AND DATE '{piece.last}'" if piece else "",
                key=quoted(table.key),
                incoming_columns=", ".join(f"incoming.{name}" for name in columns),
                held_columns=", ".join(f"held.{name}" for name in columns),
                changed=" OR ".join(f"incoming.{name} IS DISTINCT FROM held.{name}" for name in columns),
            )
        )
        partition = "strftime(_day, '%Y-%m-%d')" if table.day_column else literal(WHOLE)
        counts = f"SELECT {partition}, {OPERATION}, count(*) FROM difference GROUP BY ALL"
        for day, operation, count in connection.execute(counts).fetchall():
            self._counts[day, operation] += count

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
        )
