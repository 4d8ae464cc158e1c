"""AWS's own rules for what Terraform plans: allowed values, patterns, ranges, sizes that go together.

A program for the interpreter that has cfn-lint, which brings these rules for CloudFormation. It reads
``resource_changes`` of a plan from its input, writes each resource as CloudFormation would know it, as far as names and
values are known before anything exists, and prints as JSON what was checked and what cfn-lint refuses.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

REGION = "eu-west-2"
# What Terraform and CloudFormation call the same thing.
TYPES = {
    "aws_athena_workgroup": "AWS::Athena::WorkGroup",
    "aws_backup_plan": "AWS::Backup::BackupPlan",
    "aws_cloudwatch_composite_alarm": "AWS::CloudWatch::CompositeAlarm",
    "aws_cloudwatch_event_rule": "AWS::Events::Rule",
    "aws_cloudwatch_log_group": "AWS::Logs::LogGroup",
    "aws_cloudwatch_log_metric_filter": "AWS::Logs::MetricFilter",
    "aws_cloudwatch_metric_alarm": "AWS::CloudWatch::Alarm",
    "aws_cognito_user_pool": "AWS::Cognito::UserPool",
    "aws_cognito_user_pool_client": "AWS::Cognito::UserPoolClient",
    "aws_cognito_user_pool_domain": "AWS::Cognito::UserPoolDomain",
    "aws_db_instance": "AWS::RDS::DBInstance",
    "aws_db_parameter_group": "AWS::RDS::DBParameterGroup",
    "aws_db_subnet_group": "AWS::RDS::DBSubnetGroup",
    "aws_ecr_repository": "AWS::ECR::Repository",
    "aws_ecs_cluster": "AWS::ECS::Cluster",
    "aws_ecs_service": "AWS::ECS::Service",
    "aws_ecs_task_definition": "AWS::ECS::TaskDefinition",
    "aws_flow_log": "AWS::EC2::FlowLog",
    "aws_glue_catalog_database": "AWS::Glue::Database",
    "aws_glue_catalog_table": "AWS::Glue::Table",
    "aws_iam_policy": "AWS::IAM::ManagedPolicy",
    "aws_iam_role": "AWS::IAM::Role",
    "aws_iam_role_policy": "AWS::IAM::RolePolicy",
    "aws_instance": "AWS::EC2::Instance",
    "aws_kms_alias": "AWS::KMS::Alias",
    "aws_kms_key": "AWS::KMS::Key",
    "aws_lambda_function": "AWS::Lambda::Function",
    "aws_lb": "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "aws_lb_listener": "AWS::ElasticLoadBalancingV2::Listener",
    "aws_lb_target_group": "AWS::ElasticLoadBalancingV2::TargetGroup",
    "aws_route": "AWS::EC2::Route",
    "aws_s3_bucket": "AWS::S3::Bucket",
    "aws_s3_bucket_policy": "AWS::S3::BucketPolicy",
    "aws_scheduler_schedule": "AWS::Scheduler::Schedule",
    "aws_secretsmanager_secret": "AWS::SecretsManager::Secret",
    "aws_security_group": "AWS::EC2::SecurityGroup",
    "aws_service_discovery_private_dns_namespace": "AWS::ServiceDiscovery::PrivateDnsNamespace",
    "aws_service_discovery_service": "AWS::ServiceDiscovery::Service",
    "aws_sns_topic": "AWS::SNS::Topic",
    "aws_sns_topic_policy": "AWS::SNS::TopicPolicy",
    "aws_subnet": "AWS::EC2::Subnet",
    "aws_vpc": "AWS::EC2::VPC",
    "aws_vpc_endpoint": "AWS::EC2::VPCEndpoint",
    "aws_vpc_security_group_egress_rule": "AWS::EC2::SecurityGroupEgress",
    "aws_vpc_security_group_ingress_rule": "AWS::EC2::SecurityGroupIngress",
}
# Attributes whose words in CloudFormation are others, and where they are: Terraform's may lie deeper or higher.
ALIASES = {
    "aws_athena_workgroup": {"configuration": "WorkGroupConfiguration"},
    "aws_cloudwatch_log_metric_filter": {"pattern": "FilterPattern", "name": "FilterName"},
    "aws_cloudwatch_metric_alarm": {"dimensions": ""},  # a map there, a list here
    "aws_cognito_user_pool": {"password_policy": "Policies.PasswordPolicy"},
    "aws_db_instance": {
        "identifier": "DBInstanceIdentifier",
        "instance_class": "DBInstanceClass",
        "backup_window": "PreferredBackupWindow",
        "maintenance_window": "PreferredMaintenanceWindow",
        "enabled_cloudwatch_logs_exports": "EnableCloudwatchLogsExports",
        "performance_insights_enabled": "EnablePerformanceInsights",
        "username": "MasterUsername",
        "ca_cert_identifier": "CACertificateIdentifier",
    },
    "aws_instance": {"ami": "ImageId", "root_block_device": "", "volume_tags": "", "user_data": ""},
    "aws_db_parameter_group": {"parameter": ""},  # a map there, a list here
    "aws_ecs_cluster": {"setting": "ClusterSettings"},
    "aws_ecs_service": {
        "deployment_circuit_breaker": "DeploymentConfiguration.DeploymentCircuitBreaker",
        "deployment_minimum_healthy_percent": "DeploymentConfiguration.MinimumHealthyPercent",
        "deployment_maximum_percent": "DeploymentConfiguration.MaximumPercent",
    },
    "aws_glue_catalog_database": {"description": "DatabaseInput.Description", "name": "DatabaseInput.Name"},
    "aws_glue_catalog_table": {
        "description": "TableInput.Description",
        "name": "TableInput.Name",
        "parameters": "TableInput.Parameters",
        "storage_descriptor": "TableInput.StorageDescriptor",
        "table_type": "TableInput.TableType",
    },
    "aws_iam_policy": {"name": "ManagedPolicyName"},
    "aws_iam_role": {"assume_role_policy": "AssumeRolePolicyDocument"},
    "aws_iam_role_policy": {"name": "PolicyName", "role": "RoleName"},
    "aws_kms_alias": {"name": "AliasName"},
    "aws_kms_key": {"policy": "KeyPolicy", "deletion_window_in_days": "PendingWindowInDays"},
    "aws_lb": {"load_balancer_type": "Type"},
    "aws_lb_target_group": {"health_check": "", "stickiness": ""},  # they lie side by side there
    "aws_s3_bucket": {"bucket": "BucketName"},
    "aws_vpc_security_group_egress_rule": {"cidr_ipv4": "CidrIp"},
    "aws_vpc_security_group_ingress_rule": {"cidr_ipv4": "CidrIp"},
}
# What is required, or one of which is, may not be known before anything exists; Terraform's provider asks for it.
NOT_KNOWN_YET = ["E3003", "E3014", "E3676", "E3681"]


# What terraform test answers in the place of AWS where nothing else is said.
_MADE_UP = re.compile("0|(?!postgres)[a-z0-9]{8}")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _known(document: Any) -> Any:
    """A document without what is made up in it."""
    if isinstance(document, dict):
        return {name: _known(value) for name, value in document.items()}
    if isinstance(document, list):
        return [_known(each) for each in document if not _MADE_UP.fullmatch(str(each))]
    return document


class Writer:
    """Writes what Terraform knows as the properties of one type of CloudFormation."""

    def __init__(self, schema: dict[str, Any], aliases: dict[str, str]) -> None:
        self.schema, self.aliases = schema, aliases
        self.written = 0

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            found: Any = self.schema
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def value(self, value: Any, schema: dict[str, Any]) -> Any:
        """The value as the schema has it; None where they have nothing in common."""
        schema = self.resolved(schema)
        kinds = schema.get("type", [])
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        if not kinds and "properties" in schema:
            kinds = {"object"}
        if isinstance(value, str) and kinds & {"object", "array"}:
            if value[:1] in ("{", "["):
                value = json.loads(value)
            elif "string" not in kinds:
                return None
        if isinstance(value, list) and "array" not in kinds:
            if len(value) != 1:
                return None
            (value,) = value
        if isinstance(value, list):
            items = (self.value(each, schema.get("items", {})) for each in value)
            return [each for each in items if each is not None] or None
        if isinstance(value, dict):
            if "properties" not in schema:
                return _known(value) if "object" in kinds else None  # a document, such as a policy
            return self.properties(value, schema["properties"]) or None
        is_document = bool(kinds) and kinds <= {"object", "array"}
        if value is None or value == "" or is_document or _MADE_UP.fullmatch(str(value)):
            return None
        self.written += 1
        return value

    def properties(self, values: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
        """An object by the names that Terraform has in common with CloudFormation, which likes plurals."""
        names = {_plain(name): name for name in known}
        written: dict[str, Any] = {}
        for attribute, value in values.items():
            plain = _plain(attribute)
            name = names.get(plain) or names.get(f"{plain}s") or ""
            if name and name not in ("Tags", "TagsAll"):
                self.put(written, [name], value, known)
        return written

    def top(self, values: dict[str, Any], kind: str) -> dict[str, Any]:
        """The resource's own properties, some of which have names of their own or lie elsewhere."""
        known = self.schema["properties"]
        own = {"name": f"{kind}Name", "policy": "PolicyDocument", "description": f"{kind}Description"}
        written = self.properties({name: value for name, value in values.items() if name not in self.aliases}, known)
        for attribute, value in values.items():
            path = self.aliases.get(attribute, own.get(attribute, ""))
            if path.split(".")[0] in known:
                self.put(written, path.split("."), value, known)
        return written

    def put(self, written: dict[str, Any], path: list[str], value: Any, known: dict[str, Any]) -> None:
        if len(path) == 1:
            found = self.value(value, known[path[0]])
            if found is not None:
                written[path[0]] = found
            return
        inner: dict[str, Any] = written.get(path[0], {})
        self.put(inner, path[1:], value, self.resolved(known[path[0]])["properties"])
        if inner:
            written[path[0]] = inner


