"""Removing what the journal holds of more than a week ago.

Belongs here: what may go, and noting that something went which a table had not taken. Does not belong here: the journal
itself (journal.py), and how far each table is (how_far.py).
"""

from __future__ import annotations

from datetime import date, timedelta

from deltalake import CommitProperties, Transaction

from totesys_assets import engine
from totesys_assets.capture.how_far import taken
from totesys_assets.capture.journal import PRUNED, PRUNINGS, stretch_of
from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.log_piece import DAY, LSN, STRETCH, TABLE
from totesys_assets.lake.marks import mark
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import JOURNAL, Lake
from totesys_assets.sql_text import literal

_KEPT_DAYS = 7


def prune(lake: Lake, today: date) -> int:
    """Remove what the journal holds of more than a week ago; returns the rows.

    A table that had not taken all of its rows by then is compared.
    """
    held = lake.open(JOURNAL)
    if held is None:
        return 0
    stretch = stretch_of(held)
    places = "".join(
        f" WHEN {literal(table)} THEN {LSN} >= {each.since} OR {LSN} IN ({', '.join(map(str, each.also)) or 'NULL'})"
        for table, each in taken(Ledger(lake).newest(), stretch).items()
    )
    is_left = f"CASE {TABLE}{places} ELSE true END" if places else "true"
    old = f"{DAY} < '{today - timedelta(days=_KEPT_DAYS)}'"
    with engine.session() as connection:
        count, newest_left = connection.execute(
            f"SELECT count(*), max({LSN}) FILTER (WHERE {STRETCH} = {stretch} AND {is_left}) "
            f"FROM {register(connection, 'journal', held)} WHERE {old}"
        ).fetchall()[0]
    if count:
        kept_from = (newest_left + 1) if newest_left is not None else mark(held, PRUNED) or 0
        marks = [Transaction(PRUNED, kept_from), Transaction(PRUNINGS, (mark(held, PRUNINGS) or 0) + 1)]
        held.delete(old, commit_properties=CommitProperties(app_transactions=marks))
    return int(count)
