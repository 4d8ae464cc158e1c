"""Tables of the API: pages, filters, streams, and what callers get wrong or mean ill."""

from __future__ import annotations

import csv
import gc
import io
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from time import sleep
from typing import Any

import anyio
import psycopg
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from totesys_assets.api import app, streams
from totesys_assets.api import rows as api_rows
from totesys_assets.api.offered import offered
from totesys_assets.api.rows import Wanted
from totesys_assets.catalogue.views import views
from totesys_assets.errors import ConnectionFailed
from totesys_assets.insights.reading import Reader
from totesys_assets_tests.api.conftest import HERE, add_orders, pages, rows
from totesys_assets_tests.conftest import Platform


@contextmanager
def written(shop: Platform) -> Iterator[psycopg.Connection]:
    """A session that writes to the warehouse; sales orders from 10,000 on are gone afterwards."""
    with psycopg.connect(shop.warehouse_url, autocommit=True) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", [shop.settings.warehouse_schema])
        try:
            yield connection
        finally:
            connection.execute("DELETE FROM fact_sales_order WHERE sales_order_id >= 10000")


def shown(value: object) -> object:
    """A value as JSON has it."""
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def test_all_views_marts_and_dimensions_are_there_with_their_columns(client: TestClient, shop: Platform) -> None:
    told = {each["name"]: each for each in client.get("/v1/tables").json()}
    assert {view.name for view in views()} <= set(told)
    assert {"current_payment", "history_purchase_order", "mart_sales_day", "dim_staff"} <= set(told)
    assert not {"_ledger", "fact_sales_order"} & set(told)
    for name, each in told.items():
        there = shop.query(f"SELECT attname::text FROM pg_attribute WHERE attrelid = '{name}'::regclass AND attnum > 0")
        assert sorted(each["columns"]) == sorted(str(column) for (column,) in there)
        assert {*each["key"], *filter(None, [each["day"]])} <= set(each["columns"])
    assert told["sale"]["columns"]["revenue"] == "units times price, in the currency"


@pytest.mark.parametrize("name", sorted(offered()))
def test_pages_meet_every_row_once_in_the_order_of_the_key(client: TestClient, shop: Platform, name: str) -> None:
    limit = 1000 if name in ("conversion_rate", "mart_exchange_rate", "dim_date") else 7
    found = [*pages(client, f"/v1/tables/{name}", limit=limit)]
    assert all(len(page) == limit for page in found[:-1])
    assert (len(found[-1]) > 0) == (shop.query(f"SELECT count(*) FROM {name}")[0][0] != 0)
    columns, key = ", ".join(offered()[name].columns), ", ".join(offered()[name].key)
    expected = shop.query(f"SELECT {columns} FROM {name} ORDER BY {key}")
    assert [[*row.values()] for page in found for row in page] == [[shown(value) for value in row] for row in expected]


def test_rows_that_come_and_change_between_pages_move_no_other(client: TestClient, shop: Platform) -> None:
    with written(shop) as connection:
        add_orders(connection, 10_000, 10_030)
        before = [row["sales_order_id"] for row in rows(client, "/v1/tables/sale")]
        seen: list[dict[str, Any]] = []
        for number, page in enumerate(pages(client, "/v1/tables/sale", limit=10)):
            seen += page
            add_orders(connection, 10_000 + number, 10_000 + number, units=77)  # new versions, of each some
            add_orders(connection, 20_000 + 2 * number, 20_000 + 2 * number) if number < 3 else None
    numbers = [row["sales_order_id"] for row in seen]
    assert numbers == sorted(set(numbers))
    assert set(before) <= set(numbers)
    assert 20_000 in numbers


def test_versions_of_one_order_are_met_once_over_several_pages(client: TestClient, shop: Platform) -> None:
    with written(shop) as connection:
        for units in range(1, 6):
            add_orders(connection, 10_000, 10_001, units=units)
        found = [*pages(client, "/v1/tables/history_sales_order?sales_order_id=10000&sales_order_id=10001", limit=2)]
    assert [[(row["sales_order_id"], row["units_sold"]) for row in page] for page in found] == [
        [(10_000, 1), (10_000, 2)],
        [(10_000, 3), (10_000, 4)],
        [(10_000, 5), (10_001, 1)],
        [(10_001, 2), (10_001, 3)],
        [(10_001, 4), (10_001, 5)],
    ]


