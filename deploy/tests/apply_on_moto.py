"""Applies the Terraform of ``deploy/terraform`` to moto, a stand-in for AWS, looks at what was built, and destroys it.

    python deploy/tests/apply_on_moto.py

Belongs here: starting moto, running Terraform on a copy, in which only where AWS is differs, and the order of events.
Does not belong here: what must be true of what was built (expectations.py), and what a plan alone can tell
(deploy/terraform/tests). Needs terraform on PATH (or ``--terraform``), its AWS provider (TF_CLI_CONFIG_FILE may say
where from), and the packages ``moto[server]`` and ``boto3``. It takes five to ten minutes, mostly the provider's waits.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
from expectations import (
    ACCOUNT,
    HASH,
    INSIGHTS,
    KINDS,
    NAME,
    REGION,
    Cloud,
    Expectations,
    expect_all,
    expect_next,
    expect_nothing,
)

STACK = Path(__file__).parents[1] / "terraform"
FIRST, NEXT = "0123abc", "4567def"  # tags of images
NOWHERE = "http://127.0.0.1:9"  # nobody listens there

VARIABLES = {
    "name": NAME,
    "region": REGION,
    "account_id": ACCOUNT,
    "deletion_protection": False,
    "totesys_cidrs": ["192.0.2.10/32"],
    "totesys_route": {"by": "nat"},
    "reader_cidrs": ["198.51.100.0/24"],
    "ui_host": "totesys.example.com",
    "ui_allowed_cidrs": ["203.0.113.0/24"],
    "alarm_emails": ["data-team@example.com"],
    "monthly_budget_usd": 500,
    "image_tag": FIRST,
    "api_key_hashes": [HASH],
    "github_repository": "example/totesys-assets",
    "state_bucket": "example-terraform-state",
}

# What the stack is not to know of. Buckets are asked for by path, for their names as hosts lead nowhere; what moto
# cannot do it answers with 500, which the provider would repeat for minutes; there is no bucket for the state.
OVERRIDE = """
terraform {
  backend "local" {}
}

provider "aws" {
  s3_use_path_style = true
  max_retries       = 2
}

