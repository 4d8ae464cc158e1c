"""The command ``totesys refresh``: one pass, its progress and its summary.

Belongs here: options, progress and what is printed. Does not belong here: deciding and executing (automation/).
"""

import gc
import io
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from importlib import import_module
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from totesys_assets import stages
from totesys_assets.commands import interrupts, words
from totesys_assets.dagster_home import dagster_home
from totesys_assets.databases import Databases, dagster_records, databases, refreshed
from totesys_assets.errors import PlatformError
from totesys_assets.settings import Settings
from totesys_assets.terminal import address, out, reporter

# To count takes time in proportion to the table, and which rows of a fact are current even a sort: above so many, a
# refresh does neither.
MOST_COUNTED = 100_000
SCALE_HELP = "Size of the embedded ToteSys when it is first filled; 1 is that of the real one."
_DAY = click.DateTime(["%Y-%m-%d"])
GROUPS = {"totesys": "capture", "star": "build star", "warehouse": "load warehouse", "dagster": "bookkeeping"}


@dataclass
class Summary:
    """What a refresh did, as ``--json`` prints it.

    ``stages`` shares out the seconds of its runs; ``work`` are those that its threads spent in each stage of the work.
    ``dead_letters`` says how many are ``open``, and how many of these are ``new``.
    ``unknown_columns``: by table, those that the catalogue does not know; they were left out.
    """

    changed: bool
    success: bool
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    dead_letters: dict[str, int] = field(default_factory=dict)
    unknown_columns: dict[str, list[str]] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)


