"""Where a SELECT finds what it reads: the views that an engine offers, and those of DuckDB."""

from __future__ import annotations

from typing import Protocol

import duckdb
from deltalake import DeltaTable

from totesys_assets.days import Days
from totesys_assets.lake.read import register
from totesys_assets.sql_text import quoted
from totesys_assets.transform.references import create_references


class Views(Protocol):
    """Views that are made by SELECTs in DuckDB's dialect."""

    def read(self, name: str, table: DeltaTable, days: Days | None, *, column: str | None, since: int | None) -> str:
        """Make rows of a version of a table readable, as lake.read.register does. Returns the name for SELECTs."""

    def create(self, schema: str, name: str, select: str) -> None:
        """Create the view ``schema.name``, in place of one that there is."""

    def create_references(self, definition: str) -> None:
        """Create the tables of ``reference`` that ``definition`` names."""


class DuckDbViews:
    """Views of a DuckDB session."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def read(self, name: str, table: DeltaTable, days: Days | None, *, column: str | None, since: int | None) -> str:
        """See Views."""
        return register(self._connection, name, table, days, column=column, since=since)

    def create(self, schema: str, name: str, select: str) -> None:
        """See Views."""
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        self._connection.execute(f"CREATE OR REPLACE VIEW {schema}.{quoted(name)} AS {select}")

    def create_references(self, definition: str) -> None:
        """See Views."""
        create_references(self._connection, definition)
