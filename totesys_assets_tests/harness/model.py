"""The model: which versions a series of captures must have left behind.

Belongs here: plain dictionaries and no I/O. A capture of some days of a table, given what the source showed, adds the
versions that follow from what was held before; nothing else ever changes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from totesys_assets.days import DayRange, Days
from totesys_assets_tests.harness.source import (
    BY_DAY,
    COLUMNS,
    DIMENSIONS,
    FACTS,
    WHOLE,
    Mapped,
    Row,
    State,
    day_of,
    is_dead,
)

# A row is known by its key and the day it was created on (WHOLE in a table that is one set).
Place = tuple[str, str]
MASS_DELETION_ROWS = 20


@dataclass(frozen=True)
class Version:
    """One state of a row, and how it came to be."""

    operation: str
    row: Row


@dataclass
class TableModel:
    """Versions by place, in order; ``moments`` counts captures, so that versions of two places can be ordered."""

    versions: defaultdict[Place, list[Version]] = field(default_factory=lambda: defaultdict(list))
    moments: dict[Place, int] = field(default_factory=dict)
    dead: dict[str, set[str]] = field(default_factory=dict)
    known_rows: dict[str, int] = field(default_factory=dict)

    def present(self) -> dict[Place, Row]:
        """The rows that are not gone."""
        return {place: each[-1].row for place, each in self.versions.items() if each[-1].operation != "delete"}


class Model:
    """All tables, after the captures so far."""

    def __init__(self, days: DayRange) -> None:
        self.days = days
        self.tables = {table: TableModel() for table in COLUMNS}
        self._moment = 0

    def place(self, table: str, key: str, row: Row) -> Place:
        """Where a row with a partition belongs."""
        return key, (day_of(row, self.days) or "") if table in BY_DAY else WHOLE

    def capture(self, table: str, days: Days | None, state: State) -> Counter[str]:
        """Add what a capture of ``days`` (None: all of them) must add; returns the versions by operation."""
        self._moment += 1
        added: Counter[str] = Counter()
        model = self.tables[table]
        wanted = self._wanted(table, days)
        for place, version in self._difference(table, wanted, state):
            model.versions[place].append(version)
            model.moments[place] = self._moment
            added[version.operation] += 1
        for partition in wanted:
            model.known_rows[partition] = 0
            model.dead[partition] = set()
        for key, row in state[table].items():
            partition = self.partition(table, row)
            if partition in wanted:
                model.known_rows[partition] += 1
                if is_dead(table, row, self.days):
                    model.dead[partition].add(key)
        return added

    def add(self, table: str, place: Place, version: Version, moment: int) -> None:
        """Add a version that somebody else came to, as of a moment."""
        self.tables[table].versions[place].append(version)
        self.tables[table].moments[place] = self._moment = max(self._moment, moment)

    def pending(self, table: str, days: Days | None, state: State) -> list[tuple[Place, Version]]:
        """What a capture would add."""
        return list(self._difference(table, self._wanted(table, days), state))

    def partition(self, table: str, row: Row) -> str:
        """The partition with which a row is examined: rows that belong nowhere with the first day."""
        return (day_of(row, self.days) or str(self.days.first)) if table in BY_DAY else WHOLE

    def _wanted(self, table: str, days: Days | None) -> set[str]:
        return set((days or self.days).keys) if table in BY_DAY else {WHOLE}

    def _difference(self, table: str, wanted: set[str], state: State) -> list[tuple[Place, Version]]:
        rows, model = state[table], self.tables[table]
        good = {key: row for key, row in rows.items() if not is_dead(table, row, self.days)}
        result = []
        for key, row in good.items():
            place = self.place(table, key, row)
            if place[1] not in wanted:
                continue
            held = model.versions[place][-1] if place in model.versions else None
            if held is None or held.operation == "delete":
                result.append((place, Version("insert", row)))
            elif held.row != row:
                result.append((place, Version("update", row)))
        for place, row in model.present().items():
            key, day = place
            if day not in wanted or (key in good and self.place(table, key, good[key]) == place):
                continue
            if key in rows and self.place(table, key, rows[key]) == place:
                continue  # turned bad: its last good version stands for as long as it is on that day
            result.append((place, Version("delete", row)))
        return result

    def adopt(self, lake: Model) -> None:
        """Go on with another lake, as the facts of a warehouse do: what both agree on gets no second version."""
        self._moment += 1
        for mapping in FACTS.values():
            mine, theirs = self.tables[mapping.source], lake.tables[mapping.source].present()
            held = mine.present()
            for place in held.keys() | theirs.keys():
                versions = mine.versions[place]
                if place not in theirs:
                    versions.append(Version("delete", held[place]))
                elif place not in held:
                    versions.append(Version("insert", theirs[place]))
                elif mapping.expected(held[place]) != mapping.expected(theirs[place]):
                    versions.append(Version("update", theirs[place]))
                else:  # what the fact has no column for is known from now on
                    versions[-1] = Version(versions[-1].operation, theirs[place])
                    continue
                mine.moments[place] = self._moment

    def guarded(self, table: str, state: State) -> bool:
        """True when most of the table's rows are gone since they were last counted."""
        before = sum(self.tables[table].known_rows.values())
        return before >= MASS_DELETION_ROWS and len(state[table]) < before / 2

    def forget_counts(self) -> None:
        """The ledger is lost: how many rows there were is then what the lake holds of them."""
        for model in self.tables.values():
            model.known_rows = dict(Counter(day for _, day in model.present()))

    def current(self, table: str) -> dict[str, Row]:
        """By key, the row as it is now: of one that moved, the day on which it was last seen to arrive or change."""
        model = self.tables[table]
        present = sorted(model.present().items(), key=lambda item: (model.moments[item[0]], item[0][1]))
        return {key: row for (key, _), row in present}

    def last_known(self, table: str) -> dict[str, Row]:
        """By key, also the rows that are gone, as they last were."""
        model = self.tables[table]
        ever = sorted(model.versions.items(), key=lambda item: (model.moments[item[0]], item[0][1]))
        return {key: each[-1].row for (key, _), each in ever} | self.current(table)

    def dimension(self, name: str) -> dict[str, tuple[Mapped, bool]]:
        """By key, a dimension's row and whether it is flagged as deleted."""
        dimension = DIMENSIONS[name]
        others = self.last_known(dimension.joined[0]) if dimension.joined else {}
        there = self.current(dimension.source)
        result = {}
        for key, row in self.last_known(dimension.source).items():
            other = others.get(str(row[dimension.joined[1]])) if dimension.joined else {}
            if other is not None:
                result[key] = dimension.expected(row, other), key not in there
        return result
