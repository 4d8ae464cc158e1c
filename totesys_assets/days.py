"""Ranges of days: the partitions of what grows by the day.

Belongs here: arithmetic on days and months. Does not belong here: Dagster's partitions, made of these in automation/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

ONE_DAY = timedelta(days=1)
# The partition of a table that is one set.
WHOLE = "*"


@dataclass(frozen=True, order=True)
class DayRange:
    """All days from ``first`` to ``last``, both included."""

    first: date
    last: date

    @classmethod
    def of(cls, key: str) -> DayRange:
        """The one day of a partition key."""
        return cls(date.fromisoformat(key), date.fromisoformat(key))

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def __iter__(self) -> Iterator[date]:
        day = self.first
        while day <= self.last:
            yield day
            day += ONE_DAY

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def end(self) -> date:
        """The first day after the range."""
        return self.last + ONE_DAY

    @property
    def keys(self) -> list[str]:
        """Partition keys, YYYY-MM-DD."""
        return [day.isoformat() for day in self]

    @property
    def months(self) -> list[str]:
        """The months that the range touches, YYYY-MM: the folders of the lake."""
        return [month.first.isoformat()[:7] for month in self.by_month()]

    def by_month(self) -> Iterator[DayRange]:
        """The range cut at the ends of months."""
        first = self.first
        while first <= self.last:
            following = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
            yield DayRange(first, min(following - ONE_DAY, self.last))
            first = following


def partition_range(first_day: date, now: datetime | None = None) -> DayRange:
    """All days that have a partition: from ``first_day`` to tomorrow (UTC).

    Tomorrow is one of them because a session in an eastern time zone stamps its rows with its own, later, day.
    """
    now = datetime.now(UTC) if now is None else now
    return DayRange(first_day, max(first_day, now.astimezone(UTC).date()) + ONE_DAY)


def chunks(days: DayRange, rows: Mapping[str, int], limit: int) -> Iterator[DayRange]:
    """Cut ``days`` at ends of months into pieces of about ``limit`` rows at most, so that memory stays flat.

    ``rows`` counts the rows of each partition key; a single month may exceed the limit.
    """
    first, count = days.first, 0
    for month in days.by_month():
        added = sum(rows.get(key, 0) for key in month.keys)
        if count and count + added > limit:
            yield DayRange(first, month.first - ONE_DAY)
            first, count = month.first, 0
        count += added
    yield DayRange(first, days.last)


def contiguous(days: Iterable[date], gap: int = 0) -> list[DayRange]:
    """The fewest ranges that cover ``days`` without bridging more than ``gap`` days that are not among them."""
    ranges: list[DayRange] = []
    for day in sorted(set(days)):
        if ranges and (day - ranges[-1].last).days <= gap + 1:
            ranges[-1] = DayRange(ranges[-1].first, day)
        else:
            ranges.append(DayRange(day, day))
    return ranges
