"""How far each table is brought up from the journal, as the ledger notes it.

Belongs here: what this note says. Does not belong here: when it is written (following.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from totesys_assets.capture.ledger import Entry
from totesys_assets.capture.log_notes import FOLLOWED
from totesys_assets.catalogue.catalogue import Table


@dataclass(frozen=True)
class HowFar:
    """What the ledger notes of a table: up to where of ``stretch`` it was brought, as of which commit to the lake.

    ``columns`` are as the log has them, ``file`` is where the source has its rows. ``as_of``: as of which snapshot, and
    ``seen_since``: from which on every version was seen; moments in ISO form.
    """

    commit: str
    stretch: int
    since: int
    also: tuple[int, ...] = ()
    columns: str = ""
    file: int = 0
    as_of: str = ""
    seen_since: str = ""


def how_far(newest: Mapping[str, Mapping[str, Entry]], table: Table) -> HowFar | None:
    """That of ``table`` in the ledger's entries ``newest``; None if it was never followed."""
    entry = newest.get(FOLLOWED, {}).get(table.name)
    return _read(entry) if entry is not None and entry.state else None


def taken(newest: Mapping[str, Mapping[str, Entry]], stretch: int) -> dict[str, HowFar]:
    """Those of all tables that are followed in a ``stretch`` of the journal, by their names."""
    entries = {name: each for name, each in newest.get(FOLLOWED, {}).items() if name and each.state}
    found = {name: _read(entry) for name, entry in entries.items()}
    return {name: each for name, each in found.items() if each.stretch == stretch}


def _read(entry: Entry) -> HowFar:
    found = HowFar(**json.loads(entry.state))
    return replace(found, also=tuple(found.also))
