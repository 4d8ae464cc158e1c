"""Every guarantee has a mutant: code broken on purpose, which the harness must notice.

A scenario is a few fixed steps in a world of its own. With the code as it is it passes; with the mutant the harness
itself must say what is wrong, by an assertion: a crash would only show that the mutant is no good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import duckdb
import psycopg
import pytest
from deltalake import DeltaTable, Transaction, write_deltalake

from totesys_assets.capture import beside, comparison, statements
from totesys_assets.capture import ledger as ledger_module
from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.capture.lost_ledger import ingestion_name
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.days import WHOLE, DayRange, Days
from totesys_assets.lake import commit as commit_module
from totesys_assets.lake.read import recorded_until
from totesys_assets.lake.tables import Lake
from totesys_assets.load import load as load_module
from totesys_assets.load import merge, of_days
from totesys_assets.load import noted as noted_module
from totesys_assets.load.staging import staging_name
from totesys_assets.postgres import locks
from totesys_assets.source.interface import Fingerprint, SourceSnapshot
from totesys_assets.source.shared_snapshot import SharedSnapshot
from totesys_assets.source.totesys.remembered import Fact, Remembered
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets.staleness.decide import Request
from totesys_assets.transform import build as build_module
from totesys_assets.transform.engines import in_duckdb
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.harness import world as world_module
from totesys_assets_tests.harness.mutants import Case, mutants, require_noticed, require_passed, scenarios
from totesys_assets_tests.harness.source import read
from totesys_assets_tests.harness.world import Laboratory, World

Patch = pytest.MonkeyPatch
merge_rows = merge.merge
SILENT = "UPDATE sales_order SET units_sold = units_sold + 1"


@pytest.fixture(scope="module")
def laboratory(scratch: Path) -> Iterator[Laboratory]:
    folder = scratch / "mutants"
    folder.mkdir()
    with Laboratory(folder).open() as opened:
        yield opened


class Killed(BaseException):
    """The process ends here."""


# Scenarios


def silent_update(world: World) -> None:
    world.refresh()
    world.sql(SILENT)
    world.refresh()
    world.check_everything(again=False)


def comparison_of_everything(world: World) -> None:
    world.sql(SILENT)
    world.refresh()
    world.check_everything()


def deletion(world: World) -> None:
    world.sql("DELETE FROM payment WHERE payment_id = 1")
    world.refresh()
    world.check_everything(again=False)


def transaction_open_across_a_refresh(world: World) -> None:
    """It writes first and commits last: its id is older than those of what the refresh in between has seen."""
    with psycopg.connect(world.source_url) as late:
        late.execute(SILENT + " WHERE sales_order_id = 1")
        world.sql(
            "INSERT INTO sales_order SELECT 7, created_at, last_updated, design_id, staff_id, counterparty_id, 5, "
            "unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id "
            "FROM sales_order WHERE sales_order_id = 1"
        )
        world.refresh()
        late.commit()
    world.refresh()
    world.check_everything(again=False)


def one_day_after_another(world: World) -> None:
    world.sql(
        "INSERT INTO sales_order SELECT 7, created_at + interval '1 day', last_updated, design_id, staff_id, "
        "counterparty_id, 5, unit_price, currency_id, agreed_delivery_date, agreed_payment_date, "
        "agreed_delivery_location_id FROM sales_order WHERE sales_order_id = 1"
    )
    world.refresh()
    with psycopg.connect(world.source_url) as connection:
        (day,) = connection.execute("SELECT created_at::date FROM sales_order WHERE sales_order_id = 1").fetchall()[0]
    world.backfill(DayRange(day, day))
    world.check_everything(again=False)


def commit_between_two_tables(world: World) -> None:
    world.sql("UPDATE sales_order SET units_sold = 5; UPDATE payment SET payment_amount = 5")

    def change_the_other(captured: int) -> None:
        if captured == 1:
            world.sql("UPDATE payment SET payment_amount = 6")

    world.refresh(change_the_other)
    world.refresh()
    world.check_everything(again=False)


def overtaken_by_a_later_refresh(world: World) -> None:
    world.sql("UPDATE sales_order SET units_sold = 5; UPDATE payment SET payment_amount = 5")

    def overtake(captured: int) -> None:
        if captured == 1:
            world.sql("UPDATE payment SET payment_amount = 6")
            world.refresh()

    world.refresh(overtake)
    world.check_everything(again=False)


def two_captures_at_once(world: World) -> None:
    world.sql(SILENT)
    open_versions, opened = Lake.open_versions, count()

    def open_and_wait(lake: Lake, table: Table) -> DeltaTable:
        handle = open_versions(lake, table)
        if next(opened) == 0:
            world.run(Request(("totesys/sales_order",), world.days))
        return handle

    with Patch.context() as patch:
        patch.setattr(Lake, "open_versions", open_and_wait)
        world.run(Request(("totesys/sales_order",), world.days))
    world.refresh()
    world.check_everything(again=False)


def two_ranges_at_once(world: World) -> None:
    """The second is brought in, to the warehouse, between what the first has read and what it commits."""
    world.refresh()
    first, last = world.days.first + timedelta(days=2), world.days.first + timedelta(days=20)
    for number, day in enumerate((first, last)):
        world.sql(
            f"INSERT INTO sales_order SELECT {70 + number}, '{day} 09:00', last_updated, design_id, staff_id, "
            "counterparty_id, 5, unit_price, currency_id, agreed_delivery_date, agreed_payment_date, "
            "agreed_delivery_location_id FROM sales_order WHERE sales_order_id = 1"
        )
    assets = ("totesys/sales_order", "star/fact_sales_order", "warehouse/fact_sales_order")
    one, other = (Request(assets, DayRange(day, day), changes_only=True, is_range=True) for day in (first, last))
    open_versions, opened = Lake.open_versions, count()

    def open_and_wait(lake: Lake, table: Table) -> DeltaTable:
        handle = open_versions(lake, table)
        if next(opened) == 0:
            world.run(other)
        return handle

    with Patch.context() as patch:
        patch.setattr(Lake, "open_versions", open_and_wait)
        world.run(one)
    world.refresh()
    world.check_everything(again=False)


def killed_between_two_commits_of_a_capture(world: World) -> None:
    world.sql(SILENT)
    world.counts_versions = False
    with Patch.context() as patch:
        writes = count(1)

        def second_is_too_late(*arguments: Any, **named: Any) -> None:
            if next(writes) == 2:
                raise Killed
            write_deltalake(*arguments, **named)

        for module in (commit_module, ledger_module):
            patch.setattr(module, "write_deltalake", second_is_too_late)
        with pytest.raises(Killed):
            world.run(Request(("totesys/sales_order",), world.days))
    world.refresh()
    world.check_everything(again=False)


def killed_at_facts(
    connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, table: Table, *rows: Any, **named: Any
) -> int:
    if table.is_fact:
        raise Killed
    return merge_rows(connection, warehouse, table, *rows, **named)


def killed_in_the_middle_of_a_load(world: World) -> None:
    world.sql(SILENT)
    with Patch.context() as patch:
        patch.setattr(load_module, "merge", killed_at_facts)
        with pytest.raises(Killed):
            world.refresh()
    world.refresh()
    world.check_everything(again=False)


def two_silent_updates(world: World) -> None:
    """The second follows what was noted of the first."""
    for _ in range(2):
        world.sql(SILENT)
        world.refresh()
    world.check_everything(again=False)


def two_loads_at_once(world: World) -> None:
    """The second brings a later state, and must wait until the first is done."""
    world.sql("UPDATE design SET design_name = 'first'")
    register, threads = of_days.rows_of_days, list[Thread]()

    def register_and_wait(*arguments: Any) -> str:
        rows: str = register(*arguments)
        if not threads:
            world.sql("UPDATE design SET design_name = 'second'")
            second = World(world.folder, world.source_url, world.warehouse_url, world.days, world.tally)
            second.model, second.loaded = world.model, world.loaded
            request = Request(("totesys/design", "star/dim_design", "warehouse/dim_design"), None)

            def load_too() -> None:
                second.run(request)
                second.close()

            threads.append(Thread(target=load_too, daemon=True))
            threads[0].start()
            while threads[0].is_alive() and not waits_for_lock(world):
                sleep(0.01)
        return rows

    with Patch.context() as patch:
        patch.setattr(load_module, "rows_of_days", register_and_wait)
        world.run(Request(("totesys/design", "star/dim_design", "warehouse/dim_design"), None))
        threads[0].join()
    world.check_dimensions(read(world.source_url))


def waits_for_lock(world: World) -> bool:
    """Who waits asks for the lock again and again, and has none."""
    with psycopg.connect(world.warehouse_url) as connection:
        query = (
            "SELECT count(*) FROM pg_stat_activity AS who WHERE datname = current_database() "
            "AND state = 'idle in transaction' AND query LIKE '%pg_try_advisory_xact_lock%' "
            "AND NOT EXISTS (SELECT FROM pg_locks WHERE pid = who.pid AND locktype = 'advisory')"
        )
        return connection.execute(query).fetchone() != (0,)


def restored_from_another_server(world: World) -> None:
    """A copy with the same rows of the same transactions, in which another value stands for a column added later.

    Nothing but the identity of the database tells the two apart.
    """
    world.sql("ALTER TABLE address DROP COLUMN phone, ADD COLUMN phone text NOT NULL DEFAULT '0000'")
    world.refresh()
    with psycopg.connect(world.warehouse_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE other_source TEMPLATE source")
    world.source_url = psycopg.conninfo.make_conninfo(world.source_url, dbname="other_source")
    world.sql("CREATE TABLE donor ()")
    world.sql("ALTER TABLE donor ADD COLUMN phone text NOT NULL DEFAULT '1111'")
    world.sql(
        "UPDATE pg_attribute AS taker SET attmissingval = giver.attmissingval FROM pg_attribute AS giver "
        "WHERE giver.attrelid = 'donor'::regclass AND taker.attrelid = 'address'::regclass "
        "AND giver.attname = 'phone' AND taker.attname = 'phone'"
    )
    world.sql("DROP TABLE donor")
    world.refresh()
    world.check_everything(again=False)


# Mutants


def use_fingerprints(patch: Patch, mutant: Callable[..., dict[str, Fingerprint]]) -> None:
    def changed(
        snapshot: Snapshot, table: Table, all_days: DayRange, days: Days | None = None, _captured: object = None
    ) -> dict[str, Fingerprint]:
        return mutant(snapshot, table, all_days, days)

    patch.setattr(Snapshot, "fingerprints", mutant)
    patch.setattr(Snapshot, "changed_fingerprints", changed)


def looked_from_a_snapshots_end(patch: Patch) -> None:
    fact = Remembered.of

    def later(remembered: Remembered, table: str) -> Fact | None:
        found = fact(remembered, table)
        return found and replace(found, text="{1}:{1}:".format(*found.text.split(":")))

    patch.setattr(Remembered, "of", later)


def aggregated(aggregate: str) -> Callable[..., dict[str, Fingerprint]]:
    """Fingerprints made of an aggregate."""

    def mutant(snapshot: Snapshot, table: Table, all_days: DayRange, _days: object = None) -> dict[str, Fingerprint]:
        snapshot.require(table)
        columns = f"{snapshot.partition(table, all_days)} AS partition, count(*) AS rows, ({aggregate})::text AS state"
        query = f"SELECT {columns} FROM {snapshot.relation(table)} GROUP BY 1"
        return {partition: Fingerprint(rows, state) for partition, rows, state in snapshot.rows(query)}

    return mutant


def watermark(patch: Patch) -> None:
    use_fingerprints(patch, aggregated("max(last_updated)"))


def count_only(patch: Patch) -> None:
    use_fingerprints(patch, aggregated("count(*)"))


def without_the_server(patch: Patch) -> None:
    fingerprints = Snapshot.fingerprints
    use_fingerprints(patch, lambda snapshot, *arguments: fingerprints(replace(snapshot, server="any"), *arguments))


def rewrite(patch: Patch, module: object, name: str, old: str, new: str) -> None:
    """Another text in one of the module's statements."""
    text = getattr(module, name)
    assert old in text
    patch.setattr(module, name, text.replace(old, new))


