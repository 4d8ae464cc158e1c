"""Transactions that a snapshot hides: those that were running, and those that came later, on a circle of ids."""

from __future__ import annotations

import numpy as np
import pytest

from totesys_assets.source.totesys.visibility import hidden_by, hideable

CIRCLE = 2**32


@pytest.mark.pure
@pytest.mark.parametrize("turns", [0, 1, 7])
@pytest.mark.parametrize("start", [1_000, CIRCLE - 3, CIRCLE - 1])
def test_what_was_running_and_what_came_later_is_hidden(start: int, turns: int) -> None:
    xmin = start + turns * CIRCLE
    text = f"{xmin}:{xmin + 5}:{xmin},{xmin + 3}"
    ids = np.array([(xmin + offset) % CIRCLE for offset in (-2, -1, 0, 1, 2, 3, 4, 5, 6, CIRCLE // 2 - 1)], np.int64)
    expected = [False, False, True, False, False, True, False, True, True, True]
    assert hidden_by(text, ids).tolist() == expected
    ranges = hideable(xmin)
    assert [any(first <= each <= last for first, last in ranges) for each in ids] == [False, False, *[True] * 8]
    assert sum(last - first + 1 for first, last in ranges) == CIRCLE // 2


@pytest.mark.pure
def test_without_running_transactions_all_before_the_end_are_shown() -> None:
    assert hidden_by("10:10:", np.array([8, 9, 10, 11], np.int64)).tolist() == [False, False, True, True]
