"""What all pages have in common: navigation, filters, as of when they are, and looking for news.

Belongs here: the frame of a page, drawn anew at every change. Does not belong here: what a page shows (topics/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources

import streamlit as st

from totesys_assets.counting import counted
from totesys_assets.dashboard import asking, filters, words
from totesys_assets.dashboard.palette import palette
from totesys_assets.dashboard.topics import data, history, money, overview, sales
from totesys_assets.days import MOST_DAYS_WITHOUT_A_RATE
from totesys_assets.errors import PlatformError

# Panels on a ground of their own; three dots without an arrow; less room at the top. Streamlit's own download of a
# table is not offered: its numbers are floats, and its texts may be formulas. That of the three dots is. On a telephone
# the tools of a chart would lie on what is written above it.
_STYLE = """
<style>
.stApp, [data-testid="stHeader"] {{background: {ground}}}
.block-container {{padding-top: 4.2rem; padding-bottom: 2rem; max-width: 1500px}}
[class*="st-key-panel-"], [data-testid="stMetric"] {{background: {card}}}
[data-testid="stMetricDelta"] {{font-size: .85rem}}
[class*="st-key-source-"] button {{min-height: 0; padding: 0 .5rem; letter-spacing: .1em}}
[class*="st-key-source-"] button div[aria-hidden="true"] {{display: none}}
[class*="st-key-source-"] {{width: auto !important}}
[data-testid="stElementToolbarButton"]:has(button[aria-label^="Download as CSV"]) {{display: none}}
.st-key-as-of {{text-align: right}}
@media (max-width: 640px) {{
  .block-container {{padding-left: .9rem; padding-right: .9rem}}
  .st-key-as-of {{text-align: left}}
  .st-key-map-frame {{margin: -45px 0 -35px}}
  div:has([data-testid="stVegaLiteChart"]) > [data-testid="stElementToolbar"] {{display: none}}
  .st-key-headline [data-testid="stColumn"] {{min-width: calc(50% - 1rem); flex: 1 1 calc(50% - 1rem)}}
}}
</style>
"""

_NOTHING_YET = (
    "Nothing has been loaded yet. `totesys refresh` loads the warehouse; this page shows it when it is there."
)
# The path of the page that is at /: Streamlit does not serve it, and lets no other page have it.
_UNUSED = "first"
PAGES: tuple[tuple[str, Callable[[filters.Filters], None]], ...] = (
    ("Overview", overview.draw),
    ("Sales", sales.draw),
    ("Money", money.draw),
    ("History", history.draw),
    ("Data", data.draw),
)


def main(first: str = "Overview") -> None:
    """Draw the page that the address names; the page ``first`` if it names none."""
    st.set_page_config("Terrific Totes", "👜", layout="wide")
    st.html(_STYLE.format(card=palette().card, ground=palette().ground))
    st.logo(str(resources.files("totesys_assets.dashboard").joinpath("static", "tote.svg")), size="large")
    away = asking.begin()
    chosen: filters.Filters | None = None

    def drawn(draw: Callable[[filters.Filters], None]) -> None:
        if chosen is not None:
            draw(chosen)

    pages = {
        title.lower(): st.Page(
            partial(drawn, draw),
            title=title,
            url_path=title.lower() if title != first else _UNUSED,
            default=title == first,
        )
        for title, draw in PAGES
    }
    page = _navigated(pages)
    with st.container(key="notice"):  # always there, so that nothing below moves when it says something
        if away:
            st.warning(
                f"The database is away. {words.plain(away)} This page goes on by itself when it is back.", icon="⚠️"
            )
    # Here and not on the page: filters of a page are forgotten when another is chosen.
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="filters"):
        chosen = _filters(away)
        as_of = st.container(key="as-of")
    page.run()
    if chosen is not None:
        as_of.caption(f"{_loaded()}  \n{_rates(chosen)}")
    asking.watch(bool(away))
    asking.freeze_imports()


def _navigated(pages: Mapping[str, st.Page]) -> st.Page:
    """The page of the address. One that writes a title otherwise, as /Sales or /overview, leads to the page."""
    asked = (st.context.url or "").rpartition("/")[2]
    meant = pages.get(asked.lower())
    others = []
    if meant is not None and asked != meant.url_path:
        others = [st.Page(lambda: None, title=meant.title, url_path=asked, visibility="hidden")]
    page = st.navigation([*pages.values(), *others], position="top")
    if meant is not None and page in others:
        st.switch_page(meant, query_params=st.query_params.to_dict())
    return page


def _filters(away: str) -> filters.Filters | None:
    """What is chosen. None where there is nothing to choose from, which is then said."""
    if asking.is_empty():
        if not away:
            st.info(_NOTHING_YET, icon="👜")
        return None
    try:
        ((first_day, last_day),) = asking.ask("span").answer.rows
        currencies = [str(code) for code, _ in asking.ask("currencies").answer.rows]
    except PlatformError as error:
        st.warning(words.plain(str(error)), icon="⚠️")
        return None
    if last_day is None or not currencies:
        st.info(_NOTHING_YET, icon="👜")
        return None
    return filters.choose(first_day, last_day, currencies)


def _loaded() -> str:
    loaded = asking.newest_load()
    return f"As of the load at {words.moment(loaded)}" if loaded else "As of the last load"


def _rates(chosen: filters.Filters) -> str:
    """Which rates money is converted with: it says so when they are older than the days that they are used for."""
    try:
        rates = [each for each in asking.ask("rates_used", **chosen.parameters).rows() if each["published_date"]]
    except PlatformError:
        return "The rates cannot be read now"
    if not rates:
        currency = words.plain(chosen.currency)
        return f"There are no rates for {currency}: a sum has only what is in {currency} already"
    published = max(each["published_date"] for each in rates)
    if chosen.rates == filters.CONSTANT:
        return f"All at the European Central Bank's rates of {words.day(published)}"
    kind = "monthly averages of the " if chosen.rates == filters.MONTH else ""
    carried = (chosen.last - published).days
    old = f" ⚠️ {counted(carried, 'day')} old" if carried > MOST_DAYS_WITHOUT_A_RATE else ""
    return f"Rates: {kind}European Central Bank, the newest of {words.day(published)}{old}"
