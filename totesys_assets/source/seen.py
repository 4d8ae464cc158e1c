"""What the snapshots of a source showed last: at the same instant, nothing need be read to know its fingerprints."""

from __future__ import annotations

from dataclasses import dataclass

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import DayRange
from totesys_assets.source.interface import Fingerprint


@dataclass(frozen=True)
class _Shown:
    instant: str
    table: Table
    all_days: DayRange
    columns: list[str]
    fingerprints: dict[str, Fingerprint]


class Seen:
    """Of each table what the last snapshot showed that read it."""

    def __init__(self) -> None:
        self._shown: dict[str, _Shown] = {}

    def find(self, instant: str, table: Table, all_days: DayRange) -> tuple[list[str], dict[str, Fingerprint]] | None:
        """Columns of ``table``, and fingerprints of its partitions; None unless it was read at this ``instant``."""
        shown = self._shown.get(table.name)
        if shown is None or (shown.instant, shown.table, shown.all_days) != (instant, table, all_days):
            return None
        return shown.columns, dict(shown.fingerprints)

    def note(
        self, instant: str, table: Table, all_days: DayRange, columns: list[str], fingerprints: dict[str, Fingerprint]
    ) -> None:
        """Keep what a snapshot showed."""
        self._shown[table.name] = _Shown(instant, table, all_days, columns, dict(fingerprints))
