"""The Terraform of deploy/terraform, without a cloud: its form, its plan, and what its policies allow.

Applying it, to a stand-in for AWS, is deploy/tests/apply_on_moto.py.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest

from totesys_assets.api.app import build
from totesys_assets.dashboard import server
from totesys_assets.insights.reading import Reader
from totesys_assets.variables import VARIABLES
from totesys_assets_tests.deploy.conftest import options_of
from totesys_assets_tests.deploy.terraform import STACK, WHOLE, assert_passed, run, runs_of, terraform_test
from totesys_assets_tests.deploy.wildcards import (
    justified_statements,
    policies,
    statements,
    unjustified,
    wildcards,
)

FILES = sorted(STACK.rglob("*.tf"))
TESTS = sorted((STACK / "tests").glob("*.tftest.hcl"))

GOOD = 'Resource = "*" # any: the action knows no resources'


@cache
def reasons() -> set[str]:
    return justified_statements(STACK)


def test_files_are_formatted(stack: Path) -> None:
    done = run(stack, "fmt", "-check", "-recursive", "-diff", "-no-color")
    assert done.returncode == 0, done.stdout


def test_the_configuration_is_valid(stack: Path) -> None:
    done = run(stack, "validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stack_is_private_encrypted_guarded_and_wired(of_the_stack: list[dict[str, Any]]) -> None:
    """Each of the assertions in stack.tftest.hcl."""
    assert_passed(of_the_stack, runs_of(STACK / WHOLE))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            file.name, marks=pytest.mark.thorough if file.name in ("alarms.tftest.hcl", "quotas.tftest.hcl") else ()
        )
        for file in TESTS
        if file.name != Path(WHOLE).name
    ],
)
def test_what_a_user_decides_is_done_or_refused(stack: Path, name: str) -> None:
    """Each of the assertions in the other files of deploy/terraform/tests."""
    assert_passed(terraform_test(stack, f"-filter=tests/{name}"), runs_of(STACK / "tests" / name))


def test_every_setting_is_passed_to_the_tasks_but_for_those_that_the_stack_decides() -> None:
    # A database of its own, a login that is no superuser, rates that a function fetches.
    decided = {"WAREHOUSE_SCHEMA", "TOTESYS_ALLOW_SUPERUSER", "TOTESYS_RATES_URL", "TOTESYS_RATES_ARCHIVE"}
    services = (STACK / "services.tf").read_text(encoding="utf-8")
    assert {each.name for each in VARIABLES if not re.search(rf"\b{each.name}\b", services)} == decided


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(STACK)))
def test_every_wildcard_has_its_reason_beside_it(file: Path) -> None:
    assert unjustified(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        'Action = "*"',
        'Action = ["s3:*"]',
        'Action = ["s3:GetObject", "ec2:Describe*"]',
        'Resource = "*"',
        'Resource = "*" # any:',
        'Resource = "*" # because',
        'Resource = "arn:aws:s3:::*"',
        'Principal = { AWS = "*" }',
    ],
)
def test_a_wildcard_without_a_reason_is_found(line: str) -> None:
    assert unjustified(f"{GOOD}\n  {line}\n") == [line]


@pytest.mark.parametrize(
    "line", [GOOD, '# Action = "*"', 'Resource = "${arn}/totesys/*"', 'error_message = "5 * 3 is not 7"']
)
def test_what_has_a_reason_or_is_named_is_not(line: str) -> None:
    assert unjustified(line) == []


def test_no_statement_allows_more_than_the_text_gives_reasons_for(state: dict[str, Any]) -> None:
    """In the documents themselves, whatever they were put together from."""
    found = [statement for policy in policies(state) for statement in policy]
    assert len(found) > 60
    assert [each for each in found if "Sid" not in each] == []
    assert [(each["Sid"], wildcards(each)) for each in found if wildcards(each) and each["Sid"] not in reasons()] == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"Action": "*", "Resource": "arn:aws:s3:::lake"}, ["*"]),
        ({"Action": ["s3:Get*"], "Resource": ["arn:aws:s3:::lake/*"]}, ["s3:Get*"]),
        ({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::*"}, ["arn:aws:s3:::*"]),
        ({"Action": "s3:GetObject", "Principal": {"AWS": ["*"]}}, ["*"]),
        ({"NotAction": "iam:CreateUser", "Resource": "arn:aws:s3:::lake"}, ["everything but"]),
        ({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::lake/totesys/*"}, []),
    ],
)
def test_a_wildcard_in_a_document_is_found(statement: dict[str, Any], expected: list[str]) -> None:
    assert wildcards(statement) == expected


def resources_of(state: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """What belongs to the task of one kind."""
    modules = state["root_module"]["child_modules"]
    found: list[dict[str, Any]] = next(
        each for each in modules if each["address"] in (f"module.{kind}", f"module.{kind}[0]")
    )["resources"]
    return found


def role_policies(state: dict[str, Any], kind: str, end: str = "task") -> list[dict[str, Any]]:
    """Statements of what the task of one kind may do, or of what starts it (``end`` "execution")."""
    return [
        statement
        for resource in resources_of(state, kind)
        if resource["type"] == "aws_iam_role_policy" and resource["name"] == end
        for statement in json.loads(resource["values"]["policy"])["Statement"]
    ]


def container_definitions(state: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The containers of one kind, as ECS is told of them."""
    (definition,) = (each for each in resources_of(state, kind) if each["type"] == "aws_ecs_task_definition")
    found: list[dict[str, Any]] = json.loads(definition["values"]["container_definitions"])
    return found


