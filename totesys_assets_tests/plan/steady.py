"""The simulated steady state: looks and refreshes follow each other, and changes gather while one is under way.

Belongs here: the cycle, the delay from a change to the warehouse, and where there is none because more comes than goes.
Does not belong here: how long a refresh takes (plan.py, from constants.py).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Cycle:
    """How long looking and refreshing take, in seconds.

    ``look`` finds what was committed before it began. ``fixed`` is a refresh of next to nothing, ``per_change`` what
    each change adds, ``spread`` how much longer than its median the slowest of twenty takes, as a part of it.
    """

    look: float
    fixed: float
    per_change: float
    spread: float = 0.0


@dataclass(frozen=True)
class Saturated:
    """More comes than goes, and the delay grows without end. ``capacity``: changes a second that it can take."""

    capacity: float


@dataclass(frozen=True)
class Delays:
    """From a change to the warehouse, in seconds; the refreshes of an hour, and the changes of one of them."""

    p50: float
    p95: float
    p99: float
    refreshes: float
    gathered: float

    def states_lost(self, hot_rows: float) -> float:
        """Which part of all states nobody sees who only compares: of a row that changed twice, the last is seen."""
        distinct = hot_rows * -math.expm1(-self.gathered / hot_rows)
        return max(0.0, 1 - distinct / self.gathered) if self.gathered else 0.0


# Below this part of what it can take, gathered changes do not grow without end: the spread has room.
_FULL = 0.99
_WARM, _CYCLES, _SAMPLES = 500, 2_000, 20


def simulate(cycle: Cycle, rate: float, seed: int = 1) -> Delays | Saturated:
    """Delays at ``rate`` changes a second, above 0, which come one by one, at any moment alike."""
    capacity = 1 / cycle.per_change if cycle.per_change else math.inf
    if rate >= _FULL * capacity:
        return Saturated(capacity)
    chance = random.Random(seed)
    looked, now, delays, gathered = 0.0, 0.0, [], 0.0
    begun = 0.0
    for number in range(_WARM + _CYCLES):
        if number == _WARM:
            begun, gathered = now, 0.0
        if chance.random() < math.exp(-rate * (now - looked)):  # nobody came meanwhile: the tick waits for the next
            now += chance.expovariate(rate)
            looked = now
        before, looked = looked, now
        changes = max(1.0, rate * (looked - before))
        # Half of all take no longer than the median, one in twenty longer than the spread.
        longer = 1 + cycle.spread * max(0.0, chance.gauss(0, 1)) / 1.645
        now += (cycle.look + cycle.fixed) * longer + changes * cycle.per_change
        gathered += changes
        if number >= _WARM:
            delays += [now - (before + (looked - before) * chance.random()) for _ in range(_SAMPLES)]
    delays.sort()
    p50, p95, p99 = (delays[int(len(delays) * part)] for part in (0.5, 0.95, 0.99))
    return Delays(p50, p95, p99, 3600 * _CYCLES / (now - begun), gathered / _CYCLES)
