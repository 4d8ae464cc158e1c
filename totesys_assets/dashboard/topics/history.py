"""The page History: how an order came to be, what changed lately, and what was known at a moment."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

import streamlit as st

from totesys_assets.counting import counted
from totesys_assets.dashboard import charts, words
from totesys_assets.dashboard.asking import Asked, ask
from totesys_assets.dashboard.filters import Filters
from totesys_assets.dashboard.panel import panel
from totesys_assets.dashboard.tables import table
from totesys_assets.errors import PlatformError

_SALES = "sales_order"
_SUBJECTS = {_SALES: "Sales order", "purchase_order": "Purchase order"}
_FACTS = {**_SUBJECTS, "payment": "Payment", "exchange_rate": "Exchange rate"}
_CHANGES = 100
# Versions of an order that are shown, beside the first: the log may have thousands of them.
_SHOWN = 50
# Of an order's number, which is an int in PostgreSQL.
_LARGEST = 2**31 - 1
_SILENT = "Updates that left ToteSys's own last_updated as it was"
# In the state of a session: the order to begin with.
_FIRST = "_first_number"
_HEIGHT = 330
_COLOURS = {
    "first seen": "green",
    "updated": "blue",
    "updated silently": "orange",
    "deleted": "gray",
    "came back": "green",
}


def draw(filters: Filters) -> None:
    """Draw the page."""
    wide, narrow = st.columns([3, 2])
    with wide, st.container(key="life-frame"):
        _life()
    with narrow:
        panel(
            "Latest changes",
            lambda: ask("recent_changes", rows=_CHANGES),
            _latest,
            note="choose a row to see how the order came to be",
            empty="No order has changed since it was first seen.",
        )
    week = {"first": filters.today - timedelta(6), "last": filters.today}
    panel(
        "This week",
        lambda: ask("what_changed", **week),
        _week,
        note=f"versions first seen from {words.day(week['first'])} to {words.day(week['last'])}; the first time a row "
        "is captured is an insert",
    )
    with st.container(key="known-frame"):
        _known(filters)


def _life() -> None:
    if _FIRST not in st.session_state:  # and not the last at every load: somebody is reading
        st.session_state[_FIRST] = _last_changed()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.segmented_control(
            "Order",
            list(_SUBJECTS),
            format_func=_SUBJECTS.__getitem__,
            default=_SALES,
            required=True,
            key="subject",
            bind="query-params",
            label_visibility="collapsed",
        )
        # As a float: Streamlit makes an int of any number in the address, and 1e400 is none.
        asked = st.number_input(
            "Number",
            min_value=1.0,
            max_value=float(_LARGEST),
            value=float(st.session_state[_FIRST]),
            step=1.0,
            format="%.0f",
            key="number",
            bind="query-params",
            label_visibility="collapsed",
            width=160,
        )
    number = int(asked)
    subject = str(chosen or _SALES)  # an address that ends behind "subject=" chooses nothing
    panel(
        f"{_SUBJECTS[subject]} {number}",
        lambda: ask("order_life", subject=subject, number=number),
        _versions,
        note=f"{_how_exact(subject)}, in UTC; silent: ToteSys left its own last_updated as it was",
        empty="There is no order of this number.",
        key="life",
    )


def _how_exact(subject: str) -> str:
    """Which versions of an order there are: all that were committed, since when; or those that refreshes saw."""
    try:
        found = ask("how_exact").answer.rows
    except PlatformError:
        found = []
    ends = [(since, until) for name, since, until, _ in found if name == f"fact_{subject}"]
    if not ends:
        return "every version that a refresh saw"
    since, until = ends[-1]
    if until is None:
        committed = f"every version that was committed since {words.moment(since)}"
        return f"{committed}, and before that every state that a refresh saw"
    stretch = f"from {words.moment(since)} to {words.moment(until)}"
    return f"every version that a refresh saw, and {stretch} every one that was committed"


def _last_changed() -> int:
    """The sales order that changed last, to begin with."""
    try:
        found = ask("recent_changes", rows=_CHANGES).answer.rows
    except PlatformError:
        return 1
    return next((number for subject, number, *_ in found if subject == "sales_order"), 1)


def _versions(asked: Asked) -> None:
    rows = asked.rows()
    left_out = max(0, len(rows) - 1 - _SHOWN)
    for place, row in enumerate(rows[:1] + rows[1 + left_out :]):
        if left_out and place == 1:
            versions = counted(left_out, "version")
            st.caption(f"{versions} later, the newest {_SHOWN}; the menu of this panel has all of them as CSV:")
        what = row["what_happened"]
        st.markdown(
            f":{_COLOURS.get(what, 'blue')}-badge[{what}] {words.moment(row['valid_from'])}  \n"
            f":small[{words.plain(row['what_changed'])}]"
        )


def _latest(asked: Asked) -> None:
    data = charts.frame(asked.answer)

    def choose() -> None:
        chosen: Any = st.session_state["latest"]
        for place in chosen["selection"]["rows"][:1]:
            st.session_state["subject"] = data["subject"][place]
            st.session_state["number"] = float(data["number"][place])

    columns = st.column_config
    table(
        data.assign(
            subject=[_SUBJECTS[each].removesuffix(" order") for each in data["subject"]],
            what_happened=data["what_happened"].replace("updated silently", "silent"),
        ),
        {  # as narrow as a telephone
            "subject": columns.TextColumn("order", width=74),
            "number": columns.NumberColumn("number", format="%d", width=62),
            "what_happened": columns.TextColumn("what", width=68, help="Silent: last_updated was left as it was"),
            "recorded_at": columns.DatetimeColumn("seen", format="D MMM, HH:mm", timezone="UTC"),
        },
        key="latest",
        height=_HEIGHT,
        on_select=choose,
        selection_mode="single-row",
    )


def _week(asked: Asked) -> None:
    data = charts.frame(asked.answer)
    named = {"inserts": "inserts", "updates": "updates", "silent_updates": "silent", "deletes": "deletes"}
    helps = {"silent_updates": _SILENT}
    numbers = {
        name: st.column_config.NumberColumn(label, format="localized", help=helps.get(name))
        for name, label in named.items()
    }
    table(data.assign(fact=data["fact"].replace(_FACTS)), {"fact": "versions of", **numbers}, key="week")


def _known(filters: Filters) -> None:
    moment = st.datetime_input(
        "What was known at (UTC)",
        value=datetime.combine(filters.today, time()),
        key="known",
        bind="query-params",
        width=260,
    )
    panel(
        f"Known then, known now, by {filters.period}",
        lambda: ask("known_on", **filters.parameters, moment=moment.replace(tzinfo=UTC)),
        lambda asked: _compared(asked, filters),
        note=f"revenue in {filters.currency} of the same days, as it had been captured then and as it is now. "
        "Paler: not complete",
        key="known-then",
    )


def _compared(asked: Asked, filters: Filters) -> None:
    data = charts.frame(asked.answer)
    if not data["orders_then"].any():
        st.caption("Nothing had been captured by then: choose a later moment.")
    kinds = {"revenue_then": "known then", "revenue_now": "known now"}
    shown = data.melt(["period"], list(kinds), "known", "revenue")
    whole = [filters.is_whole(each.date()) for each in shown["period"]]
    shown = shown.assign(known=shown["known"].replace(kinds), whole=whole)
    charts.over_time(
        shown,
        "revenue",
        "known",
        list(kinds.values()),
        period=filters.period,
        name="compared",
        unit=filters.currency,
        stacked=False,
        height=260,
    )
