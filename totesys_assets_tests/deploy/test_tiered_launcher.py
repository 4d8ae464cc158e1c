"""Large runs as ECS tasks: against moto's server, which keeps tasks and runs none. The tests run them.

TOTESYS_DEPLOY_TOOLS names an environment that has moto_server (``pip install 'moto[server]'``); it needs no AWS.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import dagster as dg
import dagster_aws.ecs.launcher
import pytest
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon

from totesys_assets.automation.schedules import range_tags
from totesys_assets.automation.sensors import run_request
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.dagster_internals.fork_server import NotWarm
from totesys_assets.dagster_internals.run_launcher import WORKER_TAG
from totesys_assets.dagster_internals.tiered_launcher import HERE, TASK
from totesys_assets.local.postgres import _free_port
from totesys_assets.names import CHANGES_ONLY_TAG, GRPC_INFO_TAG, PLACE_TAG, RANGE_TAG, REFUSED_TAG
from totesys_assets.staleness.decide import everything
from totesys_assets_tests.conftest import FIRST_DAY, PostgresServer, make_platform
from totesys_assets_tests.dagster_internals.test_launch import Daemon, wait_for
from totesys_assets_tests.dagster_internals.test_tiered import tiered, tiered_instance

TOOLS = os.environ.get("TOTESYS_DEPLOY_TOOLS", "")
pytestmark = pytest.mark.skipif(not TOOLS, reason="TOTESYS_DEPLOY_TOOLS names no environment with moto_server")
MOST_OVERRIDES = 8192  # ECS takes no more characters


@dataclass
class Ecs:
    """ECS as a stand-in, and what was asked of AWS by this process."""

    client: Any
    subnets: list[str]
    group: str
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def tasks(self) -> list[dict[str, Any]]:
        """Every task that was ever begun."""
        arns = [
            arn
            for status in ("RUNNING", "STOPPED")
            for arn in self.client.list_tasks(cluster="totesys", desiredStatus=status)["taskArns"]
        ]
        return list(self.client.describe_tasks(cluster="totesys", tasks=arns)["tasks"]) if arns else []

    def task_of(self, run: dg.DagsterRun) -> dict[str, Any]:
        (found,) = [task for task in self.tasks() if task["taskArn"] == run.tags["ecs/task_arn"]]
        return found

    def request(self, operation: str) -> dict[str, Any]:
        """The last request of a kind."""
        return [asked for _, name, asked in self.asked if name == operation][-1]


@pytest.fixture(scope="module")
def ecs() -> Iterator[Ecs]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "ECS_"))]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        command = [str(Path(TOOLS) / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            wait_for(lambda: _answers(url), 60)
            yield _made(patch)
        finally:
            server.kill()
            server.wait()
            boto3.DEFAULT_SESSION = None


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/moto-api/data.json"):
            return True
    except OSError:
        return False


def _made(patch: pytest.MonkeyPatch) -> Ecs:
    """A cluster and a task definition, as Terraform makes them, and a session that notes what it asks."""
    session = boto3.Session()
    ec2, client = session.client("ec2"), session.client("ecs")
    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=network, EnableDnsHostnames={"Value": True})
    subnets = [
        ec2.create_subnet(VpcId=network, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"] for number in (1, 2)
    ]
    group = ec2.create_security_group(GroupName="run", Description="run", VpcId=network)["GroupId"]
    client.create_cluster(clusterName="totesys")
    client.register_task_definition(
        family="totesys-run",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="2048",
        memory="8192",
        containerDefinitions=[{"name": "run", "image": "registry.example/totesys:17", "memory": 8192}],
    )
    made = Ecs(client, subnets, group)

    def note(params: dict[str, Any], model: Any, **_: object) -> None:
        made.asked.append((model.service_model.service_name, model.name, params))

    boto3.setup_default_session()
    boto3.DEFAULT_SESSION.events.register("provide-client-params.*.*", note)
    for name in ("get_current_ecs_task_metadata", "get_current_ecs_task"):
        patch.setattr(dagster_aws.ecs.launcher, name, lambda *_: pytest.fail("The launcher looked where it is itself."))
    return made


class Tiered(Daemon):
    """Dagster's daemon with the launcher of two tiers."""

    def launch(
        self, tags: Mapping[str, str] | None = None, *, job: str = "__ASSET_JOB", assets: bool = True
    ) -> dg.DagsterRun:
        """A run of everything, compared anew over years, launched as the queue launches it."""
        request = self.workspace.create_request_context()
        (repository,) = request.get_code_location("t").get_repositories().values()
        found = repository.get_full_job(job)
        wanted = run_request(everything(catalogue(), self.platform.all_days))
        run = create_run_for_test(
            self.instance,
            job_name=job,
            asset_selection=frozenset(wanted.asset_selection or ()) if assets else None,
            asset_check_selection=frozenset(wanted.asset_check_keys or ()) if assets else None,
            remote_job_origin=found.get_remote_origin(),
            job_code_origin=found.get_python_origin(),
            tags={**wanted.tags, **(tags or {})},
            status=dg.DagsterRunStatus.NOT_STARTED,
        )
        self.instance.submit_run(run.run_id, request)
        queue = QueuedRunCoordinatorDaemon(interval_seconds=1)
        wait_for(lambda: bool(list(queue.run_iteration(self.workspace))) or self._dequeued(run.run_id), 60)
        return self.run(run.run_id)

    def _dequeued(self, run_id: str) -> bool:
        return self.run(run_id).status != dg.DagsterRunStatus.QUEUED

    def begin(self, run: dg.DagsterRun) -> None:
        """The run has begun, in a task that nobody executes."""
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
        self.instance.report_dagster_event(event, run_id=run.run_id)

    def monitor(self) -> None:
        """What the daemon does every half a minute."""
        list(execute_run_monitoring_iteration(self.workspace, logging.getLogger("test")))


