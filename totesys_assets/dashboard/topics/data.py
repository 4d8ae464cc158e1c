"""The page Data: how fresh each table is, what the audit found, which rates are used, and what is in no figure."""

from __future__ import annotations

from collections import Counter
from typing import Any

import streamlit as st

from totesys_assets.counting import counted
from totesys_assets.dashboard import charts, words
from totesys_assets.dashboard.asking import Asked, ask, dagster_ui
from totesys_assets.dashboard.filters import Filters
from totesys_assets.dashboard.panel import panel
from totesys_assets.dashboard.tables import table

_CARRIED = "For how many days, at the most, a rate was carried in the period"
# Findings of the audit in full; the data of the panel has all.
_MOST_FINDINGS = 8
# Colour, word, and what is said of several, of each outcome of a check but that it passed.
_OUTCOMES = {
    "different": ("red", "fails", "{:,} failed"),
    "warning": ("orange", "warns", "{:,} warned about the data in the source"),
    "pending": ("gray", "waits", "{:,} could compare nothing yet"),
}


def draw(filters: Filters) -> None:
    """Draw the page."""
    given = filters.parameters
    wide, narrow = st.columns([3, 2])
    with wide:
        panel(
            "Tables",
            lambda: ask("freshness"),
            _tables,
            note="when rows were last loaded (UTC). A table in which nothing changed is not loaded again",
            stretch=False,
        )
        if address := dagster_ui():
            st.link_button("Runs and checks in Dagster ↗", address)
    with narrow:
        panel(
            "Last audit",
            lambda: ask("last_audit"),
            _audit,
            note="source, lake and warehouse compared by content, every night",
            empty="No audit has been noted yet. One runs every night; `totesys audit` runs one now.",
            stretch=False,
        )
        panel(
            "Log of ToteSys",
            lambda: ask("how_exact"),
            _stretches,
            note="since when the history has every committed version, as of the last load of each table. Before that, "
            "and in between, it has what refreshes saw",
            empty="It is not followed: the history has what refreshes saw.",
            stretch=False,
        )
        panel(
            "Dead letters",
            lambda: ask("dead_letters"),
            _letters,
            note="rows that break a type or a rule. They are kept aside, and are in no figure, until they are mended",
            empty="Nothing has been noted yet. Every load notes the dead letters of the tables that it reads.",
            stretch=False,
        )
        panel(
            "Exchange rates",
            lambda: ask("rates_used", **given),
            lambda asked: _rates(asked, filters),
            note="of the days of the period; a day without a published rate carries the one before",
            stretch=False,
        )
        panel(
            "Orders that cannot be converted",
            lambda: ask("unconverted_orders", **given),
            _unconverted,
            empty="Every order of the period has a rate.",
            stretch=False,
        )
        panel(
            "Countries that are not known",
            lambda: ask("unknown_countries", **given),
            _plain,
            empty="Every country of delivery has an ISO code.",
            stretch=False,
        )
        panel(
            "Names in files that are not known",
            lambda: ask("unmatched_files"),
            _unmatched,
            note="often another spelling: what stands beside them is compared with no sale, or not converted",
            empty="Every department, country and currency in the files is known.",
            stretch=False,
        )


def _tables(asked: Asked) -> None:
    columns = st.column_config
    shown = {
        "table_name": "table",
        "rows": columns.NumberColumn("records", format="localized"),
        "loaded_at": columns.DatetimeColumn("loaded", format="D MMM, HH:mm:ss", timezone="UTC"),
    }
    table(charts.frame(asked.answer), shown, key="tables")


def _audit(asked: Asked) -> None:
    found = asked.rows()
    newest = max(found, key=lambda each: each["audited_at"])
    counts = Counter(each["outcome"] for each in found)
    said = [f"{counts['equal']:,} passed"]
    said += [text.format(counts[each]) for each, (*_, text) in _OUTCOMES.items() if counts[each]]
    st.markdown(f"**{words.moment(newest['audited_at'])}**: {counted(len(found), 'check')}, {', '.join(said)}.")
    others = [each for each in found if each["outcome"] != "equal"]
    for each in others[:_MOST_FINDINGS]:
        _finding(each)
    if len(others) > _MOST_FINDINGS:
        st.caption(f"{len(others) - _MOST_FINDINGS:,} more are in the data of this answer (⋯).")
    if (address := dagster_ui()) and newest["run_id"]:
        st.link_button("The audit in Dagster ↗", f"{address}/runs/{newest['run_id']}")


def _finding(found: dict[str, Any]) -> None:
    colour, word, _ = _OUTCOMES[found["outcome"]]
    st.markdown(
        f":{colour}-badge[{word}] {words.plain(found['asset'])}: {words.plain(found['check_name'])}  \n"
        f":small[{words.plain(found['detail'])}]"
    )


def _stretches(asked: Asked) -> None:
    newest = {row["table_name"]: row for row in asked.rows()}  # the last of each fact
    for name, row in newest.items():
        fact = name.removeprefix("fact_").replace("_", " ").capitalize()
        since, until = words.moment(row["followed_from"]), row["followed_until"]
        if until is None:
            st.markdown(f":green-badge[on] {fact}: since {since}")
        else:
            why = words.plain(row["reason"] or "")
            st.markdown(f":orange-badge[off] {fact}: no longer, since {words.moment(until)}  \n:small[{why}]")


def _letters(asked: Asked) -> None:
    data = charts.frame(asked.answer)
    kept = data[data["open_rows"] > 0]
    if kept.empty:
        st.caption(f"None: every row of {counted(len(data), 'table')} has its types and keeps the rules.")
        return
    columns = st.column_config
    shown = {
        "table_name": "table",
        "open_rows": columns.NumberColumn("rows", format="localized", width="small"),
        "since": columns.DatetimeColumn("since", format="D MMM YYYY, HH:mm", timezone="UTC"),
    }
    table(kept, shown, key="letters")
    st.caption("`totesys dead-letters` shows each of them, with the reason.")


def _rates(asked: Asked, filters: Filters) -> None:
    columns = st.column_config
    shown = {
        "currency": columns.TextColumn("from", width="small"),
        "rate": columns.NumberColumn(f"in {filters.currency}", format="%.5f", width="small"),
        "published_date": columns.DateColumn("published", format="D MMM YYYY"),
        "most_days_carried": columns.NumberColumn("carried", format="%d days", help=_CARRIED, width="small"),
    }
    table(charts.frame(asked.answer), shown, key="rates-used")


def _unconverted(asked: Asked) -> None:
    columns = st.column_config
    shown = {
        "currency": columns.TextColumn("in", width="small"),
        "orders": columns.NumberColumn("orders", format="localized", width="small"),
        "own_revenue": columns.NumberColumn("amount", format="%,.2f"),
        "first_day": columns.DateColumn("first", format="D MMM YYYY"),
        "last_day": columns.DateColumn("last", format="D MMM YYYY"),
    }
    table(charts.frame(asked.answer), shown, key="unconverted")


def _unmatched(asked: Asked) -> None:
    columns = st.column_config
    shown = {
        "folder": "folder",
        "column_name": "column",
        "value": "name",
        "rows": columns.NumberColumn("rows", format="localized", width="small"),
    }
    table(charts.frame(asked.answer), shown, key="unmatched-files")


def _plain(asked: Asked) -> None:
    table(charts.frame(asked.answer), {each: each for each in asked.answer.columns}, key=asked.question)
