"""The simulated first load: ranges of days, some at once, whose steps share processors, disks and locks.

A simulation by events. Between two of them nothing begins or ends, and each step advances evenly: as fast as its
slowest part could alone, and no faster than what it shares lets it. Belongs here: steps, what they share, time. Does
not belong here: what a step needs (work.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Steps of a run that are under way at once: STEPS in dagster_internals/executor.py.
SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class Resource:
    """What steps share: processors, or bytes a second. Of it, a part of a step uses at most ``most``."""

    capacity: float
    most: float


@dataclass(frozen=True)
class Part:
    """What a step needs of a resource, by its name: processor seconds, or bytes."""

    resource: str
    needs: float


@dataclass(frozen=True)
class Step:
    """A step of a run. Its parts go on side by side; it begins after other steps of its run.

    ``lock``: a table of the warehouse, of which only one load at a time is under way. A step that waits for it keeps
    its place among the steps of its run.
    """

    name: str
    parts: tuple[Part, ...]
    after: frozenset[str] = frozenset()
    lock: str = ""


@dataclass
class Outcome:
    """When each run began and ended, in seconds; how long loads waited for each other; how busy each resource was."""

    began: list[float]
    ended: list[float]
    waited: float = 0.0
    used: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def seconds(self) -> float:
        """From the beginning of the first run to the end of the last."""
        return max(self.ended)


@dataclass
class _Under:
    """A step that is under way, or waits for its lock: which part of it is left."""

    run: int
    step: Step
    left: float = 1.0


def simulate(runs: Sequence[Sequence[Step]], resources: Mapping[str, Resource], at_once: int) -> Outcome:
    """The runs in their order, ``at_once`` of them under way; each begins when one before it has ended."""
    outcome = Outcome([0.0] * len(runs), [0.0] * len(runs))
    done: list[set[str]] = [set() for _ in runs]
    waiting, current = list(range(len(runs))), list[int]()
    under: list[_Under] = []
    held: dict[str, _Under] = {}
    now = 0.0
    while waiting or current:
        while waiting and len(current) < at_once:
            current.append(waiting.pop(0))
            outcome.began[current[-1]] = now
        for run in current:
            _begin(run, runs[run], done[run], under)
        for each in under:  # in the order in which they came
            if each.step.lock:
                held.setdefault(each.step.lock, each)
        going = [each for each in under if not each.step.lock or held[each.step.lock] is each]
        speeds = _speeds([each.step for each in going], resources)
        seconds = min(each.left / speed for each, speed in zip(going, speeds, strict=True))
        now += seconds
        outcome.waited += seconds * (len(under) - len(going))
        for each, speed in zip(going, speeds, strict=True):
            each.left -= speed * seconds
            for part in each.step.parts:
                outcome.used[part.resource] += part.needs * speed * seconds
        for each in [each for each in going if each.left < 1e-9]:
            under.remove(each)
            done[each.run].add(each.step.name)
            if each.step.lock:
                del held[each.step.lock]
        for run in [run for run in current if len(done[run]) == len(runs[run])]:
            current.remove(run)
            outcome.ended[run] = now
    return outcome


def _begin(run: int, steps: Sequence[Step], done: set[str], under: list[_Under]) -> None:
    """Begin what may begin, in the order of the steps."""
    mine = {each.step.name for each in under if each.run == run}
    for step in steps:
        if len(mine) < SIDE_BY_SIDE and step.name not in done | mine and step.after <= done:
            under.append(_Under(run, step))
            mine.add(step.name)


def _speeds(steps: Sequence[Step], resources: Mapping[str, Resource]) -> list[float]:
    """Which part of each step is done in a second."""
    alone = [min(resources[part.resource].most / part.needs for part in step.parts if part.needs > 0) for step in steps]
    asked = defaultdict[str, float](float)
    for step, speed in zip(steps, alone, strict=True):
        for part in step.parts:
            asked[part.resource] += part.needs * speed
    granted = {name: min(1.0, resources[name].capacity / amount) for name, amount in asked.items() if amount > 0}
    return [
        speed * min(granted.get(part.resource, 1.0) for part in step.parts if part.needs > 0)
        for step, speed in zip(steps, alone, strict=True)
    ]
