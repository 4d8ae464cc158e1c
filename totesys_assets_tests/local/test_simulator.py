"""The simulator on a real PostgreSQL: what ``create`` makes keeps the facts of ToteSys, and so does the traffic."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from totesys_assets.local.simulator import CHANGES, DatabaseNotEmptyError, Traffic, create, office_hours

UNTIL = datetime(2024, 11, 15, 14, 30)  # a Friday
DDL = resources.files("totesys_assets.catalogue").joinpath("totesys.sql").read_text(encoding="utf-8")
TABLES = re.findall(r"^CREATE TABLE (\w+)", DDL, re.MULTILINE)
PARTITIONED = ("sales_order", "purchase_order", "transaction", "payment")
Rows = dict[int, dict[str, Any]]


class PostgresServer(Protocol):
    """What the fixture ``postgres_server`` is."""

    def database(self, name: str | None = None) -> str:
        """URL of a new, empty database."""


@pytest.fixture(scope="module")
def totesys(postgres_server: PostgresServer) -> str:
    """ToteSys at scale 1; tests only read it."""
    url = postgres_server.database()
    create(url, until=UNTIL)
    return url


@pytest.fixture(scope="module")
def live(postgres_server: PostgresServer) -> str:
    """A small ToteSys that ends four days ago, so that payments are overdue; tests write to it."""
    url = postgres_server.database()
    create(url, scale=0.02, until=datetime.now(UTC) - timedelta(days=4))
    return url


@pytest.fixture
def traffic(live: str) -> Iterator[Traffic]:
    """Traffic on the small ToteSys."""
    with Traffic(live, seed=7) as opened:
        yield opened


def query(url: str, text: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
    """Rows of a query that holds its values as parameters, or holds none."""
    with psycopg.connect(url) as connection:
        return connection.execute(text, values).fetchall()


def value(url: str, text: str, values: list[Any] | None = None) -> Any:
    """The one value that a query gives."""
    ((only,),) = query(url, text, values)
    return only


def snapshot(url: str) -> dict[str, Rows]:
    """All rows of all tables by key."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        select = sql.SQL("SELECT * FROM {}")
        return {
            table: {row[f"{table}_id"]: row for row in connection.execute(select.format(sql.Identifier(table)))}
            for table in TABLES
        }


def difference(
    before: dict[str, Rows], after: dict[str, Rows]
) -> tuple[dict[str, list[int]], dict[str, list[int]], dict[tuple[str, int], set[str]]]:
    """Keys inserted and deleted by table, and the columns changed by table and key."""
    inserted = {table: sorted(after[table].keys() - before[table].keys()) for table in TABLES}
    deleted = {table: sorted(before[table].keys() - after[table].keys()) for table in TABLES}
    changed = {
        (table, key): {column for column, was in before[table][key].items() if after[table][key][column] != was}
        for table in TABLES
        for key in before[table].keys() & after[table].keys()
    }
    return (
        {table: keys for table, keys in inserted.items() if keys},
        {table: keys for table, keys in deleted.items() if keys},
        {place: columns for place, columns in changed.items() if columns},
    )


def fingerprint(url: str, *tables: str) -> str:
    """One hash of the content of tables."""
    digest = hashlib.md5(usedforsecurity=False)
    with psycopg.connect(url) as connection:
        for table in tables or TABLES:
            names = {"table": sql.Identifier(table), "key": sql.Identifier(f"{table}_id")}
            text = sql.SQL("SELECT md5(string_agg({table}::text, '|' ORDER BY {key})) FROM {table}").format(**names)
            digest.update(str(connection.execute(text).fetchone()).encode())
    return digest.hexdigest()


# Deals: what each order, its transaction and its payment agree on.
DEALS = """
WITH ordered AS (
    SELECT 'SALE'::"TransactionType" AS kind, sales_order_id AS order_id, created_at, last_updated, counterparty_id,
        currency_id, units_sold * unit_price AS amount, agreed_payment_date, agreed_delivery_date
    FROM sales_order
    UNION ALL
    SELECT 'PURCHASE', purchase_order_id, created_at, last_updated, counterparty_id,
        currency_id, item_quantity * item_unit_price, agreed_payment_date, agreed_delivery_date
    FROM purchase_order
), opened AS (
    SELECT *, CASE transaction_type WHEN 'SALE' THEN sales_order_id ELSE purchase_order_id END AS order_id
    FROM transaction
)
"""

