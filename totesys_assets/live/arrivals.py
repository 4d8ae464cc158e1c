"""Arrivals: what was loaded into the warehouse since the last look, and how long after it happened in ToteSys.

Belongs here: asking the warehouse, and the sentence. Does not belong here: printing it, and when to look (session.py).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import sql

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.counting import counted
from totesys_assets.warehouse.notes import FOLLOWED, Connection, Notes, exists
from totesys_assets.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class _Versions:
    """New records of a fact: how many, and the time from the oldest one's moment until it was loaded."""

    fact: str
    count: int
    delay: timedelta


class Arrivals:
    """What is new in the warehouse since the last call of ``next``, or since this was made.

    The making and each call raise PlatformError or psycopg.Error if the warehouse does not answer; what was loaded
    meanwhile is told by the next call.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._last: dict[str, int] = {}
        with warehouse.connect(snapshot=True) as connection:
            self._loaded = Notes(connection, warehouse.schema).moments()
            for table in self._facts(connection, self._loaded.keys()):
                self._last[table.name] = self._newest(connection, table)

    def next(self) -> str:
        """What was loaded, in a sentence; empty if nothing was."""
        with self._warehouse.connect(snapshot=True) as connection:
            loaded = Notes(connection, self._warehouse.schema).moments()
            tables = {name for name, moment in loaded.items() if self._loaded.get(name) != moment}
            facts = self._facts(connection, tables)
            arrived = [each for table in facts if (each := self._new(connection, table, loaded[table.name]))]
            is_followed = bool(arrived) and {each.fact for each in arrived} <= self._followed(connection)
            for table in facts:
                self._last[table.name] = self._newest(connection, table)
        self._loaded = loaded
        return _sentence(arrived, sorted(tables - {each.fact for each in arrived}), is_followed=is_followed)

    def _facts(self, connection: Connection, tables: Set[str]) -> list[Table]:
        """The facts among the tables, if they are still there."""
        facts = [each for each in self._warehouse.catalogue.warehouse.values() if each.is_fact and each.name in tables]
        return [each for each in facts if exists(connection, self._warehouse.schema, each.name)]

    def _newest(self, connection: Connection, table: Table) -> int:
        query = sql.SQL("SELECT coalesce(max({}), 0) FROM {}").format(sql.Identifier(table.key), self._name(table.name))
        (number,) = next(iter(connection.execute(query)))
        return int(number)

    def _new(self, connection: Connection, table: Table, loaded: datetime) -> _Versions | None:
        query = sql.SQL("SELECT count(*), min(_recorded_at) FROM {} WHERE {} > {}").format(
            self._name(table.name), sql.Identifier(table.key), sql.Literal(self._last.get(table.name, 0))
        )
        count, oldest = next(iter(connection.execute(query)))
        return _Versions(table.name, count, loaded - oldest) if count else None

    def _followed(self, connection: Connection) -> set[str]:
        """The facts that are followed in the log: the moment of each version is that of its commit."""
        if not exists(connection, self._warehouse.schema, FOLLOWED):
            return set()
        query = sql.SQL("SELECT table_name FROM {} WHERE followed_until IS NULL").format(self._name(FOLLOWED))
        return {name for (name,) in connection.execute(query)}

    def _name(self, table: str) -> sql.Identifier:
        return sql.Identifier(self._warehouse.schema, table)


def _sentence(arrived: list[_Versions], others: list[str], *, is_followed: bool) -> str:
    """The facts with the number of their versions, the other tables, and the longest delay.

    Without the log a version has the moment at which it was seen. A delay below zero is that of clocks that differ.
    """
    parts = [f"{each.fact} ({counted(each.count, 'new version')})" for each in arrived] + others
    if not parts:
        return ""
    delay = max((each.delay.total_seconds() for each in arrived), default=-1.0)
    since = "its commit in ToteSys" if is_followed else "it was seen"
    return f"loaded {', '.join(parts)}" + (f", at most {delay:.1f} s after {since}" if delay >= 0 else "")
