"""Every alarm of the plan, driven: lines of the platform, the plan's filters, metrics, the alarm, and its end."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest

from totesys_assets import notices
from totesys_assets.automation.incidents import is_worth_a_message
from totesys_assets.notices import Notices
from totesys_assets_tests.deploy.cloudwatch import ALARM, DAY, HOUR, MORE, OK, Alarm, Metrics, matches, rings
from totesys_assets_tests.deploy.conftest import PROJECT

NAMESPACE = "Totesys/totesys"
GIB = 1024**3

# Alarm -> the line that makes it ring, and one that does not.
OF_LINES: dict[str, tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]] | None]] = {
    "run-failed": ((notices.RUN_FAILED, {"run_id": "a", "job": "refresh"}), None),
    "task-refused": ((notices.TASK_REFUSED, {"run_id": "a", "cause": "quota"}), None),
    "stale": ((notices.STALE, {"minutes": 31}), None),
    "job-overdue": ((notices.OVERDUE, {"jobs": 1}), None),
    "switched-off": ((notices.SWITCHED_OFF, {"parts": 2}), None),
    "message-unsent": ((notices.UNSENT, {}), None),
    "tables-blocked": ((notices.BLOCKED, {"tables": 1}), None),
    "dead-letters": ((notices.DEAD_LETTERS, {"open": 3}), (notices.DEAD_LETTERS, {"open": 0})),
    "audit-differences": ((notices.AUDIT_DIFFERS, {"findings": 4}), None),
    "versions-missed": ((notices.MISSED, {"tables": 1}), None),
    "log-lost": ((notices.LOG_LOST, {"minutes": 0}), None),
    "log-kept": ((notices.LOG_KEPT, {"percent": 51}), (notices.LOG_KEPT, {"percent": 50})),
}
# Alarm -> what AWS measures in a bad minute, and in a good one. None: nothing is measured.
OF_AWS: dict[str, tuple[float | None, float | None]] = {
    "database-storage": (9 * GIB, 11 * GIB),
    "database-cpu": (95, 60),
    "database-connections": (301, 300),
    "balancer-errors": (3, None),
    "ui-errors": (1, None),
    "rates-failed": (1, 0),
    **{f"{service}-memory": (86, 85) for service in ("code", "daemon", "dashboard")},
    **{f"{service}-unhealthy": (0, 1) for service in ("webserver", "viewer", "dashboard", "api")},
}


@pytest.fixture(scope="module")
def made(state: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = state["root_module"]["resources"]
    return found


@pytest.fixture(scope="module")
def alarms(made: list[dict[str, Any]]) -> dict[str, Alarm]:
    found = [Alarm(each["values"]) for each in made if each["type"] == "aws_cloudwatch_metric_alarm"]
    return {alarm.name.removeprefix("totesys-"): alarm for alarm in found}


@pytest.fixture(scope="module")
def filters(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each["values"] for each in made if each["type"] == "aws_cloudwatch_log_metric_filter"]


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A line as the platform writes it."""

    def write(event: str, **fields: Any) -> str:
        Notices().line(event, **fields)
        return capsys.readouterr().out.rstrip("\n")

    return write


def test_every_alarm_is_driven_here(alarms: Mapping[str, Alarm]) -> None:
    assert set(alarms) == OF_LINES.keys() | OF_AWS.keys() | {"nothing-runs", "late"}


def test_every_event_of_the_platform_is_counted_by_a_filter_and_no_other(filters: list[dict[str, Any]]) -> None:
    known = {value for name, value in vars(notices).items() if name.isupper() and isinstance(value, str)}
    assert {re.search(r'totesys_event = "(\w+)"', each["pattern"])[1] for each in filters} == known  # type: ignore[index]
    assert len({each["name"] for each in filters}) == len(filters)


@pytest.mark.parametrize("name", OF_LINES)
def test_an_alarm_on_a_line_rings_in_the_minute_of_it_and_ends_an_hour_later(
    name: str, alarms: Mapping[str, Alarm], filters: list[dict[str, Any]], line: Callable[..., str]
) -> None:
    (bad, fields), good = OF_LINES[name]
    metrics, quiet = Metrics(), [line(notices.HEARTBEAT), "a line of another kind"]
    for minute in range(6 * HOUR):
        is_bad = minute in (2 * HOUR, 2 * HOUR + 59)
        said = [line(bad, **fields)] if is_bad else [line(good[0], **good[1])] if good else []
        metrics.take(filters, minute, quiet + said)
    states = alarms[name].states(metrics, HOUR, 6 * HOUR)
    assert rings(states) == [HOUR]
    assert states.index(OK, HOUR) == 2 * HOUR + 59


