"""The evaluator of IAM's policies decides as AWS documents it, also where that surprises."""

from __future__ import annotations

from typing import Any

import pytest

from totesys_assets_tests.deploy.iam import Request, allows, applies

ALLOW = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::lake/*"}
OBJECT = Request("s3:GetObject", "arn:aws:s3:::lake/a/b")


def conditioned(operator: str, key: str, *values: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {operator: {key: list(values)}}}


def test_what_nobody_allows_is_refused() -> None:
    assert not allows(OBJECT, [])
    assert allows(OBJECT, [ALLOW])


def test_a_refusal_outweighs_every_right() -> None:
    assert not allows(OBJECT, [ALLOW, ALLOW | {"Effect": "Deny"}])


def test_a_boundary_limits_and_gives_nothing() -> None:
    assert not allows(OBJECT, [ALLOW], [])
    assert not allows(OBJECT, [], [ALLOW])
    assert allows(OBJECT, [ALLOW], [ALLOW])
    assert not allows(OBJECT, [ALLOW], [ALLOW, ALLOW | {"Effect": "Deny"}])


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [
        ("s3:*", "*", True),
        ("S3:getobject", "arn:aws:s3:::lake/*", True),  # actions know no case
        ("s3:Get*", "arn:aws:s3:::LAKE/*", False),  # ARNs do
        ("s3:GetObject", "arn:aws:s3:::lake/?/b", True),
        ("s3:GetObject", "arn:aws:s3:::lake/?", False),
        ("s3:GetObject", "arn:aws:s3:::l*b", True),  # over slashes
        ("s3:GetObject", "arn:aws:s3:::lake", False),
        ("s3:GetObjectVersion", "*", False),
        ("s3:GetObject.", "*", False),
    ],
)
def test_actions_and_resources_are_named_by_patterns(action: str, resource: str, expected: bool) -> None:
    assert applies({"Effect": "Allow", "Action": action, "Resource": resource}, OBJECT) is expected


def test_everything_but_is_everything_but() -> None:
    but = {"Effect": "Allow", "NotAction": ["iam:*"], "NotResource": ["arn:aws:s3:::other/*"]}
    assert applies(but, OBJECT)
    assert not applies(but, Request("iam:GetRole", "arn:aws:s3:::lake/a"))
    assert not applies(but, Request("s3:GetObject", "arn:aws:s3:::other/a"))


@pytest.mark.parametrize(
    ("statement", "context", "expected"),
    [
        # A key that is missing: no match, and a match of what is negated.
        (conditioned("StringEquals", "aws:RequestTag/Stack", "one"), {}, False),
        (conditioned("StringNotEquals", "aws:RequestTag/Stack", "one"), {}, True),
        (conditioned("StringEqualsIfExists", "aws:RequestTag/Stack", "one"), {}, True),
        # Several values are alternatives, and all of them excluded by what is negated.
        (conditioned("StringEquals", "aws:RequestTag/Stack", "one", "two"), {"aws:RequestTag/Stack": "two"}, True),
        (conditioned("StringNotEquals", "aws:RequestTag/Stack", "one", "two"), {"aws:RequestTag/Stack": "two"}, False),
        (conditioned("StringNotEquals", "aws:RequestTag/Stack", "one", "two"), {"aws:RequestTag/Stack": "three"}, True),
        (conditioned("StringEquals", "aws:requesttag/Stack", "one"), {"aws:RequestTag/Stack": "one"}, True),
        (conditioned("StringEquals", "aws:RequestTag/Stack", "one"), {"aws:RequestTag/Stack": "One"}, False),
        (conditioned("StringEquals", "aws:RequestTag/Stack", "o*"), {"aws:RequestTag/Stack": "one"}, False),
        (conditioned("StringLike", "s3:prefix", "a/*"), {"s3:prefix": "a/b/c"}, True),
        (conditioned("StringLike", "s3:prefix", "a/*"), {"s3:prefix": "a"}, False),
        (conditioned("Bool", "aws:SecureTransport", "true"), {"aws:SecureTransport": "True"}, True),
        (conditioned("Bool", "kms:GrantIsForAWSResource", "true"), {}, False),
        (conditioned("Null", "aws:ResourceTag/x", "true"), {}, True),
        (conditioned("Null", "aws:ResourceTag/x", "false"), {}, False),
        (conditioned("Null", "aws:ResourceTag/x", "false"), {"aws:ResourceTag/x": ""}, True),
        # Keys of many values.
        (conditioned("ForAllValues:StringEquals", "aws:TagKeys", "a", "b"), {"aws:TagKeys": ["a", "b"]}, True),
        (conditioned("ForAllValues:StringEquals", "aws:TagKeys", "a", "b"), {"aws:TagKeys": ["a", "c"]}, False),
        (conditioned("ForAllValues:StringEquals", "aws:TagKeys", "a", "b"), {}, True),
        (conditioned("ForAnyValue:StringEquals", "aws:TagKeys", "a", "b"), {"aws:TagKeys": ["c", "a"]}, True),
        (conditioned("ForAnyValue:StringEquals", "aws:TagKeys", "a", "b"), {"aws:TagKeys": ["c"]}, False),
        (conditioned("ForAnyValue:StringEquals", "aws:TagKeys", "a", "b"), {}, False),
    ],
)  # fmt: skip
def test_conditions_hold_as_documented(statement: dict[str, Any], context: dict[str, Any], expected: bool) -> None:
    assert applies(statement, Request("ec2:RunInstances", "*", context)) is expected


@pytest.mark.parametrize(
    ("operator", "pattern", "expected"),
    [
        ("ArnLike", "arn:aws:sns:*:123456789012:a", True),
        ("ArnEquals", "arn:aws:sns:*:123456789012:?", True),
        ("ArnLike", "arn:aws:sns:*:a", False),  # no star reaches from one part into the next
        ("ArnNotEquals", "arn:aws:sns:*:*:b", True),
        ("ArnNotLike", "arn:aws:sns:*:*:*", False),
    ],
)
def test_arns_are_compared_part_by_part(operator: str, pattern: str, expected: bool) -> None:
    source = {"aws:SourceArn": "arn:aws:sns:eu-west-2:123456789012:a"}
    assert applies(conditioned(operator, "aws:SourceArn", pattern), Request("x:Y", "*", source)) is expected


def test_all_conditions_of_a_statement_must_hold() -> None:
    both = conditioned("StringEquals", "a:b", "1") | {
        "Condition": {"StringEquals": {"a:b": "1", "a:c": "2"}, "Bool": {"a:d": "true"}}
    }
    context = {"a:b": "1", "a:c": "2", "a:d": "true"}
    assert applies(both, Request("x:Y", "*", context))
    for missing in context:
        assert not applies(both, Request("x:Y", "*", {name: each for name, each in context.items() if name != missing}))


@pytest.mark.parametrize(
    "statement",
    [
        conditioned("NumericLessThan", "s3:TlsVersion", "1.2"),
        conditioned("ForEachValue:StringEquals", "aws:TagKeys", "a"),
        ALLOW | {"Resource": "arn:aws:s3:::${aws:username}"},
        ALLOW | {"Principal": "*"},
    ],
)
def test_what_it_does_not_know_is_an_error(statement: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no such|a policy variable"):
        applies(statement | {"Action": "*"}, Request("ec2:RunInstances"))
