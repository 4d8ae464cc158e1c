"""docs/deploy.md says what Terraform has: every alarm has its entry, and what it names is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from totesys_assets_tests.deploy.conftest import PROJECT, tool

DOCUMENT = (PROJECT / "docs" / "deploy.md").read_text(encoding="utf-8")
STACK = PROJECT / "deploy" / "terraform"


def terraform(name: str) -> str:
    return (STACK / name).read_text(encoding="utf-8")


def alarms() -> set[str]:
    """Names of all alarms, without the stack's."""
    text = terraform("alarms.tf")
    start = text.index("  alarms = merge(")
    block = text[start : text.index("  comparisons =", start)]
    named = set(re.findall(r"^ +([a-z-]+) = \{$", block, re.MULTILINE))
    named |= set(re.findall(r"for function in \S+ : \"([a-z-]+)\" =>", block))
    sites = terraform("access.tf").partition("  possible_sites = merge(")[2].partition("\n  )\n")[0]
    targets = re.findall(r"^ +(\w+) += \{ host", sites, re.MULTILINE) + re.findall(r'if name == "(\w+)"', sites)
    assert targets == ["webserver", "viewer", "dashboard", "api"]
    for services, suffix in re.findall(r"for service(?:, group)? in (.+?) : \"\$\{service\}(-[a-z]+)\"", block):
        named |= {f"{service}{suffix}" for service in re.findall(r'"(\w+)"', services) or targets}
    single = re.findall(r'alarm_name += "\$\{var\.name\}-([a-z-]+)"', text)
    return named | set(single)


def test_every_alarm_has_an_entry_and_no_other_is_described() -> None:
    runbook = DOCUMENT.partition("## When an alarm rings")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`)(?: ✉)? \|", runbook, re.MULTILINE)
    described = {name for first in rows for name in re.findall(r"`(.*?)`", first)}
    assert len(described) > 10
    assert described == alarms()


def test_every_output_that_is_asked_for_is_there() -> None:
    asked = set(re.findall(r"terraform(?: -chdir=\S+)? output (?:-raw )?(\w+)", DOCUMENT))
    assert len(asked) > 4
    assert asked <= set(re.findall(r'^output "(\w+)"', terraform("outputs.tf"), re.MULTILINE))


@pytest.mark.parametrize(("script", "asked"), [("run.sh", "--help"), ("restore.sh", "-h"), ("small/manage.sh", "help")])
def test_a_script_says_how_it_is_used(script: str, asked: str) -> None:
    done = subprocess.run(
        [tool("bash"), PROJECT / "deploy" / script, asked], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(script).name in done.stdout
    assert len(done.stdout.splitlines()) > 8
    assert not [line for line in done.stdout.splitlines() if line.startswith(("#", "set "))]


def test_every_task_of_the_makefile_that_is_named_is_there() -> None:
    tasks = set(re.findall(r"(?:^|`)make ([a-z-]+)", DOCUMENT, re.MULTILINE))
    assert {"image", "check-deploy"} <= tasks
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert tasks <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_every_variable_that_is_named_is_there() -> None:
    declared = set(re.findall(r'^variable "(\w+)"', terraform("variables.tf"), re.MULTILINE))
    named = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)(?: =[^`]*)?`", DOCUMENT))
    # What else is written so in the document: a job, checks, words of PostgreSQL, and GitHub's and AWS's own.
    others = {
        "refresh_everything",
        "no_dead_letters",
        "nothing_missed",
        "rates_are_fresh",
        "max_slot_wal_keep_size",
        "pg_stat_activity",
        "wal_level",
        "email_verified",
    }
    assert {"password_version", "lake_lock_days", "ui_host"} & named
    assert named - others <= declared | set(re.findall(r'^output "(\w+)"', terraform("outputs.tf"), re.MULTILINE))
