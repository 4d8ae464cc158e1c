"""The command ``totesys ask``: the questions, and the answer to one of them.

Belongs here: options and what is printed. Does not belong here: the questions (insights/).
"""

from __future__ import annotations

import csv
import json
import re
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

import click
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from totesys_assets.commands.options import Day, Moment
from totesys_assets.errors import NoRates
from totesys_assets.insights.questions import PARAMETERS, Answer, Question, defaults, questions
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, program, reporter, say, show


class _Currency(click.ParamType):  # type: ignore[type-arg]  # not generic in older releases
    name = "code"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[A-Za-z]{3}", value):
            self.fail(f"{value!r} is no ISO code of a currency: write it as GBP.", param, ctx)
        return str(value).upper()


_NUMBER = click.IntRange(1, 2**31 - 1)
_TYPES: dict[str, click.ParamType] = {  # type: ignore[type-arg]
    "currency": _Currency(),
    "basis": click.Choice(["day", "month"]),
    "rate_day": Day(),
    "first": Day(),
    "last": Day(),
    "period": click.Choice(["day", "week", "month", "quarter", "year"]),
    "today": Day(),
    "moment": Moment(),
    "number": _NUMBER,
    "subject": click.Choice(["sales_order", "purchase_order"]),
    "rows": _NUMBER,
}


# Columns for maps and for the order of a chart, which a table leaves out.
_FOR_CHARTS = ("map_code", "longitude", "latitude", "is_small", "place")
_DECIMALS = 6
_WIDEST = 10_000


def _parameters(function: Callable[..., None]) -> Callable[..., None]:
    """Give the command an option for each parameter that a question may have."""
    for name, meaning in reversed(PARAMETERS.items()):
        option = click.option(_option(name), name, type=_TYPES[name], help=f"{meaning[0].upper()}{meaning[1:]}.")
        function = option(function)
    return function


def _option(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


@click.command()
@click.argument("name", required=False, metavar="[QUESTION]")
@_parameters
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document; decimals are texts.")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL, with the parameters in it, and do not run it.")
@click.option(
    "--dialect",
    type=click.Choice(["duckdb", "spark", "athena"]),
    help="Print the SQL for this engine, over the tables of the lake.",
)
@click.option("--database", help="Athena's database, for its dialect.  [default: totesys]")
def ask(
    name: str | None, as_csv: bool, as_json: bool, as_sql: bool, dialect: str | None, database: str | None, **given: Any
) -> None:
    """Answer a question about the business, or list them all.

    Money is converted into pounds at the rates of each day, over the last twelve months and this one, unless the
    options say otherwise. Example: totesys ask revenue_by_country --currency EUR --first 2026-01-01
    """
    given = {parameter: value for parameter, value in given.items() if value is not None}
    forms = as_csv + as_json + (as_sql or dialect is not None)
    if forms > 1:
        raise click.UsageError("Choose one of --csv, --json and --sql or --dialect.")
    if database is not None and (dialect != "athena" or not database):
        raise click.UsageError("--database names a database for --dialect athena.")
    if name is None:
        if given or forms:
            raise click.UsageError("Name the question: totesys ask lists them.")
        _print_list()
        return
    question = questions().get(name)
    if question is None:
        meant = "".join(f' Did you mean "{each}"?' for each in get_close_matches(name, questions(), 1))
        raise click.UsageError(f'There is no question "{name}": totesys ask lists them.{meant}')
    parameters = _chosen(question, given)
    if dialect is not None:
        from totesys_assets.insights.over_the_lake import place, statement  # here: --help should not wait for it

        at = place(dialect, Settings.from_env().lake_uri, database or "totesys")
        click.echo(statement(question, parameters, dialect, at), nl=False)
        return
    if as_sql:
        click.echo(question.text_with(parameters))
        return
    found, remarks = _answer(question, parameters)
    if as_csv:
        _print_csv(found)
    elif as_json:
        _print_json(question, parameters, found)
    else:
        _print_table(question, parameters, found)
    for remark in remarks:
        say(err, "[yellow]![/yellow] ", remark)


def _chosen(question: Question, given: dict[str, Any]) -> dict[str, Any]:
    """A value for each parameter of the question: one that is given, or the default."""
    if unknown := [each for each in given if each not in question.parameters]:
        others = ", ".join(_option(each) for each in question.parameters) or "none"
        raise click.UsageError(f'"{question.name}" does not take {_option(unknown[0])}. Its options: {others}.')
    values: dict[str, Any] = dict(defaults(datetime.now(UTC).date()))
    if "last" in given:
        values["first"] = defaults(given["last"])["first"]
    values |= given
    first, last = values["first"], values["last"]
    if {"first", "last"} <= {*question.parameters} and first > last:
        until = f"--last, {last}" if "last" in given else f"{last}, the last day unless --last says another"
        raise click.UsageError(f"--first is {first}, after {until}.")
    return {each: values[each] for each in question.parameters}


