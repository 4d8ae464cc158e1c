"""``totesys status``: what an operator sees, also when something is down; and the words in which it is told."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from click.testing import CliRunner
from dagster._core.test_utils import create_run_for_test, instance_for_test

from totesys_assets.automation.records import seen
from totesys_assets.commands import main, words
from totesys_assets.errors import told_once
from totesys_assets.local.locks import only_one
from totesys_assets.names import LOOKED_AT_TAG, REFRESH_TAG, UP_LOCK
from totesys_assets.sql_text import quoted
from totesys_assets.staleness import mark
from totesys_assets_tests.conftest import Platform

DOWN = "postgresql://u:hush@127.0.0.1:1/x"


def status() -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(main, ["status", "--json"])
    assert "hush" not in result.output
    return result.exit_code, json.loads(result.stdout)


def shown() -> str:
    result = CliRunner().invoke(main, ["status"])
    assert "hush" not in result.output
    return " ".join(result.output.split())


def by_table(document: dict[str, Any], part: str) -> dict[str, dict[str, Any]]:
    return {each["table"]: each for each in document[part]}


@pytest.mark.refreshed
def test_it_tells_what_waits_and_for_how_long_what_is_blocked_and_what_is_down(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, document = status()
    assert (code, document["down"], document["stale"]) == (0, {}, {})
    assert {each["behind_seconds"] for each in document["source"]} == {0}
    assert {each["stale"] for each in document["tables"]} == {0}
    assert all(datetime.fromisoformat(each["loaded_at"]) <= datetime.now(UTC) for each in document["tables"])
    assert document["lake_bytes"] == sum(path.stat().st_size for path in platform.files())
    assert document["disk_free_bytes"] > 0
    assert "Everything is up to date." in shown()

    platform.sql("UPDATE design SET design_name = 'Linen'")
    code, document = status()
    assert code == 0
    assert re.search(r"Next: \S*totesys refresh$", shown())
    with only_one(platform.settings.home / UP_LOCK, "totesys up"):
        assert shown().endswith("totesys up is running, and brings what waits.")
    design, staff = (by_table(document, "source")[name] for name in ("design", "staff"))
    assert design["stale"] == 1
    age = (datetime.now(UTC) - datetime.fromisoformat(design["captured_at"])).total_seconds()
    assert 0 < design["behind_seconds"] <= age
    assert (staff["stale"], staff["behind_seconds"]) == (0, 0)
    assert by_table(document, "tables")["dim_design"]["stale"] == 1

    platform.sql("ALTER TABLE staff ALTER COLUMN email_address TYPE varchar(99)")
    code, document = status()
    assert code == 1
    assert 'Table "staff" of ToteSys' in by_table(document, "source")["staff"]["blocked"]
    assert by_table(document, "source")["design"]["stale"] == 1
    assert "│ blocked │" in shown()

    monkeypatch.setenv("TOTESYS_URL", DOWN)
    code, document = status()
    assert (code, set(document["down"])) == (1, {"totesys"})
    assert "TOTESYS_URL cannot be reached" in shown()
    assert by_table(document, "tables")["fact_sales_order"]["rows"] == 1
    assert by_table(document, "source")["design"]["behind_seconds"] is None

    monkeypatch.setenv("TOTESYS_URL", platform.totesys_url)
    monkeypatch.setenv("WAREHOUSE_URL", DOWN)
    code, document = status()
    assert (code, set(document["down"]), document["tables"]) == (1, {"warehouse"}, [])
    assert "staff" in by_table(document, "source")["staff"]["blocked"]
    assert by_table(document, "source")["design"]["captured_at"]
    assert "WAREHOUSE_URL cannot be reached" in shown()

    monkeypatch.setenv("WAREHOUSE_URL", platform.warehouse_url)
    Path(platform.settings.lake_uri).rename(platform.settings.home / "elsewhere")
    code, document = status()
    assert (code, set(document["down"])) == (1, {"lake"})
    assert "`totesys refresh --adopt-lake`" in document["down"]["lake"]


@pytest.mark.refreshed
def test_an_engine_that_is_not_the_default_is_told_by_status_and_refresh_without_its_token(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refreshed() -> str:
        return " ".join(CliRunner().invoke(main, ["refresh"]).output.split()) + " "

    assert (status()[1]["engine"], " engine " in shown(), " engine " in refreshed()) == ("duckdb", False, False)
    monkeypatch.setenv("TOTESYS_ENGINE", "spark")
    assert "engine spark, which cannot be used: TOTESYS_ENGINE is spark, and SPARK_REMOTE is not set" in shown()
    monkeypatch.setenv("SPARK_REMOTE", "sc://spark.example.com:443/;use_ssl=true;token=hush")
    assert "engine spark, at sc://spark.example.com:443 " in shown()
    assert "engine spark, at sc://spark.example.com:443 " in refreshed()
    assert status()[1]["engine"] == "spark"


@pytest.mark.refreshed
def test_it_names_what_the_catalogue_has_no_more_with_the_statement_that_drops_a_mart(platform: Platform) -> None:
    def gone(table: str) -> None:
        connection.execute(f"CREATE TABLE {table} (a int)".encode())
        connection.execute("INSERT INTO _ledger VALUES (%s, '*', 'state', 1, 'run')", [table])

    assert status()[1]["left_over"] == []
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute(f"SET search_path = {quoted(platform.settings.warehouse_schema)}".encode())
        gone("mart_gone")
        gone("fact_gone")
        gone("mart_dropped")
        connection.execute("DROP TABLE mart_dropped")
        connection.execute("CREATE TABLE somebody_elses (a int)")
    code, document = status()
    assert (code, document["left_over"]) == (0, ["fact_gone", "mart_gone"])
    text = shown()
    schema = quoted(platform.settings.warehouse_schema)
    assert f'any more, so nothing keeps it up to date. If nobody needs it: DROP TABLE {schema}."mart_gone"; its' in text
    assert 'table "fact_gone" of the warehouse any more, so nothing keeps it up to date. It is kept for its' in text
    assert text.count("DROP TABLE") == 1


def test_problems_that_differ_by_the_table_only_are_told_once() -> None:
    tables = ["sales_order", "order"]
    problems = ['"sales_order" is full.', "Nothing else.", '"order" is full.', '"order" is empty.', "Nothing else."]
    assert told_once(problems, tables) == [
        '"sales_order" is full. (And 1 more table.)',
        "Nothing else.",
        '"order" is empty.',
    ]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.number(0, "row"), "no rows"),
        (words.number(1, "row"), "1 row"),
        (words.number(1200, "entry", "entries"), "1,200 entries"),
        (words.size(999), "999 bytes"),
        (words.size(1_500), "1.5 kB"),
        (words.size(81_000_000_000), "81 GB"),
        (words.size(3_400_000_000_000_000), "3,400.0 TB"),
        (words.span(0.2), "0 s"),
        (words.span(61), "1 min 1 s"),
        (words.span(7200), "2 h"),
        (words.span(90_000), "1 d 1 h"),
    ],
)
def test_numbers_sizes_and_spans_are_told_as_people_say_them(told: str, expected: str) -> None:
    assert told == expected


@pytest.mark.refreshed
def test_what_was_known_to_be_up_to_date_is_as_of_the_look_not_of_the_end_of_its_run(platform: Platform) -> None:
    """Or a change that came while the run was under way would be taken for younger than it is."""
    platform.sql("UPDATE design SET design_name = 'new'")
    before = time.time()
    platform.refresh()
    (record,) = platform.instance.get_run_records(limit=1)
    looked_at = float(record.dagster_run.tags[LOOKED_AT_TAG])
    assert record.start_time is not None
    assert before - 0.001 <= looked_at <= record.start_time

    with instance_for_test() as instance:
        create_run_for_test(instance, tags=record.dagster_run.tags, status=dg.DagsterRunStatus.SUCCESS)
        assert seen(instance).up_to_date == looked_at
        for tag in ({}, *({LOOKED_AT_TAG: text} for text in ("soon", "nan", "inf", "-1", "9e15"))):
            no_look = create_run_for_test(instance, tags=REFRESH_TAG | tag, status=dg.DagsterRunStatus.SUCCESS)
            created = instance.get_run_record_by_id(no_look.run_id)
            assert created is not None
            assert seen(instance).up_to_date == created.create_timestamp.timestamp(), tag


def test_a_mark_is_as_old_as_its_look(tmp_path: Path) -> None:
    mark.write_mark(tmp_path, '{"lake": "/lake 7"}', 1_000_000_000.0)
    assert mark.marked_at(tmp_path, "/lake") == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    assert mark.marked_at(tmp_path, "/la") is None


def test_a_cursor_of_an_earlier_version_is_no_mark_and_costs_a_comparison() -> None:
    text = '{"source": "1/2", "lake": "/lake 7"}'
    assert mark.parse_cursor(mark.cursor_of(text, 1_000_000_000.25)) == (text, 1_000_000_000.25)
    assert [mark.parse_cursor(cursor) for cursor in (None, "", text)] == [(None, None)] * 3


def test_a_limit_is_told_as_it_was_set() -> None:
    assert [words.as_set(megabytes * 1024**2) for megabytes in (512, 1024, 10 * 1024, 1536)] == [
        "512 MB",
        "1 GB",
        "10 GB",
        "1.5 GB",
    ]
