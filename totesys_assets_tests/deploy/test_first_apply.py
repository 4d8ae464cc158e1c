"""That a first apply works: with the provider that is locked, in what an account may run, by AWS's own rules."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]
STACK = PROJECT / "deploy" / "terraform"


def test_the_provider_is_locked_for_every_kind_of_machine() -> None:
    locked = (STACK / ".terraform.lock.hcl").read_text(encoding="utf-8")
    (constraint,) = re.findall(
        r'^ +version = "(.+)"', (STACK / "versions.tf").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert f'constraints = "{constraint}"' in locked  # else every init would rewrite the file
    assert re.findall(r'provider "(.+)"', locked) == ["registry.terraform.io/hashicorp/aws"]
    assert len(re.findall(r"zh:[0-9a-f]{64}", locked)) >= 14  # of each archive that was published
    assert len(re.findall(r"h1:[A-Za-z0-9+/]{43}=", locked)) >= 4  # of what Linux and macOS unpack, on Intel and ARM


def test_the_quota_that_is_asked_for_is_of_as_many_runs_as_there_may_be() -> None:
    instance = yaml.safe_load((PROJECT / "deploy" / "docker" / "dagster.yaml").read_text(encoding="utf-8"))
    (runs,) = re.findall(r"most_runs = (\d+)", (STACK / "quotas.tf").read_text(encoding="utf-8"))
    assert int(runs) == instance["concurrency"]["runs"]["max_concurrent_runs"]
    (most,) = re.findall(r"most = (\d+) \}", (STACK / "tests" / "quotas.tftest.hcl").read_text(encoding="utf-8"))
    page = (PROJECT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert f"everything at once {most} " in page
    (asked,) = re.findall(r"L-3032A538 --desired-value (\d+)", page)
    assert int(asked) >= int(most)
