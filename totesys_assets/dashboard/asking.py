"""Asking the warehouse: answers that are kept until a table that they read is loaded again.

Belongs here: what an answer is cached by, and noticing that there is a newer one. Does not belong here: what is asked.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import streamlit as st

from totesys_assets.errors import ConnectionFailed, PlatformError
from totesys_assets.insights.questions import Answer, questions
from totesys_assets.insights.reading import Loads, Reader, tables_of
from totesys_assets.settings import Settings

# An open page shows a new order within this time and one redraw after its load.
POLL_SECONDS = 2.0
_LOADS_SECONDS = 1.0
_MOST_ANSWERS = 1000
_NAME = "totesys_dashboard"
# In the state of a session: what was loaded when, as this run knows it, the tables that it has read, and its day.
_LOADS, _TABLES, _DAY = "_loads", "_tables", "_day"
# A cell that begins with one of these is computed by Excel, LibreOffice or Google Sheets. The last four are the wide
# signs of Japanese keyboards.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# By URL, schema and setting: who reads a warehouse, and what it said when it last answered, for a page that is opened
# while it is away.
_READERS: dict[tuple[str, str, str], Reader] = {}
_LAST: dict[tuple[str, str, str], Loads] = {}


@dataclass(frozen=True)
class Asked:
    """An answer, with the question and the values that it was asked with."""

    question: str
    parameters: dict[str, object]
    answer: Answer

    @property
    def sql(self) -> str:
        """The SQL, with its values."""
        return questions()[self.question].with_values(self.parameters)

    def rows(self) -> list[dict[str, Any]]:
        """The rows, each by the names of its columns."""
        return [dict(zip(self.answer.columns, row, strict=True)) for row in self.answer.rows]

    def csv(self) -> bytes:
        """The answer that is shown, as CSV for a spreadsheet, with exact decimals.

        What time alone changes is left out: it was true when it was asked, which may be long ago.
        """
        found, of_now = self.answer, questions()[self.question].of_now
        kept = [place for place, name in enumerate(found.columns) if name not in of_now]
        columns = tuple(found.columns[place] for place in kept)
        rows = [tuple(_as_text(row[place]) for place in kept) for row in found.rows]
        # With the line ends of RFC 4180. With others a lone \r would be written without quotes, and end a line, too.
        # With a mark at its beginning: without it Excel takes UTF-8 for another encoding.
        return Answer(columns, rows).frame().to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig")


def _as_text(value: object) -> object:
    """``value``; a text that a spreadsheet would take for a formula with an apostrophe before it, as OWASP advises."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _reader(url: str, schema: str, variable: str) -> Reader:
    return _READERS.setdefault((url, schema, variable), Reader(url, schema, variable=variable, name=_NAME))


def _here() -> tuple[str, str, str]:
    """URL, schema and setting of the warehouse that is read. Raises PlatformError when there is no URL."""
    settings = Settings.from_env()
    url = settings.warehouse_reader_url or settings.warehouse_url
    if url is None:
        raise PlatformError("The dashboard has no warehouse: start it with `totesys dashboard`.")
    return url, settings.warehouse_schema, "WAREHOUSE_READER_URL" if settings.warehouse_reader_url else "WAREHOUSE_URL"


@st.cache_data(ttl=_LOADS_SECONDS, show_spinner=False)
def _loads(url: str, schema: str, variable: str) -> Loads:
    return _reader(url, schema, variable).loads()


@st.cache_data(max_entries=_MOST_ANSWERS, show_spinner=False)
def _answer(
    url: str,
    schema: str,
    variable: str,
    question: str,
    marks: tuple[str, ...],  # noqa: ARG001 - what it is cached by
    parameters: tuple[tuple[str, object], ...],
) -> Answer:
    return _reader(url, schema, variable).answer(question, **dict(parameters))


def ask(question: str, **parameters: object) -> Asked:
    """The answer to a question; values that it has no parameter for are left out. Raises PlatformError."""
    given = {name: parameters[name] for name in questions()[question].parameters}
    tables = tables_of(question)
    st.session_state[_TABLES] |= tables
    return Asked(question, given, _answer(*_here(), question, _known().of(tables), tuple(given.items())))


def begin() -> str:
    """Begin a run of the page. Returns why the database is away: answers are then those that were known."""
    st.session_state[_TABLES], st.session_state[_DAY] = set(), _today()
    try:
        st.session_state[_LOADS] = _LAST[_here()] = _loads(*_here())
    except ConnectionFailed as error:
        st.session_state.setdefault(_LOADS, _LAST.get(_here(), Loads({}, {})))
        return str(error)
    return ""


def is_empty() -> bool:
    """Whether nothing was ever loaded, as far as is known."""
    return not _known().at


def newest_load() -> datetime | None:
    """When the newest of the tables that this run has read was loaded."""
    return max((at for table, at in _known().at.items() if table in st.session_state[_TABLES]), default=None)


def watch(away: bool) -> None:
    """Draw the page anew when a table that this run has read is loaded, the database comes or goes, or a day begins."""
    tables = frozenset(st.session_state[_TABLES])
    _poll(away, tables, _known().of(tables), st.session_state[_DAY])


@st.fragment(run_every=POLL_SECONDS)
def _poll(away: bool, tables: frozenset[str], marks: tuple[str, ...], day: date) -> None:
    """Draws nothing: what a fragment draws turns grey while it runs."""
    if _today() != day:  # what is overdue, and this week, are of another day now
        st.rerun()
    try:
        now = _loads(*_here())
    except ConnectionFailed:
        if not away:
            st.rerun()
        return
    if away or now.of(tables) != marks:
        st.rerun()


def _today() -> date:
    return datetime.now(UTC).date()


def _known() -> Loads:
    known: Loads = st.session_state[_LOADS]
    return known


@cache
def freeze_imports() -> None:
    """Let the garbage collector leave alone what was imported: Streamlit collects everything after each run.

    An idle page then costs a seventh: 0.5 instead of 3.6 processor seconds a minute.
    """
    gc.collect()
    gc.freeze()


def dagster_ui() -> str | None:
    """The address of the Dagster UI, if one is known."""
    return Settings.from_env().ui_url


def loads_are_old() -> None:
    """Look at the ledger of loads at the next run, however soon it comes."""
    _loads.clear()


def close() -> None:
    """Forget answers, and close the sessions with warehouses."""
    st.cache_data.clear()
    for reader in _READERS.values():
        reader.close()
    _READERS.clear()
    _LAST.clear()
