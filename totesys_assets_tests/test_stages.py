"""The clock of the stages: what is counted for which, in one thread and in several."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from totesys_assets import stages
from totesys_assets.stages import BUILD, EXTRACT, LAKE, LOAD, count, stage, take, timed
from totesys_assets_tests.conftest import Platform


class Clock:
    """Time that passes only when somebody sleeps."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def begun() -> None:
    take()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stages, "monotonic", made)
    return made


def test_a_stage_within_another_is_not_counted_for_that_one_too(clock: Clock) -> None:
    with stage(LOAD):
        clock.sleep(1)
        with stage(LAKE):
            clock.sleep(3)
        clock.sleep(1)
    assert take() == {LAKE: 3, LOAD: 2}
    assert take() == {}


def test_a_stage_counts_while_its_items_come_and_not_while_they_are_used(clock: Clock) -> None:
    def slow() -> Iterator[int]:
        for number in range(2):
            clock.sleep(1)
            yield number

    with stage(LAKE):
        for _ in timed(BUILD, slow()):
            clock.sleep(2)
    assert take() == {BUILD: 2, LAKE: 4}


def test_threads_count_each_for_itself_and_waiting_is_taken_off(clock: Clock) -> None:
    def work() -> None:
        with stage(EXTRACT):
            clock.sleep(2)

    with stage(LAKE):
        for _ in range(3):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        clock.sleep(1)
        count(LAKE, -6)
    assert take() == {EXTRACT: 6, LAKE: 1}


def test_a_stage_that_fails_is_counted_all_the_same(clock: Clock) -> None:
    def fail() -> Iterator[int]:
        clock.sleep(2)
        yield 1 // 0

    with pytest.raises(ZeroDivisionError):
        list(timed(LOAD, fail()))
    assert take() == {LOAD: 2}


def test_a_refresh_counts_all_of_its_stages(platform: Platform) -> None:
    platform.refresh()
    first = take()
    assert set(first) == set(stages.NAMES) - {stages.DIFFERENCE}  # there was nothing to compare with
    platform.sql("UPDATE sales_order SET units_sold = 7")
    platform.refresh()
    second = take()
    assert set(second) == set(stages.NAMES)
    assert min([*first.values(), *second.values()]) >= 0
    assert max(second.values()) > 0
