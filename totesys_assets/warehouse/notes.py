"""What the warehouse knows of its loads: the table ``_ledger``, written in the transactions that load.

Belongs here: reading it. Does not belong here: writing it, which is load/load.py, and deciding on it.

A row is a partition of a table with the state that it was loaded from; two more partitions are notes on a whole table.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from totesys_assets.catalogue.catalogue import Catalogue
from totesys_assets.engine import literal, quoted

# Two notes that stand beside the partitions of a table. NEWEST: up to which moment its rows were loaded, and from which
# table of the lake. LAKE: the tables of versions that it was made of (load/origin.py).
NEWEST, LAKE = "newest", "lake"

Connection = psycopg.Connection[Any]


class Notes:
    """The notes in one schema, as one transaction sees them."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema
        self._is_there = exists(connection, schema, "_ledger")

    def states(self) -> dict[str, dict[str, str]]:
        """State of every partition loaded, of the tables that are there: table -> partition -> state."""
        result: dict[str, dict[str, str]] = {}
        there = "to_regclass(quote_ident(%(schema)s) || '.' || quote_ident(table_name)) IS NOT NULL"
        for table, partition, state in self._rows(
            f"SELECT table_name, partition, state FROM {{}} WHERE partition <> ALL (%(notes)s) AND {there}",
            notes=[NEWEST, LAKE],
            schema=self._schema,
        ):
            result.setdefault(table, {})[partition] = state
        return result

    def origins(self) -> dict[str, str]:
        """The note on where each table was loaded from: table -> text."""
        return dict(self._rows("SELECT table_name, state FROM {} WHERE partition = %(note)s", note=LAKE))

    def mark(self) -> str:
        """Differs whenever something was loaded or dropped, or the database is another or an older one."""
        query = (
            "SELECT concat_ws(' ', (SELECT oid FROM pg_database WHERE datname = current_database()), "
            "(SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s)) "
            "AND relkind IN ('r', 'p', 'v')), count(*), max(loaded_at)) FROM {}"
        )
        return next((str(mark) for (mark,) in self._rows(query, schema=self._schema)), "empty")

    def since(self, moment: str) -> tuple[list[str], str]:
        """The tables loaded after ``moment``, and the moment of the last load."""
        query = (
            "SELECT coalesce(array_agg(DISTINCT table_name), '{{}}'), coalesce(max(loaded_at)::text, %(moment)s) "
            "FROM {} WHERE loaded_at > %(moment)s::timestamptz"
        )
        return next(((list(tables), str(newest)) for tables, newest in self._rows(query, moment=moment)), ([], moment))

    def moments(self) -> dict[str, datetime]:
        """When each table was last loaded."""
        return dict(self._rows("SELECT table_name, max(loaded_at) FROM {} GROUP BY 1"))

    def rows(self) -> dict[str, int]:
        """Rows of each table as they were counted when they were loaded."""
        return dict(self._rows("SELECT table_name, sum(rows)::bigint FROM {} GROUP BY 1"))

    def _rows(self, query: str, **values: object) -> Iterator[tuple[Any, ...]]:
        if self._is_there:
            ledger = sql.Identifier(self._schema, "_ledger")
            yield from self._connection.execute(sql.SQL(query).format(ledger), values)


def exists(connection: Connection, schema: str, relation: str) -> bool:
    """True when there is such a table or view."""
    name = f"{quoted(schema)}.{quoted(relation)}"
    return bool(connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone() == (True,))


def contents(
    connection: Connection, schema: str, catalogue: Catalogue, most: int | None
) -> Iterator[tuple[str, int | None, int]]:
    """(table, rows, versions) of every table that is there: see ``Warehouse.contents``."""
    noted = Notes(connection, schema).rows() if most is not None else {}
    for table in catalogue.warehouse.values():
        if most is not None and noted.get(table.name, 0) > most:
            yield table.name, None if table.is_fact else noted[table.name], noted[table.name]
        elif exists(connection, schema, table.name):
            versions = _count(connection, schema, table.name)
            current = f"current_{table.name.removeprefix('fact_')}"
            yield table.name, _count(connection, schema, current) if table.is_fact else versions, versions


def _count(connection: Connection, schema: str, relation: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, relation))
    return int(connection.execute(query).fetchall()[0][0])


def ledger_query(schema: str, table: str) -> str:
    """Query of the partitions and notes of one table, for a session that is not psycopg's."""
    return f"SELECT partition, state, rows FROM {quoted(schema)}._ledger WHERE table_name = {literal(table)}"
