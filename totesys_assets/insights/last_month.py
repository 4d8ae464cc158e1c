"""Sales of the last full month, in a sentence.

Belongs here: that sentence. Does not belong here: when it is shown.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from totesys_assets.counting import counted
from totesys_assets.insights.questions import answer, defaults

if TYPE_CHECKING:
    import psycopg


def last_month(connection: psycopg.Connection, today: date) -> str | None:
    """Revenue in pounds and orders of the month before that of ``today``; None if nothing was sold.

    The search_path of ``connection`` is the warehouse's schema.
    """
    last = today.replace(day=1) - timedelta(days=1)
    period = {"first": last.replace(day=1), "last": last}
    found = answer(connection, "headline", **{**defaults(today), **period})
    orders, _, revenue, _, unconverted = found.rows[0]
    if not orders:
        return None
    left_out = f", without that of {unconverted:,} in a currency without a rate" if unconverted else ""
    return f"£{revenue:,.2f} in {last:%B %Y}, {counted(orders, 'order')}{left_out}"