def allowed(state: dict[str, Any], role: str) -> set[str]:
    """Actions that the task of one kind may do."""
    actions: set[str] = set()
    for statement in role_policies(state, role):
        assert statement["Effect"] == "Allow"
        actions |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return actions


# As stack.tftest.hcl has it; those of the others have another.
READER_SECRET = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:totesys/warehouse-reader-url-abcdef"
READS = {"s3:ListBucket", "s3:GetObject", "kms:Decrypt", "kms:GenerateDataKey"}


def test_viewers_can_only_read(state: dict[str, Any]) -> None:
    assert allowed(state, "viewer") == READS


def test_the_webserver_can_also_end_runs(state: dict[str, Any]) -> None:
    assert allowed(state, "webserver") == READS | {"ecs:DescribeTaskDefinition", "ecs:DescribeTasks", "ecs:StopTask"}


@pytest.mark.parametrize("kind", ["provision", 'insights["dashboard"]', 'insights["api"]'])
def test_what_works_with_the_warehouse_alone_can_do_nothing_in_aws(state: dict[str, Any], kind: str) -> None:
    assert allowed(state, kind) == set()


@pytest.mark.parametrize("kind", ['insights["dashboard"]', 'insights["api"]'])
def test_what_shows_the_warehouse_is_started_with_the_reader_s_secret_and_no_other(
    state: dict[str, Any], kind: str
) -> None:
    (container,) = container_definitions(state, kind)
    assert [secret["name"] for secret in container["secrets"]] == ["WAREHOUSE_READER_URL"]
    (readable,) = [
        statement["Resource"] for statement in role_policies(state, kind, "execution") if statement["Sid"] == "Secrets"
    ]
    assert readable == [READER_SECRET]
    assert container["secrets"][0]["valueFrom"] == READER_SECRET


@pytest.mark.parametrize("kind", ["dashboard", "api"])
def test_dashboard_and_api_are_asked_at_the_address_where_they_answer(state: dict[str, Any], kind: str) -> None:
    (container,) = container_definitions(state, f'insights["{kind}"]')
    given = options_of(container["command"])
    health = {"dashboard": server.HEALTH, "api": build(cast("Reader", None), ["0" * 64]).openapi_url}[kind]
    assert f"http://127.0.0.1:{given['port']}{health}" in container["healthCheck"]["command"][-1]
    assert [given["port"]] == [each["containerPort"] for each in container["portMappings"]]
    (group,) = (
        resource["values"]
        for resource in state["root_module"]["resources"]
        if resource["address"] == f'aws_lb_target_group.ui["{kind}"]'
    )
    assert (group["port"], group["health_check"][0]["path"]) == (given["port"], health)


