"""When AWS works on the database, and when the nightly jobs do: both are read where they are said."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import yaml

from totesys_assets.automation.duties import NIGHTLY_JOBS
from totesys_assets.definitions import build_definitions
from totesys_assets_tests.deploy.conftest import PROJECT

Span = tuple[timedelta, timedelta]


def database(state: dict[str, Any]) -> dict[str, Any]:
    (found,) = (
        each["values"] for each in state["root_module"]["resources"] if each["address"] == "aws_db_instance.database"
    )
    return dict(found)


def of_day(clock: str) -> timedelta:
    hour, minute = clock.split(":")
    return timedelta(hours=int(hour), minutes=int(minute))


def span(window: str) -> Span:
    """The window of every day: one of a week is one of a day here, for the jobs run every night."""
    first, last = re.findall(r"\d\d:\d\d", window)
    return of_day(first), of_day(last)


def nightly() -> dict[str, Span]:
    """Of each nightly job, from when it is begun until when it is ended for taking too long."""
    config = yaml.safe_load((PROJECT / "deploy" / "docker" / "dagster.yaml").read_text(encoding="utf-8"))
    longest = timedelta(seconds=config["run_monitoring"]["max_runtime_seconds"])
    found = {}
    for schedule in build_definitions().get_repository_def().schedule_defs:
        if schedule.job_name in NIGHTLY_JOBS:
            assert schedule.execution_timezone == "UTC"
            minute, hour = str(schedule.cron_schedule).split()[:2]
            begin = of_day(f"{hour}:{minute}")
            found[schedule.job_name] = begin, begin + longest
    return found


def test_neither_backup_nor_maintenance_meets_a_nightly_job(state: dict[str, Any]) -> None:
    jobs, values = nightly(), database(state)
    assert jobs.keys() == set(NIGHTLY_JOBS)
    for kind in ("backup_window", "maintenance_window"):
        begin, end = span(values[kind])
        met = {job for job, (first, last) in jobs.items() if begin < last and first < end}
        assert (kind, met) == (kind, set())


def test_a_change_of_the_database_happens_when_it_is_applied(state: dict[str, Any]) -> None:
    assert database(state)["apply_immediately"] is True
