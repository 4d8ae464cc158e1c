"""Terraform without a cloud: a copy of the stack, what its own tests say, and the whole stack made of made-up answers.

Belongs here: running Terraform, and the fixtures of it, which conftest.py gives to every test. Does not belong here:
what must be true of the stack.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

STACK = Path(__file__).parents[2] / "deploy" / "terraform"
WHOLE = "tests/stack.tftest.hcl"


def run(folder: Path, *arguments: str, seconds: int = 300) -> subprocess.CompletedProcess[str]:
    """Run Terraform in a folder; it asks nobody whether there is a newer one."""
    terraform = shutil.which("terraform")
    assert terraform is not None
    return subprocess.run(
        [terraform, *arguments],
        cwd=folder,
        # Its memory tidied less often: a quarter of the processor time is saved, for 150 MB more.
        env=os.environ | {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "GOGC": "300"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the stack, initialised; skipped where Terraform or its provider cannot be had."""
    return initialised(STACK, tmp_path_factory.mktemp("terraform") / "stack")


def initialised(folder: Path, copy: Path) -> Path:
    """``copy``, made of ``folder``, initialised; skips the test where Terraform or its provider cannot be had."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".terraform", "*.tfstate*", "*.tfvars", "backend.hcl"))
    done = run(copy, "init", "-backend=false", "-input=false", "-no-color")
    if done.returncode:  # a mirror may have another version than the one that is locked
        (copy / ".terraform.lock.hcl").unlink()
        done = run(copy, "init", "-backend=false", "-input=false", "-no-color")
    if done.returncode:
        if "query available provider packages" in done.stderr or "Failed to install provider" in done.stderr:
            pytest.skip("the AWS provider of Terraform can be had neither from the registry nor from a mirror")
        pytest.fail(done.stderr)
    return copy


def terraform_test(stack: Path, *arguments: str) -> list[dict[str, Any]]:
    """What ``terraform test`` says, message by message."""
    return [json.loads(line) for line in run(stack, "test", "-json", *arguments).stdout.splitlines()]


@pytest.fixture(scope="session")
def of_the_stack(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The messages of stack.tftest.hcl, with the state that it made: long, so only of this file, and once for all."""
    own = tmp_path_factory.getbasetemp()
    held = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "of_the_stack.json"
    with held.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        if not text:
            text = json.dumps(terraform_test(stack, "-verbose", f"-filter={WHOLE}"))
            file.write(text)
    messages: list[dict[str, Any]] = json.loads(text)
    return messages


@pytest.fixture(scope="session")
def state(of_the_stack: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole stack, as it is made of made-up answers."""
    return next(message["test_state"] for message in of_the_stack if message["type"] == "test_state")


def runs_of(file: Path) -> int:
    """How many runs a file of Terraform's tests asks for."""
    asked = len(re.findall(r'^run "', file.read_text(), re.MULTILINE))
    assert asked, f"{file.name} tries nothing"
    return asked


def assert_passed(messages: list[dict[str, Any]], runs: int) -> None:
    """That all runs of a file of Terraform's tests were tried, and passed."""
    said = [message["diagnostic"] for message in messages if message["type"] == "diagnostic"]
    assert [(each["summary"], each["detail"]) for each in said if each["severity"] == "error"] == []
    summary = next(message["test_summary"] for message in messages if message["type"] == "test_summary")
    assert (summary["status"], summary["passed"]) == ("pass", runs)
