"""Tests of the pooled storages: a real Dagster instance, made from a dagster.yaml, on a real PostgreSQL."""

import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log.migration import ASSET_DATA_MIGRATIONS
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from psycopg.rows import dict_row

from totesys_assets.dagster_internals.storage import (
    PooledEventLogStorage,
    PooledRunStorage,
    PooledScheduleStorage,
    pooled_engine,
)
from totesys_assets.dagster_internals.switch import execute_here, record_partitions, steps_executor
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets_tests.harness.servers import HOSTILE, hostile_login

YAML = """
telemetry: {enabled: false}
run_storage: {module: totesys_assets.dagster_internals.storage, class: PooledRunStorage, config: CONFIG}
event_log_storage: {module: totesys_assets.dagster_internals.storage, class: PooledEventLogStorage, config: CONFIG}
schedule_storage: {module: totesys_assets.dagster_internals.storage, class: PooledScheduleStorage, config: CONFIG}
"""
PLAIN = """
telemetry: {enabled: false}
run_storage: {module: dagster_postgres, class: PostgresRunStorage, config: CONFIG}
event_log_storage: {module: dagster_postgres, class: PostgresEventLogStorage, config: CONFIG}
schedule_storage: {module: dagster_postgres, class: PostgresScheduleStorage, config: CONFIG}
"""
BY_URL = "{postgres_url: {env: TEST_DAGSTER_URL}}"
BY_PARTS = (
    "{postgres_db: {username: totesys, password: {env: TEST_PASSWORD}, hostname: 127.0.0.1, port: {env: TEST_PORT}, "
    "db_name: {env: TEST_DATABASE}, scheme: postgresql+psycopg2}}"
)

days = dg.DailyPartitionsDefinition("2025-01-01", end_date="2025-02-01")
in_one_run = dg.BackfillPolicy.single_run()


@dg.asset(partitions_def=days, backfill_policy=in_one_run, code_version="1")
def orders() -> None: ...


@dg.asset(
    deps=[orders],
    partitions_def=days,
    backfill_policy=in_one_run,
    code_version="1",
    check_specs=[dg.AssetCheckSpec(name, asset="sales") for name in ("sums", "keys")],
)
def sales(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
    if context.run.tags.get("fail") == "sales":
        raise dg.Failure("as asked for")
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True, check_name=n) for n in ("sums", "keys")])


@dg.asset(deps=[orders], code_version="1")
def calendar() -> None: ...


@dg.asset(deps=[orders], partitions_def=days, backfill_policy=in_one_run, code_version="1")
def counted(context: dg.AssetExecutionContext) -> None:
    """Says something of each day of the run, and of days beside them, as the platform's assets do."""
    if BESIDE not in context.run.tags:
        record_partitions(context, {key: {} for key in context.partition_keys}, {})
        return
    own: dict[str, dict[str, Any]] = {key: {"100 %d": n, "é": -n} for n, key in enumerate(context.partition_keys)}
    own["2025-01-03"] = {"rows": 10**17, "of": "a text", "share": 0.5, "none": None}
    own |= {"2025-01-04": {}, "2025-01-05": {"any": True}}
    own["2025-01-20"]["lineage"] = dg.TableColumnLineage({"a": [dg.TableColumnDep(dg.AssetKey("orders"), "b")]})
    record_partitions(context, own, {key: {"rows": 7} for key in context.run.tags[BESIDE].split()})


BESIDE = "test/beside"

definitions = dg.Definitions(
    assets=[orders, sales, calendar, counted],
    jobs=[
        dg.define_asset_job("refresh", executor_def=dg.in_process_executor),
        dg.define_asset_job("side_by_side", executor_def=steps_executor),
    ],
)
job, side_by_side = map(definitions.resolve_job_def, ("refresh", "side_by_side"))
RANGE = {"dagster/asset_partition_range_start": "2025-01-01", "dagster/asset_partition_range_end": "2025-01-20"}

numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    folder = Path(tempfile.mkdtemp())  # not pytest's, which is closed to the user that the server runs as under root
    folder.chmod(0o755)
    server = EmbeddedServer(folder / "server", {"fsync": "off", "log_connections": "authorization"})
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def empty(server: EmbeddedServer) -> str:
    """A database without Dagster's tables."""
    name = f"empty_{next(numbers)}"
    server.create_database(name)
    return server.url(name)


@pytest.fixture(scope="module")
def with_tables(server: EmbeddedServer) -> str:
    """A database with Dagster's tables, to be copied, for making them takes a second."""
    server.create_database("with_tables")
    url = server.url("with_tables")
    for storage in (PooledRunStorage, PooledEventLogStorage, PooledScheduleStorage):
        storage(url)
    engine(url).dispose()  # PostgreSQL copies no database that someone is connected to
    return url


