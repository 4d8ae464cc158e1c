"""A question as a statement of another engine over the lake: the same figures without the warehouse.

Belongs here: which relations a statement begins with, and where it reads the tables. Does not belong here: what the
warehouse keeps beside them (kept_elsewhere.py), and the words of an engine (dialects.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime

import sqlglot
from sqlglot import exp

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.dialects import MONEY, RATE, said
from totesys_assets.errors import PlatformError
from totesys_assets.insights.kept_elsewhere import selects
from totesys_assets.insights.questions import Question
from totesys_assets.lake.tables import PROCESSED
from totesys_assets.sql_text import literal, quoted
from totesys_assets.transform.engines.spark_sql import quoted_for_spark

_LAKE = "lake"
# What a rate is called where a question makes it of the published one and of what is worth itself.
_RATE = ("conversion", "rate")


def place(dialect: str, lake_uri: str, database: str) -> Callable[[str], str]:
    """How an engine calls a table of the lake: Spark and DuckDB by its folder, Athena by its name in Glue."""
    if dialect == "athena":
        return lambda table: f"{quoted(database)}.{quoted(table)}"
    folder = f"{lake_uri.rstrip('/')}/{PROCESSED}"
    if dialect == "spark":
        return lambda table: f"delta.{quoted_for_spark(f'{folder}/{table}')}"
    return lambda table: f"delta_scan({literal(f'{folder}/{table}')})"


def statement(question: Question, values: Mapping[str, object], dialect: str, of: Callable[[str], str]) -> str:
    """The question in ``dialect`` with ``values`` for its parameters; ``of`` says how a table of the lake is called.

    Raises PlatformError for a question that the lake cannot answer: one about the warehouse and the runs.
    """
    text = question.with_literals({name: _literal(values[name]) for name in question.parameters})
    parsed = _plain(_parsed(text))
    _begin_with(parsed, list(_needed(parsed)))
    if not any(table.name in catalogue().warehouse for table in parsed.find_all(exp.Table)):
        raise PlatformError(
            f'The question "{question.name}" is about what the warehouse notes of itself, which the lake does not '
            "have. Ask it without --dialect."
        )
    _place(parsed, dialect, of)
    return f"-- {question.text}\n{said(parsed, dialect, pretty=True)};\n"


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return f"CAST({literal(value.isoformat(sep=' '))} AS timestamptz)"
    if isinstance(value, date):
        return f"CAST({literal(value.isoformat())} AS date)"
    return str(value) if isinstance(value, int) else literal(str(value))


def _parsed(text: str) -> exp.Query:
    parsed = sqlglot.parse_one(text, read="postgres")
    assert isinstance(parsed, exp.Query)  # noqa: S101 - a file of the package, which is a SELECT
    return parsed


def _plain(parsed: exp.Query) -> exp.Query:
    """The same without what is only there for PostgreSQL's planner, or what no other engine says like it."""
    for cte in parsed.find_all(exp.CTE):
        cte.set("materialized", None)
    for cast in reversed(list(parsed.find_all(exp.Cast))):
        if isinstance(cast.this, exp.Cast) and cast.this.to == cast.to:
            cast.replace(cast.this)
    for select in reversed(list(parsed.find_all(exp.Select))):
        limit = select.args.get("limit")
        if isinstance(limit, exp.Fetch):  # rows with ties, of which the question itself takes the first
            select.set("limit", None)
            select.set("order", None)
        for join in list(select.args.get("joins") or ()):
            if isinstance(join.this, exp.Lateral):
                _without_lateral(select, join)
    return parsed


def _without_lateral(select: exp.Select, join: exp.Join) -> None:
    lateral, alias = join.this, join.this.alias
    inner = lateral.this.this
    if inner.args.get("from_") is None:
        _insert(select, alias, {each.alias: each.this for each in inner.selects})
        join.pop()
        return
    # For its OFFSET 0 PostgreSQL looks up row by row. It is an ordinary join.
    table = inner.args["from_"].this
    condition = inner.args["where"].this
    for column in condition.find_all(exp.Column):
        if column.table == table.alias_or_name:
            column.set("table", exp.to_identifier(alias))
    join.replace(exp.Join(this=exp.alias_(table, alias, table=True), on=condition))


def _insert(select: exp.Select, alias: str, made: Mapping[str, exp.Expr]) -> None:
    """Say what is made of a row where it is used. A rate and the money that it converts get types that fit."""
    for column in [each for each in select.find_all(exp.Column) if each.table == alias]:
        value = made[column.name].copy()
        if (alias, column.name) == _RATE:
            value = exp.cast(value, RATE)
            product = column.parent
            if isinstance(product, exp.Mul) and product.right is column:
                product.left.replace(exp.cast(product.left.copy(), MONEY))
        is_shown = isinstance(column.parent, exp.Select) and column.arg_key == "expressions"
        column.replace(exp.alias_(value, column.name) if is_shown else value)


def _needed(parsed: exp.Query) -> Iterator[tuple[str, exp.Query]]:
    """The relations that are no tables of the lake, each after those that it reads itself."""
    known, columns = selects(), {column.name for column in parsed.find_all(exp.Column)}
    seen: set[str] = set()

    def relations(query: exp.Query) -> Iterator[tuple[str, exp.Query]]:
        within = {cte.alias for cte in query.find_all(exp.CTE)}
        for name in dict.fromkeys(table.name for table in query.find_all(exp.Table) if not table.db):
            table = catalogue().star.get(name)
            is_as_it_is = table is not None and table.is_fact and table.key not in columns
            if name in seen or name in within or name not in known or is_as_it_is:
                continue
            seen.add(name)
            made = _parsed(known[name])
            yield from relations(made)
            yield name, made

    yield from relations(parsed)


def _begin_with(parsed: exp.Query, needed: list[tuple[str, exp.Query]]) -> None:
    first = [exp.CTE(this=made, alias=exp.TableAlias(this=exp.to_identifier(name))) for name, made in needed]
    own = parsed.args.get("with_")
    if first:
        parsed.set("with_", exp.With(expressions=[*first, *(own.expressions if own else ())]))


def _place(parsed: exp.Query, dialect: str, of: Callable[[str], str]) -> None:
    """Let the statement read the tables where they are."""
    within = {cte.alias for cte in parsed.find_all(exp.CTE)}
    for table in list(parsed.find_all(exp.Table)):
        if table.db != _LAKE and (table.name in within or table.name not in catalogue().warehouse):
            continue
        placed = sqlglot.parse_one(f"SELECT 1 FROM {of(table.name)}", read=dialect).args["from_"].this
        table.replace(exp.alias_(placed, table.alias_or_name, table=True))
