"""What the first refresh does ahead, while the embedded ToteSys is filled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets_tests.conftest import PostgresServer

# In a process of its own: Dagster's home is set for a whole process.
_AHEAD = """
import sys, threading
from totesys_assets import refresh
from totesys_assets.databases import Databases, databases
from totesys_assets.local import simulator
from totesys_assets.settings import Settings

settings = Settings.from_env({"TOTESYS_HOME": sys.argv[1]})
if len(sys.argv) > 2:
    for warehouse in sys.argv[4:]:
        refresh.begin_tables(settings, Databases(sys.argv[2], warehouse, sys.argv[3]))
        refresh._MAKE_TABLES.pop().join()
else:
    found, begun, create = [], threading.Event(), simulator.create
    def meanwhile(urls):
        found.append(urls)
        begun.set()
    def create_late(*arguments, **named):
        assert begun.wait(60)
        create(*arguments, **named)
    simulator.create = create_late
    with databases(settings, dagster=False, scale=0.02, meanwhile=meanwhile) as urls:
        print(found == [urls])
"""


def run(*arguments: str) -> str:
    """What a process says that does something ahead."""
    ended = subprocess.run([sys.executable, "-c", _AHEAD, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def tables(url: str) -> set[str]:
    """Names of the tables of a database, in the schema of everybody."""
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')")}


def test_the_tables_of_the_warehouse_and_of_dagster_are_made(postgres_server: PostgresServer, tmp_path: Path) -> None:
    source, warehouse, records = (postgres_server.database() for _ in range(3))
    run(str(tmp_path), source, records, warehouse)
    assert catalogue().warehouse.keys() <= tables(warehouse)
    assert {"runs", "event_logs", "jobs"} <= tables(records)


def test_what_fails_is_in_the_way_of_nothing(postgres_server: PostgresServer, tmp_path: Path) -> None:
    source, warehouse, records = (postgres_server.database() for _ in range(3))
    nobody = "postgresql://nobody@127.0.0.1:1/none"
    run(str(tmp_path), source, records, nobody, warehouse)
    assert catalogue().warehouse.keys() <= tables(warehouse)


def test_it_is_begun_before_totesys_is_filled(scratch: Path) -> None:
    assert run(str(scratch / "new")) == "True\n"
