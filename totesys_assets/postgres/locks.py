"""Advisory locks in the warehouse: waiting for them for seconds, and naming the sessions that hold them.

Belongs here: the keys of the locks, and waiting for them. Does not belong here: what is done under a lock.

All locks belong to a transaction, never to a session, because a pooler gives the next transaction another session.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from totesys_assets.errors import PlatformError
from totesys_assets.sql_text import literal, quoted

# Two platforms may share a server: their locks differ by the schema's name. These numbers differ from others' locks.
LOAD_SPACE = 7_083_379
# Every run holds this lock until it ends. A killed process loses its session, and with it the lock.
RUN_SPACE = 7_083_380
# Loads of one table run one after the other. A load that waits for longer than this fails, and names the session.
TIMEOUT_SECONDS = 20.0
# Of ranges, which meet at a table as a matter of course. One loads for as long as its rows take, and a session whose
# process is gone or stopped ends by itself (warehouse.py).
RANGE_TIMEOUT_SECONDS = 12 * 3_600.0
_PAUSE_SECONDS = 0.1
# Asked by name: nobody's search_path takes part.
_SESSION = (
    "SELECT DISTINCT format('session %s (role %s%s%s)', pid, usename, ', ' || nullif(application_name, ''), "
    "', from ' || client_addr) FROM pg_catalog.pg_locks JOIN pg_catalog.pg_stat_activity USING (pid) "
    "WHERE granted AND pid <> pg_catalog.pg_backend_pid() AND {what}"
)
Rows = Callable[[str], Iterable[tuple[object, ...]]]


def key(space: int, name: str) -> str:
    """The two numbers of an advisory lock, as PostgreSQL's functions take them."""
    return f"{space}, hashtext({literal(name)})"


def wait(rows: Rows, space: int, name: str, what: str, timeout: float = TIMEOUT_SECONDS) -> None:
    """Take the advisory lock for the rest of the transaction in which ``rows`` runs a query.

    It is asked for again and again, so that an interrupt ends the waiting. Raises PlatformError, which names the
    session that holds it, after ``timeout`` seconds; ``what`` says what that session does.
    """
    deadline = time.monotonic() + timeout
    while True:
        ((taken,),) = rows(f"SELECT pg_try_advisory_xact_lock({key(space, name)})::int")
        if taken:
            return
        if time.monotonic() >= deadline:
            holders = _listed(rows(holders_query(space, name)))
            raise PlatformError(
                f"{what}: waited {timeout:.0f} s for {holders}. Nothing is lost; refresh again when that is done, or "
                "end that session if nothing comes of it."
            )
        time.sleep(_PAUSE_SECONDS)


def holders_query(space: int, name: str) -> str:
    """Query of the sessions that hold an advisory lock, each in words."""
    return _SESSION.format(
        what="locktype = 'advisory' AND objsubid = 2 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        f"AND classid = {space} AND objid::bigint = hashtext({literal(name)})::bigint & 4294967295"
    )


def users_query(schema: str) -> str:
    """Query of the sessions that hold locks on tables and views of ``schema``, each in words."""
    return _SESSION.format(
        what="locktype = 'relation' AND relation IN "
        f"(SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace({literal(quoted(schema))}))"
    )


def in_the_way(rows: Rows, schema: str) -> PlatformError:
    """What to say when a lock on a table or view of ``schema`` was not had in time."""
    return PlatformError(
        f'A table or view in schema "{schema}" of the warehouse is in use by {_listed(rows(users_query(schema)))}, and '
        "was not had in time. Nothing was changed; end that session's transaction, then do it again."
    )


def _listed(sessions: Iterable[tuple[object, ...]]) -> str:
    return " and ".join(str(session) for (session,) in sessions) or "a session that is gone by now"
