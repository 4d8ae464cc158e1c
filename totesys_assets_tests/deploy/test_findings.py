"""What the registry finds in an image is told; what it does not find, or finds elsewhere, is not."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from totesys_assets_tests.deploy.servers import Moto, client

ACCOUNT, REGION = "123456789012", "eu-west-2"
DIGEST = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd1234"
IMAGE = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/totesys/{DIGEST}"


def scan(repository: str = "totesys", **counts: int) -> dict[str, Any]:
    """An event as "Amazon ECR events and EventBridge" shows it."""
    return {
        "source": "aws.ecr",
        "resources": [f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{repository}"],
        "detail-type": "ECR Image Scan",
        "detail": {
            "scan-status": "COMPLETE",
            "repository-name": repository,
            "finding-severity-counts": counts,
            "image-digest": DIGEST,
            "image-tags": ["0123abc"],
        },
    }


def finding(severity: str = "CRITICAL", status: str = "ACTIVE", resource: str = IMAGE) -> dict[str, Any]:
    """An event as "Amazon EventBridge event schema for Amazon Inspector events" shows it."""
    return {
        "source": "aws.inspector2",
        "resources": [resource],
        "detail-type": "Inspector2 Finding",
        "detail": {
            "severity": severity,
            "status": status,
            "title": "CVE-2026-0001 - openssl",
            "type": "PACKAGE_VULNERABILITY",
            "resources": [{"id": resource, "type": "AWS_ECR_CONTAINER_IMAGE"}],
        },
    }


def at(event: Any, path: str) -> Any:
    """What is at a path, such as ``$.detail.image-tags[0]``."""
    for name, place in re.findall(r"\.([\w-]+)(?:\[(\d+)\])?", path):
        event = event[name][int(place)] if place else event[name]
    return event


@pytest.fixture(scope="module")
def told(state: dict[str, Any], moto: Moto) -> Any:
    """Whether one of the stack's rules takes an event, and lets it through once."""
    events, sqs = (client(service, moto.url) for service in ("events", "sqs"))
    queue = sqs.create_queue(QueueName="findings")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rules = [
        each["values"] for each in state["root_module"]["resources"] if each["type"] == "aws_cloudwatch_event_rule"
    ]
    rules = [rule for rule in rules if "-finding-" in rule["name"]]
    assert len(rules) == 2
    for rule in rules:
        events.put_rule(Name=rule["name"], EventPattern=rule["event_pattern"])
        events.put_targets(Rule=rule["name"], Targets=[{"Id": "queue", "Arn": arn}])

    def ask(event: dict[str, Any]) -> bool:
        said = {"Source": event["source"], "DetailType": event["detail-type"], "Resources": event["resources"]}
        events.put_events(Entries=[{**said, "Detail": json.dumps(event["detail"])}])
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        assert len(messages) <= 1
        return bool(messages)

    return ask


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (scan(CRITICAL=1), True),
        (scan(HIGH=2, MEDIUM=7), True),
        (scan(CRITICAL=1, HIGH=2), True),
        (scan(CRITICAL=0, HIGH=0), False),
        (scan(MEDIUM=9, LOW=40), False),
        (scan(), False),
        (scan("another", CRITICAL=1), False),
    ],
)
def test_an_image_with_severe_findings_is_told_once(told: Any, event: dict[str, Any], expected: bool) -> None:
    assert told(event) is expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (finding(), True),
        (finding("HIGH"), True),
        (finding("MEDIUM"), False),
        (finding(status="CLOSED"), False),
        (finding(resource=IMAGE.replace("/totesys/", "/another/")), False),
        (finding(resource="i-0123456789abcdef0"), False),
    ],
)
def test_what_becomes_known_later_is_told_if_the_account_looks_for_it(
    told: Any, event: dict[str, Any], expected: bool
) -> None:
    assert told(event) is expected


def test_both_reach_the_alarm_topic_in_a_sentence(state: dict[str, Any]) -> None:
    resources = {each["address"]: each["values"] for each in state["root_module"]["resources"]}
    for kind, event in (("scan", scan(CRITICAL=1, HIGH=2)), ("inspector", finding())):
        target = resources[f'aws_cloudwatch_event_target.finding["{kind}"]']
        assert target["arn"] == resources["aws_sns_topic.alerts"]["arn"]
        (transformer,) = target["input_transformer"]
        sentence = json.loads(transformer["input_template"])
        for name, path in transformer["input_paths"].items():
            assert f"<{name}>" in sentence
            assert isinstance(at(event, path), str | int), "EventBridge puts only texts and numbers into a sentence"
    policies = [
        json.loads(resources[address]["policy"])["Statement"]
        for address in ("aws_sns_topic_policy.alerts", 'aws_kms_key.key["operations"]')
    ]
    for statements in policies:
        (publisher,) = (each for each in statements if each["Principal"] == {"Service": "events.amazonaws.com"})
        assert publisher["Effect"] == "Allow"
        # With a condition EventBridge would fail without a word: it names neither account nor rule.
        assert "Condition" not in publisher
