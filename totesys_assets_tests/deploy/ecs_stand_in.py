"""A stand-in for Amazon ECS as deploy/release.sh uses it: services, deployments and tasks, by a clock of their own.

It answers what the AWS command line asks, over a socket, so that a release of ten minutes takes a second. Requests are
checked against AWS's own description of ECS, and ``--query`` is evaluated as the command line does. As ECS does:

- a task that is told to stop lives on for ``STOPPING`` seconds, in which it is not among those that are wanted;
- a service of at most 100 % begins a new task as soon as the old one was *told* to stop;
- a deployment whose tasks are never well is given up, and except for the daemon a new one brings the last complete
  one back.
"""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import botocore.session
import jmespath  # type: ignore[import-untyped]
from botocore import xform_name
from botocore.validate import ParamValidator

STARTING, GIVING_UP, STOPPING, PROVISIONING = 15, 45, 40, 30
MOST_DESCRIBED = 100  # tasks in one question
LONGEST_WAIT = 600  # of `aws ecs wait`: 100 questions, six seconds apart

# Sends its arguments to the stand-in, any characters but its own two. What comes back: the exit code in a line, then
# what it prints.
_SHIM = r"""#!/usr/bin/env bash
exec 3<>"/dev/tcp/127.0.0.1/$STAND_IN"
printf '%s\x1f' "${0##*/}" "$@" >&3; printf '\x1e' >&3
read -r code <&3
if [ "$code" = 0 ]; then cat <&3; else cat <&3 >&2; fi
exit "$code"
"""


class Refused(Exception):
    """What the AWS command line says before it ends with 255."""


@dataclass
class Task:
    """A task of a service, or of the release itself (``service`` is empty)."""

    arn: str
    service: str
    definition: str
    deployment: str = ""
    wanted: bool = True
    ends_at: float | None = None
    exit_code: int | None = None


@dataclass
class Deployment:
    """One try to bring a service to a task definition."""

    id: str
    definition: str
    desired: int
    began: float
    state: str = "IN_PROGRESS"


@dataclass
class Service:
    """A service, its deployments (the newest first), and what it last ran whole."""

    name: str
    definition: str
    desired: int
    deployments: list[Deployment] = field(default_factory=list)
    complete: Deployment = field(init=False)


