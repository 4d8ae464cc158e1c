"""The meter: what programs cost while they run - time, processors, memory - and the servers that work for them.

Belongs here: starting programs and measuring them from outside. Does not belong here: which programs, and why.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from totesys_assets.errors import PlatformError

SAMPLE_SECONDS = 0.1
# To ask for the memory of a large process stops it for as long as its pages are counted. Samples are so far apart that
# this is a twentieth of the time at most.
PAUSE_PER_SAMPLE = 20
TOLD_LINES = 12  # of what a failed program said


class ProgramFailed(PlatformError):
    """A measured program ended with an error; the message says how it ended, and what it said last."""


@dataclass(frozen=True)
class Program:
    """A program to run. What is secret goes through ``env``: a command line can be seen by everybody."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Cost:
    """What the programs cost that ran under a meter.

    Seconds of processors are those of the programs and of all descendants that they waited for, and, apart from them,
    those of the servers' processes, background workers included. Memory is the highest sum over the programs' process
    tree in samples of a tenth of a second, or as far apart as they must be not to weigh.
    """

    seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float
    peak_memory_bytes: int


class Meter:
    """A context manager: runs programs one after the other and adds up what they cost.

    ``servers`` are process ids of the postmasters whose work is counted too. The clock runs only while a program does.
    """

    def __init__(self, servers: Sequence[int] = ()) -> None:
        self._servers = servers
        self._seconds = self._client = self._server = 0.0
        self._peak = 0
        self._roots: list[int] = []
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._sampler.join()

    @property
    def cost(self) -> Cost:
        """What has been measured so far."""
        return Cost(self._seconds, self._client, self._server, self._peak)

    def run(self, *pipeline: Program) -> str:
        """Run the programs, the output of each being the input of the next; returns the output of the last.

        Raises ProgramFailed, with what the first that failed has said.
        """
        with ExitStack() as stack:
            output = stack.enter_context(tempfile.TemporaryFile())
            errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in pipeline]
            before, started = server_cpu(self._servers), time.monotonic()
            processes = _start(pipeline, output, errors)
            self._roots = [process.pid for process in processes]
            try:
                for process in processes:
                    self._await(process)
            finally:
                self._seconds += time.monotonic() - started
                self._roots = []
                _kill(processes)
            self._server += server_cpu(self._servers) - before
            for process, program, said in zip(processes, pipeline, errors, strict=True):
                if process.returncode:
                    raise ProgramFailed(_failure(program, process.returncode, _text(said) or _text(output)))
            return _text(output)

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the process; wait4 tells what it and all that it waited for have used."""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._client += usage.ru_utime + usage.ru_stime

    def _sample(self) -> None:
        pause = SAMPLE_SECONDS
        while not self._done.wait(pause):
            started = time.monotonic()
            self._peak = max(self._peak, sum(memory_of_tree(root) for root in self._roots))
            pause = max(SAMPLE_SECONDS, PAUSE_PER_SAMPLE * (time.monotonic() - started))


def _start(
    pipeline: Sequence[Program], output: IO[bytes], errors: Sequence[IO[bytes]]
) -> list[subprocess.Popen[bytes]]:
    processes: list[subprocess.Popen[bytes]] = []
    source: IO[bytes] | int = subprocess.DEVNULL
    for program, said in zip(pipeline, errors, strict=True):
        last = said is errors[-1]
        process = subprocess.Popen(
            list(program.argv),
            env=dict(program.env),
            stdin=source,
            stdout=output if last else subprocess.PIPE,
            stderr=said,
        )
        if not isinstance(source, int):
            source.close()  # the process has it now; ours would keep the pipe open when that ends early
        processes.append(process)
        source = process.stdout or subprocess.DEVNULL
    return processes


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs, with all that it started: after an interrupt nothing is left behind."""
    for process in processes:
        if process.returncode is None:
            for below in descendants(process.pid):
                with suppress(psutil.NoSuchProcess):
                    below.kill()
            process.kill()
            process.wait()


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below ``pid``; none when it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _failure(program: Program, code: int, said: str) -> str:
    lines = "\n".join(said.strip().splitlines()[-TOLD_LINES:])
    return f"{Path(program.argv[0]).name} ended with code {code}:\n{lines}"


def memory_kind() -> str:
    """What is summed as memory: PSS shares out pages that processes share; RSS counts them once for each."""
    return "PSS" if Path("/proc/self/smaps_rollup").exists() else "RSS"


def memory_of_tree(pid: int) -> int:
    """Bytes of memory that the process and its descendants hold now."""
    return sum(_memory(each) for each in (pid, *(child.pid for child in descendants(pid))))


def _memory(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # gone meanwhile, or a system that has no such file
        with suppress(psutil.Error):
            return 0 if memory_kind() == "PSS" else int(psutil.Process(pid).memory_info().rss)
    return 0


def server_cpu(postmasters: Sequence[int]) -> float:
    return sum(_tree_cpu(pid) for pid in postmasters)


def _tree_cpu(postmaster: int) -> float:
    """Seconds of a server's processes since it started: those that live, and those that ended (Linux only).

    Asked again when a process ended in between, for it would be missed, or counted twice.
    """
    process = psutil.Process(postmaster)
    while True:
        before = process.cpu_times()
        living = 0.0
        for child in process.children():
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                living += times.user + times.system
        after = process.cpu_times()
        if (after.children_user, after.children_system) == (before.children_user, before.children_system):
            return after.user + after.system + after.children_user + after.children_system + living
