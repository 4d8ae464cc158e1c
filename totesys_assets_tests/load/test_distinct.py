"""Whether keys are distinct: dense numbers, numbers far apart, text; in one part and in several."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totesys_assets.load import distinct

SMALL = st.integers(-(2**31), 2**31 - 1)
NUMBERS = st.one_of(st.lists(st.integers(-5, 40), max_size=60), st.lists(SMALL, max_size=20))
EDGES = [[-(2**31), 2**31 - 1], [2**31 - 1, 2**31 - 1], [-(2**31)], []]


def found(values: pa.Array[Any]) -> bool:
    """What is found of values in a column."""
    connection = duckdb.connect()
    connection.register("rows", pa.table({"key": values}))
    return distinct.are_distinct(connection, "key", "(SELECT * FROM rows)")


@pytest.mark.parametrize("at_once", [7, 32_000_000])
def test_numbers(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "_MARKED_AT_ONCE", at_once)

    @given(st.one_of(NUMBERS, st.sampled_from(EDGES)), st.sampled_from([pa.int32(), pa.int64()]))
    def holds(numbers: list[int], kind: pa.DataType) -> None:
        assert found(pa.array(numbers, kind)) == (len(set(numbers)) == len(numbers))

    holds()


@pytest.mark.parametrize("first", [-(2**63), 2**63 - 9])
def test_numbers_at_the_ends_of_what_there_can_be(first: int) -> None:
    numbers = [*range(first, first + 8)]
    assert found(pa.array(numbers, pa.int64()))
    assert not found(pa.array([*numbers, first + 3], pa.int64()))


@pytest.mark.parametrize("at_once", [2, 2_000_000])
def test_text(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "_COUNTED_AT_ONCE", at_once)

    @given(st.lists(st.text("ab", max_size=3), max_size=9))
    def holds(texts: list[str]) -> None:
        assert found(pa.array(texts, pa.string())) == (len(set(texts)) == len(texts))

    holds()


def test_a_missing_key_is_like_no_other_and_yet_not_distinct() -> None:
    assert not found(pa.array([1, 2, None], pa.int32()))


def test_a_repeated_number_is_found_across_batches() -> None:
    numbers = [*range(100_000), 5]
    assert not found(pa.array(numbers, pa.int32()))
    assert found(pa.array(numbers[:-1], pa.int32()))
