"""What a capture refuses before it writes anything: days that were left out, and most of a table's rows gone.

Does not belong here: what the source refuses of its tables, which is ``SourceSnapshot.require``.
"""

from __future__ import annotations

from collections.abc import Mapping

from totesys_assets.capture.ledger import Entry
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.errors import MassDeletion, PlatformError

# A table of fewer rows than this may lose most of them without anybody being asked.
_MASS_DELETION_ROWS = 20


def require_first_day(table: Table, all_days: DayRange, known: Mapping[str, Entry]) -> None:
    """Raise PlatformError if days of ``table`` that were captured are none of ``all_days``: the first was moved later.

    Else their rows would be dead letters of the new first day, and gone from the days that they are on.
    """
    first = min((key for key, entry in known.items() if entry.state and key != WHOLE), default=None)
    if first is not None and first < all_days.first.isoformat():
        raise PlatformError(
            f'TOTESYS_FIRST_DAY is {all_days.first}, but "{table.name}" was captured from {first} on, and days that '
            f"were captured cannot be left out. Set it to {first} or an earlier day; or begin anew, with another "
            "LAKE_URI and another WAREHOUSE_SCHEMA."
        )


def refuse_mass_deletion(table: Table, before: int, now: int) -> None:
    """Raise MassDeletion if of the rows that ``table`` had ``before``, not even half are there ``now``."""
    if before >= _MASS_DELETION_ROWS and now < before / 2:
        raise MassDeletion(
            f'"{table.name}" had {before:,} rows and now has {now:,}: a wrong database, a truncated table or lost '
            "rights. Nothing of it was captured. If the rows were meant to go: totesys refresh --accept-deletions."
        )
