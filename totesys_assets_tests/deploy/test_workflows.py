"""The workflows: who may do what, and that nobody else can."""

from __future__ import annotations

import json
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


def with_steps(workflow: Workflow) -> dict[str, Any]:
    """The jobs that are not another workflow."""
    return {name: job for name, job in workflow["jobs"].items() if "steps" in job}


def steps(workflow: Workflow) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job.get("steps", [])


def actions(path: Path) -> list[str]:
    """The lines that use an action; a workflow of ours that is called is none."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "uses:" in line and "uses: ./.github/" not in line]


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
    command = [tool("zizmor"), "--offline", "--no-progress", "--quiet", "--pedantic", str(FOLDER.parent)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_every_action_is_pinned_to_a_commit_whose_version_is_said(path: Path) -> None:
    uses = actions(path)
    assert len(uses) >= 2
    for line in uses:
        assert re.fullmatch(r"\s*(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_version_of_an_action_is_used_everywhere() -> None:
    pins = {re.sub(r"\s*(- )?uses: ", "", line) for path in FILES for line in actions(path)}
    assert len(pins) == len({pin.partition("@")[0] for pin in pins}) == 10


def test_nothing_is_permitted_but_what_a_job_asks_for(workflow: Workflow) -> None:
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert set(job["permissions"]) <= {"contents", "id-token"}, name
        assert job["permissions"]["contents"] == "read", name


def test_no_job_keeps_githubs_token_after_the_checkout(workflow: Workflow) -> None:
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == len([job for job in workflow["jobs"].values() if "steps" in job])
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_every_job_ends_some_time(workflow: Workflow) -> None:
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values() if "steps" in job)


def test_what_runs_the_tests_has_a_browser_and_a_pooler_so_that_none_is_skipped() -> None:
    jobs = [job for path in FILES for job in load(path)["jobs"].values() if "steps" in job]
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
    assert set(deploy["on"]) == {"push", "schedule", "workflow_dispatch"}
    for name, job in deploy["jobs"].items():
        # Whoever starts it by hand can choose another branch.
        assert "github.ref == 'refs/heads/main'" in job["if"], name
        assert "github.event_name != 'pull_request'" in job["if"], name
        assert "||" not in re.sub(r"\([^()]*\|\|[^()]*\)", "", job["if"]), f"{name}: an alternative to being on main"


def test_deployments_follow_one_another_and_none_is_cut_off(deploy: Workflow) -> None:
    assert deploy["concurrency"] == {"group": "deploy", "cancel-in-progress": False}


def test_each_job_takes_a_role_of_its_own_by_githubs_identity(deploy: Workflow) -> None:
    for name, job in with_steps(deploy).items():
        taken = [
            step["with"]["role-to-assume"]
            for step in job["steps"]
            if "configure-aws-credentials" in step.get("uses", "")
        ]
        assert taken == [f"${{{{ vars.{ROLES[name]} }}}}"], name
        assert job["permissions"]["id-token"] == "write", name
    assert set(with_steps(deploy)) == set(ROLES)


def test_only_the_job_that_somebody_approves_takes_the_role_that_applies(deploy: Workflow) -> None:
    environments = {name: job.get("environment") for name, job in deploy["jobs"].items()}
    assert environments == {"tests": None, "build": None, "plan": None, "apply": "production"}
    for name, job in with_steps(deploy).items():
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
    # A new attempt at planning has a plan of its own, also where an earlier one was applied.
    assert 'key="plans/$GITHUB_RUN_ID-$GITHUB_RUN_ATTEMPT"' in saved
    assert plan["outputs"]["plan"] == "${{ steps.keep.outputs.plan }}"
    given = next(step["env"] for step in apply["steps"] if step.get("name") == "Apply")
    assert given["PLAN"] == "${{ needs.plan.outputs.plan }}"
    assert script.index('"$plan" tfplan') < script.index("terraform apply")
    assert re.search(r"terraform apply [^\n]*\btfplan$", script, re.MULTILINE)
    assert "-auto-approve" not in script


def test_no_plan_lies_where_everybody_can_read_it(deploy: Workflow) -> None:
    assert not [
        step for job in with_steps(deploy).values() for step in job["steps"] if "artifact" in step.get("uses", "")
    ]


def test_the_bucket_of_plans_is_that_of_the_state(deploy: Workflow, tmp_path: Path) -> None:
    example = (PROJECT / "deploy" / "terraform" / "backend.hcl.example").read_text(encoding="utf-8")
    (tmp_path / "backend.hcl").write_text(example, encoding="utf-8")
    scripts = [
        step["run"] for job in with_steps(deploy).values() for step in job["steps"] if "bucket=" in step.get("run", "")
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


def test_an_image_is_built_on_the_processor_that_runs_it_and_tried_on_both(deploy: Workflow) -> None:
    chosen = re.fullmatch(
        r"\$\{\{ vars\.IMAGE_ARCHITECTURE == 'ARM64' && '(.+)' \|\| '(.+)' \}\}", deploy["jobs"]["build"]["runs-on"]
    )
    assert chosen is not None
    assert chosen.groups() == ("ubuntu-24.04-arm", "ubuntu-24.04")
    assert set(load(FOLDER / "test.yml")["jobs"]["image"]["strategy"]["matrix"]["machine"]) == set(chosen.groups())


DOCKER = """#!/bin/bash
tried=$(($(cat tried 2>/dev/null || echo 0) + 1))
echo $tried >tried
answers=($ANSWERS)
answer=${answers[$((tried <= ${#answers[@]} ? tried - 1 : -1))]}
[ "$answer" != fails ] && echo "$answer"
"""


@pytest.mark.parametrize(
    ("answers", "code", "tried"), [("0 0 7", 0, 3), ("fails 0 3", 0, 3), ("0", 1, 60), ("fails", 1, 60)]
)
def test_the_test_of_the_image_waits_for_an_order_and_fails_without_one(
    tmp_path: Path, answers: str, code: int, tried: int
) -> None:
    (tmp_path / "docker").write_text(DOCKER, encoding="utf-8")
    (tmp_path / "sleep").write_text("#!/bin/sh\n", encoding="utf-8")
    for name in ("docker", "sleep"):
        (tmp_path / name).chmod(0o755)
    script = step(load(FOLDER / "test.yml")["jobs"]["image"], "An order arrives in the warehouse")["run"]
    done = subprocess.run(
        [tool("bash"), "-eo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "ANSWERS": answers},
        check=False,
        timeout=60,
    )
    assert (done.returncode, int((tmp_path / "tried").read_text())) == (code, tried)


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


class Shell:
    """Runs the script of a step with programs that are stand-ins: each call is noted, and fails if it is said to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.fails: list[str] = []

    def __call__(self, step: dict[str, Any], **environment: str) -> tuple[int, list[str]]:
        """Exit code of the step, and the calls of this run."""
        self.log.write_text("", encoding="utf-8")
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        patterns = "".join(f"    *'{pattern}'*) exit 1 ;;\n" for pattern in self.fails)
        for program in ("aws", "cosign", "terraform", "docker"):
            file = programs / program
            file.write_text(
                f'#!/bin/sh\necho "{program} $*" >>"{self.log}"\ncase "{program} $*" in\n{patterns}'
                f"    *describe-images*) echo sha256:d ;;\n    *) ;;\nesac\n",
                encoding="utf-8",
            )
            file.chmod(0o755)
        done = subprocess.run(
            [tool("bash"), "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=self.folder,
            env={"PATH": f"{programs}:/usr/bin:/bin", "GITHUB_OUTPUT": str(self.folder / "output"), **environment},
            check=False,
            capture_output=True,
            text=True,
        )
        return done.returncode, self.log.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def step(job: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in job["steps"] if each.get("name") == name)
    return found


def test_nothing_is_built_planned_or_applied_but_what_passed_the_tests(deploy: Workflow) -> None:
    jobs = deploy["jobs"]
    assert jobs["tests"]["uses"].endswith("/.github/workflows/test.yml")
    assert "image_tag" not in jobs["tests"]["if"], "a rollback applies the Terraform of today"
    assert jobs["build"]["needs"] == "tests"
    assert jobs["plan"]["needs"] == ["tests", "build"]
    assert "needs.tests.result == 'success'" in jobs["plan"]["if"]
    assert "needs.plan.result == 'success'" in jobs["apply"]["if"]
    tests = load(FOLDER / "test.yml")
    assert set(tests["on"]) == {"pull_request", "workflow_call"}, "on main they are a deployment's"


def test_a_job_that_failed_after_the_apply_can_be_run_again(deploy: Workflow, shell: Shell) -> None:
    apply = step(deploy["jobs"]["apply"], "Apply")
    given = {"BACKEND": 'bucket = "states"', "PLAN": "plans/1-1"}
    shell.fails = ["aws s3 ls"]
    code, calls = shell(apply, **given)
    assert code == 0
    assert [call for call in calls if "appl" in call] == [
        "aws s3 ls s3://states/plans/1-1.applied",
        "terraform apply -input=false -lock-timeout=5m tfplan",
        "aws s3 mv --only-show-errors s3://states/plans/1-1 s3://states/plans/1-1.applied",
    ]
    shell.fails = ["terraform apply", "aws s3 cp"]
    assert shell(apply, **given)[0] == 0, "what was applied is applied again"
    shell.fails = ["aws s3 ls", "terraform apply"]
    code, calls = shell(apply, **given)
    assert code != 0
    assert not [call for call in calls if " s3 mv" in call], "what was not applied counts as applied"
    names = [each.get("name") for each in deploy["jobs"]["apply"]["steps"]]
    assert names[-2:] == ["Provision, and move the services", "Forget the plan"]


@pytest.mark.parametrize("fails", [[], ["cosign verify --"], ["cosign verify-attestation"]])
def test_an_image_that_this_workflow_did_not_sign_is_not_released(
    fails: list[str], deploy: Workflow, shell: Shell
) -> None:
    job = deploy["jobs"]["apply"]
    names = [each.get("name") or each["uses"] for each in job["steps"]]
    assert names.index("Verify the image") < names.index("Apply")
    shell.fails = fails
    where = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "example/totesys-assets"}
    code, calls = shell(step(job, "Verify the image"), REPOSITORY="r.example/totesys", DIGEST="sha256:d", **where)
    assert (code == 0) is (not fails)
    signer = "https://github.com/example/totesys-assets/.github/workflows/deploy.yml@refs/heads/main"
    assert all(f"--certificate-identity {signer} r.example/totesys@sha256:d" in call for call in calls)
    assert all("--certificate-oidc-issuer https://token.actions.githubusercontent.com" in call for call in calls)


def test_an_image_is_signed_by_its_digest_with_a_list_of_what_is_in_it(deploy: Workflow, shell: Shell) -> None:
    build = deploy["jobs"]["build"]
    sbom = next(each["with"] for each in build["steps"] if "sbom-action" in each.get("uses", ""))
    assert sbom["image"] == next(each["with"]["tags"] for each in build["steps"] if each.get("name") == "Build")
    assert (sbom["upload-artifact"], sbom["upload-release-assets"]) == (False, False)
    code, calls = shell(step(build, "Sign"), REPOSITORY="r.example/totesys", TAG="0123abc")
    assert code == 0
    assert calls[1:] == [
        "cosign sign --yes r.example/totesys@sha256:d",
        f"cosign attest --yes --type spdxjson --predicate {sbom['output-file']} r.example/totesys@sha256:d",
    ]


def test_what_was_verified_is_what_the_tasks_name(deploy: Workflow, shell: Shell) -> None:
    plan, apply = deploy["jobs"]["plan"], deploy["jobs"]["apply"]
    code, _ = shell(step(plan, "Which image that is"), REPOSITORY="r.example/totesys", TAG="0123abc")
    assert (code, (shell.folder / "output").read_text(encoding="utf-8")) == (0, "digest=sha256:d\n")
    assert step(plan, "Plan")["env"]["TF_VAR_image_digest"] == "${{ steps.image.outputs.digest }}"
    assert plan["outputs"]["digest"] == "${{ steps.image.outputs.digest }}"
    assert step(apply, "Verify the image")["env"]["DIGEST"] == "${{ needs.plan.outputs.digest }}"
    shell.fails = ["aws ecr describe-images"]
    assert shell(step(plan, "Which image that is"), REPOSITORY="r.example/totesys", TAG="0123abc")[0] != 0


def test_no_job_is_handed_what_has_the_number_of_the_account_in_it(deploy: Workflow, shell: Shell) -> None:
    """GitHub leaves out such an output, and the job after it gets an empty text: the number is masked."""
    (shell.folder / "backend.hcl").write_text('bucket = "states-123456789012"\n', encoding="utf-8")
    run = {"GITHUB_RUN_ID": "1", "GITHUB_RUN_ATTEMPT": "2", "GITHUB_STEP_SUMMARY": str(shell.folder / "summary")}
    code, calls = shell(step(deploy["jobs"]["plan"], "Keep the plan"), **run)
    assert (code, calls) == (0, ["aws s3 cp --only-show-errors tfplan s3://states-123456789012/plans/1-2"])
    assert (shell.folder / "output").read_text(encoding="utf-8") == "plan=plans/1-2\n"


def test_what_is_built_again_gets_a_tag_of_its_own(deploy: Workflow, shell: Shell) -> None:
    name = step(deploy["jobs"]["build"], "What the image is called")
    output = shell.folder / "output"
    for event, expected in (("push", "abc"), ("schedule", "abc-7"), ("workflow_dispatch", "abc-7")):
        output.write_text("", encoding="utf-8")
        code, _ = shell(name, GITHUB_EVENT_NAME=event, GITHUB_SHA="abc", GITHUB_RUN_ID="7")
        assert (code, output.read_text(encoding="utf-8")) == (0, f"tag={expected}\n")
    plan = deploy["jobs"]["plan"]
    wanted = "${{ inputs.image_tag || needs.build.outputs.tag }}"
    assert step(plan, "Plan")["env"]["TF_VAR_image_tag"] == step(plan, "Which image that is")["env"]["TAG"] == wanted
    assert deploy["on"]["schedule"] == [{"cron": "23 4 * * 1"}]


def test_the_summary_says_what_is_done_to_which_resource_and_no_more(deploy: Workflow, tmp_path: Path) -> None:
    script = step(deploy["jobs"]["plan"], "Plan")["run"]
    assert re.search(r"terraform plan [^\n]*>/dev/null", script)
    query = re.findall(r"jq --raw-output '(.+?)' >>", script, re.DOTALL)[0]
    changes = {"aws_lb.ui": ["no-op"], "aws_ecs_cluster.main": ["update"], 'a.b["c"]': ["delete", "create"]}
    plan = {
        "resource_changes": [
            {"address": address, "change": {"actions": each, "after": {"secret": "s3cr3t"}}}
            for address, each in changes.items()
        ]
    }
    said = subprocess.run(
        [tool("jq"), "--raw-output", query], input=json.dumps(plan), capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines()[2:] == [
        "| update | `aws_ecs_cluster.main` |",
        '| delete, create | `a.b["c"]` |',
    ]


def test_all_that_is_pinned_is_raised_by_somebody() -> None:
    updates = yaml.safe_load((FOLDER.parent / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    folders = {each["package-ecosystem"]: each.get("directories") or [each["directory"]] for each in updates}
    assert set(folders) == {"github-actions", "docker", "docker-compose", "terraform", "pip"}
    for name in [name for each in folders.values() for name in each]:
        assert (PROJECT / name.strip("/")).is_dir(), name
    locked = {f"/{each.parent.relative_to(PROJECT)}" for each in (PROJECT / "deploy").rglob(".terraform.lock.hcl")}
    assert set(folders["terraform"]) == {each for each in locked if ".terraform/" not in each}