def test_the_function_that_fetches_rates_writes_to_their_prefix_and_reads_nothing(state: dict[str, Any]) -> None:
    (policy,) = (
        resource["values"]["policy"]
        for resource in state["root_module"]["resources"]
        if resource["address"] == "aws_iam_role_policy.rates[0]"
    )
    found = {each["Sid"]: (each["Action"], each["Resource"]) for each in statements(policy)}
    group = "arn:aws:logs:eu-west-2:123456789012:log-group:/totesys/totesys/rates:*"
    assert found == {
        "DataKey": (
            ["kms:Decrypt", "kms:GenerateDataKey"],
            "arn:aws:kms:eu-west-2:123456789012:key/11111111-1111-1111-1111-111111111111",
        ),
        "DropRates": ("s3:PutObject", "arn:aws:s3:::a-bucket/files/rates/*"),
        "LogRates": (["logs:CreateLogStream", "logs:PutLogEvents"], group),
    }


def test_the_schedule_may_call_that_function_and_nothing_else(state: dict[str, Any]) -> None:
    (policy,) = (
        resource["values"]["policy"]
        for resource in state["root_module"]["resources"]
        if resource["address"] == "aws_iam_role_policy.rates_schedule[0]"
    )
    function = "arn:aws:lambda:eu-west-2:123456789012:function:totesys-rates"
    assert [(each["Action"], each["Resource"]) for each in statements(policy)] == [("lambda:InvokeFunction", function)]


def test_the_code_server_reads_the_lake_and_writes_only_logs(state: dict[str, Any]) -> None:
    writes = [each["Resource"] for each in role_policies(state, "code") if "s3:PutObject" in each["Action"]]
    assert writes == ["arn:aws:s3:::a-bucket/compute-logs/*"]
    assert "s3:DeleteObject" not in allowed(state, "code")


def test_only_the_code_server_publishes(state: dict[str, Any]) -> None:
    kinds = ["code", "daemon", "run", "webserver", "viewer"]
    assert [kind for kind in kinds if "sns:Publish" in allowed(state, kind)] == ["code"]


def test_only_the_daemon_starts_tasks_and_only_large_runs(state: dict[str, Any]) -> None:
    kinds = ["code", "daemon", "run", "webserver", "viewer"]
    assert [kind for kind in kinds if "ecs:RunTask" in allowed(state, kind)] == ["daemon"]
    assert [kind for kind in kinds if "iam:PassRole" in allowed(state, kind)] == ["daemon"]
    by_sid = {statement["Sid"]: statement for statement in role_policies(state, "daemon")}
    assert by_sid["StartRuns"]["Resource"] == "arn:aws:ecs:eu-west-2:123456789012:task-definition/totesys-run:*"
    assert by_sid["StartRuns"]["Condition"] == {
        "ArnEquals": {"ecs:cluster": "arn:aws:ecs:eu-west-2:123456789012:cluster/totesys"}
    }
    assert by_sid["HandRunsTheirRoles"]["Resource"] == [
        "arn:aws:iam::123456789012:role/totesys-run-execution",
        "arn:aws:iam::123456789012:role/totesys-run-task",
    ]


@pytest.mark.parametrize("kind", ["daemon", "run"])
def test_nothing_can_delete_what_was_captured(state: dict[str, Any], kind: str) -> None:
    removable = [each["Resource"] for each in role_policies(state, kind) if "s3:DeleteObject" in each["Action"]]
    assert removable == [
        [
            f"arn:aws:s3:::a-bucket/totesys/{part}/*"
            for part in ("processed", "ledger", "dead_letter", "schema_registry", "ingestion/*/_delta_log")
        ],
        "arn:aws:s3:::a-bucket/files/rates/*",  # archives that the platform fetched itself
    ]


def test_every_role_that_is_not_github_s_has_the_boundary(state: dict[str, Any]) -> None:
    def roles(module: dict[str, Any]) -> list[dict[str, Any]]:
        own = [each["values"] for each in module.get("resources", []) if each["type"] == "aws_iam_role"]
        return own + [role for child in module.get("child_modules", []) for role in roles(child)]

    found = roles(state["root_module"])
    assert len(found) == 24
    assert {role["name"] for role in found if not role["permissions_boundary"]} == {
        "totesys-ci-build",
        "totesys-ci-plan",
        "totesys-ci-deploy",
    }
