"""What single tasks may do, asked of IAM's rules: end runs and no service, read their own secrets and no other."""

from __future__ import annotations

from typing import Any

import pytest

from totesys_assets_tests.deploy.arns import NAME, arn, role
from totesys_assets_tests.deploy.command_stand_in import COMMAND_TAG
from totesys_assets_tests.deploy.iam import Request, allows
from totesys_assets_tests.deploy.wildcards import statements

CLUSTER = {"ecs:cluster": arn("ecs", f"cluster/{NAME}")}
MASTER = arn("secretsmanager", "secret:rds!db-1-abcdef")


def rights(state: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """What the task of one kind may do."""
    (module,) = (
        each for each in state["root_module"]["child_modules"] if each["address"].partition("[")[0] == f"module.{kind}"
    )
    (policy,) = (each["values"]["policy"] for each in module["resources"] if each["address"].endswith("policy.task[0]"))
    return statements(policy)


@pytest.mark.parametrize("kind", ["webserver", "daemon"])
def test_the_tasks_of_runs_can_be_ended_and_those_of_services_cannot(kind: str, state: dict[str, Any]) -> None:
    held = rights(state, kind)
    task = arn("ecs", f"task/{NAME}/1")
    run = CLUSTER | {"aws:ResourceTag/dagster/run_id": "5cb6ad36"}
    service = CLUSTER | {"aws:ResourceTag/Stack": NAME}
    assert allows(Request("ecs:StopTask", task, run), held)
    assert not allows(Request("ecs:StopTask", task, service), held)
    assert allows(Request("ecs:DescribeTasks", task, service), held)


def test_operators_can_end_their_commands_and_runs_and_no_service(state: dict[str, Any]) -> None:
    held = next(
        statements(each["values"]["policy"])
        for each in state["root_module"]["resources"]
        if each["address"] == "aws_iam_policy.operator"
    )
    task = arn("ecs", f"task/{NAME}/1")
    for tag in (COMMAND_TAG, "dagster/run_id"):
        assert allows(Request("ecs:StopTask", task, CLUSTER | {f"aws:ResourceTag/{tag}": "any"}), held)
    assert not allows(Request("ecs:StopTask", task, CLUSTER | {"aws:ResourceTag/Stack": NAME}), held)


@pytest.mark.parametrize("kind", ["provision", "code", "webserver"])
def test_only_the_provision_task_can_be_started_with_the_master_s_password(kind: str, state: dict[str, Any]) -> None:
    boundary = next(
        statements(each["values"]["policy"])
        for each in state["root_module"]["resources"]
        if each["address"] == "aws_iam_policy.boundary"
    )
    anything = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    started = {"aws:PrincipalArn": role(f"{NAME}-{kind}-execution")}
    read = Request("secretsmanager:GetSecretValue", MASTER, started)
    assert allows(read, anything, boundary) is (kind == "provision")
    own = Request("secretsmanager:GetSecretValue", arn("secretsmanager", f"secret:{NAME}/dagster-url-abcdef"), started)
    assert allows(own, anything, boundary)
