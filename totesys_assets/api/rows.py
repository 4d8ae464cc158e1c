"""Rows of what is offered: the statements that read them, and pages by key.

A page is the rows after a key. Rows that are inserted meanwhile move no other row to another page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from psycopg import sql

from totesys_assets.api.offered import Offered
from totesys_assets.errors import PlatformError

if TYPE_CHECKING:
    from totesys_assets.warehouse.notes import Connection

# Units times price. Only a numeric with a scale has a type in Arrow.
_MONEY = ("revenue", "cost")
_MONEY_TYPE = sql.SQL("numeric(38,2)")
# How many times more keys are looked at when filters left a page unfilled.
_FURTHER = 4
_FROM, _UNTIL, _BEYOND = sql.SQL(">="), sql.SQL("<="), sql.SQL(">")
# SQL, and the values of its parameters.
Condition = tuple[sql.SQL | sql.Composed, list[Any]]


class Unknown(PlatformError):
    """A request names what the table does not have, or a place that cannot be one of its keys."""


@dataclass(frozen=True)
class Wanted:
    """The rows that are wanted: those whose columns have one of some values, between two days, after a key."""

    table: Offered
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    first: date | None = None
    last: date | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        """Raise Unknown for a column that the table does not have, days of a table without them, and no key."""
        if unknown := [name for name in self.values if name not in self.table.columns]:
            columns = ", ".join(self.table.columns)
            raise Unknown(f'"{self.table.name}" has no column "{unknown[0]}". It has: {columns}.')
        if self.table.day is None and (self.first or self.last):
            raise Unknown(f'"{self.table.name}" has no day: leave "first" and "last" out.')
        self.key  # noqa: B018 - raises Unknown

    @property
    def key(self) -> list[str] | None:
        """The values of the key that ``after`` stands for."""
        if self.after is None or len(self.table.key) == 1:
            return None if self.after is None else [self.after]
        try:
            found = json.loads(self.after)
            json.dumps(found, ensure_ascii=False).encode()  # half a character is none
        except (ValueError, RecursionError):
            found = None
        scalars = isinstance(found, list) and all(isinstance(each, str | int) for each in found)
        if not scalars or len(found) != len(self.table.key):
            columns = ", ".join(self.table.key)
            raise Unknown(f'"after" is not a place in "{self.table.name}": take it from "next" ({columns}).')
        return [str(each) for each in found]

    def select(self, *within: Condition, limit: int | None = None) -> Condition:
        """The SELECT of these rows, in the order of their key, and its parameters."""
        name, table = sql.Identifier, self.table
        columns = sql.SQL(", ").join(
            sql.SQL("{0}::{1} AS {0}").format(name(each), _MONEY_TYPE) if each in _MONEY else name(each)
            for each in table.columns
        )
        conditions = [*self._conditions(), *within]
        statement = sql.SQL("SELECT {columns} FROM {table} WHERE {where} ORDER BY {key} LIMIT %s").format(
            columns=columns,
            table=name(table.name),
            where=sql.SQL(" AND ").join([sql.SQL("true"), *(condition for condition, _ in conditions)]),
            key=sql.SQL(", ").join(map(name, table.key)),
        )
        return statement, [*(value for _, values in conditions for value in values), limit]

    def _conditions(self) -> Iterator[Condition]:
        for column, values in self.values.items():
            places = sql.SQL(", ").join([sql.SQL("%s")] * len(values))
            yield sql.SQL("{} IN ({})").format(sql.Identifier(column), places), list(values)
        if self.first is not None:
            yield _compared(str(self.table.day), _FROM, self.first)
        if self.last is not None:
            yield _compared(str(self.table.day), _UNTIL, self.last)
        if (key := self.key) is not None:
            # The first alone too: PostgreSQL takes that into a view, and to an index.
            yield _compared(self.table.key[0], _FROM, key[0])
            columns = sql.SQL(", ").join(map(sql.Identifier, self.table.key))
            places = sql.SQL(", ").join([sql.SQL("%s")] * len(key))
            yield sql.SQL("({}) > ({})").format(columns, places), key


def _compared(column: str, sign: sql.SQL, value: object) -> Condition:
    return sql.SQL("{} {} %s").format(sql.Identifier(column), sign), [value]


@dataclass(frozen=True)
class Page:
    """Rows, and the value of ``after`` for the next page; None: there is none."""

    rows: list[dict[str, Any]]
    next: str | None


def page(connection: Connection, wanted: Wanted, limit: int) -> Page:
    """The first ``limit`` of the rows that are wanted. PostgreSQL reads little more than these, also of a view."""
    rows: list[dict[str, Any]] = []
    first, place = wanted.table.key[0], wanted.key
    low = None if place is None else _compared(first, _FROM, place[0])
    keys = limit + 2  # the one before the page, and one after it, which tells that there is a next page
    while True:
        upper = _bound(connection, wanted.table, low, keys) if wanted.table.indexed else None
        ends = [] if upper is None else [_compared(first, _UNTIL, upper)]
        cursor = connection.execute(*wanted.select(*([low] if low else []), *ends, limit=limit + 1 - len(rows)))
        names = [column.name for column in cursor.description or ()]
        rows += [dict(zip(names, row, strict=True)) for row in cursor]
        if upper is None or len(rows) > limit:
            break
        low, keys = _compared(first, _BEYOND, upper), keys * _FURTHER
    more = len(rows) > limit
    return Page(rows[:limit], _place(wanted.table, rows[limit - 1]) if more else None)


def _bound(connection: Connection, table: Offered, low: Condition | None, keys: int) -> object | None:
    """The last of the next ``keys`` values of the key's first column, from ``low`` on; None if there are no more."""
    where, values = low or (sql.SQL("true"), [])
    statement = sql.SQL(
        "SELECT max(value), count(*) FROM (SELECT DISTINCT {} AS value FROM {} WHERE {} ORDER BY 1 LIMIT %s) AS found"
    ).format(sql.Identifier(table.key[0]), sql.Identifier(str(table.indexed)), where)
    found = connection.execute(statement, [*values, keys]).fetchone()
    assert found is not None  # noqa: S101 - an aggregate has one row
    return found[0] if found[1] == keys else None


def _place(table: Offered, row: Mapping[str, Any]) -> str:
    values = [row[each] for each in table.key]
    return str(values[0]) if len(values) == 1 else json.dumps(list(map(str, values)), ensure_ascii=False)
