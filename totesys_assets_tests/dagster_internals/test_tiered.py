"""Where a run goes: a fork in the daemon's container, or an ECS task; and what follows from it, without ECS."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import LaunchRunContext
from dagster._core.storage.tags import BACKFILL_ID_TAG, GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._grpc.client import DagsterGrpcClient

from totesys_assets.automation.schedules import range_tags
from totesys_assets.automation.sensors import run_request
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.catalogue.queries import query_of
from totesys_assets.dagster_internals.run_launcher import MODULE, WORKER_TAG
from totesys_assets.dagster_internals.tiered_launcher import (
    HERE,
    MOST_ASSETS,
    MOST_DAYS,
    TASK,
    TieredRunLauncher,
    place_of,
)
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.local.postgres import _free_port
from totesys_assets.names import AUDIT, COMPACT, EVERYTHING, PLACE_TAG, TOTESYS
from totesys_assets.staleness.decide import Request, everything, partitioned, requests, unpartitioned
from totesys_assets.staleness.ranges import in_ranges
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform
from totesys_assets_tests.dagster_internals.test_launch import Daemon, wait_for

TABLES = catalogue()
LAST = date(2026, 11, 24)
YEARS = DayRange(date(2024, 11, 25), LAST)
SETTINGS = {
    "cluster": "totesys",
    "task_definition": "totesys-run",
    "subnets": "subnet-1",
    "security_groups": "sg-1",
}


def a_run(
    request: Request | None = None, tags: Mapping[str, str] | None = None, *, job: str = "__ASSET_JOB", days: int = 0
) -> dg.DagsterRun:
    """A run as Dagster makes it of a request, or of a job and a number of days."""
    if request is not None:
        wanted = run_request(request)
        return dg.DagsterRun(
            job, asset_selection=frozenset(wanted.asset_selection or ()), tags={**wanted.tags, **(tags or {})}
        )
    ranged = range_tags((LAST - timedelta(days=days - 1)).isoformat(), LAST.isoformat()) if days else {}
    return dg.DagsterRun(job, tags={**ranged, **(tags or {})})


def stale(assets: list[str], *days: date) -> dict[str, set[str]]:
    partitions = {day.isoformat() for day in days}
    return {asset: partitions if asset in partitioned(TABLES) else {WHOLE} for asset in assets}


# Where a run goes


def test_a_refresh_of_what_changed_on_a_day_is_forked() -> None:
    (request,) = requests(stale(partitioned(TABLES), LAST))
    assert place_of(a_run(request)) == HERE


def test_a_refresh_after_trade_on_days_scattered_over_years_is_forked() -> None:
    design = ["totesys/design", "star/dim_design", "warehouse/dim_design"]
    calendar = ["star/dim_date", "warehouse/dim_date", "mart/mart_exchange_rate", "warehouse/mart_exchange_rate"]
    scattered = [YEARS.first + timedelta(days=10 * number) for number in range(70)]
    (request,) = requests(stale([*partitioned(TABLES), *design, *calendar], *scattered))
    assert request.days is not None
    assert len(request.days.keys) > 20 * MOST_DAYS
    assert place_of(a_run(request)) == HERE


def test_a_first_load_of_years_gets_a_task_and_one_of_days_does_not() -> None:
    everywhere = [*partitioned(TABLES), *unpartitioned(TABLES)]
    (request,) = requests(stale(everywhere, *map(date.fromisoformat, YEARS.keys)))
    assert request.changes_only
    assert place_of(a_run(request)) == TASK
    (request,) = requests(stale(everywhere, LAST - timedelta(days=1), LAST))
    assert place_of(a_run(request)) == HERE


def test_each_range_of_a_first_load_gets_a_task_and_what_has_no_days_does_not() -> None:
    everywhere = [*partitioned(TABLES), *unpartitioned(TABLES)]
    (request,) = requests(stale(everywhere, *map(date.fromisoformat, YEARS.keys)))
    sets, *ranges, marts = in_ranges(TABLES, request, dict.fromkeys(YEARS.keys, 1), 20)
    assert len(ranges) > 12
    assert all(len(each.assets) < MOST_ASSETS and len(each.days or ()) <= MOST_DAYS for each in ranges)
    assert {place_of(a_run(each)) for each in ranges} == {TASK}
    assert {place_of(a_run(each)) for each in (sets, marts)} == {HERE}


def test_comparing_years_after_a_failover_of_totesys_gets_a_task_though_other_sources_did_not_change() -> None:
    own = [table for table in TABLES.source.values() if table.group == TOTESYS]
    names = {table.name for table in own}
    made = [name for name in TABLES.warehouse if names & set(query_of(name).sources)]
    whole = [*(table.asset for table in own), *(TABLES.warehouse[name].asset for name in made)]
    (request,) = requests(
        stale([*whole, *(f"warehouse/{name}" for name in made)], *map(date.fromisoformat, YEARS.keys))
    )
    assert len(request.assets) < len([*partitioned(TABLES), *unpartitioned(TABLES)])
    assert place_of(a_run(request)) == TASK


def test_comparing_the_content_of_more_than_a_month_gets_a_task() -> None:
    assert place_of(a_run(everything(TABLES, YEARS))) == TASK
    for job in ("backfill_days", "__ASSET_JOB"):
        assert place_of(a_run(job=job, days=MOST_DAYS + 1)) == TASK
        assert place_of(a_run(job=job, days=MOST_DAYS)) == HERE


def test_a_backfill_of_a_few_days_is_forked_whatever_dagster_calls_it() -> None:
    assert place_of(a_run(tags={BACKFILL_ID_TAG: "abcdefgh"}, days=2)) == HERE
    assert place_of(a_run(tags={BACKFILL_ID_TAG: "abcdefgh"}, days=400)) == TASK


@pytest.mark.parametrize("job", [EVERYTHING, AUDIT, COMPACT])
def test_what_reads_everything_at_night_gets_a_task(job: str) -> None:
    assert place_of(a_run(job=job)) == TASK


def test_who_starts_a_run_may_say_where_it_is_to_go() -> None:
    assert place_of(a_run(tags={PLACE_TAG: HERE}, job=EVERYTHING, days=700)) == HERE
    assert place_of(a_run(tags={PLACE_TAG: TASK}, days=1)) == TASK
    with pytest.raises(PlatformError, match="tag totesys/place is 'there': set it to task or here, or drop it"):
        place_of(a_run(tags={PLACE_TAG: "there"}))


@pytest.mark.parametrize("first", ["", "yesterday"])
def test_days_that_make_no_sense_are_left_to_dagster(first: str) -> None:
    assert place_of(dg.DagsterRun("backfill_days", tags=range_tags(first, LAST.isoformat()))) == HERE


# What follows from it


def tiered(instance: dg.DagsterInstance) -> TieredRunLauncher:
    """The launcher of an instance, made as dagster.yaml makes it."""
    found = instance.run_launcher
    assert isinstance(found, TieredRunLauncher)
    return found


@contextmanager
def tiered_instance(folder: Path, instance: dg.DagsterInstance, **settings: str) -> Iterator[dg.DagsterInstance]:
    """Another instance on the same storage, configured as it is shipped but for the launcher, which is tiered."""
    text = (folder / "dagster.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    launcher = {
        "module": "totesys_assets.dagster_internals.tiered_launcher",
        "class": "TieredRunLauncher",
        "config": SETTINGS | settings,
    }
    tidy = {"wait_for_local_processes_on_shutdown": True}
    config |= {"run_launcher": launcher, "code_servers": tidy}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with dg.DagsterInstance.get() as made:
        yield made


@pytest.fixture(scope="module")
def home(
    postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform whose launcher is tiered."""
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    folder, state = tmp_path_factory.mktemp("tiered"), postgres_server.database()
    with (
        make_platform(source, postgres_server.database(), folder, dagster=state) as platform,
        tiered_instance(folder, platform.instance) as instance,
    ):
        yield replace(platform, instance=instance)


