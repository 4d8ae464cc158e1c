"""The look at several sources: what goes wrong with one of them stops only its own tables."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from totesys_assets.catalogue import catalogue as catalogue_module
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.days import DayRange, Days
from totesys_assets.errors import ConnectionFailed
from totesys_assets.lake.tables import Lake
from totesys_assets.platform import Platform
from totesys_assets.source.copied import CopiedSnapshot
from totesys_assets.source.interface import Fingerprint
from totesys_assets.source.seen import Seen
from totesys_assets.source.shared_snapshot import OpenSnapshots
from totesys_assets.staleness.look import _examine

pytestmark = pytest.mark.pure

DAYS = DayRange(date(2024, 8, 19), date(2024, 8, 25))


class Snapshot(CopiedSnapshot):
    """One row; ``fault`` is raised for a table called ``second``."""

    def __init__(self, source: str, fault: Exception | None, seen: Seen | None = None) -> None:
        super().__init__(source, "now", seen=seen)
        self._fault = fault
        self.texts_read: list[str] = []

    def texts(self, table: Table) -> pa.Table:
        self.texts_read.append(table.name)
        return pa.table({"id": pa.array(["1"])})

    def fingerprints(self, table: Table, all_days: DayRange, days: Days | None = None) -> dict[str, Fingerprint]:
        if self._fault is not None and table.name.startswith("second"):
            raise self._fault
        return super().fingerprints(table, all_days, days)


class Small:
    """A source of two tables, which can be reached once."""

    def __init__(self, name: str, fault: Exception | None = None) -> None:
        ddl = f"CREATE TABLE first_{name} (id int PRIMARY KEY); CREATE TABLE second_{name} (id int PRIMARY KEY);"
        self.name, self.tables = name, {table.name: table for table in catalogue_module._tables(name, ddl)}
        self._fault, self._is_there = fault, True

    def snapshot(self) -> AbstractContextManager[CopiedSnapshot]:
        """The first time a snapshot."""
        if not self._is_there:
            raise ConnectionFailed("It has gone away.")
        self._is_there = False
        return Snapshot(self.name, self._fault)


def examined(folder: Path, *sources: Small) -> tuple[set[str], dict[str, str]]:
    """The tables that were examined, and what is wrong with the others."""
    warehouse: Any = SimpleNamespace(
        catalogue=Catalogue({name: table for source in sources for name, table in source.tables.items()}, {})
    )
    opened = OpenSnapshots(sources)
    try:
        found, all_examined = _examine(Platform(sources, Lake(f"{folder}/lake"), warehouse, DAYS), opened)
    finally:
        opened.close()
    return set(found), {name: str(problem) for name, problem in all_examined.blocked.items()}


def test_what_a_look_has_seen_of_a_source_is_not_read_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, seen = Small("quiet"), Seen()
    looks = [Snapshot("quiet", None, seen) for _ in range(2)]
    monkeypatch.setattr(source, "snapshot", iter(looks).__next__)
    for _ in looks:
        assert examined(tmp_path, source) == ({"first_quiet", "second_quiet"}, {})
    assert [look.texts_read for look in looks] == [["first_quiet", "second_quiet"], []]


def test_a_source_that_goes_away_in_the_middle_of_a_look_does_not_stop_the_others(tmp_path: Path) -> None:
    found, blocked = examined(tmp_path, Small("going", duckdb.Error("broken pipe")), Small("staying"))
    assert found == {"first_staying", "second_staying"}
    assert blocked == {
        "first_going": "It has gone away.",
        "second_going": '"second_going" could not be examined: broken pipe.',
    }


def test_a_look_fails_when_its_only_source_goes_away(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="It has gone away"):
        examined(tmp_path, Small("going", duckdb.Error("broken pipe")))


def test_a_fault_in_the_code_of_one_source_does_not_stop_the_look_at_the_others(tmp_path: Path) -> None:
    found, blocked = examined(tmp_path, Small("faulty", KeyError("place")), Small("staying"))
    assert found == {"first_faulty", "first_staying", "second_staying"}
    said = "could not be examined: KeyError: 'place'. Correct totesys_assets/source/faulty.py."
    assert blocked == {"second_faulty": f'"second_faulty" {said}'}
