"""The sensor: what it asks for, when it waits, and that Dagster's own daemon runs it."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.execution.build_resources import wrap_resources_for_execution
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context, instance_for_test
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.sensor import execute_sensor_iteration

from totesys_assets.automation import sensors, watch
from totesys_assets.automation.sensors import (
    back_off_seconds,
    changes_sensor,
    fail_dead_runs,
    failed_looks,
    first_audit_sensor,
    waiting_for,
)
from totesys_assets.names import LOOKED_AT_TAG, RANGE_TAG, REFRESH_TAG
from totesys_assets.source.totesys import kept
from totesys_assets_tests.conftest import Platform

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
_INSTANT = "date_trunc('milliseconds', now() AT TIME ZONE 'UTC')"
# One sale as the application makes it: order, transaction and payment in one transaction.
ORDER = f"""
    WITH sale AS (
        INSERT INTO sales_order SELECT 2, {_INSTANT}, {_INSTANT}, 1, 1, 1, 5000, 3.10, 1, '2024-09-02', '2024-09-03', 1
        RETURNING created_at),
    business AS (INSERT INTO transaction SELECT 3, 'SALE', 2, NULL, created_at, created_at FROM sale)
    INSERT INTO payment
    SELECT 3, created_at, created_at, 3, 1, 15500.00, 1, 1, false, '2024-09-03', 12345678, 87654321 FROM sale
