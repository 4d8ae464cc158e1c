"""Charts: bars over time, bars by name. Money is exact until here; a chart draws floats."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from totesys_assets.dashboard import palette, words
from totesys_assets.dashboard.filters import begins
from totesys_assets.insights.questions import Answer

_UNSURE = 0.5
# Names of a legend, on a telephone.
_MOST_IN_A_ROW = 3
# For the figure behind the longest bar.
_ROOM = 1.18


def frame(answer: Answer) -> pd.DataFrame:
    """An answer as a chart needs it: decimals as floats, days as time, what is empty as no number."""
    found = answer.frame()
    for name in found:
        kinds = {type(value) for value in found[name] if value is not None}
        if Decimal in kinds or not kinds:  # a column of nothing may be money that no rate converts
            found[name] = found[name].astype(float)
        elif kinds == {date}:
            found[name] = pd.to_datetime(found[name])
    return found


def show(chart: Any, name: str, alt_text: str) -> None:
    """Draw a chart over the whole width of where it stands."""
    colours = palette.palette()
    styled = (
        chart.configure(background="transparent")
        .configure_view(stroke=None)
        .configure_axis(labelColor=colours.text, labelFontSize=12, domain=False, ticks=False, gridOpacity=0.6)
    )
    st.altair_chart(styled, width="stretch", key=name, alt=alt_text)


def over_time(
    data: pd.DataFrame,
    value: str,
    kind: str,
    kinds: Sequence[str],
    *,
    period: str,
    name: str,
    unit: str,
    stacked: bool = True,
    height: int = 320,
) -> None:
    """Bars of all kinds for each period, stacked or side by side; paler where the column "whole" says no."""
    colours = palette.palette()
    start = next(each for each in ("period", "week", "month") if each in data)
    columns = 2 if len(kinds) > _MOST_IN_A_ROW else 0
    more: dict[str, Any] = (
        {"order": alt.Order("place:Q")} if stacked else {"xOffset": alt.XOffset(f"{kind}:N", sort=list(kinds))}
    )
    data = data.assign(label=[_label(each, period) for each in data[start]])
    # Also those without a row: a gap in time is a gap on the axis.
    ends = (data[start].min().date(), data[start].max().date()) if len(data) else None
    order = [_label(each, period) for each in begins(*ends, period)] if ends else []
    chart = (
        alt.Chart(data)
        .mark_bar(cornerRadius=2)
        .encode(
            x=alt.X(
                "label:N",
                title=None,
                sort=order,
                scale=alt.Scale(domain=order),
                axis=alt.Axis(labelAngle=0, labelOverlap=True, grid=False),
            ),
            y=alt.Y(f"{value}:Q", title=None, axis=alt.Axis(labelExpr=words.AXIS, tickCount=5)),
            color=alt.Color(
                f"{kind}:N",
                title=None,
                scale=alt.Scale(domain=list(kinds), range=list(colours.series[: len(kinds)])),
                legend=alt.Legend(
                    orient="top", labelColor=colours.text, symbolType="square", offset=12, padding=0, columns=columns
                ),
            ),
            **more,
            opacity=alt.condition("datum.whole", alt.value(1), alt.value(_UNSURE)),
            tooltip=[
                alt.Tooltip("label:N", title=period),
                alt.Tooltip(f"{kind}:N", title=kind),
                alt.Tooltip(f"{value}:Q", title=f"{value} in {unit}", format=",.0f"),
                *([alt.Tooltip("orders:Q", format=",")] if "orders" in data else []),
                alt.Tooltip("so_far:N", title="complete"),
            ],
        )
        .properties(height=height)
        .transform_calculate(place=f"indexof({list(kinds)}, datum.{kind})", so_far="datum.whole ? 'yes' : 'no, so far'")
    )
    show(chart, name, f"{value} by {period} and {kind}")


def by_name(
    data: pd.DataFrame, label: str, value: str, *, name: str, unit: str, more: Sequence[str] = (), height: int = 320
) -> None:
    """Horizontal bars in the order of the rows."""
    colours = palette.palette()
    shown = data.assign(figure=[words.short(each, words.symbol(unit)) for each in data[value]])
    # Named, for a chart of which only the data change keeps the order that it had when it was first drawn.
    order = list(dict.fromkeys(shown[label]))
    base = alt.Chart(shown).encode(
        y=alt.Y(f"{label}:N", title=None, sort=order, axis=alt.Axis(labelLimit=150, grid=False))
    )
    tooltip = [
        alt.Tooltip(f"{label}:N"),
        alt.Tooltip(f"{value}:Q", title=f"{value} in {unit}", format=",.2f"),
        *(alt.Tooltip(f"{each}:Q", format=",") for each in more),
    ]
    most = max((each for each in data[value] if each == each), default=0.0) or 1.0
    x = alt.X(f"{value}:Q", title=None, axis=None, scale=alt.Scale(domain=[0, most * _ROOM], nice=False))
    bars = base.mark_bar(color=colours.main, cornerRadiusEnd=3).encode(x=x, tooltip=tooltip)
    figures = base.mark_text(align="left", dx=5, color=colours.text, fontSize=12).encode(x=x, text="figure:N")
    show((bars + figures).properties(height=height), name, f"{value} by {label}")


def _label(start: date, period: str) -> str:
    if period == "quarter":
        return f"Q{(start.month + 2) // 3} {start:%y}"
    return start.strftime("%b %y") if period == "month" else f"{start.day} {start:%b}"
