"""IAM's decision about one request, by the rules that AWS documents ("Policy evaluation logic", "Condition operators").

Belongs here: policies of an identity and its boundary, their actions, resources and conditions. Does not belong here:
what resource policies, organisations and sessions add (no policy of ours counts on them); which requests to ask about.
An operator or an element that is not known here is an error, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

Statement = Mapping[str, Any]
ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}


@dataclass(frozen=True)
class Request:
    """One action on one resource (an ARN, or "*" where the action knows none), and the keys that conditions ask for."""

    action: str
    resource: str = "*"
    context: Mapping[str, str | list[str]] = field(default_factory=dict)


def allows(request: Request, policies: Iterable[Statement], boundary: Iterable[Statement] | None = None) -> bool:
    """Whether statements of an identity's policies allow it, within its boundary's: no Deny, and an Allow in each."""
    limits = [list(policies)] + ([] if boundary is None else [list(boundary)])
    effects = [{each["Effect"] for each in statements if applies(each, request)} for statements in limits]
    return all("Allow" in each and "Deny" not in each for each in effects)


def applies(statement: Statement, request: Request) -> bool:
    """Whether a statement is about the request."""
    if unknown := statement.keys() - ELEMENTS:
        raise ValueError(f"no such element of a statement of an identity's policy: {sorted(unknown)}")
    return (
        _named(statement, "Action", request.action.lower(), str.lower)
        and _named(statement, "Resource", request.resource, str)
        and all(_met(name, keys, request.context) for name, keys in statement.get("Condition", {}).items())
    )


def _named(statement: Statement, element: str, word: str, as_read: Callable[[str], str]) -> bool:
    if f"Not{element}" in statement:
        return not any(like(word, as_read(each)) for each in _list(statement[f"Not{element}"]))
    return any(like(word, as_read(each)) for each in _list(statement[element]))


def like(word: str, pattern: str) -> bool:
    """Whether a word is as a pattern with ``*`` and ``?`` says; a ``*`` reaches over slashes and colons."""
    return bool(_pattern(pattern).fullmatch(word))


@cache
def _pattern(text: str) -> re.Pattern[str]:
    if "${" in text:
        raise ValueError(f"a policy variable: {text}")
    return re.compile("".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in text), re.DOTALL)


def _arn_like(word: str, pattern: str) -> bool:
    """Part by part, between the first five colons: no ``*`` reaches from one part into the next."""
    words, patterns = word.split(":", 5), pattern.split(":", 5)
    return len(words) == len(patterns) == 6 and all(map(like, words, patterns))


OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": str.__eq__,
    "StringEqualsIgnoreCase": lambda word, wanted: word.lower() == wanted.lower(),
    "StringLike": like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda word, wanted: word.lower() == wanted.lower(),
}


def _met(operator: str, wanted: Mapping[str, Any], context: Mapping[str, str | list[str]]) -> bool:
    """Whether all keys of one operator are as they are to be. Names of keys are the same in upper and lower case."""
    present = {name.lower(): _list(each) for name, each in context.items()}
    return all(_holds(operator, present.get(name.lower(), []), _list(each)) for name, each in wanted.items())


def _holds(operator: str, found: list[str], wanted: list[str]) -> bool:
    if operator == "Null":
        return [str(each).lower() for each in wanted] == [str(not found).lower()]
    quantifier, _, name = operator.rpartition(":")
    is_optional, name = name.endswith("IfExists"), name.removesuffix("IfExists")
    is_negated, name = "Not" in name, name.replace("Not", "")
    compare = OPERATORS.get(name)
    if compare is None or quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise ValueError(f"no such operator here: {operator}")
    if not found:
        return is_optional or quantifier == "ForAllValues" or (is_negated and not quantifier)
    met = [any(compare(each, str(other)) for other in wanted) != is_negated for each in found]
    return any(met) if quantifier == "ForAnyValue" else all(met)


def _list(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, str | bool) else list(value)