def difference_by_last_updated(patch: Patch) -> None:
    newer = "incoming.last_updated > held.last_updated"
    rewrite(patch, statements, "_DIFFERENCE", "OR {changed}", f"OR ({newer} AND ({{changed}}))")


def no_deletes(patch: Patch) -> None:
    rewrite(patch, statements, "_DIFFERENCE", "FROM leaving CROSS", "FROM (FROM leaving LIMIT 0) AS leaving CROSS")


def anchored_at_its_end(patch: Patch) -> None:
    patch.setattr(Snapshot, "xmin", Snapshot.xmax)


def numbers_not_compared(patch: Patch) -> None:
    patch.setattr(comparison.Comparison, "_uncertain", lambda *_: frozenset())


def ledger_first(patch: Patch) -> None:
    commit = comparison.Comparison.commit

    def noted_first(self: comparison.Comparison) -> None:
        asset, now = ingestion_name(self._table), datetime.now(UTC)
        Ledger(self._lake).append(
            Entry(asset, key, each.state, each.rows, now, "mutant") for key, each in self._found.items()
        )
        commit(self)

    patch.setattr(comparison.Comparison, "commit", noted_first)


def no_lock(patch: Patch) -> None:
    patch.setattr(locks, "wait", lambda *_: None)


def facts_updated(patch: Patch) -> None:
    def statement(table: Table, name: str, columns: str) -> str:
        key = ", ".join(table.version_key)
        return (
            f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {staging_name(table)} "
            f"ON CONFLICT ({key}) DO UPDATE SET _operation = excluded._operation"
        )

    patch.setattr(merge, "_insert_facts", statement)