# Each query finds rows that break one rule, in data new or lived in.
LASTING = {
    "a sale has a sales order and no purchase order, a purchase the reverse": """
        SELECT * FROM transaction WHERE transaction_type <> CASE
            WHEN sales_order_id IS NOT NULL AND purchase_order_id IS NULL THEN 'SALE'::"TransactionType"
            WHEN sales_order_id IS NULL AND purchase_order_id IS NOT NULL THEN 'PURCHASE' END
        OR (sales_order_id IS NULL) = (purchase_order_id IS NULL)""",
    "orders and transactions are one to one": f"""
        {DEALS} SELECT * FROM ordered FULL JOIN opened ON transaction_type = kind AND opened.order_id = ordered.order_id
        WHERE kind IS NULL OR transaction_type IS NULL""",
    "transactions and payments are one to one": """
        SELECT * FROM transaction AS t FULL JOIN payment AS p ON p.transaction_id = t.transaction_id
        WHERE t.transaction_id IS NULL OR p.transaction_id IS NULL""",
    "an event stamps its three rows alike": f"""
        {DEALS} SELECT * FROM ordered JOIN opened ON transaction_type = kind AND opened.order_id = ordered.order_id
        JOIN payment USING (transaction_id)
        WHERE (ordered.created_at, ordered.created_at) <> (opened.created_at, payment.created_at)""",
    "an amount is quantity times price to the penny": f"""
        {DEALS} SELECT * FROM ordered JOIN opened ON transaction_type = kind AND opened.order_id = ordered.order_id
        JOIN payment USING (transaction_id) WHERE payment_amount <> amount""",
    "a payment has its order's currency, counterparty and payment date": f"""
        {DEALS} SELECT * FROM ordered JOIN opened ON transaction_type = kind AND opened.order_id = ordered.order_id
        JOIN payment USING (transaction_id)
        WHERE (payment.currency_id, payment.counterparty_id, payment_date)
            <> (ordered.currency_id, ordered.counterparty_id, agreed_payment_date)""",
    "sales are receipts of type 1, purchases payments of type 3": """
        SELECT * FROM payment JOIN transaction USING (transaction_id)
        WHERE payment_type_id <> CASE transaction_type WHEN 'SALE' THEN 1 ELSE 3 END""",
    "account numbers have eight digits": """
        SELECT * FROM payment WHERE company_ac_number NOT BETWEEN 10000000 AND 99999999
            OR counterparty_ac_number NOT BETWEEN 10000000 AND 99999999""",
    "agreed dates are dates": f"""
        {DEALS} SELECT * FROM ordered
        WHERE to_char(agreed_delivery_date::date, 'YYYY-MM-DD') <> agreed_delivery_date
            OR to_char(agreed_payment_date::date, 'YYYY-MM-DD') <> agreed_payment_date""",
    "sales keep to their ranges": """
        SELECT * FROM sales_order
        WHERE units_sold NOT BETWEEN 1001 AND 99973 OR unit_price NOT BETWEEN 2.00 AND 4.00""",
    "purchases keep to their ranges": """
        SELECT * FROM purchase_order
        WHERE item_quantity NOT BETWEEN 1 AND 999 OR item_unit_price NOT BETWEEN 3.32 AND 999.07""",
    "payments are agreed for the six days from the order": f"""
        {DEALS} SELECT * FROM ordered WHERE agreed_payment_date::date - created_at::date NOT BETWEEN 0 AND 6""",
    "item codes are seven characters, each its own": """
        SELECT item_code FROM purchase_order GROUP BY item_code
        HAVING count(*) > 1 OR item_code !~ '^[A-Z0-9]{7}$'""",
    "design files lie in a path and are named after the design": """
        SELECT * FROM design WHERE file_location !~ '^/'
            OR file_name !~ ('^' || lower(design_name) || '-[0-9]{8}-[a-z0-9]{4}[.]json$')""",
    "payments dated on a weekend or on the day of creation are never paid": """
        SELECT * FROM payment
        WHERE paid AND (extract(isodow FROM payment_date::date) > 5 OR payment_date::date = created_at::date)""",
    "transactions and unpaid payments are as they were made": """
        SELECT created_at, last_updated FROM transaction WHERE last_updated <> created_at
        UNION ALL SELECT created_at, last_updated FROM payment WHERE NOT paid AND last_updated <> created_at""",
    "staff are mailed at the company": """
        SELECT * FROM staff WHERE email_address NOT LIKE lower('%' || last_name || '%@terrifictotes.com')""",
}

