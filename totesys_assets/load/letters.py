"""Notes on dead letters in the warehouse: how many rows of each source table are kept aside, and since when.

Belongs here: writing these notes in the transactions that load. Does not belong here: dead letters themselves, which
lie in the lake (capture/dead_letters.py), and their text, which is no reader's business.
"""

from __future__ import annotations

import duckdb

from totesys_assets.capture.dead_letters import open_letters
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.catalogue.queries import query_of
from totesys_assets.lake.tables import Lake
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.notes import DEAD_LETTER
from totesys_assets.warehouse.warehouse import Warehouse, run

# A note that says the same is not written again, and takes no lock.
_NOTE = """
INSERT INTO {notes} (table_name, open_rows, since)
SELECT * FROM (VALUES {values}) AS found (table_name, open_rows, since)
WHERE NOT EXISTS (
    SELECT FROM {notes} AS noted
    WHERE noted.table_name = found.table_name
        AND (noted.open_rows, noted.since) IS NOT DISTINCT FROM (found.open_rows, found.since)
)
ON CONFLICT (table_name) DO UPDATE
SET open_rows = excluded.open_rows, since = excluded.since, noted_at = clock_timestamp()
"""


def note_letters(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, lake: Lake, table: Table) -> None:
    """Write down the dead letters of the source tables that are noted with star ``table``, in its transaction."""
    names = _noted_with(table, warehouse.catalogue)
    if not names:
        return
    moments = {name: [at for (source, *_), at in open_letters(lake).items() if source == name] for name in names}
    values = ", ".join(
        f"({literal(name)}, {len(found)}::bigint, {literal(str(min(found))) if found else 'NULL'}::timestamptz)"
        for name, found in moments.items()
    )
    run(connection, _NOTE.format(notes=f"{quoted(warehouse.schema)}.{quoted(DEAD_LETTER)}", values=values))


def _noted_with(table: Table, catalogue: Catalogue) -> list[str]:
    """The source tables whose dead letters are noted with star ``table``: it is the last that is made of them.

    Not with each: loads of several tables at once would wait for one another.
    """
    last = {source: star for star in catalogue.star for source in query_of(star).sources}
    return [source for source, star in last.items() if star == table.name]
