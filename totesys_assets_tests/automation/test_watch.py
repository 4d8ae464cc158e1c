"""Waiting inside a tick: what ends it, and what the probe costs the source."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import psycopg

from totesys_assets.automation.watch import POLL_SECONDS, Probe, Wait
from totesys_assets_tests.conftest import Platform


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float, stopping: Path) -> Wait:
        return Wait(seconds, stopping, clock=self.time, sleep=self.sleep)


def test_it_waits_until_the_thing_has_happened(tmp_path: Path) -> None:
    clock, asked = Clock(), itertools.count(1)
    assert clock.wait(9, tmp_path / "stopping").until(lambda: next(asked) == 10)
    assert abs(clock.now - 10 * POLL_SECONDS) < 0.01


def test_it_gives_up_when_its_time_is_up(tmp_path: Path) -> None:
    clock = Clock()
    wait = clock.wait(9, tmp_path / "stopping")
    assert not wait.until(lambda: False)
    assert 9 <= clock.now <= 9 + 2 * POLL_SECONDS
    assert not wait.until(lambda: True)


def test_it_does_not_ask_during_the_pause(tmp_path: Path) -> None:
    clock = Clock()
    assert clock.wait(9, tmp_path / "stopping").until(lambda: True, pause=3)
    assert 3 <= clock.now <= 3 + 2 * POLL_SECONDS


def test_it_ends_when_dagster_is_about_to_be_stopped(tmp_path: Path) -> None:
    clock, stopping = Clock(), tmp_path / "stopping"

    def never() -> bool:
        stopping.touch()
        return False

    assert not clock.wait(9, stopping).until(never)
    assert clock.now < 2
    again = Clock()
    assert not again.wait(9, stopping).until(lambda: False)
    assert again.now >= 9  # what is left of an earlier stop does not matter


def test_the_probe_sees_a_commit_and_nothing_else(platform: Platform) -> None:
    with psycopg.connect(platform.totesys_url) as writer, Probe(platform.totesys_url) as probe:
        probe.note()
        assert probe.quiet_until == 0
        assert not probe.moved()
        writer.execute("SELECT count(*) FROM sales_order")
        before = time.time()
        assert not probe.moved()
        assert before <= probe.quiet_until <= time.time()
        writer.execute("UPDATE design SET file_name = file_name")
        committing = time.time()
        writer.commit()
        assert probe.moved()
        assert probe.quiet_until <= committing  # what was committed since was committed later than that
        probe.note()
        assert not probe.moved()


def test_between_two_probes_no_transaction_is_open_in_the_source(platform: Platform) -> None:
    with Probe(platform.totesys_url) as probe:
        probe.note()
        with psycopg.connect(platform.totesys_url) as other:
            sessions = other.execute(
                "SELECT state, backend_xid, backend_xmin FROM pg_stat_activity "
                "WHERE application_name = 'totesys_assets' AND datname = current_database()"
            ).fetchall()
    assert sessions == [("idle", None, None)]


def test_a_source_that_does_not_answer_counts_as_moved_so_that_the_look_says_why() -> None:
    with Probe("postgresql://nobody@127.0.0.1:1/nowhere") as probe:
        probe.note()
        assert probe.moved()
