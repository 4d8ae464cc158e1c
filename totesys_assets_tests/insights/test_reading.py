"""Sessions of readers: they cannot write, find the warehouse's tables, and come back when the database does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.errors import ConnectionFailed, PlatformError
from totesys_assets.insights import reading
from totesys_assets.insights.questions import questions
from totesys_assets.insights.reading import Reader, tables_of
from totesys_assets.postgres.session_settings import SETTINGS
from totesys_assets.warehouse.notes import NOTES
from totesys_assets_tests.conftest import Platform, PostgresServer

NAME = "somebody"


@pytest.fixture
def reader(postgres_server: PostgresServer) -> Iterator[Reader]:
    """A reader of a database with a table in a schema whose name must be quoted."""
    url = postgres_server.database()
    with psycopg.connect(url) as connection:
        connection.execute('CREATE SCHEMA "Ware house"')
        connection.execute('CREATE TABLE "Ware house".here AS SELECT 1 AS number')
    made = Reader(url, "Ware house", variable="WAREHOUSE_READER_URL", name=NAME)
    yield made
    made.close()


def test_a_session_has_the_settings_of_all_sessions_and_finds_the_tables(reader: Reader) -> None:
    with reader.session() as connection:
        assert connection.execute("SELECT number FROM here").fetchall() == [(1,)]
        for name, value in SETTINGS.items():
            if name not in ("search_path", "statement_timeout"):
                assert connection.execute(f"SHOW {name}".encode()).fetchone() == (value,)
        assert connection.execute("SHOW statement_timeout").fetchone() == (reading.STATEMENT_TIMEOUT,)


def test_nothing_can_be_written_whatever_the_login_may_do(reader: Reader) -> None:
    with pytest.raises(PlatformError, match="read-only transaction"), reader.session() as connection:
        connection.execute("INSERT INTO here VALUES (2)")
    with pytest.raises(PlatformError, match="read-write mode"), reader.session() as connection:
        connection.execute("SET TRANSACTION READ WRITE")


def test_a_session_is_kept_and_one_that_the_server_ended_is_replaced(reader: Reader) -> None:
    with reader.session() as connection:
        first = connection.info.backend_pid
    with reader.session() as connection:
        assert connection.info.backend_pid == first
        url = connection.info.dsn
    with psycopg.connect(make_conninfo(url, password=connection.info.password)) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    with reader.session() as connection:
        assert connection.info.backend_pid != first
        assert connection.execute("SELECT number FROM here").fetchall() == [(1,)]


def test_a_session_that_is_ended_during_a_question_is_an_error_and_the_next_is_none(reader: Reader) -> None:
    with pytest.raises(ConnectionFailed, match="The warehouse went away"), reader.session() as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with reader.session() as connection:
        assert connection.execute("SELECT number FROM here").fetchall() == [(1,)]


def test_a_question_that_takes_too_long_is_given_up(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STATEMENT_TIMEOUT", "50ms")
    given_up = "gave up a statement: canceling statement due to statement timeout"
    with pytest.raises(PlatformError, match=given_up), reader.session() as connection:
        connection.execute("SELECT pg_sleep(10)")


@pytest.mark.parametrize("statement", ["SELECT FROM nothing", "SELECT nothing FROM pg_class"])
def test_a_warehouse_that_is_older_than_the_platform_is_told_what_makes_the_rest(
    reader: Reader, statement: LiteralString
) -> None:
    with (
        pytest.raises(PlatformError, match="totesys refresh makes them, or, after an upgrade"),
        reader.session() as one,
    ):
        one.execute(statement)


def test_a_server_that_is_not_there_names_the_setting(reader: Reader) -> None:
    nowhere = Reader("postgresql://nobody@127.0.0.1:1/x", "public", variable="WAREHOUSE_READER_URL", name=NAME)
    with pytest.raises(ConnectionFailed, match="WAREHOUSE_READER_URL cannot be reached"), nowhere.session():
        pass


def test_before_the_first_load_nothing_was_loaded(reader: Reader) -> None:
    assert reader.loads().at == {}


@pytest.mark.refreshed
def test_the_mark_of_a_table_changes_with_its_load_and_with_no_other(platform: Platform) -> None:
    reader = Reader(platform.warehouse_url, platform.settings.warehouse_schema, variable="WAREHOUSE_URL", name=NAME)
    before = reader.loads()
    platform.sql("UPDATE sales_order SET units_sold = units_sold + 1")
    platform.refresh()
    after = reader.loads()
    reader.close()
    changed = {table for table in after.marks if after.marks[table] != before.marks[table]}
    assert {"fact_sales_order", "mart_sales_day"} <= changed
    assert not changed & {"fact_payment", "dim_staff", "mart_purchases_day", "mart_exchange_rate"}
    assert after.of(frozenset({"dim_staff"})) == before.of(frozenset({"dim_staff"}))
    assert after.of(tables_of("headline")) != before.of(tables_of("headline"))


@pytest.mark.pure
def test_the_tables_of_a_question_are_found_through_views() -> None:
    assert tables_of("headline") == {"mart_sales_day", "dim_currency", "mart_exchange_rate"}
    assert {"fact_sales_order", "dim_location", "dim_country", "dim_staff"} <= tables_of("newest_orders")


@pytest.mark.pure
@pytest.mark.parametrize("question", sorted(questions()))
def test_every_question_reads_tables_of_the_warehouse(question: str) -> None:
    assert tables_of(question) <= {*catalogue().warehouse, *NOTES}
    assert tables_of(question)


@pytest.mark.pure
def test_the_sql_of_a_question_can_be_had_with_its_values() -> None:
    text = questions()["newest_orders"].with_values({"rows": 7, "currency": "GBP"})
    assert text.startswith("-- Which")
    assert "LIMIT 7" in text
    assert "%(" not in text