# Each query finds rows that break one rule of data that nobody has touched since.
INITIAL = {
    "orders and designs come on weekdays from 08:00 to 18:59": """
        SELECT created_at FROM (SELECT created_at FROM payment UNION ALL SELECT created_at FROM design) AS arrival
        WHERE extract(isodow FROM created_at) > 5 OR extract(hour FROM created_at) NOT BETWEEN 8 AND 18""",
    "deliveries are agreed for the seven days from the order": f"""
        {DEALS} SELECT * FROM ordered WHERE agreed_delivery_date::date - created_at::date NOT BETWEEN 0 AND 7""",
    "only payments have been updated": f"""
        {DEALS} SELECT created_at FROM ordered WHERE last_updated <> created_at
        UNION ALL SELECT created_at FROM design WHERE last_updated <> created_at""",
    "a payment due on a weekday morning since its order is paid, and no other": f"""
        SELECT * FROM payment
        WHERE paid <> (payment_date > to_char(created_at, 'YYYY-MM-DD') AND payment_date <= '{UNTIL:%Y-%m-%d}'
            AND extract(isodow FROM payment_date::date) < 6)""",
    "payments are paid at 07:55 of their date": """
        SELECT * FROM payment WHERE paid AND (last_updated::date <> payment_date::date
            OR last_updated::time NOT BETWEEN '07:55:10' AND '07:55:13')""",
    "a morning's payments share their last_updated": """
        SELECT payment_date FROM payment WHERE paid GROUP BY payment_date HAVING count(DISTINCT last_updated) > 1""",
    "nothing is from the future": f"""
        SELECT created_at FROM payment WHERE greatest(created_at, last_updated) > '{UNTIL}'
        UNION ALL SELECT created_at FROM design WHERE created_at > '{UNTIL}'""",
    "a sale is of a design that exists": """
        SELECT * FROM sales_order JOIN design USING (design_id) WHERE design.created_at > sales_order.created_at""",
    "keys follow the order of arrival": """
        SELECT * FROM (
            SELECT created_at, lag(created_at) OVER (ORDER BY sales_order_id) AS earlier FROM sales_order
            UNION ALL SELECT created_at, lag(created_at) OVER (ORDER BY purchase_order_id) FROM purchase_order
            UNION ALL SELECT created_at, lag(created_at) OVER (ORDER BY transaction_id) FROM transaction
            UNION ALL SELECT created_at, lag(created_at) OVER (ORDER BY design_id) FROM design
        ) AS arrival WHERE created_at < earlier""",
    "a payment's number is that of its transaction or of a neighbour": """
        SELECT * FROM payment WHERE abs(payment_id - transaction_id) > 1""",
}


# --- Creation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", LASTING | INITIAL)
def test_new_data_keeps_the_rule_that(totesys: str, rule: str) -> None:
    assert query(totesys, (LASTING | INITIAL)[rule])[:3] == []


def test_scale_1_is_the_size_of_totesys_after_two_years(totesys: str) -> None:
    sizes = {table: value(totesys, f"SELECT count(*) FROM {table}") for table in TABLES}
    assert sizes == {
        "address": 30,
        "department": 8,
        "currency": 3,
        "payment_type": 4,
        "counterparty": 20,
        "staff": 20,
        "design": 470,
        "sales_order": 11_180,
        "purchase_order": 4_650,
        "transaction": 15_830,
        "payment": 15_830,
    }


@pytest.mark.parametrize("table", TABLES)
def test_keys_are_dense_and_the_sequence_goes_on_after_them(totesys: str, table: str) -> None:
    (bounds,) = query(totesys, f"SELECT min({table}_id), max({table}_id), count(*) FROM {table}")
    assert bounds == (1, bounds[2], bounds[2])
    assert query(totesys, f"SELECT last_value, is_called FROM {table}_{table}_id_seq") == [(bounds[2], True)]


def test_orders_are_spread_evenly_over_the_working_hours(totesys: str) -> None:
    days = query(totesys, "SELECT extract(isodow FROM created_at), count(*) FROM sales_order GROUP BY 1 ORDER BY 1")
    hours = query(totesys, "SELECT extract(hour FROM created_at), count(*) FROM sales_order GROUP BY 1 ORDER BY 1")
    assert [int(day) for day, _ in days] == [1, 2, 3, 4, 5]
    assert [int(hour) for hour, _ in hours] == list(range(8, 19))
    assert max(count for _, count in days) < 1.15 * min(count for _, count in days)
    assert max(count for _, count in hours) < 1.25 * min(count for _, count in hours)


