"""The mart of docs/how-to/change.md, on a copy of the package: built, loaded, audited, replayed (examples/mart.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from totesys_assets_tests.harness.package_copy import (
    MART,
    PROJECT,
    add_more_marts,
    copy_of_the_package,
    environment,
)

EXAMPLE = PROJECT / "totesys_assets_tests" / "examples" / "mart.py"


def test_a_mart_is_its_select_and_its_ddl(tmp_path: Path) -> None:
    assert "4 passed" in tried(tmp_path)


@pytest.mark.thorough
def test_a_mart_is_audited_replayed_made_anew_and_goes_on_with_another_lake(tmp_path: Path) -> None:
    assert "5 passed" in tried(tmp_path, "-m", "thorough")


def tried(folder: Path, *options: str) -> str:
    """What pytest said of the example, on a copy of the package that has the marts."""
    package = copy_of_the_package(folder / "package", MART)
    add_more_marts(package)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "-n", "0"]
    ran = subprocess.run(
        [*command, *options, "--rootdir", str(PROJECT), "-c", str(PROJECT / "pyproject.toml"), str(EXAMPLE)],
        cwd=package,
        env=environment(package),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    return ran.stdout
