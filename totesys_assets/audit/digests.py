"""Digests of two sides of an asset, partition by partition, and how they compare.

Does not belong here: reading them (observed.py), and which sides must be equal (source_lake.py, star.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

# Of each partition the number of its rows, a space, and their digest.
Digests = dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """Two sides of one asset: how many partitions were compared, which of them differ, how many are pending."""

    compared: int
    differing: list[str]
    pending: int


def compare(one: Digests, other: Digests, pending: Set[str]) -> Comparison:
    """The partitions of both sides, but for those that are ``pending``."""
    keys = (one.keys() | other.keys()) - pending
    return Comparison(len(keys), sorted(key for key in keys if one.get(key) != other.get(key)), len(pending))


def count(digests: Mapping[str, str], partition: str) -> int:
    """Rows of one partition."""
    return int(digests.get(partition, "0").split()[0])


def total(digests: Mapping[str, str]) -> int:
    """Rows of all partitions."""
    return sum(count(digests, partition) for partition in digests)
