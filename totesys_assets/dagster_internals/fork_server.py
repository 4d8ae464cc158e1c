"""The client of the fork server: it starts the server, hands it runs, and notices that its code is outdated.

Belongs here: the process and the pipe to it. Does not belong here: what it does, which is run_worker.py, and which
runs it gets, which is run_launcher.py.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import totesys_assets
from totesys_assets.dagster_internals.run_worker import READY

# Importing everything may take this long, on a machine that is busy starting.
_WARM_SECONDS = 60
# A fork takes milliseconds. If it takes longer than this, the machine is out of memory.
_FORK_SECONDS = 15
# Switch off the threads that libraries start when they are imported; see run_worker.py.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


class NotWarm(Exception):
    """The server did not start; no run was handed to it."""


class Lost(Exception):
    """The server did not confirm a run, which may or may not have begun."""


class ForkServer:
    """A fork server for runs of the code location ``module``, and the pipe to it.

    The server ends when the pipe is closed and its last run has ended. Constructing it does not wait; ``fork`` waits
    until the server has imported everything. Not thread-safe.
    """

    def __init__(self, module: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "totesys_assets.dagster_internals.run_worker", str(theirs.fileno()), module],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **_ONE_THREAD},
            )
        self._requests = Connection(ours.detach())
        self.warm = False

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def fork(self, arguments: str) -> int:
        """Process id of a new run of ``arguments``, serialized ExecuteRunArgs. Raises NotWarm, Lost."""
        try:
            if not self.warm:
                if not self._requests.poll(_WARM_SECONDS) or self._requests.recv_bytes() != READY:
                    raise NotWarm
                self.warm = True
            self._requests.send_bytes(arguments.encode())
        except (EOFError, OSError):  # a server that ended before it read the whole request has not forked
            raise NotWarm from None
        try:
            if self._requests.poll(_FORK_SECONDS):
                return int(self._requests.recv_bytes())
        except (EOFError, OSError):
            pass
        raise Lost

    def close(self) -> None:
        """Ask the server to end. Its runs go on."""
        self._requests.close()
        threading.Thread(target=self._process.wait, daemon=True).start()  # else it would become a zombie


def code_state() -> int:
    """A value that changes whenever a file of the package is changed, added or removed."""
    root = Path(totesys_assets.__file__).parent
    files = ((path, path.stat()) for path in sorted(root.rglob("*")) if path.suffix in (".py", ".sql", ".yaml"))
    return hash(tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in files))
