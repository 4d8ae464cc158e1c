"""Reading the lake: tables in DuckDB, and statistics from the files and commits of a table."""

from __future__ import annotations

from collections.abc import Set
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow.compute as pc
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import RECORDED_AT
from totesys_assets.days import DayRange, Days
from totesys_assets.lake.files import Files, listed
from totesys_assets.lake.marks import mark
from totesys_assets.sql_text import quoted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The newest _recorded_at of an ingestion table, in microseconds since 1970, noted with each commit. It grows with every
# commit, so versions recorded after a moment are those committed after it.
RECORDED = "recorded_at"


def register(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: DeltaTable,
    days: Days | None = None,
    *,
    column: str | None = None,
    since: int | None = None,
    within: tuple[str, Any, Any] | None = None,
    named: Set[str] | None = None,
) -> str:
    """Make a table readable in DuckDB under ``name``. Returns the quoted name.

    Files are left out that hold no rows of ``days`` (by the date or timestamp ``column``), or none recorded from
    ``since`` on (microseconds since 1970), or none ``within`` two values of a column, or that are not among those
    ``named``. The others may hold other rows as well. Nothing is read yet: DuckDB reads the columns and rows that a
    query needs. Raises duckdb.Error where a file is gone.
    """
    files = Files(table, days, column, since, within, named)
    select = files.select
    if select is None:
        connection.register(name, files.dataset())
    else:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS {select}")
    return quoted(name)


def recorded_until(table: DeltaTable) -> int:
    """The newest ``_recorded_at`` in an ingestion table, in microseconds since 1970; 0 for an empty one."""
    noted = mark(table, RECORDED)
    if noted is not None or not table.file_uris():
        return noted or 0
    with engine.session() as connection:  # the table is older than this note
        row = connection.execute(f"SELECT epoch_us(max({RECORDED_AT})) FROM {register(connection, 'held', table)}")
        return int(row.fetchall()[0][0] or 0)


def holds_moment(table: DeltaTable, moment: int) -> bool:
    """True if a row was recorded at exactly ``moment``, in microseconds since 1970."""
    with engine.session() as connection:
        held = register(connection, "held", table, since=moment)
        return bool(connection.execute(f"FROM {held} WHERE {RECORDED_AT} = {moment_sql(moment)} LIMIT 1").fetchall())


def rows_recorded_since(table: DeltaTable, moment: int) -> int:
    """How many rows are read to find those recorded after ``moment`` (microseconds since 1970)."""
    return Files(table, since=moment).rows


def rows_near(table: DeltaTable, days: Days, column: str) -> int:
    """How many rows are read to find those of ``days``, by the date or timestamp ``column``; 0 if there are none."""
    return Files(table, days, column).rows


def bounds(table: DeltaTable, column: str) -> tuple[Any, Any] | None:
    """The least and the greatest value of a column, from the files' statistics. None without rows or statistics.

    Timestamps are exact to the millisecond.
    """
    files = listed(table)
    if not {f"min.{column}", f"max.{column}"} <= set(files.column_names):
        return None
    least, greatest = files.column(f"min.{column}"), files.column(f"max.{column}")
    if not files.num_rows or least.null_count or greatest.null_count:
        return None
    return pc.min(least).as_py(), pc.max(greatest).as_py()


def lies_within(table: DeltaTable, column: str, days: Days) -> bool:
    """True if the files' statistics show that ``column``, a date or a timestamp, is on ``days`` in every row."""
    if not table.file_uris():
        return True
    found = day_bounds(table, column)
    return found is not None and any(found.first in each and found.last in each for each in days.ranges)


def day_bounds(table: DeltaTable, column: str) -> DayRange | None:
    """The days from the least to the greatest value of a date or a timestamp. None without rows or statistics."""
    found = bounds(table, column)
    if found is None:
        return None
    return DayRange(*(each.date() if isinstance(each, datetime) else each for each in found))


def microseconds(moment: datetime) -> int:
    """A moment as microseconds since 1970; a naive one is UTC."""
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


def since_1970(count: int) -> datetime:
    """The moment, in UTC, so many microseconds after the beginning of 1970."""
    return _EPOCH + timedelta(microseconds=count)


def moment_sql(moment: int) -> str:
    """A moment in microseconds since 1970 as an SQL expression for DuckDB."""
    return f"make_timestamptz({moment})"
