"""The warehouse as an older version of the platform left it, and the upgrade of it where nothing else changed.

Belongs here: what older warehouses lack, and what a refresh by the command must make of them. Does not belong here:
what the tables hold afterwards, which world.py compares with the model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from totesys_assets.databases import Databases
from totesys_assets.refresh import Summary, refresh
from totesys_assets.settings import Settings
from totesys_assets.staleness.decide import Request
from totesys_assets.warehouse.superseded import CURRENT_BY_SORTING
from totesys_assets_tests.harness.source import Observer

_OF_BEFORE = "DELETE FROM _migration; INSERT INTO _migration (digest) VALUES ('of an older version')"
_MART = "mart_payments_day"
_FUNCTIONS = """
DO $$ BEGIN EXECUTE (
    SELECT 'DROP FUNCTION ' || string_agg(oid::regproc::text, ', ') || ' CASCADE' FROM pg_proc
    WHERE proname LIKE 'keep\\_%' AND prorettype = 'trigger'::regtype
); END $$
"""
# A mart by the numbers of designs, off which other triggers read what is sold of each name.
_BY_DESIGN = """
CREATE TABLE mart_sales_design_day (
    created_date date, currency_id int, design_id int, orders bigint NOT NULL, units bigint NOT NULL,
    revenue numeric(38,2) NOT NULL, PRIMARY KEY (created_date, currency_id, design_id)
);
INSERT INTO mart_sales_design_day SELECT created_date, currency_id, design_id, count(*), sum(units_sold),
    sum(units_sold * unit_price) FROM current_sales_order GROUP BY 1, 2, 3;
INSERT INTO _ledger (table_name, partition, state, rows, run_id)
    SELECT 'mart_sales_design_day', partition, state, rows, run_id FROM _ledger WHERE table_name = 'mart_sales_day';
CREATE FUNCTION keep_mart_sales_design_day() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION keep_dim_design() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER keep_insert AFTER INSERT ON mart_sales_design_day EXECUTE FUNCTION keep_mart_sales_design_day();
CREATE OR REPLACE TRIGGER keep_update AFTER UPDATE ON dim_design EXECUTE FUNCTION keep_dim_design();
DELETE FROM _design_sales;
"""
_SORTED_PAYMENTS = CURRENT_BY_SORTING.format(table="fact_payment", key="payment_id", day="created_date")
# What an older version had not, and how its warehouse looks.
LACKS = {
    "counts of versions": f"DROP TABLE _recorded; {_OF_BEFORE}",
    "notes on dead letters and findings": f"DROP TABLE _dead_letter, _finding; {_OF_BEFORE}",
    "the note of its version": "DROP TABLE _migration",
    "what triggers keep, and they": (
        f"{_FUNCTIONS}; DROP TABLE _design_sales; DROP INDEX fact_payment_changes; {_OF_BEFORE}"
    ),
    "a mart that is none any more": _BY_DESIGN + _OF_BEFORE,
    "what is superseded": (
        "DROP VIEW current_payment CASCADE; DROP TABLE _superseded_payment; "
        "DROP FUNCTION keep_fact_payment_current CASCADE; "
        f"CREATE VIEW current_payment AS {_SORTED_PAYMENTS}; {_OF_BEFORE}"
    ),
    "a view of a fact": f"DROP VIEW current_payment CASCADE; {_OF_BEFORE}",
    "the views for people": f"DROP VIEW sale, purchase, receivable; {_OF_BEFORE}",
    "an index": f"DROP INDEX fact_payment_unpaid; {_OF_BEFORE}",
    # Its SELECT was another too: what was loaded by it is not what it gives now.
    "a column of a mart": (
        f"ALTER TABLE {_MART} DROP COLUMN largest CASCADE; "
        f"UPDATE _ledger SET state = 'of an older version' WHERE table_name = '{_MART}' AND rows > 0; {_OF_BEFORE}"
    ),
}

_SHAPE = """
SELECT relkind::text, relname::text, attname::text, format_type(atttypid, atttypmod), attnotnull::text,
    coalesce(col_description(attrelid, attnum), '')
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'trigger', relname::text, tgname::text, tgenabled::text, pg_get_triggerdef(pg_trigger.oid), ''
FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal
UNION ALL
SELECT 'function', proname::text, '', '', '', prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1, 2, 3
"""


class _Silent:
    """Nobody is told of the progress."""

    def doing(self, what: str) -> AbstractContextManager[object]:
        return nullcontext()

    def running(self, request: Request, place: str) -> AbstractContextManager[object]:
        return nullcontext()

    def say(self, text: str) -> None:
        """Nothing."""


def shape(warehouse_url: str) -> list[tuple[str | None, ...]]:
    """Tables, views and indexes of the warehouse with columns, their types and comments; triggers and functions."""
    with Observer(warehouse_url) as observer:
        return observer.run(_SHAPE)


def make_older(warehouse_url: str, what: str) -> None:
    """Take from the warehouse ``what`` (of LACKS) an older version had not."""
    with Observer(warehouse_url) as observer:
        observer.run(LACKS[what])


def refresh_by_command(settings: Settings, source_url: str, warehouse_url: str) -> Summary:
    """``totesys refresh``, but for its output; Dagster remembers it in the home."""
    with _dagster_home(settings.home / "dagster"):
        return refresh(settings, Databases(source_url, warehouse_url), _Silent(), started=time.monotonic())


@contextmanager
def _dagster_home(folder: Path) -> Iterator[None]:
    before = os.environ.get("DAGSTER_HOME")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="ascii")
    os.environ["DAGSTER_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DAGSTER_HOME"]
        else:
            os.environ["DAGSTER_HOME"] = before
