"""The guard: a program that ends what a process has started once that process has ended for any reason.

Belongs here: noticing that the parent is gone, and ending Dagster's processes or the embedded servers then. Does not
belong here: starting and ending them in order, which is live.py and lease.py.

A guard's standard input is a pipe whose other end only its parent holds: the kernel closes it with the parent. It is
started as a file, not as a module, and imports the package only when there is something to end: it costs 20 ms.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

# A living parent writes the first to end the program in order, and the second to end it at once.
END, NOW = b"e", b"n"
# From the request to end until everything is killed. If the parent has ended, so have the databases.
ORDERLY_SECONDS = 20
ORPHAN_SECONDS = 3
_POLL_SECONDS = 0.25


def command(*arguments: str) -> list[str]:
    """Command line of a guard: ``dagster STOPPING PROGRAM…`` or ``servers LEASE FOLDER…``."""
    return [sys.executable, "-P", __file__, *arguments]


def run_program(stopping: Path, program: list[str]) -> int:
    """Run a program in this session, and end all of the session's processes with it, or with the parent.

    ``stopping`` is touched when the parent asks for the end, or has ended. Returns the program's exit code.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    child = subprocess.Popen(program, stdin=subprocess.DEVNULL)
    try:
        deadline, open_ = float("inf"), True
        while child.poll() is None and time.monotonic() < deadline:
            if not open_ or not select.select([0], [], [], _POLL_SECONDS)[0]:
                time.sleep(0 if open_ else _POLL_SECONDS)
                continue
            said = os.read(0, 1)
            open_ = bool(said)
            if deadline == float("inf"):
                with suppress(OSError):
                    stopping.touch()  # Dagster's daemon waits for a tick under way, and this tick for its time to be up
                child.terminate()
            seconds = {END: ORDERLY_SECONDS, NOW: 0}.get(said, ORPHAN_SECONDS)
            deadline = min(deadline, time.monotonic() + seconds)
        return child.returncode if child.returncode is not None else 1
    finally:
        _kill_session()


def _kill_session() -> None:
    """Kill all other processes of this session, also those without a parent, until none is left."""
    import psutil

    deadline = time.monotonic() + ORDERLY_SECONDS
    while time.monotonic() < deadline:
        left = []
        for each in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if os.getsid(each.pid) == os.getpid() != each.pid and each.status() != psutil.STATUS_ZOMBIE:
                    each.kill()
                    left.append(each)
        if not left:
            return
        psutil.wait_procs(left, timeout=1)


def stop_servers(lock: Path, folders: list[Path]) -> None:
    """Stop the servers of the folders once the parent has ended and no other process holds a lease on ``lock``."""
    while os.read(0, 1):
        pass
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from totesys_assets.local.lease import stop_unless_leased
    from totesys_assets.local.postgres import EmbeddedServer

    stop_unless_leased([EmbeddedServer(folder) for folder in folders], lock)


def main(kind: str, *arguments: str) -> int:
    """Run as a guard of the kind that the arguments name."""
    if kind == "dagster":
        return run_program(Path(arguments[0]), list(arguments[1:]))
    stop_servers(Path(arguments[0]), [Path(folder) for folder in arguments[1:]])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
