"""What must be true of the stack in an account, asked of AWS (or a stand-in) through boto3.

Belongs here: expectations of what was applied, of new passwords, and of nothing being left. Does not belong here:
Terraform, and the stand-in (apply_on_moto.py).
"""

from __future__ import annotations

import base64
import json
import re
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from totesys_assets_tests.deploy.wildcards import justified_statements, statements, wildcards  # noqa: E402

HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of a key of the API
NAME, REGION, ACCOUNT = "totesys", "eu-west-2", "123456789012"
INSIGHTS = {"dashboard": 8501, "api": 8502}  # what reads the warehouse and nothing else, with its port
SERVICES = ("code", "daemon", "webserver", "viewer", *INSIGHTS)
KINDS = (*SERVICES, "run", "provision")
BUCKETS = {part: f"{NAME}-{part}-{ACCOUNT}-{REGION}" for part in ("lake", "work", "logs")}
ROLE_URLS = {
    "warehouse-owner-url": ("warehouse_owner", "warehouse"),
    "warehouse-loader-url": ("warehouse_loader", "warehouse"),
    "warehouse-reader-url": ("warehouse_reader", "warehouse"),
    "dagster-url": ("dagster", "dagster"),
    "dagster-viewer-url": ("dagster_viewer", "dagster"),
}
# Metric -> the event that makes it, and what the line adds.
METRICS = {
    "Heartbeat": ("heartbeat", "1"),
    "UpToDate": ("up_to_date", "1"),
    "Refreshes": ("refreshed", "1"),
    "RefreshesLate": ("refreshed", "1"),
    "RunsFailed": ("run_failed", "1"),
    "TasksRefused": ("task_refused", "1"),
    "Stale": ("stale", "1"),
    "JobsOverdue": ("overdue", "$.jobs"),
    "SwitchedOff": ("switched_off", "$.parts"),
    "MessagesUnsent": ("unsent", "1"),
    "DeadLetters": ("dead_letters", "$.open"),
    "AuditDifferences": ("audit_differs", "$.findings"),
    "TablesBlocked": ("blocked", "$.tables"),
    "TablesMissed": ("missed", "$.tables"),
    "LogLost": ("log_lost", "1"),
    "LogKept": ("log_kept", "$.percent"),
}
# Those of which the platform sends a message of its own, and those that mail themselves.
TOLD = {
    f"{NAME}-{alarm}"
    for alarm in (
        "run-failed",
        "task-refused",
        "stale",
        "job-overdue",
        "switched-off",
        "tables-blocked",
        "audit-differences",
        "versions-missed",
        "log-lost",
        "log-kept",
    )
}
ALARMS = TOLD | {
    f"{NAME}-{alarm}"
    for alarm in (
        "nothing-runs",
        "message-unsent",
        "late",
        "dead-letters",
        "code-memory",
        "daemon-memory",
        "dashboard-memory",
        "database-storage",
        "database-cpu",
        "database-connections",
        "balancer-errors",
        "ui-errors",
        "webserver-unhealthy",
        "viewer-unhealthy",
        "dashboard-unhealthy",
        "api-unhealthy",
        "rates-failed",
    )
}


class Expectations:
    """Counts what was expected, and keeps what was not met."""

    def __init__(self) -> None:
        self.met = 0
        self.unmet: list[str] = []

    def __call__(self, sentence: str, is_so: object) -> None:
        """Expect that something is so."""
        if is_so:
            self.met += 1
        else:
            self.unmet.append(sentence)
            print(f"  NOT SO: {sentence}", flush=True)

    def same(self, sentence: str, found: object, expected: object) -> None:
        """Expect two values to be equal."""
        self(f"{sentence}: expected {expected}, found {found}", found == expected)

    def summary(self, seconds: dict[str, float]) -> int:
        """Print how it went; returns how much was not so."""
        times = ", ".join(f"{label} {taken:.0f} s" for label, taken in seconds.items())
        print(f"{self.met} expectations met, {len(self.unmet)} not. {times}; in all {sum(seconds.values()):.0f} s.")
        return len(self.unmet)


@cache
def client(service: str) -> Any:
    """A client of one of AWS's services."""
    return boto3.client(service)


def every(service: str, operation: str, key: str, **arguments: Any) -> list[Any]:
    """All pages of a list."""
    asked = client(service)
    if not asked.can_paginate(operation):
        return list(getattr(asked, operation)(**arguments)[key])
    return [each for page in asked.get_paginator(operation).paginate(**arguments) for each in page[key]]


def fails(operation: Any, code: str, **arguments: Any) -> bool:
    """True when AWS refuses with that code."""
    try:
        operation(**arguments)
    except ClientError as error:
        return bool(error.response["Error"]["Code"].startswith(code))
    return False


def named(items: list[dict[str, Any]], key: str = "name", value: str = "value") -> dict[str, Any]:
    """[{name: …, value: …}] as a dict."""
    return {item[key]: item[value] for item in items}


class Cloud:
    """What is asked more than once. ``tag`` is that of the image in the newest task definitions."""

    def __init__(self, outputs: dict[str, Any], tag: str) -> None:
        self.outputs, self.tag = outputs, tag
        self.keys = {
            alias["AliasName"].removeprefix(f"alias/{NAME}-"): alias["TargetKeyId"]
            for alias in every("kms", "list_aliases", "Aliases")
            if alias["AliasName"].startswith(f"alias/{NAME}-")
        }
        self.vpc = every("ec2", "describe_vpcs", "Vpcs", Filters=[{"Name": "tag:Name", "Values": [NAME]}])[0]["VpcId"]
        self.in_vpc = [{"Name": "vpc-id", "Values": [self.vpc]}]
        subnets = every("ec2", "describe_subnets", "Subnets", Filters=self.in_vpc)
        self.subnets = {
            part: {
                each["SubnetId"]: each for each in subnets if f"-{part}-" in named(each["Tags"], "Key", "Value")["Name"]
            }
            for part in ("public", "private")
        }
        self.groups = {
            each["GroupName"].removeprefix(f"{NAME}-"): each["GroupId"]
            for each in every("ec2", "describe_security_groups", "SecurityGroups", Filters=self.in_vpc)
        }
        self.database = every("rds", "describe_db_instances", "DBInstances", DBInstanceIdentifier=NAME)[0]
        self.balancer = every("elbv2", "describe_load_balancers", "LoadBalancers", Names=[NAME])[0]
        self.topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:{NAME}-alerts"

    def key_arn(self, key: str) -> str:
        """ARN of one of the keys."""
        return f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{self.keys[key]}"

    def role_urls(self) -> dict[str, str]:
        """The secrets that Terraform wrote, with their values."""
        asked = client("secretsmanager")
        return {name: asked.get_secret_value(SecretId=f"{NAME}/{name}")["SecretString"] for name in ROLE_URLS}

    def definition(self, kind: str) -> dict[str, Any]:
        """The newest task definition of a kind."""
        asked = client("ecs").describe_task_definition(taskDefinition=f"{NAME}-{kind}")
        return dict(asked["taskDefinition"])


