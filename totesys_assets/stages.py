"""Where the time of a refresh goes: the seconds that its threads spent in each stage of the work.

Belongs here: the clock, and the names of the stages. Does not belong here: what a stage does. Stages overlap (one
table is written while the next is read), so that their seconds add up to more than a refresh takes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

T = TypeVar("T")
FINGERPRINT, EXTRACT, DIFFERENCE, LAKE, BUILD, LOAD = "fingerprint", "extract", "difference", "lake", "star", "load"
NAMES = (FINGERPRINT, EXTRACT, DIFFERENCE, LAKE, BUILD, LOAD)

_spent: dict[str, float] = dict.fromkeys(NAMES, 0.0)
_lock = threading.Lock()
_thread = threading.local()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time of the block for stage ``name``, and not for a stage around it in the same thread."""
    began, around = monotonic(), getattr(_thread, "within", 0.0)
    _thread.within = 0.0
    try:
        yield
    finally:
        taken = monotonic() - began
        count(name, taken - _thread.within)
        _thread.within = around + taken


def count(name: str, seconds: float) -> None:
    """Count ``seconds`` for stage ``name``; less than 0 for what turned out to be waiting for another stage."""
    with _lock:
        _spent[name] += seconds


def timed(name: str, items: Iterable[T]) -> Iterator[T]:
    """The items; the time that each takes to come is counted for stage ``name``."""
    iterator = iter(items)
    while True:
        with stage(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def take() -> dict[str, float]:
    """Seconds per stage, of all threads of this process, since this was last asked; the clock begins anew."""
    with _lock:
        taken = {name: round(seconds, 3) for name, seconds in _spent.items() if seconds}
        _spent.update(dict.fromkeys(NAMES, 0.0))
    return taken
