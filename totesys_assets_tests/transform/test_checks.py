"""What is refused of the rows that a SELECT gives: a missing value, and in a mart rows of other days."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pytest

from totesys_assets.catalogue import catalogue as module
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.transform.checks import checked

pytestmark = pytest.mark.pure

(MART,) = module._tables(
    "mart",
    """
-- One row per day.
CREATE TABLE mart_sales (
    created_date date PRIMARY KEY, -- by day: day of the orders
    units bigint NOT NULL, -- number of bags
    note varchar -- what is to be said of it
);
""",
)
DAY, NEXT_DAY = date(2024, 8, 20), date(2024, 8, 21)


def rows(day: date | None, units: int | None) -> list[pa.RecordBatch]:
    return [
        pa.record_batch(
            [pa.array([day], pa.date32()), pa.array([units], pa.int64()), pa.array([None], pa.string())],
            names=["created_date", "units", "note"],
        )
    ]


def test_rows_of_the_days_asked_for_pass_with_a_value_missing_that_may_be() -> None:
    batches = rows(DAY, 7)
    assert list(checked(MART, batches, DayRange(DAY, DAY))) == batches


@pytest.mark.parametrize(("day", "units", "column"), [(DAY, None, "units"), (None, 7, "created_date")])
def test_a_value_that_must_be_there_is_missed(day: date | None, units: int | None, column: str) -> None:
    with pytest.raises(PlatformError, match=f'gives rows without "{column}"'):
        list(checked(MART, rows(day, units)))


def test_rows_of_a_mart_of_another_day_than_those_asked_for_are_refused() -> None:
    with pytest.raises(PlatformError, match="gives rows of 2024-08-21 when it is given those of other days"):
        list(checked(MART, rows(NEXT_DAY, 7), DayRange(DAY, DAY)))


def test_a_star_table_may_have_rows_of_other_days() -> None:
    table = catalogue().star["dim_date"]
    names = [column.name for column in table.lake_columns]
    batch = pa.record_batch([pa.array([1])] * len(names), names=names)
    assert list(checked(table, [batch], DayRange(DAY, DAY))) == [batch]
