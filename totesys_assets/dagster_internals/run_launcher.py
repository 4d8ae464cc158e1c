"""The run launcher, ``run_launcher`` in dagster.yaml: it starts this project's runs from a fork server.

Belongs here: which runs the fork server gets, how they are ended and watched. Does not belong here: the fork server
(fork_server.py), and when a run is launched (run_coordinator.py, and Dagster's queue).

A run of Dagster's default launcher first imports Dagster and the assets, which takes 2 s on two idle cores. Here every
run also has its own process, but it is a copy of one that has already imported everything. That one takes about 280 MB;
a run copies only the pages that it changes.
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
# Where a run's process is: host, process id, and its start time, because ids are reused.
WORKER_TAG = f"{HIDDEN_TAG_PREFIX}totesys_worker"


class WarmRunLauncher(DefaultRunLauncher):
    """Forks this project's runs from a process that has imported everything; others are left to Dagster's launcher.

    The daemon launches runs; its first launch starts the fork server. The server is replaced after a reload of the code
    location or a change of a file of the package, so that a run has the same code as a new process.
    """

    def __init__(self, inst_data: Any = None) -> None:
        super().__init__(inst_data)
        self._lock = threading.Lock()
        self._server: ForkServer | None = None
        self._made_from: object = None

    def launch_run(self, context: LaunchRunContext) -> None:
        """Begin the run. Raises if the run may not have begun; Dagster then reports it as failed."""
        run = context.dagster_run
        location = _location_of(context)
        if location is None:
            self._launch_elsewhere(context)
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
            self._launch_elsewhere(context)
            return
        self._instance.add_run_tags(run.run_id, {WORKER_TAG: json.dumps(_process(pid))})

    def _launch_elsewhere(self, context: LaunchRunContext) -> None:
        """Begin a run that cannot be forked: in the code server, which reports what may be wrong with the code."""
        super().launch_run(context)

    def _fork(self, location: GrpcServerCodeLocation, arguments: str) -> int:
        """Process id of the run."""
        with self._lock:
            try:
                return self._server_for(location).fork(arguments)
            except Lost:
                self.dispose()  # a late answer would be taken for the answer to the next run
                raise PlatformError("The fork server did not confirm the run; it is given up.") from None

    def _server_for(self, location: GrpcServerCodeLocation) -> ForkServer:
        """The server; a new one if it has ended or its code is outdated."""
        made_from = (location.server_id, code_state())
        if self._server is None or self._made_from != made_from or (self._server.warm and not self._server.alive):
            self.dispose()
            self._server, self._made_from = ForkServer(MODULE), made_from
        return self._server  # or one that could not start, and from the same code never will

    def dispose(self) -> None:
        """Let the server end. Its runs go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def terminate(self, run_id: str) -> bool:
        """End a run on any machine. Every two seconds the run checks whether it is to end."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        if WORKER_TAG not in run.tags or GRPC_INFO_TAG in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """The run's health, for Dagster's run monitoring."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process exists, as far as this machine can see."""
        if host_of(run) != socket.gethostname():
            return CheckRunHealthResult(WorkerStatus.RUNNING, "Not to be seen from here.")
        noted = json.loads(run.tags[WORKER_TAG])
        if noted["began"] is not None and noted == _process(noted["pid"]):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "The run's process is gone.")


def host_of(run: DagsterRun) -> str | None:
    """Name of the machine on which the run was forked; None if it was not."""
    # A re-execution copies the tags of a run. If Dagster's default launcher ran it, it has tags of both.
    noted = json.loads(run.tags.get(WORKER_TAG, "{}")) if GRPC_INFO_TAG not in run.tags else {}
    return noted.get("host")


def _location_of(context: LaunchRunContext) -> GrpcServerCodeLocation | None:
    """The code location of a run, if a process of this Python, started here, would run exactly the same code."""
    origin, remote = context.job_code_origin, context.dagster_run.remote_job_origin
    if sys.platform != "linux" or origin is None or remote is None or context.workspace is None:
        return None
    location = context.workspace.get_code_location(remote.location_name)
    if not isinstance(location, GrpcServerCodeLocation):
        return None
    repository = origin.repository_origin
    pointer, image = repository.code_pointer, os.environ.get("DAGSTER_CURRENT_IMAGE")
    is_ours = getattr(pointer, "module", None) == MODULE
    # Python searches the working directory for the module first, and then its packages.
    is_found_alike = repository.executable_path == sys.executable and (
        getattr(pointer, "working_directory", None) in (None, str(Path.cwd()))
    )
    # A code server on another machine may have another version, unless both run the same image.
    is_of_one_image = repository.container_image == image and (image is not None or location.socket is not None)
    return location if is_ours and is_found_alike and is_of_one_image else None


def _process(pid: int) -> dict[str, object]:
    """Identifies a process; ``began`` is None if there is no such process."""
    began: float | None
    try:
        began = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        began = None
    return {"host": socket.gethostname(), "pid": pid, "began": began}
