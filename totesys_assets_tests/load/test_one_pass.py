"""A first load in one pass: what it makes along with the captures, who commits it, and what becomes of it otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from totesys_assets.capture import comparison
from totesys_assets.capture.difference import capture
from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.catalogue.queries import query_of
from totesys_assets.errors import PlatformError
from totesys_assets.lake.commit import commit
from totesys_assets.lake.files import Files
from totesys_assets.lake.read import RECORDED
from totesys_assets.lake.tables import INGESTION, PROCESSED
from totesys_assets.lake.written import listed_in, write
from totesys_assets.load import copying as copying_module
from totesys_assets.load.copying import Copy
from totesys_assets.load.load import Loaded, load
from totesys_assets.load.one_pass import OnePass
from totesys_assets.postgres import locks
from totesys_assets.staleness.decide import Request
from totesys_assets.transform.build import _Star, build
from totesys_assets.transform.engines import in_duckdb
from totesys_assets.transform.engines.in_duckdb import InDuckDb
from totesys_assets.transform.engines.interface import WRITER, Work
from totesys_assets.transform.engines.passed import Passed
from totesys_assets.transform.passing import Passing
from totesys_assets.warehouse import bare
from totesys_assets.warehouse import warehouse as warehouse_module
from totesys_assets.warehouse.kept import incomplete, kept_queries
from totesys_assets_tests.conftest import Platform
from totesys_assets_tests.harness.complete import look_at, require_complete
from totesys_assets_tests.warehouse.test_warehouse_sessions import transaction_of

TABLES = catalogue()
ORDER, FACT = TABLES.source["sales_order"], TABLES.star["fact_sales_order"]
MART = "mart_sales_day"
FACTS = {"fact_sales_order", "fact_purchase_order", "fact_payment", "fact_exchange_rate"}


# One order is numbered like any; several show by how much.
MORE_ORDERS = """
CREATE TEMP TABLE more AS SELECT * FROM sales_order WHERE sales_order_id = 1;
UPDATE more SET sales_order_id = 101; INSERT INTO sales_order TABLE more;
UPDATE more SET sales_order_id = 102; INSERT INTO sales_order TABLE more;
UPDATE more SET sales_order_id = 103; INSERT INTO sales_order TABLE more
"""
# Sums of several orders, of one currency and of another.
OTHER_ORDERS = """
UPDATE sales_order SET units_sold = sales_order_id, unit_price = 0.01 * sales_order_id,
    currency_id = 1 + sales_order_id % 2 WHERE sales_order_id > 100
"""
ANALYZED = "SELECT count(*) > 0 FROM pg_stats WHERE schemaname = current_schema AND tablename = '{name}'"


@pytest.fixture
def in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also tables of a few rows are copied along with their capture."""
    monkeypatch.setattr(copying_module, "LARGE", 1)


def require_keys(platform: Platform) -> None:
    """Every key and trigger is there, and the other indexes; and what the triggers keep is what follows from rows."""
    with psycopg.connect(platform.warehouse_url) as connection:
        for table in (TABLES.star[name] for name in FACTS):
            for kept, follows in kept_queries(platform.settings.warehouse_schema, table).values():
                both = (sorted(connection.execute(query.encode()), key=repr) for query in (kept, follows))
                assert next(both) == next(both), table.name
        schema = platform.settings.warehouse_schema
        assert bare.without_keys(connection, schema, TABLES) == incomplete(connection, schema, TABLES) == set()
        names = {str(name) for (name,) in connection.execute("SELECT indexname FROM pg_indexes")}
    assert {name for table in TABLES.warehouse.values() for name, _ in table.indexes} <= names


