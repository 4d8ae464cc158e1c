"""Which relations a table of ToteSys consists of: another one, a changed one, one that is being rewritten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

from totesys_assets.errors import TableBusy, WrongDatabase
from totesys_assets.lake.tables import INGESTION
from totesys_assets.source import totesys as totesys_module
from totesys_assets_tests.conftest import Platform


def prices(platform: Platform) -> list[tuple[object, ...]]:
    return platform.query("SELECT sales_order_id, unit_price FROM current_sales_order ORDER BY 1")


def in_source(platform: Platform) -> list[tuple[object, ...]]:
    with psycopg.connect(platform.totesys_url) as connection:
        return connection.execute("SELECT sales_order_id, unit_price FROM sales_order ORDER BY 1").fetchall()


BESIDE = """
CREATE TABLE other (LIKE sales_order INCLUDING ALL);
INSERT INTO other SELECT * FROM sales_order;
UPDATE other SET unit_price = unit_price + 7;
"""
ANOTHER_DAY = "INSERT INTO sales_order SELECT 1000 + sales_order_id, created_at + interval '1 day', last_updated, "
ANOTHER_DAY += "design_id, staff_id, counterparty_id, units_sold, unit_price, currency_id, agreed_delivery_date, "
ANOTHER_DAY += "agreed_payment_date, agreed_delivery_location_id FROM sales_order"


@pytest.mark.refreshed
@pytest.mark.parametrize(
    ("before", "change"),
    [
        (BESIDE, "ALTER TABLE sales_order RENAME TO old; ALTER TABLE other RENAME TO sales_order"),
        pytest.param(
            BESIDE
            + "CREATE SCHEMA next; ALTER TABLE other SET SCHEMA next; ALTER TABLE next.other RENAME TO sales_order",
            "ALTER TABLE sales_order RENAME TO old; ALTER TABLE next.sales_order SET SCHEMA public",
            marks=pytest.mark.thorough,
        ),
        (
            BESIDE + "UPDATE other SET sales_order_id = sales_order_id + 500",
            "ALTER TABLE other INHERIT sales_order",
        ),
        pytest.param(
            BESIDE + "UPDATE other SET sales_order_id = sales_order_id + 500; ALTER TABLE other INHERIT sales_order",
            "ALTER TABLE other NO INHERIT sales_order",
            marks=pytest.mark.thorough,
        ),
        (
            BESIDE + "UPDATE other SET sales_order_id = sales_order_id + 500; ALTER TABLE other INHERIT sales_order",
            # The same relations, and not a row written, but the column is another.
            "ALTER TABLE other NO INHERIT sales_order; ALTER TABLE other DROP COLUMN unit_price; "
            "ALTER TABLE other ADD COLUMN unit_price numeric(10,2) NOT NULL DEFAULT 3; "
            "ALTER TABLE other INHERIT sales_order",
        ),
    ],
    ids=["renamed", "moved from another schema", "inherited", "disinherited", "a part's column made anew"],
)
def test_rows_that_were_written_before_the_last_capture_and_come_by_another_way_are_captured(
    platform: Platform, before: str, change: str
) -> None:
    platform.sql(ANOTHER_DAY)
    platform.sql(before)
    platform.refresh()
    assert prices(platform) == in_source(platform)
    platform.sql(f"BEGIN; {change}; COMMIT")
    platform.refresh()
    assert prices(platform) == in_source(platform)
    assert platform.look().requests == []


@pytest.mark.refreshed
def test_a_partition_that_is_attached_or_detached_is_captured(platform: Platform) -> None:
    platform.sql(
        "ALTER TABLE sales_order RENAME TO part; CREATE TABLE sales_order (LIKE part) PARTITION BY RANGE (created_at)"
    )
    platform.sql(BESIDE.replace("FROM sales_order", "FROM part"))
    platform.sql("UPDATE other SET created_at = created_at - interval '1 year', sales_order_id = 900")
    platform.sql("ALTER TABLE sales_order ATTACH PARTITION part FOR VALUES FROM ('2024-01-01') TO (MAXVALUE)")
    platform.refresh()
    assert len(prices(platform)) == 1
    platform.sql("UPDATE other SET created_at = '2024-08-19 10:00'")
    platform.refresh()
    platform.sql(
        "BEGIN; ALTER TABLE sales_order DETACH PARTITION part; "
        "ALTER TABLE sales_order ATTACH PARTITION other FOR VALUES FROM ('2024-01-01') TO (MAXVALUE); COMMIT"
    )
    platform.refresh()
    assert prices(platform) == in_source(platform)
    assert [row[0] for row in prices(platform)] == [900]


@contextmanager
def migration(platform: Platform, *statements: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Statements under way in a transaction of somebody else."""
    with psycopg.connect(platform.totesys_url, application_name="migration") as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield connection


REWRITE = "ALTER TABLE department ALTER COLUMN location TYPE text USING upper(location)"


