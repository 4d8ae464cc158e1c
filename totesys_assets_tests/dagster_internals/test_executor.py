"""Steps side by side: which goes when, that they are one run all the same, and that an interrupt ends all of them."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import psycopg
import pytest

from totesys_assets import engine
from totesys_assets.dagster_internals import switch
from totesys_assets.dagster_internals.executor import StepOrder
from totesys_assets.dagster_internals.switch import execute_here, steps_executor
from totesys_assets.names import TOTESYS, WAREHOUSE
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.complete import require_complete

BEGIN_AND_END = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS}


def made(**steps: tuple[str | None, int]) -> StepOrder:
    """An order in which every step is ready."""
    order = StepOrder(steps)
    for key in steps:
        order.ready(key)
    return order


def test_steps_start_by_priority_and_then_by_name_up_to_two() -> None:
    order = made(low=(None, 1), b=(None, 2), a=(None, 2))
    assert [order.next(), order.next(), order.next()] == ["a", "b", None]
    order.ended("a")
    assert order.next() == "low"


def test_one_table_at_a_time_is_captured_and_other_steps_go_beside_it() -> None:
    order = made(capture=(TOTESYS, 3), another=(TOTESYS, 3), build=(None, 2))
    assert [order.next(), order.next()] == ["another", "build"]
    order.ended("build")
    assert order.next() is None
    order.ended("another")
    assert order.next() == "capture"


def test_facts_are_loaded_after_all_dimensions_even_those_that_are_not_ready() -> None:
    order = StepOrder({"star": (None, 2), "dim": (WAREHOUSE, 1), "fact": (WAREHOUSE, 0), "other": (WAREHOUSE, 0)})
    order.ready("star")
    order.ready("fact")
    order.ready("other")
    assert [order.next(), order.next()] == ["star", None]
    order.ended("star")
    order.ready("dim")
    assert [order.next(), order.next()] == ["dim", None]
    order.ended("dim")
    assert [order.next(), order.next()] == ["fact", "other"]


def test_facts_are_loaded_when_a_dimension_never_comes() -> None:
    order = StepOrder({"star": (None, 2), "dim": (WAREHOUSE, 1), "fact": (WAREHOUSE, 0)})
    order.ready("star")
    order.ready("fact")
    assert order.next() == "star"
    assert order.next() is None
    order.ended("star")  # it has failed, and its dimension is not to be ready
    assert order.next() == "fact"


def test_a_step_that_is_tried_again_starts_again() -> None:
    order = made(capture=(TOTESYS, 1))
    assert order.next() == "capture"
    order.ended("capture")
    assert order.next() is None
    order.ready("capture")
    assert order.next() == "capture"


@contextmanager
def shipped(postgres_server: PostgresServer, trade_template: str, folder: Path) -> Iterator[Platform]:
    """A platform whose Dagster is configured as it is shipped."""
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    warehouse, state = postgres_server.database(), postgres_server.database()
    with make_platform(source, warehouse, folder, dagster=state) as platform:
        yield platform


@pytest.fixture
def recorded(postgres_server: PostgresServer, trade_template: str, tmp_path: Path) -> Iterator[Platform]:
    """A platform on the shipped configuration; nothing refreshed yet."""
    with shipped(postgres_server, trade_template, tmp_path) as platform:
        yield platform


@pytest.fixture(scope="module")
def once(
    postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform on the shipped configuration, refreshed once; no test may run anything in it."""
    with shipped(postgres_server, trade_template, tmp_path_factory.mktemp("once")) as platform:
        platform.refresh()
        yield platform


def spans(platform: Platform) -> dict[str, tuple[float, float]]:
    """When each step of the last run began and ended."""
    (run,) = platform.instance.get_runs(limit=1)
    found: dict[str, list[float]] = {}
    for entry in platform.instance.all_logs(run.run_id, of_type=BEGIN_AND_END):
        found.setdefault(str(entry.step_key), []).append(entry.timestamp)
    return {key: (times[0], times[1]) for key, times in found.items()}


def test_a_run_takes_its_steps_side_by_side_and_what_must_follow_does(once: Platform) -> None:
    steps = spans(once)
    assert len(steps) == 52

    def at_once(keys: list[str]) -> int:
        moments = [begin for begin, _ in map(steps.__getitem__, keys)]
        return max(sum(steps[key][0] <= moment < steps[key][1] for key in keys) for moment in moments)

    assert at_once(list(steps)) == 2
    assert at_once([key for key in steps if key.startswith("totesys__")]) == 1
    # The facts wait for the dimension of transactions, which comes of a large table.
    large = [steps[f"totesys__{table}"][0] for table in ("sales_order", "purchase_order", "payment")]
    assert steps["totesys__transaction"][1] <= min(large)
    dimensions = [steps[key][1] for key in steps if key.startswith("warehouse__dim")]
    facts = [steps[key][0] for key in steps if key.startswith("warehouse__fact")]
    assert max(dimensions) <= min(facts)
    for table in ("sales_order", "purchase_order", "payment"):
        assert steps[f"totesys__{table}"][1] <= steps[f"star__fact_{table}"][0]
        assert steps[f"star__fact_{table}"][1] <= steps[f"warehouse__fact_{table}"][0]


