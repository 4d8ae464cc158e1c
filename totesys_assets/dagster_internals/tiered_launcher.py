"""The run launcher on Amazon ECS, ``run_launcher`` in dagster.yaml: small runs are forked, large ones get a task.

Belongs here: which runs get an ECS task of their own, and which launcher watches and ends a run. Does not belong here:
how a run is forked (run_launcher.py), and the calls to ECS, which dagster-aws makes.

A fork begins at once in the daemon's container, and shares its memory with every other refresh. A task takes a minute
to begin, and has its own memory and processors.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Self

from dagster import DagsterInstance, DagsterRun, Field, StringSource
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus

from totesys_assets.dagster_internals.run_launcher import WarmRunLauncher, host_of
from totesys_assets.days import DaySet
from totesys_assets.engine import one_line
from totesys_assets.errors import PlatformError
from totesys_assets.names import (
    AUDIT,
    CHANGES_ONLY_TAG,
    COMPACT,
    EVERYTHING,
    OTHER_DAYS_TAG,
    PLACE_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    RANGE_TAG,
    REFUSED_TAG,
)

if TYPE_CHECKING:  # boto3 takes a second to import, and most processes never launch a run
    from dagster_aws.ecs import EcsRunLauncher

# The values of the tag totesys/place.
TASK, HERE = "task", "here"

# Jobs that read everything, at night, when nobody waits for them.
_UNHURRIED = {EVERYTHING, AUDIT, COMPACT}
# With a million orders, comparing a month takes 5 s and 500 MB. That is hardly more than a refresh of one order, and
# over before a task would begin. Comparing two years takes 25 s and 990 MB.
MOST_DAYS = 31
# A refresh after trade on scattered days spans them all, and builds little: of the 52 assets the 21 that have days, the
# calendar, the mart of rates, and two or three tables of those that seldom change, with what is made of them. One of
# more assets than this is a first load, or the comparison after a failover of ToteSys (43 are its own), for which
# nothing is known to be unchanged.
MOST_ASSETS = 36
# Why ECS begins no task, by the words of its answer, in lower case; and what to do.
_QUOTA, _CAPACITY, _OTHER = "quota", "capacity", "other"
_CAUSES = {_QUOTA: "limit on the number of vcpu", _CAPACITY: "capacity is unavailable"}
_REMEDIES = {
    _QUOTA: 'The account may not use more processors: ask for more of "Fargate On-Demand vCPU resource count" with aws '
    "service-quotas request-service-quota-increase --service-code fargate --quota-code L-3032A538 --desired-value 20.",
    _CAPACITY: "AWS itself has none to give in these zones: there is nothing to ask for but patience, or more zones.",
    _OTHER: "If ECS goes on refusing, check run_launcher in dagster.yaml and what the daemon's role may do.",
}
# Tags by which dagster-aws lets the user who starts a run choose its command, its network and its rights.
_REFUSED_TAGS = {"ecs/container_overrides", "ecs/task_overrides", "ecs/run_task_kwargs"}


def place_of(run: DagsterRun) -> str:
    """Where to run it: ``task`` or ``here``. The tag ``totesys/place`` decides, or else the size of the run.

    A range of days is as large as one run may be (staleness/ranges.py). Whether Dagster calls a run a backfill does not
    matter: a backfill of a few days is as small as a refresh.
    """
    wanted = run.tags.get(PLACE_TAG)
    if wanted is not None:
        if wanted not in (TASK, HERE):
            raise PlatformError(f"The run's tag {PLACE_TAG} is {wanted!r}: set it to {TASK} or {HERE}, or drop it.")
        return wanted
    if run.job_name in _UNHURRIED or (RANGE_TAG.items() <= run.tags.items() and RANGE_START_TAG in run.tags):
        return TASK
    compares_all = CHANGES_ONLY_TAG not in run.tags
    begins_anew = len(run.asset_selection or ()) > MOST_ASSETS
    return TASK if _days(run) > MOST_DAYS and (compares_all or begins_anew) else HERE


def _days(run: DagsterRun) -> int:
    """How many days the run covers; one if its tags name none, or none that are valid."""
    try:
        first = date.fromisoformat(run.tags[RANGE_START_TAG])
        last = date.fromisoformat(run.tags[RANGE_END_TAG])
    except (KeyError, ValueError):
        return 1
    others = run.tags.get(OTHER_DAYS_TAG)
    return (last - first).days + 1 + (len(DaySet.parse(others)) if others else 0)


class TieredRunLauncher(WarmRunLauncher):
    """Forks small runs in the daemon's container, as its parent does, and gives large ones a task (EcsRunLauncher).

    ``subnets`` and ``security_groups`` are ids, separated by commas. A task has the image, the role and the environment
    of ``task_definition`` and no public address; a revision in its name keeps tasks at the version of the daemon.

    A run that cannot be forked gets a task too, never the code server.

    No run is resumed: the next refresh finds by comparing what is left to do.
    """

    def __init__(
        self,
        cluster: str,
        task_definition: str,
        subnets: str,
        security_groups: str,
        container_name: str = "run",
        inst_data: Any = None,
    ) -> None:
        super().__init__(inst_data)
        self._task_definition, self._container_name = task_definition, container_name
        self._run_task = {
            "cluster": cluster,
            "launchType": "FARGATE",
            "networkConfiguration": {
                "awsvpcConfiguration": {
                    "subnets": _listed(subnets),
                    "securityGroups": _listed(security_groups),
                    "assignPublicIp": "DISABLED",
                }
            },
        }
        self._making = threading.Lock()
        self._tasks: EcsRunLauncher[DagsterInstance] | None = None

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """The settings in dagster.yaml. Each may be ``{env: …}``."""
        return {
            "cluster": StringSource,
            "task_definition": StringSource,
            "subnets": StringSource,
            "security_groups": StringSource,
            "container_name": Field(StringSource, default_value="run"),
        }

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:
        """The launcher of these settings."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Begin the run. Raises if the run may not have begun; Dagster then reports it as failed."""
        run = context.dagster_run
        if place_of(run) == HERE:
            super().launch_run(context)
        else:
            self._launch_task(context)

    def _launch_elsewhere(self, context: LaunchRunContext) -> None:
        # As during a release, while the code server has another image already. It may not write to the lake.
        self._launch_task(context)

    def _launch_task(self, context: LaunchRunContext) -> None:
        run = context.dagster_run
        if refused := sorted(_REFUSED_TAGS & run.tags.keys()):
            raise PlatformError(
                f"The run has the tag {refused[0]}, which would change what its task may do. Start it without; "
                "ecs/cpu, ecs/memory and ecs/ephemeral_storage make a task larger."
            )
        # Set before the task exists, so that any question about the run goes to ECS from now on.
        self._instance.add_run_tags(run.run_id, {PLACE_TAG: TASK})
        try:
            self._of_ecs().launch_run(context)
        except Exception as error:  # botocore's, dagster-aws's, and plain ones for what ECS answers
            said = one_line(error)
            cause = next((cause for cause, words in _CAUSES.items() if words in said.lower()), _OTHER)
            self._instance.add_run_tags(run.run_id, {REFUSED_TAG: cause})
            raise PlatformError(
                f"ECS began no task for the run: {said}. Nothing is lost. Start it again later, or with the "
                f"tag {PLACE_TAG}: {HERE}, which keeps it in the daemon's container. {_REMEDIES[cause]}"
            ) from error

    def terminate(self, run_id: str) -> bool:
        """End a run, in a task or in a process."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        return bool(self._of_ecs().terminate(run_id) if _is_task(run) else super().terminate(run_id))

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's task or process exists."""
        if _is_task(run):
            return self._of_ecs().check_run_worker_health(run)  # type: ignore[no-any-return]
        if host_of(run) not in (None, socket.gethostname()):
            return CheckRunHealthResult(
                WorkerStatus.FAILED, "It ended with the container of the daemon that ran it, which was replaced."
            )
        return super().check_run_worker_health(run)

    def _of_ecs(self) -> EcsRunLauncher[DagsterInstance]:
        """Dagster's launcher for ECS, created when it is first needed, because that calls ECS for the task definition.

        It gets all settings, so that it does not search for its own task, for networks or for tagged secrets.
        """
        from dagster_aws.ecs import EcsRunLauncher

        with self._making:
            if self._tasks is None:
                made = EcsRunLauncher[DagsterInstance](
                    task_definition=self._task_definition,
                    container_name=self._container_name,
                    secrets_tag=None,  # type: ignore[arg-type]  # as its own configuration has it
                    use_current_ecs_task_config=False,
                    run_task_kwargs=self._run_task,
                )
                made.register_instance(self._instance)
                self._tasks = made
            return self._tasks


def _is_task(run: DagsterRun) -> bool:
    return run.tags.get(PLACE_TAG) == TASK


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
