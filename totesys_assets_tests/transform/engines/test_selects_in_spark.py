"""Every SELECT of the star and the marts gives Spark the rows that it gives DuckDB, to the last digit."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange, DaySet
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.transform.engines.spark_session import connected
from totesys_assets.transform.engines.spark_sql import translated
from totesys_assets_tests.harness.sail import needs_sail
from totesys_assets_tests.harness.two_engines import both
from totesys_assets_tests.transform.engines.conftest import fill

MADE = catalogue().warehouse
SOME = DaySet((DayRange(date(2023, 12, 31), date(2024, 1, 3)), DayRange(date(2024, 3, 1), date(2024, 3, 1))))


@needs_sail
@pytest.mark.parametrize("seed", range(2))
def test_every_select_gives_the_same_rows_of_hostile_values(lake: Lake, sail: str, seed: int) -> None:
    fill(lake, seed)
    with both(lake, sail) as compare:
        counts = {table.name: compare(table) for table in MADE.values()}
        counts |= {f"{name} of some days": compare(table, SOME) for name, table in MADE.items() if table.day_column}
    assert min(counts.values()) > 0


@needs_sail
def test_the_day_of_the_week_is_that_of_the_calendar_for_a_thousand_years(sail: str) -> None:
    days = [date(1582, 10, 15) + timedelta(days=each) for each in range(0, 365_000, 997)]
    values = ", ".join(f"(DATE '{day}')" for day in days)
    with connected(sail, "The test") as session:
        found = session.sql(translated(f"SELECT day, ISODOW(day) AS n FROM (VALUES {values}) AS t(day)")).collect()
    assert [(row.day, row.n) for row in found] == [(day, day.isoweekday()) for day in days]


@pytest.mark.pure
@pytest.mark.parametrize(
    ("duckdb", "spark"),
    [
        ("SELECT a FROM history.sales_order", "SELECT a FROM history__sales_order AS sales_order"),
        ("SELECT s.a FROM latest.staff AS s", "SELECT s.a FROM latest__staff AS s"),
        ("SELECT ISODOW(d)", "SELECT (((DAYOFWEEK(d) + 5) % 7) + 1)"),
        ("SELECT make_timestamptz(5)", "SELECT TIMESTAMP_MICROS(5)"),
        ("SELECT TIMESTAMP '2024-01-01'", "SELECT CAST('2024-01-01' AS TIMESTAMP_NTZ)"),
    ],
)
def test_what_sqlglot_does_not_know_is_translated_by_the_table(duckdb: str, spark: str) -> None:
    assert translated(duckdb) == spark


@pytest.mark.pure
def test_what_cannot_be_translated_is_told_in_a_sentence() -> None:
    with pytest.raises(PlatformError, match=r"A SELECT cannot be said in Spark's SQL: .*TOTESYS_ENGINE"):
        translated("SELECT FROM WHERE")
