"""The Terraform of deploy/small, without a cloud: its form, its plan, its policies, and what a new machine is told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from totesys_assets_tests.deploy.conftest import PROJECT, tool
from totesys_assets_tests.deploy.terraform import assert_passed, initialised, run, runs_of
from totesys_assets_tests.deploy.test_aws_rules import refused_by_aws, resources
from totesys_assets_tests.deploy.wildcards import justified_statements, policies, unjustified, wildcards

SMALL = PROJECT / "deploy" / "small"
FILES = sorted((SMALL / "terraform").glob("*.tf"))
TEST = "tests/small.tftest.hcl"
LARGE = PROJECT / "deploy" / "terraform"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, beside one of the large stack, whose bucket it takes; initialised, or skipped as that is."""
    copy = tmp_path_factory.mktemp("small")
    shutil.copytree(LARGE, copy / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    return initialised(SMALL / "terraform", copy / "small" / "terraform")


@pytest.fixture(scope="module")
def messages(stack: Path) -> list[dict[str, Any]]:
    """What ``terraform test`` says, with the state that it made."""
    return [json.loads(line) for line in run(stack, "test", "-json", "-verbose").stdout.splitlines()]


@pytest.fixture(scope="module")
def state(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The machine, as it is made of made-up answers."""
    found: dict[str, Any] = next(each["test_state"] for each in messages if each["type"] == "test_state")
    return found


def test_the_provider_is_that_of_the_large_stack() -> None:
    locks = [(folder / ".terraform.lock.hcl").read_text(encoding="utf-8") for folder in (SMALL / "terraform", LARGE)]
    assert locks[0] == locks[1]
    versions = (SMALL / "terraform" / "versions.tf").read_text(encoding="utf-8")
    (constraint,) = re.findall(r'^ +version = "(.+?)"', versions, re.MULTILINE)
    assert f'constraints = "{constraint}"' in locks[0]  # else every init would rewrite the file


def test_files_are_formatted_and_valid(stack: Path) -> None:
    formatted = run(stack, "fmt", "-check", "-recursive", "-diff", "-no-color")
    assert formatted.returncode == 0, formatted.stdout
    valid = run(stack, "validate", "-no-color")
    assert valid.returncode == 0, valid.stdout + valid.stderr


def test_the_machine_is_closed_encrypted_and_watched(messages: list[dict[str, Any]]) -> None:
    """Each of the assertions in small.tftest.hcl."""
    assert_passed(messages, runs_of(SMALL / "terraform" / TEST))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_every_wildcard_has_its_reason_beside_it(file: Path) -> None:
    assert unjustified(file.read_text(encoding="utf-8")) == []


def test_no_statement_allows_more_than_the_text_gives_reasons_for(state: dict[str, Any]) -> None:
    reasons = justified_statements(SMALL / "terraform") | justified_statements(PROJECT / "deploy/terraform/modules")
    found = [statement for policy in policies(state) for statement in policy if wildcards(statement)]
    assert {statement["Sid"] for statement in found} == {"TlsOnly", "Tls12OrLater", "SayThatItLooked"}
    assert {statement["Sid"] for statement in found} <= reasons


def test_aws_would_take_every_value_that_its_rules_tell_of(state: dict[str, Any]) -> None:
    written, refused = refused_by_aws(list(resources(state)))
    assert refused == []
    assert {"aws_instance", "aws_security_group", "aws_cloudwatch_metric_alarm", "aws_iam_role"} <= written.keys()


def cloud_init(state: dict[str, Any]) -> str:
    return str(state["outputs"]["cloud_init"]["value"])


def test_cloud_init_takes_what_a_new_machine_is_told(state: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "user-data").write_text(cloud_init(state), encoding="utf-8")
    command = [tool("cloud-init"), "schema", "--config-file", str(tmp_path / "user-data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_the_metadata_are_kept_from_the_proxys_network() -> None:
    text = (SMALL / "compose.yaml").read_text(encoding="utf-8")
    (subnet,) = re.findall(r"edge: .*\n.*subnet: ([0-9./]+)", text)
    told = (SMALL / "terraform" / "cloud-init.yaml").read_text(encoding="utf-8")
    for what in ("-I", "-D"):
        assert f"iptables {what} DOCKER-USER -s {subnet} -d 169.254.169.254 -j DROP" in told


def test_every_secret_is_made_on_the_machine_or_comes_from_the_parameter(state: dict[str, Any]) -> None:
    told = yaml.safe_load(cloud_init(state))
    machine, aws = (file["content"] for file in told["write_files"][:2])
    names = [line.partition("=")[0] for line in f"{machine}{aws}".splitlines()]
    assert names == [
        *("UI_HOST", "LAKE_URI", "FILES_URI", "BACKUPS_URI", "TOTESYS_ALERT_TOPIC", "HEARTBEAT_NAMESPACE"),
        *("SETTINGS_PARAMETER", "AWS_REGION", "AWS_DEFAULT_REGION"),
    ]


def test_the_backup_is_before_the_nightly_jobs_and_a_restart_of_the_machine_after_them(state: dict[str, Any]) -> None:
    schedules = (PROJECT / "totesys_assets" / "automation" / "schedules.py").read_text(encoding="utf-8")
    jobs = [f"{int(hour):02}:{int(minute):02}" for minute, hour in re.findall(r'"(\d+) (\d+) \* \* \*"', schedules)]
    assert len(jobs) >= 4
    timer = (SMALL / "systemd" / "totesys-backup.timer").read_text(encoding="utf-8")
    (backup,) = re.findall(r"^OnCalendar=\S+ (\d\d:\d\d):00 UTC$", timer, re.MULTILINE)
    (restart,) = re.findall(r'Automatic-Reboot-Time "(\d\d:\d\d)"', cloud_init(state))
    assert backup < min(jobs) <= max(jobs) < restart
