"""The page Data: how fresh each table is, which rates are used, and what could not be placed or converted."""

from __future__ import annotations

import streamlit as st

from totesys_assets.dashboard import charts
from totesys_assets.dashboard.asking import Asked, ask, dagster_ui
from totesys_assets.dashboard.filters import Filters
from totesys_assets.dashboard.panel import panel


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
        )
        if address := dagster_ui():
            st.link_button("Runs and checks in Dagster ↗", address)
    with narrow:
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
            _plain,
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


def _tables(asked: Asked) -> None:
    columns = st.column_config
    st.dataframe(
        charts.frame(asked.answer),
        hide_index=True,
        width="stretch",
        height="content",
        key="tables",
        column_order=["table_name", "rows", "loaded_at"],
        column_config={
            "table_name": columns.TextColumn("table"),
            "rows": columns.NumberColumn("records", format="localized"),
            "loaded_at": columns.DatetimeColumn("loaded", format="D MMM YYYY, HH:mm:ss", timezone="UTC"),
        },
    )


def _rates(asked: Asked, filters: Filters) -> None:
    columns = st.column_config
    st.dataframe(
        charts.frame(asked.answer),
        hide_index=True,
        width="stretch",
        height="content",
        key="rates-used",
        column_order=["currency", "rate", "published_date", "days", "days_carried", "most_days_carried"],
        column_config={
            "currency": columns.TextColumn("from", width="small"),
            "rate": columns.NumberColumn(f"in {filters.currency}", format="%.5f", width="small"),
            "published_date": columns.DateColumn("published", format="D MMM YYYY"),
            "days": columns.NumberColumn("days", width="small"),
            "days_carried": columns.NumberColumn("carried", width="small"),
            "most_days_carried": columns.NumberColumn("longest", width="small"),
        },
    )


def _plain(asked: Asked) -> None:
    st.dataframe(charts.frame(asked.answer), hide_index=True, width="stretch", height="content", key=asked.question)
