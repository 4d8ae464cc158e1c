"""The platform: the sources, the lake, the warehouse, and all days that they hold.

Belongs here: opening all of it from the settings. Does not belong here: what is done with it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Self

from totesys_assets.catalogue.catalogue import Catalogue, catalogue
from totesys_assets.days import DayRange, partition_range
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import JOURNAL, Lake
from totesys_assets.names import TOTESYS
from totesys_assets.settings import Settings
from totesys_assets.source.interface import Source
from totesys_assets.source.totesys import Totesys
from totesys_assets.source.totesys.kept import KeptTotesys
from totesys_assets.source.totesys.log import Log, slot_name
from totesys_assets.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class Platform:
    """What every part of the platform is about. Nothing is connected until it is used.

    ``all_days`` are the days that have a partition, up to tomorrow (UTC). ``range_rows``: more rows than this are
    brought in by several runs, each for a range of days; 0 for never.
    """

    sources: tuple[Source, ...]
    lake: Lake
    warehouse: Warehouse
    all_days: DayRange
    range_rows: int = 0

    @property
    def catalogue(self) -> Catalogue:
        """The tables of all of it."""
        return self.warehouse.catalogue

    @classmethod
    def of(cls, settings: Settings, totesys_url: str, warehouse_url: str) -> Self:
        """The platform that the settings describe, with its two databases at these URLs."""
        return cls(
            (Totesys.of(settings, totesys_url), *other_sources(settings)),
            Lake(settings.lake_uri),
            Warehouse(warehouse_url, settings.warehouse_schema),
            partition_range(settings.first_day),
            settings.range_rows,
        )


def totesys(settings: Settings, url: str) -> AbstractContextManager[Source]:
    """ToteSys for the context, which ends its sessions."""
    return closing(Totesys.of(settings, url))


def kept_totesys(settings: Settings) -> KeptTotesys:
    """ToteSys with its sessions, for the looks of one process, one after another."""
    return KeptTotesys(partial(Totesys.of, settings, keeps_session=True))


def other_sources(settings: Settings) -> tuple[Source, ...]:
    """The sources beside ToteSys. They may know from one snapshot to the next what they showed."""
    return tuple(_open_source(name, settings) for name in catalogue().groups if name != TOTESYS)


def slot_of(lake: Lake) -> str | None:
    """The name of the slot in which the log of ToteSys is followed for this lake; None where it never was."""
    journal = lake.find(JOURNAL)
    return None if journal is None else slot_name(str(journal.metadata().id))


def log_of(settings: Settings, totesys_url: str, slot: str) -> Log:
    """The log of ToteSys, followed in ``slot``."""
    return Log(totesys_url, slot, schema=settings.totesys_schema)


def _open_source(name: str, settings: Settings) -> Source:
    """The source that the module ``source/<name>.py`` is about."""
    tables = {table.name: table for table in catalogue().source.values() if table.group == name}
    path = f"totesys_assets.source.{name}"
    # Only what is missing here is asked for. What goes wrong in the source's own code is shown as it is.
    is_there = find_spec(path) is not None
    open_source = getattr(import_module(path), "open_source", None) if is_there else None
    if open_source is None:
        raise PlatformError(
            f"catalogue/{name}.sql has the tables of a source, which totesys_assets/source/{name}.py must open with a "
            f"function open_source(settings, tables): there is no such {'function' if is_there else 'module'}."
        )
    source: Source = open_source(settings, tables)
    return source