@pytest.fixture(scope="module")
def daemon(
    ecs: Ecs, postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tiered]:
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    home, state = tmp_path_factory.mktemp("daemon"), postgres_server.database()
    target = ModuleTarget("totesys_assets.definitions", attribute=None, working_directory=None, location_name="t")
    settings = {"subnets": ", ".join(ecs.subnets), "security_groups": ecs.group}
    with (
        make_platform(source, postgres_server.database(), home, dagster=state) as platform,
        tiered_instance(home, platform.instance, **settings) as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
    ):
        yield Tiered(replace(platform, instance=instance), workspace)


@pytest.fixture(autouse=True)
def finished(daemon: Tiered) -> Iterator[None]:
    """No run of one test holds up the next."""
    yield
    for run in daemon.instance.get_runs():
        if not run.is_finished:
            daemon.instance.report_run_canceled(run)


@contextmanager
def answered(daemon: Tiered, operation: str, change: Callable[[dict[str, Any]], object]) -> Iterator[None]:
    """ECS answers ``operation`` otherwise than moto does."""
    events = tiered(daemon.instance)._of_ecs().ecs.meta.events

    def after(parsed: dict[str, Any], **_: object) -> None:
        change(parsed)

    events.register(f"after-call.ecs.{operation}", after)
    try:
        yield
    finally:
        events.unregister(f"after-call.ecs.{operation}", after)