def snapshot_for_each_table(patch: Patch) -> None:
    @contextmanager
    def snapshot(shared: SharedSnapshot, table: str, *, table_count: int) -> Iterator[SourceSnapshot]:
        with shared.source.snapshot() as own:
            yield own

    patch.setattr(SharedSnapshot, "snapshot", snapshot)


def no_fence(patch: Patch) -> None:
    numbers = count()

    def unfenced(name: str, version: int) -> Transaction:
        return Transaction(f"{name} {next(numbers)}", version)

    patch.setattr(commit_module, "Transaction", unfenced)


def no_order(patch: Patch) -> None:
    patch.setattr(comparison, "require_newest", lambda *_: None)


def recorded_before_others(patch: Patch) -> None:
    patch.setattr(beside, "_recorded", lambda batches, _: batches)


def whole_month_replaced(patch: Patch) -> None:
    predicate = in_duckdb._predicate

    def by_month(table: Table, days: DayRange | None) -> str | None:
        text = predicate(table, days)
        return text and text[text.index("_month") :]

    patch.setattr(in_duckdb, "_predicate", by_month)


def noted_outside_the_transaction(patch: Patch) -> None:
    load = load_module.load

    def note_and_load(
        warehouse: Warehouse,
        lake: Lake,
        table: Table,
        *,
        days: DayRange | None,
        run_id: str,
        changes_only: bool,
        adopt_lake: bool = False,
        copy: object = None,
    ) -> load_module.Loaded:
        states = Ledger(lake).newest([build_module.processed_name(table)]).get(build_module.processed_name(table), {})
        keys = days.keys if days is not None and table.day_column else [WHOLE]
        with warehouse.transaction("notes") as connection:
            notes = {key: (states[key].content, states[key].rows) for key in keys if key in states}
            noted_module.note(connection, warehouse, table, notes, {}, run_id)
        return load(warehouse, lake, table, days=days, run_id=run_id, changes_only=changes_only, adopt_lake=adopt_lake)

    patch.setattr(world_module, "load", note_and_load)


