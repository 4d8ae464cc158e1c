"""What the journal has of one stretch of the log, as far as every look asks for it: of no more rows than are new.

Belongs here: which transactions a snapshot does not show, and of each table where its newest change is. Does not belong
here: what the changes are (log_lines.py), and what follows for a table (following.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.capture.log_piece import LSN, STRETCH, TABLE
from totesys_assets.lake.read import register
from totesys_assets.source.interface import SourceSnapshot

# What was found last: of which journal and stretch, up to which position, and of each table the newest change before
# it. To read a million rows for it takes 8 ms. Of what comes before a position at which a journal was complete, nothing
# is added any more.
_LAST: list[tuple[str, int, int, Mapping[str, int]]] = []


def hidden_transactions(held: DeltaTable, stretch: int, until: int, snapshot: SourceSnapshot) -> tuple[int, ...]:
    """The positions before ``until`` of the transactions that a snapshot does not show.

    Of files in which every transaction was over before it, nothing is read, unless ids begin anew while it is open.
    """
    ranges = snapshot.may_hide()
    if not ranges:
        return ()
    within = ("xid", *ranges[0]) if len(ranges) == 1 else None
    ids = " OR ".join(f"xid BETWEEN {first} AND {last}" for first, last in ranges)
    with engine.session() as connection:
        rows = connection.execute(
            f"SELECT DISTINCT {LSN}, xid FROM {register(connection, 'journal', held, within=within)} "
            f"WHERE {STRETCH} = {stretch} AND {LSN} < {until} AND ({ids}) ORDER BY 1"
        ).to_arrow_table()
    positions, xids = (np.asarray(rows.column(name).combine_chunks(), np.int64) for name in (LSN, "xid"))
    return tuple(positions[snapshot.hides(xids)].tolist())


def newest_changes(held: DeltaTable, stretch: int, until: int) -> dict[str, int]:
    """Of each table that has changes before ``until``, up to which the journal is complete: where the newest is.

    A process reads what is new since it asked last, of the same journal.
    """
    since, found = 0, dict[str, int]()
    for journal, of_stretch, position, newest in tuple(_LAST):
        if (journal, of_stretch) == (held.table_uri, stretch) and position <= until:
            since, found = position, dict(newest)
    if since < until:
        with engine.session() as connection:
            journal = register(connection, "journal", held, within=(LSN, since, until))
            rows = connection.execute(
                f"SELECT {TABLE}, max({LSN}) FROM {journal} "
                f"WHERE {STRETCH} = {stretch} AND {LSN} >= {since} AND {LSN} < {until} GROUP BY 1"
            ).fetchall()
        found.update(rows)
        _LAST[:] = [(held.table_uri, stretch, until, found)]
    return found