def test_orders_fill_the_days_up_to_the_end(totesys: str) -> None:
    months = query(totesys, "SELECT date_trunc('month', created_at), count(*) FROM sales_order GROUP BY 1 ORDER BY 1")
    assert value(totesys, "SELECT min(created_at)::date FROM payment") == (UNTIL - timedelta(days=730)).date()
    assert value(totesys, "SELECT max(created_at) FROM payment") > UNTIL - timedelta(hours=3)
    assert all(350 < count < 600 for _, count in months[1:-1])


def test_reference_rows_carry_the_stamp_of_the_first_opening_and_come_before_any_order(totesys: str) -> None:
    opening = datetime(2022, 11, 16, 8)
    for table in ("address", "department", "currency", "payment_type", "counterparty", "staff"):
        assert query(totesys, f"SELECT DISTINCT created_at, last_updated FROM {table}") == [(opening, opening)]
    assert value(totesys, "SELECT count(*) FROM design WHERE created_at = %s", [opening]) == 10
    assert value(totesys, "SELECT min(created_at) FROM payment") > opening


def test_even_a_first_day_of_seconds_puts_orders_after_the_reference_rows(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    until = datetime(2024, 11, 15, 8, 0, 20)
    create(url, scale=0.01, until=until, days=0)
    (bounds,) = query(url, "SELECT min(created_at), max(created_at) FROM payment")
    assert until - timedelta(seconds=10) <= bounds[0] < bounds[1] <= until
    assert value(url, "SELECT min(created_at) FROM staff") == until - timedelta(seconds=20)


def test_two_payments_in_five_are_never_paid_and_batches_are_as_large_as_the_real_ones(totesys: str) -> None:
    assert 0.36 < value(totesys, "SELECT avg((NOT paid)::int)::float FROM payment") < 0.42
    batches = "SELECT max(n) FROM (SELECT count(*) AS n FROM payment WHERE paid GROUP BY last_updated) AS batch"
    assert 25 <= value(totesys, batches) <= 50


def test_a_few_payments_do_not_have_the_number_of_their_transaction(totesys: str) -> None:
    assert 10 <= value(totesys, "SELECT count(*) FROM payment WHERE payment_id <> transaction_id") <= 80


def test_first_and_last_agreed_days_are_rarer_than_those_between(totesys: str) -> None:
    delays = "SELECT agreed_delivery_date::date - created_at::date, count(*) FROM sales_order GROUP BY 1 ORDER BY 1"
    counts = [count for _, count in query(totesys, delays)]
    assert len(counts) == 8
    assert max(counts[0], counts[-1]) < 0.75 * min(counts[1:-1])


@pytest.mark.parametrize("column", ["design_id", "staff_id", "counterparty_id", "currency_id"])
def test_orders_are_spread_over_all_that_they_refer_to(totesys: str, column: str) -> None:
    table = column.removesuffix("_id")
    used, kept = f"SELECT count(DISTINCT {column}) FROM sales_order", f"SELECT count(*) FROM {table}"
    assert value(totesys, used) >= (0.9 if table == "design" else 1) * value(totesys, kept)


@pytest.mark.parametrize(
    ("table", "column", "text"),
    [
        ("staff", "last_name", "O'Keefe"),
        ("staff", "email_address", "niall.o'keefe@terrifictotes.com"),
        ("address", "country", "Democratic People's Republic of Korea"),
        ("address", "country", "Bouvet Island (Bouvetoya)"),
        ("address", "country", "Svalbard & Jan Mayen Islands"),
        ("address", "postal_code", "08841"),
        ("address", "postal_code", "02813"),
        ("address", "city", "Kuusijärvi"),
        ("counterparty", "counterparty_legal_name", "Padberg, Lueilwitz and Johnson"),
        ("department", "location", "Leds"),
        ("design", "file_location", "/usr/local/src"),
    ],
)
def test_text_that_breaks_careless_code_is_there(totesys: str, table: str, column: str, text: str) -> None:
    assert value(totesys, f"SELECT count(*) FROM {table} WHERE {column} = %s", [text]) > 0


def test_nullable_text_is_both_given_and_missing(totesys: str) -> None:
    for column in ("address_line_2", "district"):
        assert 0 < value(totesys, f"SELECT count({column}) FROM address") < 30


def test_currencies_and_payment_types_have_the_numbers_of_the_source(totesys: str) -> None:
    assert query(totesys, "SELECT currency_id, currency_code FROM currency ORDER BY 1") == [
        (1, "GBP"),
        (2, "USD"),
        (3, "EUR"),
    ]
    names = query(totesys, "SELECT payment_type_name::text FROM payment_type ORDER BY payment_type_id")
    assert [name for (name,) in names] == ["SALES_RECEIPT", "SALES_REFUND", "PURCHASE_PAYMENT", "PURCHASE_REFUND"]


def test_a_filled_database_has_the_constraints_of_the_ddl(totesys: str, postgres_server: PostgresServer) -> None:
    constraints = """
        SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid), convalidated FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"""
    empty = postgres_server.database()
    with psycopg.connect(empty) as connection:
        connection.execute(DDL)
    assert query(totesys, constraints) == query(empty, constraints)


def test_foreign_keys_restrict_deletion_save_those_of_transactions(totesys: str) -> None:
    rules = query(
        totesys, "SELECT conrelid::regclass::text, confupdtype, confdeltype FROM pg_constraint WHERE contype = 'f'"
    )
    assert len(rules) == 17
    assert {update for _, update, _ in rules} == {"c"}
    assert sorted(table for table, _, delete in rules if delete == "n") == ["transaction", "transaction"]
    assert {delete for table, _, delete in rules if table != "transaction"} == {"r"}


def test_the_same_seed_gives_the_same_rows_whatever_the_plan_and_another_seed_others(
    postgres_server: PostgresServer,
) -> None:
    first, second, third = (postgres_server.database() for _ in range(3))
    create(first, scale=0.05, until=UNTIL, seed=5)
    other_plan = "options=-c%20enable_hashjoin%3Doff%20-c%20enable_nestloop%3Doff%20-c%20jit_above_cost%3D0"
    create(f"{second}{'&' if '?' in second else '?'}{other_plan}", scale=0.05, until=UNTIL, seed=5)
    create(third, scale=0.05, until=UNTIL, seed=6)
    assert fingerprint(first) == fingerprint(second)
    for table in (*PARTITIONED, "design"):
        assert fingerprint(first, table) != fingerprint(third, table)


def test_orders_grow_in_proportion_to_the_scale_and_designs_with_its_root(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    create(url, scale=0.25, until=UNTIL, days=100)
    assert value(url, "SELECT count(*) FROM sales_order") == 11_180 / 4
    assert value(url, "SELECT count(*) FROM design") == 470 / 2
    assert value(url, "SELECT count(*) FROM staff") == 20
    assert value(url, "SELECT min(created_at)::date FROM sales_order") == (UNTIL - timedelta(days=100)).date()


def test_a_small_scale_is_made_at_once(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    started = time.monotonic()
    create(url, scale=0.05, until=UNTIL)
    assert time.monotonic() - started < 10
    assert value(url, "SELECT count(*) FROM sales_order") == 559
    assert value(url, "SELECT count(*) FROM payment WHERE payment_id <> transaction_id") > 0


def test_data_ends_now_unless_told_otherwise(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    told: list[str] = []
    create(url, scale=0.01, days=14, report=told.append)
    now = datetime.now(UTC).replace(tzinfo=None)
    newest = value(url, "SELECT max(greatest(created_at, last_updated)) FROM payment")
    assert now - timedelta(days=5) < newest <= now
    assert told[0] == "made 11 tables"
    assert told[1].startswith("placed 112 sales orders and 46 purchase orders from ")


def test_the_end_may_be_given_in_any_time_zone(postgres_server: PostgresServer) -> None:
    first, second = postgres_server.database(), postgres_server.database()
    create(first, scale=0.01, until=UNTIL)
    create(second, scale=0.01, until=UNTIL.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=9))))
    assert fingerprint(first) == fingerprint(second)


def test_a_database_that_has_tables_of_totesys_is_refused_without_its_password(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE staff (staff_id int)")
    parts = urlsplit(url)
    password = parts.password or "open-sesame"
    host = parts.netloc.rpartition("@")[2]
    secret = urlunsplit(parts._replace(netloc=f"{parts.username}:{password}@{host}"))
    with pytest.raises(DatabaseNotEmptyError, match=r"already has tables of ToteSys \(staff\)") as refused:
        create(secret, scale=0.01)
    assert isinstance(refused.value, ValueError)
    assert password not in str(refused.value)
    assert query(url, "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'") == [
        ("staff",)
    ]


def test_tables_of_others_are_left_alone(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE _prisma_migrations (id int PRIMARY KEY, before int REFERENCES _prisma_migrations)"
        )
    create(url, scale=0.01, until=UNTIL)
    assert (
        value(
            url, "SELECT count(*) FROM pg_constraint WHERE conrelid = '_prisma_migrations'::regclass AND contype = 'f'"
        )
        == 1
    )


def test_a_creation_that_fails_leaves_nothing(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()

    def fail(sentence: str) -> None:
        raise RuntimeError(sentence)

    with pytest.raises(RuntimeError, match="made 11 tables"):
        create(url, scale=0.01, report=fail)
    assert value(url, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == 0


@pytest.mark.parametrize(
    ("scale", "until", "days"),
    [(0, UNTIL, 730), (-1, UNTIL, 730), (1, datetime(2024, 11, 17, 12), 1), (1, UNTIL, -1)],
)
def test_a_scale_or_days_that_leave_no_order_are_refused(scale: float, until: datetime, days: int) -> None:
    with pytest.raises(ValueError, match="leave no order to make"):
        create("postgresql://nowhere.invalid/none", scale=scale, until=until, days=days)


def test_office_hours_are_those_of_weekdays_and_end_with_the_data() -> None:
    thursday = datetime(2024, 11, 14, 23)
    monday = datetime(2024, 11, 18, 9, 30)
    assert [(f"{opens:%a %H:%M}", f"{closes:%a %H:%M}") for opens, closes in office_hours(thursday, monday)] == [
        ("Thu 08:00", "Thu 19:00"),
        ("Fri 08:00", "Fri 19:00"),
        ("Mon 08:00", "Mon 09:30"),
    ]
    assert len(office_hours(thursday, datetime(2024, 11, 18, 7, 59))) == 2


# --- Traffic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "table"), [("new_sale", "sales_order"), ("new_purchase", "purchase_order")])
def test_a_new_order_comes_with_its_transaction_and_its_payment_in_one_stamp(
    live: str, traffic: Traffic, event: str, table: str
) -> None:
    before = snapshot(live)
    sentence = getattr(traffic, event)()
    after = snapshot(live)
    inserted, deleted, changed = difference(before, after)
    assert (set(inserted), deleted, changed) == ({table, "transaction", "payment"}, {}, {})
    rows = [after[name][key] for name, keys in inserted.items() for key in keys]
    (stamp,) = {stamp for row in rows for stamp in (row["created_at"], row["last_updated"])}
    assert abs(stamp - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=5)
    (key,) = inserted[table]
    assert key > max(before[table])
    assert sentence.startswith(f"new {table.replace('_', ' ')} {key}, ")
    assert not rows[-1]["paid"]


def test_a_new_design_can_be_sold(live: str, traffic: Traffic) -> None:
    before = snapshot(live)
    sentence = traffic.new_design()
    after = snapshot(live)
    inserted, deleted, changed = difference(before, after)
    assert (set(inserted), deleted, changed) == ({"design"}, {}, {})
    design = after["design"][inserted["design"][0]]
    assert design["created_at"] == design["last_updated"]
    assert sentence == f"new design {design['design_id']}, {design['design_name']}"


def test_a_silent_update_changes_one_column_and_no_timestamp(live: str, traffic: Traffic) -> None:
    seen: set[tuple[str, str]] = set()
    before = snapshot(live)
    for _ in range(70):
        sentence = traffic.silent_update()
        after = snapshot(live)
        inserted, deleted, changed = difference(before, after)
        assert (inserted, deleted) == ({}, {})
        (((table, key), columns),) = changed.items()
        (column,) = columns
        was, now = before[table][key][column], after[table][key][column]
        assert sentence == f"{table.replace('_', ' ')} {key}: {column} {was} is now {now}, silently"
        seen.add((table, column))
        before = after
    assert seen == set(CHANGES)


def test_silent_updates_reach_orders_of_any_age(live: str, traffic: Traffic) -> None:
    sentences = [traffic.silent_update() for _ in range(200)]
    keys = [int(found[1]) for sentence in sentences if (found := re.match(r"sales order (\d+)", sentence))]
    assert min(keys) < 40
    assert max(keys) > 180


def test_a_stamped_update_moves_last_updated_too(live: str, traffic: Traffic) -> None:
    for _ in range(20):
        before = snapshot(live)
        traffic.stamped_update()
        after = snapshot(live)
        inserted, deleted, changed = difference(before, after)
        assert (inserted, deleted) == ({}, {})
        (((table, key), columns),) = changed.items()
        (column,) = columns - {"last_updated"}
        assert (table, column) in CHANGES
        assert after[table][key]["last_updated"] > before[table][key]["last_updated"]


def test_settled_payments_share_their_last_updated_and_the_longest_due_come_first(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.database()
    create(url, scale=0.1, until=datetime.now(UTC) - timedelta(days=10), days=30)
    before = snapshot(url)
    with Traffic(url, seed=1) as traffic:
        sentence = traffic.settle_payments()
    after = snapshot(url)
    inserted, deleted, changed = difference(before, after)
    assert (inserted, deleted) == ({}, {})
    assert {frozenset(columns) for columns in changed.values()} == {frozenset({"paid", "last_updated"})}
    assert len({after[table][key]["last_updated"] for table, key in changed}) == 1
    assert re.match(rf"{len(changed)} payments? settled, dated ", sentence)
    settled = [after["payment"][key] for _, key in changed]
    payable = [
        row["payment_date"]
        for row in before["payment"].values()
        if not row["paid"]
        and row["payment_date"] > f"{row['created_at']:%Y-%m-%d}"
        and datetime.fromisoformat(row["payment_date"]).isoweekday() <= 5
    ]
    assert len(payable) > len(settled)
    assert sorted(row["payment_date"] for row in settled) == sorted(payable)[: len(settled)]


def test_payments_of_weekends_and_of_the_day_of_creation_are_left_when_all_others_are_settled(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.database()
    create(url, scale=0.01, days=14)
    with Traffic(url, seed=1) as traffic:
        while traffic.settle_payments() != "no payment to settle":
            pass
    left = query(url, "SELECT payment_date::date, created_at::date FROM payment WHERE NOT paid")
    assert left
    assert all(due.isoweekday() > 5 or due == created for due, created in left)


def test_a_payment_date_that_is_no_date_does_not_stop_the_settling(live: str, traffic: Traffic) -> None:
    traffic.new_sale()
    with psycopg.connect(live) as connection:
        newest = "WHERE payment_id = (SELECT max(payment_id) FROM payment)"
        connection.execute(f"UPDATE payment SET payment_date = 'tomorrow' {newest}")
        assert traffic.settle_payments()
        connection.rollback()


def test_a_deletion_takes_an_order_with_its_transaction_and_its_payment(live: str, traffic: Traffic) -> None:
    before = snapshot(live)
    sentences = [traffic.delete_order() for _ in range(6)]
    after = snapshot(live)
    inserted, deleted, changed = difference(before, after)
    assert (inserted, changed) == ({}, {})
    orders = deleted.get("sales_order", []) + deleted.get("purchase_order", [])
    assert len(orders) == len(deleted["transaction"]) == len(deleted["payment"]) == 6
    assert {re.sub(r"\d+", "N", sentence) for sentence in sentences} == {
        "sales order N deleted, with its transaction and its payment",
        "purchase order N deleted, with its transaction and its payment",
    }
    ages = [max(before["transaction"]) - key for key in deleted["transaction"]]
    assert sorted(ages)[3] < 60


def test_a_transaction_that_has_lost_its_order_is_not_taken_for_an_order(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    create(url, scale=0.0001, until=UNTIL)
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM sales_order")
        connection.execute("DELETE FROM purchase_order")
    with Traffic(url) as traffic:
        assert traffic.delete_order() == "no order to delete"


def test_reference_changes_are_stamped_and_the_typo_of_the_source_stays(live: str, traffic: Traffic) -> None:
    first = before = snapshot(live)
    seen: set[tuple[str, str]] = set()
    for _ in range(60):
        traffic.change_reference()
        after = snapshot(live)
        inserted, deleted, changed = difference(before, after)
        assert (inserted, deleted) == ({}, {})
        (((table, _), columns),) = changed.items()
        assert "last_updated" in columns
        seen |= {(table, column) for column in columns}
        before = after
    assert {place for place in seen if place[1] != "last_updated"} == {
        ("address", "address_line_1"),
        ("address", "phone"),
        ("department", "location"),
        ("department", "manager"),
        ("staff", "department_id"),
        ("staff", "email_address"),
    }
    assert [key for key, row in after["department"].items() if row["location"] == "Leds"] == [
        key for key, row in first["department"].items() if row["location"] == "Leds"
    ]


def test_two_hundred_steps_keep_the_rules_that_last(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    create(url, scale=0.05)
    before = snapshot(url)
    told: list[str] = []
    with Traffic(url, seed=11, on_event=told.append) as traffic:
        assert [traffic.step() for _ in range(200)] == told
    assert {rule: query(url, text)[:3] for rule, text in LASTING.items() if query(url, text)} == {}
    inserted, deleted, changed = difference(before, snapshot(url))
    assert 100 < len(inserted["transaction"]) < 180
    assert deleted
    assert changed
    assert sum(sentence.startswith("new ") for sentence in told) > 100
    assert any(sentence.endswith("silently") for sentence in told)


def test_the_same_seed_makes_the_same_traffic(postgres_server: PostgresServer) -> None:
    told: list[list[str]] = []
    for seed in (3, 3, 4):
        url = postgres_server.database()
        create(url, scale=0.01, until=UNTIL)
        with Traffic(url, seed=seed) as traffic:
            told.append([traffic.step() for _ in range(30)])
    assert told[0] == told[1] != told[2]


def test_a_run_ends_at_its_limit(live: str) -> None:
    told: list[str] = []
    with Traffic(live, seed=1, on_event=told.append) as traffic:
        assert traffic.run(1000, threading.Event(), limit=25) == 25
    assert len(told) == 25


def test_a_run_keeps_to_its_rate(traffic: Traffic) -> None:
    started = time.monotonic()
    traffic.run(100, threading.Event(), limit=60)
    assert 0.3 < time.monotonic() - started < 10


def test_a_run_ends_when_it_is_stopped(traffic: Traffic) -> None:
    stop = threading.Event()
    made: list[int] = []
    runner = threading.Thread(target=lambda: made.append(traffic.run(0.01, stop)))
    runner.start()
    stop.set()
    runner.join(timeout=5)
    assert made == [0]


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_that_is_not_above_0_is_refused(traffic: Traffic, rate: float) -> None:
    with pytest.raises(ValueError, match="events per second: give a number above 0"):
        traffic.run(rate, threading.Event())


def test_traffic_goes_on_after_its_connection_was_lost(live: str, traffic: Traffic) -> None:
    traffic.new_sale()
    terminate = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
    assert query(live, terminate) == [(True,)]
    before = value(live, "SELECT count(*) FROM sales_order")
    assert traffic.new_sale().startswith("new sales order ")
    assert value(live, "SELECT count(*) FROM sales_order") == before + 1


def test_a_server_that_stays_away_is_an_error(
    postgres_server: PostgresServer, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("totesys_assets.local.simulator.traffic.RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr("totesys_assets.local.simulator.traffic.RETRY_SECONDS", 0.05)
    url = postgres_server.database()
    create(url, scale=0.01, until=UNTIL)
    with Traffic(url) as traffic:
        with psycopg.connect(live, autocommit=True) as connection:
            name = sql.Identifier(urlsplit(url).path.lstrip("/"))
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            traffic.new_sale()


def test_an_error_that_is_no_lost_connection_is_not_retried(live: str) -> None:
    waiting = f"{live}{'&' if '?' in live else '?'}options=-c%20lock_timeout%3D50"
    with Traffic(waiting) as traffic, psycopg.connect(live) as connection:
        connection.execute("LOCK TABLE sales_order")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            traffic.new_sale()
        connection.rollback()
        assert traffic.new_sale().startswith("new sales order ")


def test_traffic_on_a_totesys_without_rows_says_what_it_lacks(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    with psycopg.connect(url) as connection:
        connection.execute(DDL)
    with Traffic(url, seed=2) as traffic:
        assert traffic.delete_order() == "no order to delete"
        assert traffic.settle_payments() == "no payment to settle"
        assert re.match(r"no (sales order|purchase order|design) to change", traffic.silent_update())
        with pytest.raises(LookupError, match=r"fill it with create\(\) first"):
            traffic.new_sale()


def test_traffic_needs_its_with_block(live: str) -> None:
    with pytest.raises(RuntimeError, match="with Traffic"):
        Traffic(live).new_sale()
