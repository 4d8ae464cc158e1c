"""The schemas that a star SELECT reads, ``history``, ``latest`` and ``reference``: views of the lake's versions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import OPERATION, RECORDED_AT, Catalogue, Table
from totesys_assets.catalogue.queries import HISTORY, LATEST, REFERENCE, query_of
from totesys_assets.days import Days
from totesys_assets.engine import quoted
from totesys_assets.lake.read import bounds, microseconds, moment_sql, register
from totesys_assets.lake.versions import newest_first, present_first


def warehouse_rows(table: Table) -> str:
    """The SELECT of what the warehouse holds of star ``table`` when all of it was loaded, over ``create_schemas``.

    A fact: every version. A dimension: one row for each key, wherever it has been: where it is, or was last.
    """
    rows = query_of(table.name).sql
    if table.is_fact or table.day_column is None:
        return rows
    return f"SELECT * FROM ({rows}) QUALIFY {present_first(table.key, '_is_deleted', table.day_column)}"


def create_schemas(
    connection: duckdb.DuckDBPyConnection,
    catalogue: Catalogue,
    sources: Mapping[str, DeltaTable],
    days: Days | None,
    *,
    as_of: datetime | None = None,
    since: int | None = None,
) -> None:
    """Give a star SELECT its schemas over some source tables: for partitioned ones, only the rows of ``days``.

    ``as_of`` (naive is UTC) leaves out what was recorded after it, ``since`` (microseconds since 1970) what was not.

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
            ranges = (f"({day} >= TIMESTAMP '{each.first}' AND {day} < TIMESTAMP '{each.end}')" for each in days.ranges)
            conditions.append(f"({' OR '.join(ranges)})")
        if as_of is not None:
            conditions.append(f"{RECORDED_AT} <= {moment_sql(microseconds(as_of))}")
        if since is not None:
            conditions.append(f"{RECORDED_AT} > {moment_sql(since)}")
        within = f"WHERE {' AND '.join(conditions)}"
        connection.execute(f"CREATE OR REPLACE VIEW {HISTORY}.{quoted(name)} AS SELECT {columns} FROM {held} {within}")
        # Where rows were only ever inserted, every version is the newest, and nothing need be sorted to find that out.
        changed = bounds(versions, OPERATION) != ("insert", "insert")
        connection.execute(
            f"CREATE OR REPLACE VIEW {LATEST}.{quoted(name)} AS SELECT * FROM {HISTORY}.{quoted(name)} "
            + (f"QUALIFY {newest_first(table.primary_key, table.day_column)}" if changed else "")
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
