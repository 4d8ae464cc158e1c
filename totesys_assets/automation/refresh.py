"""Executing a refresh in this process: one request as a run of Dagster.

Belongs here: executing and reporting. Does not belong here: deciding (staleness/) and printing (commands/).
"""

import time
from dataclasses import dataclass

import dagster as dg

from totesys_assets.automation.records import step_failure, versions_of
from totesys_assets.automation.sensors import run_request
from totesys_assets.dagster_internals.switch import execute_here
from totesys_assets.names import ACCEPT_DELETIONS_TAG, BACKFILL_TAG, REFRESH
from totesys_assets.staleness.decide import Request

# Dagster's messages about a run go to its event log. On the terminal they would hide everything else.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

_STEP_TIMES = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE}


@dataclass(frozen=True)
class Outcome:
    """What one run did: ``seconds`` by group of assets (and ``dagster`` for the rest), ``failures`` as sentences.

    Steps run side by side. A second in which two of them run counts half for each, so that the sum is the run's time.
    ``versions``: how many the run captured, by source table, without those that had none.
    """

    run_id: str
    request: Request
    success: bool
    failures: list[str]
    seconds: dict[str, float]
    versions: dict[str, int]


def execute(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    request: Request,
    *,
    accept_deletions: bool = False,
    left_out: str = "",
    is_backfill: bool = False,
) -> Outcome:
    """Run one request to its end, in this process. A failed asset fails the run; independent assets still finish.

    ``left_out``: tables that the look skipped. ``is_backfill``: somebody named the days. Both are noted in the run's
    tags, because its success does not mean that everything is up to date.
    """
    started = time.monotonic()
    requested = run_request(request, left_out)
    result = execute_here(
        definitions.resolve_job_def(REFRESH).get_subset(
            asset_selection=set(requested.asset_selection or []),
            asset_check_selection=set(requested.asset_check_keys or []),
        ),
        instance,
        run_config=_QUIET,
        tags={
            **requested.tags,
            **({ACCEPT_DELETIONS_TAG: "true"} if accept_deletions else {}),
            **({BACKFILL_TAG: "true"} if is_backfill else {}),
        },
    )
    failures = [step_failure(event) for event in result.all_events if event.is_step_failure]
    if not result.success and not failures:
        failures = [event.message or "The run failed." for event in result.all_events if event.is_failure][:1]
    seconds = _seconds_by_group(instance, result.run_id)
    seconds["dagster"] = max(0.0, time.monotonic() - started - sum(seconds.values()))
    return Outcome(result.run_id, request, result.success, failures, seconds, versions_of(instance, result.run_id))


def _seconds_by_group(instance: dg.DagsterInstance, run_id: str) -> dict[str, float]:
    """The seconds in which steps ran, divided among their groups. A step is called ``group__table``."""
    seconds: dict[str, float] = {}
    running: list[str] = []
    last = 0.0
    # Dagster's get_run_step_stats would read every materialisation of the run to find when its steps began and ended.
    entries = instance.all_logs(run_id, of_type=_STEP_TIMES)
    for entry in sorted(entries, key=lambda entry: entry.timestamp):
        for group in running:
            seconds[group] = seconds.get(group, 0.0) + (entry.timestamp - last) / len(running)
        last, group = entry.timestamp, str(entry.step_key).partition("__")[0]
        if entry.get_dagster_event().event_type == dg.DagsterEventType.STEP_START:
            running.append(group)
        else:
            running.remove(group)
    return seconds
