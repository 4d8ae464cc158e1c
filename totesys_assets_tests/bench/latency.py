"""The latency: from a commit in ToteSys to the row in the warehouse, while ``totesys up`` runs.

Belongs here: starting it, placing orders, watching the warehouse as any reader could. Does not belong here: refreshes
that are started one by one (rounds.py).
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from totesys_assets.errors import PlatformError
from totesys_assets.local.simulator import Traffic
from totesys_assets_tests.bench.meter import descendants, memory_of_tree
from totesys_assets_tests.bench.sandbox import Sandbox

START_SECONDS = 300
ARRIVAL_SECONDS = 180
STOP_SECONDS = 60
POLL_SECONDS = 0.005  # the resolution; without a pause, watching would take a processor from what it watches
PAUSE_SECONDS = 3.0  # at most, drawn anew for each order, lest all of them meet the sensor at the same moment
READY = "the UI is at"
VISIBLE = "SELECT 1 FROM current_sales_order WHERE sales_order_id = %s"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Latency:
    """Seconds from commit to visibility, one per order, in their order; and the memory of all processes at its end.

    ``in_the_lake``: seconds until the order was in the lake's journal; none where the log is not followed.
    """

    scale: str
    seconds: list[float]
    memory_bytes: int
    in_the_lake: list[float] = field(default_factory=list)


def measure(sandbox: Sandbox, samples: int, report: Report) -> Latency:
    """Place ``samples`` orders, one after the other, and see each arrive. One before them is not counted."""
    draw = random.Random(samples)
    seconds: list[float] = []
    in_the_lake: list[float] = []
    with (
        _up(sandbox) as process,
        Traffic(sandbox.urls.totesys, seed=samples) as traffic,
        psycopg.connect(sandbox.urls.totesys, autocommit=True) as source,
        psycopg.connect(sandbox.urls.warehouse, autocommit=True) as warehouse,
    ):
        for number in range(samples + 1):
            time.sleep(draw.uniform(0, PAUSE_SECONDS))
            journal = Journal(sandbox)
            traffic.new_sale()
            committed = time.monotonic()
            newest = source.execute("SELECT max(sales_order_id) FROM sales_order").fetchall()[0][0]
            _await_visible(warehouse, newest, committed + ARRIVAL_SECONDS, journal.look)
            taken = time.monotonic() - committed
            if number:
                seconds.append(round(taken, 3))
                in_the_lake += [round(journal.moved_at - committed, 3)] if journal.moved_at is not None else []
                report(f"{sandbox.scale.name} order {number} of {samples}: in the warehouse after {taken:.2f} s")
        memory = memory_of_tree(process.pid)
    return Latency(sandbox.scale.name, seconds, memory, in_the_lake)


class Journal:
    """When the next commit to the lake's journal is there, as often as ``look`` is called."""

    def __init__(self, sandbox: Sandbox) -> None:
        folder = sandbox.home / "lake" / "journal" / "_delta_log"
        commits = [int(path.stem) for path in folder.glob("*.json")]
        self._next = folder / f"{max(commits, default=0) + 1:020}.json"
        self.moved_at: float | None = None

    def look(self) -> None:
        """Note the time if it is there."""
        if self.moved_at is None and self._next.exists():
            self.moved_at = time.monotonic()


def _await_visible(
    warehouse: psycopg.Connection, order: int, deadline: float, meanwhile: Callable[[], None] = lambda: None
) -> None:
    while warehouse.execute(VISIBLE, [order]).fetchone() is None:
        meanwhile()
        if time.monotonic() > deadline:
            raise PlatformError(f"Order {order} was not in the warehouse after {ARRIVAL_SECONDS} s.")
        time.sleep(POLL_SECONDS)


@contextmanager
def _up(sandbox: Sandbox) -> Iterator[subprocess.Popen[bytes]]:
    """``totesys up`` without traffic of its own, from the moment when its UI answers."""
    program = sandbox.command("up", "--port", str(_free_port()), "--rate", "0")
    log = sandbox.home / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(program.argv),
            env=dict(program.env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C is for the bench, which then stops it in order
        )
    try:
        _await_ready(process, log)
        yield process
    finally:
        _stop(process)


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while READY not in (said := log.read_text(encoding="utf-8", errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise PlatformError(f"totesys up did not start:\n{said[-1000:]}")
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    started = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for left in started:
        with suppress(psutil.NoSuchProcess):
            left.kill()
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
