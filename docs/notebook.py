"""A notebook with five questions about the company, answered in pictures from the warehouse and the lake.

``marimo run docs/notebook.py`` shows it, ``marimo edit --skip-update-check docs/notebook.py`` changes a copy of it.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Five questions")

with app.setup:
    from datetime import UTC, date, datetime
    from decimal import Decimal

    import altair as alt
    import marimo as mo
    import pandas as pd

    import totesys_assets
    from totesys_assets.dashboard import palette, words
    from totesys_assets.insights.questions import Answer, defaults, questions
    from totesys_assets.insights.reading import opened
    from totesys_assets.settings import Settings

    SERIES = palette.LIGHT.series
    TEAL, PALE, AMBER, _, GREY = SERIES
    MONEY = alt.Axis(labelExpr=words.AXIS, tickCount=5, domain=False, ticks=False)
    MONTH = alt.Axis(format="%b %y", grid=False, ticks=False, labelAngle=0, labelOverlap=True)
    DAY = alt.Axis(format="%d %b", ticks=False, labelAngle=0)
    ABOVE = alt.Legend(orient="top")
    FIT = alt.AutoSizeParams(type="fit", contains="padding")
    WIDE, HIGH = 345, 250


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Five questions

    Four are answered from the warehouse, by the SQL of a file in `totesys_assets/insights/questions`: `totesys ask`
    lists them all. The last is answered from the lake, without a database. Money is exact until a picture draws it.
    """)


@app.cell(hide_code=True)
def _():
    currency = mo.ui.dropdown(["GBP", "EUR", "USD"], value="GBP", label="Money is shown in")
    currency
    return (currency,)


@app.function
def drawn(answer: Answer) -> pd.DataFrame:
    """An answer as a picture needs it: decimals as floats, days as time."""
    frame = answer.frame()
    for column in frame:
        kinds = {type(value) for value in frame[column] if value is not None}
        if Decimal in kinds:
            frame[column] = frame[column].astype(float)
        elif kinds == {date}:
            frame[column] = pd.to_datetime(frame[column])
    return frame


@app.function
def panel(name: str, chart: alt.Chart | alt.LayerChart, parameters: dict[str, object]) -> mo.Html:
    """What a question asks, its picture, and the SQL that answers it, for psql."""
    question = questions()[name]
    code = mo.md(f"```sql\n{question.text_with(parameters)}\n```")
    styled = chart.properties(width=WIDE, height=HIGH, autosize=FIT).configure_view(stroke=None)
    return mo.vstack([mo.md(f"**{question.text}**"), mo.as_html(styled), mo.accordion({"SQL": code})])


@app.cell
def _(currency):
    # With a reader's rights: these sessions cannot write. Without WAREHOUSE_URL it is the embedded warehouse.
    with opened(Settings.from_env(), "notebook") as reader:
        last_day = reader.answer("span").rows[0][1] or datetime.now(UTC).date()
        asked = {**defaults(last_day), "currency": currency.value}
        revenue, countries, margin, receivables = (
            drawn(reader.answer(name, **asked))
            for name in ("revenue_by_period", "revenue_by_country", "margin_by_period", "receivables_by_age")
        )
    return asked, countries, margin, receivables, revenue


@app.cell
def _(asked, revenue):
    kinds = palette.in_order(revenue["currency"])
    revenue_by_month = (
        alt.Chart(revenue)
        .transform_calculate(place=f"indexof({kinds}, datum.currency)")
        .mark_bar()
        .encode(
            x=alt.X("yearmonth(period):O", title=None, axis=MONTH),
            order=alt.Order("place:Q"),
            y=alt.Y("sum(revenue):Q", title=f"{asked['currency']}, by currency of the order", axis=MONEY),
            color=alt.Color(
                "currency:N",
                title=None,
                scale=alt.Scale(domain=kinds, range=SERIES[: len(kinds)]),
                legend=ABOVE,
            ),
            tooltip=["yearmonth(period):O", "currency:N", alt.Tooltip("revenue:Q", format=",.0f"), "orders:Q"],
        )
    )
    return (revenue_by_month,)


@app.cell
def _(asked, countries):
    revenue_by_country = (
        alt.Chart(countries.dropna(subset=["revenue"]).head(10))
        .mark_bar(color=TEAL)
        .encode(
            x=alt.X("revenue:Q", title=asked["currency"], axis=MONEY),
            y=alt.Y("country:N", title=None, sort=None, axis=alt.Axis(labelLimit=130, ticks=False, domain=False)),
            tooltip=["country:N", alt.Tooltip("revenue:Q", format=",.0f"), "orders:Q", "units:Q"],
        )
    )
    return (revenue_by_country,)