def built_further_than_recorded(patch: Patch) -> None:
    patch.setattr(build_module, "recorded_until", lambda versions: recorded_until(versions) + 3_600_000_000)


def loaded_further_than_built(patch: Patch) -> None:
    origin = noted_module.held_of

    def further(star: DeltaTable) -> tuple[str, int]:
        table, until = origin(star)
        return table, until + 3_600_000_000

    patch.setattr("totesys_assets.load.load.held_of", further)


# What the audit says.
ORDERS_DIFFER = "totesys/sales_order content_equals_source: 1 row differs"
PAYMENTS_DIFFER = "totesys/payment content_equals_source: 1 row differs"
RECORDS_DIFFER = "warehouse/fact_sales_order records_equal_lake: the records differ"

CASES = {
    "a watermark instead of transaction ids": Case(watermark, silent_update, "no refresh asks for", ORDERS_DIFFER),
    "a fingerprint that only counts": Case(
        count_only, silent_update, "no refresh asks for", ORDERS_DIFFER, thorough=True
    ),
    "a fingerprint without the server": Case(
        without_the_server,
        restored_from_another_server,
        "no refresh asks for",
        "totesys/address content_equals_source: ",
        thorough=True,
    ),
    "rows compared by last_updated": Case(
        difference_by_last_updated, silent_update, "versions of sales_order added", ORDERS_DIFFER, thorough=True
    ),
    "deletes not captured": Case(no_deletes, deletion, "versions of payment added", PAYMENTS_DIFFER, thorough=True),
    "changes looked for from a snapshot's end": Case(
        anchored_at_its_end,
        transaction_open_across_a_refresh,
        "versions of sales_order added",
        ORDERS_DIFFER,
        thorough=True,
    ),
    "days not counted": Case(
        numbers_not_compared, deletion, "versions of payment added", PAYMENTS_DIFFER, thorough=True
    ),
    "a look from the last one's end": Case(
        looked_from_a_snapshots_end, transaction_open_across_a_refresh, "a look found other fingerprints"
    ),
    "the ledger written before the data": Case(
        ledger_first, killed_between_two_commits_of_a_capture, "no refresh asks for", ORDERS_DIFFER
    ),
    "no fence around the lake's commits": Case(
        no_fence,
        two_captures_at_once,
        "versions of sales_order added",
        "totesys/sales_order history_plausible: 1 version does not follow",
    ),
    "no order among snapshots": Case(
        no_order, overtaken_by_a_later_refresh, "brought back to an earlier state", thorough=True
    ),
    "a range committed under an earlier moment than others": Case(
        recorded_before_others, two_ranges_at_once, "fact_sales_order", RECORDS_DIFFER, thorough=True
    ),
    "a snapshot for each table": Case(snapshot_for_each_table, commit_between_two_tables, "fact_payment"),
    "a whole month replaced": Case(whole_month_replaced, one_day_after_another, "fact_sales_order", thorough=True),
    "no lock around a load": Case(no_lock, two_loads_at_once, "dim_design", thorough=True),
    "facts updated in place": Case(facts_updated, comparison_of_everything, "wrote to the warehouse", thorough=True),
    "a build noted as further than it came": Case(
        built_further_than_recorded, two_silent_updates, "fact_sales_order", RECORDS_DIFFER, thorough=True
    ),
    "a load noted as further than it came": Case(
        loaded_further_than_built, two_silent_updates, "fact_sales_order", RECORDS_DIFFER, thorough=True
    ),
    "a load noted outside of its transaction": Case(
        noted_outside_the_transaction, killed_in_the_middle_of_a_load, "fact_sales_order", RECORDS_DIFFER, thorough=True
    ),
}


@pytest.mark.parametrize(("scenario", "audited"), scenarios(CASES))
def test_the_code_as_it_is_passes(laboratory: Laboratory, scenario: Callable[[World], None], audited: bool) -> None:
    require_passed(laboratory, scenario, audited=audited)


@pytest.mark.parametrize("case", mutants(CASES))
def test_a_mutant_is_noticed(laboratory: Laboratory, case: Case) -> None:
    require_noticed(laboratory, case)
