"""The colours of charts, in light and in dark: told apart by lightness too, so that everybody can."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# These are told apart first, and so in the same colours on every page and in the notebook.
_CURRENCIES = ("GBP", "EUR", "USD")


@dataclass(frozen=True)
class Palette:
    """Colours of one theme. ``series``: of kinds; ``ramp``: from little to much; ``land``: of what has nothing.

    ``card`` is behind a panel, and the background of Streamlit's theme; ``ground`` is behind the panels.
    """

    main: str
    series: tuple[str, ...]
    ramp: tuple[str, str]
    land: str
    card: str
    ground: str
    text: str


# Teal, its pale kin, amber, indigo: dark, light and in between also without their hues.
LIGHT = Palette(
    main="#0f766e",
    series=("#0f766e", "#7cc5bb", "#e39a1f", "#4f46a5", "#9aa5ad"),
    ramp=("#cfe8e3", "#0b4f4a"),
    land="#e6e8e4",
    card="#ffffff",
    ground="#faf8f4",
    text="#51606b",
)
DARK = Palette(
    main="#35b0a3",
    series=("#2f9e93", "#b5e3dc", "#f0b44c", "#9d94f0", "#75838d"),
    ramp=("#1f4a4b", "#7ff0df"),
    land="#2b3640",
    card="#18222b",
    ground="#10171d",
    text="#a9b8c2",
)


def palette() -> Palette:
    """That of the theme in which the page is seen."""
    import streamlit as st  # here: the notebook takes the colours without it

    return DARK if st.context.theme.type == "dark" else LIGHT


def in_order(currencies: Iterable[str]) -> list[str]:
    """Currencies, each once, in the order in which the colours of a series are given to them."""
    known = dict(zip(_CURRENCIES, range(len(_CURRENCIES)), strict=True))
    return sorted(set(currencies), key=lambda each: (known.get(each, len(known)), each))
