"""What is sold of each name of design follows from current orders, whatever was recorded, renamed or removed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.warehouse import superseded
from totesys_assets.warehouse.sold import FACT, compared
from totesys_assets_tests.conftest import PostgresServer
from totesys_assets_tests.warehouse.test_kept import while_it_waits
from totesys_assets_tests.warehouse.test_superseded import warehouse_with

ORDERS = catalogue().star[FACT]
PAIRS = (compared("public", ORDERS), superseded.compared("public", ORDERS))
BY_NAME = "SELECT design_name, orders, units, revenue FROM _design_sales ORDER BY 1"
Session = psycopg.Connection[tuple[Any, ...]]
# A record: order, day, moment, how it came to be, design, units. Few of each, so that they meet.
Record = tuple[int, date, datetime, str, int, int]
DAYS = [date(2026, 1, 1) + timedelta(20 * number) for number in range(3)]
MOMENTS = [datetime(2026, 1, 1) + timedelta(hours=hour) for hour in range(5)]
NAMES = ["Wooden", "Steel", ""]
RECORDS = st.tuples(
    st.integers(1, 4),
    st.sampled_from(DAYS),
    st.sampled_from(MOMENTS),
    st.sampled_from(["insert", "update", "delete"]),
    st.integers(1, 3),
    st.integers(-1, 2),
)
DESIGNS = st.dictionaries(st.integers(1, 3), st.sampled_from(NAMES), max_size=3)
SOME = st.integers(0, 2)
STATEMENTS = st.one_of(
    st.tuples(st.just("orders"), st.lists(RECORDS, max_size=8)),
    st.tuples(st.just("orders"), st.lists(RECORDS, max_size=8)),
    st.tuples(st.just("designs"), DESIGNS),
    st.tuples(
        st.sampled_from(
            [
                "DELETE FROM fact_sales_order WHERE sales_record_id % 3 = {}",
                "UPDATE fact_sales_order SET units_sold = 5, design_id = 2 WHERE sales_record_id % 3 = {}",
                "UPDATE fact_sales_order SET _operation = 'delete' WHERE sales_record_id % 3 = {}",
                "TRUNCATE fact_sales_order",
                "DELETE FROM dim_design WHERE design_id % 3 = {}",
                "UPDATE dim_design SET design_id = design_id + 10 WHERE design_id % 3 = {}",
                "TRUNCATE dim_design CASCADE",
            ]
        ),
        SOME,
    ),
)


@pytest.fixture(scope="module", params=["plain", "partitioned"])
def warehouse(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[Session]:
    with warehouse_with(postgres_server, ORDERS, request.param) as session:
        yield session


@pytest.fixture
def empty(warehouse: Session) -> Session:
    warehouse.execute("TRUNCATE fact_sales_order, dim_design CASCADE")
    assert warehouse.execute(BY_NAME).fetchall() == []
    return warehouse


@contextmanager
def another(session: Session) -> Iterator[Session]:
    """Another session with the same database."""
    with psycopg.connect(session.info.dsn, password=session.info.password, autocommit=True) as connection:
        connection.execute("SET search_path = public")
        yield connection


def add(connection: Session, *records: Record) -> None:
    """In one statement. Of records with the same order, day and moment there is one."""
    unique = {record[:3]: record for record in records}
    values = ", ".join(
        f"({order}, '{day}', '9:00', '{day}', '9:00', 1, 1, {units}, 1.5, 1, {design}, '{day}', '{day}', 1, "
        f"'{how}', '{at}+00')"
        for order, day, at, how, design, units in unique.values()
    )
    names = ", ".join(column.name for column in ORDERS.lake_columns)
    if values:
        connection.execute(f"INSERT INTO fact_sales_order ({names}) VALUES {values} ON CONFLICT DO NOTHING".encode())


def name_designs(connection: Session, names: dict[int, str]) -> None:
    """As a load does it."""
    values = ", ".join(f"({design}, '{name}', '', '', false, now())" for design, name in names.items())
    if values:
        upsert = "ON CONFLICT (design_id) DO UPDATE SET design_name = excluded.design_name"
        connection.execute(f"INSERT INTO dim_design VALUES {values} {upsert}".encode())


def require_same(connection: Session) -> None:
    """What is kept is what follows from the rows."""
    for kept, follows in PAIRS:
        found, expected = (sorted(connection.execute(query.encode())) for query in (kept, follows))
        assert found == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(statements=st.lists(STATEMENTS, max_size=8))
def test_sums_are_those_of_current_orders_whatever_happened(
    warehouse: Session, statements: list[tuple[str, Any]]
) -> None:
    """Orders before their design, renames, moves to other days, records that come late, what an owner does by hand."""
    warehouse.execute("TRUNCATE fact_sales_order, dim_design CASCADE")
    for statement, what in statements:
        if statement == "orders":
            add(warehouse, *what)
        elif statement == "designs":
            name_designs(warehouse, what)
        else:
            warehouse.execute(statement.format(what).encode())
        require_same(warehouse)


def test_an_order_that_takes_the_place_of_another_of_the_same_sum_leaves_it_as_it_should_be(empty: Session) -> None:
    name_designs(empty, {1: "Wooden", 2: "Steel"})
    add(empty, (1, DAYS[0], MOMENTS[0], "insert", 1, 2))
    add(empty, (1, DAYS[0], MOMENTS[1], "update", 1, 2), (2, DAYS[0], MOMENTS[1], "insert", 2, 1))
    assert empty.execute(BY_NAME).fetchall() == [("Steel", 1, 1, 1.5), ("Wooden", 1, 2, 3)]
    add(empty, (1, DAYS[0], MOMENTS[2], "update", 2, 2))
    assert empty.execute(BY_NAME).fetchall() == [("Steel", 2, 3, 4.5)]
    add(empty, *((order, DAYS[0], MOMENTS[3], "delete", 2, 2) for order in (1, 2)))
    assert empty.execute(BY_NAME).fetchall() == []
    require_same(empty)


def test_a_statement_leaves_other_sums_as_they_are(empty: Session) -> None:
    name_designs(empty, {1: "Wooden"})
    add(empty, *((order, DAYS[order % 2], MOMENTS[0], "insert", 1, 2) for order in range(1, 5)))
    query = f"SELECT ctid::text, xmin::text FROM _design_sales WHERE created_date = '{DAYS[0]}'"
    before = empty.execute(query.encode()).fetchall()
    add(empty, (1, DAYS[1], MOMENTS[1], "update", 1, 7))
    name_designs(empty, {2: "Steel"})
    assert empty.execute(query.encode()).fetchall() == before != []
    require_same(empty)


def test_orders_and_their_design_that_are_loaded_at_once_meet(empty: Session) -> None:
    with another(empty) as other:
        other.execute("BEGIN")
        add(other, (1, DAYS[0], MOMENTS[0], "insert", 1, 2))
        assert while_it_waits(lambda: name_designs(empty, {1: "Wooden"}), other)
        assert empty.execute(BY_NAME).fetchall() == [("Wooden", 1, 2, 3)]
        other.execute("BEGIN")
        name_designs(other, {1: "Steel"})
        assert while_it_waits(lambda: add(empty, (2, DAYS[0], MOMENTS[1], "insert", 1, 1)), other)
    assert empty.execute(BY_NAME).fetchall() == [("Steel", 2, 3, 4.5)]


def test_an_owner_who_removes_orders_and_a_load_that_meet_wait_for_one_another_in_the_same_order(
    empty: Session,
) -> None:
    name_designs(empty, {1: "Wooden"})
    add(empty, *((order, DAYS[0], MOMENTS[0], "insert", 1, 2) for order in (1, 2)))
    with another(empty) as holding, another(empty) as removing, another(empty) as loading, ThreadPoolExecutor(2) as two:
        holding.execute("BEGIN; LOCK TABLE _superseded_sales_order IN SHARE ROW EXCLUSIVE MODE")
        works: list[Future[Any]] = [
            two.submit(removing.execute, "DELETE FROM fact_sales_order WHERE sales_order_id = 1"),
            two.submit(add, loading, (2, DAYS[0], MOMENTS[1], "update", 1, 3)),
        ]
        assert not wait(works, 0.5).done
        holding.execute("COMMIT")
        for work in works:
            work.result(20)
    require_same(empty)
    assert empty.execute(BY_NAME).fetchall() == [("Wooden", 1, 3, 4.5)]


@pytest.mark.parametrize(
    ("table", "statement"),
    [(FACT, "TRUNCATE fact_sales_order"), ("dim_design", "UPDATE dim_design SET design_name = 'Copper'")],
)
def test_an_owner_who_locks_a_table_and_a_load_of_the_other_that_meet_both_end_well(
    empty: Session, table: str, statement: str
) -> None:
    name_designs(empty, {1: "Wooden"})
    add(empty, (1, DAYS[0], MOMENTS[0], "insert", 1, 2))
    order = (2, DAYS[0], MOMENTS[1], "insert", 1, 1)
    with another(empty) as owner, another(empty) as loading, ThreadPoolExecutor(1) as one:
        owner.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        load: list[Any] = [name_designs, loading, {1: "Steel"}] if table == FACT else [add, loading, order]
        work: Future[Any] = one.submit(*load)
        assert not wait([work], 0.5).done
        owner.execute(f"{statement}; COMMIT".encode())
        work.result(20)
    require_same(empty)


def test_the_least_number_of_bags_can_be_superseded_and_renamed(empty: Session) -> None:
    name_designs(empty, {1: "Wooden"})
    add(empty, (1, DAYS[0], MOMENTS[0], "insert", 1, -(2**31)))
    name_designs(empty, {1: "Steel"})
    add(empty, (1, DAYS[0], MOMENTS[1], "update", 1, 3))
    assert empty.execute(BY_NAME).fetchall() == [("Steel", 1, 3, 4.5)]
    require_same(empty)


@pytest.mark.parametrize("table", ["fact_sales_order", "dim_design"])
def test_columns_that_an_owner_adds_may_have_any_name(empty: Session, table: str) -> None:
    names = {
        "design_name",
        "times",
        "name",
        "name_before",
        "name_now",
        "units_sold",
        "currency_id",
        "orders",
        "revenue",
    }
    own = names - {column.name for column in catalogue().star[table].columns}
    with empty.transaction(force_rollback=True):
        empty.execute(f"ALTER TABLE {table} {', '.join(f'ADD COLUMN {name} text' for name in own)}".encode())
        empty.execute("INSERT INTO dim_design SELECT 1, 'Wooden', '', '', false, now()")
        add(empty, (1, DAYS[0], MOMENTS[0], "insert", 1, 2))
        add(empty, (1, DAYS[0], MOMENTS[1], "update", 1, 3))
        empty.execute("UPDATE dim_design SET design_name = 'Steel'")
        assert empty.execute(BY_NAME).fetchall() == [("Steel", 1, 3, 4.5)]
        require_same(empty)
        empty.execute("DELETE FROM fact_sales_order")
        require_same(empty)
