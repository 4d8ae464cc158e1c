"""What is planned holds values that AWS takes, by its own rules as far as they can be had: moto takes any."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from totesys_assets_tests.deploy.conftest import tool


def resources(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every resource of a state, in the form of a plan's changes."""
    modules = [state["root_module"]]
    for module in modules:
        modules += module.get("child_modules", [])
        for each in module.get("resources", []):
            yield {
                "type": each["type"],
                "mode": each["mode"],
                "address": each["address"],
                "change": {"after": each["values"]},
            }


def refused_by_aws(resources: list[dict[str, Any]]) -> tuple[dict[str, int], list[str]]:
    """How many values of each type were held against AWS's rules, and what they refuse."""
    python = Path(tool("cfn-lint")).with_name("python")
    program = Path(__file__).with_name("aws_rules.py")
    done = subprocess.run(
        [python, program], input=json.dumps(resources), capture_output=True, text=True, timeout=300, check=True
    )
    found = json.loads(done.stdout)
    return found["written"], [f"{each['address']}.{each['where']}: {each['says']}" for each in found["refused"]]


def test_aws_would_take_every_value_that_its_rules_tell_of(state: dict[str, Any]) -> None:
    written, refused = refused_by_aws(list(resources(state)))
    assert refused == []
    assert sum(written.values()) > 2000
    assert {kind for kind, values in written.items() if values < 2} <= {
        "aws_db_subnet_group",
        "aws_s3_bucket_policy",
        "aws_security_group",
        "aws_sns_topic_policy",
    }


# What AWS refuses: the type, what is changed of one that it takes, and the property that it then complains of.
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("aws_db_instance", {"engine_version": "14.99"}, "EngineVersion"),
    ("aws_db_instance", {"instance_class": "db.t4g.middling"}, "DBInstanceClass"),
    ("aws_db_instance", {"backup_retention_period": 36}, "BackupRetentionPeriod"),
    ("aws_ecs_task_definition", {"cpu": "256", "memory": "16384"}, ": Cpu"),
    ("aws_ecs_service", {"launch_type": "SPOT"}, "LaunchType"),
    ("aws_lambda_function", {"runtime": "python3.99"}, "Runtime"),
    ("aws_lambda_function", {"memory_size": 64}, "MemorySize"),
    ("aws_cloudwatch_metric_alarm", {"period": 45}, "Period"),
    ("aws_cloudwatch_metric_alarm", {"treat_missing_data": "broken"}, "TreatMissingData"),
    ("aws_cloudwatch_log_group", {"retention_in_days": 100}, "RetentionInDays"),
    ("aws_kms_key", {"deletion_window_in_days": 3}, "PendingWindowInDays"),
    ("aws_ecr_repository", {"image_tag_mutability": "NEVER"}, "ImageTagMutability"),
    ("aws_iam_role", {"max_session_duration": 60}, "MaxSessionDuration"),
    ("aws_iam_role", {"name": "r" * 65}, "RoleName"),
    ("aws_s3_bucket", {"bucket": "Totesys_Lake"}, "BucketName"),
    ("aws_cognito_user_pool", {"mfa_configuration": "MAYBE"}, "MfaConfiguration"),
    ("aws_scheduler_schedule", {"state": "ON"}, "State"),
]


def test_a_value_that_aws_refuses_is_found(state: dict[str, Any]) -> None:
    changed = []
    for number, (kind, change, _) in enumerate(WRONG):
        first = next(each for each in resources(state) if each["type"] == kind)
        changed.append({**first, "address": str(number), "change": {"after": first["change"]["after"] | change}})
    _, refused = refused_by_aws(changed)
    for number, (_, change, said) in enumerate(WRONG):
        assert [each for each in refused if each.startswith(f"{number}.{said}")], change
