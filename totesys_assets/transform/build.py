"""Building a star table: its SELECT, run over the lake's versions, replaces the days asked for.

Belongs here: what the schemas ``history``, ``latest`` and ``reference`` hold, and the commit. Does not belong here:
what a star table is, which is its SQL.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.catalogue.catalogue import MONTH, OPERATION, RECORDED_AT, Catalogue, Table, lake_schema
from totesys_assets.catalogue.star import HISTORY, LATEST, REFERENCE, star_query
from totesys_assets.days import WHOLE, DayRange, chunks
from totesys_assets.errors import ConcurrentWriters
from totesys_assets.resources import engine
from totesys_assets.resources.engine import CHUNK_ROWS, quoted
from totesys_assets.resources.lake import (
    INGESTION,
    PROCESSED,
    Lake,
    LostRace,
    conform,
    newest_first,
    present_first,
    register,
    replace,
)

_ATTEMPTS = 5
States = Mapping[str, Mapping[str, Entry]]


@dataclass(frozen=True)
class Built:
    """What one build of one star table did: an entry for each of its partitions."""

    entries: list[Entry]

    @property
    def rows(self) -> int:
        """Rows that the partitions hold now."""
        return sum(entry.rows for entry in self.entries)


def asset_name(table: Table) -> str:
    """Name of a star table's asset in the ledger."""
    return f"{PROCESSED}/{table.name}"


def expected_states(table: Table, states: States) -> dict[str, str]:
    """State that each partition of star ``table`` has when built from its sources' ``states`` by its present SELECT.

    A partition without any source row has no state. A changed SELECT gives other states, so that it is run again.
    """
    query = star_query(table.name)
    inputs = {source: states.get(f"{INGESTION}/{source}", {}) for source in query.sources}
    if table.day_column:
        keys = {key for entries in inputs.values() for key, entry in entries.items() if entry.state}
        return {
            key: _digest(query.sql, *(entries[key].content if key in entries else "" for entries in inputs.values()))
            for key in keys
        }
    listed = [
        f"{source} {key} {entry.content}"
        for source, entries in inputs.items()
        for key, entry in sorted(entries.items())
        if entry.state
    ]
    return {WHOLE: _digest(query.sql, *listed)}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def build(lake: Lake, catalogue: Catalogue, table: Table, *, days: DayRange | None, run_id: str) -> Built:
    """Bring star ``table`` up to the lake's versions, for ``days`` (None: the whole table).

    Data first, then the ledger. Raises ConcurrentWriters when other writers win five times in a row.
    """
    wanted = days if table.day_column else None
    for _ in range(_ATTEMPTS):
        with engine.readable_errors(f'Building "{table.name}" failed, and will be done again by the next refresh'):
            try:
                return _build_once(lake, catalogue, table, wanted, run_id)
            except LostRace:
                continue
    raise ConcurrentWriters(
        f'Other refreshes committed to "{table.name}" {_ATTEMPTS} times while this one built it. '
        "Nothing is lost; refresh again."
    )


def _build_once(lake: Lake, catalogue: Catalogue, table: Table, days: DayRange | None, run_id: str) -> Built:
    # The order matters: the star's handle first, so that a faster build is noticed; then the states, so that what is
    # noted is never newer than what is read.
    ledger = Ledger(lake)
    if lake.find(PROCESSED, table.name) is None:
        ledger.forget(asset_name(table), run_id)
    target = lake.open_star(table)
    known = ledger.newest()
    expected = expected_states(table, known)
    query = star_query(table.name)
    sources = {name: lake.open_versions(catalogue.source[name]) for name in query.sources}
    rows: Counter[str] = Counter()
    for name in sources:
        rows.update({key: entry.rows for key, entry in known.get(f"{INGESTION}/{name}", {}).items()})
    counts: dict[str, int] = {}
    connection = engine.connect()
    try:
        batches = conform(_rows(connection, catalogue, table, days, sources, rows, counts), _schema(table))
        replace(target, batches, _schema(table), "build", _predicate(table, days))
    finally:
        connection.interrupt()
        connection.close()
    now = datetime.now(UTC)
    keys = days.keys if days is not None else [WHOLE]
    entries = [Entry(asset_name(table), key, expected.get(key, ""), counts.get(key, 0), now, run_id) for key in keys]
    before = known.get(asset_name(table), {})
    ledger.append(
        entry
        for entry in entries
        if entry.state != (before[entry.partition].state if entry.partition in before else "")
    )
    return Built(entries)


