"""The README is true: its commands exist, its SQL and Python run, its links lead somewhere."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

from totesys_assets import settings
from totesys_assets.commands import main
from totesys_assets_tests.conftest import Platform

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[str]:
    """All commands of ``program`` in the README, in blocks and in the text, without the elided ones."""
    found = [line for block in blocks("bash") for line in block.splitlines()]
    found += re.findall(r"`([^`\n]+)`", README)
    return sorted({line.split("#")[0].strip() for line in found if line.startswith(f"{program} ") and "…" not in line})


@pytest.mark.parametrize("command", commands("totesys"))
def test_every_command_and_option_of_the_readme_exists(command: str) -> None:
    name, *arguments = shlex.split(command)[1:]
    found = main.get_command(click.Context(main), name)
    assert found is not None
    if arguments[-1:] == ["--to"]:
        arguments = ["--from", "2026-01-01", "--to", "2026-01-02"]
    found.make_context(name, arguments)


def test_every_command_is_in_the_readme() -> None:
    assert {command.split()[1] for command in commands("totesys")} == set(main.commands)


@pytest.mark.parametrize("command", commands("make"))
def test_every_task_of_the_readme_is_in_the_makefile(command: str) -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)


def test_every_variable_that_is_read_is_in_the_readme() -> None:
    read = set(re.findall(r'env\.get\("(\w+)"\)', inspect.getsource(settings)))
    assert len(read) == 12
    assert read <= set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))


@pytest.mark.refreshed
def test_its_sql_and_python_run(platform: Platform) -> None:
    statements = [statement for block in blocks("sql") for statement in block.split(";") if statement.strip()]
    results = [platform.query(re.sub(r"--.*", "", statement)) for statement in statements]
    assert [len(rows) for rows in results] == [1, 0, 1, 1]
    for code in blocks("python"):
        names: dict[str, object] = {}
        exec(code, names)
        assert len(names["orders"]) == len(names["before"]) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert missing == []
