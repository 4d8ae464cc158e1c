"""Merging rows into a warehouse table on its key: the statements.

Belongs here: facts are only ever inserted, dimensions are brought up to date and never lose a row, the days of a mart
are replaced. Does not belong here: which rows are merged, and the transaction (load.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.errors import PlatformError
from totesys_assets.lake.versions import present_first
from totesys_assets.load.staging import (
    create_staging,
    fill_staging,
    lake_column_names,
    record_order,
    show_rows,
    stage_gone,
    staging_name,
    upsert,
)
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.kept import kept_tables
from totesys_assets.warehouse.warehouse import ALIAS, Warehouse, rows, run

# A version that is there already is left out. A record's number that is taken is an error: its sequence was set back.
_INSERT_FACTS = """
INSERT INTO {table} ({columns})
SELECT {columns} FROM {staging} AS staged
WHERE NOT EXISTS (SELECT 1 FROM {table} AS held WHERE {same_version})
ORDER BY {order}
ON CONFLICT ({version}) DO NOTHING
"""

# What comes from one day overrides what is held from another unless that is newer, and present, and still there. All
# days of a row that left one of those staged are staged too (_ROWS_AND_WHEREABOUTS): gone then, it is gone from all.
_OVERRIDES = """
(held._is_deleted OR excluded._is_deleted OR held.{day} = excluded.{day} OR held._recorded_at <= excluded._recorded_at
    OR EXISTS (SELECT 1 FROM {staging} AS gone
        WHERE gone.{key} = held.{key} AND gone.{day} = held.{day} AND gone._is_deleted)) AND
