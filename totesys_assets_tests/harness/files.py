"""The files of a world: a source beside ToteSys, written by the harness, with the versions that must have arrived.

Belongs here: the content of the files, and the model of the captures of it. Does not belong here: when they are written
and captured.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.days import DayRange, Days
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import Lake
from totesys_assets.sql_text import quoted

GROUP, TARGET, RATE = "sheets", "budget", "bank_rate"
# Values to write, few, so that rows return to what they were. None removes the row; the last one makes a dead letter.
VALUES = ("1.00", "2.50", None, "plenty")
_CURRENCIES = ("GBP", "EUR")
_BAD = VALUES[-1]
# Digits after the point, as the lake holds them.
_DIGITS = {TARGET: 2, RATE: 6}

# The day, and the currency.
Key = tuple[str, str]
Versions = dict[str, defaultdict[Key, list[tuple[str, str]]]]


def tables() -> list[Table]:
    """The tables of the files; none where the package has no such source."""
    return [table for table in catalogue().source.values() if table.group == GROUP]


class Files:
    """The files as they are, and the versions that captures of them must have left in the lake."""

    def __init__(self, days: DayRange) -> None:
        self._days = days
        self._rows: dict[str, dict[Key, str]] = {TARGET: {}, RATE: {}}
        self._versions: Versions = {TARGET: defaultdict(list), RATE: defaultdict(list)}
        self._copy: Versions | None = None

    def write(self, name: str, offset: int, currency: int, value: str | None) -> None:
        """Set the value of a row, or remove it, and write the file."""
        day = self._days.first + timedelta(days=offset)
        if name == TARGET:
            day = day.replace(month=1 + offset % 12, day=1)  # a target is of a month
        key = (str(day), _CURRENCIES[currency % len(_CURRENCIES)])
        self._rows[name].pop(key, None)
        if value is not None:
            self._rows[name][key] = value
        self.write_all()

    def write_all(self) -> None:
        """Write the files as they are known here."""
        for table in tables():
            lines = [
                ",".join(table.by_name),
                *(f"{day},{code},{v}" for (day, code), v in self._rows[table.name].items()),
            ]
            path = Path(os.environ["TOTESYS_SHEETS"], f"{table.name}.csv")
            path.write_text("\n".join([*lines, ""]), encoding="utf-8")

    def capture(self, name: str, days: Days | None) -> Counter[str]:
        """Note what a capture must add; returns the versions by operation."""
        added = self.pending(name, days)
        for key, version in added:
            self._versions[name][key].append(version)
        return Counter(operation for _, (operation, _) in added)

    def pending(self, name: str, days: Days | None) -> list[tuple[Key, tuple[str, str]]]:
        """What a capture would add."""
        added = []
        rows = self._rows[name]
        for key in sorted(rows.keys() | self._versions[name].keys()):
            if name == RATE and days is not None and key[0] not in days.keys:
                continue
            operation, held = self._versions[name][key][-1] if self._versions[name].get(key) else ("delete", "")
            value = rows.get(key)
            if value is None and operation != "delete":
                added.append((key, ("delete", held)))
            elif value is not None and value != _BAD:
                if operation == "delete":
                    added.append((key, ("insert", value)))
                elif value != held:
                    added.append((key, ("update", value)))
        return added

    def letters(self) -> set[tuple[str, str]]:
        """Table and key of each row that cannot be typed."""
        return {(name, ", ".join(key)) for name, rows in self._rows.items() for key, v in rows.items() if v == _BAD}

    def keep_copy(self) -> None:
        """The lake was copied."""
        self._copy = deepcopy(self._versions)

    def change_lake(self, *, restored: bool) -> None:
        """The lake is the copy, or one in which there is nothing."""
        known = self._copy if restored else None
        self._versions = deepcopy(known) if known is not None else {name: defaultdict(list) for name in self._versions}

    def require_arrived(self, lake: Lake) -> None:
        """Each version that must have arrived is in the lake once, in its order, and no other."""
        for table in tables():
            connection = engine.connect()
            try:
                held = register(connection, "held", lake.existing(table))
                names = ", ".join(f"CAST({quoted(column)} AS VARCHAR)" for column in table.by_name)
                rows = connection.execute(f"SELECT {names}, _operation FROM {held} ORDER BY _recorded_at").fetchall()
            finally:
                connection.close()
            found: dict[Key, list[tuple[str, str]]] = {}
            for day, code, value, operation in rows:
                found.setdefault((day, code), []).append((operation, value))
            digits = _DIGITS[table.name]
            expected = {
                key: [(operation, f"{float(value):.{digits}f}") for operation, value in versions]
                for key, versions in self._versions[table.name].items()
                if versions
            }
            assert found == expected, f"versions of {table.name}:\n{found}\nexpected:\n{expected}"
