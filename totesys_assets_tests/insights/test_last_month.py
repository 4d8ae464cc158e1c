"""The line about the last full month, which ends a refresh: what it says, and that no refresh fails for it."""

from __future__ import annotations

from datetime import date

import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.commands import main
from totesys_assets.insights import last_month as module
from totesys_assets.insights.last_month import last_month
from totesys_assets_tests.conftest import Platform


@pytest.mark.refreshed
def test_it_has_revenue_in_pounds_and_orders_of_the_month_before(platform: Platform) -> None:
    with psycopg.connect(platform.warehouse_url, options="-c search_path=public") as connection:
        # 2432.43 euros, at the rate of 20 August
        assert last_month(connection, date(2024, 9, 1)) == "£2,072.28 in August 2024, 1 order"
        assert last_month(connection, date(2024, 9, 30)) == "£2,072.28 in August 2024, 1 order"
        assert last_month(connection, date(2024, 8, 31)) is None
        assert last_month(connection, date(2024, 10, 1)) is None
        connection.execute("DELETE FROM mart_exchange_rate")
        said = "£0.00 in August 2024, 1 order, without that of 1 in a currency without a rate"
        assert last_month(connection, date(2024, 9, 1)) == said


@pytest.mark.refreshed
def test_a_refresh_whose_sales_cannot_be_summed_succeeds(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def sold(connection: psycopg.Connection, today: date) -> str | None:
        return last_month(connection, date(2024, 9, 1))

    monkeypatch.setattr(module, "last_month", sold)
    line = "sales £2,072.28 in August 2024, 1 order"
    done = CliRunner().invoke(main, ["refresh"])
    assert done.exit_code == 0
    assert line in " ".join(done.output.split())

    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE public.mart_sales_day RENAME COLUMN revenue TO worth")
    done = CliRunner().invoke(main, ["refresh"])
    assert done.exit_code == 0, done.output
    assert "totesys ask" not in done.output
