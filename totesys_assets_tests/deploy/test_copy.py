"""The copy of the lake in another region: its Terraform, without a cloud, and that it finds what the stack made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from totesys_assets_tests.deploy.terraform import STACK, assert_passed, run, runs_of, terraform_test
from totesys_assets_tests.deploy.wildcards import unjustified

COPY = STACK.parent / "copy"
MAIN = (COPY / "main.tf").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration beside the module that it shares with the stack, initialised; skipped without Terraform."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    folder = tmp_path_factory.mktemp("deploy")
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars", "backend.hcl")
    shutil.copytree(COPY, folder / "copy", ignore=ignored)
    shutil.copytree(STACK / "modules", folder / "terraform" / "modules")
    done = run(folder / "copy", "init", "-backend=false", "-input=false", "-no-color")
    if "query available provider packages" in done.stderr or "Failed to install provider" in done.stderr:
        pytest.skip("the AWS provider of Terraform can be had neither from the registry nor from a mirror")
    assert done.returncode == 0, done.stderr
    return folder / "copy"


def test_it_is_formatted_valid_and_without_a_wildcard_that_has_no_reason(copy: Path) -> None:
    assert run(copy, "fmt", "-check", "-recursive").stdout == ""
    done = run(copy, "validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    assert unjustified(MAIN) == []


def test_the_copy_is_whole_encrypted_and_kept_by_a_role_that_destroys_nothing(copy: Path) -> None:
    test = COPY / "tests" / "copy.tftest.hcl"
    assert_passed(terraform_test(copy), runs_of(test))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("storage.tf", '"${var.name}-lake-${local.bucket_suffix}"'),
        ("storage.tf", 'bucket_suffix = "${local.account}-${var.region}"'),
        ("keys.tf", '"alias/${var.name}-${each.key}"'),
        ("observability.tf", '"${var.name}-alerts"'),
    ],
)
def test_it_names_what_it_copies_as_the_stack_does(file: str, name: str) -> None:
    assert name in (STACK / file).read_text(encoding="utf-8")


def test_it_takes_the_same_provider_as_the_stack() -> None:
    assert (COPY / ".terraform.lock.hcl").read_bytes() == (STACK / ".terraform.lock.hcl").read_bytes()
