"""The SELECTs of the star and the marts for Spark: which views they read there, and in which types they answer.

Belongs here: names of views and types. Does not belong here: Spark's words (dialects.py), and running them.
"""

from __future__ import annotations

from functools import cache

import pyarrow as pa
import sqlglot
from sqlglot import exp

from totesys_assets.catalogue.catalogue import MONTH
from totesys_assets.dialects import said
from totesys_assets.engine import one_line
from totesys_assets.errors import PlatformError


def _view(table: exp.Expr) -> exp.Expr:
    """A view of a session has a name and no schema."""
    assert isinstance(table, exp.Table)  # noqa: S101 - so the table below says
    if table.db:
        alias = table.alias_or_name
        table.set("this", exp.to_identifier(view_name(table.db, table.name)))
        table.set("db", None)
        if not table.args.get("alias"):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(alias)))
    return table


_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int16(): "SMALLINT",
    pa.int32(): "INT",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.string(): "STRING",
    pa.binary(): "BINARY",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP_NTZ",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP",
}


def type_name(arrow: pa.DataType) -> str:
    """Spark's name of a type of the lake."""
    if isinstance(arrow, pa.Decimal128Type):
        return f"DECIMAL({arrow.precision}, {arrow.scale})"
    return _TYPES[arrow]


def quoted_for_spark(name: str) -> str:
    """A name as an identifier of Spark's."""
    return "`" + name.replace("`", "``") + "`"


def view_name(schema: str, name: str) -> str:
    """What the view of ``schema.name`` is called in a session of Spark."""
    return f"{schema}__{name}"


@cache
def translated(select: str) -> str:
    """A SELECT in the dialect of DuckDB in that of Spark, over views that are called as ``view_name`` says.

    Raises PlatformError where there are no such words in Spark, as far as sqlglot knows.
    """
    try:
        return said(sqlglot.parse_one(select, read="duckdb"), "spark", {exp.Table: _view})
    except sqlglot.errors.SqlglotError as error:
        raise PlatformError(
            f"A SELECT cannot be said in Spark's SQL: {one_line(error)}. Write it otherwise, or unset TOTESYS_ENGINE."
        ) from error


def typed(select: str, schema: pa.Schema) -> str:
    """``select`` in Spark's dialect, with the columns of ``schema``, but for the month, in its types."""
    names = ((quoted_for_spark(each.name), type_name(each.type)) for each in schema if each.name != MONTH)
    return (
        f"SELECT {', '.join(f'CAST({name} AS {type_}) AS {name}' for name, type_ in names)} FROM ({translated(select)})"
    )
