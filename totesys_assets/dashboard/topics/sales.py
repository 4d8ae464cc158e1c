"""The page Sales: where it goes, which designs, to whom, who sells it, and what files say of targets and spend."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from totesys_assets.dashboard import charts, words, world
from totesys_assets.dashboard.asking import Asked, ask
from totesys_assets.dashboard.filters import Filters, end_of
from totesys_assets.dashboard.panel import panel
from totesys_assets.dashboard.tables import table
from totesys_assets.errors import PlatformError

# Pixels: a telephone shows the name of a country, its revenue and its orders.
_NAME = 188
_BAR = 96
_HEIGHT = 430
# Rows of a table that is not as high as that.
_FEW = 10
_NO_FILES = (
    "Sales targets and marketing spend come from files, and none has any for these months. `totesys files --templates` "
    "makes files to fill in, and says in which folders."
)


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
            lambda asked: _table(asked, "country", ["country", "revenue", "orders", "units"]),
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
            lambda asked: _table(asked, "customer", ["customer", "revenue", "share", "orders"]),
            note=f"{money}, and the part of all",
        )
    left, right = st.columns(2)
    with left:
        panel(
            "Staff",
            lambda: ask("revenue_by_staff", **given),
            lambda asked: _table(asked, "staff", ["staff", "department", "revenue", "orders"]),
            note=f"orders and {money} of each member of staff",
        )
    with right:
        panel(
            "Departments",
            lambda: ask("revenue_by_department", **given),
            lambda asked: _bars(asked, filters, "department"),
            note=f"{money}; who changed department took past orders along",
        )
    _of_files(filters)


def _of_files(filters: Filters) -> None:
    """What people drop as files, against what was sold; a line that says how to, where there is none of it."""
    given = filters.parameters
    months = f"whole months, in {filters.currency}"
    cards: list[Callable[[], None]] = []
    if _has("targets_against_sales", "target", filters):
        cards.append(
            lambda: panel(
                "Targets",
                lambda: ask("targets_against_sales", **given),
                lambda asked: _targets(asked, filters),
                note=f"against what was sold, {months}; departments without a target are in the data (⋯)",
            )
        )
    if _has("marketing_by_country", "spend", filters):
        cards.append(
            lambda: panel(
                "Marketing spend",
                lambda: ask("marketing_by_country", **given),
                lambda asked: _spend(asked, filters),
                note=f"against revenue, {months}; it does not say that the one led to the other",
            )
        )
    if not cards:
        st.caption(_NO_FILES)
        return
    for place, draw_card in zip(st.columns(len(cards)), cards, strict=True):
        with place:
            draw_card()


def _has(question: str, column: str, filters: Filters) -> bool:
    """Whether an answer has anything in a column. True if it cannot be asked: its panel says why."""
    try:
        return any(row[column] is not None for row in ask(question, **filters.parameters).rows())
    except PlatformError:
        return True


def _targets(asked: Asked, filters: Filters) -> None:
    data = charts.frame(asked.answer)
    data = data[data["target"].notna()]
    data = data.assign(reached=100 * data["revenue"] / data["target"].replace(0, float("nan")))
    bars = data.groupby("month", as_index=False)[["target", "revenue"]].sum()
    bars = bars.melt(["month"], ["target", "revenue"], "of", "amount").replace({"of": {"revenue": "sold"}})
    bars = bars.assign(whole=[end_of(each.date(), "month") < filters.today for each in bars["month"]])
    kinds = ["target", "sold"]
    charts.over_time(
        bars, "amount", "of", kinds, period="month", name="targets", unit=filters.currency, stacked=False, height=220
    )
    columns = st.column_config
    shown = {
        "month": columns.DateColumn("month", format="MMM YYYY", width="small"),
        "department": "department",
        "target": columns.NumberColumn(f"target, {filters.currency}", format="%,.0f"),
        "revenue": columns.NumberColumn(f"sold, {filters.currency}", format="%,.0f"),
        "reached": columns.NumberColumn("reached", format="%.0f%%", width="small"),
    }
    newest_first = data.sort_values(["month", "department"], ascending=[False, True])
    table(newest_first, shown, key="targets-table", height=_height(len(data)))


def _spend(asked: Asked, filters: Filters) -> None:
    data = charts.frame(asked.answer)
    columns = st.column_config
    shown = {
        "country": "country",
        "spend": columns.NumberColumn(f"spend, {filters.currency}", format="%,.0f"),
        "revenue": columns.NumberColumn(f"revenue, {filters.currency}", format="%,.0f"),
        "ratio": columns.NumberColumn("for one spent", format="%,.2f", help="the revenue for one unit spent"),
    }
    data = data[data["spend"].notna()]
    table(data, shown, key="spend-table", height=_height(len(data)))


def _height(rows: int) -> int | str:
    """Of a table that may have a row or hundreds: it scrolls only when it has many."""
    return "content" if rows <= _FEW else _HEIGHT


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


def _table(asked: Asked, name: str, shown: list[str]) -> None:
    columns = st.column_config
    data = charts.frame(asked.answer)
    if "share" in data:
        data = data.assign(share=data["share"] * 100)
    most = int(data["orders"].max())
    configured = {
        "country": columns.TextColumn("country", width=_NAME),
        # Beside the names of countries, which are long, there is no room for bars.
        "orders": columns.NumberColumn("orders", format="localized")
        if name == "country"
        else columns.ProgressColumn("orders", min_value=0, max_value=most, format="%d", width=_BAR),
        "units": columns.NumberColumn("bags", format="compact"),
        "revenue": columns.NumberColumn("revenue", format="%,.0f"),
        "share": columns.NumberColumn("share", format="%.1f%%", width="small"),
    }
    table(data, {each: configured.get(each, each) for each in shown}, key=f"{name}-table", height=_HEIGHT)
