"""The schema registry: the columns and types that each source table was ever seen with, numbered.

Belongs here: noting a structure when it is first seen, captured or refused, and listing them. Does not belong here:
judging a structure, which is ``SourceSnapshot.require``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.errors import SchemaDrift
from totesys_assets.lake.commit import LostRace, append
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import REGISTRY, Lake
from totesys_assets.source.interface import SourceSnapshot

CAPTURED, REFUSED = "captured", "refused"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("table_name", pa.string()),
    ("version", pa.int64()),
    ("status", pa.string()),
    ("columns", pa.string()),
    ("first_seen_at", pa.timestamp("us", tz="UTC")),
]
_SCHEMA = pa.schema(_COLUMNS)
_DESCRIPTION = "Columns and types that the source's tables were seen with"


@dataclass(frozen=True)
class Structure:
    """One version of a table's structure: column name -> type, and since when it is seen."""

    table: str
    version: int
    status: str
    columns: dict[str, str]
    first_seen_at: datetime

    def changes(self, before: Structure | None) -> list[str]:
        """What is different from the version ``before``, column by column."""
        if before is None:
            return [f"first seen, {len(self.columns)} columns"]
        old, new = before.columns, self.columns
        found = [f'"{name}" is gone' for name in old if name not in new]
        found += [f'"{name}" ({type_}) is new' for name, type_ in new.items() if name not in old]
        found += [
            f'"{name}" is {new[name]}, was {type_}' for name, type_ in old.items() if name in new and new[name] != type_
        ]
        return found or [f"columns as before, now {self.status}"]


def structures(lake: Lake, table: str | None = None) -> list[Structure]:
    """All versions, of one table or of all, oldest first."""
    held = lake.find(REGISTRY)
    if held is None:
        return []
    with engine.session() as connection:
        source = register(connection, "held", held, within=("table_name", table, table) if table is not None else None)
        rows = (
            connection.execute(
                f"SELECT table_name, version, status, columns, first_seen_at FROM {source} "
                "WHERE coalesce(table_name = $table, true) ORDER BY table_name, version",
                {"table": table},
            )
            .to_arrow_table()
            .to_pylist()
        )
    return [
        Structure(row["table_name"], row["version"], row["status"], json.loads(row["columns"]), row["first_seen_at"])
        for row in rows
    ]


def may_be_new(lake: Lake, table: Table) -> bool:
    """False if ``table`` was only ever seen with one structure: then nothing but another one is to be noted."""
    return len(structures(lake, table.name)) != 1


def _writer(table: Table) -> str:
    return f"registry:{table.name}"


def note(lake: Lake, snapshot: SourceSnapshot, table: Table, status: str) -> None:
    """Append the structure that ``table`` has in ``snapshot``, unless it is the newest one noted, with this status."""
    found = snapshot.columns(table)
    while True:
        held = lake.open_plain(REGISTRY, _SCHEMA, _DESCRIPTION)
        known = structures(lake, table.name)
        if known and (known[-1].columns, known[-1].status) == (found, status):
            return
        row = {
            "table_name": table.name,
            "version": len(known) + 1,
            "status": status,
            "columns": json.dumps(found),
            "first_seen_at": snapshot.read_at(table).replace(tzinfo=UTC),
        }
        try:
            append(held, pa.Table.from_pylist([row], schema=_SCHEMA).to_batches(), _SCHEMA, _writer(table))
        except LostRace:
            continue  # somebody else noted this table's structure: look again
        lake.share(held, REGISTRY)
        return


@contextmanager
def drift_noted(lake: Lake, snapshot: SourceSnapshot, table: Table) -> Iterator[None]:
    """Note the structure that makes the block raise SchemaDrift."""
    try:
        yield
    except SchemaDrift:
        note(lake, snapshot, table, REFUSED)
        raise
