"""Prints the plan for other inputs, or writes its part of docs/scaling.md: ``python -m totesys_assets_tests.plan``."""

from __future__ import annotations

from typing import Any

import click

from totesys_assets_tests.plan.page import PAGE, made, main
from totesys_assets_tests.plan.plan import Inputs, Plan

_NUMBER, _AMOUNT = click.IntRange(min=1), click.FloatRange(min=1)


@click.command()
@click.option("--orders", type=_AMOUNT, default=Inputs.orders, show_default=True, help="Sales orders.")
@click.option("--changes", type=_NUMBER, default=Inputs.changes, show_default=True, help="Changes a second.")
@click.option(
    "--silent",
    type=click.FloatRange(0, 1),
    default=Inputs.silent,
    show_default=True,
    help="The part without a new last_updated.",
)
@click.option("--days", type=_NUMBER, default=Inputs.days, show_default=True, help="Days of history.")
@click.option(
    "--touched", type=_NUMBER, default=Inputs.touched, show_default=True, help="Newest days in which changes lie."
)
@click.option(
    "--hours",
    type=click.IntRange(1, 24),
    default=Inputs.hours,
    show_default=True,
    help="Hours of a day in which changes come.",
)
@click.option("--engine", type=click.Choice(["duckdb", "spark"]), default="duckdb", show_default=True)
@click.option(
    "--range-rows", type=_AMOUNT, default=float(Inputs.range_rows), show_default=True, help="Rows of a range."
)
@click.option("--at-once", type=_NUMBER, default=Inputs.at_once, show_default=True, help="Ranges under way at once.")
@click.option("--index/--no-index", default=True, show_default=True, help="On created_at in ToteSys.")
@click.option("--write", is_flag=True, help="Write docs/scaling.md, for the inputs as they are by themselves.")
def plan(*, write: bool, **asked: Any) -> None:
    """Simulate a first load, the changes, the nights and a month's costs for a size of ToteSys."""
    if write:
        PAGE.write_text(main(), encoding="utf-8")
        return
    click.echo(made(Plan(Inputs(**asked))))


if __name__ == "__main__":
    plan(prog_name="python -m totesys_assets_tests.plan")