def test_a_page_reads_little_more_than_its_rows(reader: Reader, shop: Platform) -> None:
    def read() -> int:
        found = session.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'fact_sales_order'"
        ).fetchone()
        return 0 if found is None else int(str(found[0]))

    with written(shop) as connection:
        add_orders(connection, 10_000, 30_000)
        connection.execute("ANALYZE fact_sales_order")
        for name in ("sale", "current_sales_order", "history_sales_order"):
            with reader.session() as session:
                after = "15000" if name != "history_sales_order" else '["15000", "2024-08-20", "2024-08-20"]'
                before = read()
                page = api_rows.page(session, Wanted(offered()[name], after=after), 100)
                assert len(page.rows) == 100
                assert 0 < read() - before < 500


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("staff_id=2", "staff_id = 2"),
        ("currency=USD&currency=EUR", "currency IN ('USD', 'EUR')"),
        ("first=2024-08-22", "created_date >= '2024-08-22'"),
        ("first=2024-08-22&last=2024-08-25", "created_date BETWEEN '2024-08-22' AND '2024-08-25'"),
        ("last=2024-08-25&country=France&limit=2", "created_date <= '2024-08-25' AND country = 'France'"),
        ("staff=Jeremie O'Keefe", "staff = 'Jeremie O''Keefe'"),
        ("revenue=2432.43", "revenue = 2432.43"),
        ("country_code=", "false"),
    ],
)
def test_filters_leave_the_rows_that_they_name(client: TestClient, shop: Platform, query: str, condition: str) -> None:
    expected = [number for (number,) in shop.query(f"SELECT sales_order_id FROM sale WHERE {condition} ORDER BY 1")]
    assert [row["sales_order_id"] for row in rows(client, f"/v1/tables/sale?{query}")] == expected
    assert expected or condition == "false"


