"""What must be true of the tables of a catalogue, so that they can be captured, built and loaded.

Belongs here: refusing a DDL or a SELECT that cannot be, with a sentence that says what to change. Does not belong here:
reading the DDL (catalogue.py) and the SELECTs (queries.py).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from totesys_assets.catalogue.queries import (
    CURRENT,
    MART_PREFIX,
    STAR,
    across_days,
    is_plain,
    mart_files,
    query_of,
    together,
)
from totesys_assets.errors import PlatformError

if TYPE_CHECKING:  # catalogue.py asks for these checks
    from totesys_assets.catalogue.catalogue import Catalogue, Table
    from totesys_assets.catalogue.queries import Query


def require_names(tables: list[Table]) -> None:
    """Raise PlatformError where tables cannot be told apart, or their rows: names are unique over all sources."""
    groups: dict[str, str] = {}
    for table in tables:
        if table.name in groups:
            where = f"of {groups[table.name]} and one of {table.group}"
            raise PlatformError(f'There is a table "{table.name}" {where}. Give one of them another name.')
        groups[table.name] = table.group
        if table.name.startswith(MART_PREFIX) != table.is_mart:
            raise PlatformError(f'"{table.name}": the names of marts, and of nothing else, begin with {MART_PREFIX}.')
        if not table.primary_key:
            raise PlatformError(f'Table "{table.name}" has no primary key, by which its rows are known.')
        if sum(column.is_day for column in table.columns) > 1:
            raise PlatformError(f'Table "{table.name}" has several columns with a comment that begins with "by day: ".')
        if table.day_column and table.by_name[table.day_column].nullable and not table.is_mart:  # see require_mart
            raise PlatformError(
                f'Table "{table.name}" is partitioned by "{table.day_column}", which may be NULL. Declare it NOT NULL.'
            )


def require_mart(mart: Table) -> None:
    """Raise PlatformError where a mart's SELECT does not give its columns, or not day by day as its DDL says."""
    query = query_of(mart.name)
    if mart.day_column is not None:
        _require_own_days(mart, mart.day_column, query)
    if missing := [column.name for column in mart.columns if not {column.name, "*"} & {*query.columns}]:
        raise PlatformError(f"marts/{mart.name}.sql gives no {', '.join(missing)}, which catalogue/marts.sql names.")
    if unknown := [name for name in query.columns if name not in mart.by_name and name != "*"]:
        raise PlatformError(f"marts/{mart.name}.sql gives {', '.join(unknown)}: let catalogue/marts.sql name it too.")


def _require_own_days(mart: Table, day: str, query: Query) -> None:
    if mart.day_column not in mart.primary_key:
        raise PlatformError(f'Mart "{mart.name}" is partitioned by "{mart.day_column}", which must be part of its key.')
    if not query.facts:
        raise PlatformError(
            f'Mart "{mart.name}" is partitioned, and reads no {CURRENT}.<fact>, of which it has the days.'
        )
    if facts := together(query):
        read = " and ".join(f"{CURRENT}.{fact}" for fact in facts)
        raise PlatformError(
            f"marts/{mart.name}.sql reads {read} together. Their rows may be of different days, and the mart is made "
            f"day by day: read all of them but one from {STAR}, give each a branch of a UNION of its own, or leave the "
            "mart unpartitioned."
        )
    if what := across_days(query, day):
        raise PlatformError(
            f"marts/{mart.name}.sql {what}. The mart is made day by day, and never sees all days: leave it "
            "unpartitioned."
        )
    if not is_plain(query, day):
        raise PlatformError(
            f'marts/{mart.name}.sql computes "{day}", by which the mart is partitioned. It must be the day '
            "of its facts, by name and as it is read."
        )


def require_days(tables: Catalogue, mart: Table) -> None:
    """Raise PlatformError where a mart is partitioned by another column than the day of its facts.

    It would be made of the rows of one day, and hold rows of others. Not part of ``catalogue``, for it takes time.
    """
    query = query_of(mart.name)
    columns = {name: tuple(table.by_name) for name, table in tables.star.items()}
    found = query.column_lineage(columns).get(str(mart.day_column), [])
    days = sorted((name, str(tables.star[name].day_column)) for name in query.facts)
    if found != days:
        raise PlatformError(
            f'Mart "{mart.name}" is partitioned by "{mart.day_column}", which must be '
            f"{' and '.join(f'{CURRENT}.{name}.{day}' for name, day in days)}, and is made of "
            f"{', '.join(f'{name}.{column}' for name, column in found) or 'no column'}. Leave the mart unpartitioned "
            "if it is about another day."
        )


def require_defined(marts: Collection[str]) -> None:
    """Raise PlatformError where there is a SELECT of a mart that no DDL defines."""
    if undefined := [name for name in mart_files() if name not in marts]:
        raise PlatformError(
            f"catalogue/marts.sql does not define {', '.join(undefined)}, of which marts/ has a SELECT."
        )
