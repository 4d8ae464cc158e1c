"""The platform on stock Dagster: dagster-postgres' storages, and Dagster's own launcher, coordinator and executor."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration

from totesys_assets.dagster_home import DAGSTER_URL_VARIABLE, instance_config
from totesys_assets.dagster_internals import switch
from totesys_assets.names import AUDIT, CHANGES, REFRESH, SENSOR_NAME_TAG
from totesys_assets_tests.conftest import FIRST_DAY, Platform, PostgresServer, Refreshed
from totesys_assets_tests.dagster_internals.test_executor import spans
from totesys_assets_tests.dagster_internals.test_launch import wait_for
from totesys_assets_tests.harness.complete import require_complete

STOCK = Path(__file__).parents[2] / "deploy" / "stock" / "dagster.yaml"
# What the room replaces; everything else is the same in both files.
REPLACED = {"run_storage", "event_log_storage", "schedule_storage", "run_launcher", "run_coordinator"}
# A silent change: last_updated stays as it was.
CHANGE = "UPDATE sales_order SET units_sold = units_sold + 1"
ROOM = "totesys_assets.dagster_internals."
# `totesys` in a process that says at its end which modules of the room it has loaded.
TOTESYS = f"""
import atexit, sys
atexit.register(lambda: print("loaded", *sorted(name for name in sys.modules if name.startswith({ROOM!r}))))
from totesys_assets.cli import main
main()
"""


@pytest.fixture(scope="module")
def stock(beginning: Refreshed, postgres_server: PostgresServer, scratch: Path) -> Iterator[Platform]:
    """A platform that was refreshed once, and goes on with stock Dagster."""
    folder = scratch / "stock"
    folder.mkdir()
    with beginning.copy(folder) as platform, on_stock_dagster(platform, folder, postgres_server) as made:
        yield made


@contextmanager
def on_stock_dagster(platform: Platform, folder: Path, postgres_server: PostgresServer) -> Iterator[Platform]:
    """The platform with an instance as in deploy/stock, which DAGSTER_HOME, the folder, describes."""
    tidy = "code_servers: {wait_for_local_processes_on_shutdown: true}\n"  # no process outlives its test
    (folder / "dagster.yaml").write_text(STOCK.read_text(encoding="utf-8") + tidy, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DAGSTER_URL_VARIABLE, postgres_server.database())
        with dg.DagsterInstance.get() as instance:
            yield replace(platform, instance=instance)


@pytest.mark.thorough
def test_a_first_refresh_fills_an_empty_warehouse(
    platform: Platform, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    with on_stock_dagster(platform, tmp_path, postgres_server) as made:
        made.refresh()
        require_complete(made)


def test_the_stock_instance_has_no_part_of_the_room_and_is_else_as_the_shipped_one(stock: Platform) -> None:
    instance = stock.instance
    parts = [
        instance.run_storage,
        instance.event_log_storage,
        instance.schedule_storage,
        instance.run_launcher,
        instance.run_coordinator,
    ]
    assert {type(part).__module__.partition(".")[0] for part in parts} == {"dagster", "dagster_postgres"}
    assert not switch.in_use(instance)
    plain: dict[str, Any] = yaml.safe_load(STOCK.read_text(encoding="utf-8"))
    shipped: dict[str, Any] = yaml.safe_load(instance_config())
    assert {key: value for key, value in plain.items() if key not in REPLACED} == {
        key: value for key, value in shipped.items() if key not in REPLACED
    }


def test_a_refresh_takes_one_step_after_the_other_and_a_change_arrives(stock: Platform) -> None:
    stock.sql(CHANGE)
    (outcome,) = stock.refresh()
    assert outcome.success
    require_complete(stock)
    steps = sorted(spans(stock).values())
    assert len(steps) >= 3
    assert all(ended <= began for (_, ended), (began, _) in pairwise(steps))


@pytest.mark.thorough
def test_a_run_over_days_far_apart_records_each_of_them_with_its_rows(stock: Platform) -> None:
    stock.sql(CHANGE)
    stock.sql(
        "INSERT INTO sales_order SELECT 2, '2025-06-02 10:00:00', '2025-06-02 10:00:00', design_id, staff_id, "
        "counterparty_id, units_sold, unit_price, currency_id, agreed_delivery_date, agreed_payment_date, "
        "agreed_delivery_location_id FROM sales_order WHERE sales_order_id = 1"
    )
    (outcome,) = stock.refresh()
    made = dg.DagsterEventType.ASSET_MATERIALIZATION
    events = [entry.get_dagster_event() for entry in stock.instance.all_logs(outcome.run_id, of_type=made)]
    captured = {
        event.partition: event.step_materialization_data.materialization.metadata["dagster/partition_row_count"].value
        for event in events
        if event.asset_key == dg.AssetKey(["totesys", "sales_order"])
    }
    assert captured == {"2024-08-20": 1, "2025-06-02": 1}


@contextmanager
def daemon(platform: Platform) -> Iterator[WorkspaceProcessContext]:
    """Dagster's daemon as far as its workspace, with the code server that runs are launched in."""
    target = ModuleTarget("totesys_assets.definitions", attribute=None, working_directory=None, location_name="t")
    with create_test_daemon_workspace_context(target, platform.instance) as workspace:
        yield workspace


