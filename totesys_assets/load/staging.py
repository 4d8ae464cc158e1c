"""Rows of the lake in a temporary table of the warehouse, and bringing a dimension or mart up to date from there.

Belongs here: the staging table, and what loads and adoptions do alike with it. Does not belong here: which rows are
staged.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

import duckdb

from totesys_assets.catalogue.catalogue import Column, Table
from totesys_assets.sql_text import quoted
from totesys_assets.warehouse.warehouse import ALIAS, rows, run

# Numbers are drawn only for rows that are new, in the order in which they were recorded; of one instant, a departure
# from a day comes before the arrival at another, then by month and key.
_ORDER = "_recorded_at, _operation <> 'delete', date_trunc('month', {day}), {key}"

# Of a row that moved to another day several states may be staged: a presence comes before a departure, the newer before
# the older. A dimension that is one set has one state per row, always the newest, whatever the clocks of ToteSys say.
_UPSERT = """
INSERT INTO {table} AS held ({columns})
SELECT DISTINCT ON ({key}) {columns} FROM {staging} {order}
ON CONFLICT ({key}) DO UPDATE SET {assignments}
WHERE {overrides} ({held}) IS DISTINCT FROM ({excluded})
"""


# The temporary schema that each session last had, by PostgreSQL's number.
_TEMPORARY: WeakKeyDictionary[duckdb.DuckDBPyConnection, object] = WeakKeyDictionary()


def record_order(fact: Table) -> str:
    """The order in which records get their numbers, for DuckDB and PostgreSQL."""
    return _ORDER.format(day=quoted(str(fact.day_column)), key=quoted(fact.version_key[0]))


def lake_column_names(table: Table) -> list[str]:
    """The columns that come from the lake, quoted."""
    return [quoted(column.name) for column in table.lake_columns]


def show_rows(connection: duckdb.DuckDBPyConnection, table: Table, source: str) -> None:
    """Make ``source``, a table or query with the lake's columns, the view ``star_rows`` in PostgreSQL's types."""
    columns = _in_warehouse(table.lake_columns)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW star_rows AS SELECT {columns} FROM {source} AS star")


def _in_warehouse(columns: Iterable[Column]) -> str:
    return ", ".join(
        f"CAST({quoted(column.name)} AS TIME) AS {quoted(column.name)}"
        if column.type.startswith("time ")
        else quoted(column.name)
        for column in columns
    )


def staging_name(table: Table) -> str:
    """Name of the temporary table: DuckDB remembers columns by name, so each table has its own."""
    return quoted(f"_staging_{table.name}")


def create_staging(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Make the temporary table; it ends with the transaction."""
    _create(connection, staging_name(table), table.lake_columns)


def stage_gone(connection: duckdb.DuckDBPyConnection, mart: Table, keys: str) -> str | None:
    """Put ``keys``, a table or query of DuckDB with a mart's key, into another temporary table. None if it is empty."""
    if connection.execute(f"SELECT 1 FROM {keys} LIMIT 1").fetchone() is None:
        return None
    name, columns = quoted(f"_gone_{mart.name}"), [mart.by_name[part] for part in mart.primary_key]
    _create(connection, name, columns)
    connection.execute(f"INSERT INTO {ALIAS}.pg_temp.{name} SELECT {_in_warehouse(columns)} FROM {keys}")
    return name


def _create(connection: duckdb.DuckDBPyConnection, name: str, columns: Iterable[Column]) -> None:
    types = ", ".join(f"{quoted(column.name)} {column.type}" for column in columns)
    run(connection, f"CREATE TEMP TABLE {name} ({types}) ON COMMIT DROP")
    # DuckDB reads PostgreSQL's whole catalogue once for each session, which takes longer than a small load. Later it
    # looks up a table that it does not know, but no schema. Behind a pooler, each transaction may have another
    # temporary schema.
    schema = rows(connection, "SELECT pg_my_temp_schema()::bigint")
    if _TEMPORARY.get(connection) != schema:
        connection.execute("CALL pg_clear_cache()")
        _TEMPORARY[connection] = schema


def fill_staging(connection: duckdb.DuckDBPyConnection, table: Table, source: str) -> None:
    """Add the rows of ``source``, a table or query of DuckDB with the lake's columns."""
    show_rows(connection, table, source)
    columns = ", ".join(lake_column_names(table))
    connection.execute(f"INSERT INTO {ALIAS}.pg_temp.{staging_name(table)} ({columns}) SELECT {columns} FROM star_rows")


def upsert(table: Table, name: str, *, order: str = "", overrides: str = "") -> str:
    """Statement that brings a dimension or mart up to the staged rows; ``order`` decides between rows of one key."""
    names, keys = lake_column_names(table), [quoted(part) for part in table.primary_key]
    key = ", ".join(keys)
    return _UPSERT.format(
        table=name,
        columns=", ".join(names),
        staging=staging_name(table),
        key=key,
        order=order or f"ORDER BY {key}",
        # A mart may be nothing but its key: then there is nothing to bring up to date, and nothing is.
        assignments=", ".join(f"{column} = excluded.{column}" for column in names if column not in keys)
        or f"{keys[0]} = excluded.{keys[0]}",
        overrides=overrides,
        held=", ".join(f"held.{column}" for column in names),
        excluded=", ".join(f"excluded.{column}" for column in names),
    )
