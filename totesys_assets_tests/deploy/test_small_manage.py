"""deploy/small/manage.sh beside backups: logins, looking at how it is, updates. What it calls is made up here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from totesys_assets_tests.deploy.conftest import PROJECT, tool
from totesys_assets_tests.deploy.servers import Moto, client, s3_environment

# What fails says so in a file of the folder; everything that is called is noted.
DOCKER = """#!/bin/bash
cd "$(dirname "$0")"
echo "$*" >>calls
case "$*" in
*hash-password*) exec "$CADDY" hash-password --algorithm bcrypt ;;
*"ps --format"*) if grep -qsx "${@: -1}" unhealthy; then echo unhealthy; else echo healthy; fi ;;
*"ps --quiet"*) echo an-id ;;
"image ls"*) echo totesys-assets:earlier && echo "totesys-assets:$(git -C project rev-parse --short=12 HEAD)" ;;
*" up "*) [ "$(git -C project describe --tags 2>/dev/null)" != "$(cat bad 2>/dev/null || echo none)" ] ;;
esac
"""
AWS = """#!/bin/bash
cd "$(dirname "$0")"
echo "$*" >>aws-calls
case "$1 $2 ${@: -1}" in
"s3 cp "*/SHA256SUMS) echo "2026-11-27 01:00:00 1 ${@: -1}" >>listed ;;
"s3 ls "*) cat listed ;;
esac
"""
CURL = '#!/bin/bash\ncat "$(dirname "$0")/answers"\n'
SENDMAIL = '#!/bin/bash\n[ ! -e "$(dirname "$0")/no-mail" ] && sed 1d >>"$(dirname "$0")/mails"\n'
PASSWORD = "correct horse battery\n"


@dataclass
class Machine:
    """manage.sh of ``script``, and what it calls, in ``folder``."""

    folder: Path
    script: Path

    def manage(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run it."""
        environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "CADDY": tool("caddy"),
            "TOTESYS_CONF": str(self.folder / "conf"),
            "TOTESYS_STATE": str(self.folder / "state"),
            "TOTESYS_UNITS": str(self.folder),
        }
        command = ["bash", str(self.script), *words]
        return subprocess.run(
            command, env=environment, input=given, capture_output=True, text=True, check=False, timeout=60
        )

    def read(self, name: str) -> str:
        """A file of the folder; empty if there is none."""
        file = self.folder / name
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def write(self, name: str, text: str) -> None:
        """The same, written."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def logins(self, kind: str) -> dict[str, str]:
        """Name -> hash."""
        return dict(line.split() for line in self.read(f"conf/logins/{kind}").splitlines())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with settings."""
    for name, text in {"docker": DOCKER, "aws": AWS, "curl": CURL, "sendmail": SENDMAIL, "systemctl": DOCKER}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/settings.env").write_text(
        "TOTESYS_URL='postgresql://reader:p$w@totesys/totesys'\nUI_HOST=totesys.example.com\n"
        "BACKUPS_URI=s3://a-bucket/backups/\nALERT_MAIL=ops@example.com\n",
        encoding="utf-8",
    )
    machine = Machine(tmp_path, PROJECT / "deploy" / "small" / "manage.sh")
    machine.write("answers", "401")
    return machine


