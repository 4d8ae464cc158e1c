"""What the warehouse knows of its loads, of dead letters and of the last audit: its tables of notes.

Belongs here: these tables, and reading the ledger. Does not belong here: writing them, which is load/ and audit/, and
deciding on them.

A row of ``_ledger`` is a partition of a table with the state that it was loaded from; two more partitions are notes on
a whole table. The other notes are for readers, who see neither the lake nor Dagster.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from totesys_assets.catalogue.catalogue import Catalogue
from totesys_assets.sql_text import quoted

# Two notes that stand beside the partitions of a table. NEWEST: up to which moment its rows were loaded, and from which
# table of the lake. LAKE: the tables of versions that it was made of (load/origin.py).
NEWEST, LAKE = "newest", "lake"

LEDGER, MIGRATION, DEAD_LETTER, FINDING, FOLLOWED = "_ledger", "_migration", "_dead_letter", "_finding", "_followed"
# These two PostgreSQL keeps itself (kept.py).
RECORDED, DESIGN_SALES = "_recorded", "_design_sales"
# Each with its columns and keys, and what it holds.
NOTES = {
    LEDGER: """
CREATE TABLE IF NOT EXISTS {} (
    table_name text NOT NULL,
    partition text NOT NULL,
    state text NOT NULL,
    rows bigint NOT NULL,
    run_id text NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (table_name, partition)
);
COMMENT ON TABLE {} IS 'What was loaded, committed together with the rows'
""",
    MIGRATION: """
CREATE TABLE IF NOT EXISTS {} (digest text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
COMMENT ON TABLE {} IS 'Versions of the schema that were applied here'
""",
    DEAD_LETTER: """
CREATE TABLE IF NOT EXISTS {} (
    table_name text PRIMARY KEY,
    open_rows bigint NOT NULL,
    since timestamptz,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE {} IS 'How many rows of each source table are dead letters, breaking a type or a rule, and since when'
""",
    FINDING: """
CREATE TABLE IF NOT EXISTS {} (
    asset text NOT NULL,
    check_name text NOT NULL,
    outcome text NOT NULL,
    detail text NOT NULL,
    run_id text,
    audited_at timestamptz NOT NULL,
    PRIMARY KEY (asset, check_name)
);
COMMENT ON TABLE {} IS 'What the last audit found, check by check. Run_id: the run in Dagster, if it was one'
""",
    FOLLOWED: """
CREATE TABLE IF NOT EXISTS {} (
    table_name text NOT NULL,
    followed_from timestamptz NOT NULL,
    followed_until timestamptz,
    reason text,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (table_name, followed_from)
);
COMMENT ON TABLE {} IS 'The stretches of each fact in which every committed version was seen, from the log of ToteSys. '
    'Outside of them rows were compared: of a row that changed more than once between two refreshes, the last state '
    'was seen. Without followed_until a stretch goes on, up to the last load; reason: why it ended'
""",
    RECORDED: """
CREATE TABLE IF NOT EXISTS {} (
    table_name text NOT NULL,
    recorded_on date NOT NULL,
    operation text NOT NULL,
    versions bigint NOT NULL,
    first_recorded_at timestamptz NOT NULL,
    last_recorded_at timestamptz NOT NULL,
    first_record bigint NOT NULL,
    last_record bigint NOT NULL,
    PRIMARY KEY (table_name, recorded_on, operation)
);
COMMENT ON TABLE {} IS 'How many versions of each fact were first seen on each day (UTC), with moments and numbers of '
    'their records'
""",
    # A name may be too long for a key, and where a table without one is published, PostgreSQL lets nobody delete.
    DESIGN_SALES: """
CREATE TABLE IF NOT EXISTS {} (
    created_date date NOT NULL,
    currency_id int NOT NULL,
    design_name text NOT NULL,
    orders bigint NOT NULL,
    units bigint NOT NULL,
    revenue numeric NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (created_date, number)
);
COMMENT ON TABLE {} IS 'Orders as they are now, by day, currency and name of the design: many designs share a name, '
    'which may change. Orders whose design is missing have an empty name'
""",
}

Connection = psycopg.Connection[Any]


class Notes:
    """The notes in one schema, as one transaction sees them."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema
        self._is_there = exists(connection, schema, LEDGER)

    def states(self) -> dict[str, dict[str, str]]:
        """State of every partition loaded, of the tables that are there: table -> partition -> state."""
        result: dict[str, dict[str, str]] = {}
        for table, partition, state in self._rows(
            "SELECT table_name, partition, state FROM {} WHERE partition <> ALL ({notes}) "
            "AND to_regclass(quote_ident({schema}) || '.' || quote_ident(table_name)) IS NOT NULL",
            notes=[NEWEST, LAKE],
            schema=self._schema,
        ):
            result.setdefault(table, {})[partition] = state
        return result

    def origins(self) -> dict[str, str]:
        """The note on where each table was loaded from: table -> text."""
        return dict(self._rows("SELECT table_name, state FROM {} WHERE partition = {note}", note=LAKE))

    def mark(self) -> str:
        """Differs whenever something was loaded or dropped, or the database is another or an older one."""
        query = (
            "SELECT concat_ws(' ', (SELECT oid FROM pg_database WHERE datname = current_database()), "
            "(SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident({schema})) "
            "AND relkind IN ('r', 'p', 'v')), count(*), max(loaded_at)) FROM {}"
        )
        return next((str(mark) for (mark,) in self._rows(query, schema=self._schema)), "empty")

    def moments(self) -> dict[str, datetime]:
        """When each table was last loaded."""
        return dict(self._rows("SELECT table_name, max(loaded_at) FROM {} GROUP BY 1"))

    def rows(self) -> dict[str, int]:
        """Rows of each table as they were counted when they were loaded."""
        return dict(self._rows("SELECT table_name, sum(rows)::bigint FROM {} GROUP BY 1"))

    def _rows(self, query: str, **values: object) -> Iterator[tuple[Any, ...]]:
        if self._is_there:
            ledger = sql.Identifier(self._schema, LEDGER)
            # Not as parameters: a name may have a percent sign, which would be taken for one.
            literals = {name: sql.Literal(value) for name, value in values.items()}
            yield from self._connection.execute(sql.SQL(query).format(ledger, **literals))


def create_notes(connection: Connection, schema: str) -> None:
    """Create the tables of notes that are missing."""
    for name, statements in NOTES.items():
        table = sql.Identifier(schema, name)
        connection.execute(sql.SQL(statements).format(*[table] * statements.count("{}")))


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
