"""The rules of the business: conditions that held for every row of the real ToteSys.

Belongs here: the rules, as SQL over ToteSys, with their known exceptions. A broken rule is a warning, never a failure:
rows that break one are loaded all the same. Rows that cannot be loaded are in the dead letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from totesys_assets.audit.findings import Finding
from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.counting import counted
from totesys_assets.names import TOTESYS
from totesys_assets.source.interface import SourceSnapshot
from totesys_assets.sql_text import quoted

_EXAMPLES = 5
_ORDERS = """
SELECT p.payment_id, p.payment_amount, p.currency_id, p.counterparty_id, p.payment_date, p.payment_type_id,
    t.transaction_type, coalesce(s.units_sold * s.unit_price, o.item_quantity * o.item_unit_price) AS worth,
    coalesce(s.currency_id, o.currency_id) AS order_currency_id,
    coalesce(s.counterparty_id, o.counterparty_id) AS order_counterparty_id,
    coalesce(s.agreed_payment_date, o.agreed_payment_date) AS agreed_payment_date
FROM payment AS p
JOIN "transaction" AS t USING (transaction_id)
LEFT JOIN sales_order AS s USING (sales_order_id)
LEFT JOIN purchase_order AS o USING (purchase_order_id)
"""
_GONE = (
    "Known exceptions: none in the real data. An order deleted by itself leaves its transaction and payment behind "
    "without an order; such payments are not compared."
)


@dataclass(frozen=True)
class Rule:
    """``broken``: PostgreSQL condition over ``rows`` (a query; else the table). ``key``: column that names a row."""

    table: str
    name: str
    claim: str
    key: str
    broken: str
    rows: str | None = None


RULES = (
    Rule(
        "transaction",
        "type_matches_order",
        "A SALE has a sales order and no purchase order, a PURCHASE the reverse. Known exceptions: when an order is "
        "deleted by itself, ToteSys empties its number in the transaction.",
        "transaction_id",
        "(transaction_type = 'SALE') IS DISTINCT FROM (sales_order_id IS NOT NULL) "
        "OR (transaction_type = 'PURCHASE') IS DISTINCT FROM (purchase_order_id IS NOT NULL)",
    ),
    Rule(
        "sales_order",
        "has_transaction",
        "Every sales order has a transaction, made with it. Known exceptions: none in the real data.",
        "sales_order_id",
        'NOT EXISTS (SELECT FROM "transaction" AS t WHERE t.sales_order_id = checked.sales_order_id)',
    ),
    Rule(
        "purchase_order",
        "has_transaction",
        "Every purchase order has a transaction, made with it. Known exceptions: none in the real data.",
        "purchase_order_id",
        'NOT EXISTS (SELECT FROM "transaction" AS t WHERE t.purchase_order_id = checked.purchase_order_id)',
    ),
    Rule(
        "sales_order",
        "nothing_negative",
        "Units and prices are above zero. Known exceptions: none in the real data.",
        "sales_order_id",
        "units_sold <= 0 OR unit_price <= 0",
    ),
    Rule(
        "purchase_order",
        "nothing_negative",
        "Quantities and prices are above zero. Known exceptions: none in the real data.",
        "purchase_order_id",
        "item_quantity <= 0 OR item_unit_price <= 0",
    ),
    Rule(
        "payment",
        "one_per_transaction",
        "Every transaction has one payment. payment_id and transaction_id are not always the same number, and need not "
        "be. Known exceptions: none in the real data.",
        "transaction_id",
        "payments <> 1",
        'SELECT t.transaction_id, count(p.payment_id) AS payments FROM "transaction" AS t '
        "LEFT JOIN payment AS p USING (transaction_id) GROUP BY 1",
    ),
    Rule(
        "payment",
        "amount_is_quantity_times_price",
        f"The amount is quantity times price, to the penny. {_GONE}",
        "payment_id",
        "payment_amount <> worth",
        _ORDERS,
    ),
    Rule(
        "payment",
        "agrees_with_order",
        f"Currency, counterparty and date are those of the order. {_GONE}",
        "payment_id",
        "currency_id <> order_currency_id OR counterparty_id <> order_counterparty_id "
        "OR payment_date <> agreed_payment_date",
        _ORDERS,
    ),
    Rule(
        "payment",
        "type_matches_transaction",
        "A SALE is paid by type 1 (SALES_RECEIPT), a PURCHASE by type 3 (PURCHASE_PAYMENT). Known exceptions: none in "
        "the real data; refunds, types 2 and 4, exist as types and were never used.",
        "payment_id",
        "payment_type_id <> CASE transaction_type WHEN 'SALE' THEN 1 ELSE 3 END",
        _ORDERS,
    ),
    Rule(
        "payment",
        "account_numbers_have_8_digits",
        "Account numbers have eight digits. Known exceptions: none in the real data.",
        "payment_id",
        "company_ac_number NOT BETWEEN 10000000 AND 99999999 "
        "OR counterparty_ac_number NOT BETWEEN 10000000 AND 99999999",
    ),
    Rule(
        "payment",
        "nothing_negative",
        "Amounts are above zero. Known exceptions: none in the real data.",
        "payment_id",
        "payment_amount <= 0",
    ),
)


def checks() -> Iterator[tuple[str, str]]:
    """(asset, check) of every rule."""
    for rule in RULES:
        yield f"{TOTESYS}/{rule.table}", rule.name


def examine(snapshot: SourceSnapshot, table: Table, name: str) -> Finding:
    """How many rows break rule ``name`` of ``table``, and some of their keys."""
    rule = next(each for each in RULES if (each.table, each.name) == (table.name, name))
    rows = f"({rule.rows})" if rule.rows else quoted(rule.table)
    # Under their own names, the rules know the tables of ToteSys's schema and no others.
    named = (
        f"{quoted(each.name)} AS NOT MATERIALIZED (TABLE {snapshot.relation(each)})"
        for each in catalogue().source.values()
        if each.group == TOTESYS
    )
    query = (
        f"WITH {', '.join(named)} "
        f"SELECT count(*), array_to_string((array_agg({rule.key} ORDER BY {rule.key}))[:{_EXAMPLES}], ', ') "
        f"FROM {rows} AS checked WHERE {rule.broken}"
    )
    [(count, keys)] = snapshot.rows(query)
    broken = f"{counted(count, 'row')} {'breaks' if count == 1 else 'break'} it: {rule.key} {keys}"
    detail = broken if count else "no exception"
    return Finding(f"{TOTESYS}/{table.name}", name, count == 0, detail, 0, {"exceptions": count}, warning=True)
