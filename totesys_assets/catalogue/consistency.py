"""What must be true of the tables of a catalogue, so that they can be captured, built and loaded.

Belongs here: refusing a DDL or a SELECT that the platform cannot use, with a sentence that says what to change.
Does not belong here: reading the DDL (catalogue.py) and the SELECTs (queries.py).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from totesys_assets.catalogue.queries import (
    CURRENT,
    MART_PREFIX,
    WHOLE_STAR,
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
    """Raise PlatformError where a name is taken twice over all sources, or a table has no key or no usable day."""
    files: dict[str, str] = {}
    for table in tables:
        name, file = table.name, table.file
        if name in files:
            where = f"in {files[name]} and one in {file}" if files[name] != file else f"twice in {file}"
            raise PlatformError(f'There is a table "{name}" {where}. Give one of them another name.')
        files[name] = file
        if name.startswith(MART_PREFIX) != table.is_mart:
            what = f"a mart, and its name must begin with {MART_PREFIX}" if table.is_mart else "no mart, and"
            what += "" if table.is_mart else f" only the names of marts may begin with {MART_PREFIX}"
            raise PlatformError(f'Table "{name}" in {file} is {what}. Rename it.')
        if not table.primary_key:
            raise PlatformError(
                f'Table "{name}" in {file} has no primary key, by which its rows are known. Declare a column PRIMARY '
                "KEY, or several: PRIMARY KEY (…)."
            )
        if len(days := [column.name for column in table.columns if column.is_day]) > 1:
            raise PlatformError(
                f'Table "{name}" in {file} has several columns with a comment that begins with "by day: " '
                f"({', '.join(days)}). It is partitioned by one: remove the words from the others."
            )
        if table.day_column and table.by_name[table.day_column].nullable and not table.is_mart:  # see require_mart
            raise PlatformError(
                f'Table "{name}" in {file} is partitioned by "{table.day_column}", which may be NULL. Declare it NOT '
                "NULL."
            )


def require_mart(mart: Table) -> None:
    """Raise PlatformError where a mart's SELECT gives other columns than its DDL, or cannot be run day by day."""
    query, file = query_of(mart.name), f"marts/{mart.name}.sql"
    if mart.day_column is not None:
        _require_own_days(mart, mart.day_column, query)
    if missing := [column.name for column in mart.columns if not {column.name, "*"} & {*query.columns}]:
        raise PlatformError(
            f"{file} gives no {', '.join(missing)}, which {mart.file} names (it gives: {', '.join(query.columns)}). "
            "Add it to the SELECT, or remove it from the DDL."
        )
    if unknown := [name for name in query.columns if name not in mart.by_name and name != "*"]:
        raise PlatformError(
            f"{file} gives {', '.join(unknown)}, which {mart.file} does not name. Add it to the DDL, or remove it from "
            "the SELECT."
        )


def _require_own_days(mart: Table, day: str, query: Query) -> None:
    file, remedy = f"marts/{mart.name}.sql", 'or leave the mart unpartitioned: remove "by day: " from the comment'
    partitioned = f'{mart.file} partitions "{mart.name}" by "{day}"'
    if day not in mart.primary_key:
        raise PlatformError(
            f"{partitioned}, which must be part of its key and is not ({', '.join(mart.primary_key)}). Add it to the "
            f"PRIMARY KEY, {remedy}."
        )
    if not query.facts:
        raise PlatformError(
            f"{partitioned}, and {file} reads no {CURRENT}.<fact>, of which it has the days (it reads: "
            f"{', '.join(f'{WHOLE_STAR}.{name}' for name in query.tables)}). Read the fact of these days so, {remedy}."
        )
    if facts := together(query):
        read = " and ".join(f"{CURRENT}.{fact}" for fact in facts)
        raise PlatformError(
            f"{file} reads {read} together. Their rows may be of different days, and the mart is made day by day: read "
            f"all of them but one from {WHOLE_STAR}, give each a branch of a UNION of its own, {remedy}."
        )
    if what := across_days(query, day):
        raise PlatformError(
            f"{file} {what}. The mart is made day by day, and never sees all days. Change that, {remedy}."
        )
    if not is_plain(query, day):
        raise PlatformError(
            f'{file} computes "{day}", by which the mart is partitioned. It must be the day of its facts: select it by '
            f"name and as it is read, {remedy}."
        )


def require_days(tables: Catalogue, mart: Table) -> None:
    """Raise PlatformError where a mart is partitioned by another column than the day of its facts.

    Such a mart would be made of the rows of one day, and hold rows of others. ``catalogue`` does not check this: it
    takes time.
    """
    query = query_of(mart.name)
    columns = {name: tuple(table.by_name) for name, table in tables.star.items()}
    found = query.column_lineage(columns).get(str(mart.day_column), [])
    days = sorted((name, str(tables.star[name].day_column)) for name in query.facts)
    if found != days:
        raise PlatformError(
            f'{mart.file} partitions "{mart.name}" by "{mart.day_column}". In marts/{mart.name}.sql that must be '
            f"{' and '.join(f'{CURRENT}.{name}.{day}' for name, day in days)}, and is made of "
            f"{', '.join(f'{name}.{column}' for name, column in found) or 'no column'}. Select that, or leave the mart "
            'unpartitioned if it is about another day: remove "by day: " from the comment.'
        )


def require_defined(marts: Collection[str]) -> None:
    """Raise PlatformError where there is a SELECT of a mart that no DDL defines."""
    if undefined := [name for name in mart_files() if name not in marts]:
        raise PlatformError(
            f"catalogue/marts.sql does not define {', '.join(undefined)}, of which marts/ has a SELECT. Add its CREATE "
            f"TABLE there, or remove {', '.join(f'marts/{name}.sql' for name in undefined)}."
        )
