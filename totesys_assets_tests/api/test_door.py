"""Who may call the API, how often, and what it says when the database is away; its questions, and its command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from fastapi.testclient import TestClient
from psycopg.conninfo import conninfo_to_dict

from totesys_assets.api.app import build
from totesys_assets.api.keys import Budget, hash_of, new_key
from totesys_assets.commands import main
from totesys_assets.errors import SettingsError
from totesys_assets.insights import reading
from totesys_assets.insights.questions import PARAMETERS, defaults, questions
from totesys_assets.insights.reading import Reader
from totesys_assets.live.ports import free_port
from totesys_assets.settings import Settings
from totesys_assets_tests.api.conftest import HERE
from totesys_assets_tests.conftest import Platform


class Clock:
    """Time that passes when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_only_a_key_whose_hash_is_known_lets_in(reader: Reader) -> None:
    first, second = new_key(), new_key()
    client = TestClient(build(reader, [hash_of(first), hash_of(second)]), base_url="http://api.example.com")
    for key in (first, second):
        assert client.get("/v1/tables", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    wrong = [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {hash_of(first)}",
        f"Basic {first}",
        first,
        f"Bearer {new_key()}",
        "Bearer é",
    ]
    for header in wrong:
        for path in ("/v1/tables", "/v1/tables/sale", "/v1/questions", "/v1/questions/span"):
            answer = client.get(path, headers={"Authorization": header.encode()})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json() == {"error": "A key is needed: Authorization: Bearer KEY."}
    assert client.get("/healthz").status_code == 200
    assert client.get("/openapi.json").status_code == 200


@pytest.mark.pure
def test_a_key_is_never_made_twice_and_its_hash_is_not_the_key() -> None:
    keys = {new_key() for _ in range(100)}
    assert len({hash_of(key) for key in keys}) == 100
    assert all(len(key) > 45 for key in keys)


def test_without_keys_only_requests_to_this_machine_are_answered(reader: Reader) -> None:
    api = build(reader)
    for base, status in ((HERE, 200), ("http://localhost:8502", 200), ("http://evil.example.com", 400)):
        assert TestClient(api, base_url=base).get("/v1/tables").status_code == status


def test_each_key_has_its_own_number_of_calls(reader: Reader) -> None:
    clock, keys = Clock(), [new_key(), new_key()]
    client = TestClient(build(reader, [*map(hash_of, keys)], Budget(3, 2.0, clock)), base_url=HERE)

    def call(key: str) -> int:
        return int(client.get("/v1/tables", headers={"Authorization": f"Bearer {key}"}).status_code)

    assert [call(keys[0]) for _ in range(4)] == [200, 200, 200, 429]
    assert call(keys[1]) == 200
    refused = client.get("/v1/tables", headers={"Authorization": f"Bearer {keys[0]}"})
    assert refused.headers["retry-after"] == "1"
    assert refused.json() == {"error": "Too many calls. Try again in 1 s."}
    clock.now += 1.0
    assert [call(keys[0]) for _ in range(3)] == [200, 200, 429]
    clock.now += 3600.0
    assert [call(keys[0]) for _ in range(4)] == [200, 200, 200, 429]


def test_a_database_that_is_away_is_said_and_missed_no_longer_than_it_is_away(shop: Platform) -> None:
    reader = Reader(shop.warehouse_url, shop.settings.warehouse_schema, variable="WAREHOUSE_URL", name="api away")
    client = TestClient(build(reader, budget=Budget(1000)), base_url=HERE)
    assert client.get("/healthz").json() == {"status": "ok"}
    name = conninfo_to_dict(shop.warehouse_url)["dbname"]
    with psycopg.connect(shop.warehouse_url, dbname="postgres", autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        try:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [str(name)]
            )
            for path in ("/healthz", "/v1/tables/sale", "/v1/tables/sale?format=csv", "/v1/questions/span"):
                answer = client.get(path)
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "5"
                assert answer.json() == {"error": "The warehouse cannot be reached. Try again soon."}
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/tables/sale").status_code == 200
    reader.close()


def test_an_answer_that_takes_too_long_is_given_up(
    reader: Reader, client: TestClient, shop: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "STATEMENT_TIMEOUT", "100ms")
    with psycopg.connect(shop.warehouse_url) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", [shop.settings.warehouse_schema])
        connection.execute("LOCK TABLE fact_sales_order")
        answer = client.get("/v1/tables/sale")
    assert answer.status_code == 504
    assert "Ask for less." in answer.json()["error"]


def test_before_the_first_load_it_says_that_there_are_no_tables(shop: Platform) -> None:
    reader = Reader(shop.warehouse_url, "nothing here", variable="WAREHOUSE_URL", name="api empty")
    answer = TestClient(build(reader), base_url=HERE).get("/v1/tables/sale")
    reader.close()
    assert answer.status_code == 503
    assert "The warehouse has not all tables yet" in answer.json()["error"]


def told_without_the_clock(row: dict[str, Any]) -> dict[str, str]:
    """The values as the API writes them, but for how long ago something was: that goes on between two answers."""
    assert float(row.get("minutes_ago", 0)) >= 0
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in row.items()
        if name != "minutes_ago"
    }


