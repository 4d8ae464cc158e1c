"""Tests that only `make soak` runs: that it runs them all, and that each has ordinary ones beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
pytestmark = pytest.mark.pure


class Collected:
    """What pytest would run, by whether it is thorough: files, one for each test."""

    def __init__(self) -> None:
        self.files: dict[bool, list[str]] = {False: [], True: []}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self.files[item.get_closest_marker("thorough") is not None].append(str(item.path))
        items.clear()


def test_every_thorough_test_has_ordinary_ones_in_its_file() -> None:
    # scenarios() marks them for the mutants.
    marked = re.compile(r"mark\.thorough|scenarios\(CASES\)")
    names = [
        str(path) for path in Path(__file__).parents[1].rglob("test_*.py") if marked.search(path.read_text("utf-8"))
    ]
    collected = Collected()
    pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *names], plugins=[collected])
    assert len(collected.files[True]) > 90
    assert set(collected.files[True]) <= set(collected.files[False])


def test_every_thorough_test_is_run_by_make_soak_and_that_every_night() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    soak = re.search(r"^soak:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert soak is not None
    commands = soak[1].splitlines()
    assert commands[0].endswith("-m thorough")
    assert "--ignore" not in commands[0]
    assert "make soak" in (PROJECT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