@contextmanager
def code_server(folder: Path, image: str) -> Iterator[GrpcServerTarget]:
    """Dagster's code server as a container of ``image`` runs it: reached by host and port."""
    port = _free_port()
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(port), "-m", MODULE]
    env = {**os.environ, "DAGSTER_CURRENT_IMAGE": image, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(command, env=env, cwd=folder, start_new_session=True) as server:
        try:
            client = DagsterGrpcClient(port=port, host="127.0.0.1")
            wait_for(lambda: answers(client), 60)
            yield GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="t")
        finally:
            server.kill()  # it would wait for its runs


def answers(client: DagsterGrpcClient) -> bool:
    try:
        client.ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True


@pytest.mark.thorough
def test_a_refresh_is_forked_though_the_code_server_is_in_another_container_of_the_image(
    home: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_CURRENT_IMAGE", "registry.example/totesys:17")
    with (
        code_server(Path.cwd(), "registry.example/totesys:17") as target,
        create_test_daemon_workspace_context(target, home.instance) as workspace,
    ):
        daemon = Daemon(home, workspace)
        run_id = daemon.tick()
        assert daemon.end_of(run_id) == dg.DagsterRunStatus.SUCCESS
        tags = daemon.run(run_id).tags
        assert json.loads(tags[WORKER_TAG])["host"] == socket.gethostname()
        assert GRPC_INFO_TAG not in tags
        assert PLACE_TAG not in tags
        assert home.query("SELECT count(*) FROM current_sales_order") == [(1,)]


def test_a_fork_of_a_daemon_that_was_replaced_is_dead_and_other_runs_are_not(home: Platform) -> None:
    def health(**tags: str) -> str:
        run = create_run_for_test(home.instance, status=dg.DagsterRunStatus.STARTED, tags=tags)
        return tiered(home.instance).check_run_worker_health(run).status.value

    noted = {"host": "ip-10-0-0-7", "pid": 17, "began": 1.0}
    assert health(**{WORKER_TAG: json.dumps(noted)}) == "FAILED"
    assert health(**{WORKER_TAG: json.dumps({**noted, "host": socket.gethostname()})}) == "FAILED"
    assert health(**{WORKER_TAG: json.dumps({**noted, "host": socket.gethostname(), "pid": 1})}) == "FAILED"
    assert health() == "RUNNING"  # `totesys refresh`, wherever it is
    again = {WORKER_TAG: json.dumps(noted), GRPC_INFO_TAG: "{}"}  # started again, and then in a code server
    assert health(**again) == "RUNNING"


def test_who_starts_a_run_cannot_choose_what_its_task_does(home: Platform) -> None:
    for tag in ("ecs/container_overrides", "ecs/task_overrides", "ecs/run_task_kwargs"):
        run = create_run_for_test(home.instance, tags={PLACE_TAG: TASK, tag: "{}"})
        with pytest.raises(PlatformError, match=f"has the tag {tag}, which would change what its task may do"):
            tiered(home.instance).launch_run(LaunchRunContext(run, None))


def test_opening_the_instance_imports_nothing_of_aws(home: Platform) -> None:
    code = (
        "import sys; from dagster import DagsterInstance; "
        "print(type(DagsterInstance.get().run_launcher).__name__, 'boto3' in sys.modules)"
    )
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["TieredRunLauncher", "False"]
