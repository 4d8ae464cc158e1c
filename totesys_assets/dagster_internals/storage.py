"""Dagster's PostgreSQL storages with pooled connections, for `run_storage`, `event_log_storage` and
`schedule_storage` in dagster.yaml.

Belongs here: how Dagster's storages connect, creating their tables once, and which events are stored together
(event_batches.py). Does not belong here: what they store, which is dagster-postgres, and where the database is, which
is dagster.yaml.

dagster-postgres opens a new connection for nearly every event that it writes: about 250 for a run of 22 assets. Dagster
creates new storage objects again and again (one set per sensor tick), so a pool per object would gain little. All
storages of a process that use the same database share one pool.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import sqlalchemy as sa
from dagster import AssetKey, DagsterEventType, DagsterRun, EventLogEntry
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from dagster_postgres.auth import PgTokenProvider
from dagster_postgres.utils import (
    create_pg_connection,
    create_pg_engine,
    get_token_provider_from_config,
    pg_url_from_config,
)
from sqlalchemy.engine import Connection, Engine

from totesys_assets.dagster_internals import event_batches
from totesys_assets.postgres.session_settings import set_session

POOL_SIZE = 5  # connections kept open per process; a run needs 2 at a time, the daemon's threads a few more
RECYCLE_SECONDS = 1800
# No limit, as without a pool. Dagster asks for a second connection while it holds a first one (for an event's tags), so
# with a limit threads could wait for each other for ever.
UNLIMITED = -1
UNLIMITED_TIME = dict.fromkeys(("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"), "0")
PLANNED = {DagsterEventType.ASSET_MATERIALIZATION_PLANNED, DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED}

_engines: dict[tuple[object, ...], Engine] = {}


def pooled_engine(
    url: str,
    token_provider: PgTokenProvider | None = None,
    *,
    statement_timeout: int | None = None,
    pool_recycle: int = RECYCLE_SECONDS,
    max_overflow: int = UNLIMITED,
) -> Engine:
    """Return the process's engine for this database, in autocommit mode as dagster-postgres has it.

    ``statement_timeout`` is in milliseconds, ``pool_recycle`` in seconds.
    """
    # The token provider is a new object each time, but its tokens depend only on its class and on the URL.
    key = (url, type(token_provider), statement_timeout, pool_recycle, max_overflow)
    if key not in _engines:
        engine = create_pg_engine(
            url,
            token_provider,
            isolation_level="AUTOCOMMIT",
            pool_size=POOL_SIZE,
            max_overflow=max_overflow,
            pool_recycle=pool_recycle,
            pool_pre_ping=True,  # a connection may have been lost while it was in the pool
        )
        sa.event.listen(engine, "connect", partial(_fix_settings, statement_timeout or 0))
        _engines.setdefault(key, engine)  # another thread may have been faster
    return _engines[key]


def _fix_settings(statement_timeout: int, raw: Any, _: object) -> None:
    """Set the parameters that affect how values are read and written, whatever the role or the environment sets.

    The role still decides where Dagster's tables are, and Dagster how long its statements may take.
    """
    with raw, raw.cursor() as cursor:
        times = {**UNLIMITED_TIME, "statement_timeout": str(statement_timeout)}
        cursor.execute(set_session({"search_path": None, "row_security": None, **times}))


def _leave_connections_to_parent() -> None:
    """Begin with an empty pool, without closing: a forked process must not use its parent's connections."""
    for engine in _engines.values():
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_leave_connections_to_parent)


class _Pooled:
    """The common part of the three storages: each is its dagster-postgres parent with another engine."""

    main_table: str  # exists if the storage's tables do
    _engine: Engine

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: Any = None,
        token_provider: PgTokenProvider | None = None,
    ) -> None:
        # dagster-postgres needs psycopg2. SQLAlchemy 2.1 would use psycopg 3 for a URL without a driver.
        url = postgres_url.replace("postgresql://", "postgresql+psycopg2://", 1)
        self._pooled_engine = partial(pooled_engine, url, token_provider)
        with _tables(self._pooled_engine()) as tables:
            create = should_autocreate_tables and self.main_table not in tables
            super().__init__(url, create, inst_data, token_provider)  # type: ignore[call-arg]  # the other parent's
        self._engine = self._pooled_engine()

    @property
    def engine(self) -> Engine:
        """The engine of its database, which all storages of that database share."""
        return self._engine

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:
        return cls(
            pg_url_from_config(config_value),
            config_value.get("should_autocreate_tables", True),
            inst_data,
            get_token_provider_from_config(config_value),
        )

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        self._engine = self._pooled_engine(
            statement_timeout=statement_timeout,
            pool_recycle=pool_recycle,
            max_overflow=max_overflow * 3,  # the webserver sets it for each of three storages; negative means unlimited
        )


