"""Amounts and changes as people read them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from totesys_assets.dashboard import palette, words

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("727084529.69"), "£727.1m"),
        (Decimal("1472000000"), "£1.5bn"),
        (Decimal("-130278.54"), "£-130.3k"),
        (Decimal("999.4"), "£999"),
        (0, "£0"),
        (None, "–"),
    ],
)
def test_an_amount_has_four_figures_at_most(value: Decimal | int | None, text: str) -> None:
    assert words.short(value, words.symbol("GBP")) == text


def test_a_currency_without_a_sign_keeps_its_code() -> None:
    assert words.short(1500, words.symbol("CHF")) == "CHF 1.5k"


def test_nothing_has_no_change() -> None:
    assert words.change(Decimal(110), Decimal(100)) == pytest.approx(0.1)
    assert words.change(Decimal(110), Decimal(0)) is None
    assert words.change(Decimal(110), None) is None
    assert words.change(None, Decimal(1)) is None


def test_a_text_is_shown_as_it_is_on_one_line_and_is_no_markdown() -> None:
    assert words.plain("R&D &copy; *a*") == r"R\&D \&copy; \*a\*"
    assert words.plain("Lodz\n\n# a heading\r\n---") == "Lodz \\# a heading -\u2060-\u2060-"
    for text in ("12:00:00", "2024-08-20", "units 1 -> 2", "a <b>"):
        assert ("\u2060" in words.plain(text)) == ("->" in text)
    assert words.plain("x" * 200_000) == "x" * 1000 + "…"


def test_a_currency_keeps_its_place_among_the_colours() -> None:
    assert palette.in_order(["USD", "CHF", "GBP", "USD", "AUD", "EUR"]) == ["GBP", "EUR", "USD", "AUD", "CHF"]