def test_every_question_is_answered_as_the_reader_answers_it(client: TestClient, reader: Reader) -> None:
    today = datetime.now(UTC).date()
    told = {each["name"]: each for each in client.get("/v1/questions").json()}
    assert set(told) == set(questions())
    for name, question in questions().items():
        answer = client.get(f"/v1/questions/{name}")
        assert answer.status_code == 200, answer.text
        expected = reader.answer(name, **defaults(today))
        rows = [dict(zip(expected.columns, row, strict=True)) for row in expected.rows]
        assert [told_without_the_clock(row) for row in answer.json()["rows"]] == [*map(told_without_the_clock, rows)]
        assert set(answer.json()["parameters"]) == set(question.parameters) == set(told[name]["parameters"])


def test_parameters_of_a_question_are_given_and_checked(client: TestClient) -> None:
    answer = client.get("/v1/questions/revenue_by_period?currency=eur&last=2024-09-30").json()
    asked = {"period": "month", "rate_day": None, "basis": "day", "currency": "EUR"}
    assert answer["parameters"] == {**asked, "first": "2023-09-01", "last": "2024-09-30"}
    assert answer["rows"][0]["period"] == "2024-08-01"
    assert answer["remarks"] == ["The newest rates are of 2024-08-30: money of later days is converted at these."]
    assert isinstance(answer["rows"][0]["revenue"], str)
    answer = client.get("/v1/questions/known_on?moment=2024-09-01T12:00:00&last=2024-08-31").json()
    assert answer["parameters"]["moment"] == "2024-09-01T12:00:00+00:00"
    (remark,) = answer["remarks"]
    assert remark.startswith("Nothing was known then: the first record is of ")
    first_year = client.get("/v1/questions/headline?last=0001-06-30").json()["parameters"]
    assert (first_year["first"], first_year["last"]) == ("0001-06-01", "0001-06-30")
    for query, text in (
        ("span?currency=EUR", '"span" does not take "currency". It takes: none.'),
        ("revenue_by_period?currency=POUND", "currency: "),
        ("revenue_by_period?currency=jpy", "There are no rates of JPY. There are rates of EUR, GBP, USD"),
        ("revenue_by_period?period=fortnight", "period: Input should be 'day', 'week'"),
        ("newest_orders?rows=1001", "rows: "),
        ("known_on?moment=20240901", "moment: Value error, write it as 2026-01-31"),
        ("revenue_by_period?last=86400", "last: Value error, write it as 2026-01-31"),
        ("newest_orders?what=1", 'does not take "what"'),
        ("headline?first=2024-09-01&last=2024-08-31", '"first" is 2024-09-01, after "last", 2024-08-31.'),
        ("what_changed?first=9999-12-31", '"first" is 9999-12-31, after "last", '),
    ):
        refused = client.get(f"/v1/questions/{query}")
        assert refused.status_code == 422
        assert text in refused.json()["error"]
    missing = client.get("/v1/questions/nothing")
    assert missing.status_code == 404
    assert missing.json()["error"].startswith('There is no question "nothing". There are: change_by_period, ')


def test_its_description_names_no_other_machine_and_there_is_no_page_that_does(client: TestClient) -> None:
    described = client.get("/openapi.json")
    assert "http" not in described.text.replace("HTTPValidationError", "")
    parameters = described.json()["paths"]["/v1/questions/{name}"]["get"]["parameters"]
    assert {each["name"] for each in parameters} - {"name", "authorization"} == set(PARAMETERS)
    for page in ("/docs", "/redoc"):
        assert client.get(page).status_code == 404


