"""The definitions: 52 assets, their lineage and what they say of themselves; that they load anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.definitions import build_definitions, defs
from totesys_assets.settings import Settings

PROJECT = Path(__file__).parents[2]
SNAPSHOT = Path(__file__).with_name("definitions.json")


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_definitions(Settings.from_env({"TOTESYS_HOME": str(tmp_path_factory.mktemp("home"))}))


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> list[dg.AssetSpec]:
    return list(definitions.resolve_all_asset_specs())


def test_definitions_are_used_again_as_long_as_settings_and_days_are_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOTESYS_HOME", str(tmp_path))
    first = defs()
    assert defs() is first
    monkeypatch.setenv("TOTESYS_FIRST_DAY", "2024-01-02")
    assert defs() is not first


def test_the_engine_that_builds_a_table_is_one_of_its_kinds(tmp_path: Path) -> None:
    spark = {"TOTESYS_ENGINE": "spark", "SPARK_REMOTE": "sc://spark"}
    made = build_definitions(Settings.from_env({"TOTESYS_HOME": str(tmp_path), **spark}))
    kinds = {"/".join(spec.key.path): spec.kinds for spec in made.resolve_all_asset_specs()}
    assert kinds["star/fact_sales_order"] == {"spark", "deltalake"}
    assert kinds["star/dim_design"] == {"duckdb", "deltalake"}


def test_every_table_is_an_asset_of_its_group_and_one_of_the_warehouse(specs: list[dg.AssetSpec]) -> None:
    by_group: dict[str | None, set[str]] = {}
    for spec in specs:
        by_group.setdefault(spec.group_name, set()).add("/".join(spec.key.path))
    assert len(catalogue().source) >= 11
    assert len(catalogue().star) >= 11
    expected = {
        "ingestion": {table.asset for table in catalogue().source.values()},
        "processed": {f"star/{name}" for name in catalogue().star},
        "marts": {f"mart/{name}" for name in catalogue().marts},
        "warehouse": {f"warehouse/{name}" for name in catalogue().warehouse},
    }
    assert by_group == expected


def test_no_dependency_is_mistyped_into_an_external_asset(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    assert graph.get_all_asset_keys() == graph.materializable_asset_keys


def test_every_asset_says_what_it_is(specs: list[dg.AssetSpec]) -> None:
    for spec in specs:
        table = catalogue().source.get(spec.key.path[1]) or catalogue().warehouse[spec.key.path[1]]
        columns = spec.metadata["dagster/column_schema"].columns
        held = table.columns if spec.group_name not in ("processed", "marts") else table.lake_columns
        assert [column.name for column in columns][: len(held)] == [column.name for column in held]
        assert all(column.description for column in columns)
        assert table.description in (spec.description or "")
        assert spec.owners == ["team:data-platform"]
        assert spec.kinds


def test_lineage_partitions_and_jobs_are_as_they_were_agreed(definitions: dg.Definitions) -> None:
    """A change here is a change of the product: look at the difference, then write it with UPDATE_SNAPSHOTS=1."""
    graph = definitions.resolve_asset_graph()
    found = {
        "assets": {
            "/".join(spec.key.path): {
                "deps": sorted("/".join(dep.asset_key.path) for dep in spec.deps),
                "kinds": sorted(spec.kinds),
                "daily": graph.get(spec.key).partitions_def is not None,
                "single_run": graph.get(spec.key).backfill_policy == dg.BackfillPolicy.single_run(),
                "checks": sorted(key.name for key in graph.get(spec.key).check_keys),
            }
            for spec in definitions.resolve_all_asset_specs()
        },
        "jobs": sorted(job.name for job in definitions.jobs or []),
        "schedules": sorted(schedule.name for schedule in definitions.schedules or []),
        "sensors": sorted(sensor.name for sensor in definitions.sensors or []),
    }
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_all_that_is_partitioned_shares_one_definition(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found = {graph.get(key).partitions_def for key in graph.get_all_asset_keys()}
    assert len(found - {None}) == 1


def test_the_newest_partition_is_tomorrow_for_sessions_in_eastern_time_zones(definitions: dg.Definitions) -> None:
    partitions = definitions.resolve_asset_graph().get(dg.AssetKey(["totesys", "payment"])).partitions_def
    assert partitions is not None
    assert partitions.get_last_partition_key() == (datetime.now(UTC) + timedelta(days=1)).date().isoformat()


def test_every_night_the_whole_content_of_all_days_is_compared(definitions: dg.Definitions) -> None:
    schedule = definitions.resolve_schedule_def("nightly_comparison")
    (request,) = schedule.evaluate_tick(dg.build_schedule_context()).run_requests or []
    first, last = Settings.from_env({}).first_day, datetime.now(UTC).date() + timedelta(days=1)
    assert request.tags["dagster/asset_partition_range_start"] == first.isoformat()
    assert request.tags["dagster/asset_partition_range_end"] == last.isoformat()
    assert schedule.cron_schedule == "30 2 * * *"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def run_python(code: str, folder: Path) -> str:
    """Output of a fresh interpreter that knows of no database."""
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TOTESYS_HOME": str(folder / "home")}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=folder, env=env
    ).stdout


def test_a_fresh_interpreter_loads_them_without_any_database_and_starts_none(tmp_path: Path) -> None:
    code = (
        "import sys; from totesys_assets.definitions import defs; "
        "print(len(list(defs().resolve_asset_graph().get_all_asset_keys())), 'pandas' in sys.modules)"
    )
    assert run_python(code, tmp_path).split() == ["52", "False"]
    assert not (tmp_path / "home").exists()


def test_a_refresh_imports_all_that_dagsters_storages_need_while_it_looks(tmp_path: Path) -> None:
    code = (
        f"import sys, threading; sys.path.insert(0, {str(PROJECT)!r}); "
        "from totesys_assets.refresh import begin_imports; begin_imports(); begin_imports(); "
        "[each.join() for each in threading.enumerate() if each is not threading.main_thread()]; "
        "known = {*sys.modules}; "
        "import totesys_assets.dagster_internals.storage; "
        "import gc; print(gc.isenabled(), *{each.partition('.')[0] for each in {*sys.modules} - known})"
    )
    collects_garbage, *packages = run_python(code, tmp_path).split()
    assert collects_garbage == "True"
    assert {*packages} <= {"dagster_postgres", "totesys_assets"}  # and no other


@pytest.mark.parametrize(
    "command",
    [["dagster", "definitions", "validate", "-w", "workspace.yaml"], ["dg", "check", "defs"]],
    ids=["workspace.yaml", "dg"],
)
def test_dagsters_own_commands_load_them(command: list[str], tmp_path: Path) -> None:
    scripts = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "TOTESYS_HOME": str(tmp_path)}
    env |= {"DG_CLI_CONFIG": str(tmp_path / "none"), "HOME": str(tmp_path), "VIRTUAL_ENV": str(scripts.parent)}
    result = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_asset_leads_to_the_line_that_defines_it(specs: list[dg.AssetSpec]) -> None:
    for spec in specs:
        references = spec.metadata["dagster/code_references"].code_references
        lines = [
            Path(each.file_path).read_text(encoding="utf-8").splitlines()[each.line_number - 1] for each in references
        ]
        assert lines[-1] == f"CREATE TABLE {spec.key.path[1]} ("
        assert [each.label.partition("/")[0] for each in references] == (
            {"processed": ["star", "catalogue"], "marts": ["marts", "catalogue"]}.get(
                str(spec.group_name), ["catalogue"]
            )
        )
        assert "```" not in (spec.description or "")


def test_what_is_loaded_every_night_is_stale_in_dagster_soon_after_a_night_without(specs: list[dg.AssetSpec]) -> None:
    policies = {spec.freshness_policy for spec in specs if spec.group_name == "warehouse"}
    (policy,) = policies
    assert isinstance(policy, dg.FreshnessPolicy)
    assert {spec.freshness_policy for spec in specs if spec.group_name != "warehouse"} == {None}