def copy_of(url: str) -> str:
    database = f"copy_{next(numbers)}"
    with psycopg.connect(url.replace("/with_tables", "/postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database} TEMPLATE with_tables".encode())
    return url.replace("/with_tables", f"/{database}")


@pytest.fixture
def url(with_tables: str) -> str:
    """A database with Dagster's tables, of which no other test knows."""
    return copy_of(with_tables)


@pytest.fixture
def connected(server: EmbeddedServer, url: str) -> Callable[[], int]:
    """Count the connections that the database has taken so far."""
    database = sa.make_url(url).database
    return lambda: (server.folder / "server.log").read_text().count(f"database={database}\n")


def engine(url: str) -> sa.Engine:
    """The one that the process's storages use."""
    return pooled_engine(url.replace("postgresql:", "postgresql+psycopg2:"))


def instance(
    url: str, home: Path, monkeypatch: pytest.MonkeyPatch, config: str = BY_URL, yaml: str = YAML
) -> dg.DagsterInstance:
    parts = sa.make_url(url)
    monkeypatch.setenv("TEST_DAGSTER_URL", url)
    monkeypatch.setenv("TEST_PASSWORD", str(parts.password))
    monkeypatch.setenv("TEST_PORT", str(parts.port))
    monkeypatch.setenv("TEST_DATABASE", str(parts.database))
    (home / "dagster.yaml").write_text(yaml.replace("CONFIG", config))
    return dg.DagsterInstance.from_config(str(home))


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.parametrize("config", [BY_URL, BY_PARTS])
def test_an_instance_of_dagster_yaml_runs_a_job_over_a_handful_of_connections(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: Callable[[], int], config: str
) -> None:
    with instance(url, tmp_path, monkeypatch, config) as dagster:
        made = connected()
        assert job.execute_in_process(instance=dagster, tags=RANGE).success
        assert connected() - made <= 2
        assert dagster.get_runs()[0].is_success
        assert len(dagster.get_materialized_partitions(dg.AssetKey("sales"))) == 20


def test_rows_are_read_and_written_alike_whatever_the_login_and_the_environment_say(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {name: value for name, value in HOSTILE.items() if name != "search_path"}
    hostile = hostile_login(url, settings)
    monkeypatch.setenv("PGTZ", "America/New_York")
    with instance(hostile, tmp_path, monkeypatch) as dagster:
        assert job.execute_in_process(instance=dagster, tags=RANGE).success
        assert len(dagster.get_materialized_partitions(dg.AssetKey("sales"))) == 20
    query = "SELECT abs(extract(epoch FROM create_timestamp - now() AT TIME ZONE 'UTC')) < 600 FROM runs"
    assert rows(url, query) == [(True,)]
    with engine(hostile).connect() as connection:
        shown = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("TimeZone", "DateStyle")}
    assert shown == {"TimeZone": "UTC", "DateStyle": "ISO, YMD"}


def test_an_instance_made_again_uses_the_connections_that_are_there(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: Callable[[], int]
) -> None:
    with instance(url, tmp_path, monkeypatch) as first:
        reference = first.get_ref()
        made = connected()
    for _ in range(5):
        with dg.DagsterInstance.from_ref(reference) as again:
            assert again.get_runs() == []
            assert again.all_instigator_state() == []
    assert connected() == made


def test_the_webserver_keeps_the_pool_and_gets_its_timeout(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: Callable[[], int]
) -> None:
    with instance(url, tmp_path, monkeypatch) as dagster:
        dagster.optimize_for_webserver(statement_timeout=1234, pool_recycle=60, max_overflow=2)
        made = connected()
        for _ in range(5):
            assert dagster.get_runs() == []
            assert dagster.all_asset_keys() == []
            assert dagster.all_instigator_state() == []
        assert connected() - made == 1
        assert isinstance(dagster.run_storage, PooledRunStorage)
        with dagster.run_storage.connect() as connection:
            assert connection.execute(sa.text("SHOW statement_timeout")).scalar() == "1234ms"


def test_a_connection_that_died_in_the_pool_is_replaced(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with instance(url, tmp_path, monkeypatch) as dagster:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert (True,) in rows(url, f"SELECT pg_terminate_backend(pid, 5000) {others}")
        assert dagster.get_runs() == []
    assert "Retrying" not in caplog.text


def test_a_forked_process_leaves_its_parents_connections_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: Callable[[], int]
) -> None:
    with instance(url, tmp_path, monkeypatch) as dagster:
        made = connected()
        child = os.fork()
        if not child:
            os._exit(0 if dagster.get_runs() == [] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert connected() == made + 1
        assert dagster.get_runs() == []
        assert connected() == made + 1


@pytest.mark.parametrize("storage", [PooledRunStorage, PooledEventLogStorage, PooledScheduleStorage])
def test_each_storage_makes_its_tables_in_an_empty_database_unless_told_not_to(
    empty: str, storage: Callable[..., object]
) -> None:
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    storage(empty, should_autocreate_tables=False)
    assert rows(empty, tables) == [(0,)]
    storage(empty)
    assert rows(empty, tables) > [(4,)]
    assert rows(empty, "SELECT count(*) FROM alembic_version") == [(1,)]


def test_storages_that_start_at_once_on_an_empty_database_do_not_collide(
    empty: str, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = [PooledEventLogStorage] * 3 + [PooledRunStorage] * 2 + [PooledScheduleStorage] * 2
    together = Barrier(len(kinds))

    def start(
        kind: type[PooledEventLogStorage | PooledRunStorage | PooledScheduleStorage],
    ) -> PooledEventLogStorage | PooledRunStorage | PooledScheduleStorage:
        together.wait()
        storage = kind(empty)
        if isinstance(storage, PooledEventLogStorage):
            # One that came too early would remember for ever that the assets' table is not up to date.
            assert all(storage.has_secondary_index(name) for name in ASSET_DATA_MIGRATIONS)
        return storage

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(len(kinds)) as pool:
        assert len(list(pool.map(start, kinds))) == len(kinds)
    assert "Retrying" not in caplog.text
    assert rows(empty, "SELECT count(*) FROM alembic_version") == [(1,)]


@pytest.mark.parametrize("executed", [job, side_by_side], ids=["one after the other", "side by side"])
@pytest.mark.parametrize("batch_size", [pytest.param("0", marks=pytest.mark.thorough), "500"])
@pytest.mark.parametrize(
    "tags",
    [RANGE | {BESIDE: "2025-01-25 2025-01-27"}, RANGE | {"dagster/asset_partition_range_end": "2025-01-01"}],
    ids=["many days", "one day"],
)
def test_what_is_stored_of_partitions_is_what_dagster_postgres_stores(
    with_tables: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: str,
    executed: dg.JobDefinition,
    tags: dict[str, str],
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    ours = left_of_a_run(executed, tags, copy_of(with_tables), tmp_path, monkeypatch, yaml=YAML)
    theirs = left_of_a_run(job, tags, copy_of(with_tables), tmp_path, monkeypatch, yaml=PLAIN)
    made = Counter(row["asset_key"] for row in theirs["event_logs"])
    own, beside = (20, 2) if BESIDE in tags else (1, 0)
    events = {'["orders"]': 2 * own, '["sales"]': 2 * own, '["counted"]': 2 * own + beside, '["calendar"]': 1}
    assert made == events
    assert len(theirs["asset_event_tags"]) == 3 * own + 1
    assert len(theirs["asset_keys"]) == 4
    for what, stored in theirs.items():
        assert ours[what] == stored, what


def left_of_a_run(
    executed: dg.JobDefinition,
    tags: dict[str, str],
    url: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    yaml: str,
) -> dict[str, list[Any]]:
    """What a run has left of its assets in Dagster's tables, without what is never the same twice.

    Without the plan of the one that has no partitions, too, which Dagster makes for each partition of the run.
    """
    ignored = ["id", "event_id", "timestamp", "event_timestamp", "pid", "storage_id", "latest_storage_id"]
    ignored += ["last_materialization_timestamp", "dagster/input_event_pointer/orders", "create_timestamp"]
    with instance(url, home, monkeypatch, yaml=yaml) as dagster:
        run_id = execute_here(executed, dagster, run_config={}, tags=tags).run_id
        for key in map(dg.AssetKey, ("orders", "sales", "counted")):
            cached = get_and_update_asset_status_cache_value(dagster, key, days)
            assert cached is not None
            assert cached.serialized_materialized_partition_subset

    def comparable(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: comparable(each) for name, each in value.items() if name not in ignored}
        if isinstance(value, list):
            return [comparable(each) for each in value]
        if isinstance(value, str) and value.startswith("{"):
            return comparable(json.loads(value))
        return value.replace(run_id, "the run").replace(executed.name, "the job") if isinstance(value, str) else value

    newest = "SELECT asset_key, max(id) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' GROUP BY 1"
    noted = "SELECT asset_key, (last_materialization::json ->> 'storage_id')::bigint FROM asset_keys"
    assert set(rows(url, noted)) == set(rows(url, newest))
    # Of what a step did else, what it is called and says; it says how long it took.
    others = rows(
        url,
        r"SELECT step_key, dagster_event_type, regexp_replace(event::json ->> 'user_message', '[\d.]+m?s\.?$', ''), "
        "event::json -> 'dagster_event' ->> 'event_type_value', partition FROM event_logs WHERE step_key IS NOT NULL "
        "AND asset_key IS NULL AND dagster_event_type <> 'ASSET_CHECK_EVALUATION_PLANNED' ORDER BY step_key, id",
    )
    assert others
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return {"others": others} | {
            table: [
                comparable(row)
                for row in connection.execute(f"SELECT * FROM {table} ORDER BY asset_key, id".encode())
                if row["asset_key"] is not None
                and (row["asset_key"], row.get("dagster_event_type"))
                != ('["calendar"]', "ASSET_MATERIALIZATION_PLANNED")
            ]
            for table in ("event_logs", "asset_event_tags", "asset_keys")
        }


def test_what_has_no_partitions_is_planned_once_beside_what_has(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance(url, tmp_path, monkeypatch) as dagster:
        assert job.execute_in_process(instance=dagster, tags=RANGE).success
        planned = "SELECT partition FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED'"
        assert rows(url, planned + " AND step_key = 'calendar'") == [(None,)]
        # Of each check that was planned nothing is left but its result.
        checks = "SELECT check_name, partition, execution_status FROM asset_check_executions ORDER BY 1"
        assert rows(url, checks) == [("keys", None, "SUCCEEDED"), ("sums", None, "SUCCEEDED")]


def test_planned_checks_are_stored_as_dagster_postgres_stores_them(
    with_tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
    planned = (
        "SELECT check_name, planned.asset_key, planned.partition, execution_status, evaluation_event, "
        "materialization_event_storage_id, create_timestamp IS NOT NULL, evaluation_event = event, "
        "evaluation_event_timestamp = timestamp, planned.run_id = event_logs.run_id FROM asset_check_executions AS "
        "planned JOIN event_logs ON event_logs.id = evaluation_event_storage_id ORDER BY planned.id"
    )
    theirs, ours = copy_of(with_tables), copy_of(with_tables)
    with instance(theirs, tmp_path, monkeypatch, yaml=PLAIN) as dagster:
        run_id = dagster.create_run_for_job(job, tags=RANGE).run_id
        events = [entry for entry in dagster.all_logs(run_id) if entry.dagster_event_type == plans]
    with instance(ours, tmp_path, monkeypatch) as dagster:
        dagster.event_log_storage.store_event_batch(events)
    stored = rows(ours, planned)
    assert len(stored) == 40  # two checks, each on the days of the range
    assert stored == rows(theirs, planned)


def test_what_is_told_of_a_run_takes_a_statement_for_each_event(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance(url, tmp_path, monkeypatch) as dagster:
        run_id = job.execute_in_process(instance=dagster, tags=RANGE).run_id
        (start,) = dagster.all_logs(run_id, of_type=dg.DagsterEventType.RUN_START)
        statements = _statements(url)
        dagster.event_log_storage.store_event(start)
        assert len(statements) == 1
        for _ in range(2):
            statements.clear()
            assert dagster.get_run_record_by_id(run_id) is not None
        assert len(statements) == 1
        stored = dagster.all_logs(run_id, of_type=dg.DagsterEventType.RUN_START)
        assert stored == [start, start]


def test_the_result_of_a_check_is_stored_without_a_look_for_its_table(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    with instance(url, tmp_path, monkeypatch) as dagster:
        entries = dagster.all_logs(job.execute_in_process(instance=dagster, tags=RANGE).run_id, of_type=evaluated)
        statements = _statements(url)
        dagster.event_log_storage.store_event(entries[0])
        assert any("asset_check_executions" in statement for statement in statements)
        assert not any("pg_catalog" in statement for statement in statements)


def test_a_range_of_any_length_is_planned_and_stored_with_the_same_few_statements(
    with_tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "500")
    counts = []
    for last in ("2025-01-02", "2025-01-31"):
        url = copy_of(with_tables)
        with instance(url, tmp_path, monkeypatch) as dagster:
            statements = _statements(url)
            assert job.execute_in_process(
                instance=dagster, tags=RANGE | {"dagster/asset_partition_range_end": last}
            ).success
            counts.append(sum(statement.lstrip().startswith(("INSERT", "WITH")) for statement in statements))
    assert counts[0] == counts[1]


def test_the_days_of_an_asset_that_failed_are_shown_as_failed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance(url, tmp_path, monkeypatch) as dagster:
        result = job.execute_in_process(instance=dagster, tags=RANGE | {"fail": "sales"}, raise_on_error=False)
        assert not result.success
        attempted = (
            dagster.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations
        )
        assert {run for run, _ in attempted(dg.AssetKey("sales")).values()} == {result.run_id}
        assert sorted(attempted(dg.AssetKey("sales"))) == [f"2025-01-{day:02}" for day in range(1, 21)]
        assert attempted(dg.AssetKey("orders")) == {}


def _statements(url: str) -> list[str]:
    """The SQL that the process's storages send to this database from now on."""
    statements: list[str] = []
    sa.event.listen(engine(url), "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    return statements