def test_a_login_is_one_of_one_kind_and_its_password_can_be_changed(machine: Machine) -> None:
    assert machine.manage("add-user", "operators", "ann", given=PASSWORD).returncode == 0
    assert machine.manage("add-user", "viewers", "bob@example.com", given=PASSWORD).returncode == 0
    first = machine.logins("operators")["ann"]
    assert re.fullmatch(r"\$2[aby]\$\d\d\$\S{53}", first)
    assert machine.manage("add-user", "operators", "ann", given="another horse battery\n").returncode == 0
    assert machine.logins("operators").keys() == {"ann"}
    assert machine.logins("operators")["ann"] != first
    assert machine.manage("add-user", "viewers", "ann", given=PASSWORD).returncode == 0
    assert machine.logins("operators") == {}
    assert machine.logins("viewers").keys() == {"ann", "bob@example.com"}
    assert machine.manage("remove-user", "bob@example.com").returncode == 0
    assert machine.logins("viewers").keys() == {"ann"}
    assert machine.read("calls").count("restart caddy") == 5
    for name in ("logins/viewers", "passwords.env"):
        assert (machine.folder / "conf" / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize(
    ("kind", "name", "given", "said"),
    [
        ("operators", "ann", "short\n", "A password has at least 12 characters."),
        ("operators", "ann bob", PASSWORD, "A name has letters"),
        ("operators", "", PASSWORD, "A name has letters"),
        ("admins", "ann", PASSWORD, "KIND is operators or viewers."),
    ],
)
def test_a_login_that_would_not_do_is_refused(machine: Machine, kind: str, name: str, given: str, said: str) -> None:
    refused = machine.manage("add-user", kind, name, given=given)
    assert (refused.returncode, said in refused.stderr) == (1, True)
    assert machine.logins("operators") == {}


def test_to_remove_a_login_that_is_not_there_is_refused(machine: Machine) -> None:
    assert machine.manage("remove-user", "ann").stderr == "There is no login ann. Those there are: none.\n"
    machine.manage("add-user", "operators", "ann", given=PASSWORD)
    machine.manage("add-user", "viewers", "bob", given=PASSWORD)
    for words in (["remove-user"], ["remove-user", "an"]):
        refused = machine.manage(*words)
        assert (refused.returncode, refused.stderr.endswith("Those there are: ann bob.\n")) == (1, True)
    assert machine.logins("operators").keys() == {"ann"}


def test_it_does_not_start_while_nobody_could_log_in(machine: Machine) -> None:
    refused = machine.manage("up")
    assert refused.returncode == 1
    assert "manage.sh add-user operators NAME" in refused.stderr
    assert " up " not in machine.read("calls")


def test_passwords_of_the_databases_are_made_once(machine: Machine) -> None:
    machine.manage("add-user", "operators", "ann", given=PASSWORD)
    made = machine.read("conf/passwords.env")
    values = dict(line.split("=") for line in made.splitlines())
    assert values.keys() == {
        f"{name}_PASSWORD"
        for name in ("POSTGRES", "DAGSTER", "WAREHOUSE_OWNER", "WAREHOUSE_LOADER", "WAREHOUSE_READER")
    }
    assert len(set(values.values())) == 5
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values.values())
    assert machine.manage("up").returncode == 0
    assert machine.read("conf/passwords.env") == made


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"unhealthy": "daemon\n"}, "daemon is unhealthy. "),
        ({"answers": "502"}, "https://totesys.example.com answers 502, and should ask for a login. "),
        ({"state/backed-up": None}, "There was no backup for 30 hours. "),
    ],
)
def test_what_is_wrong_is_told_once_and_once_that_it_is_over(
    machine: Machine, what: dict[str, str | None], said: str
) -> None:
    assert machine.manage("install").returncode == 0
    assert (machine.manage("health").stdout, machine.read("mails")) == ("All is well.\n", "")
    for name, text in what.items():
        if text is None:
            os.utime(machine.folder / name, (0, 0))
        else:
            machine.write(name, text)
    machine.write("no-mail", "")
    assert machine.manage("health").returncode == 1
    (machine.folder / "no-mail").unlink()
    for _ in range(3):
        told = machine.manage("health")
        assert (told.returncode, said in told.stderr) == (1, True)
    assert machine.read("mails") == f"Subject: ToteSys: not well\n\n{said}\n"
    for name, text in {"unhealthy": "", "answers": "401", "state/backed-up": ""}.items():
        machine.write(name, text)
    for _ in range(2):
        assert machine.manage("health").returncode == 0
    assert machine.read("mails").endswith("Subject: ToteSys: well again\n\nIt is over.\n")
    assert machine.read("mails").count("Subject") == 2


def test_nobody_is_told_of_what_an_update_or_a_restore_stops_unless_it_takes_an_hour(machine: Machine) -> None:
    assert machine.manage("install").returncode == 0
    machine.write("unhealthy", "daemon\n")
    lock = machine.folder / "state" / "lock"
    other = subprocess.Popen(["flock", str(lock), "cat"], stdin=subprocess.PIPE)
    try:
        while subprocess.run(["flock", "--nonblock", str(lock), "true"], check=False).returncode == 0:
            time.sleep(0.02)
        looked = machine.manage("health")
        assert (looked.returncode, machine.read("mails")) == (0, "")
        assert "at work" in looked.stdout
        assert "daemon is unhealthy" in looked.stdout
        os.utime(lock, (0, 0))
        assert machine.manage("health").returncode == 1
        assert "daemon is unhealthy" in machine.read("mails")
    finally:
        other.communicate()


def test_units_are_installed_with_the_folder_of_the_project(machine: Machine) -> None:
    assert machine.manage("install").returncode == 0
    assert f"ExecStart={PROJECT}/deploy/small/manage.sh backup\n" in machine.read("totesys-backup.service")
    assert "enable --now totesys-backup.timer totesys-health.timer" in machine.read("calls")


