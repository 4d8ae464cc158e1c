"""A panel of a page: a heading, what is drawn of some answers, and behind a button their data and their SQL."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from totesys_assets.dashboard import words
from totesys_assets.dashboard.asking import Asked
from totesys_assets.errors import PlatformError

Ask = Callable[[], Asked]


def panel(
    title: str,
    ask: Ask,
    draw: Callable[[Asked], None],
    *,
    note: str = "",
    empty: str = "",
    key: str = "",
    stretch: bool = True,
) -> None:
    """Ask and draw in a frame of its own. An error or an empty answer is said in its place, and the rest goes on.

    ``stretch``: as high as what is beside it.
    """
    with st.container(border=True, height="stretch" if stretch else "content", key=f"panel-{key or key_of(title)}"):
        head = st.container(
            horizontal=True, horizontal_alignment="distribute", vertical_alignment="top", gap="small", wrap=False
        )
        heading = f"**{words.plain(title)}**"
        head.markdown(f"{heading}  \n:small[:gray[{words.plain(note)}]]" if note else heading)
        try:
            asked = ask()
        except PlatformError as error:
            st.warning(f"This cannot be shown now. {words.plain(str(error))}", icon="⚠️")
            return
        with head:
            source(asked, key or title)
        if asked.answer.rows:
            draw(asked)
        else:
            st.caption(empty or "There is nothing to show for these days.")


def source(asked: Asked, place: str) -> None:
    """A button that shows the SQL of an answer and gives its data as CSV, once for each ``place`` of a page."""
    key = key_of(place)
    with st.popover("⋯", type="tertiary", help="Data and SQL", key=f"source-{key}"):
        st.download_button(
            "Data as CSV",
            asked.csv,
            file_name=f"{asked.question}.csv",
            mime="text/csv",
            on_click="ignore",
            key=f"csv-{key}",
        )
        st.caption(f"The SQL of this answer: insights/questions/{asked.question}.sql with its values")
        st.code(asked.sql, "sql", wrap_lines=True)


def key_of(title: str) -> str:
    """A title as a key: Newest orders -> newest-orders."""
    return "-".join(title.lower().split())
