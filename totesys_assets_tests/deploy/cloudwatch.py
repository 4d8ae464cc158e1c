"""A stand-in for the part of CloudWatch that makes metrics of log lines and alarms of metrics, as AWS documents it.

Belongs here: what a filter's pattern takes, which datapoints come of it, and the state of an alarm minute by minute.
Filters and alarms are those that Terraform made; time is counted in minutes.

Alarms are evaluated every minute, those that look back more than a day every hour; their periods slide along. If
datapoints are missing, older ones count instead, as far as CloudWatch looks back; those that are still missing count
as the alarm says.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

Series = dict[int, list[float]]  # minute -> what was measured in it

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "Minimum": min,
    "Maximum": max,
    "Average": lambda values: sum(values) / len(values),
}
# How many more datapoints than it evaluates CloudWatch asks for; the documentation's example has two.
MORE = 2
DAY, HOUR = 24 * 60, 60
OK, ALARM = "OK", "ALARM"


def matches(pattern: str, line: str) -> bool:
    """Whether a metric filter takes a log line: for JSON patterns of comparisons that are joined by ``&&``."""
    whole = re.fullmatch(r"\{ (.+) \}", pattern)
    assert whole, pattern
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and all(holds(each, event) for each in whole[1].split(" && "))


def holds(condition: str, event: Mapping[str, Any]) -> bool:
    """Whether one comparison of a pattern holds; never if the key is not there or is of another type."""
    parts = re.fullmatch(r'\$\.(\w+) (=|!=|>=?|<=?) (?:"(\w+)"|(-?[\d.]+))', condition)
    assert parts, condition
    found, wanted = event.get(parts[1]), parts[3] if parts[3] is not None else float(parts[4])
    if isinstance(found, bool) or not isinstance(found, str if parts[3] is not None else int | float):
        return False
    return OPERATORS[parts[2]](found, wanted)


@dataclass
class Metrics:
    """Metrics by namespace and name, minute by minute."""

    series: dict[tuple[str, str], Series] = field(default_factory=dict)

    def put(self, namespace: str, name: str, minute: int, value: float) -> None:
        self.series.setdefault((namespace, name), {}).setdefault(minute, []).append(value)

    def take(self, filters: Iterable[Mapping[str, Any]], minute: int, lines: list[str]) -> None:
        """What the filters make of the log lines of a minute; without any lines nothing, not even a default."""
        for each in filters if lines else ():
            (made,) = each["metric_transformation"]
            values = [value_of(made["value"], line) for line in lines if matches(each["pattern"], line)]
            for value in values or [float(made["default_value"])]:
                self.put(made["namespace"], made["name"], minute, value)

    def point(self, namespace: str, name: str, statistic: str, first: int, last: int) -> float | None:
        """The statistic of the minutes from ``first`` to ``last``, without the latter; None if there are no data."""
        series = self.series.get((namespace, name), {})
        found = [value for minute in range(first, last) for value in series.get(minute, ())]
        return STATISTICS[statistic](found) if found else None


def value_of(value: str, line: str) -> float:
    """What a line adds to a metric: a number, or the key that the filter names."""
    return float(json.loads(line)[value.removeprefix("$.")]) if value.startswith("$.") else float(value)


@dataclass(frozen=True)
class Alarm:
    """An alarm as Terraform made it: ``values`` are its arguments."""

    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.values["alarm_name"])

    @property
    def periods(self) -> int:
        return int(self.values["evaluation_periods"])

    @property
    def needed(self) -> int:
        return int(self.values["datapoints_to_alarm"] or self.periods)

    @property
    def queries(self) -> list[Mapping[str, Any]]:
        return list(self.values["metric_query"] or [])

    @property
    def minutes(self) -> int:
        """Its period."""
        parts = [query["metric"][0]["period"] for query in self.queries if query["metric"]]
        return int(parts[0] if parts else self.values["period"]) // 60

    @property
    def mails(self) -> bool:
        return bool(self.values["alarm_actions"])

    def states(self, metrics: Metrics, first: int, last: int) -> list[str]:
        """Its state at the end of each minute from ``first`` to ``last``, without the latter."""
        step = HOUR if self.minutes * self.periods > DAY else 1
        found: list[str] = []
        point = cache(partial(self.point, metrics))  # what one minute looks at, others look at, too
        for minute in range(first, last):
            found.append(self._state(point, minute + 1) if (minute - first) % step == 0 or not found else found[-1])
        return found

    def _state(self, point: Callable[[int], float | None], now: int) -> str:
        """Its state by what was measured before the minute ``now``."""
        ends = [now - place * self.minutes for place in range(self.periods + MORE)]
        real = [found for found in map(point, ends) if found is not None][: self.periods]
        compare = COMPARISONS[self.values["comparison_operator"]]
        bad = sum(compare(point, self.values["threshold"]) for point in real)
        assert self.values["treat_missing_data"] in ("breaching", "notBreaching")
        if self.values["treat_missing_data"] == "breaching":
            bad += self.periods - len(real)
        return ALARM if bad >= self.needed else OK

    def point(self, metrics: Metrics, end: int) -> float | None:
        """The datapoint of the period that ends at ``end``."""
        first = end - self.minutes
        if not self.queries:
            values = self.values
            return metrics.point(values["namespace"], values["metric_name"], values["statistic"], first, end)
        names: dict[str, Any] = {"IF": lambda condition, then, otherwise: then if condition else otherwise}
        for query in self.queries:
            for each in query["metric"]:
                found = metrics.point(each["namespace"], each["metric_name"], each["stat"], first, end)
                names[query["id"]] = found
        if None in names.values():
            return None
        (expression,) = (query["expression"] for query in self.queries if query["return_data"])
        value = eval_lazily(expression, names)
        return None if value is None else float(value)


def eval_lazily(expression: str, names: Mapping[str, Any]) -> float | None:
    """An expression of metric math, of the operators that Python writes alike; a division by zero has no value."""
    try:
        return float(eval(expression, {"__builtins__": {}}, {**names}))
    except ZeroDivisionError:
        return None


def rings(states: list[str]) -> list[int]:
    """The places at which an alarm begins to ring."""
    return [place for place, state in enumerate(states) if state == ALARM and (not place or states[place - 1] == OK)]
