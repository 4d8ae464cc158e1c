"""Mutants of what keeps data right outside of the harness: other relations, rewrites, settings, lakes, standbys, moves.

As test_mutants.py, of which the machinery is in harness/mutants.py. Of each of these the audit must say something too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from totesys_assets.automation.decide import Request
from totesys_assets.capture import fingerprint as fingerprint_module
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.resources import source_structure
from totesys_assets.resources import totesys as totesys_module
from totesys_assets.resources.source_structure import SourceTable
from totesys_assets.resources.totesys import Snapshot
from totesys_assets_tests.harness.mutants import Case, Patch, require_noticed
from totesys_assets_tests.harness.world import Laboratory, World

SILENT = "UPDATE sales_order SET units_sold = units_sold + 1"


@pytest.fixture(scope="module")
def laboratory(scratch: Path) -> Iterator[Laboratory]:
    folder = scratch / "mutants_of_the_world"
    folder.mkdir()
    with Laboratory(folder).open() as opened:
        yield opened


def refresh(world: World) -> None:
    """One more refresh, whatever the harness says of it."""
    with suppress(AssertionError):
        world.refresh()


# Scenarios


def another_table_takes_the_place(world: World) -> None:
    """It was filled long before the last refresh: its rows bear old transaction ids, and are as many."""
    world.sql("CREATE TABLE other (LIKE sales_order INCLUDING ALL)")
    world.sql("INSERT INTO other SELECT * FROM sales_order")
    world.sql("UPDATE other SET units_sold = 7")
    world.sql(SILENT)
    world.refresh()
    world.sql("ALTER TABLE sales_order RENAME TO before; ALTER TABLE other RENAME TO sales_order")
    world.refresh()
    world.check_everything(again=False)


def rewritten_while_a_refresh_begins(world: World) -> None:
    """TRUNCATE is under way when the refresh begins, and done when it reads: an older snapshot sees an empty table."""
    truncated, done = Event(), Event()

    def fill_anew() -> None:
        with psycopg.connect(world.source_url) as connection:
            connection.execute("CREATE TEMP TABLE kept AS SELECT * FROM payment")
            connection.execute("TRUNCATE payment")
            connection.execute("INSERT INTO payment SELECT * FROM kept")
            truncated.set()
            while not done.wait(0.01) and not waits_for_payment(world):
                pass

    other = Thread(target=fill_anew)
    other.start()
    truncated.wait()
    try:
        world.run(Request(("totesys/payment", "star/fact_payment", "warehouse/fact_payment"), world.days))
    finally:
        done.set()
        other.join()
    world.check()
    world.refresh()
    world.check_everything(again=False)


def waits_for_payment(world: World) -> bool:
    with psycopg.connect(world.source_url) as connection:
        query = "SELECT count(*) FROM pg_locks WHERE relation = 'payment'::regclass AND NOT granted"
        return connection.execute(query).fetchone() != (0,)


def probed_after_a_change(world: World) -> None:
    world.look()  # there is nothing to do, which the next look is told
    world.sql(SILENT)
    world.refresh()
    world.check_everything(again=False)


# Mutants


def without_relations(patch: Patch) -> None:
    structure = fingerprint_module.structure

    def of_any_relations(snapshot: Snapshot, table: Table) -> str:
        anonymous = {name: replace(each, relations="") for name, each in snapshot.tables.items()}
        return structure(replace(snapshot, tables=anonymous), table)

    patch.setattr(fingerprint_module, "structure", of_any_relations)


def no_lock_before_the_snapshot(patch: Patch) -> None:
    source_tables = source_structure.source_tables

    def believed_to_be_locked(rows: Any) -> dict[str, SourceTable]:
        return {name: replace(each, locked=True) for name, each in source_tables(rows).items()}

    patch.setattr(totesys_module, "lock_statement", lambda *_: "SET LOCAL work_mem = '4MB'")
    patch.setattr(totesys_module, "source_tables", believed_to_be_locked)


def a_probe_that_sees_no_commit(patch: Patch) -> None:
    patch.setattr(Snapshot, "instant", property(lambda snapshot: snapshot.lifetime))


CASES = {
    "whatever relation has the name": Case(
        without_relations,
        another_table_takes_the_place,
        "versions of sales_order added",
        "totesys/sales_order content_equals_source: 1 row differs",
    ),
    "tables not locked before the snapshot": Case(
        no_lock_before_the_snapshot,
        rewritten_while_a_refresh_begins,
        "versions of payment added",
        "totesys/payment history_plausible: 2 rows were deleted and came back equal in every column",
        aftermath=refresh,
    ),
    "a probe that does not see every commit": Case(
        a_probe_that_sees_no_commit,
        probed_after_a_change,
        "no refresh asks for",
        "totesys/sales_order nothing_overdue: .* the mark of the last one says that nothing changed since",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_mutant_is_noticed_by_the_harness_and_named_by_the_audit(laboratory: Laboratory, case: Case) -> None:
    assert case.audit
    require_noticed(laboratory, case)
