"""The page Sales: where it goes, which designs, to whom, and who sells it."""

from __future__ import annotations

import streamlit as st

from totesys_assets.dashboard import charts, words, world
from totesys_assets.dashboard.asking import Asked, ask
from totesys_assets.dashboard.filters import Filters
from totesys_assets.dashboard.panel import panel
from totesys_assets.dashboard.tables import table

_HEIGHT = 430


def draw(filters: Filters) -> None:
    """Draw the page."""
    given = filters.parameters
    money = f"revenue in {filters.currency}"
    wide, narrow = st.columns([3, 2])
    with wide:
        panel(
            "Where it goes",
            lambda: ask("revenue_by_country", **given),
            lambda asked: _map(asked, filters),
            note=f"{money} by country of delivery; circles for countries too small to see",
        )
    with narrow:
        panel(
            "Countries",
            lambda: ask("revenue_by_country", **given),
            lambda asked: _table(asked, filters, "country", ["country", "orders", "units", "revenue"]),
            note=money,
        )
    left, right = st.columns(2)
    with left:
        panel(
            "Designs",
            lambda: ask("revenue_by_design", **given),
            lambda asked: _bars(asked, filters, "design"),
            note=money,
        )
    with right:
        panel(
            "Customers",
            lambda: ask("revenue_by_customer", **given),
            lambda asked: _table(asked, filters, "customer", ["customer", "orders", "revenue", "share"]),
            note=f"{money}, and the part of all",
        )
    left, right = st.columns(2)
    with left:
        panel(
            "Staff",
            lambda: ask("revenue_by_staff", **given),
            lambda asked: _table(asked, filters, "staff", ["staff", "department", "orders", "revenue"]),
            note=f"orders and {money} of each member of staff",
        )
    with right:
        panel(
            "Departments",
            lambda: ask("revenue_by_department", **given),
            lambda asked: _bars(asked, filters, "department"),
            note=f"{money}; who changed department took past orders along",
        )


def _map(asked: Asked, filters: Filters) -> None:
    data = charts.frame(asked.answer)
    world.draw(data, "revenue", filters.currency)
    unknown = [words.plain(str(each)) for each in data[data["country_code"].isna()]["country"]]
    if unknown:
        st.caption(f"⚠️ Not on the map, because the table of countries does not know the name: {', '.join(unknown)}")


def _bars(asked: Asked, filters: Filters, label: str) -> None:
    data = charts.frame(asked.answer)
    height = max(200, 34 * len(data))
    charts.by_name(
        data, label, "revenue", name=f"{label}s", unit=filters.currency, more=["orders", "units"], height=height
    )


def _table(asked: Asked, filters: Filters, name: str, shown: list[str]) -> None:
    columns = st.column_config
    data = charts.frame(asked.answer)
    numbers = {
        "orders": columns.ProgressColumn("orders", min_value=0, max_value=int(data["orders"].max()), format="%d"),
        "units": columns.NumberColumn("bags", format="compact"),
        "revenue": columns.NumberColumn(f"revenue, {filters.currency}", format="%,.0f"),
        "share": columns.NumberColumn("share", format="percent"),
    }
    table(data, {each: numbers.get(each, each) for each in shown}, key=f"{name}-table", height=_HEIGHT)
