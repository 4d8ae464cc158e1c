"""Backfills: any range of days, from the command line, a job or the UI's daemon, as one run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import create_test_daemon_workspace_context, instance_for_test
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration

from totesys_assets.automation.schedules import range_tags
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange
from totesys_assets.staleness.decide import Request, partitioned
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform

AUGUST = DayRange(date(2024, 8, 20), date(2024, 8, 21))
PARTITIONED = " or ".join(f"key:{key}" for key in partitioned(catalogue()))
LAUNCH_HERE = {
    "run_launcher": {
        "module": "dagster._core.launcher.sync_in_memory_run_launcher",
        "class": "SyncInMemoryRunLauncher",
    },
    "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
}


def counts(platform: Platform) -> list[tuple[object, ...]]:
    return platform.query("SELECT (SELECT count(*) FROM fact_sales_order), (SELECT count(*) FROM fact_purchase_order)")


@pytest.fixture(scope="module")
def ranged(
    postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform after one run over a range of days; no test may change what the run has recorded."""
    source = postgres_server.template("totesys_ranged", trade_template)
    with make_platform(source, postgres_server.database(), tmp_path_factory.mktemp("ranged")) as platform:
        outcome = platform.run(Request(tuple(partitioned(catalogue())), AUGUST))
        assert outcome.success, outcome.failures
        yield platform


def test_a_range_of_days_is_one_run_that_records_every_day_with_its_rows(ranged: Platform) -> None:
    assert len(ranged.instance.get_runs()) == 1
    assert counts(ranged) == [(1, 1)]
    for key, column in ((["totesys", "sales_order"], [1, 0]), (["warehouse", "fact_purchase_order"], [0, 1])):
        records = ranged.instance.fetch_materializations(dg.AssetKey(key), limit=10).records
        rows = {
            record.partition_key: record.asset_materialization.metadata["dagster/partition_row_count"].value
            for record in records
            if record.asset_materialization is not None
        }
        assert rows == dict(zip(AUGUST.keys, column, strict=True))


def test_the_days_outside_the_range_are_left_alone(platform: Platform) -> None:
    first = DayRange(AUGUST.first, AUGUST.first)
    assert platform.run(Request(tuple(partitioned(catalogue())), first)).success
    assert counts(platform) == [(1, 0)]
    assert platform.look().stale["totesys/purchase_order"] == {"2024-08-21"}


def test_doing_it_again_adds_no_record(ranged: Platform) -> None:
    with dg.DagsterInstance.ephemeral() as another:
        assert replace(ranged, instance=another).run(Request(tuple(partitioned(catalogue())), AUGUST)).success
    assert counts(ranged) == [(1, 1)]


def test_the_newest_materialisation_carries_the_lineage_of_every_column(ranged: Platform) -> None:
    event = ranged.instance.get_latest_materialization_event(dg.AssetKey(["star", "fact_sales_order"]))
    assert event is not None
    assert event.asset_materialization is not None
    lineage = event.asset_materialization.metadata["dagster/column_lineage"].value
    assert isinstance(lineage, dg.TableColumnLineage)
    source = dg.TableColumnDep(dg.AssetKey(["totesys", "sales_order"]), "staff_id")
    assert lineage.deps_by_column["sales_staff_id"] == [source]


@pytest.mark.thorough
# Dagster's own use of what it deprecates, and an event loop that it leaves behind.
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources`", "ignore:coroutine 'BaseEventLoop")
def test_the_backfill_that_the_ui_starts_runs_each_stage_of_the_range_once(platform: Platform) -> None:
    target = ModuleTarget("totesys_assets.definitions", attribute=None, working_directory=None, location_name="t")
    with (
        instance_for_test(overrides=LAUNCH_HERE) as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
    ):
        keys = [dg.AssetKey(key.split("/")) for key in partitioned(catalogue())]
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id="range",
            asset_graph=workspace.create_request_context().asset_graph,
            partition_names=AUGUST.keys,
            asset_selection=keys,
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(backfill)
        for _ in range(10):
            list(execute_backfill_iteration(workspace, logging.getLogger("test")))
            done = instance.get_backfill("range")
            if done is not None and done.status != BulkActionStatus.REQUESTED:
                break
        assert done is not None
        assert done.status == BulkActionStatus.COMPLETED_SUCCESS
        runs = instance.get_runs()
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        assert all(run.tags["dagster/asset_partition_range_start"] == "2024-08-20" for run in runs)
        assert all(run.tags["dagster/asset_partition_range_end"] == "2024-08-21" for run in runs)
        assert len(runs) == 1
    assert counts(platform) == [(1, 1)]


# Dagster's own commands for a range: `job backfill` makes a run per day whatever the backfill policy says (only its
# daemon looks at the policy), `asset materialize` one run.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("command", "runs"),
    [
        pytest.param(
            ["job", "backfill", "-j", "backfill_days", "--from", "2024-08-20", "--to", "2024-08-21", "--noprompt"],
            2,
            id="job backfill",
        ),
        pytest.param(
            ["asset", "materialize", "--select", PARTITIONED, "--partition-range", "2024-08-20...2024-08-21"],
            1,
            id="asset materialize",
        ),
    ],
)
def test_dagsters_own_commands_bring_the_range_in(
    platform: Platform, tmp_path: Path, command: list[str], runs: int
) -> None:
    target = ["-w", "workspace.yaml"] if command[0] == "job" else ["-m", "totesys_assets.definitions"]
    with instance_for_test(overrides=LAUNCH_HERE, temp_dir=str(tmp_path)) as instance:
        result = subprocess.run(
            [sys.executable, "-m", "dagster", *command, *target],
            env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * runs
    assert counts(platform) == [(1, 1)]


@pytest.mark.refreshed
def test_a_run_of_the_nightly_job_compares_content_that_no_fingerprint_shows(platform: Platform) -> None:
    """The ledger says that all is well, but a row of the lake is not the source's: only content can tell."""
    assert platform.look().requests == []
    platform.sql("UPDATE sales_order SET units_sold = 777")
    forge_ledger(platform)
    assert [request for request in platform.look().requests if "totesys/sales_order" in request.assets] == []
    job = platform.definitions().resolve_job_def("refresh_everything")
    tags = range_tags("2024-08-19", "2024-08-22")
    assert job.execute_in_process(instance=platform.instance, tags=tags).success
    assert platform.query("SELECT units_sold FROM current_sales_order") == [(777,)]


def forge_ledger(platform: Platform) -> None:
    """Write the source's present fingerprint of sales_order into the ledger, as if it had been captured."""
    from dataclasses import replace

    from totesys_assets.capture.ledger import Ledger

    table, ledger = catalogue().source["sales_order"], Ledger(platform.lake)
    with platform.totesys.snapshot() as snapshot:
        found = snapshot.fingerprints(table, platform.all_days)
    known = ledger.newest()["ingestion/sales_order"]
    ledger.append(replace(entry, state=found[key].state) for key, entry in known.items() if key in found)


@pytest.mark.parametrize("days", [("2020-01-01", "2020-01-02"), ("2024-08-20", "2099-01-01")])
def test_a_range_without_partitions_is_refused_with_a_sentence(platform: Platform, days: tuple[str, str]) -> None:
    from click.testing import CliRunner

    from totesys_assets.commands import main

    result = CliRunner().invoke(main, ["refresh", "--from", days[0], "--to", days[1]])
    assert result.exit_code == 1
    assert "are not a range within 2024-08-19 to" in result.output.replace("\n", " ")
