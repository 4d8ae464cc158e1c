"""Generations of the source: transaction ids that come a second time are not taken for the first."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from totesys_assets.capture.generation import assign_generation, source_entries
from totesys_assets.capture.ledger import Ledger
from totesys_assets.lake.tables import Lake
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets_tests.conftest import Platform


def at(snapshot: Snapshot, xmax: int, seconds: int = 0) -> Snapshot:
    return replace(snapshot, text=f"{xmax}:{xmax}:", taken_at=snapshot.taken_at + timedelta(seconds=seconds))


def test_a_source_that_goes_on_stays_of_its_generation(platform: Platform) -> None:
    ledger = Ledger(Lake(platform.lake.uri))
    with platform.totesys.snapshot() as snapshot:
        assert assign_generation(ledger, at(snapshot, 100)).generation == 0
        ledger.append(source_entries(at(snapshot, 100), "run"))
        assert [assign_generation(ledger, at(snapshot, xmax)).generation for xmax in (100, 101, 5000)] == [0, 0, 0]


def test_a_source_set_back_begins_a_generation_and_stays_of_it_when_it_has_caught_up(platform: Platform) -> None:
    ledger = Ledger(platform.lake)
    with platform.totesys.snapshot() as snapshot:
        ledger.append(source_entries(at(snapshot, 100), "run"))
        assert assign_generation(ledger, at(snapshot, 90)).generation == 1
        assert [assign_generation(ledger, at(snapshot, xmax)).generation for xmax in (90, 100, 101, 5000)] == [
            1,
            1,
            1,
            1,
        ]
        assert assign_generation(ledger, at(snapshot, 80)).generation == 2


def test_a_snapshot_overtaken_by_a_later_one_is_of_the_same_generation(platform: Platform) -> None:
    ledger = Ledger(platform.lake)
    with platform.totesys.snapshot() as snapshot:
        ledger.append(source_entries(at(snapshot, 100, seconds=1), "run"))
        assert assign_generation(ledger, at(snapshot, 90)).generation == 0
        assert assign_generation(ledger, at(snapshot, 90, seconds=2)).generation == 1


def test_another_server_has_generations_of_its_own(platform: Platform) -> None:
    ledger = Ledger(platform.lake)
    with platform.totesys.snapshot() as snapshot:
        ledger.append(source_entries(at(snapshot, 100), "run"))
        assert assign_generation(ledger, replace(at(snapshot, 90), server="another")).generation == 0


@pytest.mark.refreshed
def test_after_a_source_was_set_back_everything_is_compared_once(platform: Platform) -> None:
    assert platform.look().requests == []
    ledger = Ledger(platform.lake)
    with platform.totesys.snapshot() as snapshot:
        ledger.append(source_entries(replace(snapshot, text="4000000:4000000:"), "run"))
    stale = platform.look().stale
    assert len([asset for asset in stale if asset.startswith("totesys/")]) == 11
    before = platform.query("SELECT * FROM fact_payment ORDER BY 1")
    platform.refresh()
    assert platform.query("SELECT * FROM fact_payment ORDER BY 1") == before
    assert platform.look().requests == []
