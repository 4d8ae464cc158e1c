"""Reading the lake in Python: any star or source table, now or as of a time, as pandas or Arrow.

Belongs here: the two functions for analysts. Does not belong here: writing, and anything of the warehouse.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import OPERATION, Table, catalogue, lake_schema
from totesys_assets.catalogue.queries import query_of
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.lake.versions import newest_first, present_first
from totesys_assets.moments import moment_of, require_recorded
from totesys_assets.setting_values import lake_uri
from totesys_assets.settings import Settings
from totesys_assets.sql_text import quoted
from totesys_assets.transform.schemas import create_schemas, select_of

if TYPE_CHECKING:
    import pandas as pd


def read(
    table: str, *, as_of: str | date | datetime | None = None, history: bool = False, lake: str | None = None
) -> pd.DataFrame:
    """A table of the lake as a pandas DataFrame with Arrow types, which keep decimals, dates and times exact.

    ``table`` is a star table (``fact_sales_order``), a mart, or a table of a source (``sales_order``). Without more,
    its rows as they are now: one for each sales order, as ``current_sales_order`` shows it, with ``_recorded_at``, when
    it was first seen so. ``as_of`` (a date, a time, or a text of either; in UTC without a zone) gives what had been
    recorded by then. ``history`` gives every version of a fact or a source table, with ``_operation`` (insert, update,
    delete) and ``_recorded_at``: what the warehouse's ``fact_…`` tables hold. A version of a source table that was
    followed in the log has its position there, ``_commit_lsn``. ``lake`` is a folder or ``s3://bucket/prefix``; by
    default what LAKE_URI says.

        >>> import totesys_assets
        >>> orders = totesys_assets.read("fact_sales_order")  # doctest: +SKIP
        >>> orders["value"] = orders.units_sold * orders.unit_price  # doctest: +SKIP

    Raises PlatformError for an unknown table, a dimension's ``history`` (read its source tables' instead), and a moment
    before the lake's first record or yet to come.
    """
    import pandas as pd  # here: slow to import, and not needed for Arrow

    return read_arrow(table, as_of=as_of, history=history, lake=lake).to_pandas(types_mapper=pd.ArrowDtype)


def read_arrow(
    table: str, *, as_of: str | date | datetime | None = None, history: bool = False, lake: str | None = None
) -> pa.Table:
    """Like ``read``, but returns an Arrow table."""
    moment = None if as_of is None else moment_of(as_of)
    tables = catalogue()
    versions = Lake(lake_uri(lake, "lake") if lake else Settings.from_env().lake_uri)
    star = tables.warehouse.get(table)
    if star is None and table not in tables.source:
        raise PlatformError(
            f'There is no table "{table}". Star tables: {", ".join(tables.warehouse)}; '
            f"source tables: {', '.join(tables.source)}."
        )
    if history and star is not None and not star.is_fact:
        raise PlatformError(
            f'"{table}" is {"a mart" if star.is_mart else "a dimension"} and holds the latest values only; '
            f"read the history of {' and '.join(query_of(table).sources) or 'the facts'}."
        )
    sources = query_of(table).sources if star is not None else (table,)
    found = {name: versions.existing(tables.source[name]) for name in sources}
    held = lake_schema(star, versioned=False) if star is not None else lake_schema(tables.source[table], versioned=True)
    failed = f'Reading "{table}" in the lake at {versions.uri} failed'
    with engine.session() as connection, engine.readable_errors(failed):
        if moment is not None and (later := require_recorded(connection, versions, found, moment)):
            warnings.warn(later, stacklevel=2)
        query = query_of(table) if star is not None else None
        create_schemas(connection, tables, query, found, None, as_of=moment)
        rows = select_of(star) if star is not None else f"SELECT * FROM history.{quoted(table)}"
        if star is not None and not star.is_fact:
            if star.day_column and not star.is_mart:
                rows = f"SELECT * FROM ({rows}) QUALIFY {present_first([star.key], '_is_deleted', star.day_column)}"
        elif not history:
            held_table = star or tables.source[table]
            key = held_table.version_key[:1] if star else held_table.primary_key
            rows = _present(rows, key, held_table.day_column)
        result: pa.Table = connection.execute(_with_times(rows, star)).to_arrow_table()
    kept = [name for name in result.column_names if not pa.types.is_time(result.field(name).type)]
    return result.cast(
        pa.schema([(held if name in kept else result.schema).field(name) for name in result.column_names])
    )


def _with_times(rows: str, star: Table | None) -> str:
    """SELECT with times of day as TIME. The lake keeps them as text, because Delta has no such type."""
    times = [quoted(column.name) for column in star.columns if column.type.startswith("time ")] if star else []
    if not times:
        return rows
    return f"SELECT * REPLACE ({', '.join(f'CAST({name} AS TIME) AS {name}' for name in times)}) FROM ({rows})"


def _present(versions: str, key: Sequence[str], day: str | None) -> str:
    """SELECT of the current rows, without deleted ones, from all their versions."""
    newest = f"SELECT * FROM ({versions}) QUALIFY {newest_first(key, day)}"
    present = f"SELECT * EXCLUDE ({OPERATION}) FROM ({newest}) WHERE {OPERATION} <> 'delete'"
    return f"SELECT * FROM ({present}) QUALIFY {present_first(key, 'false', day)}" if day else present