@dataclass
class Ecs:
    """The cluster. ``never_well``: task definitions whose tasks fail their health check.

    ``outage``: the numbers of the calls that fail, counted from 1. ``has_effect``: they do what was asked nevertheless.
    """

    knows: ClassVar[tuple[str, ...]] = ("ecs",)

    running: Mapping[str, tuple[str, int]]
    never_well: frozenset[str] = frozenset()
    provision_code: int | None = 0
    accepts_tasks: bool = True
    outage: range = range(0)
    has_effect: bool = False
    now: float = 0
    calls: list[list[str]] = field(default_factory=list)
    updates: list[tuple[str, str, int]] = field(default_factory=list)
    most_daemons: int = 0
    misunderstood: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = iter(range(1, 10_000))
        self.tasks: list[Task] = []
        self.services = {
            name: Service(name, definition, desired) for name, (definition, desired) in self.running.items()
        }
        for service in self.services.values():
            service.deployments = [
                Deployment(self._name("ecs-svc"), service.definition, service.desired, 0, "COMPLETED")
            ]
            service.complete = service.deployments[0]
            self._begin(service, service.desired)

    def is_at_rest(self) -> bool:
        """Whether no deployment is under way and no task is ending."""
        self.pass_time(4 * GIVING_UP)
        return all(each.deployments[0].state == "COMPLETED" for each in self.services.values())

    def what_runs(self) -> dict[str, tuple[str, int]]:
        """Each service's task definition and number of tasks, by the tasks that live."""
        found = {}
        for name, service in self.services.items():
            alive = [task.definition for task in self.tasks if task.service == name and self._lives(task)]
            assert set(alive) <= {service.definition}, f"{name} runs {set(alive)} instead of {service.definition}"
            assert len(alive) == service.desired
            found[name] = (service.definition, service.desired)
        return found

    # The clock --------------------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 5, end)
            for service in self.services.values():
                self._go_on(service)
            self.most_daemons = max(
                self.most_daemons, sum(task.service == "daemon" and self._lives(task) for task in self.tasks)
            )

    def _go_on(self, service: Service) -> None:
        newest = service.deployments[0]
        if newest.state != "IN_PROGRESS":
            return
        age = self.now - newest.began
        if newest.desired == 0 or (newest.definition not in self.never_well and age >= STARTING):
            newest.state, service.complete = "COMPLETED", newest
            self._end(task for task in self.tasks if task.service == service.name and task.deployment != newest.id)
            del service.deployments[1:]
        elif newest.definition in self.never_well and age >= GIVING_UP:
            newest.state = "FAILED"
            if service.name != "daemon" and service.complete.definition != newest.definition:  # as services.tf has it
                self._deploy(service, service.complete.definition, newest.desired)

    def _lives(self, task: Task) -> bool:
        return task.ends_at is None or self.now < task.ends_at

    def _begin(self, service: Service, number: int) -> None:
        for _ in range(number):
            arn = self._name("arn:aws:ecs:eu-west-2:1:task/totesys/")
            self.tasks.append(Task(arn, service.name, service.definition, service.deployments[0].id))

    def _end(self, tasks: Iterator[Task]) -> None:
        for task in tasks:
            if task.wanted:
                task.wanted, task.ends_at = False, self.now + STOPPING

    def _deploy(self, service: Service, definition: str, desired: int) -> None:
        service.definition, service.desired = definition, desired
        service.deployments.insert(0, Deployment(self._name("ecs-svc"), definition, desired, self.now))
        mine = [task for task in self.tasks if task.service == service.name and task.wanted]
        if service.name == "daemon":  # at most 100 %: the old one is told to stop, and the new one begins
            self._end(iter(mine))
        else:  # beside the old one, which goes when the new one is well; what another deployment began goes now
            self._end(task for task in mine if task.deployment != service.complete.id)
        self._begin(service, desired)

    def _name(self, kind: str) -> str:
        return f"{kind}{'/' * (not kind.endswith('/'))}{next(self._numbers):010d}"

    # The command line -------------------------------------------------------------------------------------------------

    def answer(self, program: str, *arguments: str) -> tuple[int, str]:
        """The exit code of ``aws …`` or ``sleep …``, and what it prints."""
        if program == "sleep":
            self.pass_time(float(arguments[0]))
            return 0, ""
        self.calls.append([*arguments])
        fails = len(self.calls) in self.outage
        self.pass_time(1)
        try:
            if fails and not self.has_effect:
                raise Refused("Could not connect to the endpoint URL")
            printed = self._wait(*arguments[2:]) if arguments[1] == "wait" else self._call(*arguments)
            if fails:
                raise Refused("Read timeout on endpoint URL")
        except Refused as error:
            return 255, f"{error}\n"
        except Exception as error:  # a call that AWS does not know, or a fault of the stand-in
            self.misunderstood.append(f"aws {' '.join(arguments)}: {error!r}")
            return 252, f"{error!r}\n"
        return 0, printed

    def _call(self, service: str, operation: str, *arguments: str) -> str:
        assert service in self.knows
        names = {xform_name(name, "-"): name for name in described(service).operation_names}
        shape = described(service).operation_model(names[operation]).input_shape
        told = parameters(shape, arguments)
        query, output = told.pop("query", "@"), told.pop("output")
        report = ParamValidator().validate(told, shape)
        assert not report.has_errors(), report.generate_report()
        if "cluster" in shape.members:
            assert told.pop("cluster") == "totesys"
        answer = getattr(self, f"_{operation.replace('-', '_')}")(**told)
        assert output in ("text", "json")
        if output == "text":  # for each page by itself; here of one
            name = PAGED.get(operation)
            pages = [{name: [each]} for each in answer[name]] if name else [answer]
            return "".join(as_text(jmespath.search(query, page)) for page in pages)
        return json.dumps(jmespath.search(query, answer))

    def _run_task(self, **parameters: Any) -> dict[str, Any]:
        if not self.accepts_tasks:
            return {"tasks": [], "failures": [{"reason": "RESOURCE:CPU"}]}
        task = Task(self._name("arn:aws:ecs:eu-west-2:1:task/totesys/"), "", parameters["taskDefinition"])
        task.wanted, task.ends_at, task.exit_code = False, self.now + PROVISIONING, self.provision_code
        self.tasks.append(task)
        return {"tasks": [self._described(task)]}

    def _describe_tasks(self, tasks: list[str]) -> dict[str, Any]:
        return {"tasks": [self._described(task) for task in self.tasks if task.arn in tasks]}

    def _list_tasks(self, serviceName: str, desiredStatus: str) -> dict[str, Any]:  # noqa: N803  as AWS has it
        wanted = desiredStatus == "RUNNING"
        return {"taskArns": [each.arn for each in self.tasks if each.service == serviceName and each.wanted == wanted]}

    def _describe_services(self, services: list[str]) -> dict[str, Any]:
        return {"services": [self._service(self.services[name]) for name in services if name in self.services]}

    def _update_service(
        self,
        service: str,
        desiredCount: int,  # noqa: N803  as AWS has it
        taskDefinition: str | None = None,  # noqa: N803
        forceNewDeployment: bool = False,  # noqa: N803
    ) -> dict[str, Any]:
        found = self.services[service]
        definition = taskDefinition or found.definition
        self.updates.append((service, definition, desiredCount))
        if forceNewDeployment or definition != found.definition:
            self._deploy(found, definition, desiredCount)
        else:
            mine = [task for task in self.tasks if task.service == service and task.wanted]
            found.desired = found.deployments[0].desired = desiredCount
            self._end(iter(mine[desiredCount:]))
            self._begin(found, desiredCount - len(mine))
        return {"service": self._service(found)}

    def _wait(self, until: str, *arguments: str) -> str:
        assert until == "tasks-stopped"
        told = parameters(described("ecs").operation_model("DescribeTasks").input_shape, arguments)
        if len(told["tasks"]) > MOST_DESCRIBED:
            raise Refused("An error occurred (InvalidParameterException): tasks can have at most 100 items")
        waited = 0
        while any(task.arn in told["tasks"] and self._lives(task) for task in self.tasks):
            if waited >= LONGEST_WAIT:
                raise Refused("Waiter TasksStopped failed: Max attempts exceeded")
            self.pass_time(6)
            waited += 6
        return ""

    def _described(self, task: Task) -> dict[str, Any]:
        container = {"exitCode": task.exit_code} if task.exit_code is not None else {}
        return {"taskArn": task.arn, "containers": [container], "stoppedReason": "Essential container in task exited"}

    def _service(self, service: Service) -> dict[str, Any]:
        deployments = [
            {
                "id": each.id,
                "status": "ACTIVE" if number else "PRIMARY",
                "taskDefinition": each.definition,
                "desiredCount": each.desired,
                "rolloutState": each.state,
            }
            for number, each in enumerate(service.deployments)
        ]
        return {
            "serviceName": service.name,
            "taskDefinition": service.definition,
            "desiredCount": service.desired,
            "deployments": deployments,
        }


