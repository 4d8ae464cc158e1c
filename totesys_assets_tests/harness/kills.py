"""Refreshes in processes of their own, which are killed at a chosen instant, or held there until another comes.

Belongs here: starting such a process, and the instants. A process is forked from a server that has everything
imported already, for importing Dagster takes longer than a small refresh. Libraries that are forked are not used
before: the server only imports, and opens no database, no lake and no thread of theirs.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any, Literal

import dagster as dg
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

import totesys_assets.commands  # noqa: F401 - imported for those that are forked
from totesys_assets.automation.refresh import execute
from totesys_assets.capture.statements import Statements
from totesys_assets.definitions import build_definitions
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.names import LOOKED_AT_TAG, SEEN_TAG
from totesys_assets.platform import Platform as Core
from totesys_assets.settings import Settings
from totesys_assets.staleness.decide import Request
from totesys_assets.staleness.look import Look, look
from totesys_assets_tests.conftest import Platform

PATIENCE_SECONDS = 120
_MEETING_SECONDS = 4

# Where the platform is killed: "module:function" as it is called there, or "module:Class.method".
When = Literal["before", "after", "inside", "uncommitted"]


@dataclass(frozen=True)
class Kill:
    """An instant: before, after or inside the ``call``-th call of ``target`` whose arguments name ``having``.

    Inside an iterator is when it is asked for its second item. ``uncommitted`` is when a writer of the lake has
    written its files and is about to make them part of the table. ``settings`` are module constants to set.
    """

    when: When
    target: str
    call: int = 1
    having: str = ""
    settings: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        call = str(self.call) if self.call > 1 else ""
        return " ".join(filter(None, [self.when, self.target.partition(":")[2], self.having, call]))

    def __call__(self) -> None:
        """Arm this process."""
        for setting, value in self.settings:
            holder, name = _place(setting)
            setattr(holder, name, value)
        _wrap(self.target, self._around)

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        @functools.wraps(original)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += self.having in _text(arguments)
            hit = calls == self.call and self.having in _text(arguments)
            if hit and self.when == "before":
                die()
            if hit and self.when == "inside":
                return _die_at_second(original(*arguments, **named))
            if hit and self.when == "uncommitted":
                with suppress(DeltaError):
                    _write_uncommitted(functools.partial(original, *arguments, **named), arguments[0])
                die()
            result = original(*arguments, **named)
            if hit and self.when == "after":
                die()
            return result

        return wrapped


@dataclass(frozen=True)
class Before:
    """Do something before the first call of ``target`` whose arguments name ``having``; then go on."""

    target: str
    act: Callable[[], object]
    having: str = ""

    def __call__(self) -> None:
        """Arm this process."""
        _wrap(self.target, self._around)

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        done = False

        @functools.wraps(original)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            if not done and self.having in _text(arguments):
                done = True
                self.act()
            return original(*arguments, **named)

        return wrapped


@dataclass(frozen=True)
class Set:
    """Set a constant of a module, ``module:NAME``."""

    place: str
    value: object

    def __call__(self) -> None:
        """Arm this process."""
        holder, name = _place(self.place)
        setattr(holder, name, self.value)


def slow_reads() -> None:
    """Arm this process: the source takes a second for every row that is read to be compared."""
    incoming, first_capture = Statements.incoming, Statements.first_capture

    def slow(where: str) -> str:
        condition = where.removeprefix("WHERE ") or "true"
        return f"WHERE ({condition}) AND pg_sleep(1) IS NOT NULL"

    Statements.incoming = lambda self, where: incoming(self, slow(where))  # type: ignore[method-assign]
    Statements.first_capture = lambda self, where: first_capture(self, slow(where))  # type: ignore[method-assign]


def meet(barrier: Barrier) -> None:
    """Wait until another process is here too, or does not come."""
    with suppress(BrokenBarrierError):
        barrier.wait(_MEETING_SECONDS)


def power_cut(folder: Path) -> None:
    """End the PostgreSQL server in ``folder`` at once: its processes stop without writing anything down."""
    postmaster = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGQUIT)
    server = EmbeddedServer(folder)
    while server.running():
        time.sleep(0.01)


def die() -> None:
    """As the kernel kills for want of memory: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def _place(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    return functools.reduce(getattr, parents, importlib.import_module(module)), name


def _wrap(target: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    holder, name = _place(target)
    is_static = isinstance(inspect.getattr_static(holder, name), staticmethod)
    wrapped = around(getattr(holder, name))
    setattr(holder, name, staticmethod(wrapped) if is_static else wrapped)


def _text(arguments: Sequence[object]) -> str:
    """What the arguments are called: tables by their names or places, texts as they are."""
    return " ".join(
        argument if isinstance(argument, str) else str(getattr(argument, "table_uri", getattr(argument, "name", "")))
        for argument in arguments
    )


def _die_at_second(items: Iterator[Any]) -> Iterator[Any]:
    yield next(items)
    die()


def _write_uncommitted(write: Callable[[], Any], subject: Any) -> None:
    """Let a writer of the lake write its files, stand in the way of its commit."""
    table: DeltaTable = subject if isinstance(subject, DeltaTable) else subject.table
    folder = Path(table.table_uri.removeprefix("file://"))
    commit = folder / "_delta_log" / f"{table.version() + 1:020}.json"
    there = set(folder.rglob("*.parquet"))
    os.mkfifo(commit)  # no reader of the table takes it for a commit, and no writer can replace it
    try:
        write()
    finally:
        commit.unlink()
        assert set(folder.rglob("*.parquet")) > there


def context() -> ForkServerContext:
    """Where processes are forked from."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([__name__])
    return made


@dataclass
class Refresh:
    """A refresh under way in a process of its own, with a Dagster instance that ends with it."""

    process: ForkServerProcess
    failures_from: Any

    def wait(self) -> int:
        """Wait for its end; returns the exit code: 0, or minus the signal that killed it."""
        self.process.join(PATIENCE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError("The refresh does not end.")
        assert self.process.exitcode is not None
        return self.process.exitcode

    def failures(self) -> list[str]:
        """Sentences of what failed; waits for the end, which must come in order."""
        code = self.wait()
        assert code == 0, f"The refresh ended with {code}."
        failures: list[str] = self.failures_from.recv()
        return failures


def start(platform: Platform, *arm: Callable[[], None], requests: Sequence[Request] | None = None) -> Refresh:
    """Start a refresh of ``platform`` (or just ``requests``) in a process that is armed first."""
    return _start(_refresh, platform, arm, requests)


def start_tick(platform: Platform, instance: Path, *arm: Callable[[], None]) -> Refresh:
    """Start one evaluation of the sensor, with the Dagster instance in a folder."""
    return _start(_tick, platform, arm, instance)


def start_recorded(platform: Platform, instance: Path, *arm: Callable[[], None]) -> Refresh:
    """Start a refresh that is recorded in the Dagster instance in a folder."""
    return _start(_recorded, platform, arm, instance)


def _start(
    work: Callable[..., list[str]], platform: Platform, arm: Sequence[Callable[[], None]], extra: Any
) -> Refresh:
    made = context()
    receiving, sending = made.Pipe(duplex=False)
    process = made.Process(target=_work, args=(work, platform.settings, arm, extra, sending), daemon=True)
    process.start()
    sending.close()
    return Refresh(process, receiving)


def _work(
    work: Callable[..., list[str]], settings: Settings, arm: Sequence[Callable[[], None]], extra: Any, sending: Any
) -> None:
    os.environ["DAGSTER_HOME"] = str(settings.home)  # so that nothing is embedded
    warnings.simplefilter("ignore", dg.BetaWarning)
    for each in arm:
        each()
    try:
        said = work(settings, extra)
    except Exception as error:
        said = [f"{type(error).__name__}: {error}"]
    sending.send(said)


def _refresh(settings: Settings, requests: Sequence[Request] | None) -> list[str]:
    failures: list[str] = []
    if requests is None:
        seen = _look(settings)
        failures += map(str, seen.problems)
        requests = seen.requests
    with dg.DagsterInstance.ephemeral() as instance:
        for request in requests:
            failures += execute(build_definitions(settings), instance, request).failures
    return failures


def _recorded(settings: Settings, folder: Path) -> list[str]:
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        return [
            failure
            for request in _look(settings).requests
            for failure in execute(build_definitions(settings), instance, request).failures
        ]


def _tick(settings: Settings, folder: Path) -> list[str]:
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        return asked_for(settings, instance)


def asked_for(settings: Settings, instance: dg.DagsterInstance) -> list[str]:
    """One evaluation of the sensor: what it asks for, or says instead."""
    definitions = build_definitions(settings)
    with dg.build_sensor_context(instance=instance, definitions=definitions, resources=definitions.resources) as tick:
        data = definitions.resolve_sensor_def("changes").evaluate_tick(tick)
    requests = [(each.asset_selection, dict(each.tags)) for each in data.run_requests or []]
    for _, tags in requests:
        for tag in (LOOKED_AT_TAG, SEEN_TAG):  # others for each look: the server's other databases go on
            tags.pop(tag, None)
    asked = [f"{assets} {tags}" for assets, tags in requests]
    return asked or [str(data.skip_message)]


def _look(settings: Settings) -> Look:
    assert settings.totesys_url is not None
    assert settings.warehouse_url is not None
    return look(Core.of(settings, settings.totesys_url, settings.warehouse_url))


def kill(platform: Platform, at: Kill) -> None:
    """Refresh ``platform`` in a process that is killed at an instant; it must get there."""
    killed(start(platform, at), at)


def killed(refresh: Refresh, at: Kill) -> None:
    """Wait until a process has been killed as it was to be."""
    code = refresh.wait()
    assert code == -signal.SIGKILL, f"{at} was never reached: {code} {refresh.failures() if code == 0 else ''}"
