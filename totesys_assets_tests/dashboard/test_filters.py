"""Which days a period has, and what it is compared with."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from totesys_assets.dashboard.filters import CONSTANT, MONTH, begins, days_of, end_of

pytestmark = pytest.mark.pure

LONG_AGO, THURSDAY = date(2022, 11, 3), date(2026, 11, 26)


def test_twelve_months_begin_on_a_first_and_are_compared_with_the_same_days_a_year_before() -> None:
    days = days_of("12 months", LONG_AGO, THURSDAY)
    assert (days.first, days.last, days.period) == (date(2025, 12, 1), THURSDAY, "month")
    assert days.earlier == (date(2024, 12, 1), date(2025, 11, 26))


def test_weeks_begin_on_a_monday_and_are_compared_with_as_many_days() -> None:
    days = days_of("13 weeks", LONG_AGO, THURSDAY)
    assert days.first.isoweekday() == 1
    assert days.earlier is not None
    assert days.earlier[0].isoweekday() == 1
    assert days.earlier[1] - days.earlier[0] == days.last - days.first
    assert (days.first - days.earlier[0]).days == 13 * 7


def test_thirty_days_are_compared_with_the_thirty_before() -> None:
    days = days_of("30 days", LONG_AGO, THURSDAY)
    assert (days.last - days.first).days == 29
    assert days.earlier == (date(2026, 9, 28), date(2026, 10, 27))


def test_a_leap_day_is_compared_with_the_last_of_february() -> None:
    days = days_of("12 months", date(2020, 1, 1), date(2024, 2, 29))
    assert days.earlier == (date(2022, 3, 1), date(2023, 2, 28))


def test_nothing_is_compared_with_days_before_the_first_order() -> None:
    assert days_of("12 months", date(2024, 12, 2), THURSDAY).earlier is None
    assert days_of("12 months", date(2024, 12, 1), THURSDAY).earlier is not None


def test_all_days_are_shown_by_month_and_those_of_many_years_by_quarter() -> None:
    assert days_of("All", date(2024, 11, 26), THURSDAY).period == "month"
    assert days_of("All", date(2022, 11, 3), THURSDAY).period == "quarter"


@pytest.mark.parametrize(
    ("period", "last"),
    [("day", "2026-10-01"), ("week", "2026-10-07"), ("month", "2026-10-31"), ("quarter", "2026-12-31")],
)
def test_a_period_ends_on_its_last_day(period: str, last: str) -> None:
    assert end_of(date(2026, 10, 1), period) == date.fromisoformat(last)


@pytest.mark.parametrize(
    ("period", "first", "last", "between"),
    [
        ("day", date(2026, 10, 30), date(2026, 11, 2), [date(2026, 10, 31), date(2026, 11, 1)]),
        ("week", date(2026, 10, 26), date(2026, 11, 9), [date(2026, 11, 2)]),
        ("month", date(2025, 12, 1), date(2026, 2, 1), [date(2026, 1, 1)]),
        ("quarter", date(2025, 10, 1), date(2026, 7, 1), [date(2026, 1, 1), date(2026, 4, 1)]),
    ],
)
def test_every_period_between_two_has_its_place(period: str, first: date, last: date, between: list[date]) -> None:
    assert begins(first, last, period) == [first, *between, last]
    assert begins(first, first, period) == [first]


def test_a_period_that_is_cut_at_either_end_or_is_not_over_is_not_whole() -> None:
    days = replace(days_of("All", date(2024, 11, 26), date(2026, 11, 30)), today=date(2026, 12, 1))
    assert not days.is_whole(date(2024, 11, 1))  # trade began within it
    assert days.is_whole(date(2024, 12, 1))
    assert days.is_whole(date(2026, 11, 1))
    assert not replace(days, today=date(2026, 11, 30)).is_whole(date(2026, 11, 1))
    assert not replace(days, last=date(2026, 11, 29)).is_whole(date(2026, 11, 1))


def test_a_constant_rate_is_that_of_the_last_day_also_for_what_is_compared() -> None:
    days = replace(days_of("30 days", LONG_AGO, THURSDAY), rates=CONSTANT, currency="USD")
    assert days.parameters["rate_day"] == THURSDAY
    assert days.before is not None
    assert days.before["rate_day"] == THURSDAY
    assert days.before["last"] == date(2026, 10, 27)
    assert replace(days, rates=MONTH).parameters["rate_day"] is None
    assert replace(days, rates=MONTH).parameters["basis"] == "month"
