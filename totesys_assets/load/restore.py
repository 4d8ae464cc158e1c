"""Rebuilding the warehouse from the lake's versions alone, as of now or of an earlier moment, in a schema of its own.

Belongs here: the rebuild, and comparing two schemas. Does not belong here: the merge itself (merge.py). The processed
zone and the ledger are not read; only the versions are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from datetime import datetime
from typing import Any

from psycopg import sql

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.digest import POSTGRES, row_number, set_digest
from totesys_assets.engine import BATCH_ROWS
from totesys_assets.errors import PlatformError
from totesys_assets.lake.read import microseconds
from totesys_assets.lake.tables import Lake
from totesys_assets.load.merge import merge
from totesys_assets.load.noted import note
from totesys_assets.load.origin import Origin, comparable, newest_at
from totesys_assets.moments import require_recorded
from totesys_assets.sql_text import quoted
from totesys_assets.transform.schemas import create_schemas, warehouse_rows
from totesys_assets.warehouse.notes import LAKE, Notes
from totesys_assets.warehouse.warehouse import Warehouse


def restore(
    target: Warehouse,
    lake: Lake,
    *,
    as_of: datetime | None = None,
    report: Callable[[str, int], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
    writing: AbstractContextManager[object] | None = None,
) -> dict[str, int]:
    """Fill the empty schema of ``target`` from the lake; rows written by table.

    ``as_of`` (naive is UTC) leaves out what was recorded after it: the stars as they were then. One transaction per
    table; ``report`` hears of each. ``say`` hears of tables that are empty because the lake's records of them begin
    later. ``writing`` is entered for as long as something is written. Raises PlatformError when the schema holds
    anything already, or the lake nothing.
    """
    if target.relations():
        raise PlatformError(
            f'Schema "{target.schema}" of the warehouse is not empty. Name another one, or drop it: '
            f"DROP SCHEMA {quoted(target.schema)} CASCADE."
        )
    sources = {name: lake.existing(table) for name, table in target.catalogue.source.items()}
    written = {}
    # Another DuckDB: within one transaction it writes to one database only.
    with engine.session() as lake_side, closing(target), ExitStack() as stack:
        if as_of is not None and (later := require_recorded(lake_side, lake, sources, as_of)):
            say(later)
        stack.enter_context(writing or nullcontext())
        target.migrate()
        for table in target.catalogue.warehouse.values():
            made_of = {name: sources[name] for name in query_of(table.name).sources}
            create_schemas(lake_side, target.catalogue, query_of(table.name), made_of, None, as_of=as_of)
            with (
                engine.readable_errors(f'Restoring "{table.name}" failed'),
                target.transaction(table.name) as connection,
            ):
                connection.register("restored", lake_side.execute(warehouse_rows(table)).to_arrow_reader(BATCH_ROWS))
                written[table.name] = merge(connection, target, table, "restored", one_per_key=True)
                until = newest_at(lake_side, made_of, microseconds(as_of)) if as_of is not None else Origin.of(made_of)
                note(connection, target, table, {LAKE: (until.text, 0)}, {}, "restored")
            if report is not None:
                report(table.name, written[table.name])
    return written


def differing(used: Warehouse, made: Warehouse) -> list[str]:
    """Names of the tables that are not equal in the two schemas, in every column but the record's number.

    ``made`` follows from the lake alone; where ``used`` has adopted that lake, it is compared in what came after.
    """
    with used.connect() as first, made.connect() as second:
        origins = Notes(first, used.schema).origins()
        unequal = []
        for table in used.catalogue.warehouse.values():
            adopted = Origin.parse(origins[table.name]).adopted if table.name in origins else 0
            by_key = adopted and not table.is_fact and not table.is_mart
            keys = second.execute(_keys(made, table)).fetchone() if by_key else None
            one = first.execute(_digest(used, table, adopted, keys)).fetchone()
            if one != second.execute(_digest(made, table, adopted, keys)).fetchone():
                unequal.append(table.name)
        return unequal


def _digest(warehouse: Warehouse, table: Table, adopted: int, keys: tuple[Any, ...] | None) -> sql.Composed:
    digest = sql.SQL(set_digest(row_number(table.lake_columns, POSTGRES)))
    query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
        digest, sql.Identifier(warehouse.schema, table.name), sql.SQL(comparable(table, adopted))
    )
    if keys is None:
        return query
    among = sql.SQL(" AND {} = ANY ({})").format(sql.Identifier(table.key), sql.Literal(keys[0] or []))
    return query + among


def _keys(warehouse: Warehouse, table: Table) -> sql.Composed:
    return sql.SQL("SELECT array_agg({}) FROM {}").format(
        sql.Identifier(table.key), sql.Identifier(warehouse.schema, table.name)
    )
