"""The command ``totesys refresh``: one pass, its progress and its summary.

Belongs here: options, progress and what is printed. Does not belong here: the refresh itself (../refresh.py).
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from totesys_assets.commands import interrupts, words
from totesys_assets.commands.bar import progress_bar
from totesys_assets.commands.options import Day
from totesys_assets.dagster_home import named_folder
from totesys_assets.databases import Databases, are_new, databases, refreshed
from totesys_assets.errors import PlatformError, told_once
from totesys_assets.settings import Settings
from totesys_assets.terminal import Console, address, out, program, reporter, say, show

if TYPE_CHECKING:
    from totesys_assets.refresh import Summary
    from totesys_assets.staleness.decide import Request

SCALE_HELP = "Size of the embedded ToteSys when it is first filled; 1 is that of the real one."
# The sales of a month are summed in a few milliseconds. Nobody waits longer for them at the end of a refresh.
_MOST = "500ms"
GROUP_NAMES = {
    "totesys": "capture",
    "star": "build star",
    "mart": "build marts",
    "warehouse": "load warehouse",
    "dagster": "bookkeeping",
}


@click.command()
@click.option("--from", "first", type=Day(), metavar="DAY", help="Backfill from this day (by created_at) …")
@click.option("--to", "last", type=Day(), metavar="DAY", help="… to this day, included.  [default: today]")
@click.option("--full", is_flag=True, help="Compare all content of all days, not only fingerprints.")
@click.option("--accept-deletions", is_flag=True, help="Capture a table even if most of its rows were deleted.")
@click.option(
    "--adopt-lake",
    is_flag=True,
    help="Load from this lake, though the warehouse was loaded from another lake, or from a newer state.",
)
@click.option("--scale", default=1.0, show_default=True, metavar="FACTOR", help=SCALE_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of tables.")
def refresh(
    first: date | None,
    last: date | None,
    full: bool,
    accept_deletions: bool,
    adopt_lake: bool,
    scale: float,
    as_json: bool,
) -> None:
    """Bring what changed into the warehouse, through Dagster.

    It detects what changed, materialises that and prints what was done. Exit code 0 only if everything succeeded.
    """
    if first is None and last is not None:
        raise click.UsageError("Give --from too: the first day of the backfill.")
    for name, is_given in (("--full", full), ("--adopt-lake", adopt_lake)):
        if is_given and first is not None:
            raise click.UsageError(f"{name} always covers all days: leave out --from and --to.")
    days = (first, last or datetime.now(UTC).date()) if first else None
    if days is not None and days[0] > days[1]:
        raise click.UsageError(f"--from is {days[0]}, after {'--to' if last else 'today'}, {days[1]}.")
    console = Console(file=sys.stderr, highlight=False) if as_json else out
    settings = Settings.from_env()
    begin = begin_early(settings)
    with databases(settings, dagster=False, scale=scale, report=reporter(console), meanwhile=begin) as urls:
        summary = one_pass(
            refreshed(settings),
            urls,
            console,
            days,
            full=full,
            accept_deletions=accept_deletions,
            adopt_lake=adopt_lake,
        )
    if not as_json:
        _print_next(out, settings, summary, days is not None)
    else:
        click.echo(json.dumps(asdict(summary), default=str, indent=2))
    if not summary.success:
        sys.exit(1)


def begin_early(settings: Settings) -> Callable[[Databases], object]:
    """Begin to import what is needed, while servers start. Returns what can be begun once they run.

    Raises SettingsError where DAGSTER_HOME cannot be used: before anything is started.
    """
    named_folder(settings)
    if are_new(settings):
        from totesys_assets.refresh import begin_imports, begin_tables  # here: slow, and not needed for --help

        begin_imports()
        return partial(begin_tables, settings)
    # PyArrow looks for pandas as soon as it is given a value, as in the scan that the start of a server asks for.
    modules = ["totesys_assets.refresh", *([] if settings.totesys_url else ["pandas"])]
    threading.Thread(target=lambda: [import_module(each) for each in modules], daemon=True).start()
    return lambda _: None


def one_pass(
    settings: Settings,
    urls: Databases,
    console: Console,
    days: tuple[date, date] | None = None,
    *,
    full: bool = False,
    accept_deletions: bool = False,
    adopt_lake: bool = False,
) -> Summary:
    """Run one refresh; print progress while it works, and a summary at the end."""
    started = time.monotonic()
    with console.status("Looking for changes"):
        from totesys_assets.refresh import refresh as look_and_run  # here: slow to import, and not needed for --help
    summary = look_and_run(
        settings,
        urls,
        _Terminal(console),
        days,
        started=started,
        full=full,
        accept_deletions=accept_deletions,
        adopt_lake=adopt_lake,
    )
    _print_summary(console, settings, urls, summary, days)
    if summary.success:
        _print_sales(console, settings, urls)
    return summary


@dataclass(frozen=True)
class _Terminal:
    """Shows the progress of a refresh on the terminal."""

    console: Console

    def doing(self, what: str) -> AbstractContextManager[object]:
        """A spinner beside ``what``."""
        return self.console.status(what)

    @contextmanager
    def running(self, request: Request, place: str) -> Iterator[None]:
        """A bar that moves with every asset."""
        what = f"{place}, {request.named}" if place else request.named
        # Dagster prints every event that it cannot store in full. That the run failed is in the outcome.
        with progress_bar(self.console, what, len(request.assets)), redirect_stderr(io.StringIO()):
            yield
        interrupts.check()

    def say(self, text: str) -> None:
        """A line of progress."""
        reporter(self.console)(text)


def _print_summary(
    console: Console, settings: Settings, urls: Databases, summary: Summary, days: tuple[date, date] | None
) -> None:
    from totesys_assets.catalogue.catalogue import catalogue
    from totesys_assets.transform.engines.chosen import described

    for problem in told_once(summary.problems, [*catalogue().source, *catalogue().warehouse]):
        say(console, "[red]✗[/red] ", problem)
    if not summary.changed and not summary.problems:
        say(console, "[green]✓[/green] ", f"Nothing changed ({summary.seconds:.1f} s).")
    elif summary.success:
        runs = f", in {len(summary.runs)} runs" if len(summary.runs) > 1 else ""
        what = f"Brought in {days[0]} to {days[1]}" if days else "Up to date"
        say(console, "[green]✓[/green] ", f"{what} in {summary.seconds:.1f} s{runs}: {_stages(summary)}.")
    if summary.versions:
        most_first = sorted(summary.versions.items(), key=lambda each: (-each[1], each[0]))
        tables = ", ".join(f"{table} {count:,}" for table, count in most_first)
        say(console, "captured   ", f"{words.number(sum(summary.versions.values()), 'new version')}: {tables}")
    grid = Grid(title="Warehouse", title_justify="left", header_style="bold")
    grid.add_column("table")
    grid.add_column("rows", justify="right")
    grid.add_column("versions", justify="right")
    for row in summary.tables:
        count = "" if row["rows"] is None else f"{row['rows']:,}"
        grid.add_row(row["table"], count, f"{row['versions']:,}")
    show(console, grid)
    say(console, "lake       ", settings.lake_uri)
    say(console, "warehouse  ", f"{address(urls.warehouse)}, schema {settings.warehouse_schema}")
    if engine := described(settings):
        say(console, "engine     ", engine)
    for table, names in summary.unknown_columns.items():
        say(console, "[yellow]![/yellow] ", words.left_out(table, names))
    if summary.log_lost is not None:
        why = f"The log of ToteSys is not followed, and tables are compared: {summary.log_lost.rstrip('.')}."
        say(console, "[yellow]![/yellow] ", why)
    if opened := summary.dead_letters.get("open"):
        new = summary.dead_letters["new"]
        count = f"{words.number(opened, 'dead letter')}, {f'{new:,}' if new else 'none'} new"
        say(console, "[yellow]![/yellow] ", f"{count}: {program()} dead-letters shows what to correct in the source.")


def _print_sales(console: Console, settings: Settings, urls: Databases) -> None:
    """Print what was sold last month, and where to look. The refresh is done, and does not fail for this."""
    import psycopg
    from psycopg import sql

    from totesys_assets.insights.last_month import last_month
    from totesys_assets.warehouse.warehouse import Warehouse

    with (
        suppress(PlatformError, psycopg.Error),
        Warehouse(urls.warehouse, settings.warehouse_schema).connect(snapshot=True) as connection,
    ):
        connection.execute(f"SET LOCAL lock_timeout = '{_MOST}'; SET LOCAL statement_timeout = '{_MOST}'".encode())
        connection.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(settings.warehouse_schema)))
        if sold := last_month(connection, datetime.now(UTC).date()):
            say(console, "sales      ", sold)


def _print_next(console: Console, settings: Settings, summary: Summary, are_some_days: bool) -> None:
    totesys = escape(program())
    if not summary.success:
        following = f"resolve the problems above, then run it again; [bold]{totesys} status[/bold] shows more."
    elif are_some_days:
        following = f"[bold]{totesys} refresh[/bold] brings in what waits on other days, if anything does."
    elif settings.warehouse_url is None:
        following = (
            f"[bold]{totesys} up[/bold] runs everything live, with the Dagster UI and the dashboard; [bold]{totesys} "
            f"ask[/bold] answers questions; [bold]{totesys} sql[/bold] opens the warehouse; [bold]{totesys} "
            "--help[/bold] lists the rest."
        )
    else:
        return
    console.print()
    say(console, "Next: ", Text.from_markup(following))


def _stages(summary: Summary) -> str:
    from totesys_assets.catalogue.catalogue import catalogue

    names = {**{source: f"capture {source}" for source in catalogue().groups}, **GROUP_NAMES}
    shares = {name: summary.stages[each] for each, name in names.items() if each in summary.stages}
    shares["looking and starting"] = summary.seconds - sum(shares.values())
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in shares.items())
