"""How many rows are dead letters is noted in the warehouse with each load: readers do not see the lake."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets_tests.conftest import Platform

NOTED = "SELECT table_name, open_rows, since FROM _dead_letter WHERE open_rows > 0 ORDER BY 1"
# A row of a fact without a date that can be read, and one of a dimension that breaks a rule.
SPOIL = """
UPDATE sales_order SET agreed_payment_date = 'soon';
ALTER TABLE currency ALTER currency_code DROP NOT NULL;
UPDATE currency SET currency_code = NULL WHERE currency_id = 1
"""
MEND = "UPDATE sales_order SET agreed_payment_date = '2024-09-01'"


@pytest.mark.refreshed
def test_dead_letters_are_noted_by_the_refresh_that_finds_them_and_the_one_that_sees_them_mended(
    platform: Platform,
) -> None:
    every = "SELECT table_name, open_rows FROM _dead_letter ORDER BY 1"
    assert platform.query(every) == [(name, 0) for name in sorted(catalogue().source)]
    before = datetime.now(UTC)
    platform.sql(SPOIL)
    platform.refresh()
    assert open_dead_letters(platform.lake).num_rows == 2
    noted = platform.query(NOTED)
    assert [row[:2] for row in noted] == [("currency", 1), ("sales_order", 1)]
    assert all(isinstance(since, datetime) and before < since < datetime.now(UTC) for *_, since in noted)
    platform.sql(MEND)
    platform.refresh()
    assert platform.query(NOTED) == noted[:1]


@pytest.mark.refreshed
def test_a_note_that_says_the_same_is_not_written_again(platform: Platform) -> None:
    platform.sql(SPOIL)
    platform.refresh()
    marks = "SELECT ctid::text, xmin::text, * FROM _dead_letter ORDER BY table_name"
    before = platform.query(marks)
    platform.sql("UPDATE payment SET paid = NOT paid; UPDATE design SET design_name = 'new'")
    platform.refresh()
    assert platform.query(marks) == before


@pytest.mark.refreshed
def test_a_warehouse_of_before_these_notes_gets_them_and_is_noted_in_at_its_next_load(platform: Platform) -> None:
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute("DROP TABLE _dead_letter, _finding; UPDATE _migration SET digest = 'of before'")
    platform.sql("UPDATE sales_order SET agreed_payment_date = 'soon'")
    platform.refresh()
    assert [row[:2] for row in platform.query(NOTED)] == [("sales_order", 1)]
    assert platform.query("SELECT count(*) FROM _finding") == [(0,)]
