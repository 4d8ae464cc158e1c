"""The sensor's ticks share sessions with ToteSys, and leave no others behind."""

from __future__ import annotations

import psycopg

from totesys_assets.staleness.following import end_following
from totesys_assets.staleness.look import look
from totesys_assets_tests.automation.test_sensor import new_order, tick
from totesys_assets_tests.conftest import Platform


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
