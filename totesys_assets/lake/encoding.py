"""Encodings: how delta-rs writes the columns of a table into Parquet files."""

from __future__ import annotations

from functools import cache
from typing import Literal

import pyarrow as pa
from deltalake import ColumnProperties, DeltaTable, WriterProperties

from totesys_assets.catalogue.catalogue import catalogue


def encodings(table: DeltaTable) -> WriterProperties:
    """Numbers, dates and timestamps are written as differences, times of day with their common prefixes left out.

    Parquet's default is a dictionary, which is abandoned for nearly all of these columns once it grows too large. With
    these encodings a million sales orders take a third of the time and half of the space.
    """
    encodings: dict[str, Literal["DELTA_BINARY_PACKED", "DELTA_BYTE_ARRAY"]] = {}
    for column in pa.schema(table.schema().to_arrow()):  # type: ignore[arg-type]  # it speaks Arrow's C interface
        if pa.types.is_integer(column.type) or pa.types.is_temporal(column.type):
            encodings[column.name] = "DELTA_BINARY_PACKED"
        elif column.name in _times_of_day():
            encodings[column.name] = "DELTA_BYTE_ARRAY"
    return WriterProperties(
        default_column_properties=ColumnProperties(statistics_enabled="CHUNK"),
        column_properties={
            name: ColumnProperties(dictionary_enabled=False, statistics_enabled="CHUNK", encoding=encoding)
            for name, encoding in encodings.items()
            if name not in table.metadata().partition_columns
        },
    )


@cache
def _times_of_day() -> frozenset[str]:
    columns = (column for table in catalogue().warehouse.values() for column in table.columns)
    return frozenset(column.name for column in columns if column.type.startswith("time "))
