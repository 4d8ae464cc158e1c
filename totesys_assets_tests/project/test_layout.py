"""The layout of the package: which folder may import which, how long a module may be, and that it says its subject."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import totesys_assets

pytestmark = pytest.mark.pure

PACKAGE = Path(totesys_assets.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms of the package, from the lowest to the highest: each may import those before it. A room is a folder, or a
# module beside them. star/, marts/ and views/, which hold SQL only, are no part of the order, nor is __init__.py, which
# imports reader.py when somebody reads.
ROOMS = (
    "allocators",
    "names",
    "counting",
    "errors",
    "stages",
    "days",
    "variables",
    "setting_values",
    "settings",
    "terminal",
    "catalogue",
    "sql_text",
    "dialects",
    "s3",
    "spill",
    "spool",
    "batches",
    "libpq",
    "engine",
    "digest",
    "notices",
    "postgres",
    "source",
    "warehouse",
    "lake",
    "moments",
    "capture",
    "transform",
    "load",
    "platform",
    "staleness",
    "audit",
    "reader",
    "local",
    "dagster_home",
    "databases",
    "insights",
    "provision",
    "webserver",
    "dagster_internals",
    "assets",
    "automation",
    "definitions",
    "refresh",
    "dashboard",
    "api",
    "live",
    "commands",
    "cli",
)
MOST_LINES, MOST_ASSEMBLED_LINES = 300, 60
# How the docstring of a longer module begins the sentence that says why.
REASON = "One module, because"


def imported(text: str) -> Iterator[list[str]]:
    """The names that a module imports, as their parts, wherever in it: also in functions and for the type checker."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            yield from (f"{node.module}.{alias.name}".split(".") for alias in node.names)


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def upward(module: Path, text: str) -> set[tuple[str, str]]:
    """The imports of a module that go up, as (module, room)."""
    own = ROOMS.index(room_of(module))
    name = module.relative_to(PACKAGE).as_posix()
    rooms = {parts[1] for parts in imported(text) if parts[0] == PACKAGE.name and len(parts) > 1}
    return {(name, room) for room in rooms if ROOMS.index(room) > own}


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(module) for module in MODULES} - {"__init__"} - {"star"} == set(ROOMS)


def test_no_room_imports_one_above_it() -> None:
    found = [upward(module, module.read_text(encoding="utf-8")) for module in MODULES if room_of(module) in ROOMS]
    assert set().union(*found) == set()


@pytest.mark.parametrize(
    "text",
    [
        "import totesys_assets.commands.refresh",
        "from totesys_assets import commands",
        "def late():\n    from totesys_assets.commands import refresh",
        "if TYPE_CHECKING:\n    from totesys_assets.commands.refresh import one_pass",
    ],
)
def test_an_import_of_a_room_above_is_found_wherever_it_is(text: str) -> None:
    assert upward(PACKAGE / "capture" / "new.py", text) == {("capture/new.py", "commands")}


def test_the_package_does_not_import_its_tests() -> None:
    roots = {parts[0] for module in MODULES for parts in imported(module.read_text(encoding="utf-8"))}
    assert "totesys_assets_tests" not in roots


def test_what_lies_below_the_assets_does_not_import_dagster() -> None:
    below = [module for module in MODULES if room_of(module) in ROOMS[: ROOMS.index("provision")]]
    assert len(below) > 50
    importing = [
        each for each in below for parts in imported(each.read_text(encoding="utf-8")) if parts[0] == "dagster"
    ]
    assert importing == []


def test_what_all_sources_share_knows_nothing_of_one_of_them() -> None:
    package = PACKAGE / "source" / "totesys"
    knowing = [
        module.relative_to(PACKAGE).as_posix()
        for module in MODULES
        if not module.is_relative_to(package)
        and any(parts[1:3] == ["source", "totesys"] for parts in imported(module.read_text(encoding="utf-8")))
    ]
    # Besides what opens it, those that follow PostgreSQL's log, which no other source has.
    follows = [f"capture/{name}.py" for name in ("following", "journal", "log_lines", "log_piece", "log_versions")]
    assert knowing == [*follows, "platform.py", "source/interface.py", "staleness/following.py"]


def test_no_module_is_long_unless_its_first_lines_give_the_reason() -> None:
    texts = {module.relative_to(PACKAGE).as_posix(): module.read_text(encoding="utf-8") for module in MODULES}
    long = {name: text for name, text in texts.items() if len(text.splitlines()) > MOST_LINES}
    assert [name for name, text in long.items() if REASON not in (ast.get_docstring(ast.parse(text)) or "")] == []


def test_the_definitions_are_assembled_and_nothing_else() -> None:
    assert len((PACKAGE / "definitions.py").read_text(encoding="utf-8").splitlines()) <= MOST_ASSEMBLED_LINES


def test_every_module_says_its_subject_in_its_first_line() -> None:
    silent = [
        module.relative_to(PACKAGE).as_posix()
        for module in MODULES
        if module.read_text(encoding="utf-8").strip() and not ast.get_docstring(ast.parse(module.read_text("utf-8")))
    ]
    assert silent == []
