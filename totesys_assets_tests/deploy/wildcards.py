"""Where policies say ``*``: in the text of the Terraform files, and in the documents that come out of them.

Belongs here: finding them, and which of them have their reason beside them. Does not belong here: rendering the
documents; test_terraform.py does so with stand-ins, deploy/tests asks for them where they were applied.

A `*` is an action or a resource that is not named in full. An object in a bucket, a stream of a log group, a task of a
cluster are named: a `*` behind the slash or colon after their owner is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ACTION = re.compile(r"[a-z0-9-]+:[A-Za-z]*\*[A-Za-z*]*")
_WHOLE_SERVICE = re.compile(r"arn:[^:]*:[^:]*:[^:]*:[^:]*:\*")
_REASON = re.compile(r"# any: \S+ \S+")
_SID = re.compile(r'Sid\s*=\s*"(\w+)"')


def _says_any(word: str) -> bool:
    return word == "*" or bool(_ACTION.fullmatch(word)) or bool(_WHOLE_SERVICE.fullmatch(word))


def _code(line: str) -> str:
    """A line without its comment."""
    return re.split(r"(?:^|\s)#\s", line, maxsplit=1)[0]


def unjustified(text: str) -> list[str]:
    """Lines of a Terraform file that say ``*`` in a policy without a reason in a comment that begins with "any:"."""
    return [
        line.strip()
        for line in text.splitlines()
        if any(_says_any(word) for word in _QUOTED.findall(_code(line))) and not _REASON.search(line)
    ]


def justified_statements(folder: Path) -> set[str]:
    """Sids of the statements, in all Terraform files below ``folder``, in which a reason stands."""
    found = set()
    for file in folder.rglob("*.tf"):
        sid = None
        for line in file.read_text(encoding="utf-8").splitlines():
            if named := _SID.search(line):
                sid = named[1]
            if sid and _REASON.search(line):
                found.add(sid)
    return found


def statements(document: object) -> list[dict[str, Any]]:
    """The statements of a policy, given as its JSON text or as what is in it; none for anything else."""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            return []
    found = document.get("Statement", []) if isinstance(document, dict) else []
    return [found] if isinstance(found, dict) else list(found)


def policies(value: object) -> Iterator[list[dict[str, Any]]]:
    """The policies anywhere in a state, as Terraform prints it."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from policies(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from policies(inner)
    elif isinstance(value, str) and '"Statement"' in value and (found := statements(value)):
        yield found


def wildcards(statement: dict[str, Any]) -> list[str]:
    """What in a statement is not named in full."""
    if {"NotAction", "NotResource"} & statement.keys():
        return ["everything but"]
    words = [statement.get("Action", []), statement.get("Resource", [])]
    principal = statement.get("Principal", [])
    words += list(principal.values()) if isinstance(principal, dict) else [principal]
    return [word for each in words for word in ([each] if isinstance(each, str) else each) if _says_any(word)]