def spied(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, note: Callable[..., object]) -> list[Any]:
    seen: list[Any] = []
    original = getattr(owner, name)

    def spy(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        seen.append(note(*arguments))
        return result

    monkeypatch.setattr(owner, name, spy)
    return seen


def captured(platform: Platform, passing: OnePass) -> None:
    """Capture the sales orders, and take them along."""
    with platform.totesys.snapshot() as snapshot:
        capture(
            snapshot,
            platform.lake,
            ORDER,
            all_days=platform.all_days,
            days=platform.all_days,
            run_id="test",
            onward=passing.onward(ORDER, [FACT.name]),
        )


def built(platform: Platform, passing: OnePass) -> None:
    with passing.engine(FACT, InDuckDb()) as engine:
        build(platform.lake, TABLES, FACT, days=platform.all_days, run_id="test", made_by=engine)


def loaded(platform: Platform, passing: OnePass) -> Loaded:
    with passing.copy(FACT) as copy:
        return load(platform.warehouse, platform.lake, FACT, days=platform.all_days, run_id="test", copy=copy)


@contextmanager
def begun(platform: Platform) -> Iterator[OnePass]:
    with closing(OnePass(platform.lake, platform.warehouse, large=1)) as passing:
        captured(platform, passing)
        yield passing


def orders(platform: Platform) -> int:
    return int(str(platform.query("SELECT count(*) FROM fact_sales_order")[0][0]))


def star_files(platform: Platform) -> list[str]:
    return [*listed_in(platform.lake.open_processed(FACT), "")]


@pytest.mark.usefixtures("in_one_pass")
def test_a_first_refresh_reads_no_fact_back_from_the_lake(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.sql(MORE_ORDERS)
    platform.sql(OTHER_ORDERS)
    before = look_at(platform)
    copied = spied(monkeypatch, Copy, "commit", lambda self: self._table.name)
    passed = spied(monkeypatch, Passed, "replace", lambda self, *_: (self.made.table.name, self.made.is_committed))
    read = spied(monkeypatch, in_duckdb, "_rows", lambda work, *_: work.table.name)
    platform.refresh()
    require_complete(platform, before)
    require_keys(platform)
    assert sorted(copied) == sorted({*FACTS, *TABLES.marts})
    assert {name for name, is_committed in passed if is_committed} == {*FACTS, "dim_transaction"}
    assert not {*FACTS, "dim_transaction"} & set(read)
    for name in (*FACTS, *TABLES.marts, "_design_sales"):
        assert platform.query(ANALYZED.format(name=name)) == [(True,)], name
    platform.refresh()
    require_complete(platform, before)


def test_a_few_rows_are_made_along_and_loaded_as_ever(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    before = look_at(platform)
    copied = spied(monkeypatch, Copy, "commit", lambda self: self._table.name)
    passed = spied(monkeypatch, Passed, "replace", lambda self, *_: self.made.is_committed)
    platform.refresh()
    require_complete(platform, before)
    assert copied == []
    assert True in passed


def test_nothing_is_seen_of_it_before_its_own_step(platform: Platform) -> None:
    with begun(platform) as passing:
        star = platform.lake.find(PROCESSED, FACT.name)
        assert star is not None
        assert star.file_uris() == []
        assert len(star_files(platform)) > 0
        assert orders(platform) == 0
        built(platform, passing)
        assert orders(platform) == 0
        assert loaded(platform, passing).written == orders(platform) > 0
    require_keys(platform)


def test_what_no_step_takes_leaves_nothing(platform: Platform) -> None:
    with begun(platform):
        assert star_files(platform) != []
    assert star_files(platform) == []
    assert orders(platform) == 0
    require_keys(platform)
    with closing(OnePass(platform.lake, platform.warehouse, large=1)) as later:
        built(platform, later)
        loaded(platform, later)
    assert orders(platform) > 0


def test_versions_that_were_captured_meanwhile_are_built_too(platform: Platform) -> None:
    with begun(platform) as passing:
        platform.sql("UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 1")
        captured(platform, OnePass(platform.lake, platform.warehouse))
        before = set(star_files(platform))
        built(platform, passing)
        assert not before & set(star_files(platform))
        loaded(platform, passing)
    versions = platform.query("SELECT count(*) FROM fact_sales_order WHERE sales_order_id = 1")
    assert versions == [(2,)]
    require_keys(platform)


def test_a_star_that_another_refresh_has_built_is_not_built_twice(platform: Platform) -> None:
    with begun(platform) as passing:
        built(platform, OnePass(platform.lake, platform.warehouse))
        built(platform, passing)
        loaded(platform, passing)
    assert platform.query("SELECT count(*) = count(DISTINCT sales_order_id) FROM fact_sales_order") == [(True,)]
    require_keys(platform)


@pytest.mark.usefixtures("in_one_pass")
def test_a_warehouse_that_was_lost_is_filled_from_the_lake_with_keys_behind_the_rows(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.refresh()
    platform.sql("UPDATE payment SET paid = NOT paid WHERE payment_id = 1")
    platform.refresh()
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    filled = spied(monkeypatch, Copy, "fill_from", lambda self, *_: self._table.name)
    platform.refresh()
    # Of payments there are versions of two moments, and numbers follow these.
    assert set(filled) == {*FACTS, *TABLES.marts} - {"fact_payment"}
    moments = platform.query("SELECT _recorded_at FROM fact_payment ORDER BY payment_record_id")
    assert moments == sorted(moments)
    require_complete(platform)
    require_keys(platform)


@pytest.mark.usefixtures("in_one_pass")
def test_records_are_numbered_without_a_gap_and_the_next_goes_on(platform: Platform) -> None:
    platform.sql(MORE_ORDERS)
    platform.refresh()
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 1")
    platform.refresh()
    for fact in (TABLES.star[name] for name in FACTS):
        numbers = platform.query(f"SELECT {fact.key} FROM {fact.name} ORDER BY 1")
        assert numbers == [(number,) for number in range(1, len(numbers) + 1)]
    newest = platform.query("SELECT sales_order_id, _operation FROM fact_sales_order ORDER BY sales_record_id DESC")
    assert newest[0] == (1, "update")
    assert len(newest) == 5


@pytest.mark.usefixtures("in_one_pass")
def test_numbers_that_others_draw_while_records_come_are_not_given_out_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = copying_module._Numbers.take

    def after_others(self: copying_module._Numbers, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        with psycopg.connect(platform.warehouse_url, autocommit=True) as other:
            other.execute("SELECT setval(%s, 1000)", [self.sequence])
        take(self, connection, count)

    monkeypatch.setattr(copying_module._Numbers, "take", after_others)
    platform.refresh()
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 1")
    platform.refresh()
    assert platform.query("SELECT sales_record_id FROM fact_sales_order ORDER BY 1") == [(1,), (1001,)]


@pytest.mark.usefixtures("in_one_pass")
@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        ("ALTER TABLE fact_sales_order ALTER sales_record_id SET INCREMENT BY 10", lambda n: 1 + 10 * n),
        pytest.param(
            "ALTER TABLE fact_sales_order ALTER sales_record_id RESTART WITH 500",
            lambda n: 500 + n,
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            'ALTER SEQUENCE fact_sales_order_sales_record_id_seq RENAME TO "Numbers of orders"',
            lambda n: 1 + n,
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            "ALTER TABLE fact_sales_order ALTER sales_record_id DROP IDENTITY; CREATE SEQUENCE drawn; "
            "ALTER TABLE fact_sales_order ALTER sales_record_id SET DEFAULT nextval('drawn')",
            lambda n: 1 + n,
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["by ten", "from 500", "renamed", "a sequence of its own"],
)
def test_numbers_are_those_that_the_owner_of_the_table_wants(
    platform: Platform, change: str, numbers: Callable[[int], int]
) -> None:
    platform.warehouse.migrate()
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute(change.encode())
    platform.sql(MORE_ORDERS)
    platform.refresh()
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 1")
    platform.refresh()
    found = platform.query("SELECT sales_record_id FROM fact_sales_order ORDER BY 1")
    assert found == [(numbers(n),) for n in range(5)]


@pytest.mark.usefixtures("in_one_pass")
def test_only_indexes_that_first_rows_go_into_are_made_behind_them(platform: Platform) -> None:
    platform.warehouse.migrate()
    of_facts = "SELECT relname::text, relfilenode::text FROM pg_class WHERE relkind = 'i' AND relname LIKE 'fact_%'"
    before = {*platform.query(of_facts)}
    platform.refresh()
    same = {str(name) for name, _ in before & {*platform.query(of_facts)}}
    assert same == {f"{fact}_changes" for fact in FACTS}


@pytest.mark.usefixtures("in_one_pass")
def test_indexes_are_made_while_other_tables_are_captured_and_by_the_load_where_that_failed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of payments: the first time, then with all that was taken off, then by their own step.
    again = [("fact_payment", "indexes: fact_payment"), ("fact_payment", "warehouse__fact_payment")]
    begun, original = list[tuple[str, str]](), bare.indexes_behind

    def fails_for_payments(schema: str, table: Table) -> Iterator[str]:
        begun.append((table.name, threading.current_thread().name))
        if begun[-1] == again[0] and begun.count(again[0]) == 1:
            yield "SELECT 1 / 0"
        yield from original(schema, table)

    monkeypatch.setattr(bare, "indexes_behind", fails_for_payments)
    meanwhile = spied(monkeypatch, Copy, "index_meanwhile", lambda self: self._table.name)
    before = look_at(platform)
    platform.refresh()
    assert sorted(meanwhile) == sorted(FACTS)
    expected = [*again, *((table, f"indexes: {table}") for table in FACTS)]
    assert sorted(each for each in begun if each[0] in FACTS) == sorted(expected)
    require_complete(platform, before)
    require_keys(platform)


def test_whatever_ends_the_making_of_indexes_the_rows_are_loaded_with_all_of_them(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = iter([MemoryError("no room for a thread")])

    def fails_once(schema: str, table: Table, original: Callable[..., Iterator[str]] = bare.indexes_behind) -> object:
        for error in failing:
            raise error
        return original(schema, table)

    monkeypatch.setattr(bare, "indexes_behind", fails_once)
    with begun(platform) as passing:
        built(platform, passing)
        assert loaded(platform, passing).written == orders(platform)
    require_keys(platform)


@pytest.mark.usefixtures("in_one_pass")
def test_rows_with_one_key_twice_are_refused_as_ever(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.refresh()
    star = platform.lake.find(PROCESSED, MART)
    assert star is not None
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute(f"DROP TABLE {MART} CASCADE")
    original = Copy.fill_from

    def twice(self: Copy, star: Any) -> None:
        original(self, star)
        original(self, star)

    monkeypatch.setattr(Copy, "fill_from", twice)
    load(platform.warehouse, platform.lake, TABLES.marts[MART], days=platform.all_days, run_id="test")
    assert platform.query(f"SELECT count(*) FROM {MART}") == [(Files(star).rows,)]
    require_keys(platform)


@pytest.mark.parametrize("what", ["rows", "fill"])
def test_a_failure_along_the_way_fails_no_capture(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_: object) -> None:
        raise PlatformError("cannot be made")

    monkeypatch.setattr(*((Passing, "rows", fail) if what == "rows" else (Copy, "fill", fail)))
    with begun(platform) as passing:
        assert star_files(platform) == []
        built(platform, passing)
        loaded(platform, passing)
    assert orders(platform) > 0
    require_keys(platform)


def test_a_failure_in_the_middle_of_a_capture_leaves_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = comparison.Comparison._all_as_new

    def broken(self: comparison.Comparison, connection: Any) -> Iterator[pa.RecordBatch]:
        yield from original(self, connection)
        raise PlatformError("the source is gone")

    with monkeypatch.context() as patch:
        patch.setattr(comparison.Comparison, "_all_as_new", broken)
        with pytest.raises(PlatformError, match="the source is gone"), begun(platform):
            pass
    assert star_files(platform) == []
    require_keys(platform)
    with begun(platform) as passing:
        built(platform, passing)
        loaded(platform, passing)
    assert orders(platform) > 0


def test_keys_stay_where_somebody_reads_the_table(platform: Platform) -> None:
    platform.warehouse.migrate()
    with transaction_of(platform.warehouse_url, "SELECT count(*) FROM fact_sales_order"), begun(platform) as passing:
        require_keys(platform)
        built(platform, passing)
        loaded(platform, passing)
    assert orders(platform) > 0
    require_keys(platform)


@pytest.mark.usefixtures("in_one_pass")
def test_keys_stay_where_an_event_trigger_forbids_to_drop(platform: Platform) -> None:
    platform.warehouse.migrate()
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$; "
            "CREATE EVENT TRIGGER refuse ON sql_drop EXECUTE FUNCTION refuse()"
        )
    with begun(platform) as passing:
        require_keys(platform)
        built(platform, passing)
        loaded(platform, passing)
    assert orders(platform) > 0
    require_keys(platform)


def test_readers_see_an_empty_table_meanwhile_and_wait_for_none(platform: Platform) -> None:
    with begun(platform), psycopg.connect(platform.warehouse_url) as reader:
        reader.execute("SET lock_timeout = '200ms'")
        assert reader.execute("SELECT count(*) FROM current_sales_order").fetchone() == (0,)


def test_a_migration_leaves_a_table_that_is_being_filled_alone_and_completes_one_that_was_left(
    platform: Platform,
) -> None:
    platform.warehouse.migrate()
    with begun(platform):
        assert platform.warehouse.migrate() is False
    assert platform.warehouse.bare(FACT)
    with pytest.raises(AssertionError):
        require_keys(platform)
    assert platform.warehouse.migrate() is True
    require_keys(platform)


def test_counts_that_another_load_holds_are_waited_for(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than for locks for which readers wait: else a table would stay without keys, and be loaded."""
    monkeypatch.setitem(warehouse_module._SETTINGS, "lock_timeout", "500ms")
    copied = spied(monkeypatch, Copy, "commit", lambda self: self._table.name)
    with begun(platform) as passing:
        built(platform, passing)
        with psycopg.connect(platform.warehouse_url) as other, ThreadPoolExecutor() as pool:
            other.execute("LOCK TABLE _recorded IN SHARE ROW EXCLUSIVE MODE")
            loading = pool.submit(loaded, platform, passing)
            time.sleep(1.5)
            assert not loading.done()
            other.rollback()
            assert loading.result().written == orders(platform)
    assert copied == [FACT.name]
    require_keys(platform)


def test_no_row_goes_into_a_table_whose_keys_could_not_be_made_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying_module, "_LET_COUNT", "SET LOCAL lock_timeout = '100ms'")
    with begun(platform) as passing:
        built(platform, passing)
        with psycopg.connect(platform.warehouse_url) as other:
            other.execute("LOCK TABLE _recorded IN SHARE ROW EXCLUSIVE MODE")
            with pytest.raises(PlatformError, match="in use by"):
                loaded(platform, passing)
        assert orders(platform) == 0
    load(platform.warehouse, platform.lake, FACT, days=platform.all_days, run_id="test")
    assert orders(platform) > 0
    require_keys(platform)


def test_a_table_that_lacks_keys_is_completed_while_others_are_loaded(platform: Platform) -> None:
    platform.warehouse.migrate()
    assert platform.warehouse.bare(FACT)
    take = f"SELECT pg_advisory_xact_lock({locks.key(locks.LOAD_SPACE, 'public.dim_staff')})"
    with transaction_of(platform.warehouse_url, take):
        assert platform.warehouse.migrate() is True
    require_keys(platform)


def test_keys_stay_where_the_login_could_not_make_them_again(platform: Platform) -> None:
    platform.warehouse.migrate()
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE narrow LOGIN PASSWORD 'x'; ALTER TABLE fact_sales_order OWNER TO narrow")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC; SET ROLE narrow")
        try:
            assert bare.take_off(connection, "public", FACT) is False
        finally:
            connection.execute("RESET ROLE; ALTER TABLE fact_sales_order OWNER TO CURRENT_USER; DROP ROLE narrow")
    require_keys(platform)


def test_a_run_that_captures_alone_needs_no_warehouse(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PlatformError("the warehouse is down")

    monkeypatch.setattr("totesys_assets.warehouse.warehouse.Warehouse._session", fail)
    outcome = platform.run(Request((ORDER.asset,), platform.all_days))
    assert outcome.success, outcome.failures


def test_a_star_committed_before_what_it_is_made_of_is_noticed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the commits matters: this is what a process leaves that is killed after the wrong one."""

    class Killed(BaseException):
        pass

    passing = OnePass(platform.lake, platform.warehouse, large=1)

    def star_first(held: Any, batches: Any, schema: Any, writer: str, marks: Any, onward: Any, count: int) -> None:
        write(held, onward.along(batches, count), schema)
        onward.captured(str(held.metadata().id), marks[RECORDED])
        made = passing._made[FACT.name]
        star = platform.lake.open_processed(FACT)
        sources = {ORDER.name: platform.lake.open_versions(ORDER)}
        work = Work(None, TABLES, FACT, query_of(FACT.name), star, sources)  # type: ignore[arg-type]  # it runs nothing
        commit(made.written, WRITER, _Star(work, InDuckDb())._marks(made.until))
        made.is_tried = made.is_committed = True
        raise Killed

    before = look_at(platform)
    with monkeypatch.context() as patch, closing(passing):
        patch.setattr(comparison, "append_first", star_first)
        with pytest.raises(Killed):
            captured(platform, passing)
    assert platform.lake.find(INGESTION, ORDER.name) is not None
    platform.refresh()
    with pytest.raises(AssertionError, match="fact_sales_order"):
        require_complete(platform, before)
