"""What each star table is made of, read out of its SQL in ``totesys_assets/star``.

Belongs here: the text of a star table's SELECT, the source tables that it reads, the source columns that each of its
columns comes from. Does not belong here: running the SELECT.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import sqlglot
from sqlglot import exp

# The schemas that a star SELECT may read from; see transform/build.py for what they hold.
HISTORY, LATEST, REFERENCE = "history", "latest", "reference"


@dataclass(frozen=True)
class StarQuery:
    """One star table's SELECT: ``sources`` are the ToteSys tables that it reads, in order of appearance.

    ``is_row_by_row``: it makes one row of each version, whatever the others are, so that versions can be added to it.
    """

    name: str
    sql: str
    description: str
    sources: tuple[str, ...]
    is_row_by_row: bool = False

    def column_lineage(self, source_columns: dict[str, tuple[str, ...]]) -> dict[str, list[tuple[str, str]]]:
        """Star column -> [(source table, column)], for the columns that are not generated.

        ``source_columns`` names the columns of each source table, so that unqualified names find theirs.
        """
        return _column_lineage(self.sql, tuple(source_columns.items()))


@cache  # a run says it with every materialisation, and a SELECT takes 20 ms
def _column_lineage(
    sql: str, source_columns: tuple[tuple[str, tuple[str, ...]], ...]
) -> dict[str, list[tuple[str, str]]]:
    from sqlglot.lineage import lineage  # here: loading the definitions does not need it
    from sqlglot.optimizer import build_scope, qualify

    schema: dict[str, object] = {
        zone: {table: dict.fromkeys(columns, "text") for table, columns in source_columns} for zone in (HISTORY, LATEST)
    }
    schema[REFERENCE] = {"iso_4217": dict.fromkeys(("currency_code", "currency_name"), "text")}
    query = qualify.qualify(sqlglot.parse_one(sql, read="duckdb"), dialect="duckdb", schema=schema)
    assert isinstance(query, exp.Query)  # noqa: S101 - a star file is a SELECT
    scope = build_scope(query)
    result: dict[str, list[tuple[str, str]]] = {}
    for name in query.named_selects:
        # Neither copying nor trimming the query for each of its columns: it is only read, and four times as fast.
        root = lineage(name, query, dialect="duckdb", schema=schema, scope=scope, trim_selects=False, copy=False)
        found = {
            (leaf.source.name, leaf.name.split(".")[-1].strip('"'))
            for leaf in root.walk()
            if isinstance(leaf.source, exp.Table) and leaf.source.db in (HISTORY, LATEST)
        }
        if found:
            result[name] = sorted(found)
    return result


@cache
def star_query(name: str) -> StarQuery:
    """The SELECT of star table ``name``. Raises FileNotFoundError when there is no such file."""
    sql = resources.files("totesys_assets.star").joinpath(f"{name}.sql").read_text(encoding="utf-8")
    parsed = sqlglot.parse_one(sql, read="duckdb")
    tables = [table for table in parsed.find_all(exp.Table, bfs=False) if table.db in (HISTORY, LATEST)]
    first_line = sql.partition("\n")[0].removeprefix("--").strip()
    sources = tuple(dict.fromkeys(table.name for table in tables))
    return StarQuery(name, sql, first_line, sources, is_row_by_row(parsed))


def is_row_by_row(query: exp.Expr) -> bool:
    """True for SELECT expressions FROM history.<table>, and nothing more: what is not known to be so, is not."""
    clauses = {name for name, value in query.args.items() if value}
    source = query.args.get("from_")
    return (
        isinstance(query, exp.Select)
        and clauses == {"expressions", "from_"}
        and isinstance(source, exp.From)
        and isinstance(source.this, exp.Table)
        and source.this.db == HISTORY
        and query.find(exp.AggFunc, exp.Window, exp.Subquery, exp.Unnest) is None
    )
