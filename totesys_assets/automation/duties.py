"""What must go on by itself: the nightly jobs, and the sensors and schedules that nobody should leave switched off.

Belongs here: their names, and what Dagster's records say of them. Does not belong here: how long a job may take to come
round (incidents.py), and telling anybody (freshness.py). Nothing is written.
"""

from __future__ import annotations

import dagster as dg

from totesys_assets.names import AUDIT, CHANGES, COMPACT, EVERYTHING, PURGE

# Jobs of which a run ends every night.
NIGHTLY_JOBS = (AUDIT, EVERYTHING, COMPACT, PURGE)
# Sensors and schedules without which something would stay undone or untold. Of ``freshness`` itself its silence tells.
ALWAYS_ON = (
    CHANGES,
    "alert_on_failure",
    "alert_on_audit",
    "nightly_audit",
    "nightly_comparison",
    "nightly_compaction",
    "nightly_purge",
)
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


def last_ended(instance: dg.DagsterInstance) -> dict[str, float | None]:
    """Of each nightly job, when its newest run ended, in seconds since 1970; None if none has.

    A run that failed counts as well: its failure is told by itself.
    """
    found = {}
    for job in NIGHTLY_JOBS:
        records = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=_ENDED), limit=1)
        found[job] = records[0].end_time if records else None
    return found


def switched_off(instance: dg.DagsterInstance) -> list[str]:
    """Those of ``ALWAYS_ON`` that somebody has switched off."""
    if instance.schedule_storage is None:  # an instance that lives for one process has no sensors
        return []
    states = {(state.instigator_name, state.status.value) for state in instance.all_instigator_state()}
    return [name for name in ALWAYS_ON if (name, "STOPPED") in states and (name, "RUNNING") not in states]