"""


def tick(platform: Platform, cursor: str | None = None) -> tuple[list[dg.RunRequest], str | None, str | None]:
    """One evaluation: the requests, why there are none, and the cursor."""
    definitions = platform.definitions()
    sensor = definitions.resolve_sensor_def("changes")
    with dg.build_sensor_context(
        instance=platform.instance, cursor=cursor, definitions=definitions, resources=definitions.resources
    ) as context:
        data = sensor.evaluate_tick(context)
    return list(data.run_requests or []), data.skip_message, data.cursor


def new_order(platform: Platform) -> None:
    """A sale in ToteSys."""
    platform.sql(ORDER)


def test_at_first_everything_is_requested_in_one_run_without_a_run_key(platform: Platform) -> None:
    (request,), _, _ = tick(platform)
    assert len(request.asset_selection or []) == 52
    assert request.run_key is None
    assert request.job_name == "refresh"
    assert request.tags["totesys/refresh"] == "true"
    assert request.tags["dagster/asset_partition_range_start"] == "2024-08-19"  # the first rates
    assert request.tags["dagster/asset_partition_range_end"] == "2024-08-30"  # the last


@pytest.mark.refreshed
def test_after_one_new_order_only_what_it_touches_is_requested(platform: Platform) -> None:
    new_order(platform)
    (request,), _, _ = tick(platform)
    touched = {"sales_order", "transaction", "payment"}
    star = {"fact_sales_order", "dim_transaction", "fact_payment", "dim_date"}
    marts = {"mart_sales_day", "mart_payments_day"}
    assert {"/".join(key.path) for key in request.asset_selection or []} == {
        *(f"totesys/{name}" for name in touched),
        *(f"star/{name}" for name in star),
        *(f"mart/{name}" for name in marts),
        *(f"warehouse/{name}" for name in star | marts),
    }
    today = datetime.now(UTC).date().isoformat()
    assert request.tags["dagster/asset_partition_range_start"] == today
    assert request.tags["dagster/asset_partition_range_end"] == today
    assert set(request.tags["totesys/tables"].split(", ")) == touched
    assert request.tags["totesys/days"] == today


@pytest.mark.refreshed
def test_a_refresh_tells_what_it_added_and_how_large_its_tables_are(platform: Platform) -> None:
    new_order(platform)
    (outcome,) = platform.refresh()
    run = platform.instance.get_run_by_id(outcome.run_id)
    assert run is not None
    assert run.job_name == "refresh"
    assert set(run.tags["totesys/versions"].split(", ")) == {"sales_order 1", "transaction 1", "payment 1"}
    for asset in ("totesys/payment", "star/fact_payment", "warehouse/fact_payment", "star/dim_date"):
        event = platform.instance.get_latest_materialization_event(dg.AssetKey(asset.split("/")))
        assert event is not None
        assert event.asset_materialization is not None
        rows = event.asset_materialization.metadata["dagster/row_count"].value
        loaded = asset.partition("/")[2].replace("fact_", "").replace("payment", "fact_payment")
        assert [(rows,)] == platform.query(f"SELECT count(*) FROM {loaded}")
    platform.sql("UPDATE payment SET last_updated = last_updated WHERE payment_id = 3")
    (outcome,) = platform.refresh()
    run = platform.instance.get_run_by_id(outcome.run_id)
    assert run is not None
    assert "totesys/versions" not in run.tags


@pytest.mark.refreshed
def test_when_nothing_changed_no_table_is_read_and_nothing_is_written(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT_SECONDS", 0.5)  # of the sessions that ``scans`` waits for
    requests, skipped, cursor = tick(platform)
    assert (requests, skipped) == ([], "Nothing changed.")
    reads = "SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_user_tables"

    def scans() -> object:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(platform.totesys_url, autocommit=True) as connection:
            while connection.execute(others).fetchone() != (0,):  # a session counts its scans at its end
                time.sleep(0.05)
            return connection.execute(reads).fetchone()

    before, lake = scans(), {path: path.stat().st_mtime for path in platform.files()}
    assert tick(platform, cursor)[:2] == ([], "Nothing changed.")
    assert scans() == before
    assert {path: path.stat().st_mtime for path in platform.files()} == lake


@pytest.mark.refreshed
def test_without_its_cursor_the_sensor_still_finds_that_there_is_nothing_to_do(platform: Platform) -> None:
    assert tick(platform, cursor=None)[0] == []
    assert tick(platform, cursor="nonsense")[0] == []


DRIFT = "ALTER TABLE design RENAME COLUMN design_name TO name"


@pytest.mark.refreshed
def test_a_table_that_is_blocked_is_named_by_a_red_tick_and_then_does_not_stop_the_others(platform: Platform) -> None:
    platform.sql(DRIFT)
    platform.sql("UPDATE address SET phone = '1' WHERE address_id = 1")
    with pytest.raises(dg.Failure, match='"design_name" is missing'):
        tick(platform)
    (request,), _, _ = tick(platform)
    assert "totesys/address" in {"/".join(key.path) for key in request.asset_selection or []}
    assert '"design_name" is missing' in request.tags["totesys/left-out"]
    run = create_run_for_test(platform.instance, tags=request.tags, status=dg.DagsterRunStatus.NOT_STARTED)
    assert '"design_name" is missing' in (waiting_for(platform.instance, NOW) or "")
    platform.instance.report_run_canceled(run)
    platform.refresh()
    with pytest.raises(dg.Failure, match='"design_name" is missing'):
        tick(platform)


def test_while_a_refresh_is_under_way_the_sensor_waits(platform: Platform) -> None:
    create_run_for_test(platform.instance, tags=REFRESH_TAG, status=dg.DagsterRunStatus.NOT_STARTED)
    requests, skipped, _ = tick(platform)
    assert requests == []
    assert skipped == "A refresh is under way; the next look sees everything."


def test_runs_that_are_no_refreshes_do_not_hold_the_sensor_up() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
        assert waiting_for(instance, NOW) is None


def test_failures_in_a_row_make_the_sensor_back_off_further_and_further() -> None:
    assert [back_off_seconds(failures) for failures in (0, 1, 2, 3, 4)] == [0, 10, 20, 40, 80]
    assert back_off_seconds(50) == 600


def test_after_a_failed_refresh_the_sensor_waits_and_then_tries_again() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = create_run_for_test(instance, tags=REFRESH_TAG, status=dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(run)
        now = datetime.now(UTC)
        assert "1 refreshes failed" in (waiting_for(instance, now) or "")
        assert waiting_for(instance, now + timedelta(seconds=11)) is None


def test_the_ranges_of_a_look_are_one_try_that_failed_if_one_of_them_did() -> None:
    def run(look: int, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> None:
        tags = {**RANGE_TAG, LOOKED_AT_TAG: str(look)}
        started = create_run_for_test(instance, tags=tags, status=dg.DagsterRunStatus.STARTED)
        event = dg.DagsterEvent(f"PIPELINE_{status.value}", started.job_name)
        instance.report_dagster_event(event, run_id=started.run_id)

    with dg.DagsterInstance.ephemeral() as instance:
        for look in (1, 2):
            run(look, dg.DagsterRunStatus.FAILURE)
            for _ in range(9):
                run(look)
            assert len(failed_looks(instance)) == look
        assert "2 refreshes failed" in (waiting_for(instance, datetime.now(UTC)) or "")
        run(3)
        assert failed_looks(instance) == []


def test_a_killed_run_is_reported_as_failed_and_a_living_one_is_left_alone(platform: Platform) -> None:
    killed = create_run_for_test(platform.instance, tags=REFRESH_TAG, status=dg.DagsterRunStatus.STARTED)
    living = create_run_for_test(platform.instance, tags=REFRESH_TAG, status=dg.DagsterRunStatus.STARTED)
    with platform.warehouse.alive(living.run_id):
        now = datetime.now(UTC)
        failed = fail_dead_runs(platform.instance, platform.warehouse.is_alive, now, grace_seconds=-1)
        assert failed == [killed.run_id]
    run = platform.instance.get_run_by_id(killed.run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE


def test_a_run_that_leaves_the_warehouse_alone_is_not_taken_for_dead(platform: Platform) -> None:
    capture, load = (
        create_run_for_test(
            platform.instance,
            tags=REFRESH_TAG,
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset({dg.AssetKey(["totesys", "payment"]), dg.AssetKey([group, "fact_payment"])}),
        )
        for group in ("star", "warehouse")
    )
    now = datetime.now(UTC)
    assert fail_dead_runs(platform.instance, platform.warehouse.is_alive, now, grace_seconds=-1) == [load.run_id]
    assert capture.run_id != load.run_id


def timers(client_port: int) -> list[tuple[int, float]]:
    """Kind and seconds of the timer that runs on the server's end of a connection: 2 is for asking who is silent."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    return [
        (int(kind), int(ticks, 16) / os.sysconf("SC_CLK_TCK"))
        for _, _, remote, state, _, timer, *_ in fields
        if int(remote.rpartition(":")[2], 16) == client_port and state == "01"
        for kind, ticks in [timer.split(":")]
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/net/tcp")
def test_the_server_soon_asks_whether_the_machine_of_a_run_is_still_there(platform: Platform) -> None:
    with platform.warehouse.alive("run"):
        holding = "SELECT client_port FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory'"
        with psycopg.connect(platform.warehouse_url) as connection:
            (port,) = [row[0] for row in connection.execute(f"{holding} AND mode = 'ShareLock'")]
        deadline = time.monotonic() + 5
        while (found := timers(port)[0])[0] != 2 and time.monotonic() < deadline:  # until what was said is confirmed
            time.sleep(0.1)
    assert found[0] == 2
    assert found[1] <= 30


