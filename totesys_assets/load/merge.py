"""Loading a star table: staged, then merged on its key, in one transaction that also notes what was loaded.

Belongs here: the statements of the merge. Facts are only ever inserted, dimensions are brought up to date and never
lose a row. Does not belong here: the tables' definition, which is the catalogue's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
from deltalake import DeltaTable

from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import RECORDED_AT, Table
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.errors import PlatformError
from totesys_assets.resources import engine
from totesys_assets.resources.engine import literal, quoted
from totesys_assets.resources.lake import PROCESSED, Lake, bounds, lies_within, moment_sql, present_first, register
from totesys_assets.resources.warehouse import ALIAS, Warehouse, run
from totesys_assets.resources.warehouse_notes import NEWEST
from totesys_assets.stages import LOAD, stage
from totesys_assets.transform.build import asset_name, built_from

# Distinct keys that are counted at once: 100 MB.
_KEYS_AT_ONCE = 2_000_000
# Numbers are drawn only for rows that are new, in the order in which they were recorded; of one instant, a departure
# from a day comes before the arrival at another, then by month and key.
_ORDER = "_recorded_at, _operation <> 'delete', date_trunc('month', created_date), {key}"
_INSERT_FACTS = """
INSERT INTO {table} ({columns})
SELECT {columns} FROM {staging} AS staged
WHERE NOT EXISTS (SELECT 1 FROM {table} AS held WHERE {same_version})
ORDER BY {order}
ON CONFLICT DO NOTHING
"""

# Of a row that moved to another day several states may be staged: a presence comes before a departure, the newer before
# the older. A dimension that is one set has one state per row, always the newest, whatever the clocks of ToteSys say.
_UPSERT_DIMENSION = """
INSERT INTO {table} AS held ({columns})
SELECT DISTINCT ON ({key}) {columns} FROM {staging} {order}
ON CONFLICT ({key}) DO UPDATE SET {assignments}
WHERE {overrides} ({held}) IS DISTINCT FROM ({excluded})
"""

# What comes from one day overrides what is held from another unless that is newer, and present, and still there. All
# days of a row that left one of those staged are staged too (_ROWS_AND_WHEREABOUTS): gone then, it is gone from all.
_OVERRIDES = """
(held._is_deleted OR excluded._is_deleted OR held.{day} = excluded.{day} OR held._recorded_at <= excluded._recorded_at
    OR EXISTS (SELECT 1 FROM {staging} AS gone
        WHERE gone.{key} = held.{key} AND gone.{day} = held.{day} AND gone._is_deleted)) AND
"""

# The rows of some days, and of those that left one of these days what other days know of them.
_ROWS_AND_WHEREABOUTS = """
(SELECT * FROM star_files WHERE {within}
UNION ALL
SELECT * FROM star_files_of_all_days WHERE NOT ({within})
    AND {key} IN (SELECT {key} FROM star_files WHERE {within} AND _is_deleted))
