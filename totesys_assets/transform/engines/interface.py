"""What every engine is given and must do: the rows of one table, from one state of its sources.

Belongs here: the work, and what an engine promises. Does not belong here: what must be made anew (build.py), and how
rows come to be (in_duckdb.py, in_spark.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import Catalogue, Table, lake_schema
from totesys_assets.catalogue.queries import Query
from totesys_assets.days import Days

# Under which the commits of all engines are counted: of two builds of a table, the slower one gets LostRace.
WRITER = "build"


@dataclass(frozen=True)
class Work:
    """One table to be built: ``target``, from the ``sources`` at these very versions, by ``query``.

    ``connection`` is the DuckDB of this build, for whatever an engine leaves to it.
    """

    connection: duckdb.DuckDBPyConnection
    catalogue: Catalogue
    table: Table
    query: Query
    target: DeltaTable
    sources: Mapping[str, DeltaTable]

    @property
    def schema(self) -> pa.Schema:
        """What the rows are like in the lake."""
        return lake_schema(self.table, versioned=False)


class Engine(Protocol):
    """Makes the rows of tables that are partitioned by day. Each call is one commit, behind the fence, with ``marks``.

    Both calls raise LostRace if another build has committed since ``work.target`` was opened, and PlatformError if the
    engine fails. Nothing is committed then.
    """

    @property
    def name(self) -> str:
        """What TOTESYS_ENGINE calls it."""

    def append(self, work: Work, since: Mapping[str, int], marks: Mapping[str, int]) -> None:
        """Add what ``work.query``, which is row by row, makes of the versions recorded ``since``.

        ``since``: by source, in microseconds since 1970.
        """

    def replace(self, work: Work, days: Days | None, rows: Mapping[str, int], marks: Mapping[str, int]) -> None:
        """Make ``days`` anew (None: everything); ``rows`` are the sources' rows per partition."""
