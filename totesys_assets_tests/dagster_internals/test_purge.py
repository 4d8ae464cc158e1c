"""Removing Dagster's old records: what goes, and that the UI says of assets what it said before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.test_utils import create_run_for_test

from totesys_assets.dagster_internals import purge as module
from totesys_assets.dagster_internals.purge import Purged, purge
from totesys_assets.dagster_internals.switch import purge_records
from totesys_assets.errors import PlatformError
from totesys_assets_tests.dagster_internals import test_dagster_storage as made
from totesys_assets_tests.dagster_internals.test_dagster_storage import (  # noqa: F401 - fixtures
    PLAIN,
    days,
    instance,
    job,
    rows,
    server,
    url,
    with_tables,
)

DAY = 86_400
ASSETS = [dg.AssetKey(name) for name in ("orders", "sales", "calendar", "counted")]
CHECKS = [dg.AssetCheckKey(dg.AssetKey("sales"), name) for name in ("sums", "keys")]
ASKED = """
{
  assetNodes {
    assetKey { path }
    partitionStats { numMaterialized numPartitions numFailed numMaterializing }
    assetMaterializations(limit: 1) { runId timestamp partition metadataEntries { label } }
    latestMaterializationByPartition { runId timestamp partition }
    latestRunForPartition(partition: "2025-01-06") { runId status }
    assetPartitionStatuses {
      ... on TimePartitionStatuses { ranges { startKey endKey status } }
    }
    assetChecksOrError {
      ... on AssetChecks {
        checks { name executionForLatestMaterialization { runId status timestamp evaluation { success timestamp } } }
      }
    }
  }
  assetsLatestInfo(assetKeys: [{path: "orders"}, {path: "sales"}, {path: "calendar"}, {path: "counted"}]) {
    assetKey { path }
    latestMaterialization { runId timestamp }
    latestRun { id status }
  }
}
"""


@pytest.fixture
def dagster(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:  # noqa: F811
    with instance(url, tmp_path, monkeypatch) as opened:
        yield opened


def run(dagster: dg.DagsterInstance, first: int, last: int, **tags: str) -> str:
    """Id of a run over days of January; ``fail="sales"`` lets that asset fail."""
    span = {
        f"dagster/asset_partition_range_{end}": f"2025-01-{day:02}" for end, day in (("start", first), ("end", last))
    }
    return job.execute_in_process(instance=dagster, tags={**span, **tags}, raise_on_error=False).run_id


def age(url: str, *run_ids: str, by_days: float = 40) -> None:  # noqa: F811
    """As if the runs had ended so long ago."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE runs SET end_time = coalesce(end_time, extract(epoch FROM now())) - %s WHERE run_id = ANY(%s)",
            (by_days * DAY, list(run_ids)),
        )


def before() -> float:
    return time.time() - 30 * DAY


