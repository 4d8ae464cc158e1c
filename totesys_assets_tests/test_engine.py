"""DuckDB's sessions: each has a database of its own, all share one DuckDB."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from totesys_assets import engine

pytestmark = pytest.mark.pure

# A child of fork that uses DuckDB while a thread of its parent is at work in it, and the parent afterwards.
FORKED = """
import os, threading
from totesys_assets import engine

def work():
    with engine.session() as connection:
        started.set()
        connection.execute("SELECT max(hash(range)) FROM range(200_000_000)").fetchall()

started = threading.Event()
thread = threading.Thread(target=work)
thread.start()
started.wait()
child = os.fork()
if child == 0:
    with engine.session() as connection:
        os._exit(connection.execute("SELECT 41 + 1").fetchall()[0][0])
_, status = os.waitpid(child, 0)
engine.interrupt()
try:
    thread.join()
finally:
    with engine.session() as connection:
        print(os.waitstatus_to_exitcode(status), connection.execute("SELECT 1").fetchall())
"""


def names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views() "
        "WHERE NOT internal ORDER BY 1"
    ).fetchall()
    return [str(name) for (name,) in found]


def test_a_batch_has_as_many_rows_as_have_so_many_bytes() -> None:
    with engine.session() as connection:
        small = [*engine.batches(connection.execute("SELECT range FROM range(70_000)"))]
        assert [each.num_rows > 25_000 for each in small] == [True, True, False]
        large = [*engine.batches(connection.execute("SELECT range, repeat('x', 5_000) FROM range(10_000)"))]
    assert max(each.nbytes for each in large) < 30_000_000
    for found, rows in ((small, 70_000), (large, 10_000)):
        assert pa.Table.from_batches(found).column(0).to_pylist() == [*range(rows)]


def test_sessions_at_once_have_tables_views_and_schemas_of_the_same_names() -> None:
    with engine.session() as one, engine.session() as other:
        for number, connection in enumerate((one, other)):
            connection.execute("CREATE SCHEMA source")
            connection.execute(f"CREATE TABLE source.orders AS SELECT {number} AS units")
            connection.execute("CREATE VIEW source.units AS SELECT units FROM source.orders")
            connection.execute(f"CREATE TEMP TABLE incoming AS SELECT {number} AS units")
        assert one.execute("FROM source.units").fetchall() == [(0,)]
        assert other.execute("FROM source.units, incoming").fetchall() == [(1, 1)]
        assert one.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]


def unread(connection: duckdb.DuckDBPyConnection) -> None:
    next(engine.batches(connection.execute("FROM range(10_000_000)")))


def in_a_transaction(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE orders AS FROM range(1000)")
    raise KeyError("whatever")


def failed(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT error('whatever')")


@pytest.mark.parametrize("used", [unread, in_a_transaction, failed])
def test_a_session_leaves_nothing_behind_however_it_ends(used: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
    with suppress(KeyError, duckdb.Error), engine.session() as connection:
        connection.execute("CREATE TABLE held AS FROM range(1000)")
        used(connection)
    with engine.session() as connection:
        assert names(connection) == []
        found = connection.execute("SELECT database_name FROM duckdb_databases() WHERE NOT internal").fetchall()
        assert len(found) == 2, found


def test_a_session_leaves_nothing_behind_however_often_it_is_interrupted() -> None:
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.is_set():
            engine.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        for _ in range(300):
            with suppress(duckdb.Error), engine.session() as connection:
                connection.execute("CREATE TABLE orders AS FROM range(1000)")
    finally:
        ended.set()
        thread.join()
    with engine.session() as connection:
        found = connection.execute("SELECT database_name FROM duckdb_databases() WHERE NOT internal").fetchall()
        assert len(found) == 2, found


def test_after_an_error_that_makes_duckdb_unusable_the_next_session_has_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unusable:
        def cursor(self) -> None:
            raise duckdb.FatalException("database has been invalidated")

    engine._shared.cache_clear()
    monkeypatch.setattr(engine, "_new", lambda _: Unusable())
    engine._shared()
    monkeypatch.undo()
    with engine.session() as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_forked_process_has_a_duckdb_of_its_own() -> None:
    ran = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "42 [(1,)]\n", ran.stderr


def spilled(connection: duckdb.DuckDBPyConnection) -> Path:
    ((folder,),) = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    return Path(str(folder))


def test_what_two_duckdbs_spill_stays_apart_and_is_for_nobody_else() -> None:
    with closing(engine.connect()) as one, closing(engine.connect()) as other:
        for number, connection in enumerate((one, other)):
            connection.execute("SET memory_limit = '70MB'")
            # A long text is spilled into a file by itself, other rows into files for many.
            connection.execute(f"CREATE TABLE long AS SELECT repeat('{number}', 300_000) AS text FROM range(150)")
            connection.execute(
                f"CREATE TABLE short AS SELECT range, md5('{number}' || range) AS text FROM range(600_000)"
            )
        for number, connection in enumerate((one, other)):
            assert len([*spilled(connection).iterdir()]) > 1
            wrong = f"FROM long WHERE text <> repeat('{number}', 300_000)"
            assert connection.execute(f"SELECT count(*) {wrong}").fetchall() == [(0,)]
            wrong = f"FROM short WHERE text <> md5('{number}' || range)"
            assert connection.execute(f"SELECT count(*) {wrong}").fetchall() == [(0,)]
            assert spilled(connection).parent.stat().st_mode & 0o777 == 0o700
        folders = [spilled(connection) for connection in (one, other)]
    assert not [folder for folder in folders if folder.exists()]


# A process that says where its DuckDB would spill, and then where that of a forked child would.
PLACES = """
import os
from totesys_assets import engine

def tell():
    with engine.session() as connection:
        print(connection.execute("SELECT current_setting('temp_directory')").fetchall()[0][0], flush=True)

tell()
child = os.fork()
if child == 0:
    tell()
    os._exit(0)
os.waitpid(child, 0)
input()
"""


def test_what_a_killed_process_left_is_removed_and_what_is_anothers_is_let_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "totesys-duckdb-0").symlink_to(elsewhere)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    found = []
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", PLACES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            places = [Path(process.stdout.readline().strip()) for _ in range(2)]
            assert [each.parent.name for each in places] == ["totesys-duckdb-1", "totesys-duckdb-2"]
            found.append([*places[0].parent.iterdir()])
            places[0].mkdir()
            (places[0] / "duckdb_temp_block-1.block").touch()
            process.kill()
    assert found == [[], []]
    assert not [*elsewhere.iterdir()]
