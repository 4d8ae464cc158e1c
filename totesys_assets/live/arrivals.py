"""Arrivals: what was loaded into the warehouse since the last look, and how long after it happened in ToteSys.

Belongs here: asking the warehouse, and the sentence. Does not belong here: printing it, and when to look (session.py).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import sql

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.warehouse.notes import FOLLOWED, Connection, Notes, exists
from totesys_assets.warehouse.warehouse import Warehouse

# Calls that may go by, while more and more is loaded, until it is told.
_MOST_LOOKS = 5


@dataclass(frozen=True)
class _Fact:
    """What a fact has beyond the record that was the newest: ``oldest`` is the first moment of its new versions."""

    newest: int
    count: int
    oldest: datetime | None


class Arrivals:
    """What is new in the warehouse since the last call of ``next``, or since this was made.

    The making and each call raise PlatformError or psycopg.Error if the warehouse cannot be asked. What a call that
    fails would have told, a later one tells.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse, self._waited = warehouse, 0
        self._first: dict[str, datetime] = {}
        with warehouse.connect(snapshot=True) as connection:
            self._loaded = self._looked = Notes(connection, warehouse.schema).moments()
            facts = self._there(connection, self._loaded.keys())
            self._newest = {each.name: self._last(connection, each) for each in facts}

    def next(self) -> str:
        """What was loaded, in a sentence; empty if nothing was, or if something was since the last call.

        A refresh loads several tables one after the other, which are told of together.
        """
        with self._warehouse.connect(snapshot=True) as connection:
            loaded = Notes(connection, self._warehouse.schema).moments()
            changed = {name: moment for name, moment in loaded.items() if self._loaded.get(name) != moment}
            self._first = changed | self._first  # of several loads of a table, the first
            if loaded != self._looked and self._waited < _MOST_LOOKS:
                self._looked, self._waited = loaded, self._waited + 1
                return ""
            facts = {each.name: self._fact(connection, each) for each in self._there(connection, changed.keys())}
            followed = self._followed(connection) if facts else {}
        first, self._first = self._first, {}
        self._loaded, self._looked, self._waited = loaded, loaded, 0
        self._newest |= {name: fact.newest for name, fact in facts.items()}
        moments = {name: fact.oldest for name, fact in facts.items() if fact.oldest is not None}
        counts = {name: facts[name].count for name in moments}
        delay = max((first[name] - oldest for name, oldest in moments.items()), default=None)
        # What was seen when a stretch began was not told by the log.
        by_log = all(name in followed and followed[name] < oldest for name, oldest in moments.items())
        return _sentence(counts, sorted(changed.keys() - counts.keys()), delay, by_log=by_log)

    def _there(self, connection: Connection, tables: Set[str]) -> list[Table]:
        """The facts among the tables, if they are still there."""
        facts = [each for each in self._warehouse.catalogue.warehouse.values() if each.is_fact and each.name in tables]
        return [each for each in facts if exists(connection, self._warehouse.schema, each.name)]

    def _last(self, connection: Connection, table: Table) -> int:
        query = sql.SQL("SELECT coalesce(max({}), 0) FROM {}").format(sql.Identifier(table.key), self._name(table))
        (number,) = next(iter(connection.execute(query)))
        return int(number)

    def _fact(self, connection: Connection, table: Table) -> _Fact:
        query = sql.SQL("SELECT count(*), min(_recorded_at) FROM {} WHERE {} > {}").format(
            self._name(table), sql.Identifier(table.key), sql.Literal(self._newest.get(table.name, 0))
        )
        return _Fact(self._last(connection, table), *next(iter(connection.execute(query))))

    def _name(self, table: Table) -> sql.Identifier:
        return sql.Identifier(self._warehouse.schema, table.name)

    def _followed(self, connection: Connection) -> dict[str, datetime]:
        """The facts that are followed in the log, and since when: later versions have the moment of their commit."""
        if not exists(connection, self._warehouse.schema, FOLLOWED):
            return {}
        query = sql.SQL("SELECT table_name, max(followed_from) FROM {} WHERE followed_until IS NULL GROUP BY 1")
        return dict(connection.execute(query.format(sql.Identifier(self._warehouse.schema, FOLLOWED))).fetchall())


def _sentence(counts: dict[str, int], others: list[str], delay: timedelta | None, *, by_log: bool) -> str:
    """The facts with the number of their new versions, the other tables, and the longest delay of a version.

    Without the log a version has the moment at which it was seen. A delay below zero is that of clocks that differ.
    """
    if not counts and not others:
        return ""
    after = ""
    if delay is not None and delay >= timedelta():
        most = "" if sum(counts.values()) == 1 else "at most "
        after = f" ({most}{delay.total_seconds():,.1f} s after {'its commit in ToteSys' if by_log else 'it was seen'})"
    return f"loaded {', '.join([*(f'{name} +{count:,}' for name, count in counts.items()), *others])}{after}"