@pytest.mark.parametrize("name", OF_AWS)
def test_an_alarm_on_what_aws_measures_rings_after_its_minutes_and_ends_within_about_an_hour(
    name: str, alarms: Mapping[str, Alarm]
) -> None:
    alarm, (bad, good) = alarms[name], OF_AWS[name]
    minutes = alarm.needed
    metrics = Metrics()
    for minute in range(8 * HOUR):
        is_bad = 0 <= minute - 3 * HOUR < minutes or 0 <= minute - HOUR < minutes - 1  # just not enough, at first
        value = bad if is_bad else good
        if value is not None:
            metrics.put(alarm.values["namespace"], alarm.values["metric_name"], minute, value)
    states = alarm.states(metrics, HOUR, 8 * HOUR)
    assert rings(states) == [2 * HOUR + minutes - 1]
    assert 0 <= states.index(OK, 2 * HOUR + minutes) - (3 * HOUR + minutes - 1) <= MORE  # more where data are missing


@pytest.mark.parametrize("service", ["webserver", "viewer", "dashboard", "api"])
def test_a_service_of_which_no_task_is_registered_is_as_bad_as_one_that_does_not_answer(
    service: str, alarms: Mapping[str, Alarm]
) -> None:
    alarm, metrics = alarms[f"{service}-unhealthy"], Metrics()
    for minute in range(3 * HOUR):  # a crash loop from then on: the load balancer counts nothing
        metrics.put("AWS/ApplicationELB", "HealthyHostCount", minute, 1)
    (rung,) = rings(alarm.states(metrics, 2 * HOUR, 5 * HOUR))
    assert 10 <= rung - HOUR <= 15


@pytest.mark.parametrize("others_speak", [True, False], ids=["the daemon still complains", "no container is left"])
def test_death_rings_at_night_within_twenty_minutes_whatever_died(
    others_speak: bool, alarms: Mapping[str, Alarm], filters: list[dict[str, Any]], line: Callable[..., str]
) -> None:
    """From Friday 18:05 on, in minutes from noon: no evaluation of the sensor succeeds any more."""
    metrics, death = Metrics(), 6 * HOUR + 5
    for minute in range(DAY):
        alive, back = minute < death, minute >= 20 * HOUR
        said = 2 * [line(notices.HEARTBEAT)] if alive or back else ["could not connect to server"] * others_speak
        metrics.take(filters, minute, said)
    states = alarms["nothing-runs"].states(metrics, 2 * HOUR, DAY)
    (rung,) = rings(states)
    assert 14 <= rung - (death - 2 * HOUR) <= 20
    assert ALARM not in states[20 * HOUR - 2 * HOUR + HOUR :]


def test_a_release_is_no_death(
    alarms: Mapping[str, Alarm], filters: list[dict[str, Any]], line: Callable[..., str]
) -> None:
    metrics = Metrics()
    for minute in range(8 * HOUR):
        metrics.take(filters, minute, [line(notices.HEARTBEAT)] if minute % (3 * HOUR) >= 12 else ["restarting"])
    assert rings(alarms["nothing-runs"].states(metrics, 2 * HOUR, 8 * HOUR)) == []


@pytest.mark.parametrize(("share", "expected"), [(0.04, False), (0.06, True)])
def test_the_objective_is_missed_when_more_than_five_of_a_hundred_refreshes_are_late(
    share: float, expected: bool, alarms: Mapping[str, Alarm], filters: list[dict[str, Any]], line: Callable[..., str]
) -> None:
    metrics = Metrics()
    for minute in range(5 * DAY):
        late = minute < DAY and minute % round(1 / share) == 0
        metrics.take(filters, minute, [line(notices.REFRESHED, run_id="a", seconds=30.1 if late else 30.0)])
    states = alarms["late"].states(metrics, DAY, 5 * DAY)
    assert (states[0] == ALARM) is expected
    assert ALARM not in states[2 * DAY :]


def test_of_few_refreshes_a_late_one_says_nothing(
    alarms: Mapping[str, Alarm], filters: list[dict[str, Any]], line: Callable[..., str]
) -> None:
    metrics = Metrics()
    for minute in range(DAY):
        said = [line(notices.REFRESHED, run_id="a", seconds=300.0)] if minute % 80 == 0 else [line(notices.HEARTBEAT)]
        metrics.take(filters, minute, said)
    assert alarms["late"].states(metrics, DAY - 1, DAY) == [OK]


