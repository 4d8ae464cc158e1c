"""Sources that are copied: text is typed exactly or not at all, and what cannot be reached or told apart is said."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pytest

from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.catalogue import catalogue as catalogue_module
from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.catalogue.consistency import require_names
from totesys_assets.days import DayRange
from totesys_assets.errors import ConnectionFailed, PlatformError, SchemaDrift, StaleSnapshot
from totesys_assets.lake.tables import Lake
from totesys_assets.names import TOTESYS
from totesys_assets.platform import other_sources
from totesys_assets.settings import Settings
from totesys_assets.source import copied
from totesys_assets.source.copied import CopiedSnapshot
from totesys_assets.source.interface import Source
from totesys_assets.source.rows import row_key
from totesys_assets.source.shared_snapshot import OpenSnapshots, own_faults

pytestmark = pytest.mark.pure

DAYS = DayRange(date(2024, 8, 19), date(2024, 8, 25))
DDL = """
-- One row per reading.
CREATE TABLE reading (
    place text, -- where
    read_at timestamp NOT NULL, -- by day: when
    number int, -- how many
    amount numeric(6,2), -- how much
    is_final boolean, -- whether
    valid_on date, -- until when
    code varchar(3), -- which
    noted_at timestamptz(3), -- when it was written down
    opens_at time, -- from when on each day
    steps bigint, -- how many since the beginning
    texts text, -- what was said
    PRIMARY KEY (place, code)
);
"""
[TABLE] = catalogue_module._tables("readings", DDL)
Row = dict[str, str | None]
GOOD: Row = {
    "place": "north",
    "read_at": "2024-08-20 10:00:00",
    "number": "7",
    "amount": "1.20",
    "is_final": "true",
    "valid_on": "2024-08-31",
    "code": "abc",
    "noted_at": "2024-08-20T12:00:00.120000+02:00",
    "opens_at": "08:30:00",
    "steps": "9223372036854775807",
    "texts": "nothing",
}


class Snapshot(CopiedSnapshot):
    """A snapshot of rows that a test gives."""

    def __init__(self, *rows: Row, ignores_new: bool = True) -> None:
        super().__init__("readings", "now", ignores_new=ignores_new)
        self._rows = rows

    def texts(self, table: Table) -> pa.Table:
        names = list(self._rows[0])
        return pa.table({name: pa.array([row[name] for row in self._rows], pa.string()) for name in names})


def compared(snapshot: Snapshot, lake: Lake) -> Captured:
    return capture(snapshot, lake, TABLE, all_days=DAYS, days=DAYS, run_id="test")


def captured(lake: Lake, *rows: Row) -> Captured:
    with Snapshot(*rows) as snapshot:
        return compared(snapshot, lake)


@pytest.fixture
def lake(tmp_path: object) -> Lake:
    return Lake(f"{tmp_path}/lake")


def held(lake: Lake) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = lake.existing(TABLE).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: str(row["_recorded_at"]))


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("number", "seven", "is no integer"),
        ("number", "1.5", "is not exact as integer"),
        ("number", "99999999999", "is no integer"),
        ("amount", "1.205", "is not exact as numeric(6,2)"),
        ("amount", "NaN", "is no numeric(6,2)"),
        ("amount", "123456.00", "is no numeric(6,2)"),
        ("is_final", "perhaps", "is no boolean"),
        ("valid_on", "2024-02-30", "is no date"),
        ("number", " 7", "is no integer"),
        ("number", "7\n", "is no integer"),
        ("amount", "1.2e0", "is no numeric(6,2)"),
        ("amount", f"{10**27}.5", "is no numeric(6,2)"),
        ("valid_on", "infinity", "is no date"),
        ("valid_on", "2024-08-01abc", "is no date"),
        ("valid_on", "2024-08-02 23:59", "is no date"),
        ("valid_on", "2024-8-2", "is no date"),
        ("valid_on", "0000-01-01", "is no time between the years 1 and 9999"),
        ("read_at", "2024-08-20 10:00:00+02", "is no timestamp without time zone"),
        ("read_at", "2024-08-20 10:00:00.1234569", "is not exact as timestamp without time zone"),
        ("read_at", "2024-08-20", "is no timestamp without time zone"),
        ("read_at", "2024-08-20 24:00:00", "is no timestamp without time zone"),
        ("noted_at", "2024-08-20 10:00:00.1234Z", "is not exact as timestamp(3) with time zone"),
        ("noted_at", "2024-08-20 10:00:00", "is no timestamp(3) with time zone"),
        ("noted_at", "9999-12-31 23:00:00-02", "is no time between the years 1 and 9999"),
        ("opens_at", "banana", "is no time without time zone"),
        ("opens_at", "24:00:00", "is no time without time zone"),
        ("opens_at", "08:00:00.1234", "is not exact as time without time zone"),
        ("code", "abcd", "is longer than 3 characters"),
        ("code", "a\0", "has the character U+0000, which PostgreSQL cannot hold"),
        ("read_at", "yesterday", "is no timestamp without time zone"),
        ("read_at", "2031-01-01 00:00:00", "lies outside the days from 2024-08-19 to tomorrow that have a partition"),
    ],
)
def test_text_that_is_not_exactly_of_its_columns_type_is_a_dead_letter(
    lake: Lake, column: str, text: str, reason: str
) -> None:
    assert captured(lake, GOOD, {**GOOD, "place": "south", column: text}).total("rejected") == 1
    [letter] = open_dead_letters(lake).to_pylist()
    assert (letter["column_name"], letter["reason"]) == (column, reason)
    assert [row["place"] for row in held(lake)] == ["north"]


def test_text_of_the_form_of_its_type_is_kept_exactly(lake: Lake) -> None:
    captured(lake, {**GOOD, "read_at": "2024-08-20T10:00:00.123456", "number": "+7.00", "amount": "-1.2000"})
    [row] = held(lake)
    assert row["read_at"] == datetime(2024, 8, 20, 10, 0, 0, 123456)
    assert (row["number"], row["amount"]) == (7, Decimal("-1.20"))
    assert row["noted_at"] == datetime(2024, 8, 20, 10, 0, 0, 120000, UTC)
    assert (row["opens_at"], row["steps"]) == ("08:30:00.000", 2**63 - 1)


EVERY_TYPE = [
    *(("int", "7", 7), ("serial", "7", 7), ("bigint", "-7", -7), ("text", "a", "a"), ("varchar", "a", "a")),
    *(("boolean", "f", False), ("date", "2024-08-20", date(2024, 8, 20)), ("time", "08:00:00.5", "08:00:00.500")),
    ("timestamp", "2024-08-20 10:00:00", datetime(2024, 8, 20, 10)),
    ("timestamptz", "2024-08-20 10:00:00Z", datetime(2024, 8, 20, 10, tzinfo=UTC)),
    ("numeric(38,0)", "1" * 38, Decimal("1" * 38)),
    ("numeric(38,20)", "1.5", Decimal("1.5")),
]


def holding(type_: str) -> Table:
    [table] = catalogue_module._tables("readings", f"CREATE TABLE reading (id int PRIMARY KEY, held {type_});")
    return table


@pytest.mark.parametrize(("type_", "text", "value"), EVERY_TYPE)
def test_every_type_of_the_catalogue_can_be_copied(type_: str, text: str, value: object) -> None:
    table = holding(type_)
    with Snapshot({"id": "1", "held": text}) as snapshot:
        snapshot.require(table)
        rows = snapshot.connection.execute(snapshot.select(table, DAYS)).to_arrow_table().to_pylist()
    assert rows == [{"id": 1, "held": value, "_broken": None}]


def test_no_type_of_the_catalogue_is_missing_above() -> None:
    tried = {holding(type_).by_name["held"].type for type_, *_ in EVERY_TYPE}
    assert {name for name, _ in catalogue_module._TYPES.values()} <= tried


def test_a_row_that_turned_bad_keeps_its_last_good_version_until_it_is_mended(lake: Lake) -> None:
    assert captured(lake, GOOD).versions == 1
    assert captured(lake, {**GOOD, "number": "seven"}).versions == 0
    assert captured(lake, {**GOOD, "number": "8"}).total("updated") == 1
    assert open_dead_letters(lake).num_rows == 0
    assert captured(lake, {**GOOD, "number": "8"}).versions == 0


def test_a_row_whose_day_changes_leaves_one_partition_and_joins_another(lake: Lake) -> None:
    captured(lake, GOOD)
    moved = captured(lake, {**GOOD, "read_at": "2024-08-21 10:00:00"})
    changed = [entry for entry in moved.entries if entry.inserted or entry.deleted]
    assert {entry.partition: (entry.inserted, entry.deleted) for entry in changed} == {
        "2024-08-20": (0, 1),
        "2024-08-21": (1, 0),
    }


def test_rows_that_cannot_be_told_apart_stop_the_table(lake: Lake) -> None:
    with pytest.raises(PlatformError, match=r'known by "place", "code"\. It has rows with the key of another: 1\.'):
        captured(lake, GOOD, {**GOOD, "number": "8"})
    with pytest.raises(PlatformError, match="It has rows without a key: 1"):
        captured(lake, GOOD, {**GOOD, "place": None})


def test_a_fault_in_the_code_of_a_source_is_a_problem_of_its_table() -> None:
    class Faulty(Snapshot):
        """Its code has a fault."""

        def texts(self, table: Table) -> pa.Table:
            raise KeyError(table.name)

    with Faulty(GOOD) as snapshot, pytest.raises(PlatformError, match='"reading" could not be read: KeyError'):
        snapshot.require(TABLE)


def test_a_key_of_another_type_stops_the_table_and_is_shown() -> None:
    [numbered] = catalogue_module._tables("readings", "CREATE TABLE numbered (number int PRIMARY KEY, place text);")
    what = r'rows whose "number" is not exactly integer: 1, as "7\.5"\.'
    with Snapshot(GOOD, {**GOOD, "number": "7.5"}) as snapshot, pytest.raises(PlatformError, match=what):
        snapshot.require(numbered)


def test_a_column_that_the_catalogue_has_not_is_left_out_or_stops_the_table() -> None:
    wider = {**GOOD, "note": "new"}
    with Snapshot(wider) as snapshot:
        assert snapshot.fingerprints(TABLE, DAYS)
        assert "note" in snapshot.columns(TABLE)
    with Snapshot(wider, ignores_new=False) as snapshot, pytest.raises(SchemaDrift, match='"note" is new'):
        snapshot.require(TABLE)


def test_a_state_tells_of_any_change_and_of_another_catalogue() -> None:
    def state(*rows: Row) -> str:
        with Snapshot(*rows) as snapshot:
            return snapshot.fingerprints(TABLE, DAYS)["2024-08-20"].state

    assert state(GOOD) == state(GOOD)
    others = [{**GOOD, "amount": "1.2"}, {**GOOD, "texts": None}, {**GOOD, "note": "new"}, {**GOOD, "NOTE": "new"}]
    assert len({state(GOOD), *map(state, others)}) == 1 + len(others)
    twins = [{**GOOD, "NUMBER": text} for text in "89"]
    assert state(twins[0]) != state(twins[1])


def test_an_older_copy_is_refused_unless_the_clock_was_set_back(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with Snapshot(GOOD) as older:
        older.require(TABLE)
        captured(lake, {**GOOD, "number": "8"})
        with pytest.raises(StaleSnapshot, match="the clock of this machine was set back"):
            compared(older, lake)
    clock = copied._now
    monkeypatch.setattr(copied, "_now", lambda: clock() - timedelta(hours=2))
    with Snapshot(GOOD) as later:
        assert compared(later, lake).total("updated") == 1


def test_a_table_is_as_old_as_its_own_copy_and_not_as_its_snapshot(lake: Lake) -> None:
    captured(lake, GOOD)
    with Snapshot({**GOOD, "number": "9"}) as opened_first, Snapshot({**GOOD, "number": "8"}) as copied_first:
        copied_first.require(TABLE)
        between = datetime.now(UTC)
        assert compared(opened_first, lake).total("updated") == 1
        with pytest.raises(StaleSnapshot):
            compared(copied_first, lake)
    assert [row["number"] for row in held(lake)] == [7, 9]
    assert [str(row["_recorded_at"]) > str(between) for row in held(lake)] == [False, True]


def test_of_two_copies_that_were_made_at_once_neither_is_taken_for_the_later(lake: Lake) -> None:
    class Slow(Snapshot):
        """Another refresh copies and captures the table while this one copies it."""

        def texts(self, table: Table) -> pa.Table:
            captured(lake, {**GOOD, "number": "8"})
            return super().texts(table)

    with Slow(GOOD) as slow, pytest.raises(StaleSnapshot):
        compared(slow, lake)
    with Snapshot(GOOD) as snapshot:  # nor is a copy taken for another than itself
        assert [compared(snapshot, lake).versions for _ in range(2)] == [1, 0]


def test_no_two_keys_of_several_columns_share_one_text() -> None:
    with Snapshot({**GOOD, "place": "a"}, {**GOOD, "place": "a, b"}, {**GOOD, "place": "a,"}) as snapshot:
        snapshot.require(TABLE)
        keys = {key for (key,) in snapshot.rows(f"SELECT {row_key(TABLE)} FROM {snapshot.relation(TABLE)}")}
    assert keys == {f"{place}, abc" for place in ("a", "a,, b", "a,,")}


class Unreachable:
    """A source that is not there."""

    name, tables = "unreachable", {"reading": TABLE}

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Fails."""
        raise ConnectionFailed("It is not there.")


