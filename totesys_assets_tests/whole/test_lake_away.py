"""A lake whose place goes away in the middle of a refresh, as a disk that is unmounted does, and comes back."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.commands import main
from totesys_assets.errors import ConnectionFailed, LakeChanged
from totesys_assets.staleness.following import begin_following, end_following
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform
from totesys_assets_tests.harness.kills import Before, start
from totesys_assets_tests.harness.shop import Street
from totesys_assets_tests.whole.test_kills import LATER

# Where it goes away: before the first call of a function whose arguments name a table.
PLACES = {(at.target, at.having) for at in LATER if not at.settings}
QUICK = {
    ("totesys_assets.capture.comparison:append", "capture:sales_order"),
    ("totesys_assets.transform.engines.in_duckdb:replace", "dim_transaction"),
}


def places() -> list[Any]:
    return [
        pytest.param(
            target,
            having,
            id=f"{target.partition(':')[2]} {having}".strip(),
            marks=[] if (target, having) in QUICK else pytest.mark.thorough,
        )
        for target, having in sorted(PLACES)
    ]


def test_the_places_of_the_ordinary_tests_are_some_of_all() -> None:
    assert PLACES > QUICK


@pytest.mark.parametrize(("target", "having"), places())
def test_a_lake_that_goes_away_in_a_refresh_is_not_begun_anew_and_is_complete_when_it_is_back(
    street: Street, target: str, having: str
) -> None:
    with street.shop() as shop:
        lake = Path(shop.platform.lake.uri)
        shop.trade()
        away = lake.with_name("away")
        failures = start(shop.platform, Before(target, partial(lake.rename, away), having)).failures()
        assert failures
        assert [*lake.rglob("*.json")] == []  # files that were being written may be there, and no commit
        with pytest.raises(LakeChanged, match="has none"):
            shop.platform.look()
        shutil.rmtree(lake, ignore_errors=True)
        away.rename(lake)
        shop.complete()


def unreachable(_: Warehouse) -> None:
    raise ConnectionFailed("the warehouse is away")


@pytest.mark.parametrize("is_warehouse_away", [False, True], ids=["alone", "with the warehouse"])
def test_a_log_is_not_followed_for_a_second_lake_while_the_first_is_away(
    followed: Platform, monkeypatch: pytest.MonkeyPatch, *, is_warehouse_away: bool
) -> None:
    lake, slots = Path(followed.lake.uri), "SELECT count(*) FROM pg_replication_slots"
    core = followed.core
    begin_following(core)
    end_following(core)
    followed.sql("UPDATE sales_order SET units_sold = 7")
    away = lake.rename(lake.with_name("away"))
    with monkeypatch.context() as patch:
        if is_warehouse_away:
            patch.setattr(Warehouse, "origins", unreachable)
        for options in ([], ["--json"], ["--from", "2024-08-20"]):
            refused = CliRunner().invoke(main, ["refresh", *options])
            assert refused.exit_code == 1
            told = f"{refused.exception} {refused.output}"
            assert ("the warehouse is away" if is_warehouse_away else "has none") in told
    with psycopg.connect(followed.totesys_url) as connection:
        assert connection.execute(slots).fetchall() == [(1,)]
    assert not lake.exists()
    away.rename(lake)
    brought_in = CliRunner().invoke(main, ["refresh"])
    assert brought_in.exit_code == 0, brought_in.output
    assert followed.query("SELECT units_sold FROM current_sales_order") == [(7,)]
