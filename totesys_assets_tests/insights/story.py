"""A small trade that questions answer in many ways: three currencies with rates and one without, odd names, changes.

Belongs here: what happens in ToteSys, one refresh after the other. Does not belong here: what is asked of it.
"""

from __future__ import annotations

from totesys_assets_tests.conftest import Platform
from totesys_assets_tests.insights.test_questions import SALES

# Names that engines may take otherwise, a code that ToteSys has twice, a currency without rates, prices at the limit of
# their type, a month that begins with a leap day, and the day's last millisecond.
ODD = """
INSERT INTO currency VALUES
    (4, 'JPY', '2024-08-19 08:00', '2024-08-19 08:00'), (5, 'GBP', '2024-08-19 08:00', '2024-08-19 08:00');
INSERT INTO address VALUES
    (5, E'5 \\\\Row', NULL, NULL, E'L''e"e`d\\\\s', '1', 'Ruritania', '1', '2024-08-19 08:00', '2024-08-19 08:00'),
    (6, '6 Row', NULL, NULL, '', '1', 'USA', '1', '2024-08-19 08:00', '2024-08-19 08:00'),
    (7, '7 Row', NULL, NULL, '東京 %(last)s ${x}', '1', 'United States of America', '1', '2024-08-19 08:00',
        '2024-08-19 08:00');
INSERT INTO counterparty VALUES (3, E'Third\\t"Ltd"\\n--', 5, 'A', 'B', '2024-08-19 08:00', '2024-08-19 08:00');
INSERT INTO staff VALUES (4, 'Ünï', E'O''Cödé \\\\', 2, 'u@terrifictotes.com', '2024-08-19 08:00', '2024-08-19 08:00');
INSERT INTO design VALUES
    (4, '2024-08-19 08:00', '日本語', '/usr', 'w.json', '2024-08-19 08:00'),
    (5, '2024-08-19 08:00', 'Wooden', '/usr', 'w.json', '2024-08-19 08:00');
INSERT INTO sales_order
SELECT 400 + n, made, made, 1 + n % 5, 1 + n % 4, 1 + n % 3, 1 + n * 7919 % 999, 0.01 + n * 1.37, 1 + n % 5,
    (made + interval '6 days')::date::text, (made + interval '9 days')::date::text, 1 + n % 7
FROM (SELECT n, timestamp '2024-08-19 23:59:59.999' + n * interval '11 days' AS made FROM generate_series(0, 30) AS n);
INSERT INTO sales_order VALUES
    (500, '2024-09-30 23:59:59.999', '2024-09-30 23:59:59.999', 1, 1, 1, 9999999, 99999.99, 2, '2024-10-10',
        '2024-10-10', 5),
    (501, '2024-10-01', '2024-10-01', 2, 2, 2, 1, 0.01, 1, '2024-10-10', '2024-10-10', 6);
INSERT INTO transaction
SELECT sales_order_id, 'SALE'::"TransactionType", sales_order_id, NULL, created_at, created_at
FROM sales_order WHERE sales_order_id >= 400;
INSERT INTO payment
SELECT sales_order_id, created_at, created_at, sales_order_id, counterparty_id,
    least(units_sold * unit_price, 99999999.99), currency_id, 1, sales_order_id % 3 = 0, agreed_payment_date, 1, 1
FROM sales_order WHERE sales_order_id >= 400;
"""
# Silent and other updates, a deletion, orders that move to another day, and one that comes back.
CHANGES = (
    """
    UPDATE sales_order SET units_sold = 1200 WHERE sales_order_id IN (1, 104, 405);
    UPDATE sales_order SET unit_price = 3.5, last_updated = '2025-08-01 09:00:00.5' WHERE sales_order_id IN (105, 406);
    UPDATE purchase_order SET item_quantity = 7 WHERE purchase_order_id = 104;
    UPDATE payment SET paid = true, last_updated = '2025-08-01 09:00' WHERE payment_id IN (110, 410);
    UPDATE staff SET department_id = 2 WHERE staff_id = 2;
    DELETE FROM payment WHERE payment_id = 411;
    DELETE FROM transaction WHERE transaction_id = 411;
    DELETE FROM sales_order WHERE sales_order_id = 411;
    """,
    """
    UPDATE sales_order SET created_at = created_at + interval '1 day' WHERE sales_order_id IN (106, 407);
    UPDATE purchase_order SET created_at = created_at + interval '40 days', last_updated = '2025-08-02'
    WHERE purchase_order_id = 105;
    UPDATE sales_order SET staff_id = 4, last_updated = '2025-08-02' WHERE sales_order_id = 1;
    INSERT INTO sales_order
    VALUES (411, '2024-12-18 10:00', '2025-08-03', 1, 1, 1, 5, 5.05, 3, '2024-12-30', '2024-12-30', 7);
    """,
)
FILES = {
    "sales_target": (
        "target_month,department_name,currency_code,amount",
        "2024-08-01,Sales,GBP,1000.05",
        "2024-09-01,Dispatch,USD,2000",
        "2024-09-01,Nobody's,JPY,3000",
    ),
    "marketing_spend": (
        "spend_month,country,currency_code,amount",
        "2024-08-01,France,EUR,77.77",
        "2024-09-01,USA,USD,88.8",
        "2024-09-01,Norway,JPY,99",
        "2024-10-01,Ruritania,GBP,0.01",
    ),
}


def happen(platform: Platform) -> None:
    """All of it, with a refresh after each step."""
    folder = platform.settings.home / "files"
    for name, lines in FILES.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    platform.sql(SALES)
    platform.sql(ODD)
    platform.refresh()
    for change in CHANGES:
        platform.sql(change)
        platform.refresh(accept_deletions=True)
