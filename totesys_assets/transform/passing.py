"""Star rows made of versions while these are captured: written beside the star table, and committed by its build.

Belongs here: the SELECT over batches that pass. Does not belong here: what else becomes of the rows (load/one_pass.py),
and the commit (engines/passed.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import duckdb
import pyarrow as pa

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Catalogue, Table, lake_schema
from totesys_assets.catalogue.queries import HISTORY, LATEST, query_of
from totesys_assets.lake.conform import conform
from totesys_assets.lake.tables import PROCESSED, Lake
from totesys_assets.lake.written import Writer, Written
from totesys_assets.sql_text import quoted
from totesys_assets.stages import BUILD, timed
from totesys_assets.transform.checks import checked
from totesys_assets.transform.references import create_references
from totesys_assets.transform.schemas import select_of


def can_pass(catalogue: Catalogue, table: Table) -> str | None:
    """The source table of which star ``table`` has a row for each row, day by day; None if it is no such table."""
    query = query_of(table.name)
    if not (query.is_row_by_row_at_first and table.day_column and not query.reads):
        return None
    return query.sources[0] if catalogue.source[query.sources[0]].day_column else None


def is_empty(lake: Lake, table: Table) -> bool:
    """True if the lake holds no row of star ``table``."""
    held = lake.find(PROCESSED, table.name)
    return held is None or not held.file_uris()


class Passing:
    """The rows of one star ``table``, written into files as they come. A block left by an error removes the files."""

    def __init__(self, lake: Lake, table: Table) -> None:
        self.table = table
        self.schema = lake_schema(table, versioned=False)
        self._writer = Writer(lake.open_processed(table), self.schema)

    def rows(self, connection: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """The rows of all versions in ``reader``; each batch is written before it is given."""
        connection.register("passing", reader)
        (source,) = query_of(self.table.name).sources
        for schema in (HISTORY, LATEST):  # of a first capture, every version is the newest
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            connection.execute(f"CREATE OR REPLACE VIEW {schema}.{quoted(source)} AS SELECT * FROM passing")
        create_references(connection, query_of(self.table.name).definition)
        found = checked(self.table, timed(BUILD, engine.batches(connection.execute(select_of(self.table)))))
        for batch in conform(found, self.schema, self.table.day_column):
            self._writer.write(batch)
            yield batch

    def close(self) -> Written:
        """End the files."""
        return self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._writer.abandon()


def versions_schema(source: Table) -> pa.Schema:
    """The schema of the batches that are captured of a source table."""
    return lake_schema(source, versioned=True)
