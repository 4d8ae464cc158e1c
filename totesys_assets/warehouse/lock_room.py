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
# makes it. As many again leave room for other sessions.
_LOCKS = 38
_ROOM = """
SELECT current_setting('max_locks_per_transaction')::int,
    current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int
"""


@contextmanager
def room_for(connection: Connection, partitions: int) -> Iterator[None]:
    """Raise PlatformError if the server can keep no more locks for the block, which makes so many ``partitions``."""
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
            f"{now}, to {wanted} and start it anew, or set TOTESYS_FIRST_DAY to a later day."
        ) from None
