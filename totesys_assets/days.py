"""Ranges of days: the partitions of what grows by the day.

Belongs here: arithmetic on days and months. Does not belong here: Dagster's partitions, made of these in automation/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from typing import overload

ONE_DAY = timedelta(days=1)
# The European Central Bank never paused for longer than five days in 27 years, at Easter and Christmas: rates that are
# older than this are old.
MOST_DAYS_WITHOUT_A_RATE = 6
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

    @property
    def ranges(self) -> tuple[DayRange, ...]:
        """The range itself, as the one range of these days."""
        return (self,)

    def by_month(self) -> Iterator[DayRange]:
        """The range cut at the ends of months."""
        first = self.first
        while first <= self.last:
            following = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
            yield DayRange(first, min(following - ONE_DAY, self.last))
            first = following


@dataclass(frozen=True)
class DaySet:
    """Days with gaps between them: ``ranges`` in order, at least one."""

    ranges: tuple[DayRange, ...]

    @property
    def first(self) -> date:
        """The first of the days."""
        return self.ranges[0].first

    @property
    def last(self) -> date:
        """The last of the days."""
        return self.ranges[-1].last

    def __contains__(self, day: date) -> bool:
        return any(day in each for each in self.ranges)

    def __iter__(self) -> Iterator[date]:
        return chain.from_iterable(self.ranges)

    def __len__(self) -> int:
        return sum(len(each) for each in self.ranges)

    def __str__(self) -> str:
        return ",".join(f"{each.first}/{each.last}" for each in self.ranges)

    @classmethod
    def parse(cls, text: str) -> DaySet:
        """The days that ``str`` wrote down."""
        ends = (each.partition("/") for each in text.split(","))
        return cls(tuple(DayRange(date.fromisoformat(first), date.fromisoformat(last)) for first, _, last in ends))

    @property
    def keys(self) -> list[str]:
        """Partition keys, YYYY-MM-DD."""
        return [day.isoformat() for day in self]

    @property
    def months(self) -> list[str]:
        """The months that the days touch, YYYY-MM: the folders of the lake."""
        return [*dict.fromkeys(month for each in self.ranges for month in each.months)]


# Some days: a range, or several.
Days = DayRange | DaySet


def partition_range(first_day: date, now: datetime | None = None) -> DayRange:
    """All days that have a partition: from ``first_day`` to tomorrow (UTC).

    Tomorrow is one of them because a session in an eastern time zone stamps its rows with its own, later, day.
    """
    now = datetime.now(UTC) if now is None else now
    return DayRange(first_day, max(first_day, now.astimezone(UTC).date()) + ONE_DAY)


@overload
def chunks(days: DayRange, rows: Mapping[str, int], limit: int) -> Iterator[DayRange]: ...
@overload
def chunks(days: DaySet, rows: Mapping[str, int], limit: int) -> Iterator[Days]: ...
def chunks(days: Days, rows: Mapping[str, int], limit: int) -> Iterator[Days]:
    """Cut ``days`` into chunks of at most ``limit`` rows, so that memory stays flat; a single day may exceed it.

    ``rows`` counts the rows of each partition key. The cuts are at ends of months, as the lake's folders are, but for
    months that exceed the limit by themselves.
    """
    gathered, count = list[DayRange](), 0
    for part in chain.from_iterable(each.by_month() for each in days.ranges):
        added = sum(rows.get(key, 0) for key in part.keys)
        for cut in [part] if added <= limit else [DayRange(day, day) for day in part]:
            more = sum(rows.get(key, 0) for key in cut.keys)
            if count and more and count + more > limit:
                yield _joined(gathered)
                gathered, count = [], 0
            gathered.append(cut)
            count += more
    yield _joined(gathered)


def _joined(ranges: Sequence[DayRange]) -> Days:
    """Ranges in order as few ranges: neighbours become one."""
    joined = [ranges[0]]
    for each in ranges[1:]:
        if each.first == joined[-1].end:
            joined[-1] = DayRange(joined[-1].first, each.last)
        else:
            joined.append(each)
    return DaySet(tuple(joined)) if len(joined) > 1 else joined[0]


def days_of(partitions: Iterable[str], gap: int = 0) -> Days:
    """The days of partition keys, at least one; gaps of at most ``gap`` days are bridged."""
    return _joined(contiguous((date.fromisoformat(each) for each in partitions), gap))


def contiguous(days: Iterable[date], gap: int = 0) -> list[DayRange]:
    """The fewest ranges that cover ``days`` without bridging more than ``gap`` days that are not among them."""
    ranges: list[DayRange] = []
    for day in sorted(set(days)):
        if ranges and (day - ranges[-1].last).days <= gap + 1:
            ranges[-1] = DayRange(ranges[-1].first, day)
        else:
            ranges.append(DayRange(day, day))
    return ranges
