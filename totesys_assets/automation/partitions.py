"""Dagster's daily partitions, for the tables that have a row per event."""

from __future__ import annotations

import dagster as dg

from totesys_assets.settings import Settings


def daily_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """One definition for all partitioned assets: only assets that share it can be materialised in one run.

    The end offset of two includes today and tomorrow, as ``days.partition_range`` does.
    """
    return dg.DailyPartitionsDefinition(start_date=settings.first_day.isoformat(), timezone="UTC", end_offset=2)
