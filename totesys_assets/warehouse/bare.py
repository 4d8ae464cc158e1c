"""A table without keys, counts and most indexes while it is filled for the first time: they are made behind its rows.

Belongs here: taking them off an empty table, making them again, and telling where they are missing. Does not belong
here: filling it (load/copying.py).

Keys that are made behind the rows cost half as much, and triggers that count what is added need a copy of all of it.
Each of the three steps has a transaction of its own, so that readers wait for none but a short one: off, while nobody
can load the table; the rows, with unique indexes, counts and triggers; then the indexes become the keys. A migration
completes what a killed process leaves.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.postgres import locks
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.kept import COUNTING, anew, counting
from totesys_assets.warehouse.notes import Connection
from totesys_assets.warehouse.recorded import Inserted

_IS_OURS = (
    "SELECT relkind = 'r' AND pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE') "
    "AND relreplident = 'd' FROM pg_class WHERE oid = to_regclass(%s) "
    "AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = ANY (%s) AND tgenabled <> 'O')"
)
# Of an index without first versions, which are all that a table is filled with: each is cheaper to leave out as it
# comes than to be read once more behind the others.
_FIRST_ROWS = "WHERE _operation <> 'insert'"
_KEYS_HELD = (
    "SELECT relname::text, conname::text FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid "
    "WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND contype IN ('p', 'u')"
)


def keys(table: Table) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The keys of a table: name -> kind and columns."""
    found = {f"{table.name}_pkey": ("PRIMARY KEY", table.primary_key)}
    return found | ({f"{table.name}_version_key": ("UNIQUE", table.version_key)} if table.is_fact else {})


def keys_with_day(fact: Table) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The keys of a partitioned fact: they have the column of its partitions."""
    day = str(fact.day_column)
    return {key: (kind, columns if day in columns else (*columns, day)) for key, (kind, columns) in keys(fact).items()}


def indexes(schema: str, table: Table) -> Iterator[str]:
    """Statements that make the other indexes of a table, where they are missing."""
    for name, definition in table.indexes:
        yield f"CREATE INDEX IF NOT EXISTS {quoted(name)} ON {_name(schema, table)} {definition}"


def take_off(connection: Connection, schema: str, table: Table) -> bool:
    """Take off all that is made behind the rows, in the transaction of ``connection``. False where it stays.

    It stays on a table that has rows, that the login does not own, or that somebody reads just now, where it cannot be
    made again as it was, where something depends on a key, and where an event trigger forbids it. The caller holds the
    lock of the table's loads.
    """
    name = _name(schema, table)
    is_empty = f"SELECT FROM {name} LIMIT 1".encode()
    if connection.execute(_IS_OURS, [name, list(COUNTING)]).fetchone() != (True,):
        return False
    if connection.execute(is_empty).fetchone() is not None:  # also asked before the lock, which readers would wait for
        return False
    try:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '1s'")  # readers queue behind a lock that is waited for
            connection.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE".encode())
            if connection.execute(is_empty).fetchone() is not None:
                return False
            for key in keys(table):
                connection.execute(f"ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {quoted(key)}".encode())
            for index in (*keys(table), *(each for each, of in table.indexes if _FIRST_ROWS not in of)):
                connection.execute(f"DROP INDEX IF EXISTS {quoted(schema)}.{quoted(index)}".encode())
            for trigger in COUNTING:
                connection.execute(f"DROP TRIGGER IF EXISTS {trigger} ON {name}".encode())
    except psycopg.Error:
        if connection.broken:
            raise
        return False
    return True


def behind(schema: str, table: Table) -> Iterator[str]:
    """Statements that make all of it, for which no reader waits."""
    yield from indexes_behind(schema, table)
    yield from counts_behind(schema, table)


def indexes_behind(schema: str, table: Table) -> Iterator[str]:
    """Statements that make unique indexes, which can become keys, and the other indexes."""
    name = _name(schema, table)
    for key, (_, columns) in keys(table).items():
        yield f"CREATE UNIQUE INDEX IF NOT EXISTS {quoted(key)} ON {name} ({', '.join(map(quoted, columns))})"
    yield from indexes(schema, table)


def counts_behind(schema: str, table: Table, known: Inserted | None = None) -> Iterator[str]:
    """Statements that make triggers and counts. ``known``: the records, if they need not be counted."""
    if table.is_fact:
        yield from counting(schema, table)
        yield anew(schema, table, known)


def is_filling(schema: str, table: Table) -> str:
    """Query that is 1 while a table has no key: it is being filled, and nobody sees a row of it; else 0."""
    held = f"conrelid = to_regclass({literal(_name(schema, table))}) AND contype = 'p'"
    return f"SELECT (NOT EXISTS (SELECT FROM pg_constraint WHERE {held}))::int"


def attach(connection: Connection, schema: str, table: Table) -> None:
    """Make the keys that are missing, out of their unique indexes if these are there."""
    name, held = _name(schema, table), {key for each, key in _keys_held(connection, schema) if each == table.name}
    kind_of = connection.execute("SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass", [name]).fetchone()
    is_parted = kind_of == (True,)
    for key, (kind, columns) in (keys_with_day(table) if is_parted else keys(table)).items():
        if key in held:
            continue
        index = connection.execute("SELECT to_regclass(%s)", [f"{quoted(schema)}.{quoted(key)}"]).fetchone()
        has_index = index != (None,) and not is_parted  # of which PostgreSQL makes no key of a partitioned table
        of = f"USING INDEX {quoted(key)}" if has_index else f"({', '.join(map(quoted, columns))})"
        connection.execute(f"ALTER TABLE {name} ADD CONSTRAINT {quoted(key)} {kind} {of}".encode())


def without_keys(connection: Connection, schema: str, catalogue: Catalogue) -> set[str]:
    """The tables that have not all of their keys."""
    held = set(_keys_held(connection, schema))
    return {
        table.name for table in catalogue.warehouse.values() for key in keys(table) if (table.name, key) not in held
    }


def is_being_filled(connection: Connection, schema: str, name: str) -> bool:
    """True while some process loads the table of that ``name``: what it has taken off, it is about to make again."""
    lock = locks.key(locks.LOAD_SPACE, f"{schema}.{name}")
    return connection.execute(f"SELECT pg_try_advisory_xact_lock({lock})".encode()).fetchone() != (True,)


def _keys_held(connection: Connection, schema: str) -> list[tuple[str, str]]:
    return [(str(table), str(key)) for table, key in connection.execute(_KEYS_HELD, [schema])]


def _name(schema: str, table: Table) -> str:
    return f"{quoted(schema)}.{quoted(table.name)}"