def password_of(url: str) -> str:
    """The password in a URL."""
    return url.split("://")[1].split("@")[0].split(":")[1]


def expect_all(expected: Expectations, cloud: Cloud, state: str, printed: str) -> None:
    """Everything that is there after the first apply."""
    parts = (keys, buckets, network, database, registry, tasks, services, access, logs, alarms, rates, catalogue, tags)
    for part in (*parts, permissions, outputs):
        before = expected.met
        try:
            part(expected, cloud)
        except (ClientError, LookupError, StopIteration) as error:  # what it asks for is not there: the others go on
            expected(f"{part.__name__} can be looked at: {error!r}", False)
        print(f"  {part.__name__}: {expected.met - before}", flush=True)
    secrets(expected, cloud, state, printed)


def keys(expected: Expectations, cloud: Cloud) -> None:
    """KMS."""
    expected.same("keys", set(cloud.keys), {"data", "secrets", "operations"})
    for name, key in cloud.keys.items():
        expected(f"key {name} is rotated", client("kms").get_key_rotation_status(KeyId=key)["KeyRotationEnabled"])
        policy = statements(client("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"])
        principals = {str(each["Principal"]) for each in policy}
        expected(f"key {name} is open to nobody outside", not any("'*'" in each for each in principals))
    policy = statements(client("kms").get_key_policy(KeyId=cloud.keys["operations"], PolicyName="default")["Policy"])
    services = {each["Principal"].get("Service") for each in policy} - {None}
    expected.same(
        "services that use key operations",
        services,
        {f"logs.{REGION}.amazonaws.com", "cloudwatch.amazonaws.com", "events.amazonaws.com"},
    )


