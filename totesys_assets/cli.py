"""The command line: ``totesys up``, ``refresh``, ``status``, ``migrate``, ``provision``, ``sql``, ``simulate``.

More of them are in cli_audit.py and in bench/. Belongs here: options, progress and what is printed. Does not belong
here: the work itself.
"""

import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from totesys_assets import cli_audit, stages
from totesys_assets.bench.command import bench
from totesys_assets.errors import PlatformError
from totesys_assets.local.home import Databases, dagster_home, databases, only_one, refreshed
from totesys_assets.settings import Settings, SettingsError
from totesys_assets.terminal import address, err, out, reporter

# To count takes time in proportion to the table, and which rows of a fact are current even a sort: above so many, a
# refresh does neither.
_MOST_COUNTED = 100_000
GROUPS = {"totesys": "capture", "star": "build star", "warehouse": "load warehouse", "dagster": "bookkeeping"}


class Command(click.Group):
    """Shows errors that users can act on as one sentence, and nothing else of them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; PlatformError and SettingsError end it with exit code 1."""
        try:
            return super().invoke(ctx)
        except (PlatformError, SettingsError) as error:
            err.print(f"[red]{type(error).__name__}[/red]: ", end="")
            err.print(str(error), markup=False)
            ctx.exit(1)


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Bring ToteSys into a star-schema warehouse, completely, within seconds, with full history.

    Nothing set, everything is embedded in .totesys: a PostgreSQL with a simulated ToteSys, the lake, the warehouse.
    TOTESYS_URL, WAREHOUSE_URL (postgresql://…) and LAKE_URI (a folder or s3://bucket/prefix) point elsewhere;
    TOTESYS_HOME moves the local state, WAREHOUSE_SCHEMA names the schema, TOTESYS_FIRST_DAY the first partition.
    """
    # The default looks for garbage every 700 objects, and an import makes a hundred thousand that all stay.
    gc.set_threshold(20_000, 20, 20)
    # Dagster marks stable features of ours as beta; users of a command can do nothing about it.
    warnings.filterwarnings("ignore", module="dagster")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@dataclass
class Summary:
    """What a refresh did, as ``--json`` prints it.

    ``stages`` shares out the seconds of its runs; ``work`` are those that its threads spent in each stage of the work.
    """

    changed: bool
    success: bool
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)


@main.command()
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="Backfill from this day (by created_at).")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="… to this day, included.")
@click.option("--full", is_flag=True, help="Compare all content of all days, whatever the fingerprints say.")
@click.option("--accept-deletions", is_flag=True, help="Believe it when most of a table's rows are gone.")
@click.option("--scale", default=1.0, show_default=True, help="Size of the embedded ToteSys when it is first filled.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of tables.")
def refresh(
    first: datetime | None, last: datetime | None, full: bool, accept_deletions: bool, scale: float, as_json: bool
) -> None:
    """Detect what changed, materialise it through Dagster, print what was done.

    Exit code 0 only if all of it succeeded.
    """
    if (first is None) != (last is None):
        raise click.UsageError("Give both --from and --to.")
    days = (first.date(), last.date()) if first and last else None
    console = err if as_json else out
    settings = Settings.from_env()
    with databases(settings, scale=scale, report=reporter(console)) as urls:
        summary = _refresh(refreshed(settings), urls, console, days, full=full, accept_deletions=accept_deletions)
    if as_json:
        click.echo(json.dumps(asdict(summary), default=str, indent=2))
    if not summary.success:
        sys.exit(1)


def _refresh(
    settings: Settings,
    urls: Databases,
    console: Console,
    days: tuple[date, date] | None = None,
    *,
    full: bool = False,
    accept_deletions: bool = False,
) -> Summary:
    """One pass; prints progress while it works and a summary at its end."""
    started = time.monotonic()
    dagster_home(settings, urls)
    with console.status("Looking for changes"):
        # Imported here: --help should not wait for it. Dagster takes longest, and is not needed when nothing changed.
        from totesys_assets.automation.decide import everything
        from totesys_assets.automation.decide import partitioned as partitioned_assets
        from totesys_assets.automation.hint import recall, remember
        from totesys_assets.automation.look import Look, look, mark_of_done
        from totesys_assets.catalogue.catalogue import catalogue
        from totesys_assets.days import DayRange, partition_range
        from totesys_assets.resources.lake import Lake
        from totesys_assets.resources.session import Session
        from totesys_assets.resources.totesys import Totesys
        from totesys_assets.resources.warehouse import Warehouse

        lake, warehouse = Lake(settings.lake_uri), Warehouse(urls.warehouse, settings.warehouse_schema)
        all_days = partition_range(settings.first_day)
        session = Session(Totesys(urls.totesys, allow_superuser=settings.superuser_allowed))
        seen = Look()
        if full:
            wanted = [everything(catalogue(), all_days)]
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
    try:
        _execute(settings, warehouse, session, wanted, console, summary, accept_deletions=accept_deletions)
    finally:
        session.close()
    mark = mark_of_done(seen, lake, warehouse, all_days) if seen.requests and summary.success else seen.mark
    if mark is not None and not seen.probed_only:
        remember(settings.home, mark)
    summary.seconds, summary.work = time.monotonic() - started, stages.take()
    summary.tables = _contents(warehouse, most=_MOST_COUNTED)
    _print_summary(console, settings, urls, summary)
    return summary


def _backfill(assets: list[str], days: Any, all_days: Any) -> Any:
    from totesys_assets.automation.decide import Request

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
    console: Console,
    summary: Summary,
    *,
    accept_deletions: bool,
) -> None:
    if not requests:
        return
    with console.status("Starting Dagster"):
        import dagster as dg

        from totesys_assets.automation.sensors import PATIENCE_SECONDS, fail_dead_runs
        from totesys_assets.definitions import build_definitions

        instance = dg.DagsterInstance.get()
        fail_dead_runs(instance, warehouse.is_alive, datetime.now(UTC), PATIENCE_SECONDS)
        definitions = build_definitions(settings, {"session": session})
        gc.freeze()  # what is there now stays: to look through it for garbage, again and again, would take a second
    for request in requests:
        _run(definitions, instance, request, console, summary, accept_deletions=accept_deletions)


def _run(
    definitions: Any, instance: Any, request: Any, console: Console, summary: Summary, *, accept_deletions: bool
) -> None:
    from totesys_assets.automation.refresh import execute

    what = f"{len(request.assets)} assets" + (f", {request.days.first} to {request.days.last}" if request.days else "")
    with _progress(console, what, len(request.assets)):
        outcome = execute(definitions, instance, request, accept_deletions=accept_deletions)
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
    with Progress(*columns, console=console, transient=True) as progress:
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


def _contents(warehouse: Any, most: int | None = None) -> list[dict[str, Any]]:
    counted = warehouse.contents(most)
    return [{"table": name, "rows": rows, "versions": versions} for name, rows, versions in counted]


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _print_summary(console: Console, settings: Settings, urls: Databases, summary: Summary) -> None:
    for problem in summary.problems:
        console.print("[red]✗[/red] ", end="")
        console.print(problem, markup=False)
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
    if settings.warehouse_url is None:
        console.print("\nNext: [bold]make up[/bold] (totesys up) runs everything live, with the Dagster UI;")
        console.print("      [bold]totesys sql[/bold] opens the warehouse, [bold]totesys --help[/bold] lists the rest.")


def _stages(summary: Summary) -> str:
    return ", ".join(f"{GROUPS[group]} {seconds:.1f} s" for group, seconds in summary.stages.items() if group in GROUPS)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of tables.")
def status(as_json: bool) -> None:
    """Show what the warehouse holds, what is stale, and which rows wait in the dead letters. Changes nothing."""
    settings = Settings.from_env()
    with databases(settings, report=reporter(err)) as urls:
        settings = refreshed(settings)
        from totesys_assets.automation.look import look
        from totesys_assets.capture.dead_letters import open_dead_letters
        from totesys_assets.days import partition_range
        from totesys_assets.resources.lake import Lake
        from totesys_assets.resources.totesys import Totesys
        from totesys_assets.resources.warehouse import Warehouse

        lake, warehouse = Lake(settings.lake_uri), Warehouse(urls.warehouse, settings.warehouse_schema)
        totesys = Totesys(urls.totesys, allow_superuser=settings.superuser_allowed)
        seen = look(totesys, lake, warehouse, partition_range(settings.first_day))
        letters = open_dead_letters(lake).to_pylist()
        contents = _contents(warehouse)
        where = {
            "totesys": address(urls.totesys),
            "lake": settings.lake_uri,
            "warehouse": address(urls.warehouse),
            "schema": settings.warehouse_schema,
        }
    stale = {asset: sorted(partitions) for asset, partitions in seen.stale.items()}
    problems = [str(problem) for problem in seen.problems]
    if as_json:
        document = {**where, "tables": contents, "stale": stale, "problems": problems, "dead_letters": letters}
        click.echo(json.dumps(document, default=str, indent=2))
        return
    for name, value in where.items():
        out.print(f"{name:<10} {value}", soft_wrap=True)
    _print_status(contents, stale, problems, letters)


def _print_status(
    contents: list[dict[str, Any]], stale: dict[str, list[str]], problems: list[str], letters: list[dict[str, Any]]
) -> None:
    grid = Grid(header_style="bold")
    for name in ("table", "rows", "versions", "stale"):
        grid.add_column(name, justify="left" if name == "table" else "right")
    for row in contents:
        waiting = len(stale.get(f"warehouse/{row['table']}", []))
        grid.add_row(row["table"], f"{row['rows']:,}", f"{row['versions']:,}", str(waiting) if waiting else "")
    out.print(grid)
    for problem in problems:
        err.print(f"✗ {problem}", markup=False)
    if letters:
        out.print(f"{len(letters)} dead letters, kept until they are mended in ToteSys: totesys dead-letters")
    out.print("Everything is up to date." if not stale and not problems else "Next: totesys refresh")


@main.command()
def migrate() -> None:
    """Create the warehouse's tables and views, or bring them up to date, with the login of WAREHOUSE_URL.

    A refresh does so itself when its login may. Where it may not, run this with the owner's, before the first refresh
    and after every upgrade, and deploy/sql/warehouse_grants.sql after it.
    """
    from totesys_assets.resources.warehouse import Warehouse

    settings = Settings.from_env()
    with ExitStack() as stack:
        # A warehouse of one's own needs nothing embedded beside it.
        url = settings.warehouse_url or stack.enter_context(databases(settings, report=reporter(err))).warehouse
        done = Warehouse(url, settings.warehouse_schema).migrate()
    what = "The warehouse was brought up to date" if done else "Nothing to do: the warehouse is up to date"
    out.print(f"[green]✓[/green] {what} ({address(url)}, schema {settings.warehouse_schema}).", soft_wrap=True)


@main.command()
@click.option(
    "--sql", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the SQL files."
)
def provision(folder: Path | None) -> None:
    """Make databases, roles, passwords and tables as the URLs in the environment say; before every start of a version.

    WAREHOUSE_ADMIN_URL is the login that may (PGUSER and PGPASSWORD may supply it). Those that are made:
    WAREHOUSE_OWNER_URL, WAREHOUSE_URL (the loader's), WAREHOUSE_READER_URL (may be missing), TOTESYS_DAGSTER_URL.
    """
    from totesys_assets import provision as work

    work.provision(
        work.Wanted.from_env(Settings.from_env().warehouse_schema), folder or work.sql_folder(), reporter(out)
    )
    out.print("[green]✓[/green] Everything is there for the platform to start.")


@main.command()
@click.argument("statement", required=False)
def sql(statement: str | None) -> None:
    """Open psql on the warehouse, or run one STATEMENT there.

    Example: totesys sql "SELECT * FROM current_sales_order LIMIT 5"
    """
    import psycopg.conninfo

    from totesys_assets.local.postgres import binaries

    settings = Settings.from_env()
    with databases(settings, report=reporter(err)) as urls:
        parts = psycopg.conninfo.conninfo_to_dict(urls.warehouse)
        # Through the environment: a command line can be seen by everybody on the machine.
        secret = {"PGPASSWORD": str(parts.pop("password"))} if parts.get("password") else {}
        schema = {"PGOPTIONS": f"-c search_path={settings.warehouse_schema}"}
        command = [shutil.which("psql") or str(binaries() / "psql"), psycopg.conninfo.make_conninfo("", **parts)]
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for psql, which cancels its statement
        try:
            ended = subprocess.run(
                [*command, *(["-c", statement] if statement else [])],
                env={**os.environ, **schema, **secret},
                check=False,
            )
        finally:
            signal.signal(signal.SIGINT, ignored)
    sys.exit(ended.returncode)


@main.command()
@click.option("--events", type=click.IntRange(min=1), default=20, show_default=True, help="How many events to make.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Per second."
)
@click.option("--seed", type=int, help="The same seed on the same rows makes the same events.")
@click.option("--create", is_flag=True, help="Create and fill the tables first (with TOTESYS_URL: an empty database).")
@click.option("--scale", default=1.0, show_default=True, help="Size of what --create fills in; 1 is the real size.")
@click.option("--into-totesys-url", is_flag=True, help="Write into the database of TOTESYS_URL. Never a real ToteSys!")
def simulate(events: int, rate: float, seed: int | None, create: bool, scale: float, into_totesys_url: bool) -> None:
    """Let the simulated ToteSys do some business: orders, updates with and without a trace, payments, deletions."""
    settings = Settings.from_env()
    if settings.totesys_url and not into_totesys_url:
        raise PlatformError(
            "TOTESYS_URL is set, and the simulator would write into that database. Unset it to use the embedded "
            "ToteSys, or add --into-totesys-url if that database is for trying things."
        )
    import psycopg

    from totesys_assets.local import simulator
    from totesys_assets.resources.engine import one_line

    with databases(settings, scale=scale, report=reporter(err)) as urls:
        try:
            if create and settings.totesys_url:
                simulator.create(urls.totesys, scale=scale, seed=seed or 1, report=reporter(err))
            with simulator.Traffic(urls.totesys, seed=seed, on_event=_tell) as traffic:
                traffic.run(rate, threading.Event(), limit=events)
        except (ValueError, LookupError, psycopg.Error) as error:  # the database is not one that it can use
            raise PlatformError(f"The simulator stopped: {one_line(error)}.") from error


def _tell(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)


@main.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port of the Dagster UI.")
@click.option("--rate", default=0.3, show_default=True, type=click.FloatRange(min=0), help="Simulated events a second.")
@click.option("--scale", default=1.0, show_default=True, help="Size of the embedded ToteSys when it is first filled.")
def up(port: int, rate: float, scale: float) -> None:
    """Run everything live: ToteSys traffic, the sensor, the Dagster UI. Ctrl-C stops all of it."""
    from totesys_assets.local import live

    settings = Settings.from_env()
    with only_one(settings.home / "up.lock", "totesys up"):
        live.require_free_port(port)
        with databases(settings, scale=scale, report=reporter(out)) as urls:
            settings = refreshed(settings)
            _refresh(settings, urls, out)
            live.run(settings, urls, port=port, rate=0.0 if settings.totesys_url else rate, say=_say)


def _say(who: str, what: str) -> None:
    colour = {"totesys": "yellow", "warehouse": "green", "error": "red"}.get(who, "cyan")
    out.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/dim] [{colour}]{who:<9}[/{colour}] ", end="")
    out.print(what, markup=False, soft_wrap=True)


for command in (*cli_audit.COMMANDS, bench):
    main.add_command(command)

if __name__ == "__main__":
    main()
