"""The chart: a bench's document as an SVG of horizontal bars, one section per scale.

Belongs here: drawing. Does not belong here: any figure that is not in the document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH = 860
LEFT, BARS, TOP, ROW, GAP = 220, 270, 34, 22, 26
# Readable on a light page and on a dark one: the picture brings its own background, and follows the reader's choice.
STYLE = """
.back { fill: #ffffff; } text { fill: #1f2328; font: 13px system-ui, sans-serif; }
.head { font-weight: 600; } .note { fill: #59636e; font-size: 12px; }
.totesys { fill: #0969da; } .copy { fill: #8c959f; } .dlt { fill: #bc4c00; } .sling { fill: #1a7f37; }
@media (prefers-color-scheme: dark) {
  .back { fill: #0d1117; } text { fill: #e6edf3; } .note { fill: #9198a1; }
  .totesys { fill: #4493f8; } .copy { fill: #6e7681; } .dlt { fill: #db6d28; } .sling { fill: #3fb950; }
}
"""
LABELS = {"copy": "COPY through a pipe"}


@dataclass(frozen=True)
class Bar:
    """A line of the chart."""

    label: str
    kind: str
    seconds: float
    remark: str


def svg(bench: dict[str, Any], titles: dict[str, str]) -> str:
    """Draw the document; ``titles`` are the names of the scenarios for readers."""
    parts: list[str] = []
    y = TOP
    for scale, orders in bench["sales_orders"].items():
        bars = list(_bars(bench, scale, titles))
        if not bars:
            continue
        parts.append(_text(20, y, f"Scale {scale}: {orders:,} sales orders", "head"))
        longest = max(bar.seconds for bar in bars)
        for bar in bars:
            y += ROW
            parts += _drawn(bar, y, BARS * bar.seconds / longest)
        y += ROW + GAP
    parts.append(_text(20, y - GAP // 2, _footnote(bench), "note"))
    body = "\n".join(parts)
    height = y + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img">\n<title>How long each scenario took</title>\n<style>{STYLE}</style>\n'
        f'<rect class="back" width="{WIDTH}" height="{height}" rx="6"/>\n{body}\n</svg>\n'
    )


def _bars(bench: dict[str, Any], scale: str, titles: dict[str, str]) -> Iterator[Bar]:
    """Ours in every scenario; beside the first of them whatever it is compared with."""
    found = [each for each in bench["figures"] if each["scale"] == scale]
    first = found[0]["scenario"] if found else ""
    for each in sorted(found, key=lambda each: each["tool"] != "totesys"):
        if each["scenario"] == first and each["tool"] != "totesys":
            yield Bar(LABELS.get(each["tool"], each["tool"]), each["tool"], each["seconds"], _remark(each))
    for each in found:
        if each["tool"] == "totesys":
            yield Bar(titles[each["scenario"]], "totesys", each["seconds"], _remark(each))
    for each in bench["latency"]:
        if each["scale"] == scale:
            remark = f"median; 95 % within {_short(each['p95'])} s"
            yield Bar("commit to warehouse, live", "totesys", each["p50"], remark)


def _remark(each: dict[str, Any]) -> str:
    return ", ".join(f"{_short(ratio)} × {tool.replace('copy', 'COPY')}" for tool, ratio in each["ratios"].items())


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _drawn(bar: Bar, y: int, width: float) -> Iterator[str]:
    yield _text(LEFT - 10, y, bar.label, "", anchor="end")
    yield f'<rect class="{bar.kind}" x="{LEFT}" y="{y - 12}" width="{max(width, 1):.1f}" height="15" rx="2"/>'
    remark = f" · {bar.remark}" if bar.remark else ""
    yield _text(round(LEFT + width) + 8, y, f"{_short(bar.seconds)} s{remark}", "")


def _text(x: int, y: int, text: str, kind: str, *, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _footnote(bench: dict[str, Any]) -> str:
    machine = bench["machine"]
    rounds = max((each["rounds"] for each in bench["figures"]), default=0)
    return (
        f"Whole processes, median of {rounds} at most. {machine['cores']} cores, {machine['cpu']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GB; {bench['date'][:10]}"
    )