def said_of_assets(dagster: dg.DagsterInstance) -> list[Any]:
    """What Dagster's own questions about assets, partitions and checks are answered."""
    events, found = dagster.event_log_storage, []
    for key in ASSETS:
        definition = None if key == dg.AssetKey("calendar") else days
        kinds = (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        found += [
            dagster.get_latest_materialization_event(key),
            dagster.get_materialized_partitions(key),
            [events.get_latest_storage_id_by_partition(key, kind) for kind in kinds],
            events.get_latest_asset_partition_materialization_attempts_without_materializations(key),
            events.get_latest_planned_materialization_info(key),
            get_and_update_asset_status_cache_value(dagster, key, definition),
            [record.asset_entry.last_run_id for record in dagster.get_asset_records([key])],
        ]
    return [*found, dagster.event_log_storage.get_latest_asset_check_execution_by_key(CHECKS)]


# In a process of its own, which takes the code server that it starts with it.
ASK = """
import json, sys
import dagster as dg
from dagster_graphql.test.utils import define_out_of_process_context, execute_dagster_graphql
with dg.DagsterInstance.get() as instance, define_out_of_process_context(sys.argv[1], "definitions", instance) as asked:
    print(json.dumps(execute_dagster_graphql(asked, sys.argv[2]).data))
"""


def said_by_the_ui(home: Path) -> Any:
    """What the webserver's GraphQL answers."""
    command = [sys.executable, "-W", "ignore", "-c", ASK, made.__file__, ASKED]
    done = subprocess.run(
        command, env=os.environ | {"DAGSTER_HOME": str(home)}, capture_output=True, text=True, check=True
    )
    (answer,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    said = json.loads(answer)
    return {question: sorted(answers, key=lambda each: each["assetKey"]["path"]) for question, answers in said.items()}


def counted(url: str) -> dict[str, int]:  # noqa: F811
    tables = ("runs", "run_tags", "event_logs", "asset_event_tags", "asset_check_executions")
    return {table: int(str(rows(url, f"SELECT count(*) FROM {table}")[0][0])) for table in tables}


def test_what_the_ui_says_of_assets_is_the_same_and_most_of_the_rest_is_gone(
    dagster: dg.DagsterInstance,
    url: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    first = run(dagster, 1, 20)
    often = [run(dagster, 1, 3) for _ in range(10)]
    failed = [run(dagster, 6, 7, fail="sales"), run(dagster, 9, 9, fail="sales")]
    mended = run(dagster, 9, 9)
    age(url, first, *often, *failed, mended)
    new = run(dagster, 8, 8)
    facts, shown, had = said_of_assets(dagster), said_by_the_ui(tmp_path), counted(url)
    purged = purge(dagster, before(), 60)
    assert said_of_assets(dagster) == facts
    assert said_by_the_ui(tmp_path) == shown
    assert shown["assetsLatestInfo"][-1]["latestRun"]["id"] == new
    has = counted(url)
    assert purged == Purged(had["runs"] - has["runs"], had["event_logs"] - has["event_logs"], is_all=True)
    assert has["event_logs"] < had["event_logs"] * 0.5
    assert {record.run_id for record in dagster.get_runs()} == {first, often[-1], failed[0], mended, new}
    assert rows(url, "SELECT count(*) FROM run_tags WHERE run_id NOT IN (SELECT run_id FROM runs)") == [(0,)]
    assert rows(url, "SELECT count(*) FROM asset_event_tags WHERE event_id NOT IN (SELECT id FROM event_logs)") == [
        (0,)
    ]
    assert len(dagster.all_logs(new)) > 20
    assert purge(dagster, before(), 60) == Purged(0, 0, is_all=True)


def test_what_a_removed_run_printed_goes_with_it(dagster: dg.DagsterInstance, url: str, tmp_path: Path) -> None:  # noqa: F811
    old, new = run(dagster, 1, 1), run(dagster, 1, 1)
    folders = [tmp_path / "storage" / run_id for run_id in (old, new)]
    assert [folder.is_dir() for folder in folders] == [True, True]
    age(url, old)
    purge(dagster, before(), 60)
    assert [folder.exists() for folder in folders] == [False, True]


def test_what_has_not_ended_and_what_is_new_stays_whole(dagster: dg.DagsterInstance, url: str) -> None:  # noqa: F811
    going = create_run_for_test(dagster, status=dg.DagsterRunStatus.STARTED).run_id
    backfill = PartitionBackfill(
        "open", BulkActionStatus.REQUESTED, from_failure=False, tags={}, backfill_timestamp=time.time()
    )
    dagster.add_backfill(backfill)
    of_backfill = run(dagster, 1, 2, **{"dagster/backfill": "open"})
    young = run(dagster, 1, 2)
    run(dagster, 1, 2)
    age(url, going, of_backfill)
    age(url, young, by_days=29)
    had = counted(url)
    assert purge(dagster, before(), 60) == Purged(0, 0, is_all=True)
    assert counted(url) == had
    dagster.update_backfill(backfill._replace(status=BulkActionStatus.COMPLETED_SUCCESS))
    assert purge(dagster, before(), 60).runs == 1


def test_some_runs_are_removed_at_a_time_and_a_later_night_goes_on(
    dagster: dg.DagsterInstance,
    url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = [run(dagster, 1, 1) for _ in range(5)]
    run(dagster, 1, 1)
    age(url, *old)
    monkeypatch.setattr(module, "RUNS_AT_ONCE", 2)
    assert purge(dagster, before(), 0) == Purged(0, 0, is_all=False)
    clock = iter([0.0, 0.0, 2.0])
    monkeypatch.setattr("totesys_assets.dagster_internals.purge.time.monotonic", lambda: next(clock))
    assert purge(dagster, before(), 1).runs == 2
    monkeypatch.undo()
    assert purge(dagster, before(), 60).runs == 3
    assert len(dagster.get_runs()) == 1


def test_tables_of_another_form_are_left_alone(dagster: dg.DagsterInstance, url: str) -> None:  # noqa: F811
    old = run(dagster, 1, 1)
    run(dagster, 1, 1)
    age(url, old)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    had = counted(url)
    with pytest.raises(PlatformError, match="form ffffffffffff, and which of their rows may go is known for"):
        purge(dagster, before(), 60)
    assert counted(url) == had


def test_the_form_of_the_tables_that_is_known_is_that_of_the_dagster_that_is_installed(
    dagster: dg.DagsterInstance,
) -> None:
    assert dagster.event_log_storage.alembic_version() == (module.REVISION, module.REVISION)


def test_stock_dagster_keeps_its_records(
    url: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with instance(url, tmp_path, monkeypatch, yaml=PLAIN) as stock:
        old = run(stock, 1, 1)
        run(stock, 1, 1)
        age(url, old)
        assert purge_records(stock, before(), 60).startswith("Stock Dagster keeps its records")
        assert len(stock.get_runs()) == 2


def test_what_was_removed_is_said(dagster: dg.DagsterInstance, url: str) -> None:  # noqa: F811
    old = run(dagster, 1, 1)
    run(dagster, 1, 1)
    age(url, old)
    assert purge_records(dagster, before(), 0) == "Removed 0 runs and 0 events. The time is up: the next night goes on."
    said = purge_records(dagster, before(), 60)
    assert said.startswith("Removed 1 runs and ")
    assert said.endswith(" events.")


def test_a_run_of_long_ago_that_ended_without_a_moment_goes_by_when_it_was_noted(
    dagster: dg.DagsterInstance,
    url: str,  # noqa: F811
) -> None:
    canceled = create_run_for_test(dagster, status=dg.DagsterRunStatus.CANCELED).run_id
    with psycopg.connect(url) as connection:
        moment = datetime.fromtimestamp(before() - DAY, UTC).replace(tzinfo=None)
        connection.execute(
            "UPDATE runs SET end_time = NULL, update_timestamp = %s WHERE run_id = %s", (moment, canceled)
        )
    assert purge(dagster, before(), 60).runs == 1
