"""The platform as it is deployed, but for the containers: its processes, its environment, its configuration.

S3 is SeaweedFS; Secrets Manager, SNS and SQS are moto; the databases are PostgreSQL. One story, told by several tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

import totesys_assets
from totesys_assets.dagster_home import ENVIRONMENT
from totesys_assets_tests.automation.test_sensor import ORDER
from totesys_assets_tests.conftest import FIRST_DAY, PostgresServer
from totesys_assets_tests.deploy.cloudwatch import matches
from totesys_assets_tests.deploy.conftest import PROJECT
from totesys_assets_tests.deploy.servers import (
    REGION,
    SECRET,
    Moto,
    SeaweedFS,
    TaskRole,
    await_true,
    client,
    free_ports,
)
from totesys_assets_tests.harness import RATES

NAME = "totesys"
UI = "https://totesys.example"
# Which secret becomes which variable of a container, as in its task definition.
SECRETS = {
    "TOTESYS_URL": f"{NAME}/totesys-url",
    "WAREHOUSE_URL": f"{NAME}/warehouse-loader-url",
    "TOTESYS_DAGSTER_URL": f"{NAME}/dagster-url",
}


@dataclass
class Deployed:
    """The running platform."""

    folder: Path
    env: dict[str, str]
    s3: Any
    received: list[dict[str, str]]
    receive: Callable[[], list[dict[str, str]]]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, log: str, *command: str) -> None:
        """Start a container's command; its log is what it writes."""
        program = Path(sys.executable).with_name(command[0])
        with (self.folder / log).open("wb") as output:
            self.processes.append(
                subprocess.Popen(
                    [program, *command[1:]],
                    cwd=self.folder,
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def run(self, *command: str) -> str:
        """Output of a command in the same environment."""
        program = Path(sys.executable).with_name(command[0])
        done = subprocess.run(
            [program, *command[1:]], cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def log(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What the metric filter of an event takes from the log of the code server."""
        pattern = f'{{ $.totesys_event = "{event}" }}'
        return [json.loads(line) for line in self.log("code").splitlines() if matches(pattern, line)]

    def message(self, subject: str) -> dict[str, str] | None:
        """A message of the topic with that subject, if it has come."""
        self.received += self.receive()
        return next((message for message in self.received if message["Subject"] == subject), None)

    def sql(self, variable: str, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.env[variable], autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def orders(self) -> int:
        """Sales orders in the warehouse; 0 before the first refresh."""
        try:
            return int(self.sql("WAREHOUSE_URL", "SELECT count(*) FROM current_sales_order")[0][0])
        except psycopg.errors.UndefinedTable:
            return 0

    def stop(self) -> None:
        """End the processes, with whatever they started."""
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def deployed(
    postgres_server: PostgresServer, trade_template: str, seaweed: SeaweedFS, moto: Moto, scratch: Path
) -> Iterator[Deployed]:
    """Buckets, secrets and a topic are made, and the code server and the daemon started, each with its command."""
    folder = scratch / "deployed"
    (folder / "dagster").mkdir(parents=True)
    (folder / "home").mkdir()
    shipped = PROJECT / "deploy/docker"
    (folder / "dagster/dagster.yaml").write_bytes((shipped / "dagster.yaml").read_bytes())
    (port,) = free_ports(1)
    workspace = (shipped / "workspace.yaml").read_text(encoding="utf-8")
    (folder / "workspace.yaml").write_text(workspace.replace("port: 4000", f"port: {port}"), encoding="utf-8")
    for bucket in ("totesys-lake", "totesys-work"):
        seaweed.client.create_bucket(Bucket=bucket)
    secrets = client("secretsmanager", moto.url)
    urls = {
        "TOTESYS_URL": postgres_server.template("deployed_totesys", trade_template),
        "WAREHOUSE_URL": postgres_server.database("deployed_warehouse"),
        "TOTESYS_DAGSTER_URL": postgres_server.database("deployed_dagster"),
    }
    for variable, secret in SECRETS.items():
        secrets.create_secret(Name=secret, SecretString=urls[variable])
    topic, receive = moto.topic("totesys-alerts")
    role = TaskRole()
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "DAGSTER_", "TOTESYS_", "WAREHOUSE_", "LAKE_"))
    }
    env = {
        **clean,
        # as ECS resolves the secrets of a task definition
        **{name: secrets.get_secret_value(SecretId=secret)["SecretString"] for name, secret in SECRETS.items()},
        "LAKE_URI": "s3://totesys-lake/totesys",
        "TOTESYS_WORK_BUCKET": "totesys-work",
        "TOTESYS_ALERT_TOPIC": topic,
        "TOTESYS_UI_URL": UI,
        "TOTESYS_CODE_SERVER": "127.0.0.1",
        "TOTESYS_RUN_CLUSTER": "totesys",
        "TOTESYS_RUN_TASK_DEFINITION": "totesys-run",
        "TOTESYS_RUN_SUBNETS": "subnet-1,subnet-2",
        "TOTESYS_RUN_SECURITY_GROUPS": "sg-1",
        "DAGSTER_CURRENT_IMAGE": "totesys:test",
        "DAGSTER_HOME": str(folder / "dagster"),
        **ENVIRONMENT,
        "TOTESYS_HOME": str(folder / "home"),
        "PYTHONUNBUFFERED": "1",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": role.url,
        # of these tests, not of the deployment
        "TOTESYS_FIRST_DAY": FIRST_DAY.isoformat(),
        "TOTESYS_RATES_ARCHIVE": str(RATES),  # those of two years would make the first refresh a large one
        "TOTESYS_ALLOW_SUPERUSER": "1",
        "AWS_ENDPOINT_URL_S3": seaweed.url,
        "AWS_ENDPOINT_URL_SNS": moto.url,
        "AWS_ENDPOINT_URL_ECS": moto.url,
        "AWS_ALLOW_HTTP": "true",
    }
    platform = Deployed(folder, env, seaweed.client, [], receive)
    try:
        platform.start(
            "code", "dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(port), "-m", "totesys_assets.definitions"
        )
        await_true(lambda: "Started Dagster code server" in platform.log("code"), "the code server did not start")
        platform.start("daemon", "dagster-daemon", "run", "-w", "workspace.yaml")
        yield platform
    finally:
        platform.stop()
        role.stop()


def in_lake(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> int:
    """Versions of sales orders in the lake."""
    for name, value in deployed.env.items():
        if name.startswith(("AWS_", "LAKE_")):
            monkeypatch.setenv(name, value)
    return totesys_assets.read_arrow("sales_order", history=True).num_rows


def test_an_order_is_in_the_warehouse_and_in_the_lake_soon_after_its_commit(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await_true(lambda: deployed.orders() == 1, "the first refresh did not end")
    deployed.sql("TOTESYS_URL", ORDER)
    committed = time.monotonic()
    await_true(lambda: deployed.orders() == 2, "the order did not arrive")
    print(f"from commit to warehouse: {time.monotonic() - committed:.1f} s")
    assert in_lake(deployed, monkeypatch) == 2


@pytest.mark.thorough
def test_how_long_a_commit_takes_at_most_is_told_and_is_little_more_than_it_took(deployed: Deployed) -> None:
    def records() -> int:
        return int(deployed.sql("WAREHOUSE_URL", "SELECT count(*) FROM fact_sales_order")[0][0])

    await_true(lambda: deployed.lines("refreshed"), "no refresh was told of", 120)  # by now nothing waits
    before = records()
    deployed.sql("TOTESYS_URL", "UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 1")
    committed = time.monotonic()
    await_true(lambda: records() > before, "the change did not arrive")
    taken, told = time.monotonic() - committed, len(deployed.lines("refreshed"))
    await_true(lambda: len(deployed.lines("refreshed")) > told, "the refresh was not told of", 120)
    said = deployed.lines("refreshed")[told]["seconds"]
    print(f"from commit to warehouse: {taken:.1f} s, as told {said} s")
    assert taken - 1 <= said <= taken + 20  # a tick may have looked last before it waited, and its daemon paused


def test_the_runs_are_forked_by_the_daemon(deployed: Deployed) -> None:
    await_true(lambda: deployed.orders() > 0, "the first refresh did not end")
    with_worker = "SELECT count(DISTINCT run_id) FROM run_tags WHERE key = '.dagster/totesys_worker'"
    # The first audit gets a task of its own, for which there is no ECS here.
    all_runs = (
        "SELECT count(*) FROM runs WHERE status IN ('STARTED', 'SUCCESS', 'FAILURE') AND pipeline_name = 'refresh'"
    )
    found = deployed.sql("TOTESYS_DAGSTER_URL", f"SELECT ({with_worker}), ({all_runs})")
    assert found[0][0] == found[0][1] > 0


def test_what_the_runs_printed_is_in_the_work_bucket(deployed: Deployed) -> None:
    def found() -> list[str]:
        listed = deployed.s3.list_objects_v2(Bucket="totesys-work", Prefix="compute-logs/")
        return [each["Key"] for each in listed.get("Contents", [])]

    await_true(found, "no compute log was written", 30)
    text = "".join(deployed.s3.get_object(Bucket="totesys-work", Key=key)["Body"].read().decode() for key in found())
    assert "rows compared" in text


def test_a_failed_refresh_is_told_to_the_topic_with_a_link(deployed: Deployed) -> None:
    deployed.sql("TOTESYS_URL", "ALTER TABLE design RENAME TO designs")
    tags = {"totesys/refresh": "true", "totesys/place": "here"}
    days = {"dagster/asset_partition_range_start": "2024-08-20", "dagster/asset_partition_range_end": "2024-08-21"}
    deployed.run(
        *("dagster", "job", "launch", "-w", "workspace.yaml", "-j", "refresh_everything"),
        *("--tags", json.dumps({**tags, **days})),
    )
    await_true(lambda: deployed.message("ToteSys: a refresh failed"), "no message was received")
    deployed.sql("TOTESYS_URL", "ALTER TABLE designs RENAME TO design")
    message = deployed.message("ToteSys: a refresh failed")
    assert message is not None
    print("LINES", deployed.lines("run_failed"))
    # The sensor may have asked for a refresh of its own just before.
    (line,) = (each for each in deployed.lines("run_failed") if f"{UI}/runs/{each['run_id']}" in message["Message"])
    assert line == {"totesys_event": "run_failed", "run_id": line["run_id"], "job": line["job"]}
    assert line["job"] in ("refresh_everything", "refresh")
    assert '"design"' in message["Message"].splitlines()[0]


def test_what_metric_filters_wait_for_is_on_standard_output_line_by_line(deployed: Deployed) -> None:
    await_true(lambda: deployed.lines("up_to_date") and deployed.lines("dead_letters"), "no line was written")
    assert deployed.lines("heartbeat")[0] == {"totesys_event": "heartbeat"}
    assert deployed.lines("up_to_date")[0] == {"totesys_event": "up_to_date"}
    assert deployed.lines("dead_letters")[0] == {"totesys_event": "dead_letters", "open": 0}
    # No line was torn, and no other process writes one. What is not yet whole is the last line only.
    *whole, _ = deployed.log("code").split("\n")
    events = [line for line in whole if "totesys_event" in line]
    assert [line for line in events if not (line.startswith("{") and json.loads(line))] == []
    assert "totesys_event" not in deployed.log("daemon")


def test_no_secret_is_in_a_log_or_a_message(deployed: Deployed) -> None:
    password = psycopg.conninfo.conninfo_to_dict(deployed.env["WAREHOUSE_URL"])["password"]
    texts = [deployed.log("code"), deployed.log("daemon"), json.dumps(deployed.received)]
    for secret in (str(password), SECRET):
        assert [text for text in texts if secret in text] == []


def test_the_shipped_instance_is_the_one_that_was_tested(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in deployed.env.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_launcher).__name__ == "TieredRunLauncher"
        assert type(instance.compute_log_manager).__name__ == "S3ComputeLogManager"
        assert instance.get_settings("sensors") == {"use_threads": True, "num_workers": 4}
