"""What must be true of the rows that a SELECT gives: values where they must be, and the days that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import Days
from totesys_assets.errors import PlatformError


def checked(table: Table, batches: Iterable[pa.RecordBatch], days: Days | None = None) -> Iterator[pa.RecordBatch]:
    """The batches. Raises PlatformError where a value is missing, or a mart's day is not one of ``days``."""
    required = [column.name for column in table.lake_columns if not column.nullable]
    for batch in batches:
        for name in required:
            if batch.column(name).null_count:
                raise without_value(table, name)
        if days is not None and table.is_mart:
            _require_days(table, batch, days)
        yield batch


def _require_days(table: Table, batch: pa.RecordBatch, days: Days) -> None:
    for day in pc.unique(batch.column(str(table.day_column))).to_pylist():
        if not isinstance(day, date) or not any(day in each for each in days.ranges):
            raise other_days(table, day)


def without_value(table: Table, name: str) -> PlatformError:
    """The error of a row without a value in column ``name``."""
    return PlatformError(
        f'The SELECT of {table.asset} gives rows without "{name}", which must have a value. Let it give '
        "one (COALESCE), or let the DDL of the table allow NULL."
    )


def other_days(table: Table, day: object) -> PlatformError:
    """The error of a mart's row that is of a ``day`` that was not asked for."""
    return PlatformError(
        f"The SELECT of {table.asset} gives rows of {day} when it is given those of other days. Leave the mart "
        "unpartitioned, or let each day follow from the facts of that day."
    )