@app.cell
def _(asked, margin):
    margin_by_month = (
        alt.Chart(margin)
        .transform_fold(["revenue", "cost", "margin"], as_=["what", "amount"])
        .mark_line(point=True)
        .encode(
            x=alt.X("yearmonth(period):T", title=None, axis=MONTH),
            y=alt.Y("amount:Q", title=asked["currency"], axis=MONEY),
            color=alt.Color(
                "what:N",
                title=None,
                scale=alt.Scale(domain=["revenue", "cost", "margin"], range=SERIES[:3]),
                legend=ABOVE,
            ),
            tooltip=["yearmonth(period):T", "what:N", alt.Tooltip("amount:Q", format=",.0f")],
        )
    )
    return (margin_by_month,)


@app.cell
def _(asked, receivables):
    owed_by_age = (
        alt.Chart(receivables)
        .mark_bar()
        .encode(
            x=alt.X("amount:Q", title=asked["currency"], axis=MONEY),
            y=alt.Y("age:N", title=None, sort=None, axis=alt.Axis(ticks=False, domain=False)),
            color=alt.condition("datum.place == 1", alt.value(PALE), alt.value(AMBER)),
            tooltip=["age:N", alt.Tooltip("amount:Q", format=",.0f"), "payments:Q"],
        )
    )
    return (owed_by_age,)


@app.cell
def _(asked, margin_by_month, owed_by_age, revenue_by_country, revenue_by_month):
    panels = [
        panel("revenue_by_period", revenue_by_month, asked),
        panel("revenue_by_country", revenue_by_country, asked),
        panel("margin_by_period", margin_by_month, asked),
        panel("receivables_by_age", owed_by_age, asked),
    ]
    mo.vstack(
        [
            mo.md(f"Orders up to {asked['last']}. The last month may not be whole."),
            mo.hstack(panels[:2], widths="equal"),
            mo.hstack(panels[2:], widths="equal"),
        ],
        gap=2,
    )
    return (panels,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    **What was known at a moment?**

    The lake keeps every version of every row with the time at which it was first seen. `totesys_assets.read` gives a
    table as it was recorded by then.
    """)


@app.cell
def _():
    recorded = sorted(totesys_assets.read("fact_sales_order", history=True)["_recorded_at"].unique())
    mo.stop(not recorded, "No order has been recorded yet.")
    choices = {f"{each:%Y-%m-%d %H:%M:%S.%f} UTC": each for each in recorded[:: len(recorded) // 20 + 1]}
    moment = mo.ui.dropdown(choices, value=next(iter(choices)), label="Known by")
    moment
    return (moment,)


@app.cell
def _(moment):
    then = totesys_assets.read("fact_sales_order", as_of=moment.value)
    now = totesys_assets.read("fact_sales_order")
    return now, then


@app.cell
def _(moment, now, then):
    both = then.merge(now, on="sales_order_id", suffixes=("_then", "_now"))
    new, gone = len(now) - len(both), len(then) - len(both)
    changed = int((both["_recorded_at_then"] != both["_recorded_at_now"]).sum())
    known = pd.concat([then.assign(known="then"), now.assign(known="now")])
    counts = known.groupby(["created_date", "known"]).size().rename("orders").reset_index()
    counts["created_date"] = pd.to_datetime(counts["created_date"])
    last_days = counts[counts["created_date"] > counts["created_date"].max() - pd.Timedelta(days=14)]
    mo.md(
        f"By {moment.value:%Y-%m-%d %H:%M:%S} UTC, {len(then):,} orders had been recorded. "
        f"Since then {new:,} came, {changed:,} changed and {gone:,} went."
    )
    return changed, gone, last_days, new


@app.cell
def _(last_days):
    known_then = (
        alt.Chart(last_days)
        .mark_bar()
        .encode(
            x=alt.X("yearmonthdate(created_date):O", title=None, axis=DAY),
            xOffset=alt.XOffset("known:N", sort=["then", "now"]),
            y=alt.Y("orders:Q", title="orders by their day", axis=alt.Axis(tickMinStep=1, domain=False, ticks=False)),
            color=alt.Color(
                "known:N",
                title=None,
                scale=alt.Scale(domain=["then", "now"], range=[GREY, TEAL]),
                legend=ABOVE,
            ),
            tooltip=["yearmonthdate(created_date):O", "known:N", "orders:Q"],
        )
        .properties(width=2 * WIDE, height=HIGH, autosize=FIT)
        .configure_view(stroke=None)
    )
    known_then
    return (known_then,)


if __name__ == "__main__":
    app.run()