def test_a_cause_that_comes_and_goes_sends_at_most_one_mail_an_hour(
    alarms: Mapping[str, Alarm], filters: list[dict[str, Any]], line: Callable[..., str]
) -> None:
    """A day in which every other refresh fails, ten minutes apart: the platform's messages, and the alarm's mails."""
    metrics, told = Metrics(), list[float]()
    for minute in range(DAY):
        failed = minute % 20 == 0
        metrics.take(filters, minute, [line(notices.RUN_FAILED, run_id="a", job="refresh")] if failed else ["quiet"])
        if failed and is_worth_a_message(60.0 * minute, told[-1] if told else None):
            told.append(60.0 * minute)
    alarm = alarms["run-failed"]
    assert rings(alarm.states(metrics, 0, DAY)) == [0]
    mails = rings(alarm.states(metrics, 0, DAY)) if alarm.mails else []
    assert len(told) + len(mails) == 24


@pytest.mark.parametrize("name", [*OF_LINES, *OF_AWS])
def test_bad_stretches_at_random_ring_at_most_once_an_hour(name: str, alarms: Mapping[str, Alarm]) -> None:
    alarm, metrics, dice = alarms[name], Metrics(), random.Random(name)
    bad, good = OF_AWS.get(name, (100.0, 0.0))
    minute, until, now = 0, 4 * DAY, False
    while minute < until:
        # What lasts is bad for longer than it takes to ring, so that no minutes are gathered from here and there.
        stretch = alarm.needed - 1 + dice.choice([1, 2, 5, 40]) if now else dice.choice([1, 3, 10, 30, 58, 61, 200])
        for each in range(minute, minute + stretch):
            value = bad if now else good
            if value is not None:
                metrics.put(alarm.values["namespace"], alarm.values["metric_name"], each, value)
        minute, now = minute + stretch, not now
    rung = rings(alarm.states(metrics, 2 * HOUR, until))
    assert len(rung) > 5
    assert min(after - before for before, after in pairwise(rung)) >= HOUR


def test_who_is_told_by_the_platform_gets_no_mail_of_the_alarm_as_well(
    alarms: Mapping[str, Alarm], made: list[dict[str, Any]]
) -> None:
    """The third column of the lines in docs/how-to/operate.md says of which events a message tells."""
    (topic,) = (each["values"]["arn"] for each in made if each["type"] == "aws_sns_topic")
    text = (PROJECT / "docs" / "how-to" / "operate.md").read_text(encoding="utf-8").partition("## Get told")[2]
    has_message = {
        event: bool(message.strip()) for event, message in re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", text, re.M)
    }
    assert {name for name, alarm in alarms.items() if alarm.mails} == {
        *("nothing-runs", "late", *OF_AWS),
        *(name for name, ((event, _), _) in OF_LINES.items() if not has_message[event]),
    }
    for alarm in alarms.values():
        assert alarm.values["alarm_actions"] == alarm.values["ok_actions"] == ([topic] if alarm.mails else [])
        assert alarm.values["actions_enabled"]


def test_cloudwatch_takes_the_alarms(alarms: Mapping[str, Alarm]) -> None:
    for alarm in alarms.values():
        seconds = 60 * alarm.minutes * alarm.periods
        assert 1 <= alarm.needed <= alarm.periods
        assert seconds <= (DAY * 60 if alarm.minutes < HOUR else 7 * DAY * 60)
        assert 20 < len(alarm.values["alarm_description"]) <= 1024


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ('{ $.totesys_event = "stale" }', '{"totesys_event": "stale", "minutes": 31}', True),
        ('{ $.totesys_event = "stale" }', '{"totesys_event": "stale_not"}', False),
        ('{ $.totesys_event = "stale" }', "stale", False),
        ('{ $.totesys_event = "refreshed" && $.seconds > 30 }', '{"totesys_event": "refreshed", "seconds": 30}', False),
        ('{ $.totesys_event = "refreshed" && $.seconds > 30 }', '{"totesys_event": "refreshed", "seconds": 31}', True),
        ('{ $.seconds > 30 }', '{"seconds": "31"}', False),
        ('{ $.seconds > 30 }', "{}", False),
    ],
)  # fmt: skip
def test_a_filter_takes_what_its_pattern_says(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected
