"""A restore brings database and lake back whole, whatever interrupts it, and keeps the database that was in use."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from totesys_assets_tests.deploy import test_release, test_run
from totesys_assets_tests.deploy.command_stand_in import DEFINITION
from totesys_assets_tests.deploy.conftest import PROJECT, tool
from totesys_assets_tests.deploy.ecs_stand_in import Task, run
from totesys_assets_tests.deploy.restore_stand_in import EARLIEST, MOMENT, SNAPSHOT, STATE, Account

RESTORE = PROJECT / "deploy" / "restore.sh"
OUTPUTS: dict[str, Any] = {
    **json.loads(test_release.document(test_release.OUTPUTS)),
    **test_run.OUTPUTS,
    "cluster": {"value": "totesys"},
    "image_tag": {"value": "0123abc"},
    "image_digest": {"value": "sha256:9f"},
    "run_task_definition": {"value": "totesys-run"},
}
LAKE = ["totesys", "restore-lake", MOMENT]
OLD = "totesys-before-20261127100000"


@pytest.fixture(autouse=True)
def needs_jq() -> None:
    tool("jq")


def account(**how: Any) -> Account:
    """A running stack."""
    return Account(test_release.OLD, outputs=OUTPUTS, **how)


def restore(given: Account, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What restore.sh does with these words. Checks what holds whenever it ends."""
    done = run(RESTORE, given, "", folder, *words)
    assert given.misunderstood == []
    assert given.most_daemons <= 1
    assert given.is_at_work == [], "the lake was restored while something could write to it"
    assert "db-1" in [each.id for each in given.instances.values()], "the old database is gone"
    return done


def commands(given: Account) -> list[list[str]]:
    """The commands that were run in tasks."""
    return [each["overrides"]["containerOverrides"][0]["command"] for each in given.asked if "overrides" in each]


def assert_restored(given: Account, data: str = MOMENT, old: str = OLD) -> None:
    live = given.instances["totesys"]
    assert (live.data, live.is_as_wanted, live.secret) == (data, True, f"rds!{live.id}")
    assert {name: each.id for name, each in given.instances.items()} == {"totesys": live.id, old: "db-1"}
    assert (given.in_state, given.provisions_with) == (live.id, live.secret)
    assert given.is_at_rest()
    assert given.what_runs() == test_release.NEW


def test_database_and_lake_go_back_to_the_same_moment(tmp_path: Path) -> None:
    given = account()
    done = restore(given, tmp_path, "all", MOMENT, "--apply")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_restored(given)
    assert commands(given) == [[*LAKE, "--apply"], ["totesys", "refresh"], ["totesys", "audit"]]
    assert f"The database as it was before is {OLD}." in done.stdout
    first = next(number for number, (_, _, wanted) in enumerate(given.updates) if wanted == 0)
    assert given.updates[first][0] == "daemon"