provider "aws" {
  alias       = "passwords"
  max_retries = 2
}
"""


def serve(port: int) -> None:
    """Run moto, taught what the provider asks and moto does not know."""
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    from moto.budgets.responses import BudgetsResponse
    from moto.rds.models import RDSBackend
    from moto.server import main

    restore = RDSBackend.restore_db_instance_to_point_in_time

    def restored(backend: Any, source: str, target: str, told: Any) -> Any:
        """An instance of its own, neither a replica nor with the secret of the original, as RDS makes it."""
        told = {name: value for name, value in told.items() if "source" not in name.lower()}
        found = restore(backend, source, target, told)
        found.dbi_resource_id = f"db-{uuid4().hex.upper()}"
        if found.manage_master_user_password:
            found.manage_master_user_password = False
            del found.master_user_secret
        return found

    RDSBackend.restore_db_instance_to_point_in_time = restored

    def subscribers(response: Any) -> str:
        asked = json.loads(response.body)
        budget = response.backend.budgets[asked["AccountId"]][asked["BudgetName"]]
        found = [each.subscribers for each in budget.notifications if each.details == asked["Notification"]]
        return json.dumps({"Subscribers": found[0] if found else []})

    BudgetsResponse.list_tags_for_resource = lambda _: json.dumps({"ResourceTags": []})
    BudgetsResponse.tag_resource = BudgetsResponse.update_budget = lambda _: json.dumps({})
    BudgetsResponse.describe_subscribers_for_notification = subscribers
    main(["--host", "127.0.0.1", "--port", str(port)])


@contextmanager
def moto() -> Iterator[str]:
    """A running moto: its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve", str(port)], stdout=log, stderr=log
        )
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if server.poll() is not None:
                    log.seek(0)
                    sys.exit(f"moto did not start: {log.read().decode()[-2000:]}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


class Terraform:
    """Terraform in a copy of the stack; keeps all that it printed, and how long each command took."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.printed = ""
        self.seconds: dict[str, float] = {}

    def __call__(self, label: str, *arguments: str, **environment: str) -> str:
        """Run a command; ends the program when it fails."""
        began = time.monotonic()
        done = subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seconds[label] = time.monotonic() - began
        self.printed += done.stdout
        print(f"{label}: {self.seconds[label]:.0f} s", flush=True)
        if done.returncode:
            sys.exit(f"terraform {' '.join(arguments)} failed:\n{done.stdout[-6000:]}")
        return done.stdout

    def variables(self, **changed: Any) -> None:
        """Write the variables, some of them changed."""
        (self.folder / "terraform.tfvars.json").write_text(json.dumps(VARIABLES | changed), encoding="utf-8")

    def state(self) -> str:
        """The text of all state files."""
        return "".join(file.read_text(encoding="utf-8") for file in sorted(self.folder.glob("*.tfstate*")))


def prepare(folder: Path) -> Path:
    """A copy of the stack that finds AWS where we want it."""
    copy = folder / "stack"
    shutil.copytree(STACK, copy, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars", "tests"))
    (copy / "moto_override.tf").write_text(OVERRIDE, encoding="utf-8")
    return copy


def rehearse(terraform: Terraform) -> int:
    """Apply, look; apply the next image and new passwords, look; destroy, look. Returns how much was not so."""
    expected = Expectations()
    apply = ("apply", "-auto-approve", "-input=false", "-no-color")
    certificate = boto3.client("acm").request_certificate(DomainName="totesys.example.com")["CertificateArn"]

    terraform.variables(certificate_arn=certificate)
    terraform("init", "init", "-input=false", "-no-color")
    terraform("apply", *apply)
    outputs = {
        name: each["value"] for name, each in json.loads(terraform("output", "output", "-json", "-no-color")).items()
    }
    cloud = Cloud(outputs, FIRST)
    expect_all(expected, cloud, terraform.state(), terraform.printed)

    before = cloud.role_urls()
    terraform.variables(certificate_arn=certificate, password_version=2, image_tag=NEXT)
    # The workflow's plan: all of AWS is out of reach but what its role may ask for, a random word and who it is.
    moto_url = os.environ["AWS_ENDPOINT_URL"]
    reach = {"AWS_ENDPOINT_URL_STS": moto_url, "AWS_ENDPOINT_URL_SECRETS_MANAGER": moto_url}
    plan = ("plan", "-refresh=false", "-lock=false", "-input=false", "-no-color")
    planned = terraform("plan from the state alone", *plan, AWS_ENDPOINT_URL=NOWHERE, **reach)
    expected("a plan needs no more than the state", re.search(r"Plan: \d+ to add", planned))

    # Without a refresh here, too: of some things moto does not give back what it was told.
    again = terraform("apply the next image and new passwords", *apply, "-refresh=false")
    expect_next(expected, Cloud(outputs, NEXT), before, terraform.state(), terraform.printed)
    replaced = set(re.findall(r"^(\S+): Destruction complete", again, flags=re.MULTILINE))
    versions = {f'aws_secretsmanager_secret_version.role["{name.removesuffix("-url")}"]' for name in before}
    modules = {f'insights["{kind}"]' if kind in INSIGHTS else kind for kind in KINDS}
    modules = {f"{module}[0]" if module in ("webserver", "viewer") else module for module in modules}
    definitions = {f"module.{module}.aws_ecs_task_definition.task" for module in modules}
    expected.same("replaced by it", replaced, versions | definitions)

    terraform("destroy", "destroy", "-auto-approve", "-input=false", "-no-color")
    expect_nothing(expected, (terraform.folder / "terraform.tfstate").read_text(encoding="utf-8"))
    return expected.summary(terraform.seconds)


def main() -> int:
    """The program."""
    arguments = argparse.ArgumentParser(description="Apply the stack to moto, look at what was built, destroy it.")
    arguments.add_argument("--terraform", default=shutil.which("terraform"), help="program (default: from PATH)")
    arguments.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve:
        serve(given.serve)
        return 0
    if given.terraform is None:
        sys.exit("terraform is not on PATH: install it, or name it with --terraform.")
    with moto() as url, tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": REGION,
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
        }
        return 1 if rehearse(Terraform(given.terraform, prepare(Path(folder)))) else 0


if __name__ == "__main__":
    sys.exit(main())