@cache
def described(service: str) -> Any:
    """AWS's own description of a service."""
    return botocore.session.Session().get_service_model(service.removesuffix("api"))  # s3api


def parameters(shape: Any, arguments: tuple[str, ...]) -> dict[str, Any]:
    """What the command line makes of its arguments, by AWS's description of the operation."""
    members = {xform_name(member, "-"): member for member in shape.members}
    found: dict[str, Any] = {}
    words = list(arguments)
    while words:
        option = words.pop(0).removeprefix("--")
        is_denied = option not in members and option.removeprefix("no-") in members
        name = members.get(option.removeprefix("no-") if is_denied else option, option)
        values = []
        while words and not words[0].startswith("--"):
            values.append(words.pop(0))
        kind = shape.members[name].type_name if name in shape.members else "string"
        if kind == "list" and shape.members[name].member.type_name == "structure":
            found[name] = [dict(pair.split("=", 1) for pair in value.split(",")) for value in values]
        elif kind == "list":
            found[name] = values
        elif kind == "boolean":
            found[name] = not is_denied
        elif kind in ("integer", "structure", "long"):
            found[name] = json.loads(values[0])
        else:
            found[name] = " ".join(values)
    return found


def as_text(found: Any) -> str:
    """As ``--output text`` prints a scalar or a list of them: nothing at all for an empty one, not even a line."""
    values = found if isinstance(found, list) else [found]
    if not values:
        return ""
    return "\t".join("None" if value is None else str(value) for value in values) + "\n"


@contextmanager
def served(ecs: Ecs) -> Iterator[int]:
    """The port on which the stand-in answers."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked = b""
            while not asked.endswith(b"\x1e"):
                asked += self.rfile.read(1)
            code, text = ecs.answer(*asked[:-1].decode().split("\x1f")[:-1])
            self.wfile.write(f"{code}\n{text}".encode())

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


# What the command line asks for page by page, and the list that is cut into pages.
PAGED = {"describe-db-instances": "DBInstances", "list-tasks": "taskArns"}
PROGRAMS = ("aws", "sleep", "terraform")


def run(
    script: Path,
    ecs: Ecs,
    outputs: str,
    folder: Path,
    *arguments: str,
    programs: tuple[str, ...] = PROGRAMS,
    seconds: int = 120,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a script whose ``programs`` are the stand-in's."""
    for program in programs:
        (folder / program).write_text(_SHIM, encoding="utf-8")
        (folder / program).chmod(0o755)
    with served(ecs) as port:
        return subprocess.run(
            ["bash", script, *arguments],
            input=outputs,
            env={"PATH": f"{folder}:{os.environ['PATH']}", "STAND_IN": str(port), **environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
