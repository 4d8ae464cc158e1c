"""The SQL files of deploy/sql: where they are, and running one of them with psql as its first lines describe.

Does not belong here: what is in them, and when they are run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg.conninfo

from totesys_assets.errors import PlatformError
from totesys_assets.local.postgres_programs import binaries


def sql_folder() -> Path:
    """The folder of the SQL files: in the checkout, or beside the environment, as in the image."""
    checkout, image = Path(__file__).parents[2] / "deploy" / "sql", Path(sys.prefix).parent / "sql"
    return checkout if checkout.is_dir() else image


def run_file(folder: Path, name: str, url: str, **variables: str) -> None:
    """Run one of the files, with these variables of psql. Raises PlatformError with what psql says."""
    from totesys_assets.engine import one_line  # here: whoever only looks for the folder needs no DuckDB
    from totesys_assets.libpq import conninfo
    from totesys_assets.postgres.session_settings import set_session

    parts = conninfo(url)
    # In the environment, because everybody on the machine can see a command line.
    secret = {"PGPASSWORD": parts.pop("password")} if parts.get("password") else {}
    options = [part for variable, value in variables.items() for part in ("-v", f"{variable}={value}")]
    psql = shutil.which("psql") or str(binaries() / "psql")
    command = [psql, "-X", "-q", "-w", *options, "-c", set_session(), "-f", str(folder / name)]
    ended = subprocess.run(
        [*command, "-d", psycopg.conninfo.make_conninfo("", **parts)],
        env={**os.environ, **secret},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise PlatformError(f"psql could not run {name}: {one_line(ended.stderr)}.")
