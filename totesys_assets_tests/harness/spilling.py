"""Processes that hold more than fits in DuckDB's memory, all at once, each with two DuckDBs of the platform.

Belongs here: starting them, and whether each still has its own rows. Does not belong here: the folders, which are
spill.py's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb

from totesys_assets import engine

# Run first in each process: code that is broken on purpose.
BROKEN = ""
_PROCESSES = 2
_PATIENCE_SECONDS = 120
_PROGRAM = "from totesys_assets_tests.harness.spilling import hold; hold(int(__import__('sys').argv[1]))"
_HELD, _RIGHT = "held", "right"
# A long text is spilled into a file by itself, other rows into files for many.
_TABLES = {
    "short": ("range(400_000)", "md5('{text}' || number)"),
    "long": ("range(100)", "repeat('{text}', 30_000)"),
}


def hold(number: int) -> None:
    """In a process of its own: hold rows in two DuckDBs, say so, and when told to, whether they are as they were."""
    with engine.session() as one, closing(engine.connect()) as other:
        for name, connection in (("one", one), ("other", other)):
            connection.execute("SET memory_limit = '40MB'")
            for table, (numbers, value) in _TABLES.items():
                value = value.format(text=f"{name} {number}")
                connection.execute(
                    f"CREATE TABLE {table} AS SELECT number, {value} AS text FROM {numbers} AS t(number)"
                )
            assert connection.execute("SELECT count(*) > 1 FROM duckdb_temporary_files()").fetchall() == [(True,)]
        print(_HELD, flush=True)
        input()
        wrong = [_wrong(connection, f"{name} {number}") for name, connection in (("one", one), ("other", other))]
    print(_RIGHT if not any(wrong) else f"{wrong} rows of others", flush=True)


def _wrong(connection: duckdb.DuckDBPyConnection, text: str) -> int:
    differing = 0
    for table, (_, value) in _TABLES.items():
        ((count,),) = connection.execute(
            f"SELECT count(*) FROM {table} WHERE text <> {value.format(text=text)}"
        ).fetchall()
        differing += int(count)
    return differing


def spill_at_once(folder: Path, meanwhile: Callable[[], None]) -> None:
    """While processes hold rows that do not fit in their memory, do something; then each must have its own rows.

    ``folder`` is theirs for temporary files.
    """
    folder.mkdir(exist_ok=True)
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", f"{BROKEN}\n{_PROGRAM}", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        for number in range(_PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            assert said == _HELD, f"rows that do not fit in memory are not held: {said} {process.stdout.read()}"
        meanwhile()
        for number, process in enumerate(processes):
            said = process.communicate("\n", timeout=_PATIENCE_SECONDS)[0].strip()
            assert said == _RIGHT, (
                f"of what process {number} spilled, it read: {said[-500:]}, exit {process.returncode}"
            )
    finally:
        for process in processes:
            process.kill()
            process.communicate()