def test_what_a_step_logs_is_noted_once_and_with_that_step(once: Platform) -> None:
    (run,) = once.instance.get_runs(limit=1)
    said = [(entry.step_key, entry.message) for entry in once.instance.all_logs(run.run_id)]
    ends = [(key, text) for key, text in said if re.search(r"(versions? added|rows? (written|built))$", text)]
    assert len(ends) == 52, ends
    for key, text in ends:
        assert str(key) == text.partition(":")[0].replace("/", "__")


@pytest.mark.refreshed
def test_the_seconds_of_a_run_are_shared_out_among_its_steps(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET units_sold = 7")
    began = time.monotonic()
    (outcome,) = platform.refresh()
    taken = time.monotonic() - began
    assert set(outcome.seconds) == {"totesys", "star", "mart", "warehouse", "dagster"}
    assert min(outcome.seconds.values()) >= 0
    assert sum(outcome.seconds.values()) <= taken


@contextmanager
def locked(platform: Platform) -> Iterator[psycopg.Connection]:
    """The source with a table that nobody can read for as long as the block."""
    with psycopg.connect(platform.totesys_url) as connection:
        connection.execute("LOCK TABLE payment IN ACCESS EXCLUSIVE MODE")
        yield connection


SIGNALS = [(signal.SIGINT, 130, ["--full"]), (signal.SIGTERM, 143, [])]


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "code", "arguments"), SIGNALS)
def test_a_signal_ends_a_refresh_within_seconds_though_it_waits_for_a_lock_and_nothing_is_lost(
    recorded: Platform, number: signal.Signals, code: int, arguments: list[str]
) -> None:
    with locked(recorded) as lock:
        command = [sys.executable, "-m", "totesys_assets.cli", "refresh", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            waits = "SELECT count(*) FROM pg_locks WHERE relation = 'payment'::regclass AND NOT granted"
            while lock.execute(waits).fetchone() == (0,):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            process.send_signal(number)
            began = time.monotonic()
            said, _ = process.communicate(timeout=60)
            taken = time.monotonic() - began
    assert process.returncode == code, said
    assert taken < 6, said
    assert "Traceback" not in said
    assert "Stopped before the end" in said
    recorded.refresh()
    require_complete(recorded)


# A query of some seconds for the one thread that DuckDB is given.
LONG = "SELECT sum(a.range * b.range) FROM range(100_000) AS a, range({rows}) AS b"


@pytest.fixture
def bystander() -> Iterator[Callable[[], str]]:
    """A query of this process that no run has asked for, under way; called, it waits and says how the query ended."""
    connection, ended = engine.connect(), queue.SimpleQueue[str]()

    def work() -> None:
        try:
            ended.put(str(connection.execute(LONG.format(rows=5_000)).fetchone() is not None))
        except duckdb.Error as error:
            ended.put(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    yield lambda: ended.get(timeout=120)
    connection.interrupt()
    thread.join()


def test_a_run_that_is_broken_interrupts_what_it_does_and_nothing_else_of_the_process(
    bystander: Callable[[], str],
) -> None:
    begun, said = threading.Event(), queue.SimpleQueue[str]()
    opened_before = engine.connect()

    def query(connection: duckdb.DuckDBPyConnection) -> None:
        begun.set()
        try:
            connection.execute(LONG.format(rows=1_000_000))
        except duckdb.Error as error:
            said.put(str(error))
            raise

    @dg.op(tags={"dagster/priority": "2"})
    def reads() -> None:
        engine.claim(opened_before)
        query(opened_before)

    @dg.op(tags={"dagster/priority": "1"})
    def breaks() -> None:
        assert begun.wait(30)
        time.sleep(0.5)  # until DuckDB is at work: an interrupt before that is forgotten
        raise KeyboardInterrupt

    @dg.job(executor_def=steps_executor)
    def broken() -> None:
        reads()
        breaks()

    with dg.DagsterInstance.ephemeral() as instance:
        assert not execute_here(broken, instance, run_config={}, tags={}).success
    assert "INTERRUPT" in said.get(timeout=1)
    assert bystander() == "True"


def test_a_run_whose_output_cannot_be_kept_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    @dg.op
    def works() -> None:
        print("worked")

    @dg.job(executor_def=steps_executor)
    def printing() -> None:
        works()

    with dg.DagsterInstance.ephemeral() as instance:

        def full(_: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(instance.compute_log_manager, "capture_logs", full)
        result = execute_here(printing, instance, run_config={}, tags={})
        said = [entry.message for entry in instance.all_logs(result.run_id)]
    assert result.success
    assert "What the run prints is not kept: No space left on device" in said


@pytest.mark.parametrize("is_stock", [False, True])
def test_sigterm_ends_a_program_in_the_background_after_a_run_too(
    is_stock: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.op
    def works() -> None:
        pass

    @dg.job(executor_def=steps_executor)
    def working() -> None:
        works()

    def end(*_: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(switch, "in_use", lambda _: not is_stock)
    # A shell without job control lets what it starts in the background ignore SIGINT.
    before = {kind: signal.signal(kind, way) for kind, way in ((signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, end))}
    try:
        with dg.DagsterInstance.ephemeral() as instance:
            assert execute_here(working, instance, run_config={}, tags={}).success
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for kind, way in before.items():
            signal.signal(kind, way)
