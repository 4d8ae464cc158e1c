"""The marts of a world: each must hold what its SELECT gives over the star, day by day.

Belongs here: the SELECT over the star as the lake holds it, beside the rows in the warehouse. Does not belong here:
what the star must hold, which world.py compares with the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import duckdb

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.catalogue.queries import query_of
from totesys_assets.days import DayRange
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import Lake
from totesys_assets.sql_text import quoted

Record = tuple[str | None, ...]

# The newest record of each row on each day, unless it says that the row is gone.
_AS_IT_IS = """
SELECT * FROM (
    SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY _recorded_at DESC) AS newest FROM {held}
) WHERE newest = 1 AND _operation <> 'delete'
"""


def marts(behind: Iterable[str], days: DayRange | None) -> list[Table]:
    """The marts that must be up to date. Not those of the tables that are ``behind``.

    ``days``: only those days were brought up to date.
    """
    late = set(behind)
    return [
        mart
        for name, mart in catalogue().marts.items()
        if not late & set(query_of(name).sources) and (days is None or mart.day_column)
    ]


def rows(mart: Table) -> str:
    """SELECT of the rows of a mart in the warehouse, as text, with its day or an empty text in front."""
    columns = (f"{quoted(column.name)}::text" for column in mart.columns)
    return f"SELECT {_day(mart)}::text, {', '.join(columns)} FROM {mart.name}"


def expected(lake: Lake, mart: Table) -> Counter[Record]:
    """The rows that follow from the star in the lake, as text."""
    query = query_of(mart.name)
    connection = engine.connect()
    try:
        connection.execute("CREATE SCHEMA current; CREATE SCHEMA star")
        for name in query.reads:
            _create_views(connection, lake, catalogue().star[name])
        columns = (f"CAST(CAST({quoted(each.name)} AS {each.type}) AS VARCHAR)" for each in mart.columns)
        found = connection.execute(
            f"SELECT CAST({_day(mart)} AS VARCHAR), {', '.join(columns)} FROM ({query.sql})"
        ).fetchall()
    finally:
        connection.close()
    return Counter(found)


def _create_views(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table) -> None:
    held = register(connection, f"held_{table.name}", lake.open_processed(table))
    connection.execute(f"CREATE VIEW star.{quoted(table.name)} AS FROM {held}")
    if table.is_fact:
        key = ", ".join(quoted(part) for part in table.version_key[:2])
        connection.execute(f"CREATE VIEW current.{quoted(table.name)} AS {_AS_IT_IS.format(key=key, held=held)}")


def _day(mart: Table) -> str:
    return quoted(mart.day_column) if mart.day_column else "''"
