"""Removing Dagster's records of runs that ended long ago, which Dagster itself keeps for ever, as it does their events.

Belongs here: which records go, and the SQL that removes them. Does not belong here: when (automation/schedules.py), and
ticks, which dagster.yaml has a rule for.

What the UI says of assets stays: of each asset and partition the newest event of each kind, of each check its newest
execution, and the runs that these are of. So does whatever belongs to a run that has not ended, or to a backfill that
has not. Rows are removed some runs at a time, each time in a short transaction that nobody waits for. The database uses
their space again. What a removed run printed into a folder goes with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import sqlalchemy as sa
from dagster import DagsterInstance
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from totesys_assets.dagster_internals.storage import PooledEventLogStorage, PooledRunStorage
from totesys_assets.errors import PlatformError

# The form of Dagster's tables for which the statements below were written.
REVISION = "29b539ebc72a"
# Some 12,000 events: a second's work.
RUNS_AT_ONCE = 200

_BACKFILL_ENDED = "('COMPLETED', 'COMPLETED_SUCCESS', 'COMPLETED_FAILED', 'FAILED', 'CANCELED')"
_ENDED_BEFORE = sa.text(
    f"""
    SELECT id, run_id FROM runs
    WHERE id > :after AND status IN ('SUCCESS', 'FAILURE', 'CANCELED')
    AND coalesce(end_time, extract(epoch FROM update_timestamp)) < :before
    AND NOT EXISTS (
        SELECT FROM bulk_actions WHERE bulk_actions.key = runs.backfill_id AND status NOT IN {_BACKFILL_ENDED}
    )
    ORDER BY id LIMIT :at_once
    """
)
_CHECKS = sa.text(
    """
    DELETE FROM asset_check_executions old WHERE run_id = ANY(:runs) AND EXISTS (
        SELECT FROM asset_check_executions newer
        WHERE newer.asset_key = old.asset_key AND newer.check_name = old.check_name
        AND newer.partition IS NOT DISTINCT FROM old.partition AND newer.id > old.id
    )
    """
)
# Two questions for a newer event instead of IS NOT DISTINCT FROM: each has its index.
_EVENTS = sa.text(
    """
    WITH gone AS (
        DELETE FROM event_logs old WHERE run_id = ANY(:runs) AND (
            asset_key IS NULL
            OR old.partition IS NULL AND EXISTS (
                SELECT FROM event_logs newer WHERE newer.asset_key = old.asset_key
                AND newer.dagster_event_type = old.dagster_event_type AND newer.partition IS NULL AND newer.id > old.id
            )
            OR EXISTS (
                SELECT FROM event_logs newer WHERE newer.asset_key = old.asset_key
                AND newer.dagster_event_type = old.dagster_event_type AND newer.partition = old.partition
                AND newer.id > old.id
            )
        )
        AND id NOT IN (
            SELECT evaluation_event_storage_id FROM asset_check_executions
            WHERE run_id = ANY(:runs) AND evaluation_event_storage_id IS NOT NULL
        )
        RETURNING id
    ), tags AS (DELETE FROM asset_event_tags USING gone WHERE event_id = gone.id)
    SELECT count(*) FROM gone
    """
)
# Their tags go with them.
_RUNS = sa.text(
    """
    DELETE FROM runs WHERE run_id = ANY(:runs)
    AND NOT EXISTS (SELECT FROM event_logs WHERE event_logs.run_id = runs.run_id)
    AND run_id NOT IN (SELECT run_id FROM asset_check_executions WHERE run_id = ANY(:runs))
    AND run_id NOT IN (SELECT last_run_id FROM asset_keys WHERE last_run_id IS NOT NULL)
    RETURNING run_id
    """
)


@dataclass(frozen=True)
class Purged:
    """How many runs and events were removed; ``is_all``: nothing that may go is left."""

    runs: int
    events: int
    is_all: bool


def purge(instance: DagsterInstance, before: float, seconds: float) -> Purged:
    """Remove records of runs that ended before ``before`` (seconds since 1970), for at most about ``seconds``.

    Raises PlatformError if the records are not in one PostgreSQL, or not in tables of the form that is known here.
    """
    runs_of, events_of = instance.run_storage, instance.event_log_storage
    if not isinstance(events_of, PooledEventLogStorage) or not isinstance(runs_of, PooledRunStorage):
        raise PlatformError(
            "Dagster's records are not in this platform's storages: nothing was removed. Set TOTESYS_RECORD_DAYS to 0."
        )
    if events_of.engine is not runs_of.engine:
        raise PlatformError("Dagster's runs and events are in different databases: nothing was removed.")
    engine = events_of.engine.execution_options(isolation_level="READ COMMITTED")  # transactions: its own has none
    with engine.begin() as connection:
        _require_known_tables(connection)
    end, after, runs, events = time.monotonic() + seconds, 0, 0, 0
    while time.monotonic() < end:
        with engine.begin() as connection:
            connection.execute(sa.text("SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '5min'"))
            batch = {"after": after, "before": before, "at_once": RUNS_AT_ONCE}
            found = connection.execute(_ENDED_BEFORE, batch).all()
            if not found:
                return Purged(runs, events, is_all=True)
            after, ids = found[-1].id, {"runs": [row.run_id for row in found]}
            connection.execute(_CHECKS, ids)
            events += connection.execute(_EVENTS, ids).scalar_one()
            removed = connection.execute(_RUNS, ids).scalars().all()
        runs += len(removed)
        if isinstance(instance.compute_log_manager, LocalComputeLogManager):  # a bucket has a rule of its own
            for run_id in removed:
                instance.compute_log_manager.delete_logs(prefix=[run_id])
    return Purged(runs, events, is_all=False)


def _require_known_tables(connection: sa.Connection) -> None:
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all()
    if found != [REVISION]:
        raise PlatformError(
            f"Dagster's tables have the form {', '.join(found) or 'of no version'}, and which of their rows may go is "
            f"known for {REVISION} only: nothing was removed. Set TOTESYS_RECORD_DAYS to 0 until this is mended."
        )
