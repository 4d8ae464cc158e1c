"""Writes calls.json: what Terraform asks of AWS for each type of resource, as actions of IAM, from a rehearsal's log.

    TF_LOG_PROVIDER=DEBUG TF_LOG_PATH=/tmp/log python deploy/tests/apply_on_moto.py
    python deploy/tests/calls.py /tmp/log >deploy/tests/calls.json

Belongs here: reading the log, and where an action of IAM is not called like the operation. Does not belong here:
whether they are allowed; totesys_assets_tests/deploy/test_deploy_role.py asks that. What only destroys is left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

PREFIXES = {
    "Athena": "athena",
    "Budgets": "budgets",
    "CloudWatch": "cloudwatch",
    "CloudWatch Logs": "logs",
    "Cognito Identity Provider": "cognito-idp",
    "EC2": "ec2",
    "ECR": "ecr",
    "ECS": "ecs",
    "Elastic Load Balancing v2": "elasticloadbalancing",
    "EventBridge": "events",
    "Glue": "glue",
    "IAM": "iam",
    "KMS": "kms",
    "Lambda": "lambda",
    "RDS": "rds",
    "Route 53": "route53",
    "S3": "s3",
    "SNS": "sns",
    "Scheduler": "scheduler",
    "Secrets Manager": "secretsmanager",
    "Service Quotas": "servicequotas",
    "ServiceDiscovery": "servicediscovery",
}
OTHERWISE = {
    "budgets:CreateBudget": "budgets:ModifyBudget",
    "budgets:CreateNotification": "budgets:ModifyBudget",
    "budgets:UpdateBudget": "budgets:ModifyBudget",
    "budgets:DescribeBudget": "budgets:ViewBudget",
    "budgets:DescribeNotificationsForBudget": "budgets:ViewBudget",
    "budgets:DescribeSubscribersForNotification": "budgets:ViewBudget",
    "ec2:DescribeCapacityReservation": "elasticloadbalancing:DescribeCapacityReservation",
    "s3:GetBucketAccelerateConfiguration": "s3:GetAccelerateConfiguration",
    "s3:GetBucketCors": "s3:GetBucketCORS",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:GetBucketReplication": "s3:GetReplicationConfiguration",
    "s3:GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:PutObjectLockConfiguration": "s3:PutBucketObjectLockConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
}
DESTROYS = re.compile(
    r"[\w-]+:(Delete|Deregister|Detach|Disassociate|Release|Remove|Revoke|ScheduleKey|Unsubscribe|ListObject)"
)
REQUEST = re.compile(r'rpc\.method=(\w+).*?rpc\.service=("[^"]+"|\w+)|rpc\.service=("[^"]+"|\w+).*?rpc\.method=(\w+)')
TYPE = re.compile(r"tf_resource_type=(\w+)")


def calls(log: Iterable[str]) -> dict[str, list[str]]:
    """Type of resource -> the actions asked for it. Raises KeyError for a service that is not known here."""
    found: dict[str, set[str]] = {}
    for line in log:
        request, kind = REQUEST.search(line), TYPE.search(line)
        if request and kind:
            method, service = request[1] or request[4], (request[2] or request[3]).strip('"')
            action = f"{PREFIXES[service]}:{method}"
            if not DESTROYS.match(action):
                found.setdefault(kind[1], set()).add(OTHERWISE.get(action, action))
    return {kind: sorted(found[kind]) for kind in sorted(found)}


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8", errors="replace") as log:
        print(json.dumps(calls(log), indent=2))