@pytest.fixture
def on_aws(machine: Machine, moto: Moto) -> Machine:
    """The machine with its settings in a parameter, and AWS's own command line."""
    (machine.folder / "aws").unlink()
    (machine.folder / "aws").symlink_to(tool("aws"))
    known = s3_environment("http://127.0.0.1:9") | {"AWS_ENDPOINT_URL": moto.url}
    machine.write("conf/aws.env", "".join(f"{name}={value}\n" for name, value in known.items()))
    (machine.folder / "conf/settings.env").unlink()
    machine.write("conf/machine.env", f"SETTINGS_PARAMETER=/{machine.folder.name}/settings\n")
    return machine


def test_on_aws_the_settings_are_those_of_the_parameter(on_aws: Machine, moto: Moto) -> None:
    ssm = client("ssm", moto.url)
    parameter = {"Name": f"/{on_aws.folder.name}/settings", "Type": "SecureString"}
    add = ("add-user", "operators", "ann")
    assert on_aws.manage(*add, given=PASSWORD).returncode != 0
    ssm.put_parameter(**parameter, Value="# put yours here")
    refused = on_aws.manage(*add, given=PASSWORD)
    assert f"TOTESYS_URL is not set in {parameter['Name']}." in refused.stderr
    text = "# ours\nTOTESYS_URL='postgresql://reader:p$w@totesys/totesys'\nUI_HOST=totesys.example.com"
    ssm.put_parameter(**parameter, Value=text, Overwrite=True)
    assert on_aws.manage(*add, given=PASSWORD).returncode == 0
    assert on_aws.read("conf/settings.env") == f"{text}\n"
    assert (on_aws.folder / "conf/settings.env").stat().st_mode & 0o077 == 0
    ssm.delete_parameter(Name=parameter["Name"])
    assert on_aws.manage("up").returncode != 0
    assert on_aws.read("conf/settings.env") == f"{text}\n"


def test_on_aws_what_the_example_leaves_empty_is_as_terraform_set_it(on_aws: Machine, moto: Moto) -> None:
    set_by_terraform = {"UI_HOST": "totesys.example.com", "LAKE_URI": "s3://b/lake", "BACKUPS_URI": "s3://b/backups"}
    machine = {"SETTINGS_PARAMETER": f"/{on_aws.folder.name}/settings", **set_by_terraform}
    on_aws.write("conf/machine.env", "".join(f"{name}={value}\n" for name, value in machine.items()))
    example = (PROJECT / "deploy/small/settings.env.example").read_text(encoding="utf-8")
    filled = example.replace("TOTESYS_URL=\n", "TOTESYS_URL=postgresql://reader@totesys/totesys\n")
    parameter = {"Name": machine["SETTINGS_PARAMETER"], "Type": "SecureString"}
    client("ssm", moto.url).put_parameter(**parameter, Value=filled)
    assert on_aws.manage("add-user", "operators", "ann", given=PASSWORD).returncode == 0
    files = [word for name in ("machine", "settings", "passwords") for word in ("--env-file", f"conf/{name}.env")]
    command = [tool("docker-compose"), *files, "--file", str(PROJECT / "deploy/docker/compose.yaml")]
    command += ["--file", str(PROJECT / "deploy/small/compose.yaml"), "config", "--environment"]
    read = subprocess.run(command, cwd=on_aws.folder, check=True, capture_output=True, text=True, timeout=60).stdout
    assert {line for line in read.splitlines() if line.partition("=")[0] in set_by_terraform} == {
        f"{name}={value}" for name, value in set_by_terraform.items()
    }


def test_on_aws_it_says_that_it_looked_whatever_it_found(machine: Machine) -> None:
    machine.write("conf/machine.env", "HEARTBEAT_NAMESPACE=small\n")
    machine.manage("install")
    machine.write("unhealthy", "daemon\n")
    assert machine.manage("health").returncode == 1
    said = "cloudwatch put-metric-data --namespace small --metric-name Looked --value 1\n"
    assert machine.read("aws-calls") == said
    machine.write("aws", "#!/bin/bash\nexit 255\n")
    machine.write("unhealthy", "")
    assert machine.manage("health").stdout == "All is well.\n"


# A line of the settings, and what it says. Compose reads the same lines.
LINES = {
    "plain": "plain",
    "plain   ": "plain",
    "plain\r": "plain",
    "14                    # nights": "14",
    "one#two": "one#two",
    '"in double quotes"': "in double quotes",
    '"with a # sign" # and a comment': "with a # sign",
    "'like $this'": "like $this",
    "'like $this'\r": "like $this",
    "p\u00e4th/with/\u00fcmlauts": "p\u00e4th/with/\u00fcmlauts",
}


