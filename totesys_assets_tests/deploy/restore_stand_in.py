"""A stand-in for what deploy/restore.sh works on: the cluster, RDS, Secrets Manager, and Terraform with its state.

As AWS does: an instance is created, renamed and given a password in time; only what was asked for is restored with it,
and it has the password of then. As Terraform does: it knows an instance by its resource id, and what is not in its
state it would make.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from totesys_assets_tests.deploy.command_stand_in import DEFINITION, Commands
from totesys_assets_tests.deploy.ecs_stand_in import Ecs, Refused

CREATING, RENAMING, GIVING = 900, 60, 120  # seconds
SNAPSHOT, STATE = "before-upgrade", "totesys/terraform.tfstate"
MOMENT, EARLIEST, LATEST = "2026-11-27T10:00:00Z", "2026-11-13T01:10:00+00:00", "2026-11-27T12:00:00+00:00"
# What Terraform wants of the instance, and what a restore is to be told of it.
SETTINGS: dict[str, Any] = {
    "instance_class": "db.t4g.medium",
    "db_subnet_group_name": "totesys",
    "vpc_security_group_ids": ["sg-database"],
    "parameter_group_name": "totesys-2026",
    "ca_cert_identifier": "rds-ca-rsa2048-g1",
    "storage_type": "gp3",
    "max_allocated_storage": 500,
    "multi_az": True,
    "kms_key_id": "arn:aws:kms:eu-west-2:1:key/data",
    "master_user_secret_kms_key_id": "arn:aws:kms:eu-west-2:1:key/secrets",
}
SECRETS_KEY = SETTINGS["master_user_secret_kms_key_id"]


@dataclass
class Instance:
    """An instance of RDS. ``data``: of which moment; ``is_as_wanted``: it has the groups and class of the stack."""

    id: str
    data: str
    is_as_wanted: bool = True
    secret: str | None = None
    ready_at: float = 0
    secret_at: float = 0
    name_at: float = 0
    next_name: str = ""


@dataclass
class Account(Commands):
    """The account and Terraform's state. ``deleted``: secrets that somebody deleted."""

    knows: ClassVar[tuple[str, ...]] = ("ecs", "logs", "rds", "s3api", "secretsmanager")

    outputs: dict[str, Any] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    is_at_work: list[str] = field(default_factory=list)
    versions: list[dict[str, str]] = field(default_factory=list)  # of Terraform's state
    copied: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)  # files that the last plan was given

    def __post_init__(self) -> None:
        super().__post_init__()
        self.instances = {"totesys": Instance("db-1", "now", secret="rds!db-1")}
        self.in_state: str | None = "db-1"
        self.provisions_with = "rds!db-1"
        self.planned = ""

    def answer(self, program: str, *arguments: str) -> tuple[int, str]:
        """As Ecs does; Terraform is another program that can fail."""
        if program != "terraform":
            return super().answer(program, *arguments)
        self.calls.append(["terraform", *arguments[1:]])
        self.pass_time(5)
        fails = len(self.calls) in self.outage
        if fails and not self.has_effect:
            return 1, "Error: request send failed\n"
        printed = self._terraform(*arguments[1:])
        return (1, "Error: request send failed\n") if fails else (0, printed)

    def _terraform(self, *words: str) -> str:
        names = [word for word in words if not word.startswith("-")]
        live = self.instances.get("totesys")
        match names:
            case ["output"]:
                return json.dumps(self.outputs)
            case ["state", "pull"]:
                known = {**SETTINGS, "resource_id": self.in_state}
                resource = {"type": "aws_db_instance", "name": "database", "instances": [{"attributes": known}]}
                return json.dumps({"resources": [resource] if self.in_state else []})
            case ["state", "rm", "aws_db_instance.database"]:
                self.in_state = None
            case ["import", *_, "aws_db_instance.database", "totesys"]:
                assert self.in_state is None, "Resource already managed by Terraform"
                assert live is not None
                self.in_state = live.id
            case ["plan", *_]:
                self.planned = next(word for word in words if word.startswith("-target="))
                assert "-var=image_tag=0123abc" in words
                assert "-var=image_digest=sha256:9f" in words
                self.variables = [word for word in words if word.startswith("-var-file")]
            case ["show", _]:
                is_right = live is not None and self.in_state == live.id
                change = {"address": "aws_db_instance.database", "type": "aws_db_instance"}
                actions = [] if is_right else ["delete", "create"]
                task = {
                    "address": "a task",
                    "type": "aws_ecs_task_definition",
                    "change": {"actions": ["delete", "create"]},
                }
                return json.dumps({"resource_changes": [task, {**change, "change": {"actions": actions}}]})
            case ["apply", _]:
                assert live is not None
                assert self.in_state == live.id
                if self.planned == "-target=module.provision":
                    self.provisions_with = str(live.secret)
            case _:
                raise AssertionError(words)
        return ""

    # ECS --------------------------------------------------------------------------------------------------------------

    def _run_task(self, **parameters: Any) -> dict[str, Any]:
        if "overrides" in parameters:
            words = parameters["overrides"]["containerOverrides"][0]["command"]
            if "--apply" in words:
                writers = [each for each in self.tasks if each.service or each.definition == DEFINITION]
                self.is_at_work += [each.arn for each in writers if self._lives(each)]
            return super()._run_task(**parameters)
        live = self.instances["totesys"]
        self.provision_code = 0 if self._is_there("totesys") and live.secret == self.provisions_with else 1
        return Ecs._run_task(self, **parameters)

    def _describe_tasks(self, tasks: list[str]) -> dict[str, Any]:
        (task,) = (each for each in self.tasks if each.arn == tasks[0])
        return super()._describe_tasks(tasks) if task.definition == DEFINITION else Ecs._describe_tasks(self, tasks)

    def _list_tasks(self, serviceName: str = "", desiredStatus: str = "", family: str = "") -> dict[str, Any]:  # noqa: N803
        if serviceName:
            return super()._list_tasks(serviceName, desiredStatus)
        assert family == "totesys-run"
        runs = [each for each in self.tasks if each.definition == DEFINITION and self._lives(each)]
        return {"taskArns": [each.arn for each in runs if each.wanted == (desiredStatus != "STOPPED")]}

    # RDS --------------------------------------------------------------------------------------------------------------

    def _renamed(self) -> None:
        for name, each in [*self.instances.items()]:
            if each.next_name and self.now >= each.name_at:
                self.instances[each.next_name] = self.instances.pop(name)
                each.next_name = ""

    def _is_there(self, name: str) -> bool:
        self._renamed()
        return name in self.instances and self.now >= self.instances[name].ready_at

    def _describe_db_instances(self) -> dict[str, Any]:
        self._renamed()
        found = []
        for name, each in self.instances.items():
            status = "creating" if self.now < each.ready_at else "renaming" if each.next_name else "available"
            secret = "active" if self.now >= each.secret_at else "creating"
            known: dict[str, Any] = {"DBInstanceIdentifier": name, "DBInstanceStatus": status, "DbiResourceId": each.id}
            if each.secret:
                known["MasterUserSecret"] = {"SecretArn": each.secret, "SecretStatus": secret, "KmsKeyId": SECRETS_KEY}
            found.append(known)
        return {"DBInstances": found}

    def _describe_db_instance_automated_backups(self, **which: Any) -> dict[str, Any]:
        assert which == {"DbiResourceId": "db-1"}
        return {"DBInstanceAutomatedBackups": [{"RestoreWindow": {"EarliestTime": EARLIEST, "LatestTime": LATEST}}]}

    def _describe_db_snapshots(self, **which: Any) -> dict[str, Any]:
        is_ours = which["DBSnapshotIdentifier"] == SNAPSHOT
        key = SETTINGS["kms_key_id"] if is_ours else "arn:aws:kms:eu-west-2:1:key/other"
        return {"DBSnapshots": [{"SnapshotCreateTime": "2026-11-26T09:00:00.123Z", "KmsKeyId": key}]}

    def _restore(self, name: str, data: str, told: dict[str, Any]) -> dict[str, Any]:
        if name in self.instances:
            raise Refused("An error occurred (DBInstanceAlreadyExists)")
        is_as_wanted = told == {
            "DBInstanceClass": SETTINGS["instance_class"],
            "DBSubnetGroupName": SETTINGS["db_subnet_group_name"],
            "VpcSecurityGroupIds": SETTINGS["vpc_security_group_ids"],
            "DBParameterGroupName": SETTINGS["parameter_group_name"],
            "CACertificateIdentifier": SETTINGS["ca_cert_identifier"],
            "StorageType": SETTINGS["storage_type"],
            "MultiAZ": True,
            "PubliclyAccessible": False,
            "CopyTagsToSnapshot": True,
            "DeletionProtection": True,
            "EnableCloudwatchLogsExports": ["postgresql", "upgrade"],
        }
        self.instances[name] = Instance(f"db-{len(self.instances) + 1}", data, is_as_wanted, None, self.now + CREATING)
        return {"DBInstance": {"DBInstanceIdentifier": name}}

    def _restore_db_instance_to_point_in_time(self, **told: Any) -> dict[str, Any]:
        source = told.pop("SourceDBInstanceIdentifier", None)
        if source is None:
            assert told.pop("SourceDbiResourceId") == "db-1"
            assert "totesys" not in self.instances
        else:
            assert self.instances[source].id == "db-1"
        assert told.pop("MaxAllocatedStorage") == SETTINGS["max_allocated_storage"]
        return self._restore(told.pop("TargetDBInstanceIdentifier"), told.pop("RestoreTime"), told)

    def _restore_db_instance_from_db_snapshot(self, **told: Any) -> dict[str, Any]:
        return self._restore(told.pop("DBInstanceIdentifier"), told.pop("DBSnapshotIdentifier"), told)

    def _modify_db_instance(self, **what: Any) -> dict[str, Any]:
        assert what.pop("ApplyImmediately")
        name, new = what.pop("DBInstanceIdentifier"), what.pop("NewDBInstanceIdentifier", None)
        if not self._is_there(name):
            raise Refused("An error occurred (InvalidDBInstanceState)")
        each = self.instances[name]
        if new:
            assert what == {}
            if new in self.instances:
                raise Refused("An error occurred (DBInstanceAlreadyExists)")
            each.next_name, each.name_at = new, self.now + RENAMING
        else:
            assert what == {"ManageMasterUserPassword": True, "MasterUserSecretKmsKeyId": SECRETS_KEY}
            each.secret, each.secret_at = f"rds!{each.id}", self.now + GIVING
        return {"DBInstance": {"DBInstanceIdentifier": name}}

    # Terraform's state in its bucket ----------------------------------------------------------------------------------

    def _list_object_versions(self, **which: Any) -> dict[str, Any]:
        assert which["Bucket"] == "states"
        return {"Versions": [{**each, "Key": key} for key in (STATE, f"{STATE}.backup") for each in self.versions]}

    def _get_object(self, **which: Any) -> dict[str, Any]:
        version, file = which["VersionId"].split(" ")  # the file stands last on the command line
        assert version in [each["VersionId"] for each in self.versions]
        Path(file).write_text(json.dumps({"serial": 7, "resources": [{}, {}]}), encoding="utf-8")
        return {"LastModified": "2026-11-27T09:00:00+00:00"}

    def _copy_object(self, **which: Any) -> dict[str, Any]:
        assert (which["Bucket"], which["Key"]) == ("states", STATE)
        self.copied.append(which["CopySource"])
        return {"VersionId": "new"}

    # Secrets Manager --------------------------------------------------------------------------------------------------

    def _list_secrets(self, **which: Any) -> dict[str, Any]:
        assert which == {"IncludePlannedDeletion": True}
        names = ["totesys/totesys-url", "totesys/dagster-url", "totesys2/dagster-url"]
        gone = {name: {"DeletedDate": "2026-11-27T00:00:00Z"} for name in self.deleted}
        return {"SecretList": [{"Name": name, **gone.get(name, {})} for name in names]}

    def _restore_secret(self, **which: Any) -> dict[str, Any]:
        self.deleted.remove(which["SecretId"])
        return {"Name": which["SecretId"]}
