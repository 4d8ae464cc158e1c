"""Files and fetched rates on a whole platform: from a dropped file to the answer of a question, and back."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from totesys_assets.audit.audit import audit
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.insights.questions import Answer, answer
from totesys_assets.staleness.look import look
from totesys_assets_tests.conftest import Platform

MONTH = {"currency": "GBP", "basis": "day", "rate_day": None, "first": "2024-08-01", "last": "2024-08-31"}


def drop(platform: Platform, path: str, text: str) -> Path:
    file = platform.settings.home / "files" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def asked(platform: Platform, name: str) -> list[dict[str, object]]:
    options = f"-c search_path={platform.settings.warehouse_schema}"
    with psycopg.connect(platform.warehouse_url, options=options) as connection:
        found: Answer = answer(connection, name, **MONTH)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def wrong(platform: Platform) -> list[str]:
    return [f"{each.asset} {each.check}: {each.detail}" for each in audit(platform.core) if not each.passed]


def targets(*rows: str) -> str:
    return "target_month,department_name,currency_code,amount\n" + "".join(f"{row}\n" for row in rows)


@pytest.mark.refreshed
def test_a_dropped_file_answers_a_question_and_follows_every_change(platform: Platform) -> None:
    platform.refresh()
    [before] = [row for row in asked(platform, "targets_against_sales") if row["orders"]]
    assert before["target"] is None
    department = before["department"]

    file = drop(
        platform, "sales_target/2024.csv", targets(f"2024-08-01,{department},GBP,100", "2024-08-01,None,USD,50")
    )
    assert {"files/sales_target", "warehouse/dim_sales_target"} <= set(platform.look().stale)
    platform.refresh()
    found = {row["department"]: row for row in asked(platform, "targets_against_sales")}
    assert found[department]["target"] == 100
    assert found[department]["difference"] == before["revenue"] - 100  # type: ignore[operator]
    assert (found["None"]["orders"], found["None"]["revenue"]) == (0, 0)
    assert 0 < found["None"]["target"] < 50  # type: ignore[operator]
    assert wrong(platform) == []

    file.write_text(targets(f"2024-08-01,{department},GBP,120", "August,None,USD,50"))
    (platform.settings.home / "files" / "sales_target" / "broken.csv").write_bytes(b"\xff")
    platform.refresh()
    [row] = [row for row in asked(platform, "targets_against_sales") if row["target"] is not None]
    assert (row["department"], row["target"]) == (department, 120)
    letters = [(each["row_key"], each["column_name"]) for each in open_dead_letters(platform.lake).to_pylist()]
    assert sorted(letters) == [("2024.csv, row 3", "target_month"), ("broken.csv", "file")]
    assert wrong(platform) == []
    assert platform.look().requests == []


@pytest.mark.refreshed
def test_spend_and_revenue_of_a_country_meet_under_its_code(platform: Platform) -> None:
    platform.refresh()
    place = next(row for row in asked(platform, "marketing_by_country") if row["orders"])
    text = f'{{"spend_month": "2024-08-01", "country": "{place["country"]}", "currency_code": "GBP", "amount": 10}}\n'
    drop(platform, "marketing_spend/a.jsonl", text + text.replace(str(place["country"]), "Atlantis"))
    platform.refresh()
    found = {row["country"]: row for row in asked(platform, "marketing_by_country")}
    assert found[place["country"]]["spend"] == 10
    assert found[place["country"]]["ratio"] == round(place["revenue"] / 10, 2)  # type: ignore[operator]
    assert (found["Atlantis"]["spend"], found["Atlantis"]["revenue"]) == (10, 0)


@pytest.mark.refreshed
def test_names_and_codes_in_files_that_nothing_matches_are_listed(platform: Platform) -> None:
    [(department,)] = platform.query("SELECT department_name FROM dim_staff LIMIT 1")
    rows = [f"2024-08-01,{department},GBP,1", "2024-08-01,Sale,EUR,1", "2024-09-01,Sale,JPY,1"]
    drop(platform, "sales_target/a.csv", targets(*rows))
    spend = "spend_month,country,currency_code,amount\n2024-08-01,Norway,USD,1\n2024-08-01,Danmark,gbp,1\n"
    file = drop(platform, "marketing_spend/a.csv", spend)
    platform.refresh()
    of_targets = [("currency_code", "JPY", 1), ("department_name", "Sale", 2)]
    of_spend = [("country", "Danmark", 1), ("currency_code", "gbp", 1)]
    found = asked(platform, "unmatched_files")
    assert [(row["column_name"], row["value"], row["rows"]) for row in found] == of_spend + of_targets
    file.unlink()
    platform.refresh()
    found = asked(platform, "unmatched_files")
    assert [(row["column_name"], row["value"], row["rows"]) for row in found] == of_targets


@pytest.mark.refreshed
def test_amounts_for_several_days_of_a_month_add_up(platform: Platform) -> None:
    platform.refresh()
    drop(platform, "sales_target/2024.csv", targets("2024-08-01,None,GBP,100", "2024-08-15,None,GBP,20"))
    spend = '{{"spend_month": "2024-08-{}", "country": "Atlantis", "currency_code": "GBP", "amount": {}}}\n'
    drop(platform, "marketing_spend/a.jsonl", spend.format("01", 10) + spend.format("31", 5))
    platform.refresh()
    [target] = [row for row in asked(platform, "targets_against_sales") if row["department"] == "None"]
    assert target["target"] == 120
    [place] = [row for row in asked(platform, "marketing_by_country") if row["country"] == "Atlantis"]
    assert place["spend"] == 15
    ids = platform.query("SELECT sales_target_id FROM dim_sales_target ORDER BY 1")
    assert ids == [("2024-08 GBP None",), ("2024-08-15 GBP None",)]
    assert wrong(platform) == []


@pytest.mark.refreshed
def test_files_that_cannot_be_listed_stop_files_and_rates_and_nothing_else(platform: Platform) -> None:
    platform.refresh()
    (platform.settings.home / "files").write_text("")
    platform.sql("UPDATE sales_order SET units_sold = 11 WHERE sales_order_id = 1")
    seen = look(platform.core)
    assert set(seen.examined.blocked) == {"sales_target", "marketing_spend", "exchange_rate"}
    assert "totesys/sales_order" in seen.stale
