"""A number with its noun."""

import pytest

from totesys_assets.counting import counted

pytestmark = pytest.mark.pure


def test_the_noun_is_in_the_plural_unless_it_is_one() -> None:
    assert [counted(number, "order") for number in (0, 1, 12_000)] == ["0 orders", "1 order", "12,000 orders"]
    assert counted(2, "process", "processes") == "2 processes"
