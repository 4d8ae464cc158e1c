"""The room for Dagster's inside: no other uses private parts of Dagster, and each part is what the room expects."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage import tags
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage

import totesys_assets
from totesys_assets import names
from totesys_assets.dagster_internals.run_coordinator import PromptRunCoordinator

pytestmark = pytest.mark.pure

PACKAGE = Path(totesys_assets.__file__).parent
ROOM = PACKAGE / "dagster_internals"
# The rooms below it, which it may import.
BELOW = {"days", "engine", "errors", "names", "postgres", "dagster_internals"}
# Private names that the room imports: module, name, and the parameters that the room relies on; None of what is no
# function (an enumeration, or a class of which only attributes are read).
IMPORTED: dict[tuple[str, str], list[str] | None] = {
    ("dagster._cli", "dev"): None,
    ("dagster._cli.api", "execute_run_command"): None,
    ("dagster._core.definitions.job_base", "InMemoryJob"): ["job_def"],
    ("dagster._core.events", "DagsterEventBatchMetadata"): ["id", "is_end"],
    ("dagster._core.execution.api", "ExecuteRunWithPlanIterable"): [
        "execution_plan",
        "iterator",
        "execution_context_manager",
    ],
    ("dagster._core.execution.context.metadata_logging", "AssetMetadataHandle"): ["asset_key", "partition_key"],
    ("dagster._core.execution.context.metadata_logging", "OutputMetadataAccumulator"): ["per_output_metadata"],
    ("dagster._core.execution.context.system", "PlanExecutionContext"): None,
    ("dagster._core.execution.context.system", "PlanOrchestrationContext"): None,
    ("dagster._core.execution.context_creation_job", "PlanExecutionContextManager"): [
        "job",
        "execution_plan",
        "run_config",
        "dagster_run",
        "instance",
        "retry_mode",
        "raise_on_error",
        "output_capture",
        "step_dependency_config",
    ],
    ("dagster._core.execution.execute_in_process", "core_execute_in_process"): [
        "run_config",
        "job",
        "instance",
        "output_capturing_enabled",
        "raise_on_error",
        "run_tags",
    ],
    ("dagster._core.execution.plan.execute_plan", "dagster_event_sequence_for_step"): ["step_context"],
    ("dagster._core.execution.plan.plan", "ExecutionPlan"): None,
    ("dagster._core.instance.ref", "InstanceRef"): None,
    ("dagster._core.launcher", "CheckRunHealthResult"): ["status", "msg"],
    ("dagster._core.launcher", "LaunchRunContext"): ["dagster_run", "workspace"],
    ("dagster._core.launcher", "WorkerStatus"): None,
    ("dagster._core.remote_representation.code_location", "GrpcServerCodeLocation"): None,
    ("dagster._core.storage.local_compute_log_manager", "LocalComputeLogManager"): ["base_dir", "polling_timeout"],
    ("dagster._grpc.types", "ExecuteRunArgs"): ["job_origin", "run_id", "instance_ref"],
    ("dagster._utils", "get_run_crash_explanation"): ["prefix", "exit_code"],
    ("dagster._utils.interrupts", "check_captured_interrupt"): [],
    ("dagster_postgres.auth", "PgTokenProvider"): None,
    ("dagster_postgres.utils", "create_pg_connection"): ["engine"],
    ("dagster_postgres.utils", "create_pg_engine"): ["postgres_url", "token_provider"],
    ("dagster_postgres.utils", "get_token_provider_from_config"): ["config_value"],
    ("dagster_postgres.utils", "pg_url_from_config"): ["config_value"],
}
# Private attributes that the room reads, sets or overrides, by the class that has them, with their parameters after
# ``self``; None: an attribute that is no method, looked for in the source of the class.
STORAGES = (PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage)
ATTRIBUTES: dict[tuple[type, str], list[str] | None] = {
    **{(storage, "_engine"): None for storage in STORAGES},
    (PostgresEventLogStorage, "_store_asset_event"): ["conn", "event", "event_id"],
    (PostgresEventLogStorage, "_tags_for_asset_event"): ["event"],
    (PostgresEventLogStorage, "_has_asset_key_col_on_connection"): ["conn", "column_name"],
    (dg.DefaultRunLauncher, "_instance"): None,
    (dg.QueuedRunCoordinator, "_instance"): None,
    (dg.StepExecutionContext, "_metadata_accumulator"): None,
    (dg.StepExecutionContext, "asset_partition_key_range_for_output"): ["output_name"],
    (dg.DagsterLogManager, "_dagster_handler"): None,
}
DAGSTER = {"dagster", "dagster_postgres", "dagster_aws"}
# What named tuples of Dagster and others promise in public.
PUBLIC_UNDERSCORES = {"_replace"}


def modules(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Every import in a module, at its top and within its functions: the module, and the name if there is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", each.name) for each in node.names)
        elif isinstance(node, ast.Import):
            yield from ((each.name, "") for each in node.names)


def is_private(module: str, name: str) -> bool:
    root, *path = f"{module}.{name}".strip(".").split(".")
    if root == "dagster_shared" or (root == "dagster_postgres" and module != "dagster_postgres"):
        return True
    return root in DAGSTER and any(part.startswith("_") for part in path)


def private_attributes(tree: ast.Module) -> set[str]:
    """Underscore attributes of other objects than ``self``, ``cls`` and modules, unless the module defines them."""
    imported = {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_self(node.value)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and not is_self(node.value)]
    found = {
        node.attr
        for node in attributes
        if not (isinstance(node.value, ast.Name) and node.value.id in imported - DAGSTER)
    }
    return {name for name in found - own if name.startswith("_") and not name.startswith("__")} - PUBLIC_UNDERSCORES


def is_self(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id in ("self", "cls")) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    )


def test_private_parts_of_dagster_are_used_in_one_room_only() -> None:
    outside = [(path, tree) for path, tree in modules(PACKAGE) if ROOM not in path.parents]
    assert len(outside) > 50
    for path, tree in outside:
        assert [pair for pair in imports(tree) if is_private(*pair)] == [], path
        assert private_attributes(tree) == set(), path


def test_the_test_of_privacy_sees_what_is_private() -> None:
    code = [
        "import dagster._utils, os",
        "from dagster_shared.error import E",
        "from dagster import _check",
        "_check._y",
    ]
    tree = ast.parse("\n".join([*code, "os._exit()"]))
    assert [is_private(*pair) for pair in imports(tree)] == [True, False, True, True]
    assert private_attributes(tree) == {"_y"}
    assert not is_private("dagster", "AssetKey")
    assert not is_private("dagster_postgres", "PostgresRunStorage")


def test_the_room_imports_no_room_above_it() -> None:
    for path, tree in modules(ROOM):
        ours = {module.split(".")[1] for module, _ in imports(tree) if module.startswith("totesys_assets.")}
        assert ours <= BELOW, path


def test_the_door_of_the_room_needs_no_private_part_itself() -> None:
    tree = ast.parse((ROOM / "switch.py").read_text(encoding="utf-8"))
    assert [pair for pair in imports(tree) if is_private(*pair)] == []
    assert private_attributes(tree) == set()


def test_the_table_names_every_private_part_that_the_room_uses_and_no_other() -> None:
    used = {pair for _, tree in modules(ROOM) for pair in imports(tree) if is_private(*pair)}
    assert used == IMPORTED.keys()
    touched = {name for _, tree in modules(ROOM) for name in private_attributes(tree)}
    assert touched <= {name for _, name in ATTRIBUTES}


@pytest.mark.parametrize(("module", "name"), IMPORTED)
def test_a_private_name_is_there_and_takes_what_the_room_gives_it(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    expected = IMPORTED[module, name]
    if expected is not None:
        parameters = inspect.signature(found).parameters
        # A class that is made by Dagster's decorator ``record`` has fields in the place of parameters.
        taken = list(found.__annotations__) if [*parameters] == ["args", "kwargs"] else list(parameters)
        assert set(expected) <= set(taken), taken
        given = [each for each in parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        assert {each.name for each in given if each.default is each.empty} <= set(expected)


@pytest.mark.parametrize(("owner", "name"), ATTRIBUTES)
def test_a_private_attribute_is_there_and_takes_what_the_room_gives_it(owner: type, name: str) -> None:
    expected = ATTRIBUTES[owner, name]
    if expected is not None:
        assert list(inspect.signature(getattr(owner, name)).parameters) == ["self", *expected]
        return
    sources = [inspect.getsource(each) for each in owner.__mro__ if each.__module__.startswith("dagster")]
    assert hasattr(owner, name) or any(f"self.{name} = " in source for source in sources)


@pytest.mark.parametrize(
    ("ours", "dagsters"),
    [
        (names.RANGE_START_TAG, tags.ASSET_PARTITION_RANGE_START_TAG),
        (names.RANGE_END_TAG, tags.ASSET_PARTITION_RANGE_END_TAG),
        (names.PRIORITY_TAG, tags.PRIORITY_TAG),
        (names.SENSOR_NAME_TAG, tags.SENSOR_NAME_TAG),
        (names.WILL_RETRY_TAG, tags.WILL_RETRY_TAG),
        (names.HIDDEN_TAG_PREFIX, tags.HIDDEN_TAG_PREFIX),
        (names.GRPC_INFO_TAG, tags.GRPC_INFO_TAG),
    ],
)
def test_a_tag_that_is_spelt_here_is_dagsters(ours: str, dagsters: str) -> None:
    assert ours == dagsters


def test_the_daemon_begins_ticks_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._daemon import sensor  # as in the daemon, and nowhere else

    monkeypatch.setattr(sensor, "MIN_INTERVAL_LOOP_TIME", 5)
    PromptRunCoordinator(dequeue_interval_seconds=1)
    assert sensor.MIN_INTERVAL_LOOP_TIME == 1
    assert "MIN_INTERVAL_LOOP_TIME - loop_duration" in inspect.getsource(sensor.execute_sensor_iteration_loop)
