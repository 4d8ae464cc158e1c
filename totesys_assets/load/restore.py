"""The warehouse made anew from the lake's versions alone, as it is or as it was: into a schema of its own.

Belongs here: replaying, and telling whether two schemas hold the same. Does not belong here: the merge itself
(merge.py). The processed zone and the ledger are not read: what the versions say is all there is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from psycopg import sql

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.catalogue.star import star_query
from totesys_assets.errors import PlatformError
from totesys_assets.load.merge import merge
from totesys_assets.resources import engine
from totesys_assets.resources.digest import POSTGRES, row_number, set_digest
from totesys_assets.resources.engine import quoted
from totesys_assets.resources.lake import Lake
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
    target.migrate()
    written = {}
    for table in target.catalogue.star.values():
        query = star_query(table.name)
        with (
            engine.readable_errors(f'Restoring "{table.name}" failed'),
            target.transaction(table.name) as connection,
        ):
            used = {name: sources[name] for name in query.sources}
            create_schemas(connection, target.catalogue, used, None, as_of=as_of)
            written[table.name] = merge(connection, target, table, f"({warehouse_rows(table)})")
        if report is not None:
            report(table.name, written[table.name])
    target.close()
    return written


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