def template(changes: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str], dict[str, int]]:
    """The resources as a template, the address of each, and how many values of each type it has."""
    from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

    resources: dict[str, Any] = {}
    addresses: dict[str, str] = {}
    written: dict[str, int] = {}
    for number, each in enumerate(changes):
        kind = TYPES.get(each["type"])
        if kind is None or each["mode"] != "managed":
            continue
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema
        writer = Writer(schema, ALIASES.get(each["type"], {}))
        properties = writer.top(each["change"]["after"], kind.split("::")[-1])
        resources[f"R{number}"] = {"Type": kind, "Properties": properties}
        addresses[f"R{number}"] = each["address"]
        written[each["type"]] = written.get(each["type"], 0) + writer.written
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}, addresses, written


def refused(text: str, addresses: dict[str, str]) -> Iterator[dict[str, str]]:
    """What cfn-lint refuses, by address."""
    from cfnlint.api import lint
    from cfnlint.config import ManualArgs

    for match in lint(text, regions=[REGION], config=ManualArgs(ignore_checks=["W", "I", *NOT_KNOWN_YET])):
        where = [str(part) for part in match.path or []]
        address = addresses.get(where[1], "") if len(where) > 1 else ""
        yield {"rule": match.rule.id, "address": address, "where": ".".join(where[3:]), "says": match.message}


def main() -> None:
    """Read a plan's changes, print what was checked and what is refused."""
    made, addresses, written = template(json.load(sys.stdin))
    found = list(refused(json.dumps(made), addresses))
    print(json.dumps({"written": written, "refused": found}))


if __name__ == "__main__":
    main()
