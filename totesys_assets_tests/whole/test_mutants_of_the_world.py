"""Mutants of what keeps data right outside of the harness: other relations, rewrites, settings, lakes, standbys, moves.

As test_mutants.py, of which the machinery is in harness/mutants.py. Where something is left that the
audit could see, it says so too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import psycopg.conninfo
import pytest

from totesys_assets import libpq
from totesys_assets import refresh as refresh_module
from totesys_assets.capture import difference as difference_module
from totesys_assets.capture import statements as statements_module
from totesys_assets.catalogue.catalogue import Table, ddl
from totesys_assets.days import DayRange
from totesys_assets.errors import LakeChanged
from totesys_assets.lake.tables import Lake
from totesys_assets.load import load as load_module
from totesys_assets.postgres import session_settings
from totesys_assets.source import file_store
from totesys_assets.source import totesys as totesys_module
from totesys_assets.source.file_store import FileStore
from totesys_assets.source.totesys import structure as source_structure
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets.source.totesys.structure import SourceTable
from totesys_assets.staleness import decide as decide_module
from totesys_assets.staleness import look as look_module
from totesys_assets.staleness.decide import Request
from totesys_assets.warehouse import schema as warehouse_schema
from totesys_assets.warehouse import views as warehouse_views
from totesys_assets_tests.harness import drops, spilling
from totesys_assets_tests.harness.mutants import Case, Patch, mutants, require_noticed, require_passed, scenarios
from totesys_assets_tests.harness.servers import alter_database, transaction_pooler
from totesys_assets_tests.harness.world import Laboratory, World, trade

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


def every_day_changed(world: World) -> None:
    world.sql("UPDATE payment SET payment_amount = payment_amount + 1")
    world.refresh()
    world.check_everything(again=False)


def run_what_is_asked_for(world: World) -> None:
    """A refresh, that it asks for too little notwithstanding."""
    for request in world.look()[0].requests:
        world.run(request)


def turned_bad_and_mended_on_another_day(world: World) -> None:
    world.sql("UPDATE payment SET created_at = 'infinity' WHERE payment_id = 1")
    world.refresh()
    for_the_rest_of_its_life(world, World.refresh)
    world.check_everything(again=False)


def for_the_rest_of_its_life(world: World, go_on: Callable[[World], None]) -> None:
    world.sql(f"UPDATE payment SET created_at = '{world.days.first + timedelta(days=5)}' WHERE payment_id = 1")
    go_on(world)
    world.sql("DELETE FROM payment WHERE payment_id = 1")
    go_on(world)


def moved_and_its_new_day_captured_first(world: World) -> None:
    day = world.days.first
    world.sql(f"UPDATE sales_order SET created_at = '{day} 10:00'")
    world.backfill(DayRange(day, day))
    world.refresh()
    world.check_everything(again=False)


def warehouse_lost_after_a_day_was_emptied(world: World) -> None:
    world.sql("UPDATE transaction SET sales_order_id = NULL")
    world.sql("DELETE FROM sales_order")
    world.refresh()
    with psycopg.connect(world.warehouse_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    world.lose_warehouse()
    world.refresh()
    world.check_everything(again=False)


def days_far_apart_in_one_commit(world: World) -> None:
    """Two days with more between them than any range bridges: whoever reads sees both changed, or neither."""
    far = world.days.first + timedelta(days=30)
    world.sql(
        "INSERT INTO sales_order SELECT 7, "
        f"'{far}', last_updated, design_id, staff_id, counterparty_id, units_sold, unit_price, currency_id, "
        "agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id FROM sales_order"
    )
    world.refresh()
    world.sql("UPDATE sales_order SET units_sold = 99")
    for request in world.look()[0].requests:
        world.run(request)
        rows = world.reader("SELECT count(*) FROM current_sales_order WHERE units_sold = 99")
        assert rows != [("1",)], "half of a commit is visible"
    world.check_everything(again=False)


def in_another_zone(world: World) -> None:
    alter_database(world.source_url, {"TimeZone": "Asia/Kolkata"})
    refresh_and_look_at_the_clock(world)


def in_another_zone_behind_a_pooler(world: World) -> None:
    """One that ignores what a session asks for at its start, as poolers are told to."""
    alter_database(world.source_url, {"TimeZone": "Asia/Kolkata"})
    straight, folder = world.source_url, world.folder.with_name(f"pooler_{os.urandom(4).hex()}")
    with transaction_pooler(folder, [straight], ignored="options") as [world.source_url]:
        try:
            refresh_and_look_at_the_clock(world)
        finally:
            world.source_url = straight


def refresh_and_look_at_the_clock(world: World) -> None:
    world.sql(SILENT)
    world.refresh()
    [(newest,)] = world.reader("SELECT max(_recorded_at)::text FROM fact_sales_order")
    late = datetime.fromisoformat(str(newest)) - datetime.now(UTC)
    assert late < timedelta(minutes=1), f"recorded {late} from now"
    world.check_everything(again=False)


def in_latin1(world: World) -> None:
    with psycopg.connect(world.warehouse_url, autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE other_source ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
        )
    world.source_url = psycopg.conninfo.make_conninfo(world.source_url, dbname="other_source")
    world.sql(ddl("totesys.sql"))
    world.sql(trade(world.days.first))
    world.sql("UPDATE design SET design_name = 'Málaga'")
    world.refresh()
    world.check_everything(again=False)


def another_lake_on_the_warehouse(world: World) -> None:
    """Captured anew from the same source: the same states, and versions of other moments."""
    known = world.lake
    world.lake, world.counts_versions = Lake(f"{world.folder}_of_another_name_{os.urandom(4).hex()}"), False
    with suppress(LakeChanged):
        world.refresh()
    world.lake, world.counts_versions = known, True
    world.check_everything(again=False)


def spilled_by_two_processes(world: World) -> None:
    spilling.spill_at_once(world.folder.with_name("spilled"), world.refresh)


def dropped_and_then_broken(world: World) -> None:
    for table in drops.TABLES:
        world.drops.change(table, "good", 0, 1)
    world.refresh()
    for table, what in zip(drops.TABLES, ("a link to nothing", "cut"), strict=True):
        world.drops.change(table, what, 0, 1)
        world.drops.change(table, "not in UTF-8", 0, 1)
    world.refresh()
    world.check_everything(again=False)


def versions_removed_and_nothing_else(world: World) -> None:
    world.look()  # there is nothing to do, which the next look is told
    world.lose("ingestion/payment")


def upgraded(world: World) -> None:
    world.upgrade("the views for people")


def upgraded_to_triggers(world: World) -> None:
    world.upgrade("what triggers keep, and they")


# Mutants


def without_relations(patch: Patch) -> None:
    structure = Snapshot.structure

    def of_any_relations(snapshot: Snapshot, table: Table) -> str:
        anonymous = {name: replace(each, relations="") for name, each in snapshot.tables.items()}
        return structure(replace(snapshot, tables=anonymous), table)

    patch.setattr(Snapshot, "structure", of_any_relations)


def no_lock_before_the_snapshot(patch: Patch) -> None:
    source_tables = source_structure.source_tables

    def believed_to_be_locked(rows: Any) -> dict[str, SourceTable]:
        return {name: replace(each, locked=True) for name, each in source_tables(rows).items()}

    patch.setattr(totesys_module, "lock_statement", lambda *_: "SET LOCAL work_mem = '4MB'")
    patch.setattr(totesys_module, "source_tables", believed_to_be_locked)


def a_probe_that_sees_no_commit(patch: Patch) -> None:
    patch.setattr(Snapshot, "instant", property(lambda snapshot: snapshot.lifetime))


def last_day_not_asked_for(patch: Patch) -> None:
    gathered = decide_module._gathered
    patch.setattr(decide_module, "_gathered", lambda keys: gathered(keys - {max(keys)} if len(keys) > 1 else keys))


def rewrite(patch: Patch, module: object, name: str, old: str, new: str) -> None:
    """Another text in one of the module's statements."""
    text = getattr(module, name)
    assert old in text
    patch.setattr(module, name, text.replace(old, new))


