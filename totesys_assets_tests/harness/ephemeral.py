"""Dagster's instances of the tests, made quicker: importing this module is enough.

The ephemeral one has one connection to its events in place of a new one for each event, which takes a tenth off the
processor time of every refresh; and it plans the days of an asset with one event, as the instance that is shipped does.
Dagster plans a check with a statement that has all of its days in it; here each day is a row for one short statement.
What Dagster tells of a step on its way, which nobody reads, is not stored.
Its tables are new each time: their version is not noted, for which Alembic loads all migrations, and no table or column
is looked for.
Those with files do not wait for the disk at every event: none outlives its test.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster import DagsterEventType, EventLogEntry, serialize_value
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import in_memory
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.runs import in_memory as runs
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

_module: Any = in_memory
_runs: Any = runs
_create_engine = _module.create_engine
_store_event = _module.InMemoryEventLogStorage.store_event
_ON_THE_WAY = {
    DagsterEventType.STEP_INPUT,
    DagsterEventType.LOADED_INPUT,
    DagsterEventType.STEP_OUTPUT,
    DagsterEventType.HANDLED_OUTPUT,
    DagsterEventType.RESOURCE_INIT_STARTED,
    DagsterEventType.RESOURCE_INIT_SUCCESS,
    DagsterEventType.LOGS_CAPTURED,
}


def _shared_by_threads(url: str, **arguments: Any) -> Engine:
    engine: Engine = _create_engine(url, **arguments, connect_args={"check_same_thread": False})
    return engine


@contextmanager
def _held(storage: in_memory.InMemoryEventLogStorage) -> Iterator[Connection]:
    # The lock is the storage's own, so that one thread at a time has the connection.
    with storage._db_lock, storage._held_conn.begin():
        yield storage._held_conn


def _plan_check(storage: Any, planned: EventLogEntry, event_id: int | None) -> None:
    of_check: Any = planned.get_dagster_event().event_specific_data
    days = of_check.partitions_subset.get_partition_keys() if of_check.partitions_subset else [None]
    row = {
        "asset_key": of_check.asset_key.to_string(),
        "check_name": of_check.check_name,
        "run_id": planned.run_id,
        "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
        "evaluation_event": serialize_value(planned),
        "evaluation_event_timestamp": storage._event_insert_timestamp(planned),
        "evaluation_event_storage_id": event_id,
    }
    with storage.index_connection() as connection:
        connection.execute(AssetCheckExecutionsTable.insert(), [{**row, "partition": day} for day in days])


def _store(storage: Any, stored: EventLogEntry) -> None:
    if stored.dagster_event is None or stored.dagster_event.event_type not in _ON_THE_WAY:
        _store_event(storage, stored)


@event.listens_for(Engine, "connect")
def _without_waiting(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


_module.stamp_alembic_rev = _runs.stamp_alembic_rev = lambda *_: None
_module.create_engine = _shared_by_threads
_module.InMemoryEventLogStorage._connect = _held
_module.InMemoryEventLogStorage.store_event = _store
_module.InMemoryEventLogStorage._store_asset_check_evaluation_planned = _plan_check
_module.InMemoryEventLogStorage._has_asset_key_col_on_connection = lambda *_: True
_module.InMemoryEventLogStorage.supports_asset_checks = True
_module.InMemoryEventLogStorage.supports_partition_subset_in_asset_materialization_planned_events = True
