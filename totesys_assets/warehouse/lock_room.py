"""Whether a server has room for the locks of many partitions: PostgreSQL keeps all sessions' locks in one table.

Belongs here: what is said where that table is full. Does not belong here: making partitions (months.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from totesys_assets.errors import PlatformError
from totesys_assets.warehouse.notes import Connection

# A partition with its indexes, its keys and what is put in their place takes up to 19 locks of the transaction that
# makes it. A quarter more leaves room for other sessions.
_LOCKS = 24
# Room is made for so many locks of each process that there may be.
_ROOM = """
SELECT max(setting::int) FILTER (WHERE name = 'max_locks_per_transaction'),
    sum(setting::int) FILTER (WHERE name <> 'max_locks_per_transaction')
FROM pg_settings WHERE name IN ('max_locks_per_transaction', 'max_connections', 'max_prepared_transactions',
    'max_worker_processes', 'max_wal_senders', 'autovacuum_max_workers')
"""


@contextmanager
def room_for(connection: Connection, partitions: int) -> Iterator[None]:
    """Raise PlatformError if the server can keep no more locks for the block, which makes ``partitions``, if any."""
    if not partitions:
        yield
        return
    ((now, sessions),) = connection.execute(_ROOM).fetchall()
    try:
        yield
    except psycopg.errors.OutOfMemory as error:
        if "shared memory" not in str(error):
            raise
        wanted = max(2 * now, -(-partitions * _LOCKS // sessions))
        raise PlatformError(
            f"The warehouse's server has no room for the locks of {partitions:,} partitions, one for each month since "
            f"TOTESYS_FIRST_DAY and each fact, and nothing has changed. Set its max_locks_per_transaction, which is "
            f"{now}, to {wanted} and start it anew."
        ) from None
