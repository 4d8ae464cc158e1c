"""The deployment on one machine, as Docker Compose itself reads it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from totesys_assets.dashboard import server
from totesys_assets_tests.deploy.conftest import PROJECT, options_of, tool

DOCKER = PROJECT / "deploy" / "docker"
REQUIRED = (
    "TOTESYS_URL",
    "POSTGRES_PASSWORD",
    "DAGSTER_PASSWORD",
    "WAREHOUSE_OWNER_PASSWORD",
    "WAREHOUSE_LOADER_PASSWORD",
    "WAREHOUSE_READER_PASSWORD",
)
FILLED = {name: f"<{name}>" for name in REQUIRED} | {"TOTESYS_URL": "postgresql://reader@totesys.example/totesys"}
ONE_OFF = {"provision", "demo-fill"}
SERVERS = {"postgres", "demo-totesys"}
DAGSTER = {"code-server", "daemon", "webserver", "viewer"}
PLATFORM = DAGSTER | {"dashboard"}


def compose(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Docker Compose on the file as it is shipped, and on nothing that the developer's own .env says."""
    command = [tool("docker-compose"), "--env-file", "/dev/null", "--file", str(DOCKER / "compose.yaml"), *arguments]
    return subprocess.run(command, env=dict(env), check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """Every service, those of the profile demo too, with everything filled in."""
    read = compose("--profile", "demo", "config", "--format", "json", env=FILLED)
    assert read.returncode == 0, read.stderr
    found: dict[str, dict[str, Any]] = json.loads(read.stdout)["services"]
    assert set(found) == ONE_OFF | SERVERS | PLATFORM
    return found


def test_compose_takes_it_with_what_the_example_asks_for_and_nothing_more() -> None:
    assert compose("config", "--quiet", env=FILLED).returncode == 0
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == set(REQUIRED)


@pytest.mark.parametrize("missing", REQUIRED)
@pytest.mark.parametrize("how", ["unset", "empty"])
def test_compose_refuses_to_start_without_a_setting_that_it_cannot_guess(missing: str, how: str) -> None:
    env = {name: value for name, value in FILLED.items() if name != missing} | ({missing: ""} if how == "empty" else {})
    refused = compose("config", "--quiet", env=env)
    assert refused.returncode != 0
    assert missing in refused.stderr


def test_every_variable_of_the_file_is_in_the_example() -> None:
    text, example = ((DOCKER / name).read_text(encoding="utf-8") for name in ("compose.yaml", ".env.example"))
    read = set(re.findall(r"\$\{(\w+)", text))
    assert read == set(re.findall(r"^(?:# )?(\w+)=", example, re.MULTILINE))


def test_no_container_may_change_itself_or_gain_rights(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert "secrets" not in service, name  # Compose could not copy them into it


def test_every_container_is_limited_in_memory_processors_processes_and_logs(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory", "pids"}, name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name


def test_what_runs_for_ever_is_restarted_and_watched_and_what_does_not_is_waited_for(
    services: dict[str, dict[str, Any]],
) -> None:
    for name in SERVERS | PLATFORM:
        assert services[name]["restart"] == "unless-stopped", name
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    for name in ONE_OFF:
        assert services[name]["restart"] == "no", name
        # `up --wait` takes it for a failure that a container ended, unless somebody waits for just that.
        for platform in PLATFORM:
            assert services[platform]["depends_on"][name]["condition"] == "service_completed_successfully"


def test_nothing_can_be_reached_from_another_machine(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"webserver", "viewer", "dashboard"}
    assert all(port["host_ip"] == "127.0.0.1" for ports in published.values() for port in ports)
    assert len({port["published"] for ports in published.values() for port in ports}) == 3
    assert not any("network_mode" in service for service in services.values())
    assert set(services["postgres"]["networks"]) == {"data"}


def test_a_container_knows_the_passwords_that_it_needs_and_no_other(services: dict[str, dict[str, Any]]) -> None:
    known = {
        name: {secret for secret in REQUIRED if FILLED[secret] in json.dumps(service)}
        for name, service in services.items()
    }
    pipeline = {"TOTESYS_URL", "DAGSTER_PASSWORD", "WAREHOUSE_LOADER_PASSWORD"}
    assert known == {
        "postgres": {"POSTGRES_PASSWORD"},
        "provision": set(REQUIRED) - {"TOTESYS_URL"},
        "code-server": pipeline,
        "daemon": pipeline,
        "webserver": {"DAGSTER_PASSWORD"},
        "viewer": {"DAGSTER_PASSWORD"},
        "dashboard": {"WAREHOUSE_READER_PASSWORD"},
        "demo-totesys": set(),
        "demo-fill": set(),
    }


def test_the_viewer_is_the_webserver_in_which_nothing_can_be_started(services: dict[str, dict[str, Any]]) -> None:
    assert services["viewer"]["command"] == [*services["webserver"]["command"], "--read-only"]
    assert "--read-only" not in services["webserver"]["command"]


def test_the_daemon_may_fork_its_runs_for_it_has_the_code_servers_image(services: dict[str, dict[str, Any]]) -> None:
    images = {services[name]["image"] for name in PLATFORM | {"provision"}}
    assert len(images) == 1
    assert {services[name]["environment"]["DAGSTER_CURRENT_IMAGE"] for name in DAGSTER} == images


def test_the_dashboard_is_asked_at_the_address_where_it_answers(services: dict[str, dict[str, Any]]) -> None:
    service = services["dashboard"]
    given = options_of(service["command"])
    assert given == {"host": "0.0.0.0", "port": service["ports"][0]["target"]}
    assert f"http://127.0.0.1:{given['port']}{server.HEALTH}" in service["healthcheck"]["test"][-1]


def test_images_of_others_are_pinned_by_digest(services: dict[str, dict[str, Any]]) -> None:
    images = {services[name]["image"] for name in SERVERS}
    assert len(images) == 1
    assert re.fullmatch(r"docker\.io/library/postgres:18\.\d+@sha256:[0-9a-f]{64}", images.pop())


def test_commands_are_those_of_the_dockerfile_and_lists(services: dict[str, dict[str, Any]]) -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    commands = [json.loads(command) for command in re.findall(r"CMD (\[.*\])", dockerfile)]
    assert services["code-server"]["command"] == commands[0]
    assert services["code-server"]["healthcheck"]["test"] == ["CMD", *commands[1]]


@pytest.mark.skipif(not (PROJECT / ".git").exists(), reason="not a checkout")
def test_git_takes_no_file_that_holds_the_passwords() -> None:
    for name in (".env", "aws.env"):
        ignored = subprocess.run(["git", "check-ignore", "--quiet", DOCKER / name], cwd=PROJECT, check=False)
        assert ignored.returncode == 0, name
    tracked = subprocess.run(
        ["git", "ls-files", DOCKER], cwd=PROJECT, check=True, capture_output=True, text=True
    ).stdout
    assert [line for line in tracked.splitlines() if line.endswith(".env")] == []