def end_of(run_id: str, platform: Platform, workspace: WorkspaceProcessContext) -> dg.DagsterRunStatus:
    """How a run ended that the queue has let go."""

    def run() -> dg.DagsterRun:
        found = platform.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    assert run().status == dg.DagsterRunStatus.QUEUED
    queue = QueuedRunCoordinatorDaemon(interval_seconds=1)
    wait_for(lambda: bool(list(queue.run_iteration(workspace))) or run().status != dg.DagsterRunStatus.QUEUED, 60)
    wait_for(lambda: run().is_finished, 180)  # its process starts anew, and on a busy machine that alone takes long
    return run().status


@pytest.mark.thorough
def test_a_tick_of_the_sensor_queues_a_run_which_a_code_server_executes(stock: Platform) -> None:
    stock.sql(CHANGE)
    with daemon(stock) as workspace:
        list(execute_sensor_iteration(workspace, logging.getLogger("test"), None, None))
        (run,) = stock.instance.get_runs(dg.RunsFilter(job_name=REFRESH), limit=1)
        assert run.tags[SENSOR_NAME_TAG] == CHANGES
        assert end_of(run.run_id, stock, workspace) == dg.DagsterRunStatus.SUCCESS
    require_complete(stock)


@pytest.mark.thorough
def test_an_audit_finds_no_difference(stock: Platform) -> None:
    with daemon(stock) as workspace:
        request = workspace.create_request_context()
        (repository,) = request.get_code_location("t").get_repositories().values()
        job = repository.get_full_job(AUDIT)
        run = create_run_for_test(
            stock.instance,
            job_name=AUDIT,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            status=dg.DagsterRunStatus.NOT_STARTED,
        )
        stock.instance.submit_run(run.run_id, request)
        assert end_of(run.run_id, stock, workspace) == dg.DagsterRunStatus.SUCCESS
    evaluated = stock.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    checks = [entry.get_dagster_event().asset_check_evaluation_data for entry in evaluated]
    errors = [check for check in checks if check.severity == dg.AssetCheckSeverity.ERROR]
    assert errors
    assert [check.description for check in errors if not check.passed] == []


@pytest.mark.thorough
def test_a_backfill_of_a_day_by_the_command_loads_nothing_of_the_room(stock: Platform) -> None:
    stock.sql(CHANGE)
    day = FIRST_DAY.isoformat()
    command = [sys.executable, "-c", TOTESYS, "refresh", "--from", day, "--to", day]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1].split() == ["loaded", f"{ROOM}switch"]
    stock.refresh()
    require_complete(stock)


def test_the_definitions_load_nothing_of_the_room_before_an_instance_asks_for_it() -> None:
    code = (
        "import sys, totesys_assets.definitions; "
        f"print(*sorted(name for name in sys.modules if name.startswith({ROOM!r})))"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [f"{ROOM}switch"]