class PooledRunStorage(_Pooled, PostgresRunStorage):
    """Runs, in PostgreSQL."""

    main_table = "runs"

    # The columns were seen to be there. They never vanish.
    _has_times = False

    def has_run_stats_index_cols(self) -> bool:
        """Whether the table of runs has columns for their times. Dagster asks whenever it reads a run."""
        self._has_times = self._has_times or super().has_run_stats_index_cols()
        return self._has_times

    def add_run(self, dagster_run: DagsterRun) -> DagsterRun:
        """Add a run. What is planned for it follows from its tags, asset by asset.

        Dagster plans the partitions that it has noted on the run for every asset and check of the run, also for those
        that have none: of a full load's 24,000 planned events, 15,000. A run that has them in its tags alone is asked
        for those of each asset.
        """
        return super().add_run(dagster_run)._replace(partitions_subset=None)


class PooledEventLogStorage(_Pooled, PostgresEventLogStorage):
    """Events, in PostgreSQL."""

    main_table = "event_logs"

    # What was seen to be there: columns of the table of assets, and the table of checks. Neither ever vanishes.
    _asset_columns: frozenset[str] = frozenset()
    _has_checks = False
    # Whether its login may change the table of assets, once it is known.
    _may_write: bool | None = None

    @property
    def supports_partition_subset_in_asset_materialization_planned_events(self) -> bool:
        """Yes: Dagster need not make an event for each partition that a run plans, for PostgreSQL does so.

        What is stored is the same, an event per partition: from these the UI knows which partitions failed.
        """
        return True

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event; an event that plans several partitions becomes one per partition.

        dagster-postgres also sends a NOTIFY for each, for processes of an older version: half of its statements.
        """
        if event.dagster_event_type in PLANNED:
            self._store(event)
        elif event.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION:
            self.store_materializations(event, {})
        elif event.dagster_event_type == DagsterEventType.ASSET_CHECK_EVALUATION or _asset_of(event) is not None:
            super().store_event(event)
        else:
            with self.index_connection() as connection:
                connection.execute(self.prepare_insert_event(event))

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store a batch of events with a handful of statements.

        dagster-postgres stores planned events one by one. A run over all of two years spent 9 s so, of 17.
        (dagster-io/dagster#33831: when it is fixed, this may go.)
        """
        if {event.dagster_event_type for event in events} <= PLANNED:
            self._store(*events)
        else:
            super().store_event_batch(events)

    def store_materializations(self, event: EventLogEntry, others: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the materialisation of a partition and, before it, those of ``others``, which has their metadata."""
        with self.index_transaction() as transaction:
            number = event_batches.insert_each(transaction, event, self._tags_for_asset_event(event), others)
            self._store_asset_event(transaction, event, number)

    def _store(self, *events: EventLogEntry) -> None:
        # One transaction, because if a batch fails, Dagster stores its events again one by one.
        with self.index_transaction() as transaction:
            numbers = event_batches.insert(transaction, events)
            # Of each asset's events the last one stands in the table of assets, as if they had come one by one.
            last = {event.get_dagster_event().asset_key: place for place, event in enumerate(events)}
            for place in last.values():
                self._store_asset_event(transaction, events[place], numbers[place])  # skips checks, which have no key
            event_batches.insert_planned_checks(transaction, events, numbers)

    @property
    def supports_asset_checks(self) -> bool:
        """Whether there is a table for checks. Dagster asks for each of a run's events of checks."""
        self._has_checks = self._has_checks or super().supports_asset_checks
        return self._has_checks

    def can_write_asset_status_cache(self) -> bool:
        """Whether what was counted of an asset's partitions may be kept for the next who asks.

        A viewer's login may not: Dagster, which asks only whether there is a column for it, would show no count at all.
        """
        if not super().can_write_asset_status_cache():
            return False
        if self._may_write is None:
            with self.index_connection() as connection:
                right = sa.text("SELECT has_column_privilege('asset_keys', 'cached_status_data', 'UPDATE')")
                self._may_write = bool(connection.execute(right).scalar())
        return self._may_write

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        # Dagster asks three times per step, and each time reads the table's whole definition.
        if column_name not in self._asset_columns:
            if not super()._has_asset_key_col_on_connection(conn, column_name):
                return False
            self._asset_columns |= {column_name}
        return True


class PooledScheduleStorage(_Pooled, PostgresScheduleStorage):
    """Schedules, sensors and their ticks, in PostgreSQL."""

    main_table = "jobs"


@contextmanager
def _tables(engine: Engine) -> Iterator[set[str]]:
    """Give the names of the tables that exist, and the right to create the missing ones during the block.

    One process of all has that right at a time. Without it, processes that start together on an empty database
    collide (dagster-postgres retries then), and one that comes while another has made the tables but not yet marked
    its data migrations as done believes for the rest of its life that they are not, and records assets the old way.
    """
    with create_pg_connection(engine) as connection:
        transaction = connection.execution_options(isolation_level="READ COMMITTED")
        with transaction.begin():
            _lock(transaction)
            yield set(sa.inspect(transaction).get_table_names())


def _asset_of(event: EventLogEntry) -> AssetKey | None:
    return event.dagster_event.asset_key if event.dagster_event is not None else None


def _lock(transaction: Connection) -> None:
    # The number comes from this module's first name, so that a process of an older version waits for the same lock.
    transaction.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('totesys_assets.dagster_storage'))"))