@pytest.mark.refreshed
@pytest.mark.parametrize("rewrite", [REWRITE, "TRUNCATE department CASCADE; INSERT INTO department SELECT * FROM kept"])
def test_a_rewrite_that_ends_while_the_snapshot_waits_deletes_nothing(platform: Platform, rewrite: str) -> None:
    platform.sql("CREATE TABLE kept AS TABLE department")
    held = platform.lake.open_versions(platform.totesys.catalogue.source["department"]).to_pyarrow_table()
    platform.sql("ALTER TABLE staff DROP CONSTRAINT IF EXISTS staff_department_id_fkey")
    with migration(platform, rewrite.replace(" CASCADE", "")) as connection:
        timer = threading.Timer(1, connection.commit)
        timer.start()
        platform.refresh()
        timer.join()
    platform.refresh()
    versions = platform.lake.open_versions(platform.totesys.catalogue.source["department"]).to_pyarrow_table()
    assert "delete" not in versions["_operation"].to_pylist()
    assert len(versions) >= len(held)


@pytest.mark.refreshed
def test_a_table_that_is_being_rewritten_is_left_for_the_next_refresh_with_a_sentence_that_names_the_session(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totesys_module, "LOCK_TIMEOUT", {"lock_timeout": "200ms"})
    platform.sql("UPDATE staff SET last_name = 'new'")
    with migration(platform, REWRITE) as connection:
        seen = platform.look()
        process = connection.info.backend_pid
        expected = rf'"department" is left for the next refresh: process {process} \(role \w+, application migration\)'
        with pytest.raises(TableBusy, match=expected):
            raise seen.problems[0]
        assert len(seen.problems) == 1
        assert "totesys/staff" in seen.stale
        connection.commit()
    platform.refresh()


def test_a_session_that_waits_for_a_lock_stands_in_the_way_too(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totesys_module, "LOCK_TIMEOUT", {"lock_timeout": "200ms"})
    lock = "LOCK TABLE design IN ACCESS EXCLUSIVE MODE"

    def wait(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        with suppress(psycopg.errors.QueryCanceled):
            connection.execute(lock)

    with migration(platform, "SELECT count(*) FROM design"), migration(platform) as waiting:
        thread = threading.Thread(target=wait, args=[waiting])
        thread.start()
        with psycopg.connect(platform.totesys_url, autocommit=True) as connection:
            while connection.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is None:
                time.sleep(0.01)
        with platform.totesys.snapshot() as snapshot, pytest.raises(TableBusy, match="waits to lock it for itself"):
            snapshot.require(platform.totesys.catalogue.source["design"])
        waiting.cancel()
        thread.join()


def test_a_part_that_is_attached_just_before_the_snapshot_leaves_the_table_for_the_next_refresh(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.sql("CREATE TABLE more () INHERITS (department); ALTER TABLE more NO INHERIT department")
    lock = totesys_module.Totesys._lock

    def late(*arguments: object) -> bool:
        locked = lock(*arguments)  # type: ignore[arg-type]
        platform.sql("ALTER TABLE more INHERIT department")
        return locked

    monkeypatch.setattr(totesys_module.Totesys, "_lock", late)
    with platform.totesys.snapshot() as snapshot, pytest.raises(TableBusy, match="got another part"):
        snapshot.require(platform.totesys.catalogue.source["department"])
    monkeypatch.undo()
    with platform.totesys.snapshot() as snapshot:
        snapshot.require(platform.totesys.catalogue.source["department"])


FOREIGN = "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("ALTER TABLE design RENAME TO was; CREATE VIEW design AS TABLE was", "is a view"),
        ("ALTER TABLE design RENAME TO was; CREATE MATERIALIZED VIEW design AS TABLE was", "is a materialized view"),
        (
            f"ALTER TABLE design RENAME TO was; {FOREIGN}; "
            "CREATE FOREIGN TABLE design (LIKE was) SERVER files OPTIONS (filename '/nowhere')",
            "is a foreign table",
        ),
        (
            f"{FOREIGN}; CREATE FOREIGN TABLE part () INHERITS (design) SERVER files OPTIONS (filename '/nowhere')",
            "has a part that is a foreign table",
        ),
        (
            "CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER heap_tableam_handler; "
            "CREATE TABLE part () INHERITS (design) USING other_heap",
            "is stored by the access method other_heap",
        ),
        (
            "ALTER TABLE design DROP COLUMN file_name; "
            "ALTER TABLE design ADD COLUMN file_name text GENERATED ALWAYS AS (upper(design_name)) VIRTUAL",
            'has a column that is computed when it is read, "file_name"',
        ),
    ],
)
def test_relations_that_hide_changes_are_refused_and_the_other_tables_go_on(
    platform: Platform, change: str, sentence: str
) -> None:
    platform.sql(change)
    seen = platform.look()
    assert len(seen.problems) == 1
    with pytest.raises(WrongDatabase, match=f'"design" in database "\\w+" {sentence}'):
        raise seen.problems[0]
    assert "totesys/address" in seen.stale
    assert platform.lake.find(INGESTION, "design") is None


def test_stored_generated_columns_are_captured(platform: Platform) -> None:
    platform.sql("ALTER TABLE design DROP COLUMN file_name")
    platform.sql("ALTER TABLE design ADD COLUMN file_name text GENERATED ALWAYS AS ('x' || design_name) STORED")
    with platform.totesys.snapshot() as snapshot:
        snapshot.require(platform.totesys.catalogue.source["design"])
