"""The sensor's ticks share sessions with ToteSys, and leave no others behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from totesys_assets.catalogue.catalogue import ddl
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.staleness.following import end_following
from totesys_assets.staleness.look import look
from totesys_assets_tests.automation.test_sensor import new_order, tick
from totesys_assets_tests.conftest import TRADE, Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.servers import LOGICAL, running
from totesys_assets_tests.harness.sql_files import apply


@pytest.fixture
def followed(scratch: Path, tmp_path: Path) -> Iterator[Platform]:
    """A platform that was refreshed once, and follows the log of its ToteSys."""
    server = EmbeddedServer(scratch / "server_of_ticks", LOGICAL)
    with running(server):
        postgres = PostgresServer(server)
        source = postgres.database("totesys")
        with psycopg.connect(source) as connection:
            connection.execute(ddl("totesys.sql"))
            connection.execute(TRADE)
        apply("source_reader.sql", source)
        apply("source_log.sql", source)
        with make_platform(source, postgres.database("warehouse"), tmp_path, TOTESYS_LOG="on") as platform:
            platform.refresh()
            yield platform


def sessions(platform: Platform) -> set[object]:
    """Those of ours in ToteSys."""
    with psycopg.connect(platform.totesys_url) as connection:
        found = connection.execute(
            "SELECT pid, state FROM pg_stat_activity "
            "WHERE application_name = 'totesys_assets' AND datname = current_database()"
        ).fetchall()
    assert {state for _, state in found} <= {"idle"}
    return {pid for pid, _ in found}


def test_ticks_that_follow_the_log_use_the_same_sessions_again(followed: Platform) -> None:
    before = sessions(followed)  # of the refresh
    tick(followed)
    new_order(followed)
    assert len(tick(followed)[0]) == 1
    ours = sessions(followed) - before
    assert len(ours) == 3  # for snapshots, for peeks, and for what is asked of the log
    for units in (1001, 1002):
        followed.sql("UPDATE sales_order SET units_sold = %s", [units])
        tick(followed)
        assert sessions(followed) - before == ours


def test_a_run_leaves_no_session_behind(followed: Platform) -> None:
    tick(followed)
    new_order(followed)
    core = followed.core
    (request,) = look(core).requests
    end_following(core)
    before = sessions(followed)
    assert followed.run(request).success
    assert sessions(followed) <= before
