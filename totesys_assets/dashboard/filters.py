"""The filters: period, currency and rates, kept in the URL so that a view can be sent to a colleague.

Belongs here: which days a period has, and the widgets that choose. Does not belong here: what is shown of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import streamlit as st

from totesys_assets.dashboard import words

PERIODS = ("30 days", "13 weeks", "12 months", "All")
# How orders in another currency are converted: at the rate of their day, of their month, or all at that of one day.
DAY, MONTH, CONSTANT = "day", "month", "constant"
_RATES = (DAY, MONTH, CONSTANT)
# More bars than this are too thin to read: then quarters.
_MOST_MONTHS = 36
_FAVOURITE = "GBP"
_LAST_YEAR = "12 months"


@dataclass(frozen=True)
class Filters:
    """What is looked at: days, the length of a bar, the days to compare with, and how money is converted."""

    name: str
    first: date
    last: date
    period: str
    earlier: tuple[date, date] | None
    today: date = date.max
    currency: str = _FAVOURITE
    rates: str = DAY

    @property
    def parameters(self) -> dict[str, object]:
        """As the questions take them."""
        return {
            "first": self.first,
            "last": self.last,
            "period": self.period,
            "currency": self.currency,
            "basis": MONTH if self.rates == MONTH else DAY,
            "rate_day": self.last if self.rates == CONSTANT else None,
        }

    @property
    def before(self) -> dict[str, object] | None:
        """The parameters for the days to compare with. A constant rate stays what it is."""
        if self.earlier is None:
            return None
        return {**self.parameters, "first": self.earlier[0], "last": self.earlier[1]}

    def is_whole(self, start: date) -> bool:
        """Whether the period that begins on ``start`` lies within the days that are looked at, and is over."""
        end = end_of(start, self.period)
        return start >= self.first and end <= self.last and end < self.today


def end_of(start: date, period: str) -> date:
    """The last day of the day, week, month or quarter that begins on ``start``."""
    if period in ("day", "week"):
        return start + timedelta(0 if period == "day" else 6)
    return _months_later(start.replace(day=1), 1 if period == "month" else 3) - timedelta(1)


def begins(first: date, last: date, period: str) -> list[date]:
    """The first days of all days, weeks, months or quarters from that of ``first`` to that of ``last``."""
    found = [first]
    while (following := end_of(found[-1], period) + timedelta(1)) <= last:
        found.append(following)
    return found


def days_of(name: str, first_day: date, last_day: date) -> Filters:
    """The days of a period that ends on ``last_day``. Weeks begin on a Monday, months on the first.

    What a period is compared with is as long and as far through its last week or month; None where ``first_day`` is
    later than its beginning.
    """
    if name == "30 days":
        first, period, earlier = last_day - timedelta(29), "day", last_day - timedelta(30)
    elif name == "13 weeks":
        first, period = last_day - timedelta(last_day.weekday() + 12 * 7), "week"
        earlier = last_day - timedelta(13 * 7)
    elif name == "12 months":
        first, period, earlier = _months_later(last_day.replace(day=1), -11), "month", _year_before(last_day)
    else:
        months = (last_day.year - first_day.year) * 12 + last_day.month - first_day.month + 1
        return Filters(name, first_day, last_day, "month" if months <= _MOST_MONTHS else "quarter", None)
    begin = _year_before(first) if name == "12 months" else earlier - (last_day - first)
    return Filters(name, first, last_day, period, (begin, earlier) if begin >= first_day else None)


def choose(first_day: date, last_day: date, currencies: list[str]) -> Filters:
    """Draw the widgets, and return what was chosen with them or by the URL."""
    favourite = _FAVOURITE if _FAVOURITE in currencies else currencies[0]
    name = st.segmented_control("Period", PERIODS, default=_LAST_YEAR, required=True, key="period", bind="query-params")
    currency = st.segmented_control(
        "Converted to",
        currencies,
        format_func=words.plain,
        default=favourite,
        required=True,
        key="currency",
        bind="query-params",
    )
    rates = st.segmented_control(
        "Rates of",
        _RATES,
        default=DAY,
        required=True,
        key="rates",
        bind="query-params",
        help="day: each order converts at the rate of its own day. month: at the average of its month. constant: "
        f"everything at the rate of one day, {last_day}.",
    )
    # An address that ends behind "currency=" chooses nothing, whatever is required.
    days = days_of(str(name or _LAST_YEAR), first_day, last_day)
    today = datetime.now(UTC).date()
    return replace(days, today=today, currency=str(currency or favourite), rates=str(rates or DAY))


def _months_later(first_of_month: date, months: int) -> date:
    count = first_of_month.year * 12 + first_of_month.month - 1 + months
    return date(count // 12, count % 12 + 1, 1)


def _year_before(day: date) -> date:
    return day.replace(year=day.year - 1, day=28 if (day.month, day.day) == (2, 29) else day.day)
