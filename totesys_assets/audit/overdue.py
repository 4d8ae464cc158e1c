"""The check that rows which wait for a refresh were written after the last one; older rows were missed by it.

Belongs here: what is overdue, by the ledger's note of how far a table is complete, and by the probe's mark. Does not
belong here: what is pending at all (observed.py).
"""

from __future__ import annotations

from datetime import date

from totesys_assets.audit.findings import OVERDUE, Finding, some
from totesys_assets.audit.observed import Observed
from totesys_assets.audit.source_lake import lake_rows
from totesys_assets.capture.ledger import COMPLETE
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.counting import counted
from totesys_assets.days import WHOLE, DayRange
from totesys_assets.lake.tables import INGESTION
from totesys_assets.sql_text import literal

# Transaction ids lie on a circle of this size; those below the first ordinary one are older than all.
_CIRCLE, _FIRST = 2**32, 3


def overdue(seen: Observed, table: Table) -> Finding:
    """Check that pending rows were written after the last complete refresh, and that its mark no longer holds."""
    asset = table.asset
    waiting, pending = seen.fed_by(table), len(seen.pending(asset))
    nothing = seen.nothing(asset, OVERDUE)
    if nothing is not None and nothing.outcome == "different":
        return nothing
    if waiting and seen.is_marked():
        detail = (
            f"{', '.join(waiting)} {'waits' if len(waiting) == 1 else 'wait'} for a refresh, and yet the mark of the "
            "last one says that nothing changed since: totesys refresh --full brings it in"
        )
        return Finding(asset, OVERDUE, False, detail, pending)
    partitions = _overdue(seen, table)
    rows = sum(partitions.values())
    if rows:
        waits, was = ("waits", "was") if rows == 1 else ("wait", "were")
        detail = (
            f"{counted(rows, 'row')} that {waits} in {some(partitions)} {was} there at the last refresh, and not "
            "captured: totesys refresh --full"
        )
        return Finding(asset, OVERDUE, False, detail, pending, {"rows_overdue": rows})
    detail = "what waits was written since the last refresh" if waiting else "nothing waits for a refresh"
    return Finding(asset, OVERDUE, True, detail, pending, {"rows_overdue": 0})


def _overdue(seen: Observed, table: Table) -> dict[str, int]:
    """Rows that the last complete refresh must have seen and that the lake does not hold so, by pending partition.

    Told by transaction ids, which tell nothing once the server, the structure or a relation of the table is another.
    """
    pending, complete = seen.pending(table.asset), seen.noted.get(COMPLETE, {}).get(table.name)
    known = [each.fingerprint for each in seen.noted.get(f"{INGESTION}/{table.name}", {}).values()]
    if not pending or complete is None:
        return {}
    snapshot = seen.snapshot_of(table)
    prefix = f"{snapshot.state_prefix(table)}|"
    if not prefix.startswith(f"{complete.state}|"):
        return {}
    if not all(state.startswith(prefix) for state in known if state) or table.name not in seen.versions:
        return {}
    age = f"({complete.xmin_floor % _CIRCLE} - xmin::text::bigint + {_CIRCLE}) % {_CIRCLE}"
    old = f"({age} BETWEEN 1 AND {_CIRCLE // 2} OR xmin::text::bigint < {_FIRST})"
    found: dict[str, int] = {}
    for days, keys in _by_month(pending):
        listed = ", ".join(literal(key) for key in keys)
        source = seen.source_rows(table, f"{old} AND {snapshot.partition(table, seen.all_days)} IN ({listed})")
        seen.engine.register("old_in_source", snapshot.connection.execute(source).to_arrow_table())
        in_lake = lake_rows(seen, table, days)
        rows = seen.engine.execute(
            f"SELECT partition, count(*) FROM old_in_source AS old ANTI JOIN ({in_lake}) AS held "
            f"ON held.row_key = old.row_key AND held.digest = old.digest "
            f"AND coalesce(strftime(held.day, '%Y-%m-%d'), {literal(WHOLE)}) = old.partition GROUP BY 1"
        ).fetchall()
        found |= dict(rows)
    return found


def _by_month(partitions: set[str]) -> list[tuple[DayRange | None, list[str]]]:
    """Partitions month by month, with the days that they span; the one of a table that is one set has none."""
    if WHOLE in partitions:
        return [(None, [WHOLE])]
    months: dict[str, list[str]] = {}
    for key in sorted(partitions):
        months.setdefault(key[:7], []).append(key)
    return [(DayRange(date.fromisoformat(keys[0]), date.fromisoformat(keys[-1])), keys) for keys in months.values()]
