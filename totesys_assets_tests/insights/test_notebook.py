"""The notebook: it runs on a small platform, its pictures show the answers, and it asks nobody but that platform."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import altair as alt
import pytest

from totesys_assets.dashboard import palette, words
from totesys_assets_tests.conftest import Platform

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.py"
PICTURES = ("revenue_by_month", "revenue_by_country", "margin_by_month", "owed_by_age", "known_then")


def notebook() -> Any:
    """The notebook's app, read from its file as marimo reads it."""
    spec = importlib.util.spec_from_file_location("notebook", NOTEBOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


def rows(chart: alt.Chart) -> list[dict[str, Any]]:
    """The data that a picture draws."""
    (found,) = chart.to_dict()["datasets"].values()
    return list(found)


@pytest.mark.refreshed
def test_it_answers_five_questions_in_pictures(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.sql("UPDATE sales_order SET units_sold = 2 * units_sold")
    platform.refresh()
    asked: set[str] = set()
    look_up = socket.getaddrinfo

    def noted(host: Any, *others: Any, **more: Any) -> Any:
        asked.add(str(host))
        return look_up(host, *others, **more)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    outputs, found = notebook().run()
    drawn = {name: rows(found[name]) for name in PICTURES}
    # One order of 2002 units, in one country; the purchase is a day later.
    (revenue,) = drawn["revenue_by_month"]
    assert revenue["orders"] == 1
    assert [each["revenue"] for each in drawn["revenue_by_country"]] == [revenue["revenue"]]
    (month,) = drawn["margin_by_month"]
    assert month["revenue"] == revenue["revenue"] > 0
    assert month["margin"] == pytest.approx(month["revenue"] - month["cost"])
    assert sum(each["payments"] for each in drawn["owed_by_age"]) == 1
    # In the colours and units of the dashboard.
    drawn_so = found["revenue_by_month"].to_dict()["encoding"]
    assert drawn_so["color"]["scale"] == {"domain": [revenue["currency"]], "range": [palette.LIGHT.series[0]]}
    assert drawn_so["y"]["axis"]["labelExpr"] == words.AXIS
    # The lake knows both versions of the order.
    assert len(found["then"]) == len(found["now"]) == 1
    assert (found["new"], found["changed"], found["gone"]) == (0, 1, 0)
    assert 2 * found["then"]["units_sold"].sum() == found["now"]["units_sold"].sum()
    assert {each["known"] for each in drawn["known_then"]} == {"then", "now"}
    shown = " ".join(each.text for each in outputs if hasattr(each, "text"))
    assert "Since then 0 came, 1 changed and 0 went" in shown
    assert "mart_sales_day" in shown  # the SQL
    assert asked <= {"localhost", "127.0.0.1"}


@pytest.mark.pure
def test_marimo_finds_nothing_wrong_with_it() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "marimo", "check", "--strict", "--format", "json", NOTEBOOK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["issues"] == []
