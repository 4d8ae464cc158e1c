"""A mart whose DDL changes: its table in the warehouse gets columns that may be NULL, else it is made anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from totesys_assets.catalogue import catalogue as module
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import PostgresServer

DDL = """
-- One row per day and currency.
CREATE TABLE mart_sales (
    created_date date, -- by day: day of the orders
    currency_id int, -- currency
    units bigint, -- number of bags
    PRIMARY KEY (created_date, currency_id)
);
"""
UNITS = "units bigint, -- number of bags"


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.database()


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A session in a warehouse that has a row of the mart, and the note that it was loaded."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS mart_sales")
        migrate(url, DDL)
        connection.execute("INSERT INTO mart_sales VALUES ('2024-08-20', 1, 7)")
        connection.execute("DELETE FROM _ledger")
        connection.execute("INSERT INTO _ledger VALUES ('mart_sales', '2024-08-20', 'state', 1, 'run')")
        yield connection


def migrate(url: str, definition: str) -> None:
    """Migrate the warehouse to a catalogue with the mart that ``definition`` says."""
    marts = {**catalogue().marts, **{table.name: table for table in module._tables("mart", definition)}}
    Warehouse(url, "public", replace(catalogue(), marts=marts)).migrate()


def columns(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """Names of the mart's columns in the warehouse."""
    return [column.name for column in connection.execute("SELECT * FROM mart_sales").description or []]


def test_a_column_that_may_be_null_is_added_to_the_rows_that_are_there(
    connection: psycopg.Connection[tuple[object, ...]], url: str
) -> None:
    migrate(url, DDL.replace(UNITS, f"{UNITS}\n    revenue numeric(18,2), -- units times price"))
    assert connection.execute("SELECT units, revenue FROM mart_sales").fetchall() == [(7, None)]
    assert connection.execute("SELECT partition FROM _ledger").fetchall() == [("2024-08-20",)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            (UNITS, f"{UNITS}\n    orders bigint NOT NULL, -- number of orders"),
            id="with a new column that must have a value",
        ),
        pytest.param((f"    {UNITS}\n", ""), id="without one of its columns"),
        pytest.param(("units bigint", "units numeric(18,2)"), id="with a column of another type"),
        pytest.param(
            ("PRIMARY KEY (created_date, currency_id)", "PRIMARY KEY (created_date)"), id="with a shorter key"
        ),
        pytest.param(
            ("PRIMARY KEY (created_date, currency_id)", "PRIMARY KEY (currency_id, created_date)"),
            id="with its key in another order",
        ),
    ],
)
def test_a_mart_of_another_shape_is_made_anew_and_is_to_be_loaded_again(
    connection: psycopg.Connection[tuple[object, ...]], url: str, change: tuple[str, str]
) -> None:
    changed = DDL.replace(*change)
    assert changed != DDL
    migrate(url, changed)
    (mart,) = module._tables("mart", changed)
    assert columns(connection) == [*mart.by_name]
    assert connection.execute("SELECT count(*) FROM mart_sales").fetchall() == [(0,)]
    assert connection.execute("SELECT partition FROM _ledger").fetchall() == []
