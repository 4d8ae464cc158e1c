"""The chart: a bench's document as horizontal bars, one section per scale, drawn by matplotlib.

Belongs here: which bars there are, and drawing them. Does not belong here: any figure that is not in the document.
matplotlib is in the environment of the peers only, whose Python runs this file as a program: the document and the
scenarios' titles come in as JSON, the SVG goes out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

LABELS = {"copy": "COPY through a pipe"}
COLOURS = {"totesys": "#0969da", "copy": "#8c959f", "dlt": "#bc4c00", "sling": "#1a7f37"}
TEXT = "#818b98"  # readable on a light page and on a dark one: the picture has no background of its own
ROW_INCHES, WIDTH_INCHES = 0.25, 8.6


class Bar(NamedTuple):
    """A line of the chart."""

    label: str
    tool: str
    seconds: float
    remark: str


def bars(bench: dict[str, Any], scale: str, titles: dict[str, str]) -> Iterator[Bar]:
    """What the first scenario is compared with, then every scenario of ours, and the latency."""
    found = [each for each in bench["figures"] if each["scale"] == scale]
    others = [each for each in found if each["tool"] != "totesys" and each["scenario"] == found[0]["scenario"]]
    for each in others:
        yield Bar(LABELS.get(each["tool"], each["tool"]), each["tool"], each["seconds"], _remark(each))
    for each in found:
        if each["tool"] == "totesys":
            yield Bar(titles[each["scenario"]], "totesys", each["seconds"], _remark(each))
    for each in bench["latency"]:
        if each["scale"] == scale:
            remark = f"median; 95 % within {_short(each['p95'])} s"
            yield Bar("commit to warehouse, live", "totesys", each["p50"], remark)


def draw(bench: dict[str, Any], titles: dict[str, str], into: IO[bytes]) -> None:
    """Write the chart of the document as SVG; ``titles`` are the names of the scenarios for readers."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    sections = {scale: found for scale in bench["sales_orders"] if (found := list(bars(bench, scale, titles)))}
    rows = [len(section) + 2 for section in sections.values()]
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * (sum(rows) + 1)), layout="constrained")
    grid = figure.subplots(len(rows), squeeze=False, gridspec_kw={"height_ratios": rows})
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.family": "sans-serif"}):
        for (scale, section), (axes,) in zip(sections.items(), grid, strict=True):
            drawn = axes.barh(range(len(section)), [bar.seconds for bar in section], height=0.7)
            for bar, patch in zip(section, drawn, strict=True):
                patch.set(color=COLOURS[bar.tool], gid=bar.tool)
            labels = [f"{_short(bar.seconds)} s" + (f" · {bar.remark}" if bar.remark else "") for bar in section]
            axes.bar_label(drawn, labels, padding=6, color=TEXT)
            axes.set_yticks(range(len(section)), [bar.label for bar in section])
            axes.set_title(f"Scale {scale}: {bench['sales_orders'][scale]:,} sales orders", loc="left", color=TEXT)
            axes.set(xlim=(0, 2 * max(bar.seconds for bar in section)), xticks=[])
            axes.invert_yaxis()
            axes.tick_params(length=0, labelcolor=TEXT)
            axes.spines[:].set_visible(False)
        figure.supxlabel(_footnote(bench), color=TEXT, fontsize="small")
        figure.savefig(into, format="svg", transparent=True, metadata={"Date": None})


def _remark(each: dict[str, Any]) -> str:
    return ", ".join(f"{_short(ratio)} × {tool.replace('copy', 'COPY')}" for tool, ratio in each["ratios"].items())


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _footnote(bench: dict[str, Any]) -> str:
    machine = bench["machine"]
    rounds = max((each["rounds"] for each in bench["figures"]), default=0)
    return (
        f"Whole processes, median of {rounds} at most. {machine['cores']} cores, {machine['cpu']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GB; {bench['date'][:10]}"
    )


if __name__ == "__main__":
    measured, names = json.load(sys.stdin)
    draw(measured, names, sys.stdout.buffer)