def test_a_run_that_has_just_started_is_given_time_to_show_that_it_is_alive(platform: Platform) -> None:
    run = create_run_for_test(platform.instance, tags=REFRESH_TAG, status=dg.DagsterRunStatus.NOT_STARTED)
    platform.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name), run_id=run.run_id
    )
    assert fail_dead_runs(platform.instance, platform.warehouse.is_alive, datetime.now(UTC), grace_seconds=30) == []


def waiting_tick(platform: Platform, seconds: float, meanwhile: Callable[[], object]) -> tuple[list[str], float]:
    """A tick as the daemon makes it, with ``meanwhile`` while it waits: assets asked for, seconds."""
    definitions = platform.definitions()
    assert definitions.resources is not None
    ended = threading.Event()
    context = dg.SensorEvaluationContext(
        instance_ref=None,
        instance=platform.instance,
        log_key=["tick", "1"],
        definitions=definitions,
        resources=wrap_resources_for_execution(definitions.resources),
    )
    with context, ThreadPoolExecutor(1) as beside:
        started = time.monotonic()
        done = beside.submit(lambda: meanwhile() if probes_twice(platform, ended) else None)
        try:
            data = changes_sensor(platform.settings, seconds).evaluate_tick(context)
        finally:
            ended.set()
        taken = time.monotonic() - started
        done.result()
    asked = [key for request in data.run_requests or [] for key in request.asset_selection or []]
    return sorted("/".join(key.path) for key in asked), taken


def probes_twice(platform: Platform, ended: threading.Event) -> bool:
    """Whether the tick has looked and goes on probing: true as soon as it does, false if it ends without."""
    probes = (
        "SELECT query_start FROM pg_stat_activity "
        "WHERE datname = current_database() AND left(query, 500) = left(%s, 500)"
    )
    seen: set[object] = set()
    with psycopg.connect(platform.totesys_url, autocommit=True) as connection:
        while len(seen) < 2 and not ended.wait(0.02):
            seen.update(connection.execute(probes, [watch._STATE]).fetchall())
    return len(seen) == 2


@pytest.mark.refreshed
def test_a_request_says_when_nothing_waited_for_the_last_time(platform: Platform) -> None:
    _, _, cursor = tick(platform)
    new_order(platform)
    (request,), _, _ = tick(platform, cursor)
    assert request.tags["totesys/quiet-until"] == str(cursor).partition(" ")[0]
    (request,), _, _ = tick(platform)
    assert request.tags["totesys/quiet-until"] == "0.000"