@click.command()
@click.option("--from", "first", type=_DAY, metavar="DAY", help="Backfill from this day (by created_at) …")
@click.option("--to", "last", type=_DAY, metavar="DAY", help="… to this day, included.  [default: today]")
@click.option("--full", is_flag=True, help="Compare all content of all days, whatever the fingerprints say.")
@click.option("--accept-deletions", is_flag=True, help="Believe it when most of a table's rows are gone.")
@click.option(
    "--adopt-lake",
    is_flag=True,
    help="Go on with this lake in a warehouse that was loaded from another, or from one that was newer.",
)
@click.option("--scale", default=1.0, show_default=True, metavar="FACTOR", help=SCALE_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of tables.")
def refresh(
    first: datetime | None,
    last: datetime | None,
    full: bool,
    accept_deletions: bool,
    adopt_lake: bool,
    scale: float,
    as_json: bool,
) -> None:
    """Detect what changed, materialise it through Dagster, print what was done.

    Exit code 0 only if all of it succeeded.
    """
    if first is None and last is not None:
        raise click.UsageError("Give --from, too: the first day of the backfill.")
    if adopt_lake and first is not None:
        raise click.UsageError("--adopt-lake is about all days: leave --from and --to out.")
    days = (first.date(), (last or datetime.now(UTC)).date()) if first else None
    console = Console(file=sys.stderr, highlight=False) if as_json else out
    settings = Settings.from_env()
    with databases(settings, dagster=False, scale=scale, report=reporter(console)) as urls:
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
        _print_next(out, settings, summary)
    else:
        click.echo(json.dumps(asdict(summary), default=str, indent=2))
    if not summary.success:
        sys.exit(1)


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
    """One pass; prints progress while it works and a summary at its end."""
    started = time.monotonic()
    with console.status("Looking for changes"):
        # Imported here: --help should not wait for it. Dagster takes longest, and is not needed when nothing changed.
        from totesys_assets.capture.dead_letters import open_letters
        from totesys_assets.catalogue.catalogue import catalogue
        from totesys_assets.days import DayRange, partition_range
        from totesys_assets.lake.tables import Lake
        from totesys_assets.load.origin import require_known_lake
        from totesys_assets.resources.session import Session
        from totesys_assets.resources.totesys import Totesys
        from totesys_assets.resources.warehouse import Warehouse
        from totesys_assets.staleness.decide import everything
        from totesys_assets.staleness.decide import partitioned as partitioned_assets
        from totesys_assets.staleness.hint import recall, remember
        from totesys_assets.staleness.look import Look, look, mark_of_done

        lake, warehouse = Lake(settings.lake_uri), Warehouse(urls.warehouse, settings.warehouse_schema)
        all_days = partition_range(settings.first_day)
        session = Session(Totesys.of(settings, urls.totesys))
        seen = Look()
        if (full or days is not None) and not adopt_lake:
            require_known_lake(warehouse, lake)
        if full or adopt_lake:
            wanted = [replace(everything(catalogue(), all_days), adopt_lake=adopt_lake)]
        elif days is not None:
            wanted = [_backfill(partitioned_assets(catalogue()), DayRange(*days), all_days)]
        else:
            last = recall(settings.home)
            seen = look(
                session.totesys, lake, warehouse, all_days, unless=last, session=session, meanwhile=_begin_imports
            )
            wanted = seen.requests
    problems = [str(problem) for problem in seen.problems]
    summary = Summary(changed=bool(wanted), success=not problems, problems=problems)
    letters = open_letters(lake) if wanted else None
    try:
        if wanted or problems:
            with dagster_records(settings, urls, reporter(console)) as urls:
                dagster_home(settings, urls)
                _execute(
                    settings,
                    warehouse,
                    session,
                    wanted,
                    seen,
                    console,
                    summary,
                    accept_deletions=accept_deletions,
                    is_backfill=days is not None and not full,
                )
    finally:
        session.close()
    mark = mark_of_done(seen, lake, warehouse, all_days) if seen.requests and summary.success else seen.mark
    if mark is not None:
        remember(settings.home, mark, seen.at)
    summary.unknown_columns = seen.examined.unknown
    summary.seconds, summary.work = time.monotonic() - started, stages.take()
    now = open_letters(lake)
    summary.dead_letters = {"new": 0 if letters is None else len(now - letters), "open": len(now)}
    summary.tables = contents_of(warehouse, most=MOST_COUNTED)
    _print_summary(console, settings, urls, summary)
    return summary


def _backfill(assets: list[str], days: Any, all_days: Any) -> Any:
    from totesys_assets.staleness.decide import Request

    if days.first > days.last or days.first not in all_days or days.last not in all_days:
        raise PlatformError(
            f"The days {days.first} to {days.last} are not a range within {all_days.first} to {all_days.last}, "
            "the days that have partitions. TOTESYS_FIRST_DAY sets the first."
        )
    return Request(tuple(assets), days)


def _begin_imports() -> None:
    """Import Dagster in a thread: it takes as long as the source takes to scan its tables."""
    threading.Thread(target=import_module, args=["totesys_assets.definitions"], daemon=True).start()


def _execute(
    settings: Settings,
    warehouse: Any,
    session: Any,
    requests: list[Any],
    seen: Any,
    console: Console,
    summary: Summary,
    *,
    accept_deletions: bool,
    is_backfill: bool,
) -> None:
    with console.status("Starting Dagster"):
        import dagster as dg

        from totesys_assets.assets.blocked import report
        from totesys_assets.automation.sensors import PATIENCE_SECONDS, fail_dead_runs
        from totesys_assets.definitions import build_definitions

        instance = dg.DagsterInstance.get()
        fail_dead_runs(instance, warehouse.is_alive, datetime.now(UTC), PATIENCE_SECONDS)
        if seen.source:  # it is empty where nobody looked: a backfill, a comparison of everything
            report(instance, session.totesys.catalogue, seen.examined)
        definitions = build_definitions(settings, {"session": session})
        gc.freeze()  # what is there now stays: to look through it for garbage, again and again, would take a second
    left_out = " ".join(str(problem) for problem in seen.problems)
    for request in requests:
        _run(
            definitions,
            instance,
            request,
            console,
            summary,
            accept_deletions=accept_deletions,
            left_out=left_out,
            is_backfill=is_backfill,
        )
        interrupts.check()


def _run(
    definitions: Any,
    instance: Any,
    request: Any,
    console: Console,
    summary: Summary,
    **execution: Any,
) -> None:
    from totesys_assets.automation.refresh import execute

    what = f"{len(request.assets)} assets" + (f", {request.days.first} to {request.days.last}" if request.days else "")
    # What Dagster writes there of events that it cannot store is as long as they are; that it failed is in the outcome.
    with _progress(console, what, len(request.assets)), redirect_stderr(io.StringIO()):
        outcome = execute(definitions, instance, request, **execution)
    summary.success = summary.success and outcome.success
    summary.problems += outcome.failures
    for group, seconds in outcome.seconds.items():
        summary.stages[group] = round(summary.stages.get(group, 0.0) + seconds, 3)
    summary.runs.append(
        {
            "run_id": outcome.run_id,
            "success": outcome.success,
            "assets": list(request.assets),
            "from": request.days.first if request.days else None,
            "to": request.days.last if request.days else None,
        }
    )


@contextmanager
def _progress(console: Console, what: str, total: int) -> Iterator[None]:
    """A bar that moves with every asset that reports in its log."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                asset, separator, _ = record.getMessage().partition(": ")
                if separator and record.name.startswith("totesys_assets.assets."):
                    progress.update(task, advance=1, description=f"{what} · {asset}")

        handler, logger = Handler(), logging.getLogger("totesys_assets")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


def contents_of(warehouse: Any, most: int | None = None) -> list[dict[str, Any]]:
    """Rows and versions of every table of the warehouse; of one larger than ``most``, rows are None."""
    counted = warehouse.contents(most)
    return [{"table": name, "rows": rows, "versions": versions} for name, rows, versions in counted]


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _print_summary(console: Console, settings: Settings, urls: Databases, summary: Summary) -> None:
    from totesys_assets.catalogue.catalogue import catalogue

    for problem in words.grouped(summary.problems, [*catalogue().source, *catalogue().star]):
        console.print("[red]✗[/red] ", end="")
        console.print(problem, markup=False, soft_wrap=True)
    if not summary.changed and not summary.problems:
        console.print(f"[green]✓[/green] Nothing changed ({summary.seconds:.1f} s).")
    elif summary.success:
        console.print(f"[green]✓[/green] Up to date in {summary.seconds:.1f} s: {_stages(summary)}.", soft_wrap=True)
    grid = Grid(title="Warehouse", title_justify="left", header_style="bold")
    grid.add_column("table")
    grid.add_column("rows", justify="right")
    grid.add_column("versions", justify="right")
    for row in summary.tables:
        grid.add_row(row["table"], _count(row["rows"]), f"{row['versions']:,}")
    console.print(grid)
    console.print(f"lake       {settings.lake_uri}", soft_wrap=True)
    console.print(f"warehouse  {address(urls.warehouse)}, schema {settings.warehouse_schema}", soft_wrap=True)
    for table, names in summary.unknown_columns.items():
        console.print("[yellow]![/yellow] ", end="")
        console.print(words.left_out(table, names), markup=False, soft_wrap=True)
    if opened := summary.dead_letters.get("open"):
        new = summary.dead_letters["new"]
        count = f"{words.number(opened, 'dead letter')}, {new or 'none'} new"
        console.print(
            f"[yellow]![/yellow] {count}: totesys dead-letters shows what to mend in ToteSys.", soft_wrap=True
        )


def _print_next(console: Console, settings: Settings, summary: Summary) -> None:
    if not summary.success:
        console.print(
            "\nNext: see to what is said above, then run it again; [bold]totesys status[/bold] shows the rest."
        )
    elif settings.warehouse_url is None:
        console.print("\nNext: [bold]make up[/bold] (totesys up) runs everything live, with the Dagster UI;")
        console.print("      [bold]totesys sql[/bold] opens the warehouse, [bold]totesys --help[/bold] lists the rest.")


def _stages(summary: Summary) -> str:
    return ", ".join(f"{GROUPS[group]} {seconds:.1f} s" for group, seconds in summary.stages.items() if group in GROUPS)
