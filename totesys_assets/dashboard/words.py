"""Amounts, numbers and changes as people read them."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal

_SYMBOLS = {"GBP": "£", "EUR": "€", "USD": "$"}
# The same units as Vega writes the numbers of an axis with: 1.5m, not 1.5M.
AXIS = "replace(replace(format(datum.value, '~s'), 'G', 'bn'), 'M', 'm')"
_LONGEST = 1_000
_SIZES = ((10**9, "bn"), (10**6, "m"), (10**3, "k"))

# Where a page makes links, mail addresses, emojis, icons and arrows of a text when its Markdown is read already: not
# where something stands between that nobody sees.
_MADE = re.compile(r"(?<=(?<!\d):)(?=\S)|(?=@)|(?<=www)(?=\.)|(?<=[-<>=~!])(?=[-<>=])", re.IGNORECASE)
_NOTHING = "\u2060"

Number = Decimal | int | float


def symbol(currency: str) -> str:
    """The sign of a currency, or its code and a blank."""
    return _SYMBOLS.get(currency, f"{currency} ")


def short(value: Number | None, sign: str = "") -> str:
    """A number in four figures at most: 708.5m."""
    if value is None:
        return "–"
    for size, unit in _SIZES:
        if abs(float(value)) >= size:
            return f"{sign}{float(value) / size:,.1f}{unit}"
    return f"{sign}{value:,.0f}"


def exact(value: Number | None, sign: str = "") -> str:
    """A number in full: 1,234.50."""
    if value is None:
        return "–"
    return f"{sign}{value:,}"


def change(now: Number | None, before: Number | None) -> float | None:
    """By which part a number grew; None where there is nothing to compare with."""
    if now is None or not before:
        return None
    return float(now) / float(before) - 1


def day(value: date) -> str:
    """A day: 26 Nov 2026."""
    return f"{value.day} {value:%b %Y}"


def moment(value: datetime) -> str:
    """A moment in UTC: 26 Nov 2026, 14:03:21 UTC."""
    return f"{day(value)}, {value:%H:%M:%S} UTC"


def plain(text: str) -> str:
    """A text on one line in which nothing is formatted as Markdown, cut where it is too long to be read."""
    shown = " ".join(text.split())
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}…"
    shown = _MADE.sub(_NOTHING, shown)
    return "".join(f"\\{each}" if each in r"\`*_{}[]()#+!|<>$~:&" else each for each in shown)
