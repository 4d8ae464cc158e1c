"""The views that a SELECT reads, in a session of Spark: over the very files that a version of a table names.

So the server needs to know nothing of Delta, reads no other version, and reads no file that holds none of the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets.catalogue.catalogue import MONTH
from totesys_assets.counting import counted
from totesys_assets.days import Days
from totesys_assets.errors import PlatformError
from totesys_assets.lake.files import Files
from totesys_assets.sql_text import quoted
from totesys_assets.transform.engines.spark_sql import quoted_for_spark, translated, type_name, view_name
from totesys_assets.transform.references import references

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

# Spark takes them for a pattern in a path.
_WILD = set("*?{}[]")


class SparkViews:
    """Views of a session of Spark; they are its own, and end with it. ``server`` is what messages call it."""

    def __init__(self, session: SparkSession, server: str) -> None:
        self._session, self._server = session, server

    def read(self, name: str, table: DeltaTable, days: Days | None, *, column: str | None, since: int | None) -> str:
        """See readable.Views. Raises PlatformError for a folder whose name is a pattern to Spark."""
        return self.read_files(name, table, Files(table, days, column, since))

    def read_files(self, name: str, table: DeltaTable, files: Files) -> str:
        """Make these files of a table readable, without their months. Returns the name for SELECTs.

        Raises PlatformError if the server does not see all of their rows: Sail takes a file that is not there for an
        empty one.
        """
        columns = [each for each in pa.schema(table.schema().to_arrow()) if each.name != MONTH]  # type: ignore[arg-type]  # Arrow's C interface
        if _WILD & set("".join(files.uris)):
            raise PlatformError(
                f"The lake table at {table.table_uri} has one of * ? {{ }} in its name, which Spark takes for a "
                "pattern. Move the lake, or unset TOTESYS_ENGINE."
            )
        if files.uris:
            # With their types, so that the server need not look, and a column that is newer than a file is NULL.
            types = ", ".join(f"{quoted_for_spark(each.name)} {type_name(each.type)}" for each in columns)
            frame = self._session.read.schema(types).parquet(*files.uris)
        else:
            nulls = (f"CAST(NULL AS {type_name(each.type)}) AS {quoted_for_spark(each.name)}" for each in columns)
            frame = self._session.sql(f"SELECT {', '.join(nulls)} WHERE false")
        frame.createOrReplaceTempView(name)
        if files.uris and (seen := int(frame.count())) != files.rows:
            raise elsewhere(self._server, table, f"sees {counted(seen, 'row')}", files.rows)
        return quoted(name)

    def create(self, schema: str, name: str, select: str) -> None:
        """See readable.Views."""
        self._session.sql(translated(select)).createOrReplaceTempView(view_name(schema, name))

    def create_references(self, definition: str) -> None:
        """See readable.Views."""
        for (schema, name), rows in references(definition).items():
            self._session.createDataFrame(rows).createOrReplaceTempView(view_name(schema, name))


def elsewhere(server: str, table: DeltaTable, does: str, rows: int) -> PlatformError:
    """The error of a server that reads or writes another place than that of ``table``, which has so many ``rows``."""
    return PlatformError(
        f"SPARK_REMOTE ({server}) {does} where {rows:,} are in the lake at {table.table_uri}. Nothing was committed; "
        "every machine of the server must reach the lake at this very place: mount the folder there, or use a bucket."
    )
