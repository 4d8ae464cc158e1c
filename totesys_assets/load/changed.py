"""What changed in a mart since it was loaded: its rows in the lake, compared with those of the version loaded then.

Belongs here: the note of that version, and the comparison. Does not belong here: loading the difference (load.py).

Most rows of a day stay as they are when an order of that day changes. Comparing the files of two versions costs much
less than merging all of their rows into PostgreSQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import duckdb
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.lake.files import listed
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import PROCESSED, Lake
from totesys_assets.load.staging import lake_column_names
from totesys_assets.sql_text import quoted
from totesys_assets.warehouse.notes import LAKE, NEWEST

Noted = Mapping[str, tuple[str, int]]


def version_note(mart: DeltaTable, loaded: Noted) -> str:
    """What to note when the warehouse has the rows of this version of ``mart``, and of its partitions ``loaded``.

    Files are never written again under the same name: so the rows are those of the note if the files are. A load that
    knows nothing of the note, as that of an older version of the platform, leaves other partitions.
    """
    states = (f"{partition} {state}" for partition, (state, _) in loaded.items() if partition not in (NEWEST, LAKE))
    digest = hashlib.sha256("\n".join([*sorted(_paths(mart)), *sorted(states)]).encode()).hexdigest()
    return f"{digest[:32]} {mart.version()}"


def version_loaded(lake: Lake, table: Table, now: DeltaTable, loaded: Noted) -> DeltaTable | None:
    """The version of a mart of which the warehouse has the rows. None if nothing tells, or files of it were removed."""
    note = loaded.get(NEWEST, ("", 0))[0]
    if not note:
        return None
    before = lake.find_version(int(note.rpartition(" ")[2]), PROCESSED, table.name)
    if before is None or version_note(before, loaded) != note or before.schema() != now.schema():
        return None
    return before if lake.has_files([*(_paths(before) - _paths(now))], PROCESSED, table.name) else None


def changes(
    connection: duckdb.DuckDBPyConnection, table: Table, before: DeltaTable, now: DeltaTable
) -> tuple[str, str]:
    """The rows of a mart that ``before`` does not have, and the keys that ``now`` has not, each as a table of DuckDB.

    The rows of all files that are not in both are ``mart_now`` then. Of each key ``before`` has one row.
    """
    held, found = _paths(before), _paths(now)
    columns, keys = ", ".join(lake_column_names(table)), ", ".join(quoted(part) for part in table.primary_key)
    register(connection, "mart_now", now, named=found - held)
    register(connection, "mart_before", before, named=held - found)
    for name, chosen in (("mart_changed", columns), ("mart_gone", keys)):
        first, second = ("mart_now", "mart_before") if name == "mart_changed" else ("mart_before", "mart_now")
        query = f"SELECT {chosen} FROM {first} EXCEPT SELECT {chosen} FROM {second}"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    return "mart_changed", "mart_gone"


def _paths(table: DeltaTable) -> set[str]:
    return {str(path) for path in listed(table).column("path").to_pylist()}
