"""The views of a fact: what is current, and how it came to be, whatever was recorded of it in whatever order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import product

import psycopg
import pytest

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.errors import PlatformError
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import PostgresServer

FIRST = datetime(2026, 1, 1)
STAR = catalogue().star
# A record: its day (of some January), its moment (in hours), how it came to be.
Record = tuple[int, int, str]
INSERT, UPDATE, DELETE = "insert", "update", "delete"


class Fact:
    """A warehouse of one order, into which records are put by hand."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, options="-c search_path=public -c timezone=UTC")

    def hold(self, *records: Record) -> None:
        self._connection.execute("TRUNCATE fact_sales_order")
        for day, hour, operation in records:
            self._connection.execute(
                f"INSERT INTO fact_sales_order ({COLUMNS}) "
                f"SELECT {COLUMNS} FROM json_populate_record(NULL::fact_sales_order, %s)",
                [ROW % {"day": date(2026, 1, day), "operation": operation, "moment": FIRST + timedelta(hours=hour)}],
            )

    def ask(self, query: str) -> list[tuple[object, ...]]:
        return self._connection.execute(query.encode()).fetchall()

    def history(self) -> list[tuple[object, ...]]:
        """Day, hour of valid_from and valid_to, is_current, is_deleted."""
        hours = "extract(epoch FROM {} - '2026-01-01 00:00+00')::int / 3600"
        return self.ask(
            f"SELECT extract(day FROM created_date)::int, {hours.format('valid_from')}, {hours.format('valid_to')}, "
            "is_current, is_deleted FROM history_sales_order ORDER BY valid_from, created_date"
        )

    def current(self) -> list[tuple[object, ...]]:
        return self.ask("SELECT sales_record_id FROM current_sales_order")

    def close(self) -> None:
        self._connection.close()


COLUMNS = ", ".join(column.name for column in STAR["fact_sales_order"].lake_columns)
ROW = (
    '{"sales_order_id": 1, "created_date": "%(day)s", "created_time": "12:00", "last_updated_date": "2026-01-01", '
    '"last_updated_time": "12:00", "sales_staff_id": 1, "counterparty_id": 1, "units_sold": 1, "unit_price": 1, '
    '"currency_id": 1, "design_id": 1, "agreed_payment_date": "2026-01-01", "agreed_delivery_date": "2026-01-01", '
    '"agreed_delivery_location_id": 1, "_operation": "%(operation)s", "_recorded_at": "%(moment)s+00"}'
)


@pytest.fixture(scope="module")
def fact(postgres_server: PostgresServer) -> Iterator[Fact]:
    url = postgres_server.database()
    Warehouse(url).migrate()
    held = Fact(url)
    yield held
    held.close()


def test_versions_follow_one_another_and_the_last_one_is_current(fact: Fact) -> None:
    fact.hold((1, 1, INSERT), (1, 2, UPDATE))
    assert fact.history() == [(1, 1, 2, False, False), (1, 2, None, True, False)]


def test_a_row_that_is_gone_ends_with_a_deletion_and_may_come_back(fact: Fact) -> None:
    fact.hold((1, 1, INSERT), (1, 2, DELETE))
    assert fact.history() == [(1, 1, 2, False, False), (1, 2, None, True, True)]
    fact.hold((1, 1, INSERT), (1, 2, DELETE), (1, 3, INSERT))
    assert fact.history() == [(1, 1, 2, False, False), (1, 2, 3, False, True), (1, 3, None, True, False)]


@pytest.mark.parametrize(("arrived", "left"), [(2, 2), (2, 3)], ids=["at once", "the arrival first"])
@pytest.mark.parametrize("day", [1, 3], ids=["an earlier day", "a later day"])
def test_to_leave_a_day_for_another_is_no_version(fact: Fact, day: int, arrived: int, left: int) -> None:
    fact.hold((2, 1, INSERT), (day, arrived, INSERT), (2, left, DELETE))
    assert fact.history() == [(2, 1, arrived, False, False), (day, arrived, None, True, False)]


def test_a_row_that_left_a_day_before_it_arrived_on_another_was_gone_in_between(fact: Fact) -> None:
    fact.hold((2, 1, INSERT), (2, 2, DELETE), (1, 3, INSERT))
    assert fact.history() == [(2, 1, 2, False, False), (2, 2, 3, False, True), (1, 3, None, True, False)]


