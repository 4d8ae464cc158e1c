"""Sail for the tests of this folder, and a lake full of values that engines may take differently."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from totesys_assets.catalogue.catalogue import Column, Table, catalogue
from totesys_assets.lake.tables import Lake
from totesys_assets_tests.harness.sail import Sail
from totesys_assets_tests.rows import Row, hold, version

# Texts that differ in what they look like, or only in that; days and moments at ends of months, years and calendars.
TEXTS = [
    "",
    " ",
    "NULL",
    "a'b\"c\\d`e",
    "Ünïcödé",
    "日本語",
    "e\u0301",
    "é",
    "👩\u200d👩\u200d👧",
    "\u202eabc",
    "tab\tnewline\n",
]
TEXTS += ["%A", "${x}", "\x01", "x" * 5000, "ß" * 100, "y" * 101, "GBP", "Turkey", "United Kingdom"]
DAYS = [date(1, 1, 1), date(1582, 10, 10), date(1899, 12, 31), date(1969, 12, 31), date(1970, 1, 1), date(2000, 2, 29)]
DAYS += [
    date(2024, 2, 29),
    date(2024, 2, 28),
    date(2024, 3, 31),
    date(2024, 12, 29),
    date(2025, 1, 1),
    date(9999, 12, 31),
]
TIMES = [
    timedelta(0),
    timedelta(microseconds=1),
    timedelta(days=1, microseconds=-1),
    timedelta(hours=12, milliseconds=999),
]
TIMES += [timedelta(hours=23, minutes=59, seconds=59, microseconds=999500), timedelta(seconds=1, microseconds=500)]
# Days of facts: the calendar is made of whole years around them.
RECENT = [date(2023, 12, 31), date(2024, 1, 1), date(2024, 2, 29), date(2024, 3, 1), date(2024, 3, 31)]
SEEN = datetime(2024, 8, 20, 9, 10, 12, 345678, tzinfo=UTC)


@pytest.fixture(scope="session")
def sail() -> Iterator[str]:
    """The address of a Spark Connect server."""
    server = Sail()
    yield server.remote
    server.kill()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake; its folder has a name with a blank, a percent sign and no ASCII."""
    return Lake(str(tmp_path / "lake of 100% Ö"))


def fill(lake: Lake, seed: int, rows: int = 40, seen: datetime = SEEN) -> None:
    """Versions of ``rows`` rows of each table, recorded from ``seen`` on: new, changed, gone, back, on other days."""
    chosen = random.Random(seed)
    for table in catalogue().source.values():
        versions: list[Row] = []
        for key in range(rows):
            for number in range(chosen.choice([1, 1, 2, 4])):
                moment = seen + timedelta(microseconds=len(versions))
                made = {each.name: _value(chosen, table, each, key) for each in table.columns}
                if table.primary_key == ("exchange_rate_id",):
                    made["exchange_rate_id"] = f"{made['rate_date']} {made['currency_code']} {key}"
                operation = chosen.choice(["update", "delete"]) if number else "insert"
                versions.append(version(table.name, operation, moment, **made))
        hold(lake, table.name, *versions, dated=True)


def _value(chosen: random.Random, table: Table, column: Column, key: int) -> Any:
    if column.name in table.primary_key and column.arrow == pa.int32():
        return key
    if column.name == table.day_column and column.arrow == pa.date32():
        return chosen.choice(RECENT) + timedelta(days=key % 9)
    if column.name == table.day_column:
        return datetime.combine(chosen.choice(RECENT), datetime.min.time()) + chosen.choice(TIMES)
    if column.nullable and chosen.random() < 0.3:
        return None
    if column.is_date_text:
        return f"{chosen.choice(DAYS):%Y-%m-%d}".rjust(10, "0")
    return _of_type(chosen, column)


def _of_type(chosen: random.Random, column: Column) -> Any:
    kind = column.arrow
    if isinstance(kind, pa.Decimal128Type):
        most = Decimal(10**kind.precision - 1).scaleb(-kind.scale)
        least = Decimal(1).scaleb(-kind.scale)
        return chosen.choice(
            [most, -most, least, -least, Decimal(0).scaleb(-kind.scale), Decimal("2.5").quantize(least)]
        )
    if column.name.endswith("_id") and kind == pa.int32():
        return chosen.randrange(6)
    if column.name == "currency_code":
        return chosen.choice(["GBP", "USD", "EUR", "???", "€€€"])
    values: dict[pa.DataType, list[Any]] = {
        pa.int16(): [-(2**15), 0, 2**15 - 1],
        pa.int32(): [-(2**31), -1, 0, 2**31 - 1],
        pa.int64(): [-(2**63), -1, 0, 2**63 - 1],
        pa.bool_(): [True, False],
        pa.string(): TEXTS,
        pa.date32(): DAYS,
        pa.timestamp("us"): [datetime.combine(day, datetime.min.time()) + time for day in DAYS for time in TIMES[:4]],
        pa.timestamp("us", tz="UTC"): [SEEN, SEEN - timedelta(days=30_000, microseconds=1)],
    }
    found = values[kind]
    length = column.max_length
    return chosen.choice([each for each in found if not isinstance(each, str) or length is None or len(each) <= length])
