"""Two loads at once in a real warehouse, beside the simulation's: those of one table follow each other."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from totesys_assets_tests.conftest import Platform
from totesys_assets_tests.plan.first_load import Part, Resource, Step, simulate

# A load in seconds, and what a busy machine adds to two.
SECONDS, LATE = 1.5, 1.3


@pytest.mark.parametrize("tables", [("fact_payment", "fact_payment"), ("fact_payment", "fact_sales_order")])
def test_two_loads_at_once_end_when_the_simulation_says(platform: Platform, tables: tuple[str, str]) -> None:
    platform.warehouse.migrate()
    for table in tables:
        with platform.warehouse.transaction(table):
            pass  # what a first transaction sets up is done
    began = time.monotonic()

    def load(table: str) -> float:
        with platform.warehouse.transaction(table, patience=60):
            time.sleep(SECONDS)
        return time.monotonic() - began

    with ThreadPoolExecutor() as pool:
        measured = sorted(pool.map(load, tables))
    runs = [[Step("load", (Part("warehouse", SECONDS),), lock=table)] for table in tables]
    predicted = simulate(runs, {"warehouse": Resource(4, 1)}, at_once=2).ended
    for said, found in zip(sorted(predicted), measured, strict=True):
        assert said <= found < said + LATE
