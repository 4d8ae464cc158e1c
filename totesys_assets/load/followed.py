"""Notes in the warehouse on which stretches of a fact's history have every committed version: readers see no lake.

Belongs here: writing these notes in the transactions that load. Does not belong here: when a table is followed
(capture/following.py).
"""

from __future__ import annotations

from datetime import datetime

import duckdb

from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.stretches import Stretch, stretches
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.lake.tables import Lake
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.notes import FOLLOWED
from totesys_assets.warehouse.warehouse import Warehouse, run

_FORGET = "DELETE FROM {notes} WHERE table_name = {table} AND followed_from NOT IN ({moments})"
# A note that says the same is not written again.
_NOTE = """
INSERT INTO {notes} (table_name, followed_from, followed_until, reason)
SELECT * FROM (VALUES {values}) AS found (table_name, followed_from, followed_until, reason)
WHERE NOT EXISTS (
    SELECT FROM {notes} AS noted
    WHERE (noted.table_name, noted.followed_from) = (found.table_name, found.followed_from)
        AND (noted.followed_until, noted.reason) IS NOT DISTINCT FROM (found.followed_until, found.reason)
)
ON CONFLICT (table_name, followed_from) DO UPDATE
SET followed_until = excluded.followed_until, reason = excluded.reason, noted_at = clock_timestamp()
"""


def note_followed(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, lake: Lake, table: Table) -> None:
    """Write down the stretches of a fact, in the transaction that loads it: what its lake does not know of is gone."""
    if not table.is_fact:
        return
    found = stretches(Ledger(lake).newest(), query_of(table.name).sources[0])
    notes, name = f"{quoted(warehouse.schema)}.{quoted(FOLLOWED)}", literal(table.name)
    moments = ", ".join(_moment(each.since) for each in found) or "NULL::timestamptz"
    forget = _FORGET.format(notes=notes, table=name, moments=moments)
    run(connection, forget if found else f"DELETE FROM {notes} WHERE table_name = {name}")
    if found:
        run(connection, _NOTE.format(notes=notes, values=", ".join(_row(name, each) for each in found)))


def _row(name: str, found: Stretch) -> str:
    reason = literal(found.reason) if found.reason is not None else "NULL"
    return f"({name}, {_moment(found.since)}, {_moment(found.until)}, {reason}::text)"


def _moment(moment: datetime | None) -> str:
    return f"{literal(moment.isoformat()) if moment is not None else 'NULL'}::timestamptz"