def test_an_address_that_has_nothing_says_where_there_is_something(client: TestClient) -> None:
    for address in ("/", "/v1", "/tables"):
        missing = client.get(address)
        assert missing.status_code == 404
        assert "Tables are at /v1/tables, questions at /v1/questions" in missing.json()["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/openapi.json", 200),
        ("/v1/tables", 200),
        ("/v1/tables/sale?limit=1", 200),
        ("/v1/tables/sale?format=csv", 200),
        ("/v1/tables/sale?format=arrow", 200),
        ("/v1/tables/nothing", 404),
        ("/v1/questions", 200),
        ("/v1/questions/headline", 200),
        ("/v1/questions/headline?period=day", 422),
    ],
)
def test_head_answers_as_get_without_the_rows(client: TestClient, path: str, status: int) -> None:
    got, head = client.get(path), client.head(path)
    assert got.status_code == head.status_code == status
    told = ("content-type", "content-length", "content-disposition")
    assert [head.headers.get(each) for each in told] == [got.headers.get(each) for each in told]


def test_head_is_for_those_with_a_key_and_counted(reader: Reader) -> None:
    key = new_key()
    client = TestClient(build(reader, [hash_of(key)], Budget(2, 0.001)), base_url=HERE)
    assert client.head("/v1/tables").status_code == 401
    statuses = [client.head("/v1/tables", headers={"Authorization": f"Bearer {key}"}).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_nothing_but_reading_is_possible(client: TestClient) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert client.request(method, "/v1/tables/sale").status_code == 405


@pytest.mark.pure
def test_hashes_are_read_from_the_setting_and_a_key_in_it_is_not_shown() -> None:
    first, second = hash_of("a"), hash_of("b")
    assert Settings.from_env({"TOTESYS_API_KEYS": f" {first}, {second.upper()},"}).api_keys == (first, second)
    assert Settings.from_env({}).api_keys == ()
    key = new_key()
    with pytest.raises(SettingsError, match="totesys api --new-key") as refused:
        Settings.from_env({"TOTESYS_API_KEYS": f"{first},{key}"})
    assert key not in str(refused.value)


@pytest.mark.pure
def test_the_command_makes_a_key_and_its_hash() -> None:
    printed = CliRunner().invoke(main, ["api", "--new-key"]).output
    key, kept = (re.findall(rf"^{name} +(\S+)$", printed, re.MULTILINE)[0] for name in ("key", "hash"))
    assert hash_of(key) == kept


@pytest.mark.pure
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "api.example.com"])
def test_the_command_lets_nobody_else_in_without_keys(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOTESYS_API_KEYS", raising=False)
    refused = CliRunner().invoke(main, ["api", "--host", host])
    assert refused.exit_code == 2
    assert "TOTESYS_API_KEYS" in refused.output


def test_the_command_serves_the_warehouse_of_the_settings_to_those_with_a_key(
    shop: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, served = new_key(), list[tuple[object, ...]]()

    def run(app: FastAPI, *, host: str, port: int, **_: object) -> None:
        client = TestClient(app, base_url="http://api.example.com")
        answers = [
            client.get("/v1/tables/sale", headers=headers) for headers in ({}, {"Authorization": f"Bearer {key}"})
        ]
        served.append((host, port, *(answer.status_code for answer in answers), len(answers[1].json()["rows"])))

    monkeypatch.setattr("uvicorn.run", run)
    monkeypatch.setenv("WAREHOUSE_READER_URL", shop.warehouse_url)
    monkeypatch.setenv("TOTESYS_API_KEYS", hash_of(key))
    done = CliRunner().invoke(
        main, ["api", "--host", "0.0.0.0", "--port", str(free_port(8502))], catch_exceptions=False
    )
    assert done.exit_code == 0
    ((host, _, *statuses, rows),) = served
    assert (host, *statuses, rows) == ("0.0.0.0", 401, 200, 41)


@pytest.mark.pure
def test_no_other_command_waits_for_its_packages() -> None:
    code = "import sys, json, totesys_assets.commands; print(json.dumps([*sys.modules]))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"fastapi", "uvicorn", "starlette"} & set(json.loads(loaded))
