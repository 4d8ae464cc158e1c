"""Looking: reading from the source, the lake and the warehouse what the decision needs.

Belongs here: the probe that tells in milliseconds that nothing changed, and gathering fingerprints and states. Does
not belong here: the decision itself, which is decide.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from totesys_assets.automation.decide import Request, Stale, requests, stale_partitions
from totesys_assets.capture.difference import asset_name, forgotten
from totesys_assets.capture.fingerprint import Fingerprint, fingerprints
from totesys_assets.capture.generation import settle
from totesys_assets.capture.ledger import Ledger
from totesys_assets.capture.registry import drift_noted
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.resources import engine
from totesys_assets.resources.lake import Lake
from totesys_assets.resources.totesys import Snapshot, Totesys
from totesys_assets.resources.warehouse import Warehouse


@dataclass(frozen=True)
class Look:
    """What there is to do. ``mark`` identifies the state in which there was nothing: the next look's ``unless``.

    ``problems`` are sentences about tables that could not be examined; the others are decided on all the same.
    """

    requests: list[Request] = field(default_factory=list)
    stale: Stale = field(default_factory=dict)
    problems: list[PlatformError] = field(default_factory=list)
    mark: str | None = None
    probed_only: bool = False


def look(totesys: Totesys, lake: Lake, warehouse: Warehouse, days: DayRange, *, unless: str | None = None) -> Look:
    """Compare source, lake and warehouse. One source transaction; no table is read when all is as ``unless`` says.

    Raises ConnectionFailed, and the problem itself when no table at all could be examined.
    """
    with totesys.snapshot() as snapshot:
        mark = _mark(snapshot, lake, warehouse, days)
        if mark == unless:
            return Look(mark=mark, probed_only=True)
        snapshot = settle(Ledger(lake), snapshot)
        found: dict[str, dict[str, Fingerprint]] = {}
        problems: list[PlatformError] = []
        for table in totesys.catalogue.source.values():
            try:
                with (
                    engine.readable_errors(f'"{table.name}" could not be examined'),
                    drift_noted(lake, snapshot, table),
                ):
                    found[table.name] = fingerprints(snapshot, table, days)
            except PlatformError as problem:
                problems.append(problem)
    if not found:
        raise problems[0]
    ledger = Ledger(lake).newest()
    for name in found:
        table = totesys.catalogue.source[name]
        if asset_name(table) not in ledger:
            ledger[asset_name(table)] = forgotten(lake, table)
    stale = stale_partitions(totesys.catalogue, found, ledger, warehouse.loaded())
    clean = not stale and not problems
    return Look(requests(totesys.catalogue, stale), stale, problems, mark if clean else None)


def _mark(snapshot: Snapshot, lake: Lake, warehouse: Warehouse, days: DayRange) -> str:
    """Equal marks mean that neither the source, nor the lake, nor the warehouse was written to in between."""
    return json.dumps(
        {
            "source": f"{snapshot.lifetime} {snapshot.text}",
            "lake": f"{lake.uri} {Ledger(lake).version()}",
            "warehouse": warehouse.mark(),
            "days": f"{days.first} {days.last}",
        }
    )