class Reachable(Unreachable):
    """A source that is."""

    name = "readings"

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """One row."""
        return Snapshot(GOOD)


def test_a_source_that_cannot_be_reached_does_not_keep_the_others_from_being_read() -> None:
    away: Source = Unreachable()
    snapshots = OpenSnapshots([away, Reachable()])
    assert (list(snapshots.now), list(snapshots.problems)) == (["readings"], ["unreachable"])
    snapshots.close()
    with pytest.raises(ConnectionFailed, match="It is not there"):
        OpenSnapshots([away])


def test_a_fault_in_the_code_of_another_source_is_a_problem_of_that_source() -> None:
    class Faulty(Unreachable):
        """Its code has a fault."""

        def snapshot(self) -> AbstractContextManager[Snapshot]:
            raise KeyError("place")

    snapshots = OpenSnapshots([Faulty(), Reachable()])
    assert (
        str(snapshots.problems["unreachable"])
        == "The source \"unreachable\" cannot be read: KeyError: 'place'. Correct totesys_assets/source/unreachable.py."
    )
    snapshots.close()
    with pytest.raises(KeyError), own_faults(TOTESYS, "ToteSys cannot be read"):
        raise KeyError("place")


@pytest.mark.parametrize("module", [{}, {"open_source": lambda *_: {}.missing}])  # type: ignore[attr-defined]
def test_only_a_missing_function_is_called_missing(monkeypatch: pytest.MonkeyPatch, module: dict[str, object]) -> None:
    tables = catalogue()
    wider = catalogue_module.Catalogue({**tables.source, "reading": TABLE}, tables.star, tables.marts)
    monkeypatch.setattr("totesys_assets.platform.catalogue", lambda: wider)
    monkeypatch.setattr("totesys_assets.platform.find_spec", lambda _: True)
    monkeypatch.setattr("totesys_assets.platform.import_module", lambda _: SimpleNamespace(**module))
    said = pytest.raises(AttributeError) if module else pytest.raises(PlatformError, match="there is no such function")
    with said:
        other_sources(Settings.from_env({}))


def test_a_table_that_is_partitioned_by_what_may_be_missing_is_refused() -> None:
    tables = list(catalogue_module._tables("readings", DDL.replace("read_at timestamp NOT NULL", "read_at timestamp")))
    with pytest.raises(
        PlatformError, match=r'"reading" in catalogue/readings\.sql is partitioned by "read_at", which may'
    ):
        require_names(tables)


def test_a_ddl_without_a_module_says_which_module_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = catalogue()
    wider = catalogue_module.Catalogue({**tables.source, "reading": TABLE}, tables.star, tables.marts)
    monkeypatch.setattr("totesys_assets.platform.catalogue", lambda: wider)
    with pytest.raises(PlatformError, match=r"source/readings\.py must open with a function open_source"):
        other_sources(Settings.from_env({}))
