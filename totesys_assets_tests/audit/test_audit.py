"""The audit: what it looks at is equal after a refresh, and whatever is made to differ, it names."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from time import sleep
from typing import Any

import duckdb
import psycopg
import pytest
from click.testing import CliRunner
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from totesys_assets.audit import audit as audit_module
from totesys_assets.audit import rules
from totesys_assets.audit.audit import audit, checks, compared_nothing
from totesys_assets.audit.findings import (
    CONTENT,
    CONVERTED,
    COUNTRIES,
    FRESH_RATES,
    HISTORY,
    KEPT,
    LEDGER,
    MONEY,
    PLAUSIBLE_RATES,
    RECORDS,
    REFERENCES,
    ROWS,
    SUMS,
    VIEWS,
    Finding,
)
from totesys_assets.capture.ledger import Ledger
from totesys_assets.catalogue.catalogue import Catalogue, catalogue
from totesys_assets.commands import main
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.source.totesys import Totesys
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets.staleness.decide import Request
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform, PostgresServer
from totesys_assets_tests.staleness.test_look import Small

ALL = [*checks(catalogue()), *rules.checks()]


def look_back(platform: Platform) -> list[Finding]:
    return audit(platform.core)


def differing(findings: list[Finding]) -> dict[tuple[str, str], Finding]:
    return {
        (finding.asset, finding.check): finding for finding in findings if finding.outcome in ("different", "warning")
    }


def in_warehouse(platform: Platform, statement: str) -> None:
    with psycopg.connect(platform.warehouse_url, autocommit=True) as connection:
        connection.execute(statement)


def forge_ledger(platform: Platform, name: str) -> None:
    """Note the source's present fingerprints as if they had been captured: a change that no fingerprint shows."""
    table, ledger = catalogue().source[name], Ledger(platform.lake)
    with platform.totesys.snapshot() as snapshot:
        found = snapshot.fingerprints(table, platform.all_days)
    known = ledger.newest()[f"ingestion/{name}"]
    ledger.append(replace(entry, state=found[key].state) for key, entry in known.items() if key in found)


@pytest.mark.end_to_end
@pytest.mark.refreshed
def test_after_a_refresh_everything_is_equal_and_nothing_is_pending(platform: Platform) -> None:
    found = look_back(platform)
    assert {(each.asset, each.check) for each in found} == {*checks(catalogue()), *rules.checks()}
    assert differing(found) == {}
    assert {each.pending for each in found} == {0}
    details = {(each.asset, each.check): each.detail for each in found}
    assert details["totesys/payment", CONTENT] == "2 rows, equal in every column"
    assert details["warehouse/fact_payment", MONEY] == "USD 134,075.69, EUR 2,432.43"
    assert details["warehouse/fact_payment", ROWS] == "2 rows in ToteSys, 2 current in the warehouse"


