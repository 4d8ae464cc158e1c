"""The questions: what is asked, its SQL in ``questions/``, its parameters, and the answer.

Belongs here: reading the files, and running them. Does not belong here: any SQL, and how an answer is shown.

A file begins with comments: its first line is the question, the others say what the answer is and what it is not.
Parameters stand in the SQL as ``%(name)s``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cache, cached_property
from importlib import resources
from itertools import takewhile
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

from totesys_assets.errors import PlatformError
from totesys_assets.sql_text import literal

if TYPE_CHECKING:
    import pandas as pd
    import psycopg

# What every parameter means. A question has those that its SQL names.
PARAMETERS = {
    "currency": "ISO code of the currency that money is converted into",
    "basis": "day: an order converts at the rate of its own day; month: at the average of its month",
    "rate_day": "a day whose rates convert everything (constant currency), instead of each day its own",
    "first": "first day",
    "last": "last day",
    "period": "day, week, month, quarter or year",
    "today": "the day from which ages are counted",
    "moment": "the moment at which something was known",
    "number": "number of an order",
    "subject": "the kind of that order: sales_order or purchase_order",
    "rows": "how many rows at most",
}


def defaults(today: date) -> dict[str, object]:
    """A value for every parameter: pounds at the rates of each day, by month, since the first of a month a year ago."""
    return {
        "currency": "GBP",
        "basis": "day",
        "rate_day": None,
        "first": date(max(today.year - 1, 1), today.month, 1),
        "last": today,
        "period": "month",
        "today": today,
        "moment": datetime.combine(today, time(), UTC),
        "number": 1,
        "subject": "sales_order",
        "rows": 20,
    }


_PARAMETER = re.compile(r"%\((\w+)\)s")
_OF_NOW = re.compile(r"clock_timestamp\(\).* AS (\w+)")


@dataclass(frozen=True)
class Question:
    """One question. ``text``: what is asked; ``description``: what the answer is."""

    name: str
    sql: str
    text: str
    description: str

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters, in the order of their appearance."""
        return tuple(dict.fromkeys(_PARAMETER.findall(self.sql)))

    @property
    def of_now(self) -> frozenset[str]:
        """The columns of the answer that time alone changes, as how long ago something was."""
        return frozenset(_OF_NOW.findall(self.sql))

    def text_with(self, values: Mapping[str, object]) -> str:
        """The SQL with ``values`` in the place of its parameters, for psql, below what it asks."""
        comments = [self.text, *textwrap.wrap(self.description, 117)]
        shown = {name: "NULL" if values[name] is None else literal(str(values[name])) for name in self.parameters}
        return "\n".join([*(f"-- {each}" for each in comments), self.with_literals(shown)])

    def with_literals(self, literals: Mapping[str, str]) -> str:
        """The SQL with these texts in the place of its parameters."""
        return _PARAMETER.sub(lambda found: literals[found[1]], self.sql)

    def with_values(self, parameters: Mapping[str, object]) -> str:
        """Its SQL for psql and other clients: with values in the place of parameters, and what is asked on top."""
        values = {each: sql.Literal(parameters[each]).as_string(None) for each in self.parameters}
        return f"-- {self.text}\n{self.sql % values};\n"


@dataclass(frozen=True)
class Answer:
    """Names of columns, and rows. Money is Decimal."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def frame(self) -> pd.DataFrame:
        """As a data frame, whose values are those of the rows."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=[*self.columns], dtype=object).infer_objects()


@cache
def questions() -> Mapping[str, Question]:
    """All questions, by name."""
    folder = resources.files("totesys_assets.insights").joinpath("questions")
    files = {each.name.removesuffix(".sql"): each for each in folder.iterdir() if each.name.endswith(".sql")}
    return {name: _question(name, files[name].read_text(encoding="utf-8")) for name in sorted(files)}


def _question(name: str, text: str) -> Question:
    lines = text.strip().split("\n")
    comments = [line.removeprefix("--").strip() for line in takewhile(lambda line: line.startswith("--"), lines)]
    return Question(name, "\n".join(lines[len(comments) :]), comments[0], " ".join(comments[1:]))


def answer(connection: psycopg.Connection, name: str, **parameters: object) -> Answer:
    """The answer to question ``name``, in the session of ``connection``, whose search_path is the warehouse's schema.

    Raises PlatformError for a question that there is not, or without a value for each of its parameters.
    """
    question = questions().get(name)
    if question is None:
        raise PlatformError(f'There is no question "{name}". There are: {", ".join(questions())}.')
    if missing := [each for each in question.parameters if each not in parameters]:
        raise PlatformError(f'The question "{name}" needs a value for {", ".join(missing)}.')
    given = {each: parameters[each] for each in question.parameters}
    text: LiteralString = question.sql  # a file of the package
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL(text), given)
        columns = tuple(column.name for column in cursor.description or ())
        return Answer(columns, cursor.fetchall())