def bad_rows_stay_where_they_were(patch: Patch) -> None:
    same_day = "incoming._day = held._day"
    rewrite(patch, statements_module, "_LEAVING", same_day, f"({same_day} OR incoming._broken IS NOT NULL)")


def current_by_the_last_record(patch: Patch) -> None:
    present = "_operation = 'delete' OR left_at IS NOT NULL,\n            _recorded_at DESC"
    rewrite(patch, warehouse_views, "HISTORY", present, "_recorded_at DESC")
    rewrite(patch, warehouse_views, "HISTORY", "WHERE _operation <> 'delete' OR days_present = 0", "")
    patch.setattr(warehouse_schema, "_digest", warehouse_schema._digest.__wrapped__)  # it is kept, of the other view


def emptied_days_without_a_state(patch: Patch) -> None:
    patch.setattr(difference_module, "EMPTY", "")


def a_run_for_each_day(patch: Patch) -> None:
    def requests(*looked_at: Any) -> list[Request]:
        [all_at_once] = decide_module.requests(*looked_at)
        assert all_at_once.days is not None
        return [replace(all_at_once, days=DayRange.of(key)) for key in all_at_once.days.keys]

    patch.setattr(look_module, "requests", requests)


def not_set(setting: str) -> Callable[[Patch], None]:
    """Neither set in the source's transactions nor looked after."""

    def without(extra: Mapping[str, str] | None = None) -> str:
        return "; ".join(each for each in session_settings.set_local(extra).split("; ") if setting not in each)

    def mutate(patch: Patch) -> None:
        patch.setattr(totesys_module, "set_local", without)
        patch.setattr(totesys_module, "require", lambda *_: None)

    return mutate


