"""The platform: ToteSys, the lake, the warehouse, and all days that they hold.

Belongs here: opening all of it from the settings. Does not belong here: what is done with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from totesys_assets.days import DayRange, partition_range
from totesys_assets.lake.tables import Lake
from totesys_assets.settings import Settings
from totesys_assets.source.totesys import Totesys
from totesys_assets.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class Platform:
    """What every part of the platform is about. Nothing is connected until it is used.

    ``all_days`` are the days that have a partition, up to tomorrow (UTC).
    """

    totesys: Totesys
    lake: Lake
    warehouse: Warehouse
    all_days: DayRange

    @classmethod
    def of(cls, settings: Settings, totesys_url: str, warehouse_url: str) -> Self:
        """The platform that the settings describe, with its two databases at these URLs."""
        return cls(
            Totesys.of(settings, totesys_url),
            Lake(settings.lake_uri),
            Warehouse(warehouse_url, settings.warehouse_schema),
            partition_range(settings.first_day),
        )
