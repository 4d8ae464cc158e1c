"""Locks on the tables of ToteSys, taken before a snapshot: what it shows is not truncated or rewritten under it.

TRUNCATE and a rewriting ALTER TABLE do not keep what older snapshots see: to a snapshot from before them, the table is
empty. A snapshot that is taken while the table and its parts are locked cannot be older.

Belongs here: the statement, and which tables another session keeps from us. Does not belong here: the snapshot.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from totesys_assets.postgres.session_settings import begin, open_session
from totesys_assets.sql_text import quoted

if TYPE_CHECKING:
    import psycopg

# For each lock. Who changes a table is seldom quicker than this, or never: the next refresh finds out.
LOCK_TIMEOUT = {"lock_timeout": "3s"}

# Who has a lock on a relation of the table that no reader gets past, or waits for one before us.
_BLOCKER = """
WITH RECURSIVE relations (oid) AS (
    SELECT to_regclass(%s)::oid UNION SELECT inhrelid FROM pg_inherits JOIN relations ON inhparent = oid
)
SELECT locks.pid, locks.granted, pg_get_userbyid(activity.usesysid), activity.application_name, pg_is_in_recovery()
FROM pg_locks AS locks LEFT JOIN pg_stat_activity AS activity USING (pid)
WHERE locks.relation IN (SELECT oid FROM relations) AND locks.mode = 'AccessExclusiveLock'
    AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY locks.granted DESC, locks.pid LIMIT 1
"""


def relation(schema: str, table: str) -> str:
    """A table by its full name, which no search_path can lead elsewhere."""
    return f"{quoted(schema)}.{quoted(table)}"


def lock_statement(schema: str, tables: Collection[str]) -> str:
    """Locks tables, and all their parts with them, against everything but reading and writing rows.

    Always in the same order. It takes no snapshot, needs no more than SELECT, and works on a standby.
    """
    return f"LOCK TABLE {', '.join(relation(schema, name) for name in sorted(tables))} IN ACCESS SHARE MODE"


def busy(url: str, variable: str, schema: str, tables: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """The tables that can be locked now, and of those that another session holds, a clause that names that session.

    A table in neither cannot be locked at all: it is missing, say, or no table. Raises ConnectionFailed.
    """
    import psycopg

    free: list[str] = []
    held: dict[str, str] = {}
    with open_session(url, variable=variable, read_only=True) as connection:
        begin(connection, variable)
        for name in sorted(tables):
            try:
                with connection.transaction():  # a savepoint
                    connection.execute(f"{lock_statement(schema, [name])} NOWAIT".encode())
            except psycopg.errors.LockNotAvailable:
                held[name] = _who(connection, relation(schema, name))
            except psycopg.Error:
                if connection.closed:
                    raise
            else:
                free.append(name)
        connection.rollback()
    return free, held


def _who(connection: psycopg.Connection[tuple[object, ...]], table: str) -> str:
    found = connection.execute(_BLOCKER, [table]).fetchone()
    if found is None:
        return "another session had it locked for itself a moment ago"
    pid, granted, role, application, standby = found
    if pid is None:
        return "a prepared transaction has it locked for itself"
    if standby:
        return f"a change that comes from the primary has it locked (process {pid})"
    who = f"process {pid} (role {role}, application {application or 'without a name'})"
    return f"{who} has it locked for itself" if granted else f"{who} waits to lock it for itself"
