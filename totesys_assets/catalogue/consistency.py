"""What must be true of the tables of a catalogue, so that they can be captured, built and loaded.

Belongs here: refusing a DDL or a SELECT that cannot be, with a sentence that says what to change. Does not belong here:
reading the DDL (catalogue.py) and the SELECTs (queries.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from totesys_assets.catalogue.queries import CURRENT, MART_PREFIX, STAR, is_plain, query_of, together

if TYPE_CHECKING:  # catalogue.py asks for these checks
    from totesys_assets.catalogue.catalogue import Catalogue, Table


def require_names(tables: list[Table]) -> None:
    """Raise ValueError where tables cannot be told apart, or their rows: names are unique over all sources."""
    groups: dict[str, str] = {}
    for table in tables:
        if table.name in groups:
            where = f"of {groups[table.name]} and one of {table.group}"
            raise ValueError(f'There is a table "{table.name}" {where}. Give one of them another name.')
        groups[table.name] = table.group
        if table.name.startswith(MART_PREFIX) != table.is_mart:
            raise ValueError(f'"{table.name}": the names of marts, and of nothing else, begin with {MART_PREFIX}.')
        if not table.primary_key:
            raise ValueError(f'Table "{table.name}" has no primary key, by which its rows are known.')
        if sum(column.is_day for column in table.columns) > 1:
            raise ValueError(f'Table "{table.name}" has several columns with a comment that begins with "by day: ".')
        if table.day_column and table.by_name[table.day_column].nullable and not table.is_mart:  # see require_mart
            raise ValueError(
                f'Table "{table.name}" is partitioned by "{table.day_column}", which may be NULL. Declare it NOT NULL.'
            )


def require_mart(mart: Table) -> None:
    """Raise ValueError where a mart cannot be replaced day by day, as its DDL says that it is."""
    query = query_of(mart.name)
    if mart.day_column is None:
        return
    if mart.day_column not in mart.primary_key:
        raise ValueError(f'Mart "{mart.name}" is partitioned by "{mart.day_column}", which must be part of its key.')
    if not query.facts:
        raise ValueError(f'Mart "{mart.name}" is partitioned, and reads no {CURRENT}.<fact>, of which it has the days.')
    if facts := together(query):
        read = " and ".join(f"{CURRENT}.{fact}" for fact in facts)
        raise ValueError(
            f"marts/{mart.name}.sql reads {read} together. Their rows may be of different days, and the mart is made "
            f"day by day: read all of them but one from {STAR}, give each a branch of a UNION of its own, or leave the "
            "mart unpartitioned."
        )
    if not is_plain(query, mart.day_column):
        raise ValueError(
            f'marts/{mart.name}.sql computes "{mart.day_column}", by which the mart is partitioned. It must be the day '
            "of its facts, by name and as it is read."
        )


def require_days(tables: Catalogue, mart: Table) -> None:
    """Raise ValueError where a mart is partitioned by another column than the day of its facts.

    It would be made of the rows of one day, and hold rows of others. Not part of ``catalogue``, for it takes time.
    """
    query = query_of(mart.name)
    columns = {name: tuple(table.by_name) for name, table in tables.star.items()}
    found = query.column_lineage(columns).get(str(mart.day_column), [])
    days = sorted((name, str(tables.star[name].day_column)) for name in query.facts)
    if found != days:
        raise ValueError(
            f'Mart "{mart.name}" is partitioned by "{mart.day_column}", which must be '
            f"{' and '.join(f'{CURRENT}.{name}.{day}' for name, day in days)}, and is made of "
            f"{', '.join(f'{name}.{column}' for name, column in found) or 'no column'}. Leave the mart unpartitioned "
            "if it is about another day."
        )
