"""Adopting a lake: going on with another lake than the one that a table of the warehouse was loaded from.

Belongs here: bringing the warehouse's current rows to agree with the lake's, without a doubled record and without
losing one. Does not belong here: telling that it is another lake, which is origin.py.

What both agree on gets no second record, and what only the warehouse has of the past stays: a fact gets records only
where its current rows are not the lake's, all of one moment, later than everything in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import duckdb
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import OPERATION, RECORDED_AT, Catalogue, Table, lake_schema
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import DayRange
from totesys_assets.engine import BATCH_ROWS
from totesys_assets.lake.commit import append
from totesys_assets.lake.read import RECORDED, day_bounds, recorded_until
from totesys_assets.lake.versions import newest_first
from totesys_assets.load.merge import replace_mart
from totesys_assets.load.origin import Origin, adopted_mark, moment_literal
from totesys_assets.load.staging import (
    create_staging,
    fill_staging,
    lake_column_names,
    record_order,
    staging_name,
    upsert,
)
from totesys_assets.sql_text import quoted
from totesys_assets.transform.schemas import create_schemas, warehouse_rows
from totesys_assets.warehouse.warehouse import Warehouse, rows, run

_DIFFERENCE = """
INSERT INTO {table} ({columns})
SELECT {columns} FROM (
    SELECT {chosen},
        CASE WHEN staged.{key} IS NULL THEN 'delete' WHEN held.{key} IS NULL THEN 'insert' ELSE 'update' END
            AS _operation,
        {moment} AS _recorded_at
    FROM (
        SELECT * FROM (
            SELECT DISTINCT ON ({key}, {day}) * FROM {table} ORDER BY {key}, {day}, _recorded_at DESC
        ) AS newest WHERE _operation <> 'delete'
    ) AS held
    FULL JOIN {staging} AS staged ON staged.{key} = held.{key} AND staged.{day} = held.{day}
    WHERE ({held}) IS DISTINCT FROM ({staged})
) AS changes
ORDER BY {order}
"""
_GONE = """
UPDATE {table} AS held SET _is_deleted = true, _recorded_at = {moment}
WHERE NOT held._is_deleted AND NOT EXISTS (SELECT FROM {staging} AS staged WHERE staged.{key} = held.{key})
"""
_NEWEST = "SELECT coalesce(extract(epoch FROM max(_recorded_at)) * 1000000, 0)::bigint FROM {table}"


def adopt(
    connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, table: Table, sources: Mapping[str, DeltaTable]
) -> Origin:
    """Bring ``table`` to agree with the newest versions in ``sources``, in the transaction of ``connection``.

    The lake notes the moment first, and records nothing up to it from then on. If the transaction fails after that,
    nothing has happened. Returns what the warehouse must note. Raises LostRace if something was captured meanwhile.
    """
    name = f"{quoted(warehouse.schema)}.{quoted(table.name)}"
    moment = 1 + max(newest(connection, table, name), *(recorded_until(source) for source in sources.values()))
    create_staging(connection, table)
    _stage_current(connection, warehouse, table, sources)
    if table.is_fact:
        run(connection, _difference(table, name, moment))
    elif table.is_mart:
        replace_mart(connection, table, name)
    else:
        run(connection, upsert(table, name))
        if "_is_deleted" in table.by_name:
            gone = _GONE.format(
                table=name, staging=staging_name(table), key=quoted(table.key), moment=moment_literal(moment)
            )
            run(connection, gone)
    for source, versions in sources.items():
        schema = lake_schema(warehouse.catalogue.source[source], versioned=True)
        append(versions, [], schema, f"capture:{source}", {RECORDED: moment, adopted_mark(moment): moment})
    return Origin({each: (str(held.metadata().id), moment) for each, held in sources.items()}, moment)


def newest(connection: duckdb.DuckDBPyConnection, table: Table, name: str) -> int:
    """The newest ``_recorded_at`` in the warehouse's table, in microseconds since 1970; 0 where there is none."""
    if RECORDED_AT not in table.by_name:
        return 0
    ((moment,),) = rows(connection, _NEWEST.format(table=name))
    return int(str(moment))


def _stage_current(
    connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, table: Table, sources: Mapping[str, DeltaTable]
) -> None:
    # Another DuckDB: within one transaction it writes to one database only.
    with engine.session() as lake_side:
        for chunk in _chunks(table, warehouse.catalogue, sources):
            create_schemas(lake_side, warehouse.catalogue, query_of(table.name), sources, chunk)
            current = warehouse_rows(table)
            if table.is_fact:
                current = (
                    f"SELECT * FROM ({current}) QUALIFY {newest_first([table.version_key[0]], table.day_column)} "
                    f"AND {OPERATION} <> 'delete'"
                )
            connection.register("adopted", lake_side.execute(current).to_arrow_reader(BATCH_ROWS))
            fill_staging(connection, table, "adopted")
            connection.unregister("adopted")


def _chunks(table: Table, catalogue: Catalogue, sources: Mapping[str, DeltaTable]) -> Iterator[DayRange | None]:
    """A fact month by month, so that not all of it is in memory at once; a dimension whole."""
    columns = {name: catalogue.source[name].day_column for name in sources}
    found = [day_bounds(sources[name], column) for name, column in columns.items() if column is not None]
    known = [each for each in found if each is not None]
    if not table.is_fact or not known or len(known) < len(found):
        yield None
        return
    yield from DayRange(min(each.first for each in known), max(each.last for each in known)).by_month()


def _difference(table: Table, name: str, moment: int) -> str:
    key = table.version_key[0]
    values = [quoted(column.name) for column in table.lake_columns if column.name not in (OPERATION, RECORDED_AT)]
    return _DIFFERENCE.format(
        table=name,
        columns=", ".join(lake_column_names(table)),
        chosen=", ".join(
            f"CASE WHEN staged.{quoted(key)} IS NULL THEN held.{each} ELSE staged.{each} END AS {each}"
            for each in values
        ),
        key=quoted(key),
        day=quoted(str(table.day_column)),
        moment=moment_literal(moment),
        staging=staging_name(table),
        held=", ".join(f"held.{each}" for each in values),
        staged=", ".join(f"staged.{each}" for each in values),
        order=record_order(table),
    )
