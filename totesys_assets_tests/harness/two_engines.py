"""The SELECTs of the star and the marts by two engines over one lake: DuckDB is the yardstick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import MONTH, Table, catalogue, lake_schema
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import Days
from totesys_assets.lake.tables import Lake
from totesys_assets.sql_text import quoted
from totesys_assets.transform.engines.spark_session import connected
from totesys_assets.transform.engines.spark_sql import typed
from totesys_assets.transform.engines.spark_views import SparkViews
from totesys_assets.transform.schemas import create_schemas, select_of

Rows = Counter[tuple[Any, ...]]


@contextmanager
def both(lake: Lake, remote: str) -> Iterator[Callable[..., int]]:
    """What runs a table's SELECT in DuckDB and in Spark, requires the same rows, and tells how many."""
    with engine.session() as connection, connected(remote, "The test") as session:

        def compare(table: Table, days: Days | None = None) -> int:
            query = query_of(table.name)
            sources = {name: lake.find_versions(catalogue().source[name]) for name in query.sources}
            schema = pa.schema([each for each in lake_schema(table, versioned=False) if each.name != MONTH])
            create_schemas(connection, catalogue(), query, sources, days)
            columns = ", ".join(quoted(name) for name in schema.names)
            wanted = connection.execute(f"SELECT {columns} FROM ({select_of(table)})").to_arrow_table().cast(schema)
            create_schemas(SparkViews(session, remote), catalogue(), query, sources, days)
            found = session.sql(typed(select_of(table), schema)).toArrow()
            assert rows(found.cast(schema)) == rows(wanted), table.name
            return wanted.num_rows

        yield compare


def rows(table: pa.Table) -> Rows:
    """The rows, whatever their order, and how often each is there."""
    return Counter(zip(*(column.to_pylist() for column in table.columns), strict=True))
