"""What PostgreSQL keeps itself is right whatever is done to the tables, by whomever, and made anew where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from decimal import Decimal
from threading import Thread

import psycopg
import pytest

from totesys_assets.audit.audit import audit
from totesys_assets.audit.findings import KEPT, Finding
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.errors import PlatformError
from totesys_assets.insights.reading import tables_of
from totesys_assets.warehouse.kept import kept_queries
from totesys_assets.warehouse.sold import DESIGN, FACT
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform
from totesys_assets_tests.harness import older

pytestmark = pytest.mark.refreshed
KEEPING = [name for name, table in catalogue().warehouse.items() if table.is_fact]
BY_NAME = "SELECT design_name, sum(orders), sum(units), sum(revenue) FROM _design_sales GROUP BY 1 ORDER BY 1"
WORTH = Decimal("2432.43")
ANOTHER_ORDER = """
INSERT INTO fact_sales_order OVERRIDING SYSTEM VALUE SELECT (jsonb_populate_record(held,
    '{{"sales_record_id": 1000, "sales_order_id": 1000, "design_id": {design}, "units_sold": 3, "unit_price": 1.50}}'
)).* FROM fact_sales_order AS held
"""
Session = psycopg.Connection[tuple[object, ...]]


@contextmanager
def session(platform: Platform) -> Iterator[Session]:
    with psycopg.connect(
        platform.warehouse_url, autocommit=True, options=f"-c search_path={platform.settings.warehouse_schema}"
    ) as connection:
        yield connection


def kept_and_following(connection: Session, table: str) -> tuple[list[object], list[object]]:
    """What is kept beside a table, and what follows from its rows: for each thing that is kept, its rows."""
    (schema,) = connection.execute("SELECT current_schema()").fetchone() or ("",)
    pairs = kept_queries(str(schema), catalogue().warehouse[table]).values()
    kept, follows = (
        [sorted(connection.execute(query.encode())) for query in queries] for queries in zip(*pairs, strict=True)
    )
    return [*kept], [*follows]


def require_right(connection: Session) -> None:
    """Everything that is kept is what follows from the rows."""
    for table in KEEPING:
        kept, follows = kept_and_following(connection, table)
        assert kept == follows, table


def while_it_waits(work: Callable[[], object], other: Session, statement: str = "COMMIT") -> bool:
    """Do ``work`` while ``other`` is in a transaction that ends with ``statement``. True if it waited for that."""
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(work)
        waits = not wait([done], 0.5).done
        other.execute(statement.encode())
        done.result(20)
    return waits


def look(platform: Platform, table: str) -> Finding:
    [found] = audit(platform.core, [(f"warehouse/{table}", KEPT)])
    return found


def test_a_load_leaves_counts_and_sums_behind(platform: Platform) -> None:
    with session(platform) as connection:
        for table in KEEPING:
            kept, follows = kept_and_following(connection, table)
            assert kept
            assert kept == follows
        assert connection.execute(BY_NAME).fetchall() == [("Wooden", 1, 1001, WORTH)]
        platform.sql(
            "INSERT INTO design VALUES (9, '2024-08-19 08:00', 'Rubber', '/usr', 'r.json', '2024-08-19 08:00'); "
            "INSERT INTO sales_order SELECT 500, created_at, last_updated, 9, staff_id, counterparty_id, 10, 2.00, "
            "currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id FROM sales_order; "
            "UPDATE sales_order SET units_sold = 1000 WHERE sales_order_id = 1"
        )
        platform.refresh()
        require_right(connection)
        assert connection.execute(BY_NAME).fetchall() == [("Rubber", 1, 10, 20), ("Wooden", 1, 1000, 2430)]


def test_a_design_that_gets_another_name_takes_its_sales_along(platform: Platform) -> None:
    long = "x" * 200_000  # no index takes it
    with session(platform) as connection:
        for name in ("Steel", "", long, "Wooden"):
            platform.sql("UPDATE design SET design_name = %s", [name])
            platform.refresh()
            require_right(connection)
            assert connection.execute(BY_NAME).fetchall() == [(name, 1, 1001, WORTH)]


def test_the_sales_of_a_design_that_was_a_dead_letter_get_its_name_when_it_comes(platform: Platform) -> None:
    platform.sql("ALTER TABLE design ALTER COLUMN design_name DROP NOT NULL")
    platform.sql("INSERT INTO design VALUES (9, '2024-08-19 08:00', NULL, '/usr', 'none.json', '2024-08-19 08:00')")
    platform.sql("UPDATE sales_order SET design_id = 9")
    with session(platform) as connection:
        platform.refresh()
        assert connection.execute(BY_NAME).fetchall() == [("", 1, 1001, WORTH)]
        platform.sql("UPDATE design SET design_name = 'Bronze' WHERE design_id = 9")
        platform.refresh()
        assert connection.execute(BY_NAME).fetchall() == [("Bronze", 1, 1001, WORTH)]
        require_right(connection)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE fact_payment SET _operation = 'update', _recorded_at = _recorded_at - interval '3 days'",
        "DELETE FROM fact_payment WHERE payment_id = 1",
        "TRUNCATE fact_payment, fact_sales_order",
        "UPDATE fact_sales_order SET created_date = created_date + 1, units_sold = 3",
        "UPDATE fact_sales_order SET design_id = 77",
        "DELETE FROM fact_sales_order",
        "TRUNCATE fact_sales_order",
        "UPDATE dim_design SET design_id = 88, design_name = 'Gold'",
        "DELETE FROM dim_design",
        "TRUNCATE dim_design CASCADE",
        f"{ANOTHER_ORDER.format(design=44)}; INSERT INTO dim_design SELECT 44, 'Gold', '', '', false, now()",
    ],
)
def test_whatever_the_owner_does_by_hand_is_followed(platform: Platform, statement: str) -> None:
    with session(platform) as connection:
        before = [kept_and_following(connection, table)[0] for table in KEEPING]
        for part in statement.split("; "):
            connection.execute(part.encode())
        require_right(connection)
        assert before != [kept_and_following(connection, table)[0] for table in KEEPING]


# With a window over all versions, where the triggers look up the version before.
SILENT = """
SELECT count(*) FROM (
    SELECT _operation, last_updated_date + last_updated_time AS updated, lag(last_updated_date + last_updated_time)
        OVER (PARTITION BY sales_order_id, created_date ORDER BY _recorded_at) AS before
    FROM fact_sales_order
) AS version WHERE _operation = 'update' AND updated = before
"""
COUNTED = "SELECT coalesce(sum(versions), 0)::int FROM _recorded WHERE operation = 'silent update'"


def test_silent_updates_are_counted_also_when_a_version_comes_back_between_two_others(platform: Platform) -> None:
    with session(platform) as connection:
        for number, change in enumerate(
            ("units_sold = 5", "units_sold = 6", "units_sold = 7, last_updated = '2024-08-21 09:00'", "units_sold = 8")
        ):
            platform.sql(f"UPDATE sales_order SET {change}")
            platform.refresh()
            assert connection.execute(SILENT).fetchall() == connection.execute(COUNTED).fetchall(), number
        assert connection.execute(COUNTED).fetchall() == [(3,)]
        newest = "(SELECT _recorded_at FROM fact_sales_order ORDER BY 1 DESC OFFSET 1 LIMIT 1)"
        back = f"CREATE TABLE kept_back AS SELECT * FROM fact_sales_order WHERE _recorded_at = {newest}"
        connection.execute(back.encode())
        connection.execute("DELETE FROM fact_sales_order WHERE _recorded_at IN (SELECT _recorded_at FROM kept_back)")
        assert connection.execute(COUNTED).fetchall() == connection.execute(SILENT).fetchall() == [(2,)]
        connection.execute("ALTER TABLE kept_back DROP COLUMN sales_record_id")
        columns = [column.name for column in connection.execute("TABLE kept_back").description or []]
        listed = ", ".join(columns)
        connection.execute(f"INSERT INTO fact_sales_order ({listed}) SELECT {listed} FROM kept_back".encode())
        assert connection.execute(COUNTED).fetchall() == connection.execute(SILENT).fetchall() == [(3,)]
        require_right(connection)


def test_a_design_renamed_while_its_sales_are_loaded_keeps_none_of_them_under_the_old_name(platform: Platform) -> None:
    with session(platform) as renaming, session(platform) as loading:
        renaming.execute("BEGIN; UPDATE dim_design SET design_name = 'Steel'")
        load = Thread(target=lambda: loading.execute(ANOTHER_ORDER.format(design=1).encode()))
        load.start()
        load.join(0.5)
        waits = load.is_alive()
        renaming.execute("COMMIT")
        load.join(20)
        assert waits
        assert not load.is_alive()
        assert renaming.execute(BY_NAME).fetchall() == [("Steel", 2, 1004, WORTH + Decimal("4.50"))]


def test_after_a_load_or_migration_of_many_rows_postgresql_knows_how_many_sums_there_are(platform: Platform) -> None:
    platform.sql(
        "INSERT INTO design SELECT n, created_at, n::text, '/usr', n || '.json', last_updated "
        "FROM design, generate_series(100, 199) AS n; "
        "INSERT INTO sales_order SELECT n, created_at, last_updated, n, staff_id, counterparty_id, 10, 2.00, "
        "currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id "
        "FROM sales_order, generate_series(100, 199) AS n"
    )
    known = "SELECT reltuples::int FROM pg_class WHERE oid = '_design_sales'::regclass"
    with session(platform) as connection:
        platform.refresh()
        assert connection.execute(known).fetchall() == [(101,)]
        connection.execute("UPDATE pg_class SET reltuples = -1 WHERE oid = '_design_sales'::regclass")
        connection.execute("DELETE FROM _migration")
        assert Warehouse(platform.warehouse_url).migrate()
        assert connection.execute(known).fetchall() == [(101,)]


def test_a_design_whose_name_stays_leaves_the_sums_as_they_are(platform: Platform) -> None:
    with session(platform) as connection:
        rows = "SELECT ctid::text, xmin::text FROM _design_sales"
        before = connection.execute(rows).fetchall()
        connection.execute("UPDATE dim_design SET file_name = 'another.json', _is_deleted = true")
        assert connection.execute(rows).fetchall() == before
        connection.execute("UPDATE dim_design SET design_name = 'Steel'")
        assert connection.execute(rows).fetchall() != before


def test_records_that_come_while_the_owner_removes_others_are_counted_once(platform: Platform) -> None:
    with session(platform) as loading, session(platform) as removing:
        loading.execute("BEGIN")
        for number, operation in ((1000, "insert"), (1001, "update")):  # the day has a count of one of these
            loading.execute(
                "INSERT INTO fact_payment OVERRIDING SYSTEM VALUE "
                "SELECT (jsonb_populate_record(held, jsonb_build_object('payment_record_id', %s::int, "
                "'payment_id', %s::int, '_operation', %s::text))).* FROM fact_payment AS held LIMIT 1",
                [number, number, operation],
            )
        waits = while_it_waits(lambda: removing.execute("DELETE FROM fact_payment WHERE payment_id = 1"), loading)
        assert waits
        require_right(loading)


def test_a_migration_lets_a_load_come_to_its_end(platform: Platform) -> None:
    with session(platform) as loading:
        loading.execute("DELETE FROM _migration")
        loading.execute("BEGIN; UPDATE fact_sales_order SET units_sold = 2 WHERE false")
        more = "UPDATE fact_sales_order SET units_sold = 1000; COMMIT"
        assert while_it_waits(Warehouse(platform.warehouse_url).migrate, loading, more)
        assert loading.execute(BY_NAME).fetchall() == [("Wooden", 1, 1000, 2430)]


def test_a_migration_lets_an_older_version_load_a_mart_that_is_none_any_more(platform: Platform) -> None:
    older.make_older(platform.warehouse_url, "a mart that is none any more")
    with session(platform) as loading:
        loading.execute("BEGIN; DELETE FROM mart_sales_design_day")
        more = "LOCK TABLE _design_sales IN SHARE ROW EXCLUSIVE MODE; COMMIT"  # as its trigger did
        assert while_it_waits(Warehouse(platform.warehouse_url).migrate, loading, more)
        require_right(loading)


def test_a_migration_lets_the_owner_remove_records(platform: Platform) -> None:
    with session(platform) as removing:
        removing.execute("DELETE FROM _migration")
        removing.execute("BEGIN; LOCK TABLE fact_payment IN ROW EXCLUSIVE MODE")
        assert while_it_waits(Warehouse(platform.warehouse_url).migrate, removing, "DELETE FROM fact_payment; COMMIT")
        require_right(removing)


@pytest.mark.parametrize("statement", ["UPDATE dim_design SET design_name = 'Steel'", ANOTHER_ORDER.format(design=1)])
def test_sums_are_not_made_of_an_old_snapshot(platform: Platform, statement: str) -> None:
    with session(platform) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.errors.RaiseException, match="in READ COMMITTED transactions only"):
            connection.execute(statement.encode())
        connection.execute("ROLLBACK")
        connection.execute(statement.encode())
        require_right(connection)


def test_a_warehouse_may_be_published(platform: Platform) -> None:
    with session(platform) as connection:
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        try:
            platform.sql("UPDATE design SET design_name = 'Steel'")
            platform.refresh()
            assert connection.execute(BY_NAME).fetchall() == [("Steel", 1, 1001, WORTH)]
        finally:
            connection.execute("DROP PUBLICATION everything")


def test_a_reader_need_not_wait_for_a_load(platform: Platform) -> None:
    with session(platform) as loading, session(platform) as reading:
        loading.execute("BEGIN; UPDATE dim_design SET design_name = 'Steel'")
        reading.execute("SET lock_timeout = '1s'")
        assert reading.execute(BY_NAME).fetchall() == [("Wooden", 1, 1001, WORTH)]
        loading.execute("ROLLBACK")


@pytest.mark.parametrize(
    "undone",
    [
        "DROP TRIGGER keep_insert ON fact_payment",
        "ALTER TABLE fact_payment DISABLE TRIGGER ALL",
        "ALTER TABLE fact_payment ENABLE REPLICA TRIGGER keep_insert",
        "DROP FUNCTION keep_fact_payment CASCADE",
        "DROP TABLE _recorded",
        "DROP TABLE _design_sales",
        "DROP TABLE _superseded_sales_order CASCADE",
        "DROP TRIGGER keep_update ON dim_design",
        "ALTER TABLE _superseded_sales_order DISABLE TRIGGER keep_insert",
    ],
)
def test_what_was_dropped_or_disabled_is_made_anew(platform: Platform, undone: str) -> None:
    with session(platform) as connection:
        connection.execute(f"{undone}".encode())
        if "fact_payment" in undone:
            connection.execute("DELETE FROM _recorded WHERE table_name = 'fact_payment'")
        assert Warehouse(platform.warehouse_url).migrate()
        assert not Warehouse(platform.warehouse_url).migrate()
        require_right(connection)
        connection.execute("DELETE FROM fact_payment")  # the trigger works again
        platform.refresh()
        require_right(connection)


def test_the_audit_names_counts_and_sums_that_somebody_changed_and_its_remedy_works(platform: Platform) -> None:
    assert {name for name in KEEPING if look(platform, name).passed} == {*KEEPING}
    with session(platform) as connection:
        connection.execute("UPDATE _recorded SET versions = versions + 1 WHERE table_name = 'fact_payment'")
        connection.execute("UPDATE _design_sales SET design_name = 'Gold'")
        connection.execute("INSERT INTO _superseded_purchase_order SELECT '2024-08-19', 77")
        for table, said in (
            (FACT, "1 sum differs"),
            ("fact_payment", "1 count differs"),
            ("fact_purchase_order", "1 superseded record differs"),
        ):
            found = look(platform, table)
            assert found.outcome == "different"
            assert said in found.detail
            remedy = f"DROP TRIGGER keep_insert ON {table}"
            assert remedy in found.detail
            connection.execute(remedy.encode())
        assert look(platform, "fact_exchange_rate").passed
        assert Warehouse(platform.warehouse_url).migrate()
        assert {name for name in KEEPING if look(platform, name).passed} == {*KEEPING}


def test_an_answer_that_is_kept_is_asked_for_again_when_a_design_is_loaded() -> None:
    assert {FACT, DESIGN} <= tables_of("revenue_by_design")
    assert "fact_sales_order" in tables_of("what_changed")


@pytest.mark.parametrize("what", sorted(older.LACKS))
def test_a_migration_makes_of_an_older_warehouse_what_a_new_one_is(platform: Platform, what: str) -> None:
    before = older.shape(platform.warehouse_url)
    older.make_older(platform.warehouse_url, what)
    assert Warehouse(platform.warehouse_url).migrate()
    assert older.shape(platform.warehouse_url) == before
    with session(platform) as connection:
        require_right(connection)
        assert connection.execute("SELECT FROM _ledger WHERE table_name LIKE '%design_day'").fetchall() == []


def test_an_older_version_that_was_gone_back_to_keeps_the_sums_alone(platform: Platform) -> None:
    with session(platform) as connection:
        older.make_older(platform.warehouse_url, "a mart that is none any more")
        connection.execute(ANOTHER_ORDER.format(design=1).encode())
        connection.execute("INSERT INTO _superseded_sales_order SELECT min(created_date), 1000 FROM fact_sales_order")
        connection.execute("DELETE FROM _superseded_sales_order")
        assert connection.execute("TABLE _design_sales").fetchall() == []
        assert Warehouse(platform.warehouse_url).migrate()
        require_right(connection)


def test_a_view_that_reads_a_mart_which_is_to_go_is_named_and_a_table_of_that_name_that_is_not_ours_stays(
    platform: Platform,
) -> None:
    with session(platform) as connection:
        older.make_older(platform.warehouse_url, "a mart that is none any more")
        connection.execute("CREATE VIEW of_ours AS SELECT * FROM mart_sales_design_day")
        with pytest.raises(PlatformError, match=r"view public.of_ours depends on .*mart_sales_design_day. Drop those"):
            Warehouse(platform.warehouse_url).migrate()
        connection.execute("DROP VIEW of_ours")
        assert Warehouse(platform.warehouse_url).migrate()
        connection.execute("CREATE TABLE mart_sales_design_day AS SELECT 1; DELETE FROM _migration")
        assert Warehouse(platform.warehouse_url).migrate()
        assert connection.execute("TABLE mart_sales_design_day").fetchall() == [(1,)]


@pytest.mark.parametrize("schema", ['Dr. $keep$ "O\'Hara" {0}', "100 %s"])
def test_a_schema_may_have_any_name(platform: Platform, schema: str) -> None:
    for _ in range(2):
        Warehouse(platform.warehouse_url, schema).migrate()
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", [schema])
        connection.execute(
            "INSERT INTO fact_sales_order OVERRIDING SYSTEM VALUE VALUES (1, 1, '2024-08-20', '9:00', '2024-08-20', "
            "'9:00', 1, 1, 2, 1.50, 1, 7, '2024-08-20', '2024-08-20', 1, 'insert', now())"
        )
        assert connection.execute(BY_NAME).fetchall() == [("", 1, 2, 3)]