def buckets(expected: Expectations, cloud: Cloud) -> None:
    """S3."""
    s3 = client("s3")
    expected.same("buckets", {each["Name"] for each in s3.list_buckets()["Buckets"]}, set(BUCKETS.values()))
    for part, bucket in BUCKETS.items():
        block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        expected(f"{part} keeps the public out", all(block.values()) and len(block) == 4)
        expected.same(f"{part} is versioned", s3.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")
        rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
        algorithm = rule["ApplyServerSideEncryptionByDefault"]
        expected.same(f"{part} is encrypted", algorithm["SSEAlgorithm"], "AES256" if part == "logs" else "aws:kms")
        if part != "logs":
            expected.same(f"{part} uses key data", algorithm["KMSMasterKeyID"], cloud.key_arn("data"))
            expected(f"{part} asks KMS once for many objects", rule["BucketKeyEnabled"])
            target = s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"]["TargetBucket"]
            expected.same(f"{part} logs access", target, BUCKETS["logs"])
        owner = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"][0]["ObjectOwnership"]
        expected.same(f"{part} has no access lists", owner, "BucketOwnerEnforced")
        policy = {each["Sid"]: each for each in statements(s3.get_bucket_policy(Bucket=bucket)["Policy"])}
        expected(
            f"{part} refuses plain HTTP", policy["TlsOnly"]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        )
        expected(f"{part} refuses old TLS", policy["Tls12OrLater"]["Effect"] == "Deny")
        allowed = [each["Principal"] for each in policy.values() if each["Effect"] == "Allow"]
        expected(f"{part} is open to AWS's log delivery at most", (part == "logs") == bool(allowed))
        rules = {each["ID"]: each for each in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
        expected(f"{part} drops old versions in time", "NoncurrentVersionExpiration" in rules["old-versions"])
        expected(f"{part} drops half uploads", "AbortIncompleteMultipartUpload" in rules["old-versions"])
        if part == "work":
            expected.same("work expires", set(rules), {"old-versions", "expire-compute-logs", "expire-athena-results"})
        if part == "lake":
            expected.same("nothing of the lake expires", set(rules), {"old-versions"})
    lock = s3.get_object_lock_configuration(Bucket=BUCKETS["lake"])["ObjectLockConfiguration"]
    expected.same("the lake has object lock", lock["ObjectLockEnabled"], "Enabled")
    retention = lock["Rule"]["DefaultRetention"]
    expected.same("the lake's retention", (retention["Mode"], retention["Days"]), ("GOVERNANCE", 30))


def network(expected: Expectations, cloud: Cloud) -> None:
    """VPC."""
    ec2 = client("ec2")
    for part, subnets in cloud.subnets.items():
        zones = {each["AvailabilityZone"] for each in subnets.values()}
        expected.same(f"{part} subnets lie in two zones", zones, {f"{REGION}a", f"{REGION}b"})
        addresses = [each["MapPublicIpOnLaunch"] for each in subnets.values()]
        expected.same(f"{part} subnets give out no public address", addresses, [False, False])
    tables = every("ec2", "describe_route_tables", "RouteTables", Filters=cloud.in_vpc)
    for table in tables:
        of = {each.get("SubnetId") for each in table["Associations"]}
        targets = {each.get("DestinationCidrBlock"): each for each in table["Routes"] if "DestinationCidrBlock" in each}
        if of & set(cloud.subnets["private"]):
            expected.same("one table for both private subnets", of, set(cloud.subnets["private"]))
            expected("private subnets have no way to the Internet", "0.0.0.0/0" not in targets)
            expected("private subnets have a way to ToteSys", targets["192.0.2.10/32"].get("NatGatewayId"))
        elif of & set(cloud.subnets["public"]):
            expected.same("one table for both public subnets", of, set(cloud.subnets["public"]))
            expected("public subnets have one", targets["0.0.0.0/0"]["GatewayId"].startswith("igw-"))
    endpoints = every("ec2", "describe_vpc_endpoints", "VpcEndpoints", Filters=cloud.in_vpc)
    found = {each["ServiceName"].removeprefix(f"com.amazonaws.{REGION}."): each for each in endpoints}
    wanted = {"s3", "ecr.api", "ecr.dkr", "logs", "secretsmanager", "sns", "ecs"}
    expected.same("endpoints", set(found), wanted)
    expected.same("S3's is a gateway", found["s3"]["VpcEndpointType"], "Gateway")
    for name in wanted - {"s3"}:
        expected.same(f"endpoint {name} is in both zones", set(found[name]["SubnetIds"]), set(cloud.subnets["private"]))
        expected(f"endpoint {name} has its usual name", found[name]["PrivateDnsEnabled"])
    policy = {each["Sid"]: each for each in statements(found["s3"]["PolicyDocument"])}
    reached = {each.split(":::")[1].split("/")[0] for each in policy["OwnBuckets"]["Resource"]}
    expected.same("buckets that the S3 endpoint leads to", reached, {BUCKETS["lake"], BUCKETS["work"]})
    default = next(
        each
        for each in every("ec2", "describe_security_groups", "SecurityGroups", Filters=cloud.in_vpc)
        if each["GroupName"] == "default"
    )
    expected.same("nothing goes into the default group", default["IpPermissions"], [])
    expected.same("nothing goes out of it", default["IpPermissionsEgress"], [])
    group_names = {group: name for name, group in cloud.groups.items()}
    talks = set()
    for rule in every("ec2", "describe_security_group_rules", "SecurityGroupRules"):
        own = group_names.get(rule["GroupId"])
        if own is None:
            continue
        other = rule.get("ReferencedGroupInfo", {}).get("GroupId")
        peer = group_names.get(other) or rule.get("CidrIpv4") or rule.get("PrefixListId")
        talks.add((own, "out" if rule["IsEgress"] else "in", peer, rule["FromPort"]))
    for own, way, peer, port in sorted(talks, key=str):
        if peer in cloud.groups:
            back = (peer, "in" if way == "out" else "out", own, port)
            expected(f"{own} {way} {peer}:{port} has its other end", back in talks)
    into = {
        name: {(peer, port) for own, way, peer, port in talks if own == name and way == "in"} for name in cloud.groups
    }
    out = {
        name: {(peer, port) for own, way, peer, port in talks if own == name and way == "out"} for name in cloud.groups
    }
    expected.same(
        "into the database",
        into["database"],
        {("ui", 5432), ("insights", 5432), ("engine", 5432), ("provision", 5432), ("198.51.100.0/24", 5432)},
    )
    expected.same("into the load balancer", into["balancer"], {("203.0.113.0/24", 80), ("203.0.113.0/24", 443)})
    expected.same("into webservers", into["ui"], {("balancer", 3000)})
    expected.same("into dashboard and API", into["insights"], {("balancer", port) for port in INSIGHTS.values()})
    beyond = {(peer, port) for peer, port in out["insights"] if not str(peer).startswith("pl-")}
    expected.same("out of them, but to S3's endpoint", beyond, {("database", 5432), ("endpoints", 443)})
    expected.same("into the engine", into["engine"], {("ui", 4000), ("engine", 4000)})
    expected.same("into the provision task", into["provision"], set())
    expected.same("out of the database", out["database"], set())
    expected("to ToteSys goes the engine", ("192.0.2.10/32", 5432) in out["engine"])
    for name in ("ui", "insights", "engine", "provision"):
        open_ends = {peer for peer, _ in out[name] if peer == "0.0.0.0/0"}
        expected.same(f"{name} cannot go everywhere", open_ends, set())
    flow = every("ec2", "describe_flow_logs", "FlowLogs")
    expected.same("flow logs", [(each["ResourceId"], each["TrafficType"]) for each in flow], [(cloud.vpc, "ALL")])
    expected.same("addresses", len(ec2.describe_addresses()["Addresses"]), 1)


def database(expected: Expectations, cloud: Cloud) -> None:
    """RDS."""
    found = cloud.database
    expected.same("engine", (found["Engine"], found["EngineVersion"]), ("postgres", "18"))
    expected("storage is encrypted", found["StorageEncrypted"] and found["KmsKeyId"] == cloud.key_arn("data"))
    expected("it is private", not found["PubliclyAccessible"])
    expected("there is a standby", found["MultiAZ"])
    expected.same("backups are kept", found["BackupRetentionPeriod"], 14)
    expected.same("it grows", (found["AllocatedStorage"], found["MaxAllocatedStorage"]), (50, 500))
    expected.same(
        "its group", [each["VpcSecurityGroupId"] for each in found["VpcSecurityGroups"]], [cloud.groups["database"]]
    )
    expected.same("its logs are kept", set(found["EnabledCloudwatchLogsExports"]), {"postgresql", "upgrade"})
    expected("no password was given", "MasterUserSecret" in found)
    expected("it can be destroyed, as asked for", not found["DeletionProtection"])
    subnets = {each["SubnetIdentifier"] for each in found["DBSubnetGroup"]["Subnets"]}
    expected.same("its subnets", subnets, set(cloud.subnets["private"]))
    group = found["DBParameterGroups"][0]["DBParameterGroupName"]
    parameters = every("rds", "describe_db_parameters", "Parameters", DBParameterGroupName=group)
    values = named([each for each in parameters if "ParameterValue" in each], "ParameterName", "ParameterValue")
    expected.same("it refuses connections without TLS", values["rds.force_ssl"], "1")
    expected("statements are not logged, for they set passwords", "log_statement" not in values)


def secrets(expected: Expectations, cloud: Cloud, state: str, printed: str) -> None:
    """Secrets Manager, and that nobody else knows what it knows."""
    asked = client("secretsmanager")
    found = {each["Name"]: each for each in every("secretsmanager", "list_secrets", "SecretList")}
    own = {name for name in found if name.startswith(f"{NAME}/")}
    expected.same("secrets", own, {f"{NAME}/{name}" for name in (*ROLE_URLS, "totesys-url")})
    for name in own:
        expected.same(f"{name} is encrypted with its key", found[name]["KmsKeyId"], cloud.key_arn("secrets"))
    empty = fails(asked.get_secret_value, "ResourceNotFound", SecretId=f"{NAME}/totesys-url")
    expected("the URL of ToteSys is still to be filled in", empty)
    urls = cloud.role_urls()
    address = f"{cloud.database['Endpoint']['Address']}:{cloud.database['Endpoint']['Port']}"
    for name, (role, name_of_database) in ROLE_URLS.items():
        pattern = (
            rf"postgresql://{role}:[A-Za-z0-9]{{40}}@{re.escape(address)}/{name_of_database}"
            r"\?sslmode=verify-full&sslrootcert=/etc/ssl/totesys/rds\.pem"
        )
        expected(f"{name} is a whole URL with a password of forty", re.fullmatch(pattern, urls[name]))
    expected.same("passwords that differ", len({password_of(url) for url in urls.values()}), len(urls))
    unknown(expected, cloud, state, printed)


def unknown(expected: Expectations, cloud: Cloud, state: str, printed: str) -> None:
    """No password in the state, in what Terraform printed, in task definitions or in outputs."""
    master = cloud.database["MasterUserSecret"]["SecretArn"]
    passwords = {name: password_of(url) for name, url in cloud.role_urls().items()}
    value = client("secretsmanager").get_secret_value(SecretId=master).get("SecretString", "")
    passwords["master"] = json.loads(value)["password"] if value.startswith("{") else value
    definitions = json.dumps([cloud.definition(kind) for kind in KINDS], default=str)
    for name, password in passwords.items():
        expected(f"the password of {name} is there", len(password) >= 8)
        expected(f"the password of {name} is not in the state", password not in state)
        expected(f"the password of {name} was not printed", password not in printed)
        expected(f"the password of {name} is in no task definition", password not in definitions)
        expected(f"the password of {name} is in no output", password not in json.dumps(cloud.outputs))
    expected("the state says nothing that looks like a login", not re.search(r"postgresql://\w+:", state))


def expect_next(expected: Expectations, cloud: Cloud, before: dict[str, str], state: str, printed: str) -> None:
    """After the next image was named and password_version raised: all is registered, and nothing moved yet."""
    after = cloud.role_urls()
    for name in ROLE_URLS:
        old, new = password_of(before[name]), password_of(after[name])
        expected(f"{name} has a new password", new != old)
        expected(f"{name} is otherwise the same", after[name].replace(new, old) == before[name])
    unknown(expected, cloud, state, printed)
    for kind in KINDS:
        definition = cloud.definition(kind)
        expected.same(f"{kind}: a second revision", definition["revision"], 2)
        expected(
            f"{kind}: with the next image", definition["containerDefinitions"][0]["image"].endswith(f":{cloud.tag}")
        )
    found = client("ecs").describe_services(cluster=NAME, services=list(SERVICES))["services"]
    for service in found:
        expected(f"{service['serviceName']} waits for the release", service["taskDefinition"].endswith(":1"))


def registry(expected: Expectations, cloud: Cloud) -> None:
    """ECR."""
    found = every("ecr", "describe_repositories", "repositories")
    expected.same("repositories", [each["repositoryName"] for each in found], [NAME])
    expected.same("tags never move", found[0]["imageTagMutability"], "IMMUTABLE")
    expected("images are scanned", found[0]["imageScanningConfiguration"]["scanOnPush"])
    encryption = found[0]["encryptionConfiguration"]
    expected.same(
        "images are encrypted", (encryption["encryptionType"], encryption["kmsKey"]), ("KMS", cloud.key_arn("data"))
    )
    rules = json.loads(client("ecr").get_lifecycle_policy(repositoryName=NAME)["lifecyclePolicyText"])["rules"]
    expected.same("old images go", [rule["selection"]["countNumber"] for rule in rules], [30])


def tasks(expected: Expectations, cloud: Cloud) -> None:
    """Task definitions: that what they name exists."""
    families = {each for each in every("ecs", "list_task_definition_families", "families") if each.startswith(NAME)}
    expected.same("families", families, {f"{NAME}-{kind}" for kind in KINDS})
    secret_arns = {each["ARN"]: each["Name"] for each in every("secretsmanager", "list_secrets", "SecretList")}
    roles = {each["Arn"] for each in every("iam", "list_roles", "Roles")}
    for kind in KINDS:
        definition = cloud.definition(kind)
        container = definition["containerDefinitions"][0]
        expected.same(
            f"{kind}: one container, of its name", [each["name"] for each in definition["containerDefinitions"]], [kind]
        )
        expected.same(
            f"{kind}: Fargate",
            (definition["requiresCompatibilities"], definition["networkMode"]),
            (["FARGATE"], "awsvpc"),
        )
        expected(
            f"{kind}: roles of its own",
            definition["taskRoleArn"].endswith(f"{NAME}-{kind}-task")
            and definition["executionRoleArn"].endswith(f"{NAME}-{kind}-execution"),
        )
        expected(f"{kind}: its roles are there", {definition["taskRoleArn"], definition["executionRoleArn"]} <= roles)
        expected.same(f"{kind}: image", container["image"], f"{cloud.outputs['image_repository']}:{cloud.tag}")
        expected(
            f"{kind}: not root, nothing to write to but its volumes",
            container["user"] == "10001:10001" and container["readonlyRootFilesystem"],
        )
        expected.same(f"{kind}: capabilities", container["linuxParameters"]["capabilities"]["drop"], ["ALL"])
        volumes = {each["name"] for each in definition["volumes"]}
        expected.same(
            f"{kind}: mounts its volumes", {each["sourceVolume"] for each in container["mountPoints"]}, volumes
        )
        expected.same(f"{kind}: two minutes to end", container["stopTimeout"], 120)
        log = container["logConfiguration"]["options"]
        expected.same(f"{kind}: logs", (log["awslogs-group"], log["awslogs-stream-prefix"]), (f"/totesys/{NAME}", kind))
        for secret in container["secrets"]:
            arn = ":".join(secret["valueFrom"].split(":")[:7])
            expected(f"{kind}: {secret['name']} comes from a secret that is there", arn in secret_arns)
        start = client("iam").get_role_policy(RoleName=f"{NAME}-{kind}-execution", PolicyName="start")["PolicyDocument"]
        readable = next(each["Resource"] for each in statements(start) if each["Sid"] == "Secrets")
        readable = {readable} if isinstance(readable, str) else set(readable)
        named_secrets = {":".join(each["valueFrom"].split(":")[:7]) for each in container["secrets"]}
        expected.same(f"{kind}: is given these secrets and can read no others", readable, named_secrets)
        expected(
            f"{kind}: no login in its environment",
            not re.search(r"://[^/@\"]+:[^/@\"]+@", json.dumps(container["environment"])),
        )
        if kind in INSIGHTS:
            of_insights(expected, kind, container, {secret_arns[arn] for arn in named_secrets})
        else:
            environment(expected, cloud, kind, named(container["environment"]))


def of_insights(expected: Expectations, kind: str, container: dict[str, Any], secrets: set[str]) -> None:
    """What a container is told that reads the warehouse and nothing else."""
    expected.same(f"{kind}: its secrets", {each["name"] for each in container["secrets"]}, {"WAREHOUSE_READER_URL"})
    expected.same(f"{kind}: and whose", secrets, {f"{NAME}/warehouse-reader-url"})
    wanted = {
        "dashboard": {"TOTESYS_UI_URL": "https://view.totesys.example.com"},
        "api": {"TOTESYS_API_KEYS": HASH},
    }
    expected.same(f"{kind}: environment", named(container["environment"]), wanted[kind])
    command = ["totesys", kind, "--host", "0.0.0.0", "--port", str(INSIGHTS[kind])]  # noqa: S104 - in a container
    expected.same(f"{kind}: command", container["command"], command)
    expected.same(f"{kind}: port", [each["containerPort"] for each in container["portMappings"]], [INSIGHTS[kind]])


def environment(expected: Expectations, cloud: Cloud, kind: str, found: dict[str, str]) -> None:
    """That what the environment of a container names exists."""
    expected.same(f"{kind}: LAKE_URI", found["LAKE_URI"], f"s3://{BUCKETS['lake']}/totesys")
    expected.same(f"{kind}: FILES_URI", found["FILES_URI"], f"s3://{BUCKETS['lake']}/files")
    expected.same(f"{kind}: TOTESYS_WORK_BUCKET", found["TOTESYS_WORK_BUCKET"], BUCKETS["work"])
    expected.same(f"{kind}: TOTESYS_LOG", found["TOTESYS_LOG"], "off")
    expected.same(f"{kind}: TOTESYS_ALERT_TOPIC", found["TOTESYS_ALERT_TOPIC"], cloud.topic)
    expected.same(f"{kind}: TOTESYS_RUN_CLUSTER", found["TOTESYS_RUN_CLUSTER"], NAME)
    expected.same(
        f"{kind}: TOTESYS_RUN_SUBNETS", set(found["TOTESYS_RUN_SUBNETS"].split(",")), set(cloud.subnets["private"])
    )
    expected.same(f"{kind}: TOTESYS_RUN_SECURITY_GROUPS", found["TOTESYS_RUN_SECURITY_GROUPS"], cloud.groups["engine"])
    run = client("ecs").describe_task_definition(taskDefinition=found["TOTESYS_RUN_TASK_DEFINITION"])["taskDefinition"]
    expected.same(f"{kind}: TOTESYS_RUN_TASK_DEFINITION has a container", run["containerDefinitions"][0]["name"], "run")
    expected.same(f"{kind}: TOTESYS_CODE_SERVER", found["TOTESYS_CODE_SERVER"], f"code.{NAME}.internal")
    if kind == "provision":
        address = f"{cloud.database['Endpoint']['Address']}:{cloud.database['Endpoint']['Port']}"
        expected(
            f"{kind}: WAREHOUSE_ADMIN_URL", found["WAREHOUSE_ADMIN_URL"].startswith(f"postgresql://{address}/postgres?")
        )
    else:
        expected(f"{kind}: no admin's URL", "WAREHOUSE_ADMIN_URL" not in found)


def services(expected: Expectations, cloud: Cloud) -> None:
    """ECS. How a deployment goes moto does not keep: see deploy/terraform/tests/stack.tftest.hcl."""
    ecs = client("ecs")
    cluster = ecs.describe_clusters(clusters=[NAME], include=["SETTINGS"])["clusters"][0]
    expected.same("Container Insights", named(cluster["settings"])["containerInsights"], "disabled")
    found = {
        each["serviceName"]: each for each in ecs.describe_services(cluster=NAME, services=list(SERVICES))["services"]
    }
    expected.same("services", set(found), set(SERVICES))
    spaces = every("servicediscovery", "list_namespaces", "Namespaces")
    expected.same("namespace", [each["Name"] for each in spaces], [f"{NAME}.internal"])
    names = every("servicediscovery", "list_services", "Services")
    expected.same("names in it", [each["Name"] for each in names], ["code"])
    for name, service in found.items():
        expected.same(f"{name} is at rest until a release", service["desiredCount"], 0)
        expected.same(f"{name} is on Fargate", service["launchType"], "FARGATE")
        expected(
            f"{name} runs its newest task definition",
            service["taskDefinition"] == cloud.definition(name)["taskDefinitionArn"],
        )
        inside = service["networkConfiguration"]["awsvpcConfiguration"]
        expected.same(f"{name} has no public address", inside["assignPublicIp"], "DISABLED")
        expected.same(f"{name} is in private subnets", set(inside["subnets"]), set(cloud.subnets["private"]))
        group = "insights" if name in INSIGHTS else "ui" if name in ("webserver", "viewer") else "engine"
        expected.same(f"{name} has its group", inside["securityGroups"], [cloud.groups[group]])
        expected(f"{name}: nobody gets a shell", not service.get("enableExecuteCommand"))
        ports = [(each["containerName"], each["containerPort"]) for each in service.get("loadBalancers", [])]
        behind = [] if group == "engine" else [(name, INSIGHTS.get(name, 3000))]
        expected.same(f"{name}: behind the load balancer", ports, behind)
        registries = [each["registryArn"] for each in service.get("serviceRegistries", [])]
        expected.same(f"{name}: has a name", registries, [names[0]["Arn"]] if name == "code" else [])


def access(expected: Expectations, cloud: Cloud) -> None:
    """Load balancer and Cognito."""
    elb = client("elbv2")
    arn = cloud.balancer["LoadBalancerArn"]
    expected.same(
        "the load balancer faces the Internet", cloud.balancer.get("Scheme", "internet-facing"), "internet-facing"
    )
    zones = {each["SubnetId"] for each in cloud.balancer["AvailabilityZones"]}
    expected.same("it is in the public subnets", zones, set(cloud.subnets["public"]))
    values = named(elb.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"], "Key", "Value")
    expected.same("it drops invalid headers", values["routing.http.drop_invalid_header_fields.enabled"], "true")
    expected.same(
        "it is logged", (values["access_logs.s3.enabled"], values["access_logs.s3.bucket"]), ("true", BUCKETS["logs"])
    )
    listeners = {each["Port"]: each for each in elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]}
    expected.same("listeners", set(listeners), {80, 443})
    redirect = listeners[80]["DefaultActions"][0]["RedirectConfig"]
    expected.same("HTTP is sent to HTTPS", (redirect["Protocol"], redirect["StatusCode"]), ("HTTPS", "HTTP_301"))
    expected.same("TLS 1.2 or later", listeners[443]["SslPolicy"], "ELBSecurityPolicy-TLS13-1-2-2021-06")
    refusal = listeners[443]["DefaultActions"][0]
    expected.same("an unknown host gets nothing", refusal["FixedResponseConfig"]["StatusCode"], "404")
    pools = {
        each["Name"].removeprefix(f"{NAME}-"): each["Id"]
        for each in every("cognito-idp", "list_user_pools", "UserPools", MaxResults=10)
    }
    expected.same("pools", set(pools), {"operators", "viewers"})
    groups = {each["TargetGroupName"]: each for each in elb.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"]}
    health = {
        "webserver": "/server_info",
        "viewer": "/server_info",
        "dashboard": "/_stcore/health",
        "api": "/openapi.json",
    }
    expected.same("target groups", set(groups), {f"{NAME}-{service}" for service in health})
    for service, path in health.items():
        group = groups[f"{NAME}-{service}"]
        expected.same(f"{service}: health", (group["HealthCheckPath"], group["TargetType"]), (path, "ip"))
        kept = elb.describe_target_group_attributes(TargetGroupArn=group["TargetGroupArn"])["Attributes"]
        sticks = named(kept, "Key", "Value")["stickiness.enabled"]
        expected.same(f"{service}: stays with its task", sticks, "true" if service == "dashboard" else "false")
    rules = {
        rule["Conditions"][0]["HostHeaderConfig"]["Values"][0]: rule["Actions"]
        for rule in elb.describe_rules(ListenerArn=listeners[443]["ListenerArn"])["Rules"]
        if rule["Conditions"]
    }
    hosts = {
        "totesys.example.com": ("operators", "webserver"),
        "view.totesys.example.com": ("viewers", "viewer"),
        "sales.totesys.example.com": ("viewers", "dashboard"),
    }
    expected.same("hosts", set(rules), {*hosts, "api.totesys.example.com"})
    (only,) = rules["api.totesys.example.com"]
    api = groups[f"{NAME}-api"]["TargetGroupArn"]
    expected.same("programs come to the API, which asks for keys", only["TargetGroupArn"], api)
    for host, (audience, service) in hosts.items():
        first, second = sorted(rules[host], key=lambda action: action["Order"])
        expected.same(f"{host}: a login first", first["Type"], "authenticate-cognito")
        login = first["AuthenticateCognitoConfig"]
        expected(f"{host}: by {audience}", login["UserPoolArn"].endswith(pools[audience]))
        expected.same(f"{host}: without it no way in", login["OnUnauthenticatedRequest"], "authenticate")
        expected.same(
            f"{host}: then {service}", second["TargetGroupArn"], groups[f"{NAME}-{service}"]["TargetGroupArn"]
        )
        pool = client("cognito-idp").describe_user_pool(UserPoolId=pools[audience])["UserPool"]
        expected(f"{audience}: nobody signs up", pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"])
        expected(f"{audience}: strong passwords", pool["Policies"]["PasswordPolicy"]["MinimumLength"] == 14)
        expected.same(f"{audience}: codes", pool.get("MfaConfiguration"), "ON")
        expected.same(f"{audience}: domain", pool["Domain"], f"{NAME}-{audience}-{ACCOUNT}")
        asked = client("cognito-idp")
        known = every("cognito-idp", "list_user_pool_clients", "UserPoolClients", UserPoolId=pools[audience])
        expected.same(f"{audience}: clients", len(known), 1)
        own = asked.describe_user_pool_client(UserPoolId=pools[audience], ClientId=known[0]["ClientId"])[
            "UserPoolClient"
        ]
        expected(f"{audience}: the client has a secret", own.get("ClientSecret"))
        own_hosts = {host for host, (who, _) in hosts.items() if who == audience}
        back = {f"https://{each}/oauth2/idpresponse" for each in own_hosts}
        expected.same(f"{audience}: leads back", set(own["CallbackURLs"]), back)
        expected.same(f"{audience}: flows", own["AllowedOAuthFlows"], ["code"])


def permissions(expected: Expectations, cloud: Cloud) -> None:
    """IAM."""
    iam = client("iam")
    roles = {
        each["RoleName"]: each
        for each in every("iam", "list_roles", "Roles")
        if each["RoleName"].startswith(f"{NAME}-")
    }
    ends = {f"{NAME}-{kind}-{end}" for kind in KINDS for end in ("execution", "task")}
    ci = {f"{NAME}-ci-{name}" for name in ("build", "plan", "deploy")}
    others = {
        f"{NAME}-{name}" for name in ("flow-logs", "database-monitoring", "rates-function", "rates-schedule", "restore")
    }
    expected.same("roles", set(roles), ends | ci | others)
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/{NAME}-boundary"
    reasons = justified_statements(ROOT / "deploy" / "terraform")
    documents = {}
    for name in roles:
        role = iam.get_role(RoleName=name)["Role"]
        held = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
        expected.same(f"{name}: boundary", held, None if name in ci else boundary)
        trust = statements(role["AssumeRolePolicyDocument"])
        expected(f"{name}: trusts one thing, under a condition", len(trust) == 1 and "Condition" in trust[0])
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            documents[name, policy] = statements(
                iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            )
    for policy in every("iam", "list_policies", "Policies", Scope="Local"):
        version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])["PolicyVersion"]
        documents[policy["PolicyName"], "managed"] = statements(version["Document"])
    expected.same(
        "managed policies",
        {name for name, kind in documents if kind == "managed"},
        {
            f"{NAME}-{policy}"
            for policy in ("boundary", "lake-reader", "file-dropper", "operator", "ci-make", "ci-network")
        },
    )
    for (name, policy), found in documents.items():
        for statement in found:
            where = f"{name}/{policy}/{statement['Sid']}"
            expected(f"{where}: every * has its reason", not wildcards(statement) or statement["Sid"] in reasons)
    runs = {each["Sid"]: each for each in documents[f"{NAME}-daemon-task", "act"]}
    passed = set(runs["HandRunsTheirRoles"]["Resource"])
    expected.same(
        "roles that the daemon hands over",
        passed,
        {f"arn:aws:iam::{ACCOUNT}:role/{NAME}-run-{end}" for end in ("execution", "task")},
    )
    expected("they are there", passed <= {each["Arn"] for each in roles.values()})
    expected.same(
        "what the daemon may start",
        runs["StartRuns"]["Resource"],
        f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{NAME}-run:*",
    )
    cluster = client("ecs").describe_clusters(clusters=[NAME])["clusters"][0]["clusterArn"]
    expected.same("and where", runs["StartRuns"]["Condition"], {"ArnEquals": {"ecs:cluster": cluster}})
    for kind in ("provision", *INSIGHTS):
        may = [policy for name, policy in documents if name == f"{NAME}-{kind}-task"]
        attached = iam.list_attached_role_policies(RoleName=f"{NAME}-{kind}-task")["AttachedPolicies"]
        expected.same(f"what {kind} may do", may + attached, [])
    drop = {each["Sid"]: each for each in documents[f"{NAME}-rates-function", "drop"]}
    expected.same("what the function of rates may do", set(drop), {"DataKey", "DropRates", "LogRates"})
    expected.same("it only writes", drop["DropRates"]["Action"], "s3:PutObject")
    prefix = f"arn:aws:s3:::{BUCKETS['lake']}/files/rates/*"
    expected.same("and only rates", drop["DropRates"]["Resource"], prefix)
    call = documents[f"{NAME}-rates-schedule", "call"]
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{NAME}-rates"
    may_call = [(each["Action"], each["Resource"]) for each in call]
    expected.same("what the schedule may do", may_call, [("lambda:InvokeFunction", function)])
    objects = {"s3:PutObject", "s3:DeleteObject"}
    for kind in ("webserver", "viewer"):
        actions = {
            action
            for each in documents[f"{NAME}-{kind}-task", "act"]
            for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
        }
        expected(f"{kind} writes nothing", not actions & objects)
        expected(f"{kind} starts nothing", "ecs:RunTask" not in actions)
    expected.same(
        "topic's publishers",
        {
            each
            for each in roles
            if f"{each}" in json.dumps(client("sns").get_topic_attributes(TopicArn=cloud.topic)["Attributes"]["Policy"])
        },
        {f"{NAME}-code-task"},
    )
    providers = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    expected.same(
        "identity providers",
        [each["Arn"].rpartition("/")[2] for each in providers],
        ["token.actions.githubusercontent.com"],
    )
    subjects = {
        name: statements(iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"])[0]["Condition"][
            "StringEquals"
        ]["token.actions.githubusercontent.com:sub"]
        for name in ci
    }
    main = "repo:example/totesys-assets:ref:refs/heads/main"
    expected.same(
        "who may act for GitHub",
        subjects,
        {
            f"{NAME}-ci-build": main,
            f"{NAME}-ci-plan": main,
            f"{NAME}-ci-deploy": "repo:example/totesys-assets:environment:production",
        },
    )


def logs(expected: Expectations, cloud: Cloud) -> None:
    """Log groups and metric filters."""
    groups = {each["logGroupName"]: each for each in every("logs", "describe_log_groups", "logGroups")}
    wanted = {
        f"/totesys/{NAME}",
        f"/totesys/{NAME}/flow",
        f"/totesys/{NAME}/rates",
        f"/aws/rds/instance/{NAME}/postgresql",
        f"/aws/rds/instance/{NAME}/upgrade",
    }
    expected.same("log groups", set(groups), wanted)
    for name, group in groups.items():
        expected.same(f"{name} is kept", group["retentionInDays"], 365)
        expected.same(f"{name} is encrypted", group.get("kmsKeyId"), cloud.key_arn("operations"))
    filters = every("logs", "describe_metric_filters", "metricFilters", logGroupName=f"/totesys/{NAME}")
    made = {each["metricTransformations"][0]["metricName"]: each for each in filters}
    expected.same("metrics", set(made), set(METRICS))
    for metric, each in made.items():
        event, value = METRICS[metric]
        late = " && $.seconds > 30" if metric == "RefreshesLate" else ""
        expected.same(f"{metric}: pattern", each["filterPattern"], f'{{ $.totesys_event = "{event}"{late} }}')
        expected.same(f"{metric}: value", each["metricTransformations"][0]["metricValue"], value)
        expected.same(f"{metric}: namespace", each["metricTransformations"][0]["metricNamespace"], f"Totesys/{NAME}")


def alarms(expected: Expectations, cloud: Cloud) -> None:
    """Alarms, topic, dashboard, budget."""
    found = {each["AlarmName"]: each for each in every("cloudwatch", "describe_alarms", "MetricAlarms")}
    expected.same("alarms", set(found), ALARMS)
    groups = client("elbv2").describe_target_groups(LoadBalancerArn=cloud.balancer["LoadBalancerArn"])["TargetGroups"]
    exists = {
        "DBInstanceIdentifier": {NAME},
        "ClusterName": {NAME},
        "ServiceName": set(SERVICES),
        "FunctionName": {f"{NAME}-rates"},
        "LoadBalancer": {cloud.balancer["LoadBalancerArn"].partition("loadbalancer/")[2]},
        "TargetGroup": {each["TargetGroupArn"].rpartition(":")[2] for each in groups},
    }
    for name, alarm in found.items():
        mails = [] if name in TOLD else [cloud.topic]
        expected.same(f"{name} tells the topic", alarm["AlarmActions"], mails)
        expected.same(f"{name} says when it is over", alarm["OKActions"], mails)
        expected(f"{name} is on", alarm["ActionsEnabled"])
        expected(f"{name} says what it means", len(alarm["AlarmDescription"]) > 20)
        for dimension in alarm.get("Dimensions", []):
            expected(f"{name} watches what is there: {dimension}", dimension["Value"] in exists[dimension["Name"]])
        if alarm.get("Namespace") == f"Totesys/{NAME}":
            expected(f"{name} watches a metric that is made", alarm["MetricName"] in METRICS)
    silent = found[f"{NAME}-nothing-runs"]
    expected.same("missing data is an alarm there", silent["TreatMissingData"], "breaching")
    expected.same("fifteen minutes of 74", (silent["DatapointsToAlarm"], silent["EvaluationPeriods"]), (15, 74))
    parts = {each["Id"]: each for each in found[f"{NAME}-late"]["Metrics"]}
    share = "IF(refreshes >= 20, 100 * late / refreshes, 0)"
    expected.same("late refreshes of all", parts["share"]["Expression"], share)
    expected.same("of the metric", parts["late"]["MetricStat"]["Metric"]["MetricName"], "RefreshesLate")
    topic = client("sns").get_topic_attributes(TopicArn=cloud.topic)["Attributes"]
    expected(
        f"the topic is encrypted: {topic.get('KmsMasterKeyId')}",
        topic["KmsMasterKeyId"].endswith(cloud.keys["operations"]),
    )
    policy = {each["Sid"]: each for each in statements(topic["Policy"])}
    expected.same("alarms may publish", policy["Alarms"]["Principal"], {"Service": "cloudwatch.amazonaws.com"})
    expected.same("nobody else may", policy["NobodyElse"]["Effect"], "Deny")
    mails = every("sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=cloud.topic)
    expected.same(
        "who hears of it",
        [(each["Protocol"], each["Endpoint"]) for each in mails],
        [("email", "data-team@example.com")],
    )
    widgets = json.loads(client("cloudwatch").get_dashboard(DashboardName=NAME)["DashboardBody"])["widgets"]
    shown = next(each for each in widgets if each["type"] == "alarm")["properties"]["alarms"]
    expected.same("the dashboard shows all alarms", {each.rpartition(":")[2] for each in shown}, ALARMS)
    expected.same("graphs", len([each for each in widgets if each["type"] == "metric"]), 9)
    budgets = client("budgets").describe_budgets(AccountId=ACCOUNT)["Budgets"]
    expected.same(
        "budget", [(each["BudgetName"], float(each["BudgetLimit"]["Amount"])) for each in budgets], [(NAME, 500.0)]
    )


def rates(expected: Expectations, _: Cloud) -> None:
    """The function that fetches exchange rates, and when."""
    asked = client("lambda")
    expected.same(
        "functions",
        [each["FunctionName"] for each in every("lambda", "list_functions", "Functions")],
        [f"{NAME}-rates"],
    )
    found = asked.get_function(FunctionName=f"{NAME}-rates")["Configuration"]
    package = (ROOT / "deploy" / "terraform" / "rates.zip").read_bytes()
    expected.same("its code", found["CodeSha256"], base64.b64encode(sha256(package).digest()).decode())
    expected.same("what is called", (found["Handler"], found["Runtime"]), ("rates.handler", "python3.13"))
    expected("it is outside of the network", not found.get("VpcConfig", {}).get("SubnetIds"))
    wanted = {
        "RATES_URL": "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist.zip",
        "RATES_BUCKET": BUCKETS["lake"],
        "RATES_KEY": "files/rates/eurofxref-hist.zip",
    }
    expected.same("what it is told", found["Environment"]["Variables"], wanted)
    expected("it acts as its own role", found["Role"].endswith(f"{NAME}-rates-function"))
    retries = asked.get_function_event_invoke_config(FunctionName=f"{NAME}-rates")["MaximumRetryAttempts"]
    expected.same("a failure is counted once", retries, 0)
    schedule = client("scheduler").get_schedule(Name=f"{NAME}-rates")
    when = (schedule["ScheduleExpression"], schedule["ScheduleExpressionTimezone"], schedule["State"])
    expected.same("when", when, ("cron(20 16,18 ? * MON-FRI *)", "Europe/Berlin", "ENABLED"))
    expected.same("what is called then", schedule["Target"]["Arn"], found["FunctionArn"])
    expected("by its own role", schedule["Target"]["RoleArn"].endswith(f"{NAME}-rates-schedule"))


def catalogue(expected: Expectations, cloud: Cloud) -> None:
    """Glue and Athena."""
    wanted = json.loads((ROOT / "deploy" / "terraform" / "glue_tables.json").read_text(encoding="utf-8"))
    tables = {each["Name"]: each for each in every("glue", "get_tables", "TableList", DatabaseName=NAME)}
    expected.same("tables", set(tables), set(wanted))
    for name, table in tables.items():
        storage = table["StorageDescriptor"]
        columns = [(each["Name"], each["Type"], each["Comment"]) for each in storage["Columns"]]
        expected.same(
            f"{name}: columns",
            columns,
            [(each["name"], each["type"], each["comment"]) for each in wanted[name]["columns"]],
        )
        location = f"{cloud.outputs['lake_uri']}/processed/{name}/"
        expected.same(
            f"{name}: location", (storage["Location"], storage["SerdeInfo"]["Parameters"]["path"]), (location, location)
        )
        marks = {key: table["Parameters"][key] for key in ("table_type", "spark.sql.sources.provider", "EXTERNAL")}
        expected.same(
            f"{name}: a Delta table",
            marks,
            {"table_type": "delta", "spark.sql.sources.provider": "delta", "EXTERNAL": "TRUE"},
        )
        expected.same(f"{name}: partitions are Delta's own", table.get("PartitionKeys", []), [])
    group = client("athena").get_work_group(WorkGroup=NAME)["WorkGroup"]["Configuration"]
    expected("queries cannot choose otherwise", group["EnforceWorkGroupConfiguration"])
    expected.same("what a query may read", group["BytesScannedCutoffPerQuery"], 10 * 1024**3)
    result = group["ResultConfiguration"]
    expected.same("results", result["OutputLocation"], f"s3://{BUCKETS['work']}/athena-results/")
    expected.same("results are encrypted", result["EncryptionConfiguration"]["KmsKey"], cloud.key_arn("data"))


def tags(expected: Expectations, cloud: Cloud) -> None:
    """That all of it can be told from what else is in the account."""
    wanted = {"Project": "totesys-assets", "Stack": NAME, "ManagedBy": "terraform"}
    samples = {
        "database": cloud.database["TagList"],
        "lake": client("s3").get_bucket_tagging(Bucket=BUCKETS["lake"])["TagSet"],
        "key": client("kms").list_resource_tags(KeyId=cloud.keys["data"])["Tags"],
        "role": client("iam").list_role_tags(RoleName=f"{NAME}-daemon-task")["Tags"],
        "topic": client("sns").list_tags_for_resource(ResourceArn=cloud.topic)["Tags"],
        "secret": client("secretsmanager").describe_secret(SecretId=f"{NAME}/totesys-url")["Tags"],
    }
    for name, found in samples.items():
        keys = ("TagKey", "TagValue") if name == "key" else ("Key", "Value")
        expected(f"{name} has the tags", wanted.items() <= named(found, *keys).items())
    for name, subnets in cloud.subnets.items():
        for subnet in subnets.values():
            expected(f"{name} subnet has the tags", wanted.items() <= named(subnet["Tags"], "Key", "Value").items())


def outputs(expected: Expectations, cloud: Cloud) -> None:
    """That what workflows are told leads somewhere."""
    given = cloud.outputs
    network_of_provision = json.loads(given["provision"]["network"])["awsvpcConfiguration"]
    expected.same(
        "provision runs in private subnets", set(network_of_provision["subnets"]), set(cloud.subnets["private"])
    )
    expected.same("and in its group", network_of_provision["securityGroups"], [cloud.groups["provision"]])
    expected.same(
        "its task definition", given["provision"]["task_definition"], cloud.definition("provision")["taskDefinitionArn"]
    )
    expected.same("cluster", given["cluster"], NAME)
    network_of_commands = json.loads(given["command"]["network"])["awsvpcConfiguration"]
    expected.same("commands run in the engine's group", network_of_commands["securityGroups"], [cloud.groups["engine"]])
    expected.same("their log", given["command"]["log_group"], f"/totesys/{NAME}")
    newest = {name: cloud.definition(name)["taskDefinitionArn"] for name in SERVICES}
    expected.same("services", given["services"], newest)
    expected.same("tag", given["image_tag"], cloud.tag)
    expected.same("the dashboard", given["dashboard_url"], "https://sales.totesys.example.com")
    expected.same("the API", given["api_url"], "https://api.totesys.example.com")
    expected.same("the function of rates", given["rates_function"], f"{NAME}-rates")
    expected.same("load balancer", given["load_balancer_host"], cloud.balancer["DNSName"])
    expected.same("topic", given["alert_topic"], cloud.topic)
    expected.same("buckets", {given["lake_bucket"], given["work_bucket"], given["logs_bucket"]}, set(BUCKETS.values()))
    expected.same("pools", set(given["user_pools"]), {"operators", "viewers"})
    addresses = client("ec2").describe_addresses()["Addresses"]
    expected.same("address that ToteSys sees", given["nat_address"], addresses[0]["PublicIp"])
    expected.same("roles for workflows", set(given["ci_roles"]), {"build", "plan", "deploy"})


def expect_nothing(expected: Expectations, state: str) -> None:
    """After destroy."""
    expected.same("resources in the state", json.loads(state)["resources"], [])
    of_stack = {"Filters": [{"Name": "tag:Stack", "Values": [NAME]}]}
    left = {
        "VPCs": every("ec2", "describe_vpcs", "Vpcs", **of_stack),
        "subnets": every("ec2", "describe_subnets", "Subnets", **of_stack),
        "security groups": every("ec2", "describe_security_groups", "SecurityGroups", **of_stack),
        "NAT gateways": [
            each for each in every("ec2", "describe_nat_gateways", "NatGateways") if each["State"] != "deleted"
        ],
        "addresses": client("ec2").describe_addresses()["Addresses"],
        "endpoints": [
            each
            for each in every("ec2", "describe_vpc_endpoints", "VpcEndpoints")
            if each["State"].lower() not in ("deleted", "deleting")
        ],
        "buckets": client("s3").list_buckets()["Buckets"],
        "databases": every("rds", "describe_db_instances", "DBInstances"),
        "snapshots": every("rds", "describe_db_snapshots", "DBSnapshots", SnapshotType="manual"),
        "database groups": every("rds", "describe_db_subnet_groups", "DBSubnetGroups"),
        "secrets": [
            each["Name"]
            for each in every("secretsmanager", "list_secrets", "SecretList")
            if not each["Name"].startswith("rds!")
        ],
        "repositories": every("ecr", "describe_repositories", "repositories"),
        "clusters": [
            each
            for each in client("ecs").describe_clusters(clusters=[NAME])["clusters"]
            if each["status"] != "INACTIVE"
        ],
        "task definitions": every("ecs", "list_task_definitions", "taskDefinitionArns", status="ACTIVE"),
        "namespaces": every("servicediscovery", "list_namespaces", "Namespaces"),
        "load balancers": every("elbv2", "describe_load_balancers", "LoadBalancers"),
        "target groups": every("elbv2", "describe_target_groups", "TargetGroups"),
        "user pools": every("cognito-idp", "list_user_pools", "UserPools", MaxResults=10),
        "roles": [
            each["RoleName"] for each in every("iam", "list_roles", "Roles") if each["RoleName"].startswith(f"{NAME}-")
        ],
        "policies": every("iam", "list_policies", "Policies", Scope="Local"),
        "identity providers": client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"],
        "log groups": every("logs", "describe_log_groups", "logGroups"),
        "alarms": every("cloudwatch", "describe_alarms", "MetricAlarms"),
        "dashboards": every("cloudwatch", "list_dashboards", "DashboardEntries"),
        "topics": every("sns", "list_topics", "Topics"),
        "functions": every("lambda", "list_functions", "Functions"),
        "schedules": every("scheduler", "list_schedules", "Schedules"),
        "Glue databases": every("glue", "get_databases", "DatabaseList"),
        "workgroups": [
            each["Name"] for each in every("athena", "list_work_groups", "WorkGroups") if each["Name"] != "primary"
        ],
        "budgets": client("budgets").describe_budgets(AccountId=ACCOUNT)["Budgets"],
        "keys in use": [
            each["KeyId"]
            for each in every("kms", "list_keys", "Keys")
            if (about := client("kms").describe_key(KeyId=each["KeyId"])["KeyMetadata"])["KeyManager"] == "CUSTOMER"
            and about["KeyState"] != "PendingDeletion"
        ],
    }
    for what, found in left.items():
        expected.same(f"{what} left", found, [])
