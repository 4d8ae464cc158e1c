"""Sets of values of versions: always what the whole SELECT gives, and read of new versions only."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from totesys_assets import engine
from totesys_assets.capture.ledger import SETS, Entry, Ledger
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.catalogue.queries import Query, parse, query_of
from totesys_assets.lake.tables import INGESTION, LEDGER, PROCESSED, Lake
from totesys_assets.transform import build as build_module
from totesys_assets.transform import schemas, sets
from totesys_assets.transform.engines import in_duckdb
from totesys_assets.transform.schemas import create_schemas, select_of
from totesys_assets_tests.rows import SEEN, build_star, hold, table_rows, version

pytestmark = pytest.mark.pure

TABLE = catalogue().star["dim_date"]
SOURCES = query_of("dim_date").sources
SELECT = query_of("dim_date").sql


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    for table in SOURCES:
        capture(lake, table)
    return lake


def capture(lake: Lake, table: str, *versions: dict[str, Any]) -> None:
    hold(lake, table, *versions, dated=True)


def build(lake: Lake, *, changes_only: bool = True) -> list[date]:
    build_star(lake, "dim_date", changes_only=changes_only)
    return held(lake)


def held(lake: Lake) -> list[date]:
    table = lake.find(PROCESSED, "dim_date")
    assert table is not None
    return [row["date_id"] for row in table_rows(table, ["date_id"])]


def expected(lake: Lake) -> list[date]:
    """What the SELECT gives as it is written, over all versions."""
    sources = {name: lake.find_versions(catalogue().source[name]) for name in SOURCES}
    with engine.session() as connection:
        create_schemas(connection, catalogue(), query_of("dim_date"), sources, None)
        return [row[0] for row in connection.execute(f"FROM ({select_of(TABLE)}) ORDER BY date_id").fetchall()]


def order(number: int, seen: int = 0, **values: Any) -> dict[str, Any]:
    return version("sales_order", "insert", SEEN + timedelta(seconds=seen), sales_order_id=number, **values)


def kept(lake: Lake) -> sets.Sets | None:
    entry = Ledger(lake).newest([SETS]).get(SETS, {}).get("dim_date")
    return sets.Sets.parse(entry.state) if entry is not None else None


def keep(lake: Lake, text: str) -> None:
    Ledger(lake).append([Entry(SETS, "dim_date", text, 0, SEEN, "another")])


def test_of_versions_that_were_read_before_nothing_is_read_again(lake: Lake) -> None:
    capture(lake, "sales_order", order(1, agreed_payment_date="2198-12-31"))
    before = set(Path(lake.uri, INGESTION).rglob("*.parquet"))
    capture(lake, "sales_order", order(2, seen=1))
    build(lake)
    for file in before:
        file.unlink()  # who reads it fails
    capture(lake, "sales_order", order(3, seen=2, agreed_payment_date="2199-12-31"))
    assert build(lake)[-2:] == [date(2198, 12, 31), date(2199, 12, 31)]


def test_a_record_of_years_ahead_fills_the_years_between(lake: Lake) -> None:
    capture(lake, "sales_order", order(1, agreed_payment_date="2031-05-06"))
    assert date(2028, 1, 1) not in build(lake)
    capture(lake, "sales_order", order(2, seen=1, created_at=datetime(2030, 3, 4)))
    assert build(lake) == expected(lake)
    assert held(lake)[-1] == date(2032, 12, 31)
    assert len(held(lake)) == 9 * 365 + 3


@pytest.mark.parametrize("goes_on", [True, False])
def test_versions_that_are_no_longer_there_name_no_days(lake: Lake, tmp_path: Path, goes_on: bool) -> None:
    capture(lake, "sales_order", order(1))
    folder, backup = Path(lake.uri, INGESTION, "sales_order"), tmp_path / "backup"
    shutil.copytree(folder, backup)
    capture(lake, "sales_order", order(2, seen=1, agreed_payment_date="2199-12-31"))
    assert build(lake)[-1] == date(2199, 12, 31)
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    if goes_on:
        capture(lake, "sales_order", order(2, seen=2))
    assert build(lake) == expected(lake)
    assert date(2199, 12, 31) not in held(lake)


def test_versions_of_a_table_that_was_made_anew_are_read_anew(lake: Lake) -> None:
    capture(lake, "sales_order", order(1, agreed_payment_date="2199-12-31"))
    build(lake)
    shutil.rmtree(Path(lake.uri, INGESTION, "sales_order"))
    capture(lake, "sales_order", order(1))  # recorded at the same moment
    assert build(lake) == expected(lake)
    assert date(2199, 12, 31) not in held(lake)


def test_a_full_build_believes_nothing_that_is_kept(lake: Lake) -> None:
    capture(lake, "sales_order", order(1))
    build(lake)
    known = kept(lake)
    assert known is not None
    keep(lake, replace(known, rows={**known.rows, "named": [["1999-12-31"]]}).text)
    assert date(1999, 12, 31) in build(lake)
    assert build(lake, changes_only=False) == expected(lake)
    assert kept(lake) == known
    assert build(lake) == expected(lake)


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"origin": ""}', '{"origin": "", "until": {}, "rows": "no"}'])
def test_what_is_kept_and_cannot_be_understood_is_read_anew(lake: Lake, text: str) -> None:
    capture(lake, "sales_order", order(1))
    days = build(lake)
    keep(lake, text)
    assert kept(lake) is None
    assert build(lake) == days
    assert kept(lake) is not None


def test_sets_are_kept_again_when_they_grew_or_much_would_be_read_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until(seen: int, **values: Any) -> int:
        capture(lake, "sales_order", order(seen, seen, **values))
        build(lake)
        known = kept(lake)
        assert known is not None
        return known.until["sales_order"]

    first = until(0)
    assert until(1) == first
    grown = until(2, agreed_payment_date="2030-01-01")
    assert grown == first + 2_000_000
    monkeypatch.setattr(sets, "_MOST_READ_AGAIN", 2)
    assert until(3) == grown  # two rows are read again, that of then among them
    assert until(4) == grown + 2_000_000


def test_sets_of_very_many_values_are_not_kept(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "_MOST_ROWS", 3)
    capture(lake, "sales_order", order(1))
    assert build(lake) == expected(lake)
    assert kept(lake) is None
    capture(lake, "sales_order", order(2, seen=1, agreed_payment_date="2199-12-31"))
    assert build(lake) == expected(lake)


def test_every_type_of_value_comes_back_as_it_was_kept() -> None:
    values = (
        "1::INTEGER, 2.50::DECIMAL(10, 2), 0.1::DOUBLE, '\"O''Keefe'', NULL]', NULL::DATE, DATE '2024-02-29', true, "
        "TIMESTAMP '2024-02-29 23:59:59.999999', TIMESTAMPTZ '2024-02-29 23:59:59.999999+00', '東京'"
    )
    with engine.session() as connection:
        described = connection.execute(f"DESCRIBE SELECT {values}").fetchall()
        row = connection.execute(f"SELECT {values}").fetchall()
        texts = connection.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (SELECT {values})").fetchall()
        query = sets._query([list(each) for each in texts], [type_ for _, type_, *_ in described])
        assert connection.execute(query).fetchall() == row
        assert [type_ for _, type_, *_ in connection.execute(f"DESCRIBE {query}").fetchall()] == [
            type_ for _, type_, *_ in described
        ]
        assert connection.execute(sets._query([], ["DATE"])).fetchall() == []


NOT_SETS = [
    "SELECT payment_id FROM history.payment",
    "SELECT DISTINCT payment_id FROM history.payment",
    "SELECT payment_id FROM latest.payment UNION SELECT payment_id FROM history.payment",
    "SELECT payment_id FROM history.payment UNION ALL SELECT payment_id FROM history.payment",
    "SELECT payment_id FROM history.payment UNION SELECT max(payment_id) FROM history.payment",
    "SELECT payment_id FROM history.payment EXCEPT SELECT sales_order_id FROM history.sales_order",
    "SELECT payment_id FROM history.payment INTERSECT SELECT sales_order_id FROM history.sales_order",
    "SELECT payment_id FROM history.payment UNION SELECT sales_order_id FROM history.sales_order LIMIT 3",
    "SELECT payment_id FROM history.payment UNION SELECT sales_order_id FROM history.sales_order "
    "EXCEPT SELECT payment_id FROM history.payment",
    "SELECT payment_id FROM history.payment UNION SELECT row_number() OVER () FROM history.payment",
    "SELECT payment_id FROM history.payment UNION SELECT 1",
]
A_SET = "SELECT payment_id FROM history.payment UNION SELECT sales_order_id FROM history.sales_order"


@pytest.mark.parametrize("select", NOT_SETS)
def test_only_what_every_version_can_but_add_to_is_a_set(select: str) -> None:
    assert parse("dim_any", f"WITH named AS ({A_SET}) SELECT count(*) FROM named").sets == {"named": A_SET}
    assert parse("dim_any", f"WITH named AS ({select}) SELECT * FROM named").sets == {}
    # Nor is anything a set where versions are read in another way as well.
    assert parse("dim_any", f"WITH named AS ({A_SET}), b AS ({select}) SELECT * FROM named, b").sets == {}


def test_a_set_whose_columns_are_named_from_outside_is_none() -> None:
    assert parse("dim_any", f"WITH named (n) AS ({A_SET}) SELECT n FROM named").sets == {}


# Random histories


class World:
    """A lake to which random things happen. ``seen`` grows with every version, as captures see to."""

    def __init__(self, lake: Lake, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.lake, self._random, self._patch = lake, random.Random(seed), patch
        self._number, self._backup = 0, Path(lake.uri).with_name("backup")
        self.steps: list[str] = []

    def step(self) -> None:
        things: dict[Callable[[], object], int] = {
            self.add: 12,
            self.add_a_year_of_days: 1,
            self.build: 8,
            self.build_all: 1,
            self.compact: 2,
            self.lose_the_star: 1,
            self.lose_the_ledger: 1,
            self.lose_versions: 1,
            self.back_up: 2,
            self.set_back: 2,
            self.be_overtaken: 2,
            self.change_the_select: 1,
        }
        (thing,) = self._random.choices([*things], [*things.values()])
        self.steps.append(str(getattr(thing, "__name__", thing)))
        thing()

    def _version(self, table: str, **values: Any) -> dict[str, Any]:
        self._number += 1
        seen = SEEN + timedelta(seconds=self._number)
        operation = self._random.choice(["insert", "update", "delete"])
        return version(table, operation, seen, **{f"{table}_id": self._number}, **values)

    def add(self) -> None:
        for _ in range(self._random.randint(1, 3)):
            table = self._random.choice(SOURCES)
            columns = catalogue().source[table].by_name
            values: dict[str, Any] = {"created_at": self._moment(), "last_updated": self._moment()}
            for name in ("agreed_delivery_date", "agreed_payment_date", "payment_date"):
                if name in columns and self._random.random() < 0.5:
                    values[name] = self._moment().date().isoformat()
            capture(self.lake, table, self._version(table, **values))

    def _moment(self) -> datetime:
        year = self._random.choices([2024, 2025, 2031, self._random.randint(2090, 2200)], [20, 10, 1, 5])[0]
        return datetime(year, self._random.randint(1, 12), self._random.randint(1, 28), 23, 59, 59, 999000)

    def add_a_year_of_days(self) -> None:
        """Days of whole years, which look as if records had been created there."""
        first = date(self._random.choice([2026, 2028, 2032, 2092]), 1, 1)
        days = ((first + timedelta(days=number)).isoformat() for number in range(366 * 3))
        capture(self.lake, "payment", *(self._version("payment", payment_date=day) for day in days))

    def build(self) -> None:
        assert build(self.lake) == expected(self.lake), self.steps

    def build_all(self) -> None:
        assert build(self.lake, changes_only=False) == expected(self.lake), self.steps

    def compact(self) -> None:
        self.lake.compact()

    def lose_the_star(self) -> None:
        shutil.rmtree(Path(self.lake.uri, PROCESSED), ignore_errors=True)

    def lose_the_ledger(self) -> None:
        shutil.rmtree(Path(self.lake.uri, LEDGER), ignore_errors=True)

    def _folder(self) -> Path:
        return Path(self.lake.uri, INGESTION, self._random.choice(SOURCES))

    def lose_versions(self) -> None:
        folder = self._folder()
        shutil.rmtree(folder)
        capture(self.lake, folder.name)

    def back_up(self) -> None:
        shutil.rmtree(self._backup, ignore_errors=True)
        shutil.copytree(Path(self.lake.uri, INGESTION), self._backup)

    def set_back(self) -> None:
        folder = self._folder()
        if self._backup.exists():
            shutil.rmtree(folder)
            shutil.copytree(self._backup / folder.name, folder)

    def be_overtaken(self) -> None:
        """Another build, which saw more, is done between the reading and the commit of this one."""
        real = sets.gather

        def overtaken(*arguments: Any) -> sets.Sets:
            found = real(*arguments)
            self._patch.setattr(in_duckdb, "gather", real)
            self.add()
            build(self.lake)
            return found

        self._patch.setattr(in_duckdb, "gather", overtaken)
        build(self.lake)
        assert build(self.lake) == expected(self.lake), self.steps

    def change_the_select(self) -> None:
        change = self._random.choice(
            [
                ("INTERVAL '3' YEAR", "INTERVAL '4' YEAR"),
                ("SELECT CAST(payment_date AS DATE)", "SELECT CAST(payment_date AS DATE) + 1"),
                ("", ""),
            ]
        )

        def changed(name: str) -> Query:
            query = query_of(name)
            return replace(query, sql=query.sql.replace(*change))

        for module in (build_module, schemas):
            self._patch.setattr(module, "query_of", changed)


@pytest.fixture(params=[1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (0, 2, 3))])
def world(request: pytest.FixtureRequest, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(lake, request.param, monkeypatch)


def test_whatever_happens_the_calendar_is_what_the_whole_select_gives(world: World) -> None:
    for _ in range(60):
        world.step()
    world.build()
    assert {"build", "be_overtaken", "set_back", "add_a_year_of_days"} <= set(world.steps)