@pytest.mark.refreshed
def test_a_tick_waits_for_the_next_commit_and_asks_for_it_at_once(platform: Platform) -> None:
    asked, taken = waiting_tick(platform, 50, lambda: new_order(platform))
    assert "warehouse/fact_sales_order" in asked
    assert taken < 30


def test_a_tick_waits_for_the_end_of_a_refresh_and_then_looks(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run_for_test(platform.instance, tags=REFRESH_TAG, status=dg.DagsterRunStatus.STARTING)
    asks = itertools.count(1)

    def at_the_third_time_it_has_ended(instance: dg.DagsterInstance, now: datetime) -> str | None:
        if next(asks) == 3:
            instance.report_run_canceled(run)
        return waiting_for(instance, now)

    monkeypatch.setattr(sensors, "waiting_for", at_the_third_time_it_has_ended)
    asked, _ = waiting_tick(platform, 50, lambda: None)
    assert len(asked) == 52


def test_a_tick_that_waits_after_a_failure_reads_the_records_seldom(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run_for_test(platform.instance, tags=REFRESH_TAG, status=dg.DagsterRunStatus.STARTED)
    platform.instance.report_run_failed(run)
    read = list[None]()

    def counted(instance: dg.DagsterInstance) -> list[float]:
        read.append(None)
        return failed_looks(instance)

    monkeypatch.setattr(sensors, "failed_looks", counted)
    asked, taken = waiting_tick(platform, 2, lambda: None)
    assert asked == []
    assert taken > 2
    assert 0 < len(read) < 4


@pytest.mark.refreshed
def test_a_commit_that_leaves_nothing_to_do_does_not_end_the_wait(platform: Platform) -> None:
    platform.sql("CREATE TABLE other (id int)")
    asked, taken = waiting_tick(platform, 2, lambda: platform.sql("INSERT INTO other VALUES (1)"))
    assert asked == []
    assert taken > 2


@pytest.mark.refreshed
def test_what_goes_wrong_while_a_tick_waits_makes_it_fail(platform: Platform) -> None:
    with pytest.raises(dg.Failure, match='"design_name" is missing'):
        waiting_tick(platform, 50, lambda: platform.sql(DRIFT))


def test_the_first_refresh_that_succeeds_is_audited_once() -> None:
    def requested() -> int:
        with dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursors[-1]) as context:
            data = first_audit_sensor().evaluate_tick(context)
        cursors.append(data.cursor)
        return len(data.run_requests or [])

    @dg.job(name="audit")
    def audit() -> None: ...

    repository = dg.Definitions(jobs=[audit]).get_repository_def()
    cursors: list[str | None] = [None]
    with dg.DagsterInstance.ephemeral() as instance:
        assert requested() == 0
        create_run_for_test(instance, tags=REFRESH_TAG, status=dg.DagsterRunStatus.SUCCESS)
        assert requested() == 1
        create_run_for_test(instance, job_name="audit", status=dg.DagsterRunStatus.STARTED)
        assert requested() == 0
    with dg.DagsterInstance.ephemeral() as instance:  # and not again when old runs are thrown away
        create_run_for_test(instance, tags=REFRESH_TAG, status=dg.DagsterRunStatus.SUCCESS)
        assert requested() == 0


@contextmanager
def daemon_instance() -> Iterator[dg.DagsterInstance]:
    """An instance whose launched runs are executed at once, in this process."""
    overrides = {
        "run_launcher": {
            "module": "dagster._core.launcher.sync_in_memory_run_launcher",
            "class": "SyncInMemoryRunLauncher",
        },
        "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
    }
    with instance_for_test(overrides=overrides) as instance:
        yield instance


def test_the_daemon_evaluates_the_sensor_and_its_run_fills_the_warehouse(platform: Platform) -> None:
    target = ModuleTarget("totesys_assets.definitions", attribute=None, working_directory=None, location_name="t")
    with daemon_instance() as instance, create_test_daemon_workspace_context(target, instance) as workspace:
        list(execute_sensor_iteration(workspace, logging.getLogger("test"), None, None))
        (run,) = instance.get_runs(dg.RunsFilter(job_name="refresh"))
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert run.tags["dagster/sensor_name"] == "changes"
        assert instance.get_ticks(*_selector(instance), limit=1)[0].status.value == "SUCCESS"
    assert platform.query("SELECT count(*) FROM current_sales_order") == [(1,)]
    assert platform.look().requests == []


def _selector(instance: dg.DagsterInstance) -> tuple[str, str]:
    (state,) = [each for each in instance.all_instigator_state() if each.instigator_name == "changes"]
    return state.instigator_origin_id, state.selector_id
