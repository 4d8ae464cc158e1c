"""Dagster's partitions of what grows by the day."""

from __future__ import annotations

import dagster as dg

from totesys_assets.settings import Settings


def daily_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """One definition for all partitioned assets: they go through one run together only if they share it.

    The offset of two takes in today and tomorrow, the same days as ``days.partition_range``.
    """
    return dg.DailyPartitionsDefinition(start_date=settings.first_day.isoformat(), timezone="UTC", end_offset=2)
