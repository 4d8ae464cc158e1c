"""A source of another kind: the files of docs/how-to/change.md, from the first capture to a tampered lake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from totesys_assets_tests.conftest import PostgresServer
from totesys_assets_tests.harness.package_copy import FILES, copy_of_the_package, environment

Seen = dict[str, Any]


@pytest.fixture(scope="module")
def seen(postgres_server: PostgresServer, trade_template: str, scratch: Path) -> Seen:
    """What is seen after each step of the story, which is told once."""
    folder = scratch / "another_source"
    folder.mkdir()
    package = copy_of_the_package(folder / "package", FILES)
    source = postgres_server.template("another_source", trade_template)
    told = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "totesys_assets_tests.harness.sheets_story"),
            *(source, postgres_server.database(), str(folder)),
        ],
        cwd=package,
        env=environment(package),
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    found: Seen = json.loads(told.stdout)
    return found


def test_the_first_refresh_captures_the_files_and_loads_what_is_made_of_them(seen: Seen) -> None:
    assert {"sheets/budget", "sheets/bank_rate", "totesys/sales_order"} < set(seen["first look"]["stale"])
    budgets, rates = seen["first versions"]
    assert budgets == [["insert", "2024-08-01", "EUR", "500.50"], ["insert", "2024-08-01", "GBP", "1000.00"]]
    assert rates == [["insert", "2024-08-19", "EUR", "1.170000"], ["insert", "2024-08-20", "EUR", "1.180000"]]
    assert seen["warehouse"] == [["2024-08 EUR", "500.50"], ["2024-08 GBP", "1000.00"]]
    assert seen["nothing left"] == []


def test_the_summary_names_the_time_that_the_captures_of_each_source_took(seen: Seen) -> None:
    assert seen["times"] == "capture 2.0 s, capture sheets 1.0 s, looking and starting 1.0 s"


def test_a_changed_row_is_an_update_and_a_missing_one_a_deletion(seen: Seen) -> None:
    before, after = seen["first versions"], seen["second versions"]
    budgets, rates = ([each for each in after[at] if each not in before[at]] for at in (0, 1))
    assert budgets == [["delete", "2024-08-01", "EUR", "500.50"], ["update", "2024-08-01", "GBP", "1200.00"]]
    assert rates == [["update", "2024-08-20", "EUR", "1.190000"]]
    assert seen["gone in the warehouse"] == [["2024-08 EUR", True], ["2024-08 GBP", False]]


def test_a_row_of_another_type_or_without_a_partition_is_a_dead_letter_with_its_text(seen: Seen) -> None:
    without_partition, mistyped = seen["letters"]
    assert without_partition[:3] == ["1999-01-01, EUR", "2024-08-19", "rate_date"]
    assert without_partition[3].startswith("lies outside the days from 2024-08-19")
    assert mistyped[:4] == ["2024-09-01, GBP", "*", "amount", "is no numeric(12,2)"]
    raw = {"budget_month": "2024-09-01", "currency_code": "GBP", "amount": "plenty", "note": None}
    assert json.loads(mistyped[4]) == raw


def test_the_columns_of_a_file_are_registered_and_new_ones_left_out(seen: Seen) -> None:
    assert seen["registry"] == [{"budget_month": "text", "currency_code": "text", "amount": "text"}]
    assert seen["unknown"] == {"budget": ["note"]}


def test_the_columns_of_a_refused_file_are_registered_as_they_were_seen(seen: Seen) -> None:
    captured = {"rate_date": "text", "currency_code": "text", "per_pound": "text"}
    assert seen["refused"] == [["captured", captured], ["refused", {"rate_date": "text", "per_pound": "text"}]]


def test_a_look_reads_no_file_that_was_not_written_even_if_its_time_is_yet_to_come(seen: Seen) -> None:
    assert seen["quiet"] is True


def test_a_file_that_is_written_with_the_same_size_and_time_is_read(seen: Seen) -> None:
    assert seen["same size and time"] == [True, False]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("unreadable", '"bank_rate.csv" cannot be read'),
        ("doubled", "It has rows with the key of another: 1"),
        ("ragged", "row 3 has 2 values for 3 columns"),
        ("drift", '"currency_code" is missing'),
    ],
)
def test_a_file_that_cannot_be_read_blocks_its_own_table(seen: Seen, step: str, why: str) -> None:
    assert list(seen[step]["blocked"]) == ["bank_rate"]
    assert why in seen[step]["blocked"]["bank_rate"]


def test_beside_an_unreadable_file_the_others_and_totesys_go_on(seen: Seen) -> None:
    assert {"sheets/budget", "totesys/sales_order"} < set(seen["unreadable"]["stale"])


def test_a_missing_folder_is_one_problem_that_stops_only_its_own_tables(seen: Seen) -> None:
    without = seen["no folder"]
    assert (set(without["blocked"]), without["problems"]) == ({"budget", "bank_rate"}, 1)
    assert "TOTESYS_SHEETS names no folder" in without["blocked"]["budget"]
    assert "totesys/sales_order" in without["stale"]


def test_a_mended_file_is_captured_by_the_next_refresh(seen: Seen) -> None:
    assert seen["mended"] == {"stale": ["sheets/bank_rate"], "blocked": {}, "problems": 0}


def test_the_audit_compares_files_and_lake_and_names_a_tampered_version(seen: Seen) -> None:
    assert seen["first audit"] == seen["second audit"] == []
    assert not any("sheets/" in each or "budget" in each for each in seen["third audit"])
    [content, records] = [each for each in seen["tampered"] if each not in seen["third audit"]]
    assert content.startswith("sheets/budget content_equals_source: 1 row differs")
    assert records.startswith("warehouse/dim_budget records_equal_lake")
