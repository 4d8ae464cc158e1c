"""The commands about what comes from outside: ``totesys files`` and ``totesys rates``.

Belongs here: options and what is printed. Does not belong here: reading files and fetching rates (source/).
"""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import click
from rich.table import Table as Grid
from rich.text import Text

from totesys_assets.commands import words
from totesys_assets.days import MOST_DAYS_WITHOUT_A_RATE
from totesys_assets.settings import Settings
from totesys_assets.terminal import out, program, reporter, say, show

if TYPE_CHECKING:
    from totesys_assets.catalogue.catalogue import Table
    from totesys_assets.source.file_store import FileStore

_RATES = (
    "Archives of euro reference rates, as the European Central Bank publishes them: eurofxref-hist.zip, or "
    "eurofxref-hist-90d.zip."
)


@click.command()
@click.option(
    "--templates",
    is_flag=True,
    help="Put a file with the line of column names in each folder that has none, and make the folder of rates.",
)
def files(templates: bool) -> None:
    """Show where files are dropped, and what they must hold.

    A file is CSV with a line of column names, or JSON: an array of objects, or one object on each line. All files of a
    folder together are the table. Archives of exchange rates are dropped as the bank publishes them.
    """
    from totesys_assets.catalogue.catalogue import catalogue
    from totesys_assets.source.ecb import RATES
    from totesys_assets.source.file_store import FileStore
    from totesys_assets.source.files import Files

    settings = Settings.from_env()
    store = FileStore(settings.files_uri, "FILES_URI")
    for table in catalogue().source.values():
        if table.group == Files.name:
            if templates:
                _write_template(store, table)
            _print_table(store, table)
    if templates:
        store.make_folder(RATES)
    say(out, "", Text(f"{store.uri}/{RATES}/", style="bold"))
    there = words.number(len(store.files(RATES)), "archive")
    say(out, "", f"{_RATES} There: {there}. {program()} rates lists what is held.")


def _write_template(store: FileStore, table: Table) -> None:
    path = f"{table.name}/{table.name}.csv"
    if store.files(table.name):
        return
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(table.by_name)
    store.write(path, header.getvalue().encode())
    reporter(out)(f"wrote {store.uri}/{path}")


def _print_table(store: FileStore, table: Table) -> None:
    say(out, "", Text(f"{store.uri}/{table.name}/", style="bold"))
    say(out, "", f"{table.description} There: {words.number(len(store.files(table.name)), 'file')}.")
    grid = Grid(header_style="bold")
    for name in ("column", "type", "meaning"):
        grid.add_column(name)
    for column in table.columns:
        key = " (part of the key)" if column.name in table.primary_key else ""
        grid.add_row(column.name, column.type, Text(f"{column.description}{key}"))
    show(out, grid)


@click.group(invoke_without_command=True)
@click.pass_context
def rates(context: click.Context) -> None:
    """Show which euro reference rates are held."""
    if context.invoked_subcommand is not None:
        return
    from totesys_assets.source.ecb import RATES, held_archives

    settings = Settings.from_env()
    archives = [*held_archives(settings)]
    grid = Grid(header_style="bold")
    for name in ("archive", "rates", "newest day"):
        grid.add_column(name)
    for archive in archives:
        grid.add_row(Text(archive.name), f"{archive.rates:,}", Text(archive.newest or "none"))
    show(out, grid)
    for problem in (archive.problem for archive in archives if archive.problem):
        say(out, "[yellow]![/yellow] ", problem)
    newest = max((archive.newest for archive in archives), default="")
    if newest and (days := (datetime.now(UTC).date() - date.fromisoformat(newest)).days) > MOST_DAYS_WITHOUT_A_RATE:
        say(
            out,
            "[yellow]![/yellow] ",
            f"The newest rates are of {newest}, {words.number(days, 'day')} ago: money of the days since then converts "
            "at these. Set TOTESYS_RATES_URL to fetch newer ones, or drop an archive of the European Central Bank in "
            f"{settings.files_uri}/{RATES}.",
        )


@rates.command()
def fetch() -> None:
    """Fetch the archive at TOTESYS_RATES_URL and put it where archives are dropped.

    Nothing is written unless it is an archive of rates. The next refresh captures what is new in it.
    """
    from totesys_assets.source.fetched_rates import fetch_rates

    found = fetch_rates(Settings.from_env())
    said = "" if found.is_new else " It is as it was before."
    say(out, "[green]✓[/green] ", f"{found.path}: rates up to {found.newest}.{said}")
    for jump in found.jumps:
        say(out, "[yellow]![/yellow] ", f"More than a tenth in a day: {jump}")
