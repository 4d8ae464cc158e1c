"""Dead letters: what cannot be typed or breaks a rule is kept with its reason, and never stops the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from deltalake import DeltaTable

from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.days import DayRange
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import DEAD_LETTER, INGESTION, Lake
from totesys_assets_tests.conftest import FIRST_DAY, Platform

SOURCE = catalogue().source
ORDER_DAY = date(2024, 8, 20)

NOT_A_DATE = "is not a date of the form YYYY-MM-DD"
NO_TIME = "is no time between the years 1 and 9999"
NO_PARTITION = f"lies outside the days from {FIRST_DAY} to tomorrow that have a partition"

# (column, the value as SQL, why it cannot be believed, how it reads in the raw text)
BAD_ORDERS: list[tuple[str, str, str, object]] = [
    ("agreed_delivery_date", "'2024-02-31'", NOT_A_DATE, "2024-02-31"),
    ("agreed_delivery_date", "'2023-02-29'", NOT_A_DATE, "2023-02-29"),
    ("agreed_delivery_date", "'tomorrow'", NOT_A_DATE, "tomorrow"),
    ("agreed_delivery_date", "''", NOT_A_DATE, ""),
    ("agreed_payment_date", "'24-1-1'", NOT_A_DATE, "24-1-1"),
    ("agreed_payment_date", "'2024-1-01'", NOT_A_DATE, "2024-1-01"),
    ("agreed_payment_date", "'20240820'", NOT_A_DATE, "20240820"),
    ("agreed_payment_date", "' 2024-08-20'", NOT_A_DATE, " 2024-08-20"),
    ("agreed_payment_date", "E'2024-08-20\\n'", NOT_A_DATE, "2024-08-20\n"),
    ("agreed_payment_date", "'2024-08-20 00:00'", NOT_A_DATE, "2024-08-20 00:00"),
    ("agreed_payment_date", "'0000-01-01'", NOT_A_DATE, "0000-01-01"),
    ("agreed_payment_date", "'٢٠٢٤-٠٨-٢٠'", NOT_A_DATE, "٢٠٢٤-٠٨-٢٠"),
    ("unit_price", "'NaN'", "is not a number", "NaN"),
    ("last_updated", "'infinity'", NO_TIME, "infinity"),
    ("last_updated", "'-infinity'", NO_TIME, "-infinity"),
    ("last_updated", "'0044-03-15 12:00 BC'", NO_TIME, "0044-03-15T12:00:00 BC"),
    ("last_updated", "'20000-01-01'", NO_TIME, "20000-01-01T00:00:00"),
    ("units_sold", "NULL", "is missing", None),
    ("agreed_delivery_date", "NULL", "is missing", None),
    ("last_updated", "NULL", "is missing", None),
]
# These have no day, and are kept with the first.
BAD_DAYS: list[tuple[str, str, str, object]] = [
    ("created_at", "'infinity'", NO_PARTITION, "infinity"),
    ("created_at", "'-infinity'", NO_PARTITION, "-infinity"),
    ("created_at", "'0044-03-15 BC'", NO_PARTITION, "0044-03-15T00:00:00 BC"),
    ("created_at", "'20000-01-01'", NO_PARTITION, "20000-01-01T00:00:00"),
    ("created_at", "'2999-01-01'", NO_PARTITION, "2999-01-01T00:00:00"),
    ("created_at", "'2024-08-18 23:59:59.999'", NO_PARTITION, "2024-08-18T23:59:59.999"),
    ("created_at", "NULL", "is missing", None),
]


def refresh(platform: Platform, table: str = "sales_order", days: DayRange | None = None) -> Captured:
    with platform.totesys.snapshot() as snapshot:
        return capture(
            snapshot,
            platform.lake,
            SOURCE[table],
            all_days=platform.all_days,
            days=days or platform.all_days,
            run_id="test",
        )


def add_orders(platform: Platform, numbers: Sequence[int]) -> None:
    """Orders like the one of TRADE; and all columns may be NULL, as after an unwise migration."""
    key, *others = SOURCE["sales_order"].by_name
    platform.sql(
        f"INSERT INTO sales_order SELECT number, {', '.join(others)} "
        f"FROM sales_order, unnest(%s::int[]) AS number WHERE {key} = 1",
        [list(numbers)],
    )
    platform.sql("ALTER TABLE sales_order " + ", ".join(f"ALTER {column} DROP NOT NULL" for column in others))


def letters(platform: Platform) -> list[dict[str, object]]:
    """The dead letters that are not mended."""
    return open_dead_letters(platform.lake).to_pylist()


def summary(platform: Platform) -> list[tuple[object, ...]]:
    """The same without raw text and dates."""
    columns = ("table_name", "row_key", "partition", "column_name", "reason")
    return [tuple(letter[column] for column in columns) for letter in letters(platform)]


def kept(platform: Platform) -> list[str]:
    """What was ever said, in order: appeared (insert), says otherwise (update), mended (delete)."""
    held = platform.lake.find(DEAD_LETTER)
    if held is None:
        return []
    rows = sorted(held.to_pyarrow_table().to_pylist(), key=lambda row: row["_recorded_at"])
    return [str(row["_operation"]) for row in rows]


def story(platform: Platform, key: int, column: str, table: str = "sales_order") -> list[tuple[object, object]]:
    """What happened to one row: operation and one column, version by version."""
    held = platform.lake.find(INGESTION, table)
    rows = held.to_pyarrow_table().to_pylist() if held is not None else []
    mine = sorted((row for row in rows if row[SOURCE[table].key] == key), key=lambda row: row["_recorded_at"])
    return [(row["_operation"], row[column]) for row in mine]


def test_every_value_that_cannot_be_believed_is_kept_with_its_reason_until_it_is_mended(platform: Platform) -> None:
    cases = dict(enumerate(BAD_ORDERS + BAD_DAYS, start=100))
    add_orders(platform, list(cases))
    for number, (column, value, _, _) in cases.items():
        platform.sql(f"UPDATE sales_order SET {column} = {value} WHERE sales_order_id = {number}")

    captured = refresh(platform)

    assert (captured.total("inserted"), captured.total("rejected")) == (1, len(cases))
    days = {str(ORDER_DAY): len(BAD_ORDERS), str(FIRST_DAY): len(BAD_DAYS)}
    assert {entry.partition: entry.rejected for entry in captured.entries if entry.rejected} == days
    found = {int(str(letter["row_key"])): letter for letter in letters(platform)}
    for number, (column, _, reason, raw) in cases.items():
        letter = found.pop(number)
        assert (letter["table_name"], letter["column_name"], letter["reason"]) == ("sales_order", column, reason)
        assert letter["partition"] == str(FIRST_DAY if (column, _, reason, raw) in BAD_DAYS else ORDER_DAY)
        text = json.loads(str(letter["raw"]))
        assert text[column] == raw
        assert (text["sales_order_id"], list(text)) == (number, list(SOURCE["sales_order"].by_name))
    assert found == {}
    assert story(platform, 1, "units_sold") == [("insert", 1001)]

    platform.sql(
        "UPDATE sales_order AS bad SET (created_at, last_updated, units_sold, unit_price, agreed_delivery_date, "
        "agreed_payment_date) = (SELECT created_at, last_updated, units_sold, unit_price, agreed_delivery_date, "
        "agreed_payment_date FROM sales_order WHERE sales_order_id = 1) WHERE sales_order_id >= 100"
    )
    captured = refresh(platform)

    assert (captured.total("inserted"), captured.total("rejected"), letters(platform)) == (len(cases), 0, [])
    assert kept(platform) == ["insert"] * len(cases) + ["delete"] * len(cases)


def test_the_first_and_the_last_value_that_can_be_believed_are_captured_exactly(platform: Platform) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    add_orders(platform, [2, 3])
    platform.sql(
        "UPDATE sales_order SET created_at = %s, last_updated = '0001-01-01', agreed_delivery_date = '0001-01-01', "
        "unit_price = -99999999.99 WHERE sales_order_id = 2",
        [FIRST_DAY],
    )
    platform.sql(
        "UPDATE sales_order SET created_at = %s::date + time '23:59:59.999', last_updated = '9999-12-31 23:59:59.999', "
        "agreed_delivery_date = '9999-12-31', unit_price = 99999999.99 WHERE sales_order_id = 3",
        [tomorrow],
    )
    captured = refresh(platform)
    assert (captured.total("inserted"), captured.total("rejected"), kept(platform)) == (3, 0, [])
    assert story(platform, 2, "last_updated") == [("insert", datetime(1, 1, 1))]
    assert story(platform, 2, "unit_price") == [("insert", Decimal("-99999999.99"))]
    assert story(platform, 3, "last_updated") == [("insert", datetime(9999, 12, 31, 23, 59, 59, 999000))]
    assert story(platform, 3, "agreed_delivery_date") == [("insert", "9999-12-31")]


def test_a_label_added_to_an_enum_is_a_dead_letter_until_the_catalogue_knows_it(platform: Platform) -> None:
    refresh(platform, "transaction")
    platform.sql("""ALTER TYPE "TransactionType" ADD VALUE 'GIFT'""")
    platform.sql("INSERT INTO transaction VALUES (3, 'GIFT', NULL, NULL, '2024-08-20', '2024-08-20')")
    platform.sql("INSERT INTO transaction VALUES (4, 'SALE', NULL, NULL, '2024-08-20', '2024-08-20')")
    captured = refresh(platform, "transaction")
    assert (captured.total("inserted"), captured.total("rejected")) == (1, 1)
    assert summary(platform) == [("transaction", "3", str(ORDER_DAY), "transaction_type", "is none of SALE, PURCHASE")]
    assert json.loads(str(letters(platform)[0]["raw"]))["transaction_type"] == "GIFT"


def test_a_bad_row_of_a_table_that_is_one_set_is_kept_aside_too(platform: Platform) -> None:
    platform.sql("ALTER TABLE address ALTER city DROP NOT NULL")
    platform.sql("UPDATE address SET city = NULL WHERE address_id = 1")
    platform.sql("UPDATE address SET created_at = 'infinity' WHERE address_id = 2")
    platform.sql("INSERT INTO address SELECT 3, '3', NULL, NULL, 'Leeds', '1', 'UK', '1', '1999-01-01', '2999-01-01'")
    captured = refresh(platform, "address")
    assert (captured.total("inserted"), captured.total("rejected")) == (1, 2)
    assert summary(platform) == [
        ("address", "1", "*", "city", "is missing"),
        ("address", "2", "*", "created_at", NO_TIME),
    ]


def test_a_row_that_breaks_several_rules_is_one_dead_letter(platform: Platform) -> None:
    add_orders(platform, [2])
    platform.sql("UPDATE sales_order SET unit_price = 'NaN', agreed_payment_date = '' WHERE sales_order_id = 2")
    assert refresh(platform).total("rejected") == 1
    assert summary(platform) == [("sales_order", "2", str(ORDER_DAY), "unit_price", "is not a number")]


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_a_row_without_a_key_stops_its_table_with_a_sentence(platform: Platform, is_first: bool) -> None:
    if not is_first:
        refresh(platform)
    platform.sql("ALTER TABLE sales_order DROP CONSTRAINT sales_order_pkey CASCADE")
    platform.sql("ALTER TABLE sales_order ALTER sales_order_id DROP NOT NULL")
    platform.sql("UPDATE sales_order SET sales_order_id = NULL")
    with pytest.raises(PlatformError, match='has a row without "sales_order_id", by which rows are known'):
        refresh(platform)


def test_the_raw_text_is_what_the_source_itself_writes(platform: Platform) -> None:
    name = 'O\'Keefe "quoted" \\ 👜 שלום: 1'
    platform.sql("UPDATE design SET design_name = %s, last_updated = 'infinity'", [name])
    refresh(platform, "design")
    assert json.loads(str(letters(platform)[0]["raw"])) == {
        "design_id": 1,
        "created_at": "2024-08-19T08:00:00",
        "design_name": name,
        "file_location": "/usr/local",
        "file_name": "wooden-20201128-jdvi.json",
        "last_updated": "infinity",
    }


def test_a_dead_letter_that_stays_as_it_is_is_said_once(platform: Platform) -> None:
    add_orders(platform, [2, 3])
    platform.sql("UPDATE sales_order SET agreed_payment_date = 'soon' WHERE sales_order_id = 2")
    for units in (1, 2, 3):
        captured = refresh(platform)
        assert captured.total("rejected") == 1
        platform.sql("UPDATE sales_order SET units_sold = %s WHERE sales_order_id = 3", [units])
    assert kept(platform) == ["insert"]


def test_a_dead_letter_whose_text_or_reason_changes_is_said_again_and_stays_one(platform: Platform) -> None:
    add_orders(platform, [2])
    for payment_date in ("soon", "later", None):
        platform.sql("UPDATE sales_order SET agreed_payment_date = %s WHERE sales_order_id = 2", [payment_date])
        refresh(platform)
    assert kept(platform) == ["insert", "update", "update"]
    assert summary(platform) == [("sales_order", "2", str(ORDER_DAY), "agreed_payment_date", "is missing")]


def test_a_row_that_turns_bad_keeps_its_last_good_version_until_it_is_mended(platform: Platform) -> None:
    refresh(platform)
    for delivery_date in ("never", "2024-09-01"):
        platform.sql("UPDATE sales_order SET units_sold = units_sold + 1, agreed_delivery_date = %s", [delivery_date])
        refresh(platform)
    assert story(platform, 1, "units_sold") == [("insert", 1001), ("update", 1003)]
    assert (kept(platform), letters(platform)) == (["insert", "delete"], [])


def test_a_row_that_turns_bad_and_back_to_what_it_was_adds_no_version(platform: Platform) -> None:
    refresh(platform)
    for delivery_date in ("never", "2024-08-24"):
        platform.sql("UPDATE sales_order SET agreed_delivery_date = %s", [delivery_date])
        refresh(platform)
    assert story(platform, 1, "agreed_delivery_date") == [("insert", "2024-08-24")]


def test_a_row_that_turned_bad_and_is_then_deleted_is_gone_from_both(platform: Platform) -> None:
    refresh(platform)
    platform.sql("UPDATE sales_order SET agreed_delivery_date = 'never'")
    refresh(platform)
    platform.sql("UPDATE transaction SET sales_order_id = NULL")
    platform.sql("DELETE FROM sales_order")
    refresh(platform)
    assert story(platform, 1, "agreed_delivery_date") == [("insert", "2024-08-24"), ("delete", "2024-08-24")]
    assert letters(platform) == []


def test_a_row_that_loses_its_day_leaves_it_and_comes_back_whichever_day_is_captured_first(platform: Platform) -> None:
    refresh(platform)
    platform.sql("UPDATE sales_order SET created_at = 'infinity'")
    for day in (ORDER_DAY, FIRST_DAY, ORDER_DAY):
        refresh(platform, days=DayRange(day, day))
    gone = [("insert", 1001), ("delete", 1001)]
    assert story(platform, 1, "units_sold") == gone
    assert summary(platform) == [("sales_order", "1", str(FIRST_DAY), "created_at", NO_PARTITION)]
    assert kept(platform) == ["insert"]
    platform.sql("UPDATE sales_order SET created_at = '2024-08-20 09:10:11.123'")
    for day in (FIRST_DAY, ORDER_DAY):
        refresh(platform, days=DayRange(day, day))
    assert (story(platform, 1, "units_sold"), letters(platform)) == ([*gone, ("insert", 1001)], [])


def test_a_row_from_the_future_is_captured_once_its_day_has_come(platform: Platform) -> None:
    platform.sql("UPDATE sales_order SET created_at = %s", [platform.all_days.end])
    refresh(platform)
    assert summary(platform)[0][3:] == ("created_at", NO_PARTITION)
    with platform.totesys.snapshot() as snapshot:
        a_day_later = DayRange(platform.all_days.first, platform.all_days.end)
        capture(snapshot, platform.lake, SOURCE["sales_order"], all_days=a_day_later, days=a_day_later, run_id="test")
    assert (story(platform, 1, "units_sold"), letters(platform)) == ([("insert", 1001)], [])


def test_mending_one_table_or_day_leaves_the_dead_letters_of_others(platform: Platform) -> None:
    add_orders(platform, [2])
    platform.sql("UPDATE sales_order SET created_at = '2024-08-21' WHERE sales_order_id = 2")
    platform.sql("UPDATE sales_order SET agreed_payment_date = 'soon'")
    platform.sql("UPDATE purchase_order SET agreed_payment_date = 'soon'")
    refresh(platform)
    refresh(platform, "purchase_order")
    platform.sql("UPDATE sales_order SET agreed_payment_date = '2024-09-01'")
    refresh(platform, days=DayRange(ORDER_DAY, ORDER_DAY))
    assert [letter[:3] for letter in summary(platform)] == [
        ("purchase_order", "1", "2024-08-21"),
        ("sales_order", "2", "2024-08-21"),
    ]


def test_of_two_captures_at_once_only_one_appends_the_dead_letter(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.sql("UPDATE purchase_order SET agreed_payment_date = 'soon'")
    refresh(platform, "purchase_order")
    platform.sql("UPDATE sales_order SET agreed_payment_date = 'soon'")
    find, competitors = Lake.find, iter([platform])

    def find_and_be_overtaken(lake: Lake, *parts: str) -> DeltaTable | None:
        found = find(lake, *parts)
        if parts == (DEAD_LETTER,):
            for competitor in competitors:
                refresh(competitor)
        return found

    monkeypatch.setattr(Lake, "find", find_and_be_overtaken)
    assert refresh(platform).total("rejected") == 1
    assert kept(platform) == ["insert", "insert"]


def test_a_lake_without_bad_rows_has_no_dead_letter_table(platform: Platform) -> None:
    refresh(platform)
    assert platform.lake.find(DEAD_LETTER) is None
    assert letters(platform) == []
