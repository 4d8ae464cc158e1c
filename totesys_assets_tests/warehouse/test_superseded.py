"""``current_…`` shows what sorting all records would, whatever was recorded, changed or removed in whatever order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.warehouse import months
from totesys_assets.warehouse.superseded import compared
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import PostgresServer
from totesys_assets_tests.warehouse.test_kept import while_it_waits

FACT = catalogue().star["fact_exchange_rate"]
KEPT, FOLLOWS = compared("public", FACT)
Session = psycopg.Connection[tuple[object, ...]]
# A record: key, day, moment, how it came to be. Few of each, so that they meet.
Record = tuple[str, date, datetime, str]
KEYS, DAYS = [f"2026-01-0{day} GBP" for day in range(1, 5)], [date(2026, 1, 1) + timedelta(day) for day in range(3)]
MOMENTS = [datetime(2026, 1, 1) + timedelta(hours=hour) for hour in range(5)]
RECORDS = st.tuples(
    st.sampled_from(KEYS),
    st.sampled_from(DAYS),
    st.sampled_from(MOMENTS),
    st.sampled_from(["insert", "update", "delete"]),
)
# Of an owner's statement: which records.
SOME = st.builds("exchange_rate_record_id % {} = {}".format, st.integers(2, 4), st.integers(0, 3))
STATEMENTS = st.one_of(
    st.tuples(st.just("insert"), st.lists(RECORDS, max_size=8)),
    st.tuples(st.just("insert"), st.lists(RECORDS, max_size=8)),
    st.tuples(
        st.sampled_from(
            [
                "DELETE FROM fact_exchange_rate WHERE {}",
                "UPDATE fact_exchange_rate SET _operation = 'delete' WHERE {}",
                "UPDATE fact_exchange_rate SET exchange_rate_id = 'another' || exchange_rate_record_id WHERE {}",
                "UPDATE fact_exchange_rate SET rate_date = rate_date + 100 + exchange_rate_record_id::int WHERE {}",
                "UPDATE fact_exchange_rate SET _recorded_at = _recorded_at - interval '9 days' WHERE {}",
            ]
        ),
        SOME,
    ),
    st.tuples(st.just("TRUNCATE fact_exchange_rate"), SOME),
)


@contextmanager
def warehouse_with(server: PostgresServer, fact: Table, how: str) -> Iterator[Session]:
    """A session with a warehouse of its own, in which ``fact`` is plain or partitioned."""
    url = server.database()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(months, "parted", lambda _: [fact])
        Warehouse(url).migrate(partition_from=date.today() if how == "partitioned" else None)
    with psycopg.connect(url, autocommit=True, options="-c search_path=public -c timezone=UTC") as connection:
        connection.execute("SET synchronous_commit = off")
        yield connection


@pytest.fixture(scope="module", params=["plain", "partitioned"])
def warehouse(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[Session]:
    with warehouse_with(postgres_server, FACT, request.param) as session:
        yield session


def add(connection: Session, *records: Record) -> None:
    """In one statement. Of records with the same key, day and moment there is one."""
    unique = {record[:3]: record for record in records}
    values = ", ".join(f"('{key}', '{day}', 'GBP', 1, '{how}', '{at}+00')" for key, day, at, how in unique.values())
    names = "exchange_rate_id, rate_date, currency_code, units_per_euro, _operation, _recorded_at"
    if values:
        connection.execute(f"INSERT INTO fact_exchange_rate ({names}) VALUES {values} ON CONFLICT DO NOTHING".encode())


def require_same(connection: Session) -> None:
    """What is kept is what follows from sorting, and the view shows the others."""
    kept, follows, shown, records = (
        connection.execute(f"{query} ORDER BY 1, 2".encode()).fetchall()
        for query in (
            KEPT,
            FOLLOWS,
            "SELECT rate_date, exchange_rate_record_id FROM current_exchange_rate",
            "SELECT rate_date, exchange_rate_record_id FROM fact_exchange_rate",
        )
    )
    assert kept == follows
    assert shown == [record for record in records if record not in follows]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(statements=st.lists(STATEMENTS, max_size=8))
def test_current_is_what_sorting_shows_whatever_happened(
    warehouse: Session, statements: list[tuple[str, list[Record] | str]]
) -> None:
    """Ties, deletes, moves to other days and back, records that come late, and what an owner does by hand."""
    warehouse.execute("TRUNCATE fact_exchange_rate")
    for statement, what in statements:
        if isinstance(what, str):
            warehouse.execute(statement.format(what).encode())
        else:
            add(warehouse, *what)
        require_same(warehouse)


def test_many_records_at_once_close_together_or_scattered(warehouse: Session) -> None:
    """Of scattered records each is looked up; else the index of their keys is read along."""
    warehouse.execute("TRUNCATE fact_exchange_rate")
    many = (
        "INSERT INTO fact_exchange_rate (exchange_rate_id, rate_date, currency_code, units_per_euro, _operation, "
        "_recorded_at) SELECT n::text, '2026-01-01'::date + n % 2, 'GBP', 1, '{}', '2026-01-01'::timestamp + "
        "interval '{} hours' FROM generate_series(10000, 14999) AS n WHERE {}"
    )
    for number, (how, within) in enumerate(
        [("insert", "n < 12000"), ("insert", "n >= 12000"), ("update", "n < 12000"), ("delete", "n % 500 = 0")]
    ):
        warehouse.execute(many.format(how, number, within).encode())
        require_same(warehouse)
    assert warehouse.execute("SELECT count(*) FROM current_exchange_rate").fetchone() == (4990,)


def test_a_first_load_writes_nothing_beside_the_fact(warehouse: Session) -> None:
    warehouse.execute("TRUNCATE fact_exchange_rate")
    for key in KEYS:
        add(warehouse, (key, DAYS[0], MOMENTS[0], "insert"))
    assert warehouse.execute("SELECT count(*) FROM _superseded_exchange_rate").fetchone() == (0,)


def test_who_asks_for_a_row_reads_no_others(warehouse: Session) -> None:
    warehouse.execute("SET enable_seqscan = off")
    try:
        for asked in ("WHERE exchange_rate_id IN (SELECT 'a')", "ORDER BY exchange_rate_id LIMIT 1"):
            query = f"EXPLAIN SELECT * FROM current_exchange_rate {asked}"
            plan = "\n".join(str(line) for (line,) in warehouse.execute(query.encode()))
            assert re.search("Index.* (using|on) _?fact_exchange_rate.*_key", plan)
            assert "Sort  (" not in plan
    finally:
        warehouse.execute("RESET enable_seqscan")


def test_of_two_who_add_records_of_one_row_the_second_sees_the_first(warehouse: Session) -> None:
    warehouse.execute("TRUNCATE fact_exchange_rate")
    with psycopg.connect(warehouse.info.dsn, password=warehouse.info.password, autocommit=True) as other:
        other.execute("SET search_path = public; BEGIN")
        add(other, (KEYS[0], DAYS[0], MOMENTS[0], "insert"))
        assert while_it_waits(lambda: add(warehouse, (KEYS[0], DAYS[1], MOMENTS[1], "insert")), other)
    require_same(warehouse)
    assert warehouse.execute("SELECT rate_date FROM current_exchange_rate").fetchall() == [(DAYS[1],)]


def test_records_are_not_compared_with_those_of_an_old_snapshot(warehouse: Session) -> None:
    with warehouse.transaction():
        warehouse.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with (
            pytest.raises(psycopg.errors.RaiseException, match="in READ COMMITTED transactions only"),
            warehouse.transaction(),
        ):
            add(warehouse, (KEYS[1], DAYS[0], MOMENTS[0], "insert"))


def test_a_warehouse_that_has_records_already_gets_what_follows_from_them(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    Warehouse(url).migrate()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE _superseded_exchange_rate CASCADE")
        connection.execute("DROP FUNCTION keep_fact_exchange_rate_current CASCADE")
        connection.execute("ALTER TABLE fact_exchange_rate DISABLE TRIGGER ALL")
        for moment, how in zip(MOMENTS, ("insert", "update", "delete", "insert"), strict=False):
            add(connection, *((key, day, moment, how) for key in KEYS[:3] for day in DAYS))
        assert Warehouse(url).migrate()
        require_same(connection)
        assert connection.execute("SELECT count(*) FROM current_exchange_rate").fetchone() == (3,)
        add(connection, (KEYS[0], DAYS[0], MOMENTS[4], "delete"))
        require_same(connection)
