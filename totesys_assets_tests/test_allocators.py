"""How much freed memory a process keeps: in how many places the system's allocator has it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

# Eight threads that hold memory of the system's allocator at the same time.
_THREADS = """
import ctypes, sys, threading
import totesys_assets
together = threading.Barrier(8)
def work():
    held = [bytes(1000 + number) for number in range(100)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[each.start() for each in threads]
[each.join() for each in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def places(folder: Path, **variables: str) -> int:
    """In how many places a process of the platform has memory."""
    said = folder / "malloc.xml"
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", _THREADS, str(said)]
    subprocess.run(command, env={**environment, **variables}, check=True, timeout=60)
    return len(ET.parse(said).findall("heap"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other systems have no such setting")
def test_the_system_keeps_freed_memory_in_two_places_unless_the_environment_says_otherwise(tmp_path: Path) -> None:
    assert places(tmp_path) == 2
    assert places(tmp_path, MALLOC_ARENA_MAX="5") == 5


def test_what_the_environment_says_of_the_others_is_left_alone() -> None:
    show = "import os, totesys_assets; print(os.environ['ARROW_DEFAULT_MEMORY_POOL'])"
    for said, expected in (({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")):
        environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
        command = [sys.executable, "-c", show]
        found = subprocess.run(command, env=environment | said, check=True, timeout=60, capture_output=True, text=True)
        assert found.stdout.strip() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they use the system's allocator")
@pytest.mark.parametrize(
    ("asked", "use"),
    [
        ("DUCKDB_JE_MALLOC_CONF", "import duckdb; duckdb.connect().execute('SELECT 1')"),
        ("_RJEM_MALLOC_CONF", "import deltalake"),
    ],
)
def test_a_library_understands_what_it_is_told(asked: str, use: str) -> None:
    show = f"import os; os.environ.pop('{asked}', None); import totesys_assets; print(os.environ['{asked}'])"
    said = subprocess.run([sys.executable, "-c", show], check=True, timeout=60, capture_output=True, text=True).stdout
    environment = {**os.environ, asked: f"{said.strip()},confirm_conf:true"}
    command = [sys.executable, "-c", use]
    told = subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True, text=True).stderr
    assert "Invalid conf" not in told
    assert all(f"Set conf value: {each}" in told for each in said.strip().split(",")), told
