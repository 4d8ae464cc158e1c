"""News in the terminal of `totesys up`: what goes wrong is told once, at once, and so is that it is over."""

from __future__ import annotations

import os
from collections.abc import Iterator

import dagster as dg
import pytest

from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.live import news as news_module
from totesys_assets.live.news import News
from totesys_assets.names import REFRESH_TAG
from totesys_assets_tests.automation.test_sensor import tick
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform


@pytest.fixture(scope="module")
def platform(
    postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform whose Dagster has its records in PostgreSQL, as it has live. Every test leaves nothing wrong in it."""
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    dagster = postgres_server.database()
    folder = tmp_path_factory.mktemp("news")
    with make_platform(source, postgres_server.database(), folder, dagster=dagster) as made:
        yield made


@pytest.mark.thorough
def test_a_blocked_table_is_told_once_and_again_when_it_can_be_captured(platform: Platform) -> None:
    platform.refresh()
    news = News(platform.instance, platform.lake)
    assert news.next() == []
    platform.sql("ALTER TABLE design RENAME COLUMN design_name TO name")
    for expected in (1, 0):
        with pytest.raises(dg.Failure):
            tick(platform)
        told = news.next()
        assert len(told) == expected
        assert all(who == "error" and '"design_name" is missing' in what for who, what in told)
    assert len(News(platform.instance, platform.lake).next()) == 1  # who starts later is told too
    platform.sql("ALTER TABLE design RENAME COLUMN name TO design_name")
    tick(platform)
    assert news.next() == [("dagster", '"design" can be captured again')]


@pytest.mark.refreshed
def test_what_befalls_all_tables_of_a_source_is_told_once(platform: Platform) -> None:
    news = News(platform.instance, platform.lake)
    assert news.next() == []
    platform.sql("ALTER SCHEMA public RENAME TO elsewhere; CREATE SCHEMA public")
    with pytest.raises(dg.Failure):
        tick(platform)
    [(who, what)] = news.next()
    assert (who, what.endswith("(And 10 more tables.)")) == ("error", True)
    platform.sql("DROP SCHEMA public; ALTER SCHEMA elsewhere RENAME TO public")
    tick(platform)
    assert news.next() == [("dagster", '"address" can be captured again (And 10 more tables.)')]


def test_dead_letters_are_told_when_their_number_changes(platform: Platform) -> None:
    platform.refresh()
    news = News(platform.instance, platform.lake)
    assert news.next() == []
    platform.sql("UPDATE sales_order SET agreed_delivery_date = 'soon'")
    platform.refresh()
    ((who, what),) = news.next()
    assert who == "error"
    assert "in the dead letters: 1 of sales_order" in what
    assert news.next() == []
    platform.sql("UPDATE sales_order SET agreed_delivery_date = '2024-09-01'")
    platform.refresh()
    assert news.next() == [("dagster", "no row is in the dead letters any more")]


def fail(platform: Platform, job: str = "refresh") -> str:
    tags = REFRESH_TAG if job == "refresh" else {}
    run = platform.instance.create_run_for_job(platform.definitions().resolve_job_def(job), tags=tags)
    platform.instance.report_run_failed(run, "The disk is full.")
    return run.run_id


def test_a_failed_run_is_told_with_its_sentence_and_one_from_before_is_not(platform: Platform) -> None:
    fail(platform)
    news = News(platform.instance, platform.lake)
    assert news.next() == []
    run_id = fail(platform)
    assert news.next() == [("error", f"run {run_id[:8]} (refresh) failed: The disk is full.")]
    assert news.next() == []
    platform.sql("UPDATE design SET design_name = 'Larch'")
    platform.refresh()
    assert news.next() == [("dagster", "the warehouse is up to date again")]
    assert news.next() == []


def test_a_refresh_that_failed_and_is_over_already_is_told_with_its_end(platform: Platform) -> None:
    platform.refresh()
    news = News(platform.instance, platform.lake)
    run_id = fail(platform)
    platform.sql("UPDATE design SET design_name = 'Rowan'")
    platform.refresh()
    assert news.next() == [
        ("error", f"run {run_id[:8]} (refresh) failed: The disk is full."),
        ("dagster", "the warehouse is up to date again"),
    ]


def test_what_fails_and_is_no_refresh_is_not_over_with_the_next_refresh(platform: Platform) -> None:
    platform.refresh()
    news = News(platform.instance, platform.lake)
    run_id = fail(platform, "compact_lake")
    platform.sql("UPDATE design SET design_name = 'Alder'")
    platform.refresh()
    assert news.next() == [("error", f"run {run_id[:8]} (compact_lake) failed: The disk is full.")]
    assert news.next() == []


def test_what_a_look_that_failed_would_have_told_the_next_one_tells(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.refresh()
    news = News(platform.instance, platform.lake)
    assert news.next() == []
    platform.sql("UPDATE sales_order SET agreed_delivery_date = 'soon'")
    platform.refresh()
    run_id = fail(platform)

    def away(_: Lake) -> None:
        raise PlatformError("The lake is away.")

    with monkeypatch.context() as patch:
        patch.setattr(news_module, "open_dead_letters", away)
        for _ in range(2):
            with pytest.raises(PlatformError, match="away"):
                news.next()
    failed, letters = news.next()
    assert failed == ("error", f"run {run_id[:8]} (refresh) failed: The disk is full.")
    assert "in the dead letters: 1 of sales_order" in letters[1]
    platform.sql("UPDATE sales_order SET agreed_delivery_date = '2024-09-01'")
    platform.refresh()
    assert news.next() == [
        ("dagster", "the warehouse is up to date again"),
        ("dagster", "no row is in the dead letters any more"),
    ]
