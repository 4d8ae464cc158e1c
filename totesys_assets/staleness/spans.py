"""Spans: how many rows the days of a backfill have, which nobody has looked at.

Belongs here: reading what is known of these days. Does not belong here: where to cut them, which is ranges.py.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from totesys_assets.capture.ledger import Ledger
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import INGESTION
from totesys_assets.platform import Platform

# A day without an entry in the ledger has no rows, or was never captured. If there are more of them than this, the
# source is asked: it takes a scan of each table.
_FEW_DAYS = 31


def rows_of(platform: Platform, days: DayRange) -> Counter[str]:
    """Rows of all tables of the sources on ``days``, by partition. Tables that cannot be read have none."""
    noted, rows = Ledger(platform.lake).newest(), Counter[str]()
    tables = [table for table in platform.catalogue.source.values() if table.day_column is not None]
    keys = set(days.keys)
    for table in tables:
        for key, entry in noted.get(f"{INGESTION}/{table.name}", {}).items():
            if key in keys:
                rows[key] += entry.rows
    if len(keys - rows.keys()) <= _FEW_DAYS:
        return rows
    found = Counter[str]()
    for source in platform.sources:
        with suppress(PlatformError), source.snapshot() as snapshot:  # the captures say why
            for table in tables:
                if table.group == source.name:
                    counted = snapshot.fingerprints(table, platform.all_days, days)
                    found.update({key: each.rows for key, each in counted.items() if key in keys})
    return found
