"""An API of a warehouse with two weeks of sales, called in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from fastapi.testclient import TestClient

from totesys_assets.api.app import build
from totesys_assets.api.keys import Budget
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.insights.reading import Reader
from totesys_assets_tests.conftest import Platform, PostgresServer, Refreshed, begin
from totesys_assets_tests.insights.test_questions import sell

HERE = "http://127.0.0.1"


@pytest.fixture(scope="session")
def sold(postgres_server: PostgresServer, trade_template: str, scratch: Path) -> Refreshed:
    """A platform that has refreshed the sales."""
    return begin(postgres_server, trade_template, scratch / "api", sell)


@pytest.fixture(scope="module")
def shop(sold: Refreshed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform behind the API, whose source is not asked again. Only one copy may exist at a time."""
    with sold.copy(tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture(scope="module")
def reader(shop: Platform) -> Iterator[Reader]:
    made = Reader(shop.warehouse_url, shop.settings.warehouse_schema, variable="WAREHOUSE_READER_URL", name="api test")
    yield made
    made.close()


@pytest.fixture
def client(reader: Reader) -> TestClient:
    """A caller without a key, and without a limit that is felt."""
    return TestClient(build(reader, budget=Budget(100_000)), base_url=HERE)


def pages(client: TestClient, path: str, **parameters: Any) -> Iterator[list[dict[str, Any]]]:
    """The rows of every page."""
    after: dict[str, str] = {}
    while True:
        answer = client.get(str(httpx.URL(path).copy_merge_params({**parameters, **after})))
        assert answer.status_code == 200, answer.text
        yield answer.json()["rows"]
        if answer.json()["next"] is None:
            return
        after = {"after": answer.json()["next"]}


def rows(client: TestClient, path: str, **parameters: Any) -> list[dict[str, Any]]:
    return [row for page in pages(client, path, **parameters) for row in page]


def add_orders(connection: psycopg.Connection, first: int, last: int, *, units: int = 1) -> None:
    """Sales orders with these numbers, as the newest version of each, in the warehouse alone."""
    table = catalogue().warehouse["fact_sales_order"]
    given = {"sales_order_id": "n", "units_sold": str(units), "_recorded_at": "clock_timestamp()"}
    columns = [column.name for column in table.columns if not column.is_identity]
    values = ", ".join(given.get(column, column) for column in columns)
    one = "(SELECT * FROM fact_sales_order WHERE sales_order_id = 1 LIMIT 1) AS one"
    connection.execute(
        f"INSERT INTO fact_sales_order ({', '.join(columns)}) "
        f"SELECT {values} FROM generate_series({first}, {last}) AS n CROSS JOIN {one}".encode()
    )
