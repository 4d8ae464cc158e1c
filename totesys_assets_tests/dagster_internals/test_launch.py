"""Launching runs: forked from a process that is warm, ended, watched, and never lost; and when they must queue."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import psycopg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG, SENSOR_NAME_TAG
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.sensor import execute_sensor_iteration

import totesys_assets
from totesys_assets.dagster_internals import fork_server, run_launcher
from totesys_assets.dagster_internals.run_launcher import WORKER_TAG, WarmRunLauncher
from totesys_assets.errors import PlatformError
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform


class Daemon:
    """What Dagster's daemon does, step by step, on a platform whose instance is configured as it is shipped."""

    def __init__(self, platform: Platform, workspace: WorkspaceProcessContext) -> None:
        self.platform = platform
        self.instance = platform.instance
        self.workspace = workspace

    @property
    def launcher(self) -> WarmRunLauncher:
        found = self.instance.run_launcher
        assert isinstance(found, WarmRunLauncher)
        return found

    @property
    def server(self) -> int:
        """Process id of the fork server."""
        assert self.launcher._server is not None
        return self.launcher._server.pid

    def tick(self) -> str:
        """Id of the run that the sensor asks for, which is launched and not waited for."""
        list(execute_sensor_iteration(self.workspace, logging.getLogger("test"), None, None))
        (run,) = self.instance.get_runs(limit=1)
        return str(run.run_id)

    def submit(self, *, by_sensor: bool = True) -> str:
        """Id of a small run, submitted as a sensor's or as somebody's."""
        request = self.workspace.create_request_context()
        (repository,) = request.get_code_location("t").get_repositories().values()
        job = repository.get_full_job("__ASSET_JOB")
        run = create_run_for_test(
            self.instance,
            job_name=job.name,
            asset_selection=frozenset({dg.AssetKey(["warehouse", "dim_design"])}),
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            tags={SENSOR_NAME_TAG: "changes"} if by_sensor else {},
            status=dg.DagsterRunStatus.NOT_STARTED,
        )
        self.instance.submit_run(run.run_id, request)
        return str(run.run_id)

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def end_of(self, run_id: str) -> dg.DagsterRunStatus:
        wait_for(lambda: self.run(run_id).is_finished, 60)
        return self.run(run_id).status

    def pid_of(self, run_id: str) -> int:
        return int(json.loads(self.run(run_id).tags[WORKER_TAG])["pid"])

    def said(self, run_id: str) -> str:
        return "\n".join(entry.message for entry in self.instance.all_logs(run_id))

    @contextmanager
    def held_up(self, launch: Callable[[], str]) -> Iterator[str]:
        """Id of the run launched, which waits for a lock of the warehouse for as long as the block."""
        with psycopg.connect(self.platform.warehouse_url) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(7083379, hashtext('public'))")
            run_id = launch()
            # It asks again and again.
            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND state = 'idle in transaction' AND query LIKE '%pg_try_advisory_xact_lock%'"
            )
            with psycopg.connect(self.platform.warehouse_url, autocommit=True) as other:
                wait_for(lambda: other.execute(waits).fetchone() != (0,), 60)
            yield run_id


