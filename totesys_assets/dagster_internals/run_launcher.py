"""Dagster's run launcher for this project's runs, ``run_launcher`` in dagster.yaml.

Belongs here: which runs a fork server gets, how they are ended and watched. Does not belong here: the fork server
(fork_server.py), and when a run is launched (run_coordinator.py, and Dagster's queue).

A run that Dagster's own launcher starts imports Dagster and the assets first: 2 s, on two cores that are at leisure.
Here, too, every run has a process of its own, which ends with it, but as a copy of one that has imported all that. It
takes about 280 MB, of which a run copies what it changes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
from dagster import DagsterRun, DefaultRunLauncher, serialize_value
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._grpc.types import ExecuteRunArgs

from totesys_assets.dagster_internals.fork_server import ForkServer, Lost, NotWarm, code_state
from totesys_assets.errors import PlatformError
from totesys_assets.names import GRPC_INFO_TAG, HIDDEN_TAG_PREFIX

MODULE = "totesys_assets.definitions"
# Where a run's process is: host, process id, and when it began, for ids are used again.
WORKER_TAG = f"{HIDDEN_TAG_PREFIX}totesys_worker"


class WarmRunLauncher(DefaultRunLauncher):
    """Forks this project's runs from a process that has imported everything; others go Dagster's own way.

    The server belongs to the process that launches, the daemon, and is started by its first launch. It is replaced when
    the code location was reloaded, or a file of the package changed: a run has the code that a new process would have.
    """

    def __init__(self, inst_data: Any = None) -> None:
        super().__init__(inst_data)
        self._lock = threading.Lock()
        self._server: ForkServer | None = None
        self._made_from: object = None

    def launch_run(self, context: LaunchRunContext) -> None:
        """Begin the run. Raises when it is not known to have begun; Dagster then reports it as failed."""
        run = context.dagster_run
        location = _location_of(context)
        if location is None:
            super().launch_run(context)
            return
        arguments = serialize_value(
            ExecuteRunArgs(
                job_origin=context.job_code_origin,  # type: ignore[arg-type]  # _location_of has looked
                run_id=run.run_id,
                instance_ref=self._instance.get_ref(),
            )
        )
        try:
            pid = self._fork(location, arguments)
        except NotWarm:
            super().launch_run(context)  # which says what is wrong with the code, if that is it
            return
        self._instance.add_run_tags(run.run_id, {WORKER_TAG: json.dumps(_process(pid))})

    def _fork(self, location: GrpcServerCodeLocation, arguments: str) -> int:
        """Process id of the run."""
        with self._lock:
            try:
                return self._server_for(location).fork(arguments)
            except Lost:
                self.dispose()  # its late answer would be taken for that to the next run
                raise PlatformError("The fork server did not confirm the run; it is given up.") from None

    def _server_for(self, location: GrpcServerCodeLocation) -> ForkServer:
        """The server, made anew unless it is alive and has the code that is there now."""
        made_from = (location.server_id, code_state())
        if self._server is None or self._made_from != made_from or (self._server.warm and not self._server.alive):
            self.dispose()
            self._server, self._made_from = ForkServer(MODULE), made_from
        return self._server  # or one that never came up, and from the same code never would

    def dispose(self) -> None:
        """Let the server end; its runs go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def terminate(self, run_id: str) -> bool:
        """End a run, wherever it is: it looks every other second whether it is to end."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        if WORKER_TAG not in run.tags or GRPC_INFO_TAG in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring asks."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is there, as far as this machine can tell."""
        if host_of(run) != socket.gethostname():
            return CheckRunHealthResult(WorkerStatus.RUNNING, "Not to be seen from here.")
        noted = json.loads(run.tags[WORKER_TAG])
        if noted["began"] is not None and noted == _process(noted["pid"]):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "The run's process is gone.")


def host_of(run: DagsterRun) -> str | None:
    """Name of the machine on which the run was forked; None if it was not."""
    # Who starts a run again copies its tags; one that then went Dagster's own way has both.
    noted = json.loads(run.tags.get(WORKER_TAG, "{}")) if GRPC_INFO_TAG not in run.tags else {}
    return noted.get("host")


def _location_of(context: LaunchRunContext) -> GrpcServerCodeLocation | None:
    """The code location of a run that a process of this Python, started here, executes with the very same code."""
    origin, remote = context.job_code_origin, context.dagster_run.remote_job_origin
    if sys.platform != "linux" or origin is None or remote is None or context.workspace is None:
        return None
    location = context.workspace.get_code_location(remote.location_name)
    if not isinstance(location, GrpcServerCodeLocation):
        return None
    repository = origin.repository_origin
    pointer, image = repository.code_pointer, os.environ.get("DAGSTER_CURRENT_IMAGE")
    is_ours = getattr(pointer, "module", None) == MODULE
    # The module is looked for in the working directory first, and then where this Python has its packages.
    is_found_alike = repository.executable_path == sys.executable and (
        getattr(pointer, "working_directory", None) in (None, str(Path.cwd()))
    )
    # A code server on another machine may have another version of it all, unless both are of one image.
    is_of_one_image = repository.container_image == image and (image is not None or location.socket is not None)
    return location if is_ours and is_found_alike and is_of_one_image else None


def _process(pid: int) -> dict[str, object]:
    """What tells a process from all others; ``began`` is None when there is no such process."""
    began: float | None
    try:
        began = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        began = None
    return {"host": socket.gethostname(), "pid": pid, "began": began}
