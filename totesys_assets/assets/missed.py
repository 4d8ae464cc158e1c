"""Missed: the check that a comparison of everything found nothing that the log, or a fingerprint, had not told of.

Belongs here: what the check claims and says. Does not belong here: what was missed (capture/missed.py), and telling
people (automation/alerts.py).
"""

from __future__ import annotations

import dagster as dg

from totesys_assets.assets.blocked import latest
from totesys_assets.capture.missed import Missed
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.counting import counted
from totesys_assets.names import NOTHING_MISSED

_CLAIM = (
    "The last comparison of all content found no version of which the source's log had not told, where it is followed, "
    "or else no fingerprint. What it finds is in the lake from then on. The next one that finds nothing turns it green."
)


def spec(table: Table) -> dg.AssetCheckSpec:
    """The check of a captured table."""
    return dg.AssetCheckSpec(NOTHING_MISSED, asset=_asset_key(table), description=_CLAIM)


def result(table: Table, found: Missed | None) -> dg.AssetCheckResult:
    """What it says, with each materialisation; ``found``: what the last comparison found."""
    return dg.AssetCheckResult(
        asset_key=_asset_key(table),
        check_name=NOTHING_MISSED,
        passed=found is None,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"versions_missed": found.versions if found is not None else 0},
        description=None if found is None else sentence(table, found),
    )


def sentence(table: Table, found: Missed) -> str:
    """What was missed, and what that means."""
    teller = f"the log of {table.source_title} had not told" if found.by_log else "no fingerprint had told"
    return (
        f"The comparison of {found.at:%Y-%m-%d %H:%M} UTC found {counted(found.versions, 'version')} of "
        f'"{table.name}" of which {teller}. The lake '
        "has what was there then; states before may be missing. The next comparison must find nothing: totesys refresh "
        "--full. If it does again, report it."
    )


def missed(instance: dg.DagsterInstance, tables: Catalogue) -> dict[str, str]:
    """Source table -> what was missed of it, as its last materialisation says."""
    keys = {dg.AssetCheckKey(_asset_key(table), NOTHING_MISSED): name for name, table in tables.source.items()}
    found = latest(instance, list(keys))
    return {keys[key]: str(said) for key, (passed, said) in found.items() if not passed}


def _asset_key(table: Table) -> dg.AssetKey:
    return dg.AssetKey([table.group, table.name])