"""

_IS_EMPTY = "SELECT (NOT EXISTS (SELECT FROM {table}))::int"

# What this transaction did to the table, as PostgreSQL itself counts it.
_WRITTEN = "SELECT n_tup_ins + n_tup_upd FROM pg_stat_xact_all_tables WHERE relid = {table}::regclass"


@dataclass(frozen=True)
class Loaded:
    """What one load of one table did: rows per partition in the star, and rows written in the warehouse.

    Not ``needed``: what is one set was there already, row for row.
    """

    rows: dict[str, int]
    written: int
    needed: bool = True


def load(
    warehouse: Warehouse,
    lake: Lake,
    table: Table,
    *,
    days: Days | None,
    run_id: str,
    changes_only: bool = False,
) -> Loaded:
    """Bring the warehouse's ``table`` up to the lake's star table, for ``days`` (None: the whole table).

    ``changes_only``: what was loaded before is believed in; of a table to which rows are only ever added, those are
    loaded that were recorded since, on whatever day they are. Else all rows of the days are compared.
    One transaction: readers see all of it or nothing. Doing it twice changes nothing. Raises PlatformError.
    """
    warehouse.migrate()
    wanted = days if table.day_column else None
    with (
        stage(LOAD),
        engine.readable_errors(f'Loading "{table.name}" failed, and will be done again by the next refresh'),
        warehouse.transaction(table.name) as connection,
    ):
        # After the lock: what is read now is at least as new as what its last holder loaded.
        states = Ledger(lake).newest([asset_name(table)]).get(asset_name(table), {})
        star = lake.find(PROCESSED, table.name)
        if star is None:
            raise PlatformError(
                f'"{table.name}" was never built in this lake. '
                f"Materialise star/{table.name} first, or run: totesys refresh."
            )
        loaded = _loaded(connection, warehouse, table)
        whole = states.get(WHOLE)
        if changes_only and whole is not None and loaded.get(WHOLE) == (whole.content, whole.rows):
            return Loaded({WHOLE: whole.rows}, 0, needed=False)
        origin, until = _origin(star)
        since = _since(loaded, origin, until) if changes_only else None
        keys = wanted.keys if wanted is not None else [WHOLE]
        if since is None:
            rows = _rows_of_days(connection, star, table, wanted)
            covered = wanted is not None and table.day_column and lies_within(star, table.day_column, wanted)
        else:
            rows = (
                f"(SELECT * FROM {register(connection, 'star_files', star)} WHERE {RECORDED_AT} > {moment_sql(since)})"
            )
            keys, covered = [*dict.fromkeys([*keys, *states])], True
        entries = [states[key] for key in keys if key in states]
        one_per_key = not table.is_fact and not _is_doubled(connection, table, rows)
        written = merge(connection, warehouse, table, rows, _pieces(star, table), one_per_key=one_per_key)
        notes = {entry.partition: (entry.content, entry.rows) for entry in entries}
        if origin and covered:
            notes[NEWEST] = (f"{origin} {until}", 0)
        _note(connection, warehouse, table, notes, loaded, run_id)
    return Loaded({entry.partition: entry.rows for entry in entries}, written)


def _origin(star: DeltaTable) -> tuple[str, int]:
    """Which table of rows this is, and up to which moment it holds them; nothing where it cannot say so."""
    built = built_from(star)
    return (f"{star.metadata().id} {built[0]}", built[1]) if built else ("", 0)


def _since(loaded: Mapping[str, tuple[str, int]], origin: str, until: int) -> int | None:
    """Up to which moment the rows of ``origin`` are in the warehouse. None: not known."""
    noted, _, moment = loaded.get(NEWEST, ("", 0))[0].rpartition(" ")
    return int(moment) if origin and noted == origin and int(moment) <= until else None


def _loaded(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, table: Table) -> dict[str, tuple[str, int]]:
    """State and rows of every partition of ``table`` that the warehouse has noted."""
    columns, ledger = "partition, state, rows", f"{quoted(warehouse.schema)}._ledger"
    query = f"SELECT {columns} FROM {ledger} WHERE table_name = {literal(table.name)}"
    rows = connection.execute(f"SELECT * FROM postgres_query('{ALIAS}', ?)", [query]).fetchall()
    return {partition: (state, count) for partition, state, count in rows}


def _rows_of_days(connection: duckdb.DuckDBPyConnection, star: DeltaTable, table: Table, days: Days | None) -> str:
    """The star's rows of ``days``, as what an SQL FROM takes."""
    source = register(connection, "star_files", star, days)
    ranges = days.ranges if days is not None else ()
    conditions = [f"{table.day_column} BETWEEN DATE '{each.first}' AND DATE '{each.last}'" for each in ranges]
    within = f"({' OR '.join(conditions)})" if conditions else "true"
    if days is not None and not table.is_fact:
        gone = connection.execute(f"SELECT count(*) FROM {source} WHERE {within} AND _is_deleted").fetchone()
        if gone != (0,):
            register(connection, "star_files_of_all_days", star)
            return _ROWS_AND_WHEREABOUTS.format(within=within, key=quoted(table.key))
    return f"(SELECT * FROM {source} WHERE {within})"


def merge(
    connection: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    table: Table,
    rows: str,
    pieces: Sequence[str] = ("true",),
    *,
    one_per_key: bool = False,
) -> int:
    """Merge ``rows``, a table or query of DuckDB with the lake's columns, in the transaction of ``connection``.

    ``pieces``: conditions that cut the rows of a fact into pieces that may be loaded one after the other;
    ``one_per_key``: no dimension row is among them twice. Without either, they are read once.
    Returns the number of rows written: inserted or, in a dimension, changed.
    """
    in_warehouse = ", ".join(
        f"CAST({quoted(column.name)} AS TIME) AS {quoted(column.name)}"
        if column.type.startswith("time ")
        else quoted(column.name)
        for column in table.lake_columns
    )
    connection.execute(f"CREATE OR REPLACE TEMP VIEW star_rows AS SELECT {in_warehouse} FROM {rows} AS star")
    columns = ", ".join(quoted(column.name) for column in table.lake_columns)
    name = f"{quoted(warehouse.schema)}.{quoted(table.name)}"
    if _number(connection, _IS_EMPTY.format(table=name)):
        if table.is_fact:
            _fill_fact(connection, table, name, columns, pieces)
        else:
            _fill_dimension(connection, table, name, columns, one_per_key=one_per_key)
    else:
        types = ", ".join(f"{quoted(column.name)} {column.type}" for column in table.lake_columns)
        run(connection, f"CREATE TEMP TABLE {_staging(table)} ({types}) ON COMMIT DROP")
        connection.execute(f"INSERT INTO {ALIAS}.pg_temp.{_staging(table)} ({columns}) SELECT {columns} FROM star_rows")
        run(
            connection,
            _insert_facts(table, name, columns) if table.is_fact else _upsert_dimension(table, name, columns),
        )
    return _number(connection, _WRITTEN.format(table=literal(name)))


