"""The schemas that a SELECT of the star or of a mart reads: views of the lake's versions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache

import duckdb
import sqlglot
from deltalake import DeltaTable
from sqlglot import exp

from totesys_assets.catalogue.catalogue import COMMIT_LSN, OPERATION, RECORDED_AT, Catalogue, Table
from totesys_assets.catalogue.queries import CURRENT, HISTORY, LATEST, WHOLE_STAR, Query, query_of
from totesys_assets.days import Days
from totesys_assets.lake.read import bounds, microseconds, moment_sql
from totesys_assets.lake.versions import newest_first, present_first
from totesys_assets.sql_text import quoted
from totesys_assets.transform.readable import DuckDbViews, Views

# As history and latest, whatever the days are.
_ALL_HISTORY, _ALL_LATEST = "all_history", "all_latest"


def select_of(table: Table) -> str:
    """The SELECT of a star table or mart, over ``create_schemas``. Of a mart, each column gets the type of its DDL."""
    query = query_of(table.name).sql
    if not table.is_mart:
        return query
    typed = (f"CAST({quoted(column.name)} AS {column.type}) AS {quoted(column.name)}" for column in table.columns)
    return f"SELECT {', '.join(typed)} FROM ({query})"


def warehouse_rows(table: Table) -> str:
    """The SELECT of what the warehouse holds of ``table`` when all of it was loaded, over ``create_schemas``.

    A fact: every version. A dimension: one row for each key, wherever it has been: where it is, or was last. A mart:
    what its SELECT gives.
    """
    rows = select_of(table)
    if table.is_fact or table.is_mart or table.day_column is None:
        return rows
    return f"SELECT * FROM ({rows}) QUALIFY {present_first([table.key], '_is_deleted', table.day_column)}"


def create_schemas(
    connection: duckdb.DuckDBPyConnection | Views,
    catalogue: Catalogue,
    query: Query | None,
    sources: Mapping[str, DeltaTable],
    days: Days | None,
    *,
    as_of: datetime | None = None,
    since: Mapping[str, int] | None = None,
) -> None:
    """Give ``query`` its schemas over its source tables: of partitioned ones, only the rows of ``days``.

    They are made in a DuckDB, or of the views of another engine.
    ``as_of`` (naive is UTC) leaves out what was recorded after it, ``since`` (by table, microseconds since 1970) what
    was not.

    ``history.<table>`` has all versions; ``latest.<table>`` the newest per key, the last known where the row is gone
    (facts still refer to it), and of a partitioned table the newest on each day that the row was on, so that a day's
    rows are the same whichever days are built with it; ``reference`` what references.py makes.

    A mart gets ``current.<fact>``, the newest of the versions on each day of ``days`` but for the deleted ones, and
    ``star.<table>``, all of a star table whatever the days are.
    """
    views = DuckDbViews(connection) if isinstance(connection, duckdb.DuckDBPyConnection) else connection
    _create_versions(views, catalogue, sources, days, (HISTORY, LATEST), as_of, since)
    views.create_references("" if query is None else query.definition)
    if query is None or not query.reads:
        return
    for name in query.facts:
        fact, made_of = catalogue.star[name], query_of(name)
        changed = any(_are_changed(sources[each]) for each in made_of.sources)
        newest = f"QUALIFY {newest_first([fact.version_key[0]], fact.day_column)}" if changed else ""
        views.create(
            CURRENT, name, f"SELECT * FROM (SELECT * FROM ({made_of.sql}) {newest}) WHERE {OPERATION} <> 'delete'"
        )
    if query.tables:
        whole = {name: sources[name] for name in query.whole_sources}
        _create_versions(views, catalogue, whole, None, (_ALL_HISTORY, _ALL_LATEST), as_of, since)
    for name in query.tables:
        views.create(WHOLE_STAR, name, _over_all_days(warehouse_rows(catalogue.star[name])))


def _are_changed(versions: DeltaTable) -> bool:
    """False where rows were only ever inserted: every version is the newest, and nothing need be sorted to tell."""
    return bounds(versions, OPERATION) != ("insert", "insert")


@cache
def _over_all_days(select: str) -> str:
    """The same SELECT over the schemas that hold all days."""
    parsed = sqlglot.parse_one(select, read="duckdb")
    for table in parsed.find_all(exp.Table):
        if renamed := {HISTORY: _ALL_HISTORY, LATEST: _ALL_LATEST}.get(table.db):
            table.set("db", exp.to_identifier(renamed))
    return parsed.sql(dialect="duckdb")


def _create_versions(
    views: Views,
    catalogue: Catalogue,
    sources: Mapping[str, DeltaTable],
    days: Days | None,
    schemas: tuple[str, str],
    as_of: datetime | None,
    since: Mapping[str, int] | None,
) -> None:
    """Create ``schemas``, which hold all versions of the sources and the newest of them."""
    history, latest = schemas
    for name, versions in sources.items():
        table = catalogue.source[name]
        columns = ", ".join(quoted(column) for column in (*table.by_name, OPERATION, RECORDED_AT))
        is_there = COMMIT_LSN in {field.name for field in versions.schema().fields}  # not in a lake of before
        columns += f", {COMMIT_LSN}" if is_there else f", CAST(NULL AS BIGINT) AS {COMMIT_LSN}"
        held = views.read(
            f"{history}_versions_of_{name}",
            versions,
            days if table.day_column else None,
            column=table.day_column,
            since=since[name] if since is not None else None,
        )
        conditions = ["true"]
        if days is not None and table.day_column:
            day = quoted(table.day_column)
            ranges = (f"({day} >= TIMESTAMP '{each.first}' AND {day} < TIMESTAMP '{each.end}')" for each in days.ranges)
            conditions.append(f"({' OR '.join(ranges)})")
        if as_of is not None:
            conditions.append(f"{RECORDED_AT} <= {moment_sql(microseconds(as_of))}")
        if since is not None:
            conditions.append(f"{RECORDED_AT} > {moment_sql(since[name])}")
        within = f"WHERE {' AND '.join(conditions)}"
        views.create(history, name, f"SELECT {columns} FROM {held} {within}")
        newest = f"QUALIFY {newest_first(table.primary_key, table.day_column)}" if _are_changed(versions) else ""
        views.create(latest, name, f"SELECT * FROM {history}.{quoted(name)} {newest}")