@pytest.mark.parametrize("line", LINES)
def test_a_setting_is_read_as_compose_reads_it(line: str, tmp_path: Path) -> None:
    manage = (PROJECT / "deploy/small/manage.sh").read_text(encoding="utf-8")
    (function,) = re.findall(r"^setting\(\) \{\n.*?^\}\n", manage, re.MULTILINE | re.DOTALL)
    file = tmp_path / "settings.env"
    file.write_bytes(f"OTHER=other\nVALUE={line}\n".encode())
    for locale in ("C", "C.UTF-8"):
        done = subprocess.run(
            ["bash", "-euc", f"settings=({file})\n{function}\nsetting VALUE"],
            env={"LC_ALL": locale, "PATH": os.environ["PATH"]},
            capture_output=True,
            check=True,
        )
        assert done.stdout.decode() == LINES[line]
    (tmp_path / "compose.yaml").write_text('services: {it: {image: it, environment: {VALUE: "$VALUE"}}}\n')
    read = subprocess.run(
        [tool("docker-compose"), "--env-file", file, "config", "--format", "json"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert json.loads(read.stdout)["services"]["it"]["environment"]["VALUE"] == LINES[line].replace("$", "$$")


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def released(machine: Machine) -> Machine:
    """The machine with a clone of a project of its own, at v1.9.0; its origin has v1.10.0, too."""
    origin = machine.folder / "origin"
    shutil.copytree(PROJECT / "deploy" / "small", origin / "deploy" / "small")
    (origin / "Makefile").write_text("image:\n\t@echo $(IMAGE) >>../built\n", encoding="utf-8")
    git(origin, "init", "--quiet")
    for tag in ("v1.9.0", "v1.10.0"):
        (origin / "version").write_text(tag, encoding="utf-8")
        git(origin, "add", ".")
        git(origin, "commit", "--quiet", "--message", tag)
        git(origin, "tag", tag)
    git(origin, "tag", "v1.10.0-rc1", "v1.9.0")
    project = machine.folder / "project"
    git(machine.folder, "clone", "--quiet", str(origin), str(project))
    git(project, "checkout", "--quiet", "v1.9.0")
    released = Machine(machine.folder, project / "deploy" / "small" / "manage.sh")
    assert released.manage("add-user", "operators", "ann", given=PASSWORD).returncode == 0
    return released


def git_head(released: Machine) -> str:
    return (released.folder / "project/.git/HEAD").read_text(encoding="utf-8")


def test_a_folder_of_backups_with_a_blank_is_refused(machine: Machine) -> None:
    machine.write("conf/settings.env", "BACKUPS_URI='s3://a-bucket/our backups'\n")
    assert "BACKUPS_URI is to have no blank in it." in machine.manage("backups").stderr


def test_an_update_backs_up_and_moves_to_the_newest_tag(released: Machine) -> None:
    done = released.manage("update")
    assert done.returncode == 0, done.stderr
    assert released.read("project/version") == "v1.10.0"
    assert "It is at v1.10.0." in done.stdout
    calls = released.read("calls")
    assert calls.index(" pg_dump ") < calls.index(" up ") < calls.index("restart caddy", calls.index(" up "))
    assert re.findall("^image rm (.*)", calls, re.MULTILINE) == ["totesys-assets:earlier"]
    assert "There is nothing newer: v1.10.0" in released.manage("update").stdout
    git(released.folder / "project", "commit", "--quiet", "--allow-empty", "--message", "newer than any tag")
    newer = git_head(released)
    assert released.manage("update").returncode == 0
    assert git_head(released) == newer
    assert released.manage("update", "v1.9.0").returncode == 0
    assert released.read("project/version") == "v1.9.0"
    refused = released.manage("update", "v9")
    assert (refused.returncode, refused.stderr) == (1, "There is no tag v9.\n")


def test_an_update_that_does_not_come_up_is_taken_back_and_told(released: Machine) -> None:
    released.write("bad", "v1.10.0")
    failed = released.manage("update")
    assert failed.returncode == 1
    assert released.read("project/version") == "v1.9.0"
    assert "Subject: ToteSys: the update to v1.10.0 failed\n\nIt runs as it did before" in released.read("mails")
    assert released.manage("up").returncode == 0


def test_an_update_says_what_to_do_where_nothing_is_tagged(released: Machine) -> None:
    for tag in ("v1.9.0", "v1.10.0", "v1.10.0-rc1"):
        git(released.folder / "origin", "tag", "--delete", tag)
        git(released.folder / "project", "tag", "--delete", tag)
    assert "manage.sh update COMMIT" in released.manage("update").stderr


def test_without_a_backup_there_is_no_update(released: Machine) -> None:
    released.write("aws", "#!/bin/bash\nexit 255\n")
    assert released.manage("update").returncode == 1
    assert released.read("project/version") == "v1.9.0"
    assert " up " not in released.read("calls")