def set_at_the_start_of_a_session(patch: Patch) -> None:
    """Which a pooler takes and forgets, or refuses."""
    conninfo = libpq.conninfo
    patch.setattr("totesys_assets.engine.conninfo", lambda url: conninfo(url) | {"options": "-c TimeZone=UTC"})
    not_set("TimeZone")(patch)


def whatever_lake(patch: Patch) -> None:
    patch.setattr(look_module, "require_known_lake", lambda *_: None)
    patch.setattr(load_module, "change_of", lambda *_, **__: None)


def found_behind_links(entry: os.DirEntry[str]) -> tuple[os.stat_result, bool]:
    found = entry.stat()
    return found, stat.S_ISREG(found.st_mode)


def spilling_as(code: str) -> Callable[[Patch], None]:
    """With other code in the processes that spill."""
    return lambda patch: patch.setattr(spilling, "BROKEN", code)


CASES = {
    "one folder for all that processes spill": Case(
        spilling_as("from totesys_assets import spill; spill.fcntl.flock = lambda *_: None"),
        spilled_by_two_processes,
        # Where the first to end removes the folder before the other has made a file in it, that one fails.
        "of what process .* spilled|are not held: (?s:.*)No such file or directory",
    ),
    "one folder for all that a process spills": Case(
        spilling_as("from totesys_assets import spill; spill._NUMBERS = __import__('itertools').repeat(0)"),
        spilled_by_two_processes,
        "of what process .* spilled",
        thorough=True,
    ),
    "files that cannot be read, without their copies": Case(
        lambda patch: patch.setattr(FileStore, "find", lambda *_: None),
        dropped_and_then_broken,
        "changes of |versions of .* added",
    ),
    "a link to nothing as a file that is gone": Case(
        lambda patch: patch.setattr(file_store, "_found", found_behind_links),
        dropped_and_then_broken,
        "versions of sales_target added",
        thorough=True,
    ),
    "a mark that does not tell of removed tables": Case(
        lambda patch: patch.setattr(Lake, "present", lambda _: []),
        versions_removed_and_nothing_else,
        "a lake that lost versions was taken for",
    ),
    "an upgrade that waits for a load": Case(
        lambda patch: patch.setattr(refresh_module, "_migrate", lambda *_: None),
        upgraded,
        "leaves the warehouse of an older version without",
    ),
    "an upgrade without triggers": Case(
        lambda patch: patch.setattr(warehouse_schema, "keep", lambda *_: None),
        upgraded_to_triggers,
        "leaves the warehouse of an older version without .* 'dim_design', 'keep_delete'",
    ),
    "whatever relation has the name": Case(
        without_relations,
        another_table_takes_the_place,
        "a look found other fingerprints of sales_order",
        "totesys/sales_order nothing_overdue: 1 row that waits",
        thorough=True,
    ),
    "tables not locked before the snapshot": Case(
        no_lock_before_the_snapshot,
        rewritten_while_a_refresh_begins,
        "versions of payment added",
        "totesys/payment history_plausible: 2 rows were deleted and came back equal in every column",
        aftermath=refresh,
        thorough=True,
    ),
    "a probe that does not see every commit": Case(
        a_probe_that_sees_no_commit,
        probed_after_a_change,
        "no refresh asks for",
        "totesys/sales_order nothing_overdue: .* the mark of the last one says that nothing changed since",
        thorough=True,
    ),
    "a last day that is never asked for": Case(
        last_day_not_asked_for,
        every_day_changed,
        "no refresh asks for",
        "totesys/payment nothing_overdue: 1 row that waits in .* was there at the last refresh, and not captured",
        aftermath=run_what_is_asked_for,
        thorough=True,
    ),
    "a setting that is left to the database": Case(
        not_set("TimeZone"),
        in_another_zone,
        "recorded 5:",
        "totesys/sales_order history_plausible: the newest versions are dated 5:.* after they were written",
    ),
    "settings of a session, behind a pooler": Case(
        set_at_the_start_of_a_session,
        in_another_zone_behind_a_pooler,
        "recorded 5:",
        "totesys/sales_order history_plausible: the newest versions are dated 5:.* after they were written",
        thorough=True,
    ),
    "whatever lake there is": Case(
        whatever_lake,
        another_lake_on_the_warehouse,
        "versions of .* in fact_",
        "warehouse/fact_payment records_equal_lake: the records differ",
        thorough=True,
    ),
    # Which stops the run, in a sentence: what the audit could compare waits for it.
    "text in the encoding of the server": Case(
        not_set("client_encoding"), in_latin1, "failed: |dim_design", thorough=True
    ),
    "rows that turned bad and stay on every day": Case(
        bad_rows_stay_where_they_were,
        turned_bad_and_mended_on_another_day,
        "versions of payment added",
        "totesys/payment content_equals_source: 1 row differs",
        aftermath=lambda world: for_the_rest_of_its_life(world, refresh),
        thorough=True,
    ),
    "a history of which the last record is current": Case(
        current_by_the_last_record,
        moved_and_its_new_day_captured_first,
        "history and current of sales_order show other rows",
        "warehouse/fact_sales_order views_agree: sales_order_id 1 is not the same",
        thorough=True,
    ),
    "an emptied day without a state": Case(
        emptied_days_without_a_state,
        warehouse_lost_after_a_day_was_emptied,
        "fact_sales_order",
        "warehouse/fact_sales_order records_equal_lake: the records differ",
        thorough=True,
    ),
    # Which is over when the runs are, and nothing is left for the audit.
    "a run for each day": Case(
        a_run_for_each_day, days_far_apart_in_one_commit, "half of a commit is visible", thorough=True
    ),
}


@pytest.mark.parametrize(("scenario", "audited"), scenarios(CASES))
def test_the_code_as_it_is_passes(laboratory: Laboratory, scenario: Callable[[World], None], audited: bool) -> None:
    require_passed(laboratory, scenario, audited=audited)


@pytest.mark.parametrize("case", mutants(CASES))
def test_a_mutant_is_noticed_by_the_harness_and_named_by_the_audit(laboratory: Laboratory, case: Case) -> None:
    require_noticed(laboratory, case)