def test_a_row_that_left_for_another_day_and_came_back_is_current_where_it_has_been_all_the_time(fact: Fact) -> None:
    fact.hold((2, 1, INSERT), (1, 2, INSERT), (1, 3, DELETE))
    assert fact.history() == [(2, 1, None, True, False), (1, 2, 3, False, False)]


def test_a_row_that_is_gone_from_all_its_days_is_deleted_once(fact: Fact) -> None:
    fact.hold((2, 1, INSERT), (1, 2, INSERT), (2, 3, DELETE), (1, 4, DELETE))
    assert fact.history() == [(2, 1, 2, False, False), (1, 2, 4, False, False), (1, 4, None, True, True)]


def test_whatever_was_recorded_the_undeleted_current_version_is_what_current_shows(fact: Fact) -> None:
    """All sequences of four records on two days, of a moment each or two at once, that a capture can make."""
    for hours in ((1, 2, 3, 4), (1, 2, 2, 3), (1, 1, 2, 2)):
        for days in product((1, 2), repeat=4):
            for gone in product((False, True), repeat=4):
                present: dict[int, bool] = {}
                records: list[Record] = []
                for day, hour, is_gone in zip(days, hours, gone, strict=True):
                    if (is_gone and not present.get(day)) or (day, hour) in [each[:2] for each in records]:
                        continue
                    records.append((day, hour, DELETE if is_gone else UPDATE if present.get(day) else INSERT))
                    present[day] = not is_gone
                fact.hold(*records)
                found = fact.ask("SELECT sales_record_id, is_deleted FROM history_sales_order WHERE is_current")
                assert len(found) == bool(records), records
                assert [row[:1] for row in found if not row[1]] == fact.current(), records
                assert bool(fact.current()) == any(present.values()), records


def test_a_history_is_read_by_the_index_of_its_key(fact: Fact) -> None:
    plan = fact.ask("EXPLAIN SELECT * FROM history_sales_order WHERE sales_order_id = 17")
    assert any("Index" in str(line) for line in plan), plan


def test_every_view_and_every_column_of_every_relation_says_what_it_is(fact: Fact) -> None:
    bare = fact.ask(
        "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname !~ '^_' "
        "AND attnum > 0 AND NOT attisdropped "
        "AND (col_description(attrelid, attnum) IS NULL OR obj_description(attrelid, 'pg_class') IS NULL)"
    )
    assert bare == []
    ((text,),) = fact.ask(
        "SELECT col_description(attrelid, attnum) FROM pg_attribute "
        "WHERE attrelid = 'history_sales_order'::regclass AND attname = 'is_current'"
    )
    assert "is_current AND NOT is_deleted" in str(text)


def test_a_view_of_before_is_replaced_in_place_whatever_order_its_table_has(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    Warehouse(url).migrate()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP VIEW history_payment, current_payment, receivable")
        connection.execute("ALTER TABLE fact_payment DROP COLUMN paid, ADD COLUMN paid boolean NOT NULL")
        connection.execute(
            "CREATE VIEW history_payment AS SELECT _recorded_at AS valid_from, lead(_recorded_at) OVER versions "
            "AS valid_to, lead(_recorded_at) OVER versions IS NULL AS is_current, _operation = 'delete' AS is_deleted, "
            "* FROM fact_payment WINDOW versions AS (PARTITION BY payment_id ORDER BY _recorded_at)"
        )
        connection.execute("TRUNCATE _migration")
        assert Warehouse(url).migrate()
        assert connection.execute("SELECT (SELECT count(*) FROM history_payment), count(*) FROM receivable").fetchall()


def test_a_mart_that_a_view_for_people_reads_is_made_anew_and_the_view_with_it(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    Warehouse(url).migrate()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE mart_exchange_rate ADD COLUMN odd int NOT NULL; TRUNCATE _migration")
        assert Warehouse(url).migrate()
        assert connection.execute("SELECT count(*) FROM conversion_rate, sale").fetchone() == (0,)
        found = connection.execute("SELECT * FROM mart_exchange_rate").description or ()
        assert "odd" not in [column.name for column in found]
        connection.execute("ALTER TABLE mart_exchange_rate ADD COLUMN odd int NOT NULL; TRUNCATE _migration")
        connection.execute("CREATE VIEW of_others AS SELECT * FROM mart_exchange_rate")
        with pytest.raises(PlatformError, match=r"mart_exchange_rate\. They cannot .* view public\.of_others depends"):
            Warehouse(url).migrate()
        assert connection.execute("SELECT count(*) FROM conversion_rate").fetchone() == (0,)