def test_a_filter_that_few_rows_pass_fills_a_page_from_far_away(client: TestClient, shop: Platform) -> None:
    with written(shop) as connection:
        add_orders(connection, 10_000, 10_400)
        add_orders(connection, 10_390, 10_400, units=77)
        answer = client.get("/v1/tables/sale?units=77&limit=10").json()
    assert [row["sales_order_id"] for row in answer["rows"]] == [*range(10_390, 10_400)]
    assert answer["next"] == "10399"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (
            "nothing",
            404,
            'There is no table "nothing". There are: conversion_rate, purchase, receivable, sale, current_',
        ),
        ("sale; DROP TABLE dim_staff", 404, "There is no table"),
        ('sale"', 404, "There is no table"),
        ("_ledger", 404, "There is no table"),
        ("fact_sales_order", 404, "There is no table"),
        ("SALE", 404, "There is no table"),
        ("sale%00", 404, "There is no table"),
        ("sale?nothing=1", 422, 'has no column "nothing". It has: sales_order_id, created_date'),
        ("sale?sales_order_id) OR (1=1", 422, "has no column"),
        ("sale?staff_id=1 OR true", 422, "invalid input syntax for type integer"),
        ("sale?staff_id=99999999999", 422, "out of range"),
        ("sale?staff=%00", 422, "NUL"),
        ("sale?created_date=2024-13-01", 422, "out of range"),
        ("sale?first=yesterday", 422, "first: Value error, write it as 2026-01-31"),
        ("sale?first=0", 422, "first: Value error, write it as 2026-01-31"),
        ("sale?last=2024-02-30", 422, "last: Input should be a valid date"),
        ("dim_staff?first=2024-01-01", 422, 'has no day: leave "first" and "last" out'),
        ("sale?first=2024-02-01&last=2024-01-31", 422, '"first" is 2024-02-01, after "last", 2024-01-31.'),
        ("sale?limit=0", 422, "limit: Input should be greater than or equal to 1"),
        ("sale?limit=1001", 422, "limit: Input should be less than or equal to 1000"),
        ("sale?limit=99999999999999999999", 422, "limit: "),
        ("sale?format=xml", 422, "format: Input should be 'json', 'csv' or 'arrow'"),
        ("sale?format=csv&staff_id=x", 422, "invalid input syntax for type integer"),
        ("sale?format=arrow&staff_id=x", 422, "invalid input syntax for type integer"),
        ("sale?after=x", 422, "invalid input syntax for type integer"),
        ("mart_sales_day?after=17", 422, '"after" is not a place in "mart_sales_day"'),
        ("mart_sales_day?after=[[1],2,3,4]", 422, '"after" is not a place'),
        ("mart_sales_day?after=" + "[" * 5000, 422, '"after" is not a place'),
        ('mart_sales_day?after=["2024-01-01",1,"\\ud83d",0]', 422, '"after" is not a place'),
        ('mart_sales_day?after=["x",1,"total",0]', 422, "invalid input syntax for type date"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(client: TestClient, path: str, status: int, text: str) -> None:
    answer = client.get(f"/v1/tables/{path}")
    assert answer.status_code == status
    assert text in answer.json()["error"]


@pytest.mark.parametrize(
    "value", ["' OR 1=1 --", "%s", "100%", "%(name)s", "\\'; SELECT 1", "Zoë ☃ 株式会社", "\ud83d"]
)
def test_a_hostile_value_is_only_a_value(client: TestClient, value: str) -> None:
    for form in ("json", "csv", "arrow"):
        answer = client.get("/v1/tables/sale", params={"staff": value.encode(errors="surrogatepass"), "format": form})
        assert answer.status_code == 200
    assert rows(client, "/v1/tables/sale", staff=value.encode(errors="surrogatepass")) == []


@pytest.mark.parametrize(
    "path",
    [
        "sale?limit=1000",
        "receivable?limit=1000",
        "conversion_rate?limit=1000&first=2024-08-19&last=2024-09-05",
        "mart_payments_day?limit=1000",
        "history_payment?limit=1000",
        "dim_staff?limit=1000",
    ],
)
def test_csv_and_arrow_have_the_rows_of_the_pages(client: TestClient, path: str) -> None:
    expected = rows(client, f"/v1/tables/{path}")
    assert 0 < len(expected) < 1000
    answer = client.get(f"/v1/tables/{path}&format=arrow")
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(answer.content).read_all()
    assert [{column: shown(value) for column, value in row.items()} for row in table.to_pylist()] == expected
    answer = client.get(f"/v1/tables/{path}&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f"attachment; filename={path.partition('?')[0]}.csv"
    found = [*csv.DictReader(io.StringIO(answer.text, newline=""))]
    assert [[_plain(value) for value in row.values()] for row in found] == [
        [_plain(value) for value in row.values()] for row in expected
    ]


def _plain(value: Any) -> str:
    """A value in JSON and in CSV, spelled alike."""
    text = {None: "", True: "t", False: "f"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)
    if "T" in text and text.endswith("+00:00"):
        text = text.replace("T", " ").removesuffix(":00")
    is_time = text.count(":") == 2 and "." in text
    return text.replace("+00", "").rstrip("0") if is_time else text


def test_money_is_a_decimal_in_arrow_and_a_text_in_json(client: TestClient) -> None:
    table = pa.ipc.open_stream(client.get("/v1/tables/sale?format=arrow&limit=1").content).read_all()
    assert table.schema.field("revenue").type == pa.decimal128(38, 2)
    assert table.schema.field("created_time").type == pa.time64("us")
    assert table["revenue"].to_pylist() == [Decimal("2432.43")]
    (row,) = client.get("/v1/tables/sale?limit=1").json()["rows"]
    assert row["revenue"] == "2432.43"


@pytest.mark.parametrize("form", ["csv", "arrow"])
def test_a_stream_comes_in_pieces_and_holds_no_table(
    reader: Reader, shop: Platform, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(streams, "BATCH_ROWS", 500)
    wanted = Wanted(offered()["conversion_rate"])
    pieces = streams.FORMATS[form].pieces(reader, wanted, None)
    sizes = [len(next(pieces))]
    running = shop.query("SELECT query FROM pg_stat_activity WHERE application_name = 'api test' AND state <> 'idle'")
    assert ("FETCH FORWARD 500" if form == "arrow" else "COPY (SELECT") in str(running)
    sizes += map(len, pieces)
    assert len(sizes) > 5
    assert max(sizes) < 2 * streams.PIECE_BYTES


def test_a_stream_that_is_left_ends_its_session(reader: Reader, shop: Platform) -> None:
    def sessions() -> list[tuple[object, ...]]:
        return shop.query(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'api test' AND state = 'idle in transaction'"
        )

    pieces = streams.arrow(reader, Wanted(offered()["conversion_rate"]), None)
    next(pieces)
    assert len(sessions()) == 1
    pieces.close()  # type: ignore[attr-defined]
    assert sessions() == []


def test_a_download_that_takes_too_long_is_cut(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BATCH_ROWS", 500)
    monkeypatch.setattr(streams, "DOWNLOAD_SECONDS", 1.0)
    pieces = streams.arrow(reader, Wanted(offered()["conversion_rate"]), None)
    next(pieces)
    sleep(1.5)
    with pytest.raises(ConnectionFailed):
        next(pieces)


def test_the_headers_of_a_download_do_not_have_its_rows_read(
    reader: Reader, shop: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "DOWNLOADS", 1)
    client = TestClient(app.build(reader), base_url=HERE)
    read: list[int] = []
    pieces = streams.csv

    def counted(*given: Any) -> Iterator[bytes]:
        for piece in pieces(*given):
            read.append(len(piece))
            yield piece

    monkeypatch.setitem(streams.FORMATS, "csv", streams.FORMATS["csv"]._replace(pieces=counted))
    for _ in range(2):  # the first leaves its place to the second
        answer = client.head("/v1/tables/conversion_rate?format=csv")
        assert (answer.status_code, answer.content) == (200, b"")
    assert len(read) == 2
    open_ones = "application_name = 'api test' AND state IN ('active', 'idle in transaction')"
    assert shop.query(f"SELECT query FROM pg_stat_activity WHERE {open_ones}") == []
    assert len(client.get("/v1/tables/conversion_rate?format=csv").content) > 2 * streams.PIECE_BYTES


def test_so_many_downloads_at_once_and_no_more(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "DOWNLOADS", 1)
    client = TestClient(app.build(reader), base_url=HERE)
    for query, status in (("format=csv", 200), ("format=arrow&staff_id=x", 422), ("format=arrow", 200)):
        assert client.get(f"/v1/tables/sale?{query}").status_code == status  # each ends, so that the next may begin
    monkeypatch.setattr(app, "DOWNLOADS", 0)
    client = TestClient(app.build(reader), base_url=HERE)
    refused = client.get("/v1/tables/sale?format=csv")
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "10"
    assert client.get("/v1/tables/sale").status_code == 200


SCOPE = {
    "type": "http",
    "asgi": {"spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/v1/tables/conversion_rate",
    "query_string": b"format=arrow",
    "headers": [(b"host", b"localhost")],
}


def test_a_download_whose_session_is_ended_is_cut_with_one_line_of_the_log(
    reader: Reader, shop: Platform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "BATCH_ROWS", 500)
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        if not sent:
            shop.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'api test'")
        sent.append(message)

    async def download() -> None:
        with anyio.fail_after(20):
            await app.build(reader)(SCOPE, receive, send)

    anyio.run(download)
    assert sent[-1]["more_body"]  # a client knows that this was not all
    [record] = caplog.records
    said = "A download of /v1/tables/conversion_rate was cut. The warehouse went away: terminating connection due to"
    assert record.getMessage().startswith(said)
    assert (record.name, record.exc_info) == ("uvicorn.error", None)


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "reading nothing"])
def test_a_client_that_is_gone_or_reads_nothing_leaves_its_place_to_others(
    reader: Reader, shop: Platform, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    monkeypatch.setattr(app, "DOWNLOADS", 1)
    monkeypatch.setattr(streams, "DOWNLOAD_SECONDS", 60.0 if is_gone else 1.0)
    api = app.build(reader)
    asked: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not asked and not is_gone:
            await anyio.sleep_forever()
        return asked.pop() if asked else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if not is_gone and message["type"] == "http.response.body":
            await anyio.sleep_forever()

    async def download() -> None:
        with anyio.fail_after(20):
            await api({**SCOPE, "query_string": b"format=csv"}, receive, send)

    gc.disable()  # what is left to it may stay for hours where little is asked
    try:
        anyio.run(download)
        open_ones = "application_name = 'api test' AND state IN ('active', 'idle in transaction')"
        assert shop.query(f"SELECT query FROM pg_stat_activity WHERE {open_ones}") == []
        assert TestClient(api, base_url=HERE).get("/v1/tables/sale?format=csv").status_code == 200
    finally:
        gc.enable()
