"""The views for people, read out of their SELECTs in ``views/``: what they are called, and what their columns mean.

Belongs here: text, description and columns of a view. Does not belong here: creating it (warehouse/), and the views
current_… and history_…, which follow from the facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import sqlglot
from sqlglot import exp


@dataclass(frozen=True)
class View:
    """A view of the warehouse. ``columns``: name -> description. Its SELECT is PostgreSQL's, without a schema."""

    name: str
    sql: str
    description: str
    columns: dict[str, str]

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names of the tables and views that it reads."""
        return frozenset(table.name for table in sqlglot.parse_one(self.sql, read="postgres").find_all(exp.Table))

    def within(self, schema: str) -> str:
        """The SELECT, with every table named in full."""
        parsed = sqlglot.parse_one(self.sql, read="postgres")
        for table in parsed.find_all(exp.Table):
            table.set("db", exp.to_identifier(schema, quoted=True))
        return parsed.sql("postgres", identify=True, comments=False)


@cache
def views() -> tuple[View, ...]:
    """All of them, by name."""
    folder = resources.files("totesys_assets").joinpath("views")
    files = {each.name.removesuffix(".sql"): each for each in folder.iterdir() if each.name.endswith(".sql")}
    return tuple(_view(name, files[name].read_text(encoding="utf-8")) for name in sorted(files))


def _view(name: str, sql: str) -> View:
    description = sql.partition("\n")[0].removeprefix("--").strip()
    parsed = sqlglot.parse_one(sql, read="postgres")
    assert isinstance(parsed, exp.Query)  # noqa: S101 - each of these files is a SELECT
    columns = {each.alias_or_name: _comment(each) for each in parsed.selects}
    return View(name, sql, description, columns)


def _comment(column: exp.Expr) -> str:
    return " ".join(comment.strip() for node in column.walk() for comment in node.comments or [])
