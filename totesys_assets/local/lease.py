"""Leases: keeping embedded servers up for as long as any process needs them, and no longer.

Belongs here: who is the first to come and the last to go, and what happens when that one is killed. Does not belong
here: how a server starts and stops (postgres.py), and which servers there are (databases.py).
"""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

from totesys_assets.local import guard
from totesys_assets.local.homes import make_folder
from totesys_assets.local.locks import Report, held, locked, opened
from totesys_assets.local.postgres import START_SECONDS, EmbeddedServer

# Starting or stopping the servers after a crash takes less than this.
_TIMEOUT_SECONDS = 2.0 * START_SECONDS


@contextmanager
def lease(servers: Sequence[EmbeddedServer], lock: Path, say: Report = lambda _: None) -> Iterator[None]:
    """Keep the servers running for the block. They are stopped when no process holds a lease on ``lock`` any more.

    A killed process loses its lease. If it was the last one, its guard stops the servers.
    """
    # Two locks. A process that needs the servers shares `lock`. A process that starts or stops them holds `turn`, so
    # that none can start to use them while the last one stops them. Whenever `lock` is held exclusively, so is `turn`.
    make_folder(lock.parent)
    with opened(lock) as holding, _guarded(servers, lock) as guarding:
        try:
            with _turn(lock, say):
                fcntl.flock(holding, fcntl.LOCK_SH)
                _each(servers, lambda server: server.start(say))
            yield
        finally:
            with _turn(lock, say):
                if locked(holding, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    _stop(servers)
                # Explicitly, because closing does not unlock while a forked child has the file open.
                fcntl.flock(holding, fcntl.LOCK_UN)
            # Not when a second Ctrl-C came before: then it goes on with what was interrupted.
            guarding.kill()
            guarding.wait()


def stop_unless_leased(servers: Sequence[EmbeddedServer], lock: Path) -> None:
    """Stop the servers that run, unless a process holds a lease on ``lock``."""
    with opened(lock) as holding, _turn(lock, lambda _: None):
        if locked(holding, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _stop(servers)


@contextmanager
def _guarded(servers: Sequence[EmbeddedServer], lock: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stops the servers, unless they are leased, when this one is gone or leaves it alive."""
    process = subprocess.Popen(
        guard.command("servers", str(lock.absolute()), *(str(server.folder) for server in servers)),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # so that Ctrl-C or a closed terminal does not end it
    )
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with process.stdin:
        yield process


@contextmanager
def _turn(lock: Path, say: Report) -> Iterator[None]:
    with held(lock.with_name(f"{lock.name}.turn"), "starts or stops the servers", say, _TIMEOUT_SECONDS):
        yield


def _stop(servers: Sequence[EmbeddedServer]) -> None:
    _each(servers, EmbeddedServer.stop)


def _each(servers: Sequence[EmbeddedServer], do: Callable[[EmbeddedServer], None]) -> None:
    """Do something to all servers at once, to each even if it fails for another. Raises the first error.

    Ctrl-C ends the programs that do it, so that no thread is waited for.
    """
    under_way: list[Future[None]] = []
    with ThreadPoolExecutor(max(1, len(servers))) as threads:
        try:
            with suppress(RuntimeError):  # no more threads are allowed: the others come after these
                under_way.extend(threads.submit(do, server) for server in servers)
            wait(under_way)
        except BaseException:
            for server in servers:
                server.give_up()
            raise
    for server in servers[len(under_way) :]:
        do(server)
    for each in under_way:
        each.result()
