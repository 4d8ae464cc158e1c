"""The map of the world: countries by ISO code, and a circle for each that is too small to be seen or has no shape.

The shapes are the file countries-110m.json of world-atlas 2.0.2, unchanged, made of Natural Earth, which is in the
public domain: see static/LICENSE.txt.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from totesys_assets.dashboard import charts, palette, words

# Where Streamlit serves the folder static/. A browser asks for it once.
_FILE = "countries-110m.json"
_URL = f"app/static/{_FILE}"
_ANTARCTICA = "010"
# As high as the world is in the width of a panel; a telephone cuts what is empty above and below (frame.py).
_HEIGHT = 400


@cache
def with_shape() -> frozenset[str]:
    """Three-digit ISO codes of the countries that have a shape."""
    text = resources.files("totesys_assets.dashboard").joinpath("static", _FILE).read_text(encoding="utf-8")
    return frozenset(each["id"] for each in json.loads(text)["objects"]["countries"]["geometries"] if "id" in each)


def as_circles(data: pd.DataFrame) -> pd.DataFrame:
    """The rows that a circle stands for: small, or without a shape; not those that have no point either."""
    return data[(data["is_small"] | ~data["map_code"].isin(with_shape())) & data["longitude"].notna()]


def draw(data: pd.DataFrame, value: str, unit: str) -> None:
    """Colour countries by ``value``."""
    colours = palette.palette()
    shapes = alt.UrlData(url=_URL, format=alt.TopoDataFormat(feature="countries", type="topojson"))
    shown = data[["country", "map_code", "longitude", "latitude", value, "orders"]]
    colour = alt.Color(
        f"{value}:Q",
        scale=alt.Scale(range=list(colours.ramp), zero=False, nice=True),
        legend=alt.Legend(
            orient="bottom-left",
            direction="horizontal",
            title=None,
            gradientLength=150,
            labelColor=colours.text,
            labelExpr=words.AXIS,
        ),
    )
    tooltip = [
        alt.Tooltip("country:N"),
        alt.Tooltip(f"{value}:Q", title=f"{value} in {unit}", format=",.0f"),
        alt.Tooltip("orders:Q", format=","),
    ]
    border: Any = {"stroke": colours.card, "strokeWidth": 0.6}
    world = alt.Chart(shapes).transform_filter(f"datum.id != '{_ANTARCTICA}'")
    land = world.mark_geoshape(fill=colours.land, **border)
    countries = (
        world.mark_geoshape(**border)
        .transform_lookup("id", from_=alt.LookupData(shown, "map_code", [value, "orders", "country"]))
        .transform_filter(f"isValid(datum.{value})")
        .encode(color=colour, tooltip=tooltip)
    )
    circles = (
        alt.Chart(as_circles(data)[["country", "longitude", "latitude", value, "orders"]])
        .mark_circle(size=130, opacity=1, stroke=colours.text, strokeWidth=1)
        .encode(longitude="longitude:Q", latitude="latitude:Q", color=colour, tooltip=tooltip)
    )
    chart = (land + countries + circles).project("naturalEarth1").properties(height=_HEIGHT)
    with st.container(key="map-frame"):
        charts.show(chart, "map", f"{value} by country of delivery")
