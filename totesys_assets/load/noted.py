"""What is noted in the warehouse of a table's last load: the states of its partitions, and which lake it came from.

Belongs here: reading and writing these notes in the transaction of a load. Does not belong here: what follows from them
(load.py), and the lake that is named (origin.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.sql_text import literal, quoted
from totesys_assets.transform.build import built_from
from totesys_assets.warehouse.notes import NEWEST
from totesys_assets.warehouse.warehouse import Warehouse, rows, run


def held_of(star: DeltaTable) -> tuple[str, int]:
    """Which table of rows this is, and up to which moment it holds them; nothing where it cannot say so."""
    built = built_from(star)
    return (f"{star.metadata().id} {built[0]}", built[1]) if built else ("", 0)


def loaded_until(loaded: Mapping[str, tuple[str, int]], origin: str, until: int) -> int | None:
    """Up to which moment the rows of ``origin`` are in the warehouse; 0 if nothing was ever loaded. None: not known."""
    noted, _, moment = loaded.get(NEWEST, ("", 0) if loaded else (f"{origin} 0", 0))[0].rpartition(" ")
    return int(moment) if origin and noted == origin and int(moment) <= until else None


def notes_of(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, table: Table) -> dict[str, tuple[str, int]]:
    """State and rows of every partition of ``table`` that the warehouse has noted."""
    columns, ledger = "partition, state, rows", f"{quoted(warehouse.schema)}._ledger"
    query = f"SELECT {columns} FROM {ledger} WHERE table_name = {literal(table.name)}"
    return {str(partition): (str(state), int(str(count))) for partition, state, count in rows(connection, query)}


def note(
    connection: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    table: Table,
    notes: Mapping[str, tuple[str, int]],
    loaded: Mapping[str, tuple[str, int]],
    run_id: str,
) -> None:
    """Write down the states and rows that were not noted before, in the same transaction as the rows."""
    new = {partition: note for partition, note in notes.items() if loaded.get(partition) != note}
    if not new:
        return
    values = ", ".join(
        f"({literal(table.name)}, {literal(partition)}, {literal(state)}, {rows}, {literal(run_id)})"
        for partition, (state, rows) in new.items()
    )
    ledger = f"{quoted(warehouse.schema)}._ledger"
    run(
        connection,
        f"INSERT INTO {ledger} (table_name, partition, state, rows, run_id) VALUES {values} "
        "ON CONFLICT (table_name, partition) DO UPDATE SET state = excluded.state, rows = excluded.rows, "
        "run_id = excluded.run_id, loaded_at = clock_timestamp()",
    )
