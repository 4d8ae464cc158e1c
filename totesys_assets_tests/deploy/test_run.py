"""A command that an operator runs in the stack gets its words as they are, shows its log, and ends as it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from totesys_assets_tests.deploy.command_stand_in import COMMAND_TAG, DEFINITION, Commands
from totesys_assets_tests.deploy.conftest import PROJECT, tool
from totesys_assets_tests.deploy.ecs_stand_in import run, served

RUN = PROJECT / "deploy" / "run.sh"
SERVICES = {"daemon": ("arn:aws:ecs:eu-west-2:1:task-definition/totesys-daemon:7", 1)}
RESTORE = "arn:aws:iam::1:role/totesys-restore"
OUTPUTS: dict[str, Any] = {
    "command": {
        "value": {
            "cluster": "totesys",
            "container": "run",
            "log_group": "/totesys/totesys",
            "network": '{"awsvpcConfiguration":{"subnets":["subnet-1"],"securityGroups":["sg-1"]}}',
            "roles": {"restore": RESTORE},
        }
    }
}
LINES = ("Comparing ToteSys and lake", "", "✓ “Zürich” agrees", "12 tables agree")


@pytest.fixture(autouse=True)
def needs_jq() -> None:
    tool("jq")


def command(
    account: Commands, folder: Path, *words: str, outputs: dict[str, Any] = OUTPUTS
) -> subprocess.CompletedProcess[str]:
    """What run.sh does with these words. Checks that it asked nothing that AWS does not know."""
    done = run(RUN, account, json.dumps(outputs), folder, *words)
    assert account.misunderstood == []
    return done


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_a_command_shows_all_that_it_prints_and_ends_with_its_exit_code(code: int, tmp_path: Path) -> None:
    account = Commands(SERVICES, lines=LINES, code=code)
    done = command(account, tmp_path, "totesys", "audit")
    assert (done.returncode, done.stdout) == (code, "".join(f"{line}\n" for line in LINES))
    (asked,) = account.asked
    assert asked["taskDefinition"] == DEFINITION
    assert asked["tags"] == [{"key": COMMAND_TAG, "value": "run.sh"}]  # by which an operator may end it
    assert asked["overrides"]["containerOverrides"][0]["command"] == ["totesys", "audit"]
    assert asked["networkConfiguration"] == json.loads(OUTPUTS["command"]["value"]["network"])


def test_lines_are_shown_while_the_command_still_runs(tmp_path: Path) -> None:
    account = Commands(SERVICES, lines=LINES * 3)
    command(account, tmp_path, "totesys", "audit")
    names = [call[1] for call in account.calls]
    between = names[names.index("run-task") : len(names) - names[::-1].index("describe-tasks")]
    assert between.count("get-log-events") > len(LINES)


@pytest.mark.parametrize(
    "words",
    [
        ("totesys", "sql", "SELECT 'it''s' AS \"ü\", $1 * `2`; -- \\ %s"),
        ("totesys", "ask", "--debug", "-h", "", "a  b", "line\nline", "$HOME", "--size"),
    ],
)
def test_words_arrive_as_they_are(words: tuple[str, ...], tmp_path: Path) -> None:
    account = Commands(SERVICES)
    assert command(account, tmp_path, *words).returncode == 0
    assert account.asked[0]["overrides"]["containerOverrides"][0]["command"] == [*words]


def test_a_command_can_have_another_size_and_another_role(tmp_path: Path) -> None:
    account = Commands(SERVICES)
    assert command(account, tmp_path, "--size", "1024/4096", "--role", "restore", "totesys", "status").returncode == 0
    overrides = account.asked[0]["overrides"]
    assert (overrides["cpu"], overrides["memory"], overrides["taskRoleArn"]) == ("1024", "4096", RESTORE)


def test_without_outputs_on_standard_input_terraform_is_asked(tmp_path: Path) -> None:
    account = Commands(SERVICES, lines=LINES)
    answer = account.answer

    def with_terraform(program: str, *words: str) -> tuple[int, str]:
        return (0, json.dumps(OUTPUTS)) if program == "terraform" else answer(program, *words)

    account.answer = with_terraform  # type: ignore[method-assign]
    assert run(RUN, account, "", tmp_path, "totesys", "audit").returncode == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "Which command?"),
        (("--fast", "totesys"), "run.sh has no option --fast"),
        (("--size", "big", "totesys"), "--size is processor units / MiB"),
        (("--size",), "--size is processor units / MiB"),
        (("--role", "king", "totesys"), "Terraform has no output command.value.roles.king"),
        (("totesys", "sql", "x" * 8192), "The command is too long: ECS takes 8,192 characters"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_task_is_asked_for(
    words: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    account = Commands(SERVICES)
    done = command(account, tmp_path, *words)
    assert (done.returncode, account.asked) == (1, [])
    assert complaint in done.stderr


def test_what_is_not_terraform_s_output_is_refused_with_what_to_give(tmp_path: Path) -> None:
    account = Commands(SERVICES)
    done = run(RUN, account, "outputs.json", tmp_path, "totesys", "audit")
    assert (done.returncode, account.calls) == (1, [])
    assert "Standard input is not what terraform output -json writes." in done.stderr


def test_without_a_stack_the_operator_is_told_to_apply_it(tmp_path: Path) -> None:
    done = command(Commands(SERVICES), tmp_path, "totesys", "audit", outputs={"cluster": {"value": "totesys"}})
    assert done.returncode == 1
    assert "Terraform has no output command.value.cluster: apply it first." in done.stderr
    done = command(Commands({}), tmp_path, "totesys", "audit")
    assert done.returncode == 1
    assert "ECS has no service daemon in the cluster totesys: run terraform apply first." in done.stderr


def test_a_refusal_for_the_quota_says_what_to_do(tmp_path: Path) -> None:
    limit = "You've reached the limit on the number of vCPUs you can run concurrently"
    done = command(Commands(SERVICES, failure=limit), tmp_path, "totesys", "audit")
    assert done.returncode == 1
    assert limit in done.stderr
    assert "--size 1024/4096" in done.stderr
    account = Commands(SERVICES, outage=range(3, 4))
    done = command(account, tmp_path, "totesys", "audit")
    assert done.returncode == 1
    assert "ECS refused the task: its sentence is above." in done.stderr
    assert "Fargate On-Demand vCPU resource count" in done.stderr


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("CannotPullContainerError: …:none-yet: not found", "push it, then apply and release.sh"),
        ("ResourceInitializationError: unable to pull secrets", "A secret is empty or was removed"),
        ("Task failed to start", "The command did not run."),
    ],
)
def test_a_task_that_never_ran_its_command_says_why(reason: str, advice: str, tmp_path: Path) -> None:
    done = command(Commands(SERVICES, reason=reason), tmp_path, "totesys", "audit")
    assert (done.returncode, done.stdout) == (1, "")
    assert "The command did not run." in done.stderr
    assert reason in done.stderr
    assert advice in done.stderr


def test_a_command_that_lacked_memory_is_told_so(tmp_path: Path) -> None:
    account = Commands(SERVICES, lines=LINES, code=137, container_reason="OutOfMemoryError: Container killed")
    done = command(account, tmp_path, "totesys", "audit")
    assert done.returncode == 137
    assert "It needs more memory" in done.stderr


@pytest.mark.thorough  # it asks all the while
def test_a_task_that_does_not_begin_is_ended_after_a_quarter_of_an_hour(tmp_path: Path) -> None:
    account = Commands(SERVICES, begins=10_000)
    done = command(account, tmp_path, "totesys", "audit")
    assert (done.returncode, len(account.stopped)) == (1, 1)
    assert "The task has not begun for 15 minutes." in done.stderr


@pytest.mark.parametrize("length", [pytest.param(1, marks=pytest.mark.thorough), 10])
def test_while_aws_is_not_heard_the_command_goes_on(length: int, tmp_path: Path) -> None:
    for begins in range(4, 40, 6):
        account = Commands(SERVICES, lines=LINES, code=2, outage=range(begins, begins + length))
        done = command(account, tmp_path, "totesys", "audit")
        assert (done.returncode, done.stdout) == (2, "".join(f"{line}\n" for line in LINES))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
@pytest.mark.parametrize("at", ["run-task", "get-log-events", "describe-tasks"])
def test_an_interrupted_command_is_ended_and_followed_to_its_end(
    at: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    account = Commands(SERVICES, lines=LINES * 100)
    run(RUN, Commands(SERVICES), "", tmp_path)  # puts the stand-in's programs there
    process: list[subprocess.Popen[str]] = []
    answer = account.answer

    def interrupting(program: str, *words: str) -> tuple[int, str]:
        found = answer(program, *words)
        if words[1:2] == (at,) and (at == "run-task" or len(account.calls) > 20) and not account.stopped and not hit:
            hit.append(at)
            os.kill(process[0].pid, number)
        return found

    hit: list[str] = []
    account.answer = interrupting  # type: ignore[method-assign]
    with served(account) as port:
        process.append(
            subprocess.Popen(
                ["bash", RUN, "totesys", "audit"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "STAND_IN": str(port)},
                text=True,
            )
        )
        printed, said = process[0].communicate(json.dumps(OUTPUTS), timeout=60)
    assert account.misunderstood == []
    assert (process[0].returncode, len(account.stopped), len(account.tasks)) == (code, 1, 2)
    assert "Ending arn:" in said
    assert (printed != "") == (at != "run-task")


@pytest.mark.parametrize("script", ["run.sh", "release.sh", "restore.sh"])
def test_an_older_bash_is_refused_before_anything_is_asked(script: str, tmp_path: Path) -> None:
    """As macOS brings it: it knows neither declare -A nor readarray, and takes an empty list for a mistake."""
    text = (PROJECT / "deploy" / script).read_text(encoding="utf-8")
    for version, code in (((3, 2), 1), ((4, 3), 1), ((4, 4), 0), ((5, 0), 0)):
        first, _, _ = text.replace("BASH_VERSINFO", "OLD").partition("\nexport ")
        told = f"OLD={str(version).replace(',', '')}\n{first}\n"
        done = subprocess.run(["bash", "-c", told], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, "This needs Bash 4.4 or later" in done.stderr) == (code, bool(code)), version


def test_a_standard_input_that_cannot_be_read_is_as_none(tmp_path: Path) -> None:
    """As under nohup."""
    account = Commands(SERVICES, lines=LINES)
    with served(account) as port, (tmp_path / "unread").open("w") as unread:
        run(RUN, account, json.dumps(OUTPUTS), tmp_path, "--help")  # lays down the stand-ins
        (tmp_path / "terraform").write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(OUTPUTS)}\nEND\n", encoding="utf-8")
        done = subprocess.run(
            ["bash", RUN, "totesys", "audit", "--until", "Zürich"],
            stdin=unread,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "STAND_IN": str(port)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    (asked,) = account.asked
    assert asked["overrides"]["containerOverrides"][0]["command"][-1] == "Zürich"