def _schema(table: Table) -> pa.Schema:
    return lake_schema(table, versioned=False)


def _predicate(table: Table, days: DayRange | None) -> str | None:
    if days is None:
        return None
    # The month says the same twice over; it lets delta-rs leave other folders alone.
    return (
        f"{table.day_column} >= '{days.first}' AND {table.day_column} <= '{days.last}' "
        f"AND {MONTH} >= '{days.months[0]}' AND {MONTH} <= '{days.months[-1]}'"
    )


def _rows(
    connection: duckdb.DuckDBPyConnection,
    catalogue: Catalogue,
    table: Table,
    days: DayRange | None,
    sources: Mapping[str, DeltaTable],
    rows: Mapping[str, int],
    counts: dict[str, int],
) -> Iterator[pa.RecordBatch]:
    """Batches of the star's rows, piece by piece; fills ``counts`` with rows per partition."""
    day = quoted(table.day_column) if table.day_column else None
    partition = f"strftime({day}, '%Y-%m-%d')" if day else f"'{WHOLE}'"
    month = f", strftime({day}, '%Y-%m') AS {MONTH}" if day else ""
    pieces: Iterator[DayRange | None] = chunks(days, rows, CHUNK_ROWS) if days is not None else iter([None])
    for piece in pieces:
        create_schemas(connection, catalogue, sources, piece)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE built AS {star_query(table.name).sql}")
        counts.update(connection.execute(f"SELECT {partition}, count(*) FROM built GROUP BY 1").fetchall())
        yield from engine.batches(connection.execute(f"SELECT *{month} FROM built"))


def warehouse_rows(table: Table) -> str:
    """The SELECT of what the warehouse holds of star ``table`` when all of it was loaded, over ``create_schemas``.

    A fact: every version. A dimension: one row for each key, wherever it has been: where it is, or was last.
    """
    rows = star_query(table.name).sql
    if table.is_fact or table.day_column is None:
        return rows
    return f"SELECT * FROM ({rows}) QUALIFY {present_first(table.key, '_is_deleted', table.day_column)}"


def create_schemas(
    connection: duckdb.DuckDBPyConnection,
    catalogue: Catalogue,
    sources: Mapping[str, DeltaTable],
    days: DayRange | None,
    *,
    as_of: datetime | None = None,
) -> None:
    """Give a star SELECT its schemas over some source tables: for partitioned ones, only the rows of ``days``.

    ``as_of`` (naive is UTC) leaves out what was recorded after it.

    ``history.<table>`` has all versions; ``latest.<table>`` the newest per key, the last known where the row is gone
    (facts still refer to it), and of a partitioned table the newest on each day that the row was on, so that a day's
    rows are the same whichever days are built with it; ``reference.iso_4217`` the names of currencies.
    """
    for schema in (HISTORY, LATEST, REFERENCE):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    for name, versions in sources.items():
        table = catalogue.source[name]
        columns = ", ".join(quoted(column) for column in (*table.by_name, OPERATION, RECORDED_AT))
        held = register(connection, f"versions_of_{name}", versions, days if table.day_column else None)
        conditions = ["true"]
        if days is not None and table.day_column:
            day = quoted(table.day_column)
            conditions.append(f"{day} >= TIMESTAMP '{days.first}' AND {day} < TIMESTAMP '{days.end}'")
        if as_of is not None:
            moment = as_of.astimezone(UTC) if as_of.tzinfo else as_of.replace(tzinfo=UTC)
            conditions.append(f"{RECORDED_AT} <= TIMESTAMPTZ '{moment.isoformat()}'")
        within = f"WHERE {' AND '.join(conditions)}"
        connection.execute(f"CREATE OR REPLACE VIEW {HISTORY}.{quoted(name)} AS SELECT {columns} FROM {held} {within}")
        connection.execute(
            f"CREATE OR REPLACE VIEW {LATEST}.{quoted(name)} AS "
            f"SELECT * FROM {HISTORY}.{quoted(name)} QUALIFY {newest_first([table.key], table.day_column)}"
        )
    _create_currency_names(connection)


def _create_currency_names(connection: duckdb.DuckDBPyConnection) -> None:
    import iso4217  # here: only dim_currency needs it

    names = pa.table(
        {
            "currency_code": [currency.code for currency in iso4217.Currency],
            "currency_name": [currency.currency_name for currency in iso4217.Currency],
        }
    )
    connection.register("currency_names", names)
    connection.execute(f"CREATE OR REPLACE VIEW {REFERENCE}.iso_4217 AS SELECT * FROM currency_names")
