"""A lake whose place goes away in the middle of a refresh, as a disk that is unmounted does, and comes back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.commands import main
from totesys_assets.errors import LakeChanged
from totesys_assets.staleness.following import begin_following, end_following
from totesys_assets_tests.conftest import Platform, PostgresServer
from totesys_assets_tests.harness.kills import Before, start
from totesys_assets_tests.harness.shop import Street, opened
from totesys_assets_tests.whole.test_kills import LATER

QUICK = ("before append capture:sales_order", "before replace dim_transaction")


@pytest.fixture(scope="module")
def street(
    postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Street]:
    with opened(postgres_server, trade_template, tmp_path_factory.mktemp("shops")) as street:
        yield street


def instants() -> list[Any]:
    marks: dict[str, Any] = {str(at): [] if str(at) in QUICK else pytest.mark.thorough for at in LATER}
    assert marks.keys() > {*QUICK}
    reached = [at for at in LATER if not at.settings]
    return [pytest.param(Before(at.target, print, at.having), id=str(at), marks=marks[str(at)]) for at in reached]


@pytest.mark.parametrize("at", instants())
def test_a_lake_that_goes_away_in_a_refresh_is_not_begun_anew_and_is_complete_when_it_is_back(
    street: Street, at: Before
) -> None:
    with street.shop() as shop:
        lake = Path(shop.platform.lake.uri)
        shop.trade()
        away = lake.with_name("away")
        failures = start(shop.platform, Before(at.target, partial(lake.rename, away), at.having)).failures()
        assert failures
        assert [*lake.rglob("00000000000000000000.json")] == []
        with pytest.raises(LakeChanged, match="has none"):
            shop.platform.look()
        shutil.rmtree(lake, ignore_errors=True)
        away.rename(lake)
        shop.complete()


def test_a_log_is_not_followed_for_a_second_lake_while_the_first_is_away(followed: Platform) -> None:
    lake, slots = Path(followed.lake.uri), "SELECT count(*) FROM pg_replication_slots"
    core = followed.core
    begin_following(core)
    end_following(core)
    followed.sql("UPDATE sales_order SET units_sold = 7")
    away = lake.rename(lake.with_name("away"))
    for options in ([], ["--json"], ["--from", "2024-08-20"]):
        refused = CliRunner().invoke(main, ["refresh", *options])
        assert refused.exit_code == 1
        assert isinstance(refused.exception, LakeChanged) or "has none" in refused.output, refused.output
    with psycopg.connect(followed.totesys_url) as connection:
        assert connection.execute(slots).fetchall() == [(1,)]
    assert not lake.exists()
    away.rename(lake)
    brought_in = CliRunner().invoke(main, ["refresh"])
    assert brought_in.exit_code == 0, brought_in.output
    assert followed.query("SELECT units_sold FROM current_sales_order") == [(7,)]
