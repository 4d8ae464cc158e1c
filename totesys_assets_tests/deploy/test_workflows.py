"""The workflows: who may do what, and that nobody else can."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from totesys_assets_tests.deploy.conftest import PROJECT, tool

FOLDER = PROJECT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.y*ml"))
ROLES = {"build": "AWS_BUILD_ROLE", "plan": "AWS_PLAN_ROLE", "apply": "AWS_DEPLOY_ROLE"}

Workflow = dict[str, Any]


def load(path: Path) -> Workflow:
    document: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["on"] = document.pop(True)  # YAML 1.1 reads the key `on` as a truth
    return document


def steps(workflow: Workflow) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def workflow(path: Path) -> Workflow:
    return load(path)


@pytest.fixture(scope="module")
def deploy() -> Workflow:
    return load(FOLDER / "deploy.yml")


def test_there_are_three() -> None:
    assert [path.name for path in FILES] == ["deploy.yml", "nightly.yml", "test.yml"]


def test_zizmor_finds_nothing() -> None:
    command = [tool("zizmor"), "--offline", "--no-progress", "--quiet", "--pedantic", str(FOLDER)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_every_action_is_pinned_to_a_commit_whose_version_is_said(path: Path) -> None:
    uses = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert len(uses) >= 2
    for line in uses:
        assert re.fullmatch(r"\s*(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_version_of_an_action_is_used_everywhere() -> None:
    pins = {
        re.sub(r"\s*(- )?uses: ", "", line)
        for path in FILES
        for line in path.read_text().splitlines()
        if "uses:" in line
    }
    assert len(pins) == len({pin.partition("@")[0] for pin in pins}) == 8


def test_nothing_is_permitted_but_what_a_job_asks_for(workflow: Workflow) -> None:
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert set(job["permissions"]) <= {"contents", "id-token"}, name
        assert job["permissions"]["contents"] == "read", name


def test_no_job_keeps_githubs_token_after_the_checkout(workflow: Workflow) -> None:
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == len(workflow["jobs"])
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_every_job_ends_some_time(workflow: Workflow) -> None:
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())


def test_what_runs_the_tests_has_a_browser_and_a_pooler_so_that_none_is_skipped() -> None:
    jobs = [job for path in FILES for job in load(path)["jobs"].values()]
    scripts = [[step.get("run", "") for step in job["steps"]] for job in jobs]
    running = [each for each in scripts if re.search(r"make (test|soak|coverage)\b", each[-1])]
    assert len(running) == 3
    for *before, _ in running:
        installed = "\n".join(before)
        assert re.search(r"apt-get .*install .*\bpgbouncer\b", installed)
        assert re.search(r"apt-get .*install .*\bchromium-browser\b", installed)


def test_no_workflow_runs_a_strangers_code_with_our_rights(workflow: Workflow) -> None:
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(workflow["on"])


def test_no_secret_is_kept_with_github(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "secrets." not in text
    assert not re.search(r"aws-(access-key-id|secret-access-key|session-token)", text)


def test_nothing_that_a_stranger_can_write_is_put_into_a_script(workflow: Workflow) -> None:
    scripts = [step["run"] for step in steps(workflow) if "run" in step]
    assert scripts
    # Not even what is harmless: an expression is put into a script before the shell reads it. `env` is for that.
    assert not [script for script in scripts if "${{" in script]


def test_a_pull_request_gets_no_identity_for_aws() -> None:
    for path in FILES:
        workflow = load(path)
        if "pull_request" in workflow["on"]:
            assert not [name for name, job in workflow["jobs"].items() if "id-token" in job["permissions"]]
            assert "configure-aws-credentials" not in path.read_text(encoding="utf-8")


def test_the_deployment_starts_from_main_only(deploy: Workflow) -> None:
    assert deploy["on"]["push"] == {"branches": ["main"]}
    assert set(deploy["on"]) == {"push", "workflow_dispatch"}
    for name, job in deploy["jobs"].items():
        # Whoever starts it by hand can choose another branch.
        assert "github.ref == 'refs/heads/main'" in job["if"], name
        assert "github.event_name != 'pull_request'" in job["if"], name
        assert "||" not in re.sub(r"\([^()]*\|\|[^()]*\)", "", job["if"]), f"{name}: an alternative to being on main"


def test_deployments_follow_one_another_and_none_is_cut_off(deploy: Workflow) -> None:
    assert deploy["concurrency"] == {"group": "deploy", "cancel-in-progress": False}


def test_each_job_takes_a_role_of_its_own_by_githubs_identity(deploy: Workflow) -> None:
    for name, job in deploy["jobs"].items():
        taken = [
            step["with"]["role-to-assume"]
            for step in job["steps"]
            if "configure-aws-credentials" in step.get("uses", "")
        ]
        assert taken == [f"${{{{ vars.{ROLES[name]} }}}}"], name
        assert job["permissions"]["id-token"] == "write", name
    assert set(deploy["jobs"]) == set(ROLES)


def test_only_the_job_that_somebody_approves_takes_the_role_that_applies(deploy: Workflow) -> None:
    environments = {name: job.get("environment") for name, job in deploy["jobs"].items()}
    assert environments == {"build": None, "plan": None, "apply": "production"}
    for name, job in deploy["jobs"].items():
        scripts = "\n".join(step.get("run", "") for step in job["steps"])
        changes = re.search(r"terraform\b.*\bapply\b|release\.sh", scripts)
        assert bool(changes) == (name == "apply"), name


def test_what_is_applied_is_the_plan_that_was_approved(deploy: Workflow) -> None:
    plan, apply = (deploy["jobs"][name] for name in ("plan", "apply"))
    assert apply["needs"] == "plan"
    saved, script = (
        next(step["run"] for step in job["steps"] if step.get("name") == name)
        for job, name in ((plan, "Keep the plan"), (apply, "Apply"))
    )
    place = re.compile(r"s3://\$\{bucket:[^}]+\}/plans/\$GITHUB_RUN_ID")
    assert f'tfplan "{place.findall(saved)[0]}"' in saved
    assert f'plan="{place.findall(saved)[0]}"' in script
    assert script.index('"$plan" tfplan') < script.index("terraform apply")
    assert re.search(r"terraform apply [^\n]*\btfplan$", script, re.MULTILINE)
    assert "-auto-approve" not in script


def test_no_plan_lies_where_everybody_can_read_it(deploy: Workflow) -> None:
    assert not [step for job in deploy["jobs"].values() for step in job["steps"] if "artifact" in step.get("uses", "")]


def test_the_bucket_of_plans_is_that_of_the_state(deploy: Workflow, tmp_path: Path) -> None:
    example = (PROJECT / "deploy" / "terraform" / "backend.hcl.example").read_text(encoding="utf-8")
    (tmp_path / "backend.hcl").write_text(example, encoding="utf-8")
    scripts = [
        step["run"] for job in deploy["jobs"].values() for step in job["steps"] if "bucket=" in step.get("run", "")
    ]
    assert len(scripts) == 2
    for script in scripts:
        line = next(line for line in script.splitlines() if line.startswith("bucket="))
        found = subprocess.run(
            [tool("bash"), "-c", f'{line}; printf %s "$bucket"'],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        assert found.stdout == re.findall(r'bucket = "(.+)"', example)[0]


def test_an_image_is_scanned_before_anybody_can_pull_it(deploy: Workflow) -> None:
    order = [step.get("name") or step["uses"] for step in deploy["jobs"]["build"]["steps"]]
    positions = [
        next(at for at, name in enumerate(order) if word in name) for word in ("Build", "Scan", "amazon-ecr", "Push")
    ]
    assert positions == sorted(positions)
    build = next(step["with"] for step in deploy["jobs"]["build"]["steps"] if step.get("name") == "Build")
    assert build["load"] is True
    assert "push" not in build
    scan = next(step["with"] for step in deploy["jobs"]["build"]["steps"] if "scan-action" in step.get("uses", ""))
    assert scan["fail-build"] is True
    assert scan["image"] == build["tags"]


def test_every_task_that_a_workflow_starts_is_in_the_makefile(workflow: Workflow) -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    tasks = re.findall(r"^make ([\w-]+)", "\n".join(step.get("run", "") for step in steps(workflow)), re.MULTILINE)
    assert not [task for task in tasks if not re.search(rf"^{task}:", makefile, re.MULTILINE)]