"""

_IS_EMPTY = "SELECT (NOT EXISTS (SELECT FROM {table}))::int"

# Rows of a mart that its SELECT no longer gives. Those that it gives as they are held are not written again.
_GONE_FROM_MART = """
DELETE FROM {table} AS held
WHERE {within} AND NOT EXISTS (SELECT FROM {staging} AS staged WHERE {same_key})
"""
_GONE = "DELETE FROM {table} AS held USING {gone} AS staged WHERE {same_key}"

# From so many rows on, and a tenth of what is there, autovacuum would do it: a minute later, and never where a server
# runs for no longer than a refresh. Until then PostgreSQL takes a table for an empty one, and plans loops within loops:
# at the real size questions took up to three times as long. Where somebody else is at it, or the login is not the
# table's owner, it is left out, without a word. What triggers keep of these rows is analyzed with them.
_FEW_ROWS = 50
_TENTH = "SELECT greatest(reltuples, 0)::bigint / 10 FROM pg_class WHERE oid = {table}::regclass"
_ANALYZE = (
    "SET LOCAL client_min_messages = error; ANALYZE (SKIP_LOCKED) {tables}; SET LOCAL client_min_messages = warning"
)

# What this transaction did to the table and its partitions, as PostgreSQL itself counts it.
_WRITTEN = """
SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_xact_all_tables
WHERE relid = {table}::regclass OR relid IN (SELECT relid FROM pg_partition_tree({table}::regclass))
"""


def merge(
    connection: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    table: Table,
    rows: str,
    chunks: Sequence[str] = ("true",),
    *,
    one_per_key: bool = False,
    within: str = "true",
    gone: str | None = None,
) -> int:
    """Merge ``rows``, a table or query of DuckDB with the lake's columns, in the transaction of ``connection``.

    ``chunks``: conditions, each true for a part of the rows; into an empty table the parts are loaded one after the
    other. ``one_per_key``: no dimension row is among them twice. Without either, they are read once. ``within``:
    condition of the days of a mart that they replace. ``gone``: they replace none; but for these, a table or query of
    DuckDB with the keys, the mart has the other rows already.
    Returns the number of rows written: inserted, changed in a dimension or mart, or deleted from a mart.
    """
    show_rows(connection, table, rows)
    columns = ", ".join(lake_column_names(table))
    name = f"{quoted(warehouse.schema)}.{quoted(table.name)}"
    if _number(connection, _IS_EMPTY.format(table=name)):
        if table.is_fact:
            _fill_fact(connection, table, name, columns, chunks)
        else:
            _fill(connection, table, name, columns, chunks, one_per_key=one_per_key)
    else:
        create_staging(connection, table)
        fill_staging(connection, table, rows)
        if table.is_mart:
            replace_mart(connection, table, name, within, gone)
        else:
            run(connection, _insert_facts(table, name, columns) if table.is_fact else _upsert_dimension(table, name))
    count = written(connection, name)
    analyze_if_many(connection, warehouse, table, count)
    return count


def analyze_if_many(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, table: Table, count: int) -> None:
    """Let PostgreSQL look anew at a table, and at what triggers keep from it, if the ``count`` of new rows is large."""
    name = f"{quoted(warehouse.schema)}.{quoted(table.name)}"
    if count > _FEW_ROWS and count > _number(connection, _TENTH.format(table=literal(name))):
        analyze(connection, warehouse, [table.name, *kept_tables(table, warehouse.catalogue)])


def analyze(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, names: Sequence[str]) -> None:
    """Let PostgreSQL look at the tables of these names anew."""
    if names:
        tables = ", ".join(f"{quoted(warehouse.schema)}.{quoted(name)}" for name in names)
        run(connection, _ANALYZE.format(tables=tables))


def _fill_fact(
    connection: duckdb.DuckDBPyConnection, table: Table, name: str, columns: str, chunks: Sequence[str]
) -> None:
    """First load of an empty fact, which needs neither staging nor merge.

    Its keys stay in place: creating them after the rows would save a sixth of the time, but block readers.
    """
    order = record_order(table)
    for chunk in chunks:
        rows = f"SELECT {columns} FROM star_rows WHERE {chunk} ORDER BY {order}"
        connection.execute(f"INSERT INTO {ALIAS}.{name} ({columns}) {rows}")


def _fill(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    name: str,
    columns: str,
    chunks: Sequence[str],
    *,
    one_per_key: bool,
) -> None:
    """First load of an empty dimension or mart. Its key stays: facts refer to it, and it tells a mart's rows apart.

    Month by month, so that the key mostly grows at its end: its index takes half the time and size.
    """
    into = f"INSERT INTO {ALIAS}.{name} ({columns}) SELECT {columns} FROM star_rows"
    if not one_per_key and table.day_column and not table.is_mart:
        connection.execute(f"{into} QUALIFY {present_first([table.key], '_is_deleted', table.day_column)}")
        return
    for chunk in chunks:
        connection.execute(f"{into} WHERE {chunk}")


def _insert_facts(table: Table, name: str, columns: str) -> str:
    return _INSERT_FACTS.format(
        table=name,
        columns=columns,
        staging=staging_name(table),
        order=record_order(table),
        version=", ".join(map(quoted, table.version_key)),
        same_version=" AND ".join(f"held.{quoted(part)} = staged.{quoted(part)}" for part in table.version_key),
    )


def _upsert_dimension(table: Table, name: str) -> str:
    if not table.day_column:
        return upsert(table, name)
    key, day = quoted(table.key), quoted(table.day_column)
    return upsert(
        table,
        name,
        order=f"ORDER BY {key}, _is_deleted, _recorded_at DESC, {day} DESC",
        overrides=_OVERRIDES.format(key=key, day=day, staging=staging_name(table)),
    )


def replace_mart(
    connection: duckdb.DuckDBPyConnection, table: Table, name: str, within: str = "true", gone: str | None = None
) -> None:
    """Make the rows of mart ``name`` for which ``within`` is true those that are staged.

    Where ``gone`` is given, only rows with these keys are removed.
    """
    same_key = " AND ".join(f"held.{quoted(part)} = staged.{quoted(part)}" for part in table.primary_key)
    if gone is None:
        staging = staging_name(table)
        run(connection, _GONE_FROM_MART.format(table=name, within=within, staging=staging, same_key=same_key))
    elif (staged := stage_gone(connection, table, gone)) is not None:
        run(connection, _GONE.format(table=name, gone=staged, same_key=same_key))
    run(connection, upsert(table, name))


def require_distinct(connection: duckdb.DuckDBPyConnection, table: Table, rows: str) -> None:
    """Raise PlatformError where several rows of a mart have one key: none of them may be left out."""
    keys = ", ".join(quoted(part) for part in table.primary_key)
    query = f"SELECT {keys}, count(*) FROM {rows} AS mart GROUP BY ALL HAVING count(*) > 1 LIMIT 1"
    found = connection.execute(query).fetchone()
    if found is not None:
        *values, count = found
        key = ", ".join(f"{part} = {value}" for part, value in zip(table.primary_key, values, strict=True))
        raise PlatformError(
            f"marts/{table.name}.sql makes {count} rows with the same key ({key}), and nothing was loaded. Change the "
            "SELECT, or the primary key in catalogue/marts.sql, so that each row has a key of its own."
        )


def written(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    """How many rows this transaction has written to a table of the warehouse."""
    return _number(connection, _WRITTEN.format(table=literal(name)))


def _number(connection: duckdb.DuckDBPyConnection, statement: str) -> int:
    return int(str(rows(connection, statement)[0][0]))