def test_without_apply_it_says_what_it_would_do_and_does_nothing(tmp_path: Path) -> None:
    given = account(deleted=["totesys/dagster-url"])
    done = restore(given, tmp_path, "all", MOMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert commands(given) == [LAKE]
    assert (given.updates, set(given.instances), given.deleted) == ([], {"totesys"}, ["totesys/dagster-url"])
    assert f"becomes totesys-as-of-20261127100000, then totesys; the one in use becomes {OLD}." in done.stdout
    assert "Nothing was changed." in done.stdout


def test_the_database_goes_back_to_a_snapshot_and_the_lake_stays(tmp_path: Path) -> None:
    given = account()
    done = restore(given, tmp_path, "database", f"snapshot:{SNAPSHOT}", "--apply", "-var-file=lean.tfvars")
    assert done.returncode == 0, done.stdout + done.stderr
    assert given.variables == ["-var-file=lean.tfvars"]  # else Terraform would make another size of it
    assert_restored(given, SNAPSHOT, "totesys-before-20261126090000")
    assert commands(given) == [["totesys", "refresh"], ["totesys", "audit"]]


def test_the_lake_goes_back_alone(tmp_path: Path) -> None:
    given = account()
    assert restore(given, tmp_path, "lake", MOMENT, "--apply").returncode == 0
    assert commands(given) == [[*LAKE, "--apply"], ["totesys", "refresh"], ["totesys", "audit"]]
    assert set(given.instances) == {"totesys"}
    assert given.what_runs() == test_release.NEW


def test_large_runs_are_ended_before_the_lake_is_restored_also_those_that_end_just_then(tmp_path: Path) -> None:
    given = account()
    going, ending = Task("arn:going", "", DEFINITION), Task("arn:ending", "", DEFINITION, wanted=False, ends_at=600)
    given.tasks += [going, ending]
    assert restore(given, tmp_path, "lake", MOMENT, "--apply").returncode == 0
    assert (given.stopped, going.wanted) == (["restore"], False)


def test_a_database_that_was_deleted_comes_back_from_the_backups_that_it_left(tmp_path: Path) -> None:
    given = account()
    gone = given.instances.pop("totesys")
    done = run(RESTORE, given, "", tmp_path, "database", MOMENT, "--apply")
    assert done.returncode == 0, done.stdout + done.stderr
    given.instances[OLD] = gone  # so that the rest can be looked at
    assert_restored(given)


def test_deleted_secrets_of_the_stack_come_back_and_no_others(tmp_path: Path) -> None:
    given = account(deleted=["totesys/totesys-url", "totesys2/dagster-url"])
    assert restore(given, tmp_path, "secrets").returncode == 0
    assert len(given.deleted) == 2
    assert restore(given, tmp_path, "secrets", "--apply").returncode == 0
    assert given.deleted == ["totesys2/dagster-url"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "restore.sh all|database|lake|state MOMENT"),
        (("all",), "restore.sh all|database|lake|state MOMENT"),
        (("all", "yesterday"), "a moment is 2026-11-27T10:00:00Z"),
        (("lake", f"snapshot:{SNAPSHOT}"), "a moment is 2026-11-27T10:00:00Z"),
        (("lake", "2026-02-30T10:00:00Z", "--apply"), "is no moment of the past"),
        (("all", "2026-11-24T25:00:00Z", "--apply"), "is no moment of the past"),
        (("lake", "2999-01-01T00:00:00Z", "--apply"), "is no moment of the past"),
        (("all", MOMENT, "--now"), "restore.sh all|database|lake|state MOMENT"),
        (("database", "2026-11-01T10:00:00Z", "--apply"), f"RDS can restore moments from {EARLIEST}"),
        (("database", "snapshot:of-another-region", "--apply"), "has another key than the database"),
    ],
)
def test_what_cannot_be_restored_is_refused_before_anything_stops(
    words: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    given = account()
    done = restore(given, tmp_path, *words)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert given.updates == []


def test_without_the_state_the_state_comes_first(tmp_path: Path) -> None:
    given = account()
    given.in_state = None
    done = restore(given, tmp_path, "all", MOMENT, "--apply")
    assert done.returncode == 1
    assert "restore the state first" in done.stderr
    assert given.updates == []


def test_the_state_needs_to_know_where_it_lies(tmp_path: Path) -> None:
    done = run(RESTORE, account(), "", tmp_path, "state", MOMENT, TOTESYS_STACK=str(tmp_path))
    assert done.returncode == 1
    assert "cp backend.hcl.example backend.hcl" in done.stderr


def test_terraform_s_state_goes_back_to_the_version_of_the_moment(tmp_path: Path) -> None:
    (tmp_path / "backend.hcl").write_text(f'bucket = "states"\nkey    = "{STATE}"\n', encoding="utf-8")
    times = {"a": "2026-11-27T08:00:00+00:00", "b": "2026-11-27T09:59:59+00:00", "c": "2026-11-27T10:00:01+00:00"}
    given = account(versions=[{"VersionId": name, "LastModified": at} for name, at in times.items()])
    said = run(RESTORE, given, "", tmp_path, "state", MOMENT, TOTESYS_STACK=str(tmp_path))
    assert (said.returncode, given.copied) == (0, []), said.stderr
    assert "Version b: serial 7, 2 resources." in said.stdout
    done = run(RESTORE, given, "", tmp_path, "state", MOMENT, "--apply", TOTESYS_STACK=str(tmp_path))
    assert (done.returncode, given.copied) == (0, [f"states/{STATE}?versionId=b"])
    given.versions = given.versions[2:]
    done = run(RESTORE, given, "", tmp_path, "state", MOMENT, "--apply", TOTESYS_STACK=str(tmp_path))
    assert done.returncode == 1
    assert "has no version of" in done.stderr
    assert given.misunderstood == []


def assert_completed(number: int, has_effect: bool, folder: Path) -> None:
    """That a restore whose call of that number failed is complete, at the latest with the next try."""
    given = account(outage=range(number, number + 1), has_effect=has_effect)
    if restore(given, folder, "all", MOMENT, "--apply").returncode:
        given.outage = range(0)
        again = restore(given, folder, "all", MOMENT, "--apply")
        assert again.returncode == 0, f"after call {number} failed: {again.stdout}{again.stderr}"
    assert_restored(given)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The calls of a restore in which nothing fails."""
    given = account()
    restore(given, tmp_path_factory.mktemp("calls"), "all", MOMENT, "--apply")
    return given.calls


# What a restore changes, but for services and tasks: those are a release's, and a command's.
CHANGES = ["restore-db-instance-to-point-in-time", "modify-db-instance", "state", "import", "apply"]


@pytest.mark.parametrize(
    "has_effect",
    [pytest.param(False, id="without effect", marks=pytest.mark.thorough), pytest.param(True, id="with effect")],
)
def test_whichever_change_fails_the_next_try_completes_the_restore(
    has_effect: bool, calls: list[list[str]], tmp_path: Path
) -> None:
    numbers = [number for number, call in enumerate(calls, 1) if call[1] in CHANGES and "pull" not in call]
    assert len(numbers) == 8  # a password and two names are given by modify-db-instance, and two parts are applied
    for number in numbers[has_effect :: 2 + 2 * has_effect]:  # some of them; below, each of them both ways
        assert_completed(number, has_effect, tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("has_effect", [False, True], ids=["without effect", "with effect"])
@pytest.mark.parametrize("part", range(8))
def test_whichever_call_fails_the_next_try_completes_the_restore(
    part: int, has_effect: bool, calls: list[list[str]], tmp_path: Path
) -> None:
    for number in range(1 + part, len(calls) + 1, 8):
        assert_completed(number, has_effect, tmp_path)
