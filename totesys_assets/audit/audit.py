"""The audit itself: source, lake and warehouse compared, check by check.

Belongs here: the list of checks, and running those that are wanted. Does not belong here: the checks
(source_lake.py, star.py, references.py, marts.py, rules.py) and reading the three as of one instant each (observed.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack

import psycopg

from totesys_assets import engine
from totesys_assets.audit import kept, marts, overdue, references, rules, source_lake, star
from totesys_assets.audit.findings import (
    CONTENT,
    CONVERTED,
    COUNTRIES,
    FRESH_RATES,
    HISTORY,
    KEPT,
    LEDGER,
    MONEY,
    OVERDUE,
    PLAUSIBLE_RATES,
    RECORDS,
    REFERENCES,
    ROWS,
    SUMS,
    VIEWS,
    Finding,
)
from totesys_assets.audit.observed import Observed
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.errors import PlatformError
from totesys_assets.names import WAREHOUSE
from totesys_assets.platform import Platform

Look = Callable[[Observed, Table], Finding]
_SOURCE: dict[str, Look] = {
    CONTENT: source_lake.content,
    LEDGER: source_lake.ledger,
    OVERDUE: overdue.overdue,
    HISTORY: source_lake.history,
}
_STAR: dict[str, Look] = {
    RECORDS: star.records,
    ROWS: star.current_rows,
    MONEY: star.money,
    REFERENCES: references.references,
    VIEWS: star.views,
    SUMS: marts.sums,
    KEPT: kept.kept,
    COUNTRIES: marts.countries,
    CONVERTED: marts.converted,
    FRESH_RATES: marts.fresh,
    PLAUSIBLE_RATES: marts.plausible,
}


def checks(catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """(asset, check) of everything that an audit looks at, but for the rules of the business."""
    for table in catalogue.source.values():
        yield from ((table.asset, check) for check in _SOURCE)
    for name, table in catalogue.warehouse.items():
        of_table = (*star.checks(catalogue, table), *marts.checks(table), *kept.checks(table))
        yield from ((f"{WAREHOUSE}/{name}", check) for check in of_table)


def audit(
    platform: Platform,
    wanted: Iterable[tuple[str, str]] | None = None,
    marks: Collection[str] = (),
) -> list[Finding]:
    """Run all checks, or the ``wanted`` pairs of asset and check. Changes nothing.

    What cannot be examined (drift, lost rights, a view that is gone) fails its checks with the reason; the others are
    looked at all the same. ``marks`` are what the probe goes by (staleness/look.py), of those who look.
    Raises ConnectionFailed, and PlatformError before the first refresh.
    """
    chosen = list(wanted) if wanted is not None else [*checks(platform.catalogue), *rules.checks()]
    try:
        with ExitStack() as stack:
            observed = Observed(stack, platform, marks)
            return [_check(observed, asset, check) for asset, check in chosen]
    except psycopg.Error as error:
        raise PlatformError(f"The warehouse could not be audited: {engine.one_line(error)}.") from error


def compared_nothing(findings: Iterable[Finding]) -> bool:
    """True if the audit compared contents, but not one row of a source."""
    contents = [each for each in findings if each.check == CONTENT]
    return bool(contents) and not any(each.numbers.get("rows") for each in contents)


def _check(seen: Observed, asset: str, check: str) -> Finding:
    problem = seen.problem(asset)
    if problem is not None:
        return Finding(asset, check, False, str(problem))
    group, _, name = asset.partition("/")
    try:
        # In a savepoint, so that an error does not end the transaction of the other checks.
        with seen.warehouse.transaction(), engine.readable_errors("It could not be examined"):
            if group == WAREHOUSE:
                return _STAR[check](seen, seen.catalogue.warehouse[name])
            table = seen.catalogue.source[name]
            if check in _SOURCE:
                return _SOURCE[check](seen, table)
            return rules.examine(seen.snapshot_of(table), table, check)
    except psycopg.OperationalError:  # the connection is lost, so every other check would fail too
        raise
    except (PlatformError, psycopg.Error, OSError) as error:
        known = isinstance(error, PlatformError)
        detail = str(error) if known else f"It could not be examined: {engine.one_line(error)}."
        seen.recover()
        return Finding(asset, check, False, detail)
