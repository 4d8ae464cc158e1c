"""The documents are true: commands and files exist, links lead somewhere, references are as the code says."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
from dataclasses import fields
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import click
import pytest

from totesys_assets import settings
from totesys_assets.automation import condition
from totesys_assets.commands import main
from totesys_assets.variables import VARIABLES
from totesys_assets_tests import reference

pytestmark = pytest.mark.pure

PROJECT = Path(__file__).parents[2]
README = PROJECT / "README.md"
DOCUMENTS = [
    README,
    PROJECT / "CONTRIBUTING.md",
    *sorted(PROJECT.glob("docs/**/*.md")),
    *sorted(path for path in PROJECT.glob("deploy/**/*.md") if "/." not in str(path.relative_to(PROJECT))),
]
# What a user follows step by step.
INSTRUCTIONS = [README, *sorted(PROJECT.glob("docs/how-to/*.md"))]
# Files that a document names without a folder, or within one of these.
_PLACES = [PROJECT, PROJECT / "totesys_assets", PROJECT / "totesys_assets_tests", PROJECT / "deploy"]
_FILES = {path.name for path in PROJECT.iterdir()} | {
    path.name
    for folder in ("totesys_assets", "totesys_assets_tests", "deploy", "docs", ".github", ".ci")
    for path in PROJECT.joinpath(folder).rglob("*")
}
# Where code and configuration name a page, and how.
_SOURCES = {".py", ".sql", ".tf", ".hcl", ".yaml", ".yml", ".sh"}
_PAGE = r"\bdocs/[\w/-]+\.(?:md|json|svg|png)\b"
# Made by who follows the document, or by the platform as it runs.
_NOT_OURS = {"terraform.tfvars", "backend.hcl", "aws.env", "soak-report.md", "_delta_log"}


def name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text(document), re.DOTALL | re.MULTILINE)


def commands(program: str, documents: list[Path] = DOCUMENTS) -> list[str]:
    """All commands of ``program`` in the documents, in blocks and in the text, without the elided ones."""
    found: list[str] = []
    for document in documents:
        found += [line for block in blocks(document, "bash") for line in block.splitlines()]
        found += re.findall(r"`([^`\n]+)`", text(document))
    found = [re.sub(r"^(\w+=\S+ +)+", "", line.split(" #")[0].strip()) for line in found]
    return sorted({line for line in found if line.startswith(f"{program} ") and "…" not in line})


@pytest.mark.parametrize("command", commands("totesys"))
def test_every_command_and_option_in_the_documents_exists(command: str) -> None:
    called, *arguments = shlex.split(command)[1:]
    if called in ("COMMAND", "--help"):
        return
    group = click.Context(main, **main.context_settings)
    found = main.get_command(group, called)
    assert found is not None
    if arguments[-1:] == ["--to"]:
        arguments = ["--from", "2026-01-01", "--to", "2026-01-02"]
    if arguments:  # else only its name is mentioned
        found.make_context(called, arguments, parent=group)


def test_every_command_is_shown_where_users_are_told_what_to_do() -> None:
    shown = {command.split()[1] for command in commands("totesys", INSTRUCTIONS)}
    assert set(main.commands) <= shown


@pytest.mark.parametrize("command", commands("make"))
def test_every_task_in_the_documents_is_in_the_makefile(command: str) -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)


def test_the_list_of_tasks_is_in_two_columns_that_fit_80() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    lines = listed.splitlines()
    tasks = re.findall(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[0].split()
    assert sorted(line.split()[0] for line in lines if len(line) <= 80) == sorted(tasks)
    assert len({len(line) - len(line[15:].lstrip()) for line in lines}) == 1  # "audit-packages" and a space


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_reference_page_is_what_the_code_says(page: str) -> None:
    assert text(reference.FOLDER / page) == reference.PAGES[page](), "Run: make reference"


def test_every_variable_that_is_read_is_described() -> None:
    read = re.findall(r'env(?:\.get\(|, )"(\w+)"', inspect.getsource(settings.Settings))
    assert set(read) == {variable.name for variable in VARIABLES}
    everywhere = {
        found
        for path in PROJECT.glob("totesys_assets/**/*.py")
        for found in re.findall(r'"((?:TOTESYS|WAREHOUSE|LAKE)_[A-Z_]+)"', path.read_text(encoding="utf-8"))
    }
    described = set(re.findall(r"^\| `(\w+)` \|", text(reference.FOLDER / "settings.md"), re.MULTILINE))
    assert everywhere - described == {"TOTESYS_UP_HOME"}  # a mark on our own processes, not a setting


def test_what_runs_when_names_every_schedule_and_sensor() -> None:
    page = text(PROJECT / "docs" / "how-to" / "operate.md").partition("\n## What runs when\n")[2].partition("\n## ")[0]
    named = {each for line in page.splitlines() if line.startswith("| s") for each in re.findall(r"`(\w+)`", line)}
    agreed = json.loads(text(PROJECT / "totesys_assets_tests" / "assets" / "definitions.json"))
    assert {*agreed["schedules"], *agreed["sensors"]} <= named


def test_the_defaults_that_are_described_are_those_that_hold() -> None:
    unset = {variable.name: variable.unset.split(";")[0].strip("`") for variable in VARIABLES}
    found = settings.Settings.from_env({"TOTESYS_URL": "postgresql://reader@db.example.com/totesys"})
    assert unset["TOTESYS_SCHEMA"] == found.totesys_schema
    assert unset["WAREHOUSE_SCHEMA"] == found.warehouse_schema
    assert unset["TOTESYS_FIRST_DAY"] == str(found.first_day)
    assert unset["TOTESYS_NEW_COLUMNS"] == found.new_columns
    assert unset["TOTESYS_STALE_MINUTES"] == str(found.stale_minutes)
    assert unset["TOTESYS_RECORD_DAYS"] == str(found.record_days)
    assert unset["TOTESYS_HOME"] == found.home.name
    assert found.lake_uri == str(found.home / "lake")


def test_the_document_of_the_status_has_the_keys_that_are_described() -> None:
    rows = re.findall(r"^\| (`.*?`) \| (.*) \|$", text(reference.FOLDER / "status.md"), re.MULTILINE)
    described = {key: within for first, within in rows for key in re.findall(r"`(\w+)`", first)}
    where = {"totesys", "lake", "warehouse", "schema", "engine"}
    assert set(described) == where | {each.name for each in fields(condition.Condition)}
    for key, of in (("source", condition.SourceTable), ("tables", condition.StarTable)):
        assert {each.name for each in fields(of)} <= set(re.findall(r"`(\w+)`", described[key]))


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    without_code = re.sub(r"^ *```.*?^ *```", "", text(document), flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_to_files_and_headings_that_are_there(document: Path) -> None:
    missing = []
    for target in re.findall(r"(?:\]\(|src=\"|href=\")([^)\"\s]+)", text(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_that_are_named_are_there(document: Path) -> None:
    named = set(re.findall(r"`((?:[\w.*-]+/)*[\w-]+\.(?:py|sql|md|sh|ya?ml|tf|json|toml|hcl|env))`", text(document)))
    missing = []
    for file in named - _NOT_OURS:
        if "/" not in file:
            there = file in _FILES
        else:
            there = any((place / file).exists() for place in [*_PLACES, document.parent])
        if not there:
            missing.append(file)
    assert missing == []


def test_every_page_can_be_reached_from_the_page_of_contents() -> None:
    contents = PROJECT / "docs" / "README.md"
    reached: set[Path] = set()
    to_read = [contents]
    while to_read:
        page = to_read.pop()
        if page not in reached:
            reached.add(page)
            links = re.findall(r"\]\(([^)#\s]+\.md)", text(page))
            to_read += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert set(PROJECT.glob("docs/**/*.md")) <= reached


def test_the_readme_stays_short() -> None:
    assert 600 < len(text(README).split()) < 1200


def test_the_code_refers_to_pages_that_are_there() -> None:
    places = ["totesys_assets", "totesys_assets_tests", "deploy", ".github"]
    sources = [path for place in places for path in PROJECT.joinpath(place).rglob("*") if path.suffix in _SOURCES]
    named = {page for path in [*sources, PROJECT / "Makefile"] for page in re.findall(_PAGE, text(path))}
    assert len(named) > 3
    assert [page for page in sorted(named) if not (PROJECT / page).exists()] == []


def test_the_messages_that_are_explained_are_those_of_the_code() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(PROJECT.glob("totesys_assets/**/*.py")))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message may stand on several lines
    page = text(PROJECT / "docs" / "how-to" / "troubleshoot.md")
    messages = [span for first in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE) for span in first.split("`")[1::2]]
    assert len(messages) > 10
    parts = [part.split() for message in messages for part in re.split(r'…|"x"|\d+|[().:]', message)]
    assert [words for words in parts if len(words) > 1 and not _says(code, words)] == []


def _says(code: str, words: list[str]) -> bool:
    """Whether at least half of the words stand in the code as they are: names may come in between as it runs."""
    half = -(-len(words) // 2)
    return any(" ".join(words[start : start + half]) in code for start in range(len(words) - half + 1))


def test_every_folder_and_module_at_the_top_of_the_package_is_described() -> None:
    described = set(re.findall(r"`(\w+(?:/|\.py))`", text(PROJECT / "docs" / "architecture.md")))
    folders = {f"{path.parent.name}/" for path in PROJECT.glob("totesys_assets/*/__init__.py")}
    modules = {path.name for path in PROJECT.glob("totesys_assets/*.py")} - {"__init__.py"}
    assert folders | modules <= described


def test_the_commands_of_contributors_name_tests_and_modules_that_are_there() -> None:
    shown = [line for block in blocks(PROJECT / "CONTRIBUTING.md", "bash") for line in block.splitlines()]
    tests = "".join(text(path) for path in PROJECT.glob("totesys_assets_tests/**/test_*.py"))
    assert len(shown) > 2
    for line in shown:
        words = shlex.split(line)
        assert words[:3] == [".venv/bin/python", "-m", "pytest"]
        assert (PROJECT / words[3]).exists()
        for option, value in pairwise(words):
            assert option != "-k" or re.search(rf"def test_\w*{value}", tests)
            assert option != "--cov" or find_spec(value)


def test_the_decisions_are_numbered_one_by_one() -> None:
    pages = sorted((PROJECT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [int(re.findall(r"^# (\d+)\. \S", text(page))[0]) for page in pages]
    assert numbers == [int(page.name.partition("-")[0]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert re.findall(r"^## (.+)$", text(page), re.MULTILINE)[:3] == ["Context", "Decision", "Consequence"]
