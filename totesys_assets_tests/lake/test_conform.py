"""The months of rows: what DuckDB calls them, whatever days there are in a batch."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totesys_assets.lake.conform import months

DAYS = st.dates(date(1, 1, 1), date(9999, 12, 31))
TIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))


def by_duckdb(days: pa.Array[Any]) -> list[str]:
    """What DuckDB calls the months."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("given", pa.table({"day": days}))
    return [month for (month,) in connection.execute("SELECT strftime(day, '%Y-%m') FROM given").fetchall()]


@given(st.lists(st.one_of(DAYS, st.dates(date(2024, 1, 28), date(2024, 3, 3))), max_size=6))
def test_months_of_dates(days: list[date]) -> None:
    array = pa.array(days, pa.date32())
    assert months(array).to_pylist() == by_duckdb(array)


@given(st.lists(TIMES, max_size=6), st.sampled_from([None, "UTC"]))
def test_months_of_times(times: list[datetime], zone: str | None) -> None:
    moments = [each.replace(tzinfo=UTC) for each in times] if zone else times
    array = pa.array(moments, pa.timestamp("us", zone))
    assert months(array).to_pylist() == by_duckdb(array)


def test_a_row_without_a_day_is_refused() -> None:
    with pytest.raises(ValueError, match="no day"):
        months(pa.array([date(2024, 1, 1), None], pa.date32()))
