"""What Delta's log says of a Parquet file, read off its footer.

Belongs here: statistics in the form of Delta's log, whoever wrote the file. Does not belong here: files (written.py).
"""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from deltalake.transaction import AddAction

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

# Bounds of longer texts are left out of the statistics: they would be read with each commit, by every reader.
_LONGEST_BOUND = 64


def add_action(path: str, size: int, values: dict[str, str], footer: FileMetaData) -> AddAction:
    """What a commit says of a file: its path in the table's folder, size in bytes, folders' values, and statistics."""
    stats = json.dumps(_statistics(footer), ensure_ascii=False)
    return AddAction(path, size, values, int(time.time() * 1000), data_change=True, stats=stats)


def _statistics(footer: FileMetaData) -> dict[str, Any]:
    """Statistics as Delta's log has them, of the columns that have some in each row group.

    Texts are bounds only where they are short. Floats have none: readers differ about NaN.
    """
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    for number, name in enumerate(footer.schema.names):
        found: list[Any] = [group.column(number).statistics for group in groups]
        if not found or any(each is None or not each.has_null_count for each in found):
            continue
        nulls[name] = sum(each.null_count for each in found)
        bounded = [each for each in found if each.has_min_max]
        if not bounded or any(not each.has_min_max and each.num_values for each in found):
            continue
        ends = min(each.min for each in bounded), max(each.max for each in bounded)
        low, high = map(_bound, ends)
        if low is not None and high is not None:
            least[name], greatest[name] = low, high
    return {"numRecords": footer.num_rows, "minValues": least, "maxValues": greatest, "nullCount": nulls}


def _bound(value: Any) -> Any:
    """A value as JSON. None where it is no bound, or none that JSON holds exactly."""
    if isinstance(value, datetime):
        is_utc = value.tzinfo is not None
        text = (value.astimezone(UTC) if is_utc else value).strftime("%Y-%m-%dT%H:%M:%S.%f")
        return f"{value.year:04}{text[text.index('-') :]}{'Z' if is_utc else ''}"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value) if Decimal(repr(float(value))) == value else None
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_BOUND else None
    return value if isinstance(value, int) else None
