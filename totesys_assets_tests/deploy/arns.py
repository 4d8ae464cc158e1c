"""ARNs of the stack's resources, by what Terraform says of each.

Belongs here: how AWS names what a type of resource makes, or what IAM asks about when it is made. Does not belong here:
who may do what with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

NAME, REGION, ACCOUNT = "totesys", "eu-west-2", "123456789012"  # as stack.tftest.hcl and its stand-ins have it

Values = Mapping[str, Any]


def arn(service: str, name: str, region: str = REGION) -> str:
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{name}"


def role(name: str) -> str:
    return arn("iam", f"role/{name}", "")


EC2 = {
    "aws_default_security_group": "security-group",
    "aws_ec2_transit_gateway_vpc_attachment": "transit-gateway-attachment",
    "aws_eip": "elastic-ip",
    "aws_flow_log": "vpc-flow-log",
    "aws_internet_gateway": "internet-gateway",
    "aws_nat_gateway": "natgateway",
    "aws_route": "route-table",
    "aws_route_table": "route-table",
    "aws_route_table_association": "route-table",
    "aws_security_group": "security-group",
    "aws_subnet": "subnet",
    "aws_vpc": "vpc",
    "aws_vpc_endpoint": "vpc-endpoint",
    "aws_vpc_security_group_egress_rule": "security-group-rule",
    "aws_vpc_security_group_ingress_rule": "security-group-rule",
}


def _of_ec2(kind: str) -> Callable[[Values], str]:
    return lambda _: arn("ec2", f"{kind}/x-1")


# Type of resource -> its ARN, by what Terraform says of it.
ARNS: dict[str, Callable[[Values], str]] = {
    "aws_athena_workgroup": lambda it: arn("athena", f"workgroup/{it['name']}"),
    "aws_budgets_budget": lambda it: arn("budgets", f"budget/{it['name']}", ""),
    "aws_cloudwatch_composite_alarm": lambda it: arn("cloudwatch", f"alarm:{it['alarm_name']}"),
    "aws_cloudwatch_dashboard": lambda it: arn("cloudwatch", f"dashboard/{it['dashboard_name']}", ""),
    "aws_cloudwatch_event_rule": lambda it: arn("events", f"rule/{it['name']}"),
    "aws_cloudwatch_event_target": lambda it: arn("events", f"rule/{it['rule']}"),
    "aws_cloudwatch_log_group": lambda it: arn("logs", f"log-group:{it['name']}:*"),
    "aws_cloudwatch_log_metric_filter": lambda it: arn("logs", f"log-group:{it['log_group_name']}:*"),
    "aws_cloudwatch_metric_alarm": lambda it: arn("cloudwatch", f"alarm:{it['alarm_name']}"),
    "aws_db_instance": lambda it: arn("rds", f"db:{it['identifier']}"),
    "aws_db_parameter_group": lambda it: arn("rds", f"pg:{it['name_prefix']}1"),
    "aws_db_subnet_group": lambda it: arn("rds", f"subgrp:{it['name']}"),
    "aws_ecr_lifecycle_policy": lambda it: arn("ecr", f"repository/{it['repository']}"),
    "aws_ecr_repository": lambda it: arn("ecr", f"repository/{it['name']}"),
    "aws_ecs_cluster": lambda it: arn("ecs", f"cluster/{it['name']}"),
    "aws_ecs_cluster_capacity_providers": lambda it: arn("ecs", f"cluster/{it['cluster_name']}"),
    "aws_ecs_service": lambda it: arn("ecs", f"service/{NAME}/{it['name']}"),
    "aws_ecs_task_definition": lambda it: arn("ecs", f"task-definition/{it['family']}:1"),
    "aws_glue_catalog_database": lambda it: arn("glue", f"database/{it['name']}"),
    "aws_glue_catalog_table": lambda it: arn("glue", f"table/{it['database_name']}/{it['name']}"),
    "aws_iam_policy": lambda it: arn("iam", f"policy/{it['name']}", ""),
    "aws_iam_openid_connect_provider": lambda _: arn("iam", "oidc-provider/token.actions.githubusercontent.com", ""),
    "aws_iam_role": lambda it: role(it["name"]),
    "aws_iam_role_policy": lambda it: role(it["role"]),
    "aws_iam_role_policy_attachment": lambda it: role(it["role"]),
    "aws_kms_alias": lambda it: arn("kms", it["name"]),
    "aws_kms_key": lambda it: it["arn"],
    "aws_lambda_function": lambda it: arn("lambda", f"function:{it['function_name']}"),
    "aws_lambda_function_event_invoke_config": lambda it: arn("lambda", f"function:{it['function_name']}"),
    "aws_lb": lambda it: arn("elasticloadbalancing", f"loadbalancer/app/{it['name']}/1"),
    "aws_lb_listener": lambda _: arn("elasticloadbalancing", f"loadbalancer/app/{NAME}/1"),
    "aws_lb_listener_rule": lambda _: arn("elasticloadbalancing", f"listener/app/{NAME}/1/2"),
    "aws_lb_target_group": lambda it: arn("elasticloadbalancing", f"targetgroup/{it['name']}/1"),
    "aws_route53_record": lambda it: f"arn:aws:route53:::hostedzone/{it['zone_id']}",
    "aws_s3_bucket": lambda it: it["arn"],
    "aws_scheduler_schedule": lambda it: arn("scheduler", f"schedule/default/{it['name']}"),
    "aws_secretsmanager_secret": lambda it: arn("secretsmanager", f"secret:{it['name']}-abcdef"),
    "aws_sns_topic": lambda it: arn("sns", it["name"]),
    "aws_sns_topic_policy": lambda _: arn("sns", f"{NAME}-alerts"),
    "aws_sns_topic_subscription": lambda _: arn("sns", f"{NAME}-alerts"),
    **{kind: lambda it: it["arn"] for kind in ("aws_cognito_user_pool", "aws_service_discovery_service")},
    **{kind: _of_ec2(made) for kind, made in EC2.items()},
}