def _answer(question: Question, parameters: dict[str, Any]) -> tuple[Answer, list[str]]:
    """The answer, and what it may hide."""
    from totesys_assets.insights.reading import opened  # here: --help should not wait for it

    settings = Settings.from_env()
    with opened(settings, "totesys ask", reporter(err)) as reader:
        try:
            reader.check_rates(parameters)
        except NoRates as error:
            raise click.UsageError(str(error)) from error
        return reader.answer(question.name, **parameters), reader.remarks(parameters)


def _print_list() -> None:
    grid = Grid(header_style="bold")
    grid.add_column("question", no_wrap=True)
    grid.add_column("what it asks")
    for question in questions().values():
        grid.add_row(question.name, question.text)
    show(out, grid)
    say(out, "", f"{program()} ask QUESTION answers one; --sql shows how, --help lists the options.")


def _grid(found: Answer, *, narrow: bool) -> Grid:
    """The rows of an answer. Texts wrap, and headings if it is to be narrow; a number that is cut would be another."""
    grid = Grid(header_style="bold")
    columns = [*zip(*found.rows, strict=True)] or [()] * len(found.columns)
    shown = {name: [_shown(name, each) for each in cells] for name, cells in zip(found.columns, columns, strict=True)}
    for name, cells in zip(found.columns, columns, strict=True):
        if name in _FOR_CHARTS:
            continue
        heading = name.replace("_", " ")
        number = any(isinstance(each, (int, Decimal)) and not isinstance(each, bool) for each in cells)
        width = max(map(len, [*shown[name], *(heading.split() if narrow else [heading])]))
        if narrow:
            heading = "\n".join(textwrap.wrap(heading, width))
        if not cells or any(isinstance(each, str) for each in cells):
            grid.add_column(heading, overflow="fold")
        else:
            grid.add_column(heading, justify="right" if number else "left", min_width=width, no_wrap=True)
    for row in zip(*(cells for name, cells in shown.items() if name not in _FOR_CHARTS), strict=True):
        grid.add_row(*row)
    return grid


def _print_table(question: Question, parameters: dict[str, Any], found: Answer) -> None:
    say(out, "", Text(question.text, style="bold"))
    if asked := [f"{_option(each)} {_said(parameters[each])}" for each in PARAMETERS if parameters.get(each)]:
        others = [_option(each) for each in question.parameters if not parameters.get(each)]
        also = f" It takes {', '.join(others)}, too." if others else ""
        say(out, "", Text(f"Asked with {', '.join(asked)}.{also}", style="dim"))
    widest = out.options.update(max_width=_WIDEST)
    grid = _grid(found, narrow=False)
    if Measurement.get(out, widest, grid).maximum > out.width:
        grid = _grid(found, narrow=True)
    show(out, grid)
    if not found.rows:
        say(out, "", "There is nothing.")
    elif len(found.rows) == parameters.get("rows"):
        say(out, "", "There may be more: a larger --rows shows them.")
    say(out, "", Text(question.description, style="dim"))


def _said(value: object) -> str:
    return f"{_text(value)} UTC" if isinstance(value, datetime) else _text(value)


def _shown(column: str, value: object) -> str:
    """A value for people: numbers with thousands, but no keys; rates to the sixth decimal; what is not known empty."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or column.endswith(("_id", "_code")):
        return _text(value)
    is_long = isinstance(value, Decimal) and -int(value.as_tuple().exponent) > _DECIMALS
    return f"{value:,.{_DECIMALS}f}" if is_long else f"{value:,}"


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        shown = value.astimezone(UTC) if value.tzinfo else value
        return f"{shown:%Y-%m-%d %H:%M:%S}"
    return str(value)


class _Lines:
    """Standard output, with the line ends of a terminal."""

    def write(self, line: str) -> None:
        sys.stdout.write(line.removesuffix("\r\n") + "\n")


def _print_csv(found: Answer) -> None:
    writer = csv.writer(_Lines())  # with \r\n, so that a lone \r is quoted: else it would end a line
    writer.writerow(found.columns)
    writer.writerows(["" if value is None else value for value in row] for row in found.rows)


def _print_json(question: Question, parameters: dict[str, Any], found: Answer) -> None:
    document = {
        "question": question.name,
        "text": question.text,
        "description": question.description,
        "parameters": parameters,
        "rows": [dict(zip(found.columns, row, strict=True)) for row in found.rows],
    }
    click.echo(json.dumps(document, default=str, indent=2, ensure_ascii=False))
