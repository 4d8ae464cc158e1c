"""The page Money: what customers owe, which payments fall due, what is bought, and what remains."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

from totesys_assets.dashboard import charts
from totesys_assets.dashboard.asking import Asked, ask
from totesys_assets.dashboard.filters import Filters
from totesys_assets.dashboard.panel import panel
from totesys_assets.dashboard.tables import table

# Weeks before and after this one whose payments are shown.
_WEEKS = 8
_MOST_OVERDUE = 100
_HEIGHT = 360
# Money that comes is drawn upwards, money that goes downwards.
_PAYMENTS = {
    ("SALES_RECEIPT", True): ("customers, paid", 1),
    ("SALES_RECEIPT", False): ("customers, unpaid", 1),
    ("PURCHASE_PAYMENT", True): ("suppliers, paid", -1),
    ("PURCHASE_PAYMENT", False): ("suppliers, unpaid", -1),
}


def draw(filters: Filters) -> None:
    """Draw the page. What is owed and what falls due is as of today, whatever period is chosen."""
    given = {**filters.parameters, "today": filters.today}
    narrow, wide = st.columns([2, 3])
    with narrow:
        panel(
            "Unpaid by customers",
            lambda: ask("receivables_by_age", **given),
            lambda asked: charts.by_name(
                charts.frame(asked.answer), "age", "amount", name="ages", unit=filters.currency, more=["payments"]
            ),
            note=f"in {filters.currency}, by the days since it was due, today",
        )
    with wide:
        panel(
            "Overdue payments",
            lambda: ask("overdue_payments", **given, rows=_MOST_OVERDUE),
            lambda asked: _overdue(asked, filters),
            note=f"the {_MOST_OVERDUE} largest; ToteSys keeps when a payment is due, not when it was made",
            empty="Nothing is overdue.",
        )
    monday = filters.today - timedelta(filters.today.weekday())
    weeks = {
        "period": "week",
        "first": monday - timedelta(7 * _WEEKS),
        "last": monday + timedelta(7 * _WEEKS + 6),
    }
    panel(
        "Payments by week",
        lambda: ask("payments_by_due_date", **{**given, **weeks}),
        lambda asked: _payments(asked, filters),
        note=f"in {filters.currency}, by the day they are due, within {_WEEKS} weeks of this one: from customers "
        "upwards, to suppliers downwards",
        empty=f"No payment is due within {_WEEKS} weeks of this one.",
    )
    wide, narrow = st.columns([3, 2])
    with wide:
        panel(
            f"Sold and bought by {filters.period}",
            lambda: ask("margin_by_period", **given),
            lambda asked: _margin(asked, filters),
            note=f"in {filters.currency}; margin is what was sold minus what was ordered from suppliers in the same "
            "period, not that of the accounts",
        )
    with narrow:
        panel(
            "Purchases by supplier",
            lambda: ask("purchases_by_supplier", **given),
            lambda asked: _suppliers(asked, filters),
            note=f"in {filters.currency}, orders created in the period",
        )


def _overdue(asked: Asked, filters: Filters) -> None:
    columns = st.column_config
    table(
        charts.frame(asked.answer),
        {
            "customer": "customer",
            "converted": columns.NumberColumn(f"amount, {filters.currency}", format="%,.2f"),
            "days_overdue": columns.NumberColumn("overdue", format="%d days", width="small"),
            "due_date": columns.DateColumn("due", format="D MMM YYYY"),
            "sales_order_id": columns.NumberColumn("order", format="%d", width="small"),
        },
        key="overdue",
        height=_HEIGHT,
    )


def _payments(asked: Asked, filters: Filters) -> None:
    data = charts.frame(asked.answer)
    known = [_PAYMENTS.get((kind, paid)) for kind, paid in zip(data["payment_type"], data["paid"], strict=True)]
    data = data.assign(
        payment=[each[0] if each else "other" for each in known],
        amount=[amount * (each[1] if each else 1) for amount, each in zip(data["amount"], known, strict=True)],
        whole=True,
    )
    kinds = [name for name, _ in _PAYMENTS.values()] + (["other"] if None in known else [])
    charts.over_time(data, "amount", "payment", kinds, period="week", name="payments", unit=filters.currency)


def _margin(asked: Asked, filters: Filters) -> None:
    data = charts.frame(asked.answer).melt(["period"], ["revenue", "cost", "margin"], "of", "amount")
    data = data.assign(
        whole=[filters.is_whole(each.date()) for each in data["period"]],
        of=data["of"].replace({"revenue": "sold", "cost": "bought"}),
    )
    kinds = ["sold", "bought", "margin"]
    charts.over_time(
        data, "amount", "of", kinds, period=filters.period, name="margin", unit=filters.currency, stacked=False
    )


def _suppliers(asked: Asked, filters: Filters) -> None:
    columns = st.column_config
    table(
        charts.frame(asked.answer),
        {
            "supplier": "supplier",
            "cost": columns.NumberColumn(f"cost, {filters.currency}", format="%,.0f"),
            "items": columns.NumberColumn("items", format="localized"),
            "orders": columns.NumberColumn("orders", format="localized"),
        },
        key="suppliers",
        height=_HEIGHT,
    )