@pytest.fixture(scope="module")
def daemon(
    postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    home, state = tmp_path_factory.mktemp("daemon"), postgres_server.database()
    target = ModuleTarget("totesys_assets.definitions", attribute=None, working_directory=None, location_name="t")
    with (
        make_platform(source, postgres_server.database(), home, dagster=state) as platform,
        create_test_daemon_workspace_context(target, platform.instance) as workspace,
    ):
        yield Daemon(platform, workspace)


def wait_for(happened: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"It did not happen within {seconds} s."
        time.sleep(0.05)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def libraries(pid: int) -> set[str]:
    """Files of the libraries that a process has loaded."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="ascii")
    return {line.split()[-1] for line in maps.splitlines() if ".so" in line}


def test_runs_are_forked_from_one_process_that_has_loaded_what_they_need(daemon: Daemon) -> None:
    with daemon.held_up(daemon.tick) as first:  # everything is captured and built; loading waits
        server, pid = daemon.server, daemon.pid_of(first)
        assert psutil.Process(pid).ppid() == server
        assert psutil.Process(server).num_threads() == 1
        assert any("pandas" in library for library in libraries(server))
        assert libraries(pid) <= libraries(server)
    assert daemon.end_of(first) == dg.DagsterRunStatus.SUCCESS
    assert daemon.platform.query("SELECT count(*) FROM current_sales_order") == [(1,)]
    wait_for(lambda: gone(pid), 10)
    second = daemon.submit()
    assert daemon.end_of(second) == dg.DagsterRunStatus.SUCCESS
    assert daemon.server == server
    assert daemon.pid_of(second) not in (pid, server)


def test_a_sensors_run_starts_at_once_unless_another_is_under_way(daemon: Daemon) -> None:
    with daemon.held_up(daemon.submit) as first:
        second = daemon.submit()
        assert daemon.run(second).status == dg.DagsterRunStatus.QUEUED
        daemon.instance.run_coordinator.cancel_run(second)
    assert daemon.end_of(first) == dg.DagsterRunStatus.SUCCESS
    assert "enqueued" not in daemon.said(first)
    by_hand = daemon.submit(by_sensor=False)
    assert daemon.run(by_hand).status == dg.DagsterRunStatus.QUEUED
    daemon.instance.run_coordinator.cancel_run(by_hand)


def test_a_killed_run_is_reported_as_failed_and_its_health_says_so(daemon: Daemon) -> None:
    with daemon.held_up(daemon.submit) as run_id:
        run = daemon.run(run_id)
        assert daemon.launcher.check_run_worker_health(run).status.value == "RUNNING"
        os.kill(daemon.pid_of(run_id), signal.SIGKILL)
        assert daemon.end_of(run_id) == dg.DagsterRunStatus.FAILURE
        assert "was terminated by signal 9 (SIGKILL)" in daemon.said(run_id)
        assert daemon.launcher.check_run_worker_health(run).status.value == "FAILED"


def test_a_run_is_ended_by_another_process_than_the_one_that_launched_it(daemon: Daemon) -> None:
    with daemon.held_up(daemon.submit) as run_id:
        with dg.DagsterInstance.from_ref(daemon.instance.get_ref()) as elsewhere:
            assert elsewhere.run_launcher.terminate(run_id)
        wait_for(lambda: gone(daemon.pid_of(run_id)), 20)
        assert daemon.end_of(run_id) == dg.DagsterRunStatus.CANCELED
        assert not daemon.launcher.terminate(run_id)


@pytest.mark.thorough
def test_a_run_that_the_server_does_not_confirm_is_reported_as_failed(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.platform.sql("UPDATE sales_order SET units_sold = units_sold + 1")
    assert daemon.end_of(daemon.tick()) == dg.DagsterRunStatus.SUCCESS
    monkeypatch.setattr(fork_server, "_FORK_SECONDS", 0.1)
    server = daemon.server
    os.kill(server, signal.SIGSTOP)
    try:
        with pytest.raises(PlatformError, match="did not confirm the run"):
            daemon.submit()
    finally:
        os.kill(server, signal.SIGCONT)
    lost = daemon.instance.get_runs(limit=1)[0].run_id
    assert daemon.run(lost).status == dg.DagsterRunStatus.FAILURE
    wait_for(lambda: "Ignoring a run worker that started after the run had already finished" in daemon.said(lost), 20)
    monkeypatch.undo()
    assert daemon.end_of(daemon.submit()) == dg.DagsterRunStatus.SUCCESS
    assert daemon.server != server


def test_a_run_goes_on_when_its_server_is_asked_to_end_and_the_server_waits_for_it(daemon: Daemon) -> None:
    with daemon.held_up(daemon.submit) as run_id:
        server = daemon.server
        daemon.launcher.dispose()
        time.sleep(1)
        assert not gone(server)
    assert daemon.end_of(run_id) == dg.DagsterRunStatus.SUCCESS
    wait_for(lambda: gone(server), 10)


def test_what_is_not_the_code_of_this_process_goes_dagsters_own_way(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_CURRENT_IMAGE", "another")  # the code server was started without
    run_id = daemon.submit()
    assert GRPC_INFO_TAG in daemon.run(run_id).tags
    assert WORKER_TAG not in daemon.run(run_id).tags
    assert daemon.launcher.check_run_worker_health(daemon.run(run_id)).status.value == "RUNNING"
    assert daemon.end_of(run_id) == dg.DagsterRunStatus.SUCCESS


class Location:
    """All that the launcher asks of a code location: which start of the code server it is."""

    def __init__(self, server_id: str) -> None:
        self.server_id = server_id


@pytest.mark.thorough
def test_a_changed_file_or_a_reloaded_code_location_makes_a_new_server(monkeypatch: pytest.MonkeyPatch) -> None:
    made = WarmRunLauncher()

    def server(server_id: str) -> int:
        return made._server_for(Location(server_id)).pid  # type: ignore[arg-type]

    try:
        first = server("one")
        assert server("one") == first
        reloaded = server("two")
        assert reloaded != first
        monkeypatch.setattr(run_launcher, "code_state", lambda: 17)
        assert server("two") not in (first, reloaded)
        wait_for(lambda: gone(first) and gone(reloaded), 30)
    finally:
        made.dispose()


def test_the_code_is_another_when_a_file_of_the_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "star").mkdir()
    (tmp_path / "__init__.py").touch()
    monkeypatch.setattr(totesys_assets, "__file__", str(tmp_path / "__init__.py"))
    seen = [fork_server.code_state()]
    for change in (
        lambda: (tmp_path / "star" / "new.sql").write_text("SELECT 1"),
        lambda: (tmp_path / "__init__.py").write_text("# longer"),
        lambda: (tmp_path / "star" / "new.sql").unlink(),
    ):
        change()
        seen.append(fork_server.code_state())
    assert len(set(seen)) == 4
    (tmp_path / "notes.txt").touch()
    assert fork_server.code_state() == seen[-1]


def test_a_server_ends_with_the_process_that_started_it() -> None:
    code = (
        "import time; from totesys_assets.dagster_internals.fork_server import ForkServer; "
        "print(ForkServer('totesys_assets.definitions').pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        parent.kill()
    wait_for(lambda: gone(server), 30)


def test_a_server_has_loaded_what_dagster_yaml_names(tmp_path: Path) -> None:
    logs = "compute_logs: {module: dagster_aws.s3.compute_log_manager, class: S3ComputeLogManager, config: {bucket: b}}"
    (tmp_path / "dagster.yaml").write_text(logs, encoding="utf-8")
    code = (
        "import sys; from totesys_assets.dagster_internals import run_worker; "
        "run_worker.warm_up('totesys_assets.definitions'); print('boto3' in sys.modules)"
    )
    env = {**os.environ, **fork_server._ONE_THREAD, "DAGSTER_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr


def test_a_process_with_other_threads_refuses_to_fork() -> None:
    code = (
        "import threading, time; threading.Thread(target=time.sleep, args=[60], daemon=True).start(); "
        "from totesys_assets.dagster_internals import run_worker; run_worker.warm_up('totesys_assets.definitions')"
    )
    env = {**os.environ, **fork_server._ONE_THREAD}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "has 1 threads beside its own, and cannot fork safely" in result.stderr
