"""A restored database is what the real Terraform goes on with: imported, and not replaced.

Belongs here: what only Terraform and its provider can tell. Does not belong here: what goes wrong on the way
(test_restore.py). The stack is the database as database.tf has it, with what it needs around it; RDS is moto, the
cluster a stand-in. It takes some five minutes, mostly the provider's waits.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jmespath  # type: ignore[import-untyped]
import pytest

from totesys_assets_tests.deploy import restore_stand_in, test_release, test_restore
from totesys_assets_tests.deploy.conftest import PROJECT, tool
from totesys_assets_tests.deploy.ecs_stand_in import Ecs, as_text, described, parameters, run
from totesys_assets_tests.deploy.restore_stand_in import MOMENT
from totesys_assets_tests.deploy.servers import KEY, REGION, SECRET, await_true, client, free_ports
from totesys_assets_tests.deploy.terraform import STACK

AROUND = """
terraform {
  backend "local" {}
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

provider "aws" {
  region      = var.region
  max_retries = 2
}

resource "aws_vpc" "main" {
  cidr_block = "10.40.0.0/16"
}

resource "aws_subnet" "private" {
  count             = 2
  vpc_id            = aws_vpc.main.id
  cidr_block        = "10.40.${count.index}.0/24"
  availability_zone = "${var.region}${var.zones[count.index]}"
}

resource "aws_security_group" "group" {
  for_each = toset(["database"])
  name     = each.key
  vpc_id   = aws_vpc.main.id
}

resource "aws_kms_key" "key" {
  for_each = toset(["data", "secrets", "operations"])
}

resource "aws_iam_role" "database_monitoring" {
  name               = "monitoring"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [] })
}

resource "aws_iam_role_policy_attachment" "database_monitoring" {
  role       = aws_iam_role.database_monitoring.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

module "provision" {
  source = "./provision"
  secret = aws_db_instance.database.master_user_secret[0].secret_arn
}

locals {
  outputs = jsondecode(file("outputs.json"))
}

output "cluster" { value = var.name }
output "image_tag" { value = var.image_tag }
output "secret" { value = module.provision.secret }
output "services" { value = local.outputs.services.value }
output "provision" { value = local.outputs.provision.value }
output "command" { value = local.outputs.command.value }
output "run_task_definition" { value = local.outputs.run_task_definition.value }
"""

PROVISION = """
variable "secret" {}

resource "terraform_data" "task" {
  input = var.secret
}

output "secret" {
  value = terraform_data.task.output
}
"""

VARIABLES = {
    "region": REGION,
    "image_tag": "0123abc",
    "totesys_cidrs": ["192.0.2.10/32"],
    "ui_host": "totesys.example.com",
    "certificate_arn": "arn:aws:acm:eu-west-2:123456789012:certificate/none",
    "ui_allowed_cidrs": ["203.0.113.0/24"],
    "alarm_emails": [],
}


class Account(restore_stand_in.Account):
    """The cluster is the stand-in's, RDS is moto's, Terraform is itself."""

    url: ClassVar[str]
    folder: ClassVar[Path]

    def _call(self, service: str, operation: str, *arguments: str) -> str:
        if service != "rds" or operation == "describe-db-instance-automated-backups":
            return super()._call(service, operation, *arguments)
        rds, asked = client("rds", self.url), operation.replace("-", "_")
        told = parameters(
            described("rds").operation_model(rds.meta.method_to_api_mapping[asked]).input_shape, arguments
        )
        query, _ = told.pop("query"), told.pop("output")
        return as_text(jmespath.search(query, json.loads(json.dumps(getattr(rds, asked)(**told), default=str))))

    def _describe_db_instance_automated_backups(self, **_: Any) -> dict[str, Any]:
        return super()._describe_db_instance_automated_backups(DbiResourceId="db-1")  # which moto knows, but no window

    def _run_task(self, **told: Any) -> dict[str, Any]:
        if "overrides" in told:
            return super()._run_task(**told)
        known = json.loads(terraform(self.folder, "output", "-json"))["secret"]["value"]
        self.provision_code = 0 if known == instance(self.url, "totesys")["MasterUserSecret"]["SecretArn"] else 1
        return Ecs._run_task(self, **told)


def instance(url: str, name: str) -> dict[str, Any]:
    """An instance, as RDS describes it."""
    found: dict[str, Any] = client("rds", url).describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
    return found


def terraform(folder: Path, *words: str) -> str:
    """What Terraform prints in a folder."""
    done = subprocess.run(["terraform", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def moto_as_rds(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A moto that restores as RDS does: its URL, at which Terraform asks too."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [
            Path(tool("moto_server")).with_name("python"),
            PROJECT / "deploy/tests/apply_on_moto.py",
            "--serve",
            str(port),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    given = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "CHECKPOINT_DISABLE": "1",
        "TF_IN_AUTOMATION": "1",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    try:
        await_true(lambda: _answers(url), "moto did not start")
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _answers(url: str) -> bool:
    try:
        client("rds", url).describe_db_instances()
    except Exception:
        return False
    return True


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """The database as database.tf has it, with what it needs around it; skipped without Terraform or its provider."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    folder = tmp_path / "stack"
    (folder / "provision").mkdir(parents=True)
    for name in ("database.tf", "variables.tf"):
        shutil.copy(STACK / name, folder)
    (folder / "around.tf").write_text(AROUND, encoding="utf-8")
    (folder / "provision" / "main.tf").write_text(PROVISION, encoding="utf-8")
    (folder / "outputs.json").write_text(json.dumps(test_restore.OUTPUTS), encoding="utf-8")
    (folder / "terraform.tfvars.json").write_text(json.dumps(VARIABLES), encoding="utf-8")
    done = subprocess.run(
        ["terraform", "init", "-input=false"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("the AWS provider of Terraform can be had neither from the registry nor from a mirror")
    return folder


def test_what_stands_around_the_database_is_what_it_names(stack: Path) -> None:
    terraform(stack, "validate")


@pytest.mark.thorough
def test_terraform_goes_on_with_the_restored_instance(moto_as_rds: str, stack: Path, tmp_path: Path) -> None:
    tool("jq")
    terraform(stack, "apply", "-auto-approve", "-input=false", "-no-color")
    before = instance(moto_as_rds, "totesys")
    Account.url, Account.folder = moto_as_rds, stack
    account = Account(test_release.OLD)
    environment = {name: value for name, value in os.environ.items() if name != "PATH"} | {"TOTESYS_STACK": str(stack)}
    words = ("all", MOMENT, "--apply")
    done = run(
        test_restore.RESTORE, account, "", tmp_path, *words, programs=("aws", "sleep"), seconds=1200, **environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert account.misunderstood == []
    after, old = instance(moto_as_rds, "totesys"), instance(moto_as_rds, test_restore.OLD)
    assert old["DbiResourceId"] == before["DbiResourceId"] != after["DbiResourceId"]
    assert after["MasterUserSecret"]["SecretArn"] != before["MasterUserSecret"]["SecretArn"]
    for key in ("DBInstanceClass", "MultiAZ", "KmsKeyId", "DBParameterGroups", "VpcSecurityGroups"):
        assert after[key] == before[key], key
    resources = json.loads(terraform(stack, "state", "pull"))["resources"]
    known = next(each["instances"][0]["attributes"] for each in resources if each["type"] == "aws_db_instance")
    assert known["resource_id"] == after["DbiResourceId"]
    plan = terraform(stack, "plan", "-input=false", "-no-color", "-target=aws_db_instance.database")
    assert "must be replaced" not in plan  # moto forgets some settings, which the next plan would change again
    assert "will be destroyed" not in plan
