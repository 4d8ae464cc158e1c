"""The page Overview: how much is sold, in which currencies, which designs, and the newest orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import streamlit as st

from totesys_assets.counting import counted
from totesys_assets.dashboard import charts, palette, words
from totesys_assets.dashboard.asking import Asked, ask
from totesys_assets.dashboard.filters import Filters
from totesys_assets.dashboard.panel import panel, source
from totesys_assets.dashboard.tables import table
from totesys_assets.errors import PlatformError

_NEWEST = 10


def draw(filters: Filters) -> None:
    """Draw the page."""
    with st.container(key="headline"):
        _headline(filters)
    wide, narrow = st.columns([3, 2])
    with wide:
        panel(
            f"Revenue by {filters.period}",
            lambda: ask("revenue_by_period", **filters.parameters),
            lambda asked: revenue_by_period(asked, filters),
            note=f"in {filters.currency}, by the currency of the order. Paler: not complete",
        )
    with narrow:
        panel(
            "Designs",
            lambda: ask("revenue_by_design", **filters.parameters),
            lambda asked: charts.by_name(
                charts.frame(asked.answer),
                "design",
                "revenue",
                name="designs",
                unit=filters.currency,
                more=["orders", "units"],
            ),
            note=f"revenue in {filters.currency}, by name of the design",
        )
    panel(
        "Newest orders",
        lambda: ask("newest_orders", rows=_NEWEST),
        _newest,
        note="each in its own currency; times in UTC",
        empty="No order has been loaded yet.",
    )


def _headline(filters: Filters) -> None:
    try:
        asked = ask("headline", **filters.parameters)
        past = ask("headline", **filters.before) if filters.before else None
        trend = ask("revenue_by_period", **filters.parameters)
    except PlatformError as error:
        st.warning(f"The figures cannot be shown now. {words.plain(str(error))}", icon="⚠️")
        return
    (now,) = asked.rows()
    before = next((row for row in past.rows() if row["orders"]), {}) if past else {}
    data = charts.frame(trend.answer)
    # Without those that are not complete, so that no line ends with a fall that is none.
    data = data[[filters.is_whole(each.date()) for each in data["period"]]]
    lines = data.groupby("period")[["revenue", "orders", "units"]].sum()
    sign = words.symbol(filters.currency)
    shown: list[tuple[str, str, str, Literal["line", "bar", "area"], Any]] = [
        ("Revenue", "revenue", sign, "area", lines["revenue"]),
        ("Orders", "orders", "", "bar", lines["orders"]),
        ("Bags", "units", "", "bar", lines["units"]),
        ("Average order", "average_order", sign, "line", lines["revenue"] / lines["orders"]),
    ]
    for place, (title, name, unit, kind, line) in zip(st.columns(len(shown)), shown, strict=True):
        grew = words.change(now[name], before.get(name))
        place.metric(
            title,
            _figure(now[name], unit),
            None if grew is None else f"{grew:+.1%}",
            delta_color="off" if grew is None else "blue" if grew >= 0 else "orange",
            border=True,
            chart_data=line if len(line) > 1 else None,
            chart_type=kind,
            height="stretch",
        )
    with st.container(horizontal=True, vertical_alignment="center", key="headline-note"):
        if now["unconverted"]:
            st.caption(f"⚠️ {counted(now['unconverted'], 'order')} in a currency without a rate: not in the revenue.")
        since, until = words.day(filters.first), words.day(filters.last)
        compared = (
            f", compared with {words.day(filters.earlier[0])} to {words.day(filters.earlier[1])}"
            if before and filters.earlier
            else ""
        )
        st.caption(f"{since} to {until}{compared}")
        source(asked, "headline")


def _figure(value: Decimal | int | None, unit: str) -> str:
    """As Markdown, which Streamlit takes it for."""
    if value is not None and not unit and value < 100_000:
        return words.exact(value)
    return words.plain(words.short(value, unit))


def revenue_by_period(asked: Asked, filters: Filters) -> None:
    """Bars of revenue by the currency of the order."""
    data = charts.frame(asked.answer)
    data = data.assign(whole=[filters.is_whole(each.date()) for each in data["period"]])
    kinds = palette.in_order(data["currency"])
    charts.over_time(data, "revenue", "currency", kinds, period=filters.period, name="revenue", unit=filters.currency)


def _newest(asked: Asked) -> None:
    columns = st.column_config
    shown = {
        "sales_order_id": columns.NumberColumn("order", format="%d", width="small"),
        "created_at": columns.DatetimeColumn("placed", format="D MMM, HH:mm:ss"),
        "customer": "customer",
        "country": "country",
        "design": "design",
        "units": columns.NumberColumn("bags", format="localized"),
        "currency": columns.TextColumn("currency", width="small"),
        "revenue": columns.NumberColumn("amount", format="%,.2f"),
        "staff": "staff",
    }
    table(charts.frame(asked.answer), shown, key="newest")