def test_a_large_run_gets_a_task_that_does_it_in_the_network_it_was_given(daemon: Tiered, ecs: Ecs) -> None:
    run = daemon.launch()
    assert run.tags[PLACE_TAG] == TASK
    assert WORKER_TAG not in run.tags
    task, asked = ecs.task_of(run), ecs.request("RunTask")
    assert (task["launchType"], task["clusterArn"].rpartition("/")[2]) == ("FARGATE", "totesys")
    assert task["taskDefinitionArn"].endswith("task-definition/totesys-run:1")
    network = asked["networkConfiguration"]["awsvpcConfiguration"]
    assert network == {"subnets": ecs.subnets, "securityGroups": [ecs.group], "assignPublicIp": "DISABLED"}
    (override,) = task["overrides"]["containerOverrides"]
    assert (override["name"], override["command"][:3]) == ("run", ["dagster", "api", "execute_run"])
    assert set(override) == {"name", "command"}
    # What ECS would do with it:
    command = [sys.executable, "-m", *override["command"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert daemon.run(run.run_id).status == dg.DagsterRunStatus.SUCCESS
    assert daemon.platform.query("SELECT count(*) FROM current_sales_order") == [(1,)]


def test_a_range_of_a_first_load_gets_a_task_however_few_days_it_has(daemon: Tiered, ecs: Ecs) -> None:
    of_few_days = {CHANGES_ONLY_TAG: "true", **range_tags("2024-08-20", "2024-08-21")}
    run = daemon.launch({**of_few_days, **RANGE_TAG})
    assert run.tags[PLACE_TAG] == TASK
    (override,) = ecs.task_of(run)["overrides"]["containerOverrides"]
    assert override["command"][:3] == ["dagster", "api", "execute_run"]
    assert run.run_id in override["command"][-1]


def test_a_refresh_becomes_no_task(daemon: Tiered, ecs: Ecs) -> None:
    before = len(ecs.tasks())
    run_id = daemon.submit()
    assert daemon.end_of(run_id) == dg.DagsterRunStatus.SUCCESS
    assert WORKER_TAG in daemon.run(run_id).tags
    assert len(ecs.tasks()) == before


def test_the_tag_decides_whatever_the_run_is(daemon: Tiered, ecs: Ecs) -> None:
    before = len(ecs.tasks())
    here = daemon.launch({PLACE_TAG: HERE})
    assert daemon.end_of(here.run_id) == dg.DagsterRunStatus.SUCCESS
    assert (len(ecs.tasks()), WORKER_TAG in daemon.run(here.run_id).tags) == (before, True)
    there = daemon.launch({**range_tags(FIRST_DAY.isoformat(), FIRST_DAY.isoformat()), PLACE_TAG: TASK})
    assert ecs.task_of(there)["desiredStatus"] == "RUNNING"


def test_a_refresh_gets_a_task_while_the_code_server_has_another_image(
    daemon: Tiered, ecs: Ecs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_CURRENT_IMAGE", "registry.example/totesys:18")  # that server was started without
    run = daemon.launch({PLACE_TAG: HERE})
    assert ecs.task_of(run)["desiredStatus"] == "RUNNING"
    assert run.tags[PLACE_TAG] == TASK
    assert not {WORKER_TAG, GRPC_INFO_TAG} & run.tags.keys()


def test_a_refresh_gets_a_task_if_the_code_cannot_be_imported_beforehand(
    daemon: Tiered, ecs: Ecs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise NotWarm

    monkeypatch.setattr(tiered(daemon.instance), "_fork", fails)
    run = daemon.run(daemon.submit())
    assert ecs.task_of(run)["desiredStatus"] == "RUNNING"
    assert GRPC_INFO_TAG not in run.tags


@pytest.mark.parametrize("job", ["refresh_everything", "audit", "compact_lake"])
def test_what_the_schedules_start_at_night_gets_a_task(daemon: Tiered, ecs: Ecs, job: str) -> None:
    assert ecs.task_of(daemon.launch(job=job, assets=False))["desiredStatus"] == "RUNNING"


def test_what_ecs_is_told_holds_no_secret_and_fits_whatever_the_run_is(daemon: Tiered, ecs: Ecs) -> None:
    run = daemon.launch(range_tags("2022-11-03", "2038-01-19"))
    assert len(run.asset_selection or ()) == 52
    said = json.dumps(ecs.request("RunTask")["overrides"])
    assert (
        len(said) < 0.75 * MOST_OVERRIDES
    )  # dagster.yaml is in it, and that of a deployment says more than the tests'
    for variable in ("TOTESYS_URL", "WAREHOUSE_URL", "TOTESYS_DAGSTER_URL"):
        password = os.environ[variable].partition("@")[0].rpartition(":")[2]
        assert password
        assert password not in said


def test_only_ecs_is_asked_and_nothing_about_where_the_daemon_is(daemon: Tiered, ecs: Ecs) -> None:
    daemon.launch()
    assert {service for service, _, _ in ecs.asked} == {"ecs"}
    assert {name for _, name, _ in ecs.asked} <= {"DescribeTaskDefinition", "RunTask", "DescribeTasks", "StopTask"}


def test_a_task_is_stopped_by_another_process_than_the_one_that_launched_it(daemon: Tiered, ecs: Ecs) -> None:
    run = daemon.launch()
    with dg.DagsterInstance.from_ref(daemon.instance.get_ref()) as webserver:
        assert webserver.run_coordinator.cancel_run(run.run_id)
    assert ecs.task_of(run)["lastStatus"] == "STOPPED"
    assert daemon.run(run.run_id).status == dg.DagsterRunStatus.CANCELING
    daemon.instance.report_run_canceled(daemon.run(run.run_id))
    assert not tiered(daemon.instance).terminate(run.run_id)
    assert not tiered(daemon.instance).terminate("no such run")


def test_a_run_is_as_well_as_its_task(daemon: Tiered, ecs: Ecs) -> None:
    run = daemon.launch()
    daemon.begin(run)
    daemon.monitor()
    assert daemon.run(run.run_id).status == dg.DagsterRunStatus.STARTED
    ecs.client.stop_task(cluster="totesys", task=run.tags["ecs/task_arn"], reason="OutOfMemoryError")

    def out_of_memory(parsed: dict[str, Any]) -> None:
        parsed["tasks"][0]["containers"][0].update(name="run", exitCode=137)

    with answered(daemon, "DescribeTasks", out_of_memory):
        daemon.monitor()
    assert daemon.run(run.run_id).status == dg.DagsterRunStatus.FAILURE
    said = daemon.said(run.run_id)
    assert "Stop reason: OutOfMemoryError" in said
    assert "Container 'run' failed - exit code 137" in said


def refused(daemon: Tiered) -> str:
    """What is said of a run that ECS did not take; it is reported as failed."""
    run = daemon.launch()
    assert run.status == dg.DagsterRunStatus.FAILURE
    errors = [
        entry.dagster_event.engine_event_data.error
        for entry in daemon.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        if entry.dagster_event is not None
    ]
    return " ".join(" ".join(error.message for error in errors if error).split())


def test_a_run_for_which_there_is_no_capacity_is_tried_again_and_then_failed_with_what_to_do(
    daemon: Tiered, ecs: Ecs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_TASK_RETRIES", "2")
    failure = {"reason": "Capacity is unavailable at this time. Please try again later"}
    before = len([name for _, name, _ in ecs.asked if name == "RunTask"])
    with answered(daemon, "RunTask", lambda parsed: parsed.update(tasks=[], failures=[failure])):
        said = refused(daemon)
    assert len([name for _, name, _ in ecs.asked if name == "RunTask"]) == before + 3
    assert "ECS began no task for the run: Task failed. Failure reason: Capacity is unavailable" in said
    assert "Nothing is lost. Start it again later, or with the tag totesys/place: here" in said


def test_a_run_beyond_the_quota_says_which_to_raise_and_is_marked(daemon: Tiered) -> None:
    failure = {"reason": "You've reached the limit on the number of vCPUs you can run concurrently"}
    with answered(daemon, "RunTask", lambda parsed: parsed.update(tasks=[], failures=[failure])):
        assert "--service-code fargate --quota-code L-3032A538" in refused(daemon)
    (newest,) = daemon.instance.get_runs(limit=1)
    assert newest.tags[REFUSED_TAG] == "quota"


def test_what_a_refused_run_was_to_do_the_next_one_does(daemon: Tiered) -> None:
    failure = {"reason": "RESOURCE:MEMORY"}
    daemon.platform.sql("UPDATE sales_order SET units_sold = units_sold + 1")
    with answered(daemon, "RunTask", lambda parsed: parsed.update(tasks=[], failures=[failure])):
        assert "RESOURCE:MEMORY" in refused(daemon)
    assert daemon.end_of(daemon.launch({PLACE_TAG: HERE}).run_id) == dg.DagsterRunStatus.SUCCESS
    assert daemon.platform.look().stale == {}


def test_settings_that_ecs_does_not_know_fail_the_run_and_are_named(
    daemon: Tiered, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = tiered(daemon.instance)
    monkeypatch.setattr(launcher, "_tasks", None)
    monkeypatch.setattr(launcher, "_task_definition", "another")
    said = refused(daemon)
    assert "ECS began no task for the run: An error occurred (ClientException)" in said
    assert "check run_launcher in dagster.yaml and what the daemon's role may do" in said