@pytest.mark.refreshed
def test_after_updates_deletions_and_moves_everything_is_equal(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET units_sold = 2000")
    platform.sql("UPDATE payment SET paid = true, last_updated = '2024-08-23 07:55' WHERE payment_id = 2")
    platform.sql("UPDATE address SET district = '', city = 'Ünïcode 🧵' WHERE address_id = 2")
    platform.sql("DELETE FROM payment WHERE payment_id = 1")
    platform.sql("DELETE FROM transaction WHERE transaction_id = 2")
    platform.sql("UPDATE purchase_order SET created_at = '2024-08-22 10:00'")
    platform.refresh()
    assert {key for key, each in differing(look_back(platform)).items() if not each.warning} == set()


@pytest.mark.refreshed
def test_what_waits_for_a_refresh_is_pending_and_no_difference(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET units_sold = 2000, unit_price = 3")
    found = look_back(platform)
    assert [key for key in differing(found) if key[1] in (CONTENT, ROWS, RECORDS, MONEY)] == []
    pending = {(each.asset, each.check): each.pending for each in found}
    # Of its only day nothing can be compared: that is no difference, and is not passed either.
    [content] = [each for each in found if (each.asset, each.check) == ("totesys/sales_order", CONTENT)]
    assert (content.passed, content.outcome, content.pending) == (False, "pending", 1)
    assert content.detail == "nothing was compared: all of it waits for a refresh"
    assert pending["warehouse/fact_sales_order", MONEY] == 1
    assert pending["totesys/payment", CONTENT] == 0


@pytest.mark.refreshed
def test_rows_with_one_key_are_said_to_be_that(platform: Platform) -> None:
    platform.sql("ALTER TABLE sales_order DROP CONSTRAINT sales_order_pkey CASCADE")
    platform.sql("INSERT INTO sales_order SELECT * FROM sales_order WHERE sales_order_id = 1")
    platform.refresh()
    found = differing(look_back(platform))
    assert found["totesys/sales_order", CONTENT].detail.startswith("1 row too many in 20")
    assert ("warehouse/fact_sales_order", ROWS) in found


@pytest.mark.thorough
@pytest.mark.refreshed
def test_a_change_that_the_fingerprints_missed_is_counted_by_the_audit_and_then_mended(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET units_sold = 2000")
    forge_ledger(platform, "sales_order")
    assert not any("totesys/sales_order" in request.assets for request in platform.look().requests)
    missed = differing(look_back(platform))["totesys/sales_order", CONTENT]
    assert missed.numbers["rows_missed"] == 1
    assert "1 row differs in 2024-08-20" in missed.detail
    job = platform.definitions().resolve_job_def("refresh_everything")
    days = {"dagster/asset_partition_range_start": "2024-08-19", "dagster/asset_partition_range_end": "2024-08-22"}
    assert job.execute_in_process(instance=platform.instance, tags=days).success
    found = look_back(platform)
    assert [key for key in differing(found) if key[1] == CONTENT] == []
    [content] = [each for each in found if (each.asset, each.check) == ("totesys/sales_order", CONTENT)]
    assert content.numbers["rows_missed_before"] == 1
    assert platform.look().requests == []


@pytest.mark.refreshed
@pytest.mark.parametrize(
    ("damage", "asset", "check", "finding"),
    [
        (
            "UPDATE fact_sales_order SET units_sold = 7",
            "warehouse/fact_sales_order",
            RECORDS,
            "the records differ from what follows from the lake, in 2024-08-20",
        ),
        (
            "UPDATE fact_sales_order SET unit_price = 7",
            "warehouse/fact_sales_order",
            MONEY,
            "EUR 7,007.00 in the warehouse, but EUR 2,432.43 in ToteSys",
        ),
        (
            "DELETE FROM fact_payment WHERE payment_id = 1",
            "warehouse/fact_payment",
            ROWS,
            "2 rows in ToteSys, 1 current",
        ),
        (
            "INSERT INTO fact_sales_order OVERRIDING SYSTEM VALUE SELECT 99, sales_order_id, created_date, "
            "created_time, last_updated_date, last_updated_time, sales_staff_id, counterparty_id, units_sold, "
            "unit_price, currency_id, design_id, agreed_payment_date, agreed_delivery_date, "
            "agreed_delivery_location_id, _operation, _recorded_at + interval '1 s' FROM fact_sales_order",
            "warehouse/fact_sales_order",
            RECORDS,
            "the records differ",
        ),
        ("UPDATE dim_staff SET last_name = 'OKeefe'", "warehouse/dim_staff", RECORDS, "in the whole table"),
        (
            "DELETE FROM dim_design",
            "warehouse/fact_sales_order",
            REFERENCES,
            "design_id 1 has no row in its dimension",
        ),
        ("DELETE FROM dim_design", "warehouse/dim_design", ROWS, "1 row in ToteSys, 0 current"),
    ],
)
def test_whatever_the_warehouse_does_not_hold_as_it_should_is_named(
    platform: Platform, damage: str, asset: str, check: str, finding: str
) -> None:
    in_warehouse(platform, damage)
    assert finding in differing(audit(platform.core, [(asset, check)]))[asset, check].detail


@pytest.mark.refreshed
def test_versions_that_the_lake_has_lost_are_named(platform: Platform) -> None:
    before = platform.lake.existing(catalogue().source["sales_order"]).version()
    platform.sql("UPDATE sales_order SET units_sold = 2000")
    platform.refresh()
    DeltaTable(platform.lake.location("ingestion", "sales_order")).restore(before)
    lost = differing(look_back(platform))
    assert "1 version was noted and is not in the lake, in 2024-08-20" in lost["totesys/sales_order", LEDGER].detail
    assert "row differs in 2024-08-20" in lost["totesys/sales_order", CONTENT].detail


def test_a_dead_letter_is_no_difference(platform: Platform) -> None:
    platform.sql("UPDATE payment SET payment_amount = 'NaN' WHERE payment_id = 1")
    platform.refresh()
    platform.sql("UPDATE sales_order SET unit_price = 'NaN'")  # one that had a good version before
    platform.refresh()
    assert [key for key, each in differing(look_back(platform)).items() if not each.warning] == []


@pytest.mark.thorough
def test_a_dimension_row_among_the_dead_letters_leaves_its_facts_without_a_row_until_both_are_gone(
    platform: Platform,
) -> None:
    platform.sql("UPDATE design SET last_updated = 'infinity'")
    platform.refresh()
    assert "design_id 1 has no row" in differing(look_back(platform))["warehouse/fact_sales_order", REFERENCES].detail
    platform.sql("DELETE FROM payment; DELETE FROM transaction; DELETE FROM sales_order; DELETE FROM design")
    platform.refresh(accept_deletions=True)
    assert ("warehouse/fact_sales_order", REFERENCES) not in differing(look_back(platform))


@pytest.mark.refreshed
def test_a_table_that_drifted_fails_its_own_checks_and_no_others(platform: Platform) -> None:
    platform.sql("ALTER TABLE design ADD COLUMN colour text NOT NULL DEFAULT 'red'")
    lost = differing(look_back(platform))
    assert {asset for asset, _ in lost} == {"totesys/design", "warehouse/dim_design"}
    assert '"colour" (text) is new' in lost["totesys/design", CONTENT].detail


@pytest.mark.refreshed
def test_a_source_that_goes_away_during_the_audit_fails_its_own_checks_and_no_others(platform: Platform) -> None:
    def seen(fault: Exception, asset: str) -> dict[str, tuple[bool, str]]:
        small, held = Small("small", fault), platform.core.warehouse.catalogue
        tables = Catalogue({**held.source, **small.tables}, held.star, held.marts)
        warehouse = Warehouse(platform.warehouse_url, platform.settings.warehouse_schema, tables)
        core = replace(platform.core, sources=(*platform.core.sources, small), warehouse=warehouse)
        wanted = [("totesys/design", CONTENT), (asset, CONTENT), ("warehouse/dim_design", ROWS)]
        return {each.asset: (each.passed, each.detail) for each in audit(core, wanted)}

    found = seen(duckdb.Error("broken pipe"), "small/first_small")
    assert found.pop("small/first_small") == (
        False,
        'Not compared: the source "small" went away during the audit. It has gone away.',
    )
    assert [passed for passed, _ in found.values()] == [True, True]
    found = seen(KeyError("place"), "small/second_small")
    assert found.pop("small/second_small") == (
        False,
        "\"second_small\" could not be examined: KeyError: 'place'. Correct totesys_assets/source/small.py.",
    )
    assert [passed for passed, _ in found.values()] == [True, True]


@pytest.mark.refreshed
def test_an_audit_of_another_lake_than_the_warehouse_was_loaded_from_is_never_green(platform: Platform) -> None:
    empty = Lake(f"{platform.settings.lake_uri}_of_another_name")
    found = audit(replace(platform.core, lake=empty), checks(catalogue()))
    compare_nothing = {
        REFERENCES,
        VIEWS,
        SUMS,
        KEPT,
        COUNTRIES,
        CONVERTED,
        FRESH_RATES,
        PLAUSIBLE_RATES,
    }  # which ask one side only
    # Of files there are none, which is the same on both sides.
    compared = [each for each in found if each.check not in compare_nothing and not each.asset.startswith("files/")]
    assert {each.outcome for each in compared} == {"different"}
    of_files = {each.detail for each in found if each.asset.startswith("files/") and each.check == CONTENT}
    assert of_files == {'no rows, in the source "files" and in the lake'}
    assert compared_nothing(found)
    [content] = [each for each in found if (each.asset, each.check) == ("totesys/payment", CONTENT)]
    assert content.detail.startswith(f'nothing was compared: the lake at {empty.uri} holds no "payment"')


@pytest.mark.refreshed
def test_the_command_fails_where_there_is_no_lake(platform: Platform, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["audit"], env={"LAKE_URI": str(tmp_path / "empty")})
    assert result.exit_code == 1
    assert "Not one row of a source was compared with the lake" in result.stderr
    assert "equal in every column" not in result.stdout


@pytest.mark.thorough
@pytest.mark.refreshed
def test_a_lost_ledger_is_not_taken_for_agreement(platform: Platform) -> None:
    shutil.rmtree(platform.lake.location("ledger"))
    found = differing(look_back(platform))
    assert "notes nothing of" in found["totesys/payment", LEDGER].detail
    assert "notes nothing of" in found["totesys/payment", CONTENT].detail
    platform.refresh()
    assert differing(look_back(platform)) == {}


@pytest.mark.thorough
def test_a_table_that_never_had_a_row_is_equal_and_its_first_row_waits(platform: Platform) -> None:
    platform.sql("CREATE TABLE kept AS SELECT * FROM purchase_order")
    platform.sql("UPDATE transaction SET purchase_order_id = NULL")
    platform.sql("DELETE FROM purchase_order")
    platform.refresh()
    found = {(each.asset, each.check): each for each in look_back(platform)}
    assert found["totesys/purchase_order", CONTENT].detail == "no rows, in ToteSys and in the lake"
    platform.sql("INSERT INTO purchase_order SELECT * FROM kept")
    found = {(each.asset, each.check): each for each in look_back(platform)}
    assert found["totesys/purchase_order", CONTENT].outcome == "pending"
    assert found["warehouse/fact_purchase_order", ROWS].outcome == "pending"


@pytest.mark.refreshed
def test_views_that_disagree_are_named(platform: Platform) -> None:
    in_warehouse(platform, "CREATE OR REPLACE VIEW current_payment AS SELECT * FROM fact_payment WHERE payment_id > 1")
    finding = differing(look_back(platform))["warehouse/fact_payment", VIEWS]
    assert finding.detail == "payment_id 1 is not the same in history_payment and current_payment"


@pytest.mark.refreshed
def test_a_view_that_is_gone_fails_the_checks_that_ask_it_and_no_others(platform: Platform) -> None:
    in_warehouse(platform, "DROP VIEW current_payment CASCADE")
    lost = differing(look_back(platform))
    asked = {("warehouse/fact_payment", check) for check in (ROWS, MONEY, VIEWS)}
    assert set(lost) == asked | {("warehouse/mart_payments_day", SUMS)}
    assert "current_payment" in lost["warehouse/fact_payment", ROWS].detail


NEW_DESIGN = (
    "INSERT INTO design SELECT {}, created_at, design_name, file_location, file_name, last_updated FROM design "
    "WHERE design_id = 1"
)


def order_of_a_new_design(platform: Platform) -> None:
    """An order names design 7, which is new; orders are refreshed, and designs are not."""
    platform.sql(NEW_DESIGN.format(7))
    platform.sql("UPDATE sales_order SET design_id = 7")
    day = DayRange(date(2024, 8, 20), date(2024, 8, 20))
    orders = Request(("totesys/sales_order", "star/fact_sales_order", "warehouse/fact_sales_order"), day)
    assert platform.run(orders).success


@pytest.mark.refreshed
def test_a_reference_to_a_row_that_waits_for_a_refresh_is_pending(platform: Platform) -> None:
    order_of_a_new_design(platform)
    [found] = [
        each for each in look_back(platform) if each.asset == "warehouse/fact_sales_order" and each.check == REFERENCES
    ]
    assert found.passed
    assert found.detail == "every reference finds its row, but design_id 7 waits for a refresh of its dimension"
    assert found.pending == 1
    platform.refresh()
    assert differing(look_back(platform)) == {}


@pytest.mark.refreshed
def test_a_superseded_record_may_name_a_row_that_was_never_seen(platform: Platform) -> None:
    order_of_a_new_design(platform)
    platform.sql("UPDATE sales_order SET design_id = 1")
    platform.sql("DELETE FROM design WHERE design_id = 7")
    platform.refresh()
    place = ("warehouse/fact_sales_order", REFERENCES)
    assert place not in differing(look_back(platform))
    with psycopg.connect(platform.warehouse_url) as connection:
        connection.execute("DELETE FROM dim_design WHERE design_id = 1")
    assert "design_id 1 has no row" in differing(look_back(platform))[place].detail


@pytest.mark.refreshed
def test_a_superseded_record_may_name_no_row_that_was_seen(platform: Platform) -> None:
    platform.sql(NEW_DESIGN.format(8))
    platform.sql("UPDATE sales_order SET design_id = 8, agreed_delivery_date = '2091-05-06'")
    platform.refresh()
    platform.sql("UPDATE sales_order SET design_id = 1, agreed_delivery_date = '2024-08-23'")
    platform.refresh()
    place = ("warehouse/fact_sales_order", REFERENCES)
    assert place not in differing(look_back(platform))
    in_warehouse(platform, "DELETE FROM dim_date WHERE date_id = '2091-05-06'")
    in_warehouse(platform, "DELETE FROM dim_design WHERE design_id = 8")
    detail = differing(look_back(platform))[place].detail
    assert "design_id 8 has no row" in detail
    assert "agreed_delivery_date 2091-05-06 has no row" in detail


@pytest.mark.refreshed
def test_a_row_that_was_deleted_and_came_back_as_it_was_is_warned_of_for_ever(platform: Platform) -> None:
    platform.sql("CREATE TABLE kept AS SELECT * FROM payment")
    platform.sql("DELETE FROM payment")
    platform.refresh()
    platform.sql("INSERT INTO payment SELECT * FROM kept WHERE payment_id = 1")
    platform.sql("INSERT INTO payment SELECT * FROM kept WHERE payment_id = 2")
    platform.sql("UPDATE payment SET paid = NOT paid WHERE payment_id = 2")  # which is no return of the same row
    platform.refresh()
    finding = differing(look_back(platform))["totesys/payment", HISTORY]
    assert finding.warning
    assert finding.detail.startswith("1 row was deleted and came back equal in every column, at 20")


def commit_to(platform: Platform, table: str, changed: str) -> None:
    """Append the newest version of row 1 once more, with one of its columns ``changed`` (SQL), as no capture would."""
    held = DeltaTable(platform.lake.location("ingestion", table))
    with duckdb.connect() as connection:
        connection.register("held", held.to_pyarrow_table())
        rows = connection.execute(
            f"SELECT * REPLACE ({changed}) FROM held WHERE {table}_id = 1 ORDER BY _recorded_at DESC LIMIT 1"
        ).to_arrow_table()
    write_deltalake(held, rows.cast(held.to_pyarrow_table().schema), mode="append")


@pytest.mark.refreshed
@pytest.mark.parametrize("position", ["NULL", "4711"], ids=["by comparison", "by the log"])
def test_a_deletion_that_the_log_told_of_is_believed(platform: Platform, position: str) -> None:
    for operation in ("delete", "insert"):
        later = "_recorded_at + INTERVAL 1 MICROSECOND AS _recorded_at"
        commit_to(platform, "payment", f"'{operation}' AS _operation, {position} AS _commit_lsn, {later}")
    finding = {(each.asset, each.check): each for each in look_back(platform)}["totesys/payment", HISTORY]
    assert (finding.outcome, finding.numbers["rows_returned"]) == (("warning", 1), ("equal", 0))[position != "NULL"]


@pytest.mark.refreshed
def test_a_version_that_does_not_follow_from_the_one_before_it_is_named(platform: Platform) -> None:
    commit_to(platform, "payment", "_recorded_at + INTERVAL 1 MICROSECOND AS _recorded_at")
    finding = differing(look_back(platform))["totesys/payment", HISTORY]
    assert finding.outcome == "different"
    assert finding.detail.startswith("1 version does not follow from the version before it")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("hours", "said"),
    [(5, "dated 4:59:5"), (-5, "are dated 5:00:0")],
    ids=["in the future", "in the past"],
)
def test_versions_that_are_dated_by_another_clock_are_warned_of(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, hours: int, said: str
) -> None:
    take = Totesys._take

    def take_at_another_time(*arguments: Any) -> Snapshot:
        snapshot = take(*arguments)
        return replace(snapshot, taken_at=snapshot.taken_at + timedelta(hours=hours))

    monkeypatch.setattr(Totesys, "_take", take_at_another_time)
    platform.refresh()
    finding = {(each.asset, each.check): each for each in look_back(platform)}["totesys/payment", HISTORY]
    assert finding.outcome == "warning"
    assert said in finding.detail


def test_versions_that_the_log_dates_by_commits_of_long_ago_are_not_warned_of(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Totesys._take
    ago = timedelta(hours=5)
    with monkeypatch.context() as patch:
        patch.setattr(Totesys, "_take", lambda *every: replace(made := take(*every), taken_at=made.taken_at - ago))
        platform.refresh()

    def outcome() -> str:
        found = {(each.asset, each.check): each for each in look_back(platform)}
        return found["totesys/payment", HISTORY].outcome

    assert outcome() == "warning"
    held = DeltaTable(platform.lake.location("ingestion", "payment"))
    rows = held.to_pyarrow_table().slice(0, 0)
    by_log = [Transaction("log_recorded", held.transaction_version("recorded_at") or 0)]
    write_deltalake(held, rows, mode="append", commit_properties=CommitProperties(app_transactions=by_log))
    assert outcome() == "equal"


@pytest.mark.thorough
@pytest.mark.refreshed
def test_a_row_that_moves_to_another_day_and_back_is_no_false_deletion(platform: Platform) -> None:
    for day in ("2024-08-22", "2024-08-20"):
        platform.sql("UPDATE sales_order SET created_at = %s::date + created_at::time", [day])
        platform.refresh()
    assert differing(look_back(platform)) == {}


@pytest.mark.refreshed
def test_a_login_that_may_not_stand_idle_audits_all_the_same(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_warehouse(platform, "ALTER ROLE CURRENT_USER SET idle_in_transaction_session_timeout = '200ms'")
    try:
        examine = rules.examine

        def slow(*arguments: Any) -> Finding:
            sleep(0.05)
            return examine(*arguments)

        monkeypatch.setattr(rules, "examine", slow)
        assert differing(look_back(platform)) == {}
    finally:
        in_warehouse(platform, "ALTER ROLE CURRENT_USER RESET idle_in_transaction_session_timeout")


@pytest.mark.refreshed
def test_a_warehouse_that_breaks_off_ends_the_audit_in_a_sentence(platform: Platform) -> None:

    def end(_: object, __: object) -> Finding:
        in_warehouse(
            platform,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        return Finding("", "", True, "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(audit_module._SOURCE, LEDGER, end)
        with pytest.raises(PlatformError, match="terminating connection"):
            look_back(platform)


def test_before_the_first_refresh_there_is_nothing_to_audit(platform: Platform) -> None:
    with pytest.raises(PlatformError, match=r"Nothing was loaded into this warehouse yet\. Run: totesys refresh"):
        look_back(platform)


@pytest.mark.refreshed
def test_an_audit_beside_traffic_and_refreshes_raises_no_false_alarm(platform: Platform) -> None:

    def trade() -> None:
        for number in range(2, 5):
            platform.sql(
                "INSERT INTO sales_order SELECT %s, created_at + interval '1 day', last_updated, design_id, staff_id, "
                "counterparty_id, units_sold, unit_price, currency_id, agreed_delivery_date, agreed_payment_date, "
                "agreed_delivery_location_id FROM sales_order WHERE sales_order_id = 1",
                [number],
            )
            platform.sql("UPDATE sales_order SET units_sold = units_sold + 1, unit_price = unit_price + 0.01")
            platform.refresh()

    with ThreadPoolExecutor(1) as beside:
        trading = beside.submit(trade)
        rounds = 0
        while not trading.done() or rounds < 3:
            found = audit(platform.core, checks(catalogue()))
            assert differing(found) == {}
            rounds += 1
        trading.result()


BREAKING = {
    ("transaction", "type_matches_order"): (
        "UPDATE transaction SET sales_order_id = NULL WHERE transaction_id = 1",
        "1",
    ),
    ("sales_order", "has_transaction"): ("UPDATE transaction SET sales_order_id = NULL", "1"),
    ("purchase_order", "has_transaction"): ("UPDATE transaction SET purchase_order_id = NULL", "1"),
    ("sales_order", "nothing_negative"): ("UPDATE sales_order SET units_sold = -1", "1"),
    ("purchase_order", "nothing_negative"): ("UPDATE purchase_order SET item_unit_price = 0", "1"),
    ("payment", "one_per_transaction"): ("DELETE FROM payment WHERE payment_id = 2", "1"),
    ("payment", "amount_is_quantity_times_price"): (
        "UPDATE payment SET payment_amount = payment_amount + 0.01 WHERE payment_id = 2",
        "2",
    ),
    ("payment", "agrees_with_order"): ("UPDATE payment SET payment_date = '2024-08-24' WHERE payment_id = 2", "2"),
    ("payment", "type_matches_transaction"): ("UPDATE payment SET payment_type_id = 3 WHERE payment_id = 2", "2"),
    ("payment", "account_numbers_have_8_digits"): (
        "UPDATE payment SET company_ac_number = 1234567 WHERE payment_id = 1",
        "1",
    ),
    ("payment", "nothing_negative"): ("UPDATE payment SET payment_amount = -1 WHERE payment_id = 1", "1"),
}


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: f"{rule.table}.{rule.name}")
def test_every_rule_of_the_business_warns_of_the_row_that_breaks_it(
    rule: rules.Rule, postgres_server: PostgresServer, trade_template: str
) -> None:
    statement, key = BREAKING[rule.table, rule.name]
    url = postgres_server.template(f"rule_{rule.table}_{rule.name}", trade_template)
    table = catalogue().source[rule.table]
    with Totesys(url, allow_superuser=True).snapshot() as snapshot:
        assert rules.examine(snapshot, table, rule.name).passed
    with psycopg.connect(url) as connection:
        connection.execute(statement)
    with Totesys(url, allow_superuser=True).snapshot() as snapshot:
        found = rules.examine(snapshot, table, rule.name)
    assert found.warning
    assert not found.passed
    assert found.detail == f"1 row breaks it: {rule.key} {key}"


@pytest.mark.refreshed
def test_the_nightly_audit_is_recorded_by_dagster_and_a_refresh_does_not_wait_for_one(platform: Platform) -> None:
    platform.sql("UPDATE design SET design_name = 'new'")
    [outcome] = platform.refresh()
    steps = {stats.step_key for stats in platform.instance.get_run_step_stats(outcome.run_id)}
    assert "audit_checks" not in steps
    in_warehouse(platform, "UPDATE fact_sales_order SET units_sold = 7")
    result = platform.definitions().resolve_job_def("audit").execute_in_process(instance=platform.instance)
    assert result.success
    evaluations = {
        ("/".join(each.asset_key.path), each.check_name): each for each in result.get_asset_check_evaluations()
    }
    assert evaluations.keys() == {*checks(catalogue()), *rules.checks()}
    assert {key for key, each in evaluations.items() if not each.passed} == {
        ("warehouse/fact_sales_order", RECORDS),
        ("warehouse/fact_sales_order", MONEY),
        ("warehouse/mart_sales_day", SUMS),
    }


@pytest.mark.refreshed
def test_the_command_prints_what_differs_and_fails_only_then(platform: Platform) -> None:
    equal = CliRunner().invoke(main, ["audit"])
    assert (equal.exit_code, f"All {len(ALL)} checks pass." in equal.output) == (0, True)
    platform.sql("UPDATE payment SET payment_amount = -1 WHERE payment_id = 1")
    platform.refresh()
    warned = CliRunner().invoke(main, ["audit"])
    assert (warned.exit_code, f"{len(ALL)} checks: 2 warnings." in warned.output) == (0, True)
    in_warehouse(platform, "DELETE FROM fact_payment")
    different = CliRunner().invoke(main, ["audit", "--json"])
    assert different.exit_code == 1
    document = json.loads(different.stdout)
    assert not document["equal"]
    assert {each["check"] for each in document["findings"] if not each["passed"] and not each["warning"]} == {
        ROWS,
        RECORDS,
        MONEY,
        SUMS,
    }