def _pieces(star: DeltaTable, table: Table) -> Sequence[str]:
    """Conditions that cut a fact's rows by month, where all were recorded at once: so they are not sorted at large."""
    recorded = bounds(star, RECORDED_AT)
    if not table.is_fact or recorded is None or recorded[0] != recorded[1]:
        return ("true",)
    days = bounds(star, str(table.day_column))
    months = DayRange(*days).by_month() if days is not None else ()
    return [f"created_date BETWEEN DATE '{month.first}' AND DATE '{month.last}'" for month in months]


def _is_doubled(connection: duckdb.DuckDBPyConnection, table: Table, rows: str) -> bool:
    """True when a key is on more than one day; to count costs less than to sort all rows by their keys.

    Keys are counted by their remainders, so that not all of them are in memory at once.
    """
    if table.day_column is None:
        return False
    count = connection.execute(f"SELECT count(*) FROM {rows} AS star").fetchall()[0][0]
    key, parts = quoted(table.key), 1 + count // _KEYS_AT_ONCE
    query = f"SELECT count(*) > count(DISTINCT {key}) FROM {rows} AS star WHERE hash({key}) % {parts} ="
    return any(connection.execute(f"{query} {part}").fetchone() == (True,) for part in range(parts))


def _fill_fact(
    connection: duckdb.DuckDBPyConnection, table: Table, name: str, columns: str, pieces: Sequence[str]
) -> None:
    """First load of an empty fact, which needs neither staging nor merge.

    Its keys stay: to build them behind the rows would save a sixth of the time, and shut out who reads meanwhile.
    """
    order = _ORDER.format(key=quoted(table.version_key[0]))
    for piece in pieces:
        rows = f"SELECT {columns} FROM star_rows WHERE {piece} ORDER BY {order}"
        connection.execute(f"INSERT INTO {ALIAS}.{name} ({columns}) {rows}")


def _fill_dimension(
    connection: duckdb.DuckDBPyConnection, table: Table, name: str, columns: str, *, one_per_key: bool
) -> None:
    """First load of an empty dimension. Its key stays, for facts refer to it."""
    rows = f"SELECT {columns} FROM star_rows"
    if not one_per_key and table.day_column:
        rows += f" QUALIFY {present_first(table.key, '_is_deleted', table.day_column)}"
    connection.execute(f"INSERT INTO {ALIAS}.{name} ({columns}) {rows}")


def _staging(table: Table) -> str:
    """Name of the temporary table: DuckDB remembers columns by name, so each table has its own."""
    return quoted(f"_staging_{table.name}")


def _insert_facts(table: Table, name: str, columns: str) -> str:
    return _INSERT_FACTS.format(
        table=name,
        columns=columns,
        staging=_staging(table),
        order=_ORDER.format(key=quoted(table.version_key[0])),
        same_version=" AND ".join(f"held.{quoted(part)} = staged.{quoted(part)}" for part in table.version_key),
    )


def _upsert_dimension(table: Table, name: str, columns: str) -> str:
    names = [quoted(column.name) for column in table.lake_columns]
    key, staging = quoted(table.key), _staging(table)
    order, overrides = f"ORDER BY {key}", ""
    if table.day_column:
        day = quoted(table.day_column)
        order = f"ORDER BY {key}, _is_deleted, _recorded_at DESC, {day} DESC"
        overrides = _OVERRIDES.format(key=key, day=day, staging=staging)
    return _UPSERT_DIMENSION.format(
        table=name,
        columns=columns,
        staging=staging,
        key=key,
        order=order,
        assignments=", ".join(f"{column} = excluded.{column}" for column in names if column != key),
        overrides=overrides,
        held=", ".join(f"held.{column}" for column in names),
        excluded=", ".join(f"excluded.{column}" for column in names),
    )


def _note(
    connection: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    table: Table,
    notes: Mapping[str, tuple[str, int]],
    loaded: Mapping[str, tuple[str, int]],
    run_id: str,
) -> None:
    """Write down the states and rows that were not noted before, in the same transaction as the rows."""
    new = {partition: note for partition, note in notes.items() if loaded.get(partition) != note}
    if not new:
        return
    values = ", ".join(
        f"({literal(table.name)}, {literal(partition)}, {literal(state)}, {rows}, {literal(run_id)})"
        for partition, (state, rows) in new.items()
    )
    ledger = f"{quoted(warehouse.schema)}._ledger"
    run(
        connection,
        f"INSERT INTO {ledger} (table_name, partition, state, rows, run_id) VALUES {values} "
        "ON CONFLICT (table_name, partition) DO UPDATE SET state = excluded.state, rows = excluded.rows, "
        "run_id = excluded.run_id, loaded_at = clock_timestamp()",
    )


def _number(connection: duckdb.DuckDBPyConnection, statement: str) -> int:
    row = connection.execute(f"SELECT * FROM postgres_query('{ALIAS}', ?)", [statement]).fetchone()
    return int(row[0]) if row else 0
