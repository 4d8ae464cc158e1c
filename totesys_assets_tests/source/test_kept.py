"""Sessions with ToteSys that are kept from one look to the next: used again while they serve, and never for long."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast

import duckdb
import psycopg
import pytest

from totesys_assets import engine
from totesys_assets.source.totesys import Totesys, _begin, kept
from totesys_assets.source.totesys.kept import KEPT_SECONDS, KeptTotesys
from totesys_assets.source.totesys.log import Log
from totesys_assets_tests.conftest import Platform, PostgresServer

NAME = "kept"


@pytest.fixture
def url(platform: Platform) -> str:
    return f"{platform.totesys_url}?application_name={NAME}"


@pytest.fixture
def totesys(url: str) -> Iterator[Totesys]:
    made = opened(url)
    yield made
    made.close()


def opened(url: str) -> Totesys:
    return Totesys(url, allow_superuser=True, log=Log(url), keeps_session=True)


def look(source: Totesys) -> int:
    """The session in which a snapshot was taken."""
    with source.snapshot() as snapshot:
        assert snapshot.rows("SELECT 1") == [(1,)]
        return snapshot.process


def sessions(platform: Platform) -> list[tuple[int, str]]:
    """Those of ours, and what they do."""
    with psycopg.connect(platform.totesys_url) as connection:
        return connection.execute(
            "SELECT pid, state FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()",
            [NAME],
        ).fetchall()


def end_sessions(platform: Platform) -> None:
    platform.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = %s", [NAME])


def gone(platform: Platform) -> bool:
    """Whether no session is left within a while: a server takes a moment to end one."""
    for _ in range(500):
        if not sessions(platform):
            return True
        time.sleep(0.02)
    return False


def test_a_session_is_used_again_and_has_no_transaction_in_between(totesys: Totesys, platform: Platform) -> None:
    session = look(totesys)
    assert sessions(platform) == [(session, "idle")]
    platform.sql("DELETE FROM payment WHERE payment_id = 1")
    with totesys.snapshot() as snapshot:
        assert snapshot.process == session
        assert snapshot.rows("SELECT 1 FROM public.payment WHERE payment_id = 1") == []
        snapshot.connection.execute("CREATE TEMP TABLE left_over AS SELECT 1")
    with totesys.snapshot() as snapshot:
        assert snapshot.connection.execute("SELECT 1 FROM duckdb_tables() WHERE temporary").fetchall() == []
    totesys.close()
    assert gone(platform)


def test_a_session_that_was_ended_meanwhile_is_replaced(
    totesys: Totesys, platform: Platform, postgres_server: PostgresServer
) -> None:
    assert totesys.log is not None
    for _ in range(2):
        session = look(totesys)
        totesys.log.state()
        end_sessions(platform)
        assert look(totesys) != session
        totesys.log.state()
    with postgres_server.away():
        pass
    look(totesys)
    totesys.log.state()


def test_a_session_is_not_kept_after_an_error(totesys: Totesys, platform: Platform) -> None:
    session = look(totesys)
    with suppress(ZeroDivisionError), totesys.snapshot() as snapshot:
        assert snapshot.process == session
        raise ZeroDivisionError
    assert gone(platform)
    assert look(totesys) != session


def test_a_transaction_that_shows_something_already_is_not_taken_for_a_new_one(totesys: Totesys) -> None:
    look(totesys)
    connection = engine.another(totesys._kept[0])

    class Left:
        """A connection whose last transaction in the server did not end."""

        def execute(self, statement: str) -> None:
            connection.execute(statement)
            if statement == "BEGIN":
                connection.execute("CALL postgres_execute('totesys', 'SELECT 1')")

    with pytest.raises(duckdb.Error, match="must be called before any query"):
        _begin(cast("duckdb.DuckDBPyConnection", Left()))
    engine.close(connection)


def test_a_session_is_kept_for_a_minute_at_most(url: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    keeping = KeptTotesys(opened, clock=lambda: now[0])

    def session(url: str = url) -> int:
        with keeping.of(url) as source:
            return look(source)

    first = session()
    now[0] = KEPT_SECONDS - 1
    assert session() == first  # which makes it no younger
    now[0] = KEPT_SECONDS + 1
    second = session()
    assert second != first
    other = session(f"{url}&options=-c%20work_mem%3D1MB")  # it leads elsewhere, perhaps
    assert other != second
    keeping.close()
    assert gone(platform)
    monkeypatch.setattr(kept, "KEPT_SECONDS", 0.2)
    keeping = KeptTotesys(opened)
    session()
    assert gone(platform)  # though nobody looks again


def test_two_at_once_have_a_session_each_and_one_is_kept(url: str, platform: Platform) -> None:
    keeping, both = KeptTotesys(opened), threading.Barrier(2)
    found: list[int] = []

    def look_at_once() -> None:
        with keeping.of(url) as source:
            both.wait(60)
            found.append(look(source))
            both.wait(60)

    threads = [threading.Thread(target=look_at_once) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 2
    (left,) = sessions(platform)
    assert left[0] in found
    keeping.close()


def test_nothing_is_kept_after_a_failure(url: str, platform: Platform) -> None:
    keeping = KeptTotesys(opened)
    with suppress(ZeroDivisionError), keeping.of(url) as source:
        look(source)
        raise ZeroDivisionError
    assert gone(platform)


def test_a_forked_process_leaves_its_parents_sessions_alone(url: str, platform: Platform) -> None:
    script = (
        "import os, sys; from totesys_assets_tests.source.test_kept import KeptTotesys, look, opened\n"
        "keeping = KeptTotesys(opened)\n"
        "def session():\n"
        "    with keeping.of(sys.argv[1]) as source: return look(source)\n"
        "first = session()\n"
        "if (child := os.fork()) == 0:\n"
        "    import atexit; assert session() != first; atexit._run_exitfuncs(); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0; assert session() == first"
    )
    done = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert gone(platform)


@pytest.mark.parametrize("is_there", [True, False], ids=["its server is there", "its server is gone"])
def test_sessions_end_with_the_process(url: str, platform: Platform, *, is_there: bool) -> None:
    script = (
        "import sys; from totesys_assets_tests.source.test_kept import KeptTotesys, look, opened\n"
        "with KeptTotesys(opened).of(sys.argv[1]) as source: look(source); source.log.state()\n"
        "keeping = KeptTotesys(opened)\n"
        "with keeping.of(sys.argv[1]) as source: look(source); source.log.state()\n"
        "print(flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert len(sessions(platform)) >= 2
    if not is_there:
        end_sessions(platform)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 0
    assert gone(platform)


def test_a_session_is_used_again_behind_a_pooler(platform: Platform, pooler: Callable[..., list[str]]) -> None:
    (pooled,) = pooler(platform.totesys_url)
    source = opened(pooled)
    for units in range(1000, 1003):
        platform.sql("UPDATE sales_order SET units_sold = %s", [units])
        with source.snapshot() as snapshot:
            assert snapshot.rows("SELECT DISTINCT units_sold FROM public.sales_order") == [(units,)]
    source.close()
