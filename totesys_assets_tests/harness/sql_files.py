"""Run the files of deploy/sql as their first lines say."""

from __future__ import annotations

import subprocess
from pathlib import Path

from totesys_assets.local.postgres_programs import binaries

FILES = Path(__file__).parents[2] / "deploy" / "sql"


def apply(file: str, url: str, **variables: str) -> None:
    """Run one of the files; it must say nothing, or what it warns of would be lost among lines for each grant."""
    options = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
    command = [str(binaries() / "psql"), "-X", *options, "-d", url, "-f", str(FILES / file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", ""), ended.stderr
