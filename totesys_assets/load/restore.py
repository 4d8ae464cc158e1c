"""The warehouse made anew from the lake's versions alone, as it is or as it was: into a schema of its own.

Belongs here: replaying, and telling whether two schemas hold the same. Does not belong here: the merge itself
(merge.py). The processed zone and the ledger are not read: what the versions say is all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import duckdb
from deltalake import DeltaTable
from psycopg import sql

from totesys_assets.catalogue.catalogue import RECORDED_AT, Table
from totesys_assets.errors import PlatformError
from totesys_assets.load.merge import merge
from totesys_assets.resources import engine
from totesys_assets.resources.digest import POSTGRES, row_number, set_digest
from totesys_assets.resources.engine import BATCH_ROWS, quoted
from totesys_assets.resources.lake import Lake, register
from totesys_assets.resources.warehouse import Warehouse
from totesys_assets.transform.build import create_schemas, warehouse_rows


def restore(
    target: Warehouse, lake: Lake, *, as_of: datetime | None = None, report: Callable[[str, int], None] | None = None
) -> dict[str, int]:
    """Fill the empty schema of ``target`` from the lake; rows written by table.

    ``as_of`` (naive is UTC) leaves out what was recorded after it: the stars as they were then. One transaction per
    table; ``report`` hears of each. Raises PlatformError when the schema holds anything already, or the lake nothing.
    """
    if target.relations():
        raise PlatformError(
            f'Schema "{target.schema}" of the warehouse is not empty. Name another one, or drop it: '
            f"DROP SCHEMA {quoted(target.schema)} CASCADE."
        )
    sources = {name: lake.open_existing(table) for name, table in target.catalogue.source.items()}
    written = {}
    # A DuckDB of its own: within one transaction it writes to one database only.
    lake_side = engine.connect()
    try:
        if as_of is not None:
            _require_records(lake_side, lake, sources, as_of)
        target.migrate()
        create_schemas(lake_side, target.catalogue, sources, None, as_of=as_of)
        for table in target.catalogue.star.values():
            with (
                engine.readable_errors(f'Restoring "{table.name}" failed'),
                target.transaction(table.name) as connection,
            ):
                connection.register("restored", lake_side.execute(warehouse_rows(table)).to_arrow_reader(BATCH_ROWS))
                written[table.name] = merge(connection, target, table, "restored", one_per_key=True)
            if report is not None:
                report(table.name, written[table.name])
    finally:
        engine.close(lake_side)
        target.close()
    return written


def _require_records(
    connection: duckdb.DuckDBPyConnection, lake: Lake, sources: Mapping[str, DeltaTable], as_of: datetime
) -> None:
    """Refuse a moment of which the lake knows nothing, rather than show a business without a single row."""
    columns = [f"SELECT {RECORDED_AT} FROM {register(connection, f'dated_{name}', sources[name])}" for name in sources]
    row = connection.execute(f"SELECT epoch_us(min({RECORDED_AT})) FROM ({' UNION ALL '.join(columns)})").fetchone()
    first = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=row[0]) if row and row[0] is not None else None
    moment = as_of.astimezone(UTC) if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    if first is None or moment < first:
        known = f"its first record is of {first:%Y-%m-%d %H:%M:%S} UTC" if first else "it holds no record"
        raise PlatformError(f"The lake at {lake.uri} knows nothing of {moment:%Y-%m-%d %H:%M:%S} UTC: {known}.")


def differing(one: Warehouse, other: Warehouse) -> list[str]:
    """Names of the tables that are not equal in the two schemas, in every column but the record's number."""
    with one.connect() as first, other.connect() as second:
        return [
            table.name
            for table in one.catalogue.star.values()
            if first.execute(_digest(one, table)).fetchone() != second.execute(_digest(other, table)).fetchone()
        ]


def _digest(warehouse: Warehouse, table: Table) -> sql.Composed:
    digest = sql.SQL(set_digest(row_number(table.lake_columns, POSTGRES)))
    return sql.SQL("SELECT {} FROM {}").format(digest, sql.Identifier(warehouse.schema, table.name))
