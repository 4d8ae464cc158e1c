"""A stand-in for ECS and CloudWatch Logs as deploy/run.sh uses them: one task, its command, and what it printed.

As AWS does: the log is there some seconds after the task began, its lines some seconds after they were printed, and an
answer's token gives what came since. A task that was asked for twice with the same token is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from totesys_assets_tests.deploy.ecs_stand_in import STOPPING, Ecs, Refused, Task

DEFINITION = "arn:aws:ecs:eu-west-2:1:task-definition/totesys-run:7"
COMMAND_TAG = "totesys/command"
BEGINS, LATE = 40, 8  # seconds


@dataclass
class Commands(Ecs):
    """``lines``: what the command prints, one line in ten seconds; then it ends with ``code``.

    ``reason`` ends the task before the command began. ``failure``: ECS answers with it and starts nothing.
    """

    knows: ClassVar[tuple[str, ...]] = ("ecs", "logs")

    lines: tuple[str, ...] = ()
    code: int = 0
    reason: str = ""
    failure: str = ""
    begins: float = BEGINS
    container_reason: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def _run_task(self, **parameters: Any) -> dict[str, Any]:
        self.asked.append(parameters)
        if self.failure:
            return {"tasks": [], "failures": [{"reason": self.failure}]}
        if parameters["clientToken"] not in [each["clientToken"] for each in self.asked[:-1]]:
            self.tasks.append(Task(self._name("arn:aws:ecs:eu-west-2:1:task/totesys/"), "", DEFINITION))
            self.began = self.now + self.begins
            self.tasks[-1].ends_at = self.began + (0 if self.reason else 10 * len(self.lines))
        return {"tasks": [{"taskArn": self.tasks[-1].arn}], "failures": []}

    def _stop_task(self, task: str, reason: str) -> dict[str, Any]:
        (found,) = (each for each in self.tasks if each.arn == task)
        self.stopped.append(reason)
        found.wanted, found.ends_at = False, min(self.now + STOPPING, found.ends_at or self.now + STOPPING)
        found.exit_code = 143
        return {"task": {"taskArn": task}}

    def _describe_task_definition(self, taskDefinition: str) -> dict[str, Any]:  # noqa: N803  as AWS has it
        assert taskDefinition == self.services["daemon"].definition
        environment = {"LAKE_URI": "s3://lake", "TOTESYS_RUN_TASK_DEFINITION": DEFINITION}
        pairs = [{"name": name, "value": value} for name, value in environment.items()]
        return {"taskDefinition": {"containerDefinitions": [{"environment": pairs}]}}

    def _describe_tasks(self, tasks: list[str]) -> dict[str, Any]:
        if tasks != [self.tasks[-1].arn]:
            return super()._describe_tasks(tasks)
        is_over = not self._lives(self.tasks[-1])
        status = "STOPPED" if is_over else "RUNNING" if self.now >= self.began else "PROVISIONING"
        code = self.tasks[-1].exit_code or self.code
        container: dict[str, Any] = {"exitCode": code} if is_over and not self.reason else {}
        if self.container_reason:
            container["reason"] = self.container_reason
        ended = {"stoppedReason": self.reason or "Essential container in task exited"} if is_over else {}
        return {"tasks": [{"taskArn": tasks[0], "lastStatus": status, "containers": [container], **ended}]}

    def _get_log_events(
        self,
        logGroupName: str,  # noqa: N803  as AWS has it
        logStreamName: str,  # noqa: N803
        startFromHead: bool,  # noqa: N803
        nextToken: str = "0",  # noqa: N803
    ) -> dict[str, Any]:
        assert (logGroupName, startFromHead) == ("/totesys/totesys", True)
        assert logStreamName == f"run/run/{self.tasks[-1].arn.rpartition('/')[2]}"
        if self.reason or self.now < self.began + LATE:
            raise Refused("An error occurred (ResourceNotFoundException): The specified log stream does not exist.")
        end = min(self.now, self.tasks[-1].ends_at or self.now)
        there = int((end - self.began) // 10) if self.now < end + LATE else len(self.lines)
        there = there if not self.stopped else min(there, int((end - self.began) // 10))
        events = [{"timestamp": 0, "message": line} for line in self.lines[int(nextToken) : there]]
        return {"events": events, "nextForwardToken": str(there)}
