"""A release moves all services or none, in an order in which versions never mix, whatever fails on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from totesys_assets_tests.deploy.conftest import PROJECT, tool
from totesys_assets_tests.deploy.ecs_stand_in import Ecs, Task, run

RELEASE = PROJECT / "deploy" / "release.sh"
SERVICES = ("api", "code", "daemon", "dashboard", "viewer", "webserver")
DEFINITION = "arn:aws:ecs:eu-west-2:1:task-definition/totesys-{}:{}"
OLD, NEW = ({name: (DEFINITION.format(name, number), 1) for name in SERVICES} for number in (7, 8))
AT_REST = {name: (definition, 0) for name, (definition, _) in OLD.items()}
OUTPUTS = {
    "provision.cluster": "totesys",
    "provision.task_definition": DEFINITION.format("provision", 8),
    "provision.network": '{"awsvpcConfiguration":{"subnets":["subnet-1"],"securityGroups":["sg-1"]}}',
    "services": {name: definition for name, (definition, _) in NEW.items()},
}
CHANGES = {"run-task", "update-service"}


@pytest.fixture(autouse=True)
def needs_jq() -> None:
    tool("jq")


def document(outputs: Mapping[str, Any]) -> str:
    provision = {name.partition(".")[2]: value for name, value in outputs.items() if "." in name}
    plain = {name: value for name, value in outputs.items() if "." not in name}
    return json.dumps({name: {"value": value} for name, value in {**plain, "provision": provision}.items()})


def release(ecs: Ecs, folder: Path, outputs: Mapping[str, Any] = OUTPUTS) -> tuple[int, str]:
    """Exit code of release.sh, and what it complained of. Checks what holds for every release."""
    before = {name: (each.definition, each.desired) for name, each in ecs.services.items()}
    earlier = len(ecs.updates)
    done = run(RELEASE, ecs, document(outputs), folder)
    assert ecs.misunderstood == []
    is_at_rest = ecs.is_at_rest()
    assert ecs.most_daemons <= 1, "two daemons were alive at once"
    if "run release.sh again" not in done.stderr:
        assert is_at_rest
        assert ecs.what_runs() == (before if done.returncode else NEW)
    moved = [name for name, definition, number in ecs.updates[earlier:] if (definition, number) == NEW[name]]
    assert moved == sorted(moved, key=lambda name: {"code": 0, "daemon": 1}.get(name, 2)), "in another order"
    return done.returncode, done.stderr


def test_a_release_moves_the_code_server_then_the_daemon_then_the_rest(tmp_path: Path) -> None:
    ecs = Ecs(OLD)
    assert release(ecs, tmp_path) == (0, "")
    assert ecs.updates == [
        ("code", NEW["code"][0], 1),
        ("daemon", OLD["daemon"][0], 0),
        *((name, NEW[name][0], 1) for name in ("daemon", "api", "dashboard", "viewer", "webserver")),
    ]
    first_update = next(number for number, call in enumerate(ecs.calls) if call[1] == "update-service")
    provisioned = next(number for number, call in enumerate(ecs.calls) if call[1] == "describe-tasks")
    assert provisioned < first_update


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "terraform -chdir=deploy/terraform output -json | deploy/release.sh"),
        ("{", "terraform -chdir=deploy/terraform output -json | deploy/release.sh"),
        ("{}", "Terraform has no output provision.value.cluster: apply it first."),
        (document({**OUTPUTS, "image_tag": ""}), "apply it with -var image_tag=TAG"),
    ],
)
def test_without_outputs_or_an_image_it_says_what_to_do_and_asks_nothing(given: str, said: str, tmp_path: Path) -> None:
    ecs = Ecs(OLD)
    done = run(RELEASE, ecs, given, tmp_path)
    assert done.returncode != 0
    assert said in done.stderr
    assert ecs.calls == []


def test_the_first_release_begins_one_of_each(tmp_path: Path) -> None:
    ecs = Ecs(AT_REST)
    assert release(ecs, tmp_path) == (0, "")
    assert ecs.what_runs() == NEW


def test_a_release_may_be_run_again_though_nothing_changed(tmp_path: Path) -> None:
    assert release(Ecs(NEW), tmp_path) == (0, "")


def test_a_daemon_that_ended_over_and_over_is_replaced_too(tmp_path: Path) -> None:
    ecs = Ecs(OLD)
    definition = OLD["daemon"][0]
    ended = [Task(f"arn:task/{number}", "daemon", definition, wanted=False, ends_at=0) for number in range(250)]
    ecs.tasks += ended
    assert release(ecs, tmp_path) == (0, "")


@pytest.mark.parametrize("running", [OLD, AT_REST], ids=["old", "at rest"])
@pytest.mark.parametrize("service", SERVICES)
def test_if_one_does_not_come_up_all_go_back_and_a_mended_release_succeeds(
    service: str, running: dict[str, tuple[str, int]], tmp_path: Path
) -> None:
    ecs = Ecs(running, never_well=frozenset({NEW[service][0]}))
    code, complaint = release(ecs, tmp_path)
    assert code == 1
    assert f"{service} did not come up with totesys-{service}:8" in complaint
    assert complaint.endswith("All services run what they ran before.\n")
    assert ecs.what_runs() == running
    ecs.never_well = frozenset()
    assert release(ecs, tmp_path) == (0, "")


@pytest.mark.parametrize(
    "has_effect",
    [pytest.param(False, id="without effect", marks=pytest.mark.thorough), pytest.param(True, id="with effect")],
)
@pytest.mark.parametrize(
    "length", [pytest.param(1, id="once"), pytest.param(25, id="for minutes", marks=pytest.mark.thorough)]
)
def test_whichever_calls_fail_all_are_new_or_all_are_old_or_it_says_which_are_not(
    length: int, has_effect: bool, tmp_path: Path
) -> None:
    well = Ecs(OLD)
    assert release(well, tmp_path) == (0, "")
    # Where only one call fails, a question fails either with or without effect, which is the same.
    numbers = (
        [number for number, call in enumerate(well.calls, 1) if call[1] in CHANGES or number % 2 == has_effect]
        if length == 1
        else range(1, len(well.calls) + 1, 4)
    )
    codes, complaints = {}, ""
    for number in numbers:
        ecs = Ecs(OLD, outage=range(number, number + length), has_effect=has_effect)
        code, complaint = release(ecs, tmp_path)
        codes[number] = code
        complaints += complaint
        if code:
            ecs.outage = range(0)
            assert release(ecs, tmp_path) == (0, ""), f"after call {number} failed"
    if length == 1:  # until the provision task has ended, nothing is asked twice
        assert {each: code == 0 for each, code in codes.items()} == {each: each > 9 for each in codes}
    else:
        assert 0 not in codes.values()
        assert ("did not come up" in complaints) == ("All services run what they ran before" in complaints) is True


@pytest.mark.parametrize("begins", range(18, 30))
def test_an_outage_on_the_way_back_is_told_and_the_next_release_mends_it(begins: int, tmp_path: Path) -> None:
    ecs = Ecs(OLD, never_well=frozenset({NEW["daemon"][0]}), outage=range(begins, begins + 400))
    code, complaint = release(ecs, tmp_path)
    assert code == 1
    assert "These do not run what they ran before:" in complaint
    ecs.outage, ecs.never_well = range(0), frozenset()
    assert release(ecs, tmp_path) == (0, "")


@pytest.mark.parametrize("code", [1, 137, None])
def test_a_release_whose_provisioning_failed_touches_no_service(code: int | None, tmp_path: Path) -> None:
    ecs = Ecs(OLD, provision_code=code)
    failed, complaint = release(ecs, tmp_path)
    assert failed == 1
    assert ecs.updates == []
    assert f"The provision task failed (exit code {code}, Essential container in task exited)" in complaint


def test_a_release_whose_task_was_not_accepted_says_so(tmp_path: Path) -> None:
    ecs = Ecs(OLD, accepts_tasks=False)
    code, complaint = release(ecs, tmp_path)
    assert code == 1
    assert ecs.updates == []
    assert "ECS did not accept the provision task" in complaint


def test_a_service_that_was_never_made_is_named_before_anything_runs(tmp_path: Path) -> None:
    ecs = Ecs({name: each for name, each in OLD.items() if name != "viewer"})
    code, complaint = release(ecs, tmp_path)
    assert code == 1
    assert "ECS has no service viewer in the cluster totesys: run terraform apply first." in complaint
    assert not [call for call in ecs.calls if call[1] == "run-task"]


@pytest.mark.parametrize("missing", OUTPUTS)
def test_a_release_without_an_output_that_it_needs_asks_nothing_of_aws(missing: str, tmp_path: Path) -> None:
    ecs = Ecs(OLD)
    code, complaint = release(ecs, tmp_path, {name: value for name, value in OUTPUTS.items() if name != missing})
    assert code != 0
    assert f"Terraform has no output {missing.partition('.')[0]}" in complaint
    assert ecs.calls == []


def test_a_stack_without_a_ui_is_released_too(tmp_path: Path) -> None:
    few = ("code", "daemon")
    ecs = Ecs({name: OLD[name] for name in few})
    outputs = OUTPUTS | {"services": {name: NEW[name][0] for name in few}}
    done = run(RELEASE, ecs, document(outputs), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert ecs.what_runs() == {name: NEW[name] for name in few}
