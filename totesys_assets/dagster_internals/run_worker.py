"""The program of the fork server, and of the runs that are forked from it.

It is started as ``python -m totesys_assets.dagster_internals.run_worker FD MODULE``; MODULE is the code location's.

Belongs here: importing what a run needs, forking, executing a run as ``dagster api execute_run`` does, and reporting a
run that crashed. Does not belong here: starting the server and handing it runs (fork_server.py).

A fork copies only the thread that forks. A lock that another thread held stays locked for ever in the copy. So the
server opens no database, no Delta table and no Dagster instance, and refuses to serve if it has a second thread.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from dagster._grpc.types import ExecuteRunArgs

READY = b"ready"
# How soon a crashed run is noticed.
_REAP_SECONDS = 0.5
# How soon a run notices that it is to end. It reads that from Dagster's database, because the webserver, which ends it,
# may be on another machine.
_CANCEL_SECONDS = 2.0
# Modules that a run imports only when it needs them. DuckDB imports pandas when it is given Arrow data.
_LATE = (
    "dagster._cli.api",
    "dagster._core.execution.plan.active",
    "dagster._core.instance.runs.run_domain",
    "deltalake.fs",
    "iso4217",
    "pandas",
    "psycopg2.extras",
    "pyarrow.dataset",
    "sqlglot.lineage",
    "totesys_assets.dagster_internals.executor",
    "totesys_assets.dagster_internals.partition_events",
    "totesys_assets.local.postgres",
    "upath.implementations.local",
)


def main(descriptor: int, module: str) -> None:
    """Import everything, report that, and serve until ``descriptor`` is closed and the last run has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runs; the server ends with its parent
    warm_up(module)
    with Connection(descriptor) as requests:
        requests.send_bytes(READY)
        _serve(requests)


def warm_up(module: str) -> None:
    """Import and compute what every run needs, with one thread left in the end.

    ``module`` is the code location's; its function ``warm_up`` knows what its runs need.
    """
    import duckdb

    code = importlib.import_module(module)
    for name in (*_LATE, *_of_instance()):
        importlib.import_module(name)
    with warnings.catch_warnings(action="ignore"):  # the runs give these warnings
        code.warm_up()
    duckdb.default_connection().close()  # importing duckdb opens one, with threads
    gc.collect()
    gc.freeze()  # all objects so far stay: collecting garbage would only copy their pages into every run
    tasks = Path("/proc/self/task")
    if threads := len(list(tasks.iterdir())) - 1:
        raise RuntimeError(f"The fork server has {threads} threads beside its own, and cannot fork safely.")


def _of_instance() -> set[str]:
    """The modules of storages, logs and launcher that dagster.yaml names. For logs in S3 that saves half a second."""
    from dagster._core.instance.ref import InstanceRef

    home = os.environ.get("DAGSTER_HOME")
    named = InstanceRef.from_dir(home) if home else ()
    return {each.module_name for each in named if each is not None and not isinstance(each, Mapping)}


def _serve(requests: Connection) -> None:
    running: dict[int, str] = {}
    serving = True
    while serving or running:
        if not serving:
            time.sleep(_REAP_SECONDS)
        elif requests.poll(_REAP_SECONDS):
            try:
                arguments = requests.recv_bytes().decode()
                pid = _fork(partial(_execute, arguments), requests)
                running[pid] = arguments
                requests.send_bytes(str(pid).encode())
            except (EOFError, ConnectionError):
                serving = False  # the parent has ended; the runs go on, as those of Dagster's code server would
        _reap(running, requests)


def _fork(work: Callable[[], None], requests: Connection) -> int:
    """Fork a process that does ``work`` and ends; returns its id."""
    pid = os.fork()
    if not pid:
        requests.close()  # else nobody would notice the end of the server
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _end_with(work)
    return pid


def _end_with(work: Callable[[], None]) -> NoReturn:
    """Do ``work`` and end the process, without the exit handlers of what was imported before the fork."""
    code: object = 1
    try:
        work()
        code = 0
    except SystemExit as exit_:
        code = exit_.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _execute(arguments: str) -> None:
    """Execute the run of ``arguments``, serialized ExecuteRunArgs, as Dagster's command line does."""
    from dagster._cli.api import execute_run_command

    threading.Thread(target=_interrupt_when_canceled, args=[_read(arguments)], daemon=True).start()
    execute_run_command.main([arguments], standalone_mode=False)


def _interrupt_when_canceled(run: ExecuteRunArgs) -> None:
    from dagster import DagsterRunStatus

    ended = {DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE}
    time.sleep(_CANCEL_SECONDS)  # most runs are over by then, and never open a second instance
    with _instance(run) as instance:
        while (found := instance.get_run_by_id(run.run_id)) is not None and found.status not in ended:
            time.sleep(_CANCEL_SECONDS)
    os.kill(os.getpid(), signal.SIGINT)


def _reap(running: dict[int, str], requests: Connection) -> None:
    """Remove the runs that have ended, and report in another process those that crashed."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        arguments = running.pop(pid, "")
        if arguments and status:
            code = os.waitstatus_to_exitcode(status)
            running[_fork(partial(_report, arguments, code), requests)] = ""


def _report(arguments: str, code: int) -> None:
    """Report a run as failed whose process ended with ``code`` (negative: a signal) without reporting it itself."""
    from dagster._utils import get_run_crash_explanation

    args = _read(arguments)
    with _instance(args) as instance:
        run = instance.get_run_by_id(args.run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, get_run_crash_explanation(f"The process of run {run.run_id}", code))


def _read(arguments: str) -> ExecuteRunArgs:
    from dagster import deserialize_value
    from dagster._grpc.types import ExecuteRunArgs

    return deserialize_value(arguments, ExecuteRunArgs)


def _instance(run: ExecuteRunArgs) -> DagsterInstance:
    from dagster import DagsterInstance

    assert run.instance_ref is not None  # noqa: S101 - the launcher has set it
    return DagsterInstance.from_ref(run.instance_ref)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
