"""The command ``totesys status``: what an operator asks first.

Belongs here: what is printed. Does not belong here: gathering it (automation/condition.py).
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING

import click
from rich.table import Table as Grid

from totesys_assets.commands import words
from totesys_assets.dagster_home import dagster_home, named_folder
from totesys_assets.databases import databases, refreshed
from totesys_assets.errors import told_once
from totesys_assets.local.locks import taken_by
from totesys_assets.names import UP_LOCK
from totesys_assets.settings import Settings
from totesys_assets.terminal import address, err, out, program, reporter, say, show

if TYPE_CHECKING:
    from totesys_assets.automation.condition import Condition
    from totesys_assets.staleness.following import LogCondition


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document, as docs/reference/status.md has it.")
def status(as_json: bool) -> None:
    """Show how far each table is behind, and what is wrong.

    It tells what waits, what failed last, and which tables cannot be captured. It changes nothing. Under "waiting" it
    counts days, or 1 for a table without days.

    Exit code 1 if a source, the lake, the warehouse or Dagster's records cannot be reached, or a table cannot be
    captured.
    """
    settings = Settings.from_env()
    records = _has_records(settings)
    if records:  # while the source scans its tables
        threading.Thread(target=import_module, args=["totesys_assets.automation.records"], daemon=True).start()
    with (
        databases(settings, create=False, dagster=records, report=reporter(err)) as urls,
        err.status("Looking"),
    ):
        settings = refreshed(settings)
        if records:
            dagster_home(settings, urls.dagster)
        from totesys_assets.automation.condition import condition
        from totesys_assets.platform import Platform
        from totesys_assets.refresh import MOST_COUNTED
        from totesys_assets.transform.engines.chosen import described

        found = condition(
            Platform.of(settings, urls.totesys, urls.warehouse),
            settings.home,
            records=records,
            most=MOST_COUNTED,
        )
        where = {
            "totesys": address(urls.totesys),
            "lake": settings.lake_uri,
            "warehouse": address(urls.warehouse),
            "schema": settings.warehouse_schema,
            "engine": settings.engine,
        }
        engine = described(settings)
    if as_json:
        click.echo(json.dumps(where | asdict(found), default=_plain, indent=2))
    else:
        _print(where, found, engine, is_live=taken_by(settings.home / UP_LOCK) is not None)
    if not found.well:
        sys.exit(1)


def _has_records(settings: Settings) -> bool:
    """Whether Dagster's records can be read. No server is started only for that."""
    if named_folder(settings) is not None:
        return True
    folder = settings.home / "postgres" / "warehouse"
    if not (settings.home / "dagster" / "dagster.yaml").exists() or not (folder / "data").is_dir():
        return False
    if not (settings.totesys_url and settings.warehouse_url):
        return True
    from totesys_assets.local.postgres import EmbeddedServer

    return EmbeddedServer(folder).running()


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _print(where: dict[str, str], found: Condition, engine: str | None, *, is_live: bool) -> None:
    more = {
        "lake": ", ".join(
            [
                *([words.size(found.lake_bytes)] if found.lake_bytes is not None else []),
                *(
                    [f"{words.size(found.disk_free_bytes)} left on its disk"]
                    if found.disk_free_bytes is not None
                    else []
                ),
            ]
        ),
        "warehouse": f"schema {where['schema']}",
    }
    for part in ("totesys", "lake", "warehouse", "dagster"):
        if part in found.down:
            say(err, f"[red]✗[/red] {part:<10} ", found.down[part])
        elif part in where:
            say(out, f"  {part:<10} ", f"{where[part]} ({more[part]})" if more.get(part) else where[part])
    if engine is not None:
        say(out, "  engine     ", engine)
    if found.log is not None:
        say(out, "  log        ", _log(found.log))
    say(out, "  up to date ", _ago(found.up_to_date_at) or "never, as far as known")
    if (failure := found.last_failure) is not None:
        # The sentence is of then. It may say that the next refresh will do what has been done.
        is_older = found.up_to_date_at is not None and found.up_to_date_at > failure.at
        since = " (Since then, a look found everything up to date.)" if is_older else ""
        say(out, "  failed     ", f"{_ago(failure.at)}: {failure.problem}{since}")
    _print_source(found)
    _print_warehouse(found)
    tables = [each.table for each in found.source]
    for problem in told_once(found.problems, tables):
        say(err, "[red]✗[/red] ", problem)
    for each in found.source:
        if each.unknown_columns:
            say(out, "[yellow]![/yellow] ", words.left_out(each.table, each.unknown_columns))
    for table in found.left_over:
        say(out, "[yellow]![/yellow] ", words.left_over(where["schema"], table))
    if found.dead_letters:
        count = words.number(len(found.dead_letters), "dead letter")
        say(out, "", f"{count}, kept until corrected in the source: {program()} dead-letters")
    if found.stale and is_live:
        say(out, "", f"{program()} up is running, and brings what waits.")
    elif found.stale:
        say(out, "", f"Next: {program()} refresh")
    elif found.well:
        say(out, "", "Everything is up to date.")


def _log(log: LogCondition) -> str:
    if log.reason is not None:
        when = f" since {log.lost_at:%Y-%m-%d %H:%M} UTC" if log.lost_at is not None else ""
        why = log.reason.rstrip(".")
        return f"not followed{when}: {why}. Tables are compared; what changed twice in between was seen once"
    kept = f", {words.size(log.kept_bytes)} kept by ToteSys" if log.kept_bytes is not None else ""
    allowed = f" of {words.as_set(log.allowed_bytes)} allowed" if log.allowed_bytes is not None else ""
    since = f" since {log.since:%Y-%m-%d %H:%M} UTC" if log.since is not None else ""
    return f"on{since}, {words.size(log.behind_bytes or 0)} behind{kept}{allowed}"


def _print_source(found: Condition) -> None:
    grid = _grid("source", "captured", "waiting", "behind", "dead letters")
    for each in found.source:
        behind = each.behind_seconds
        shown = "" if behind == 0 else "?" if behind is None else f"≤ {words.span(behind)}"
        waiting = "blocked" if each.blocked else _number(each.stale)
        grid.add_row(each.table, _ago(each.captured_at), waiting, shown, _number(each.dead_letters))
    show(out, grid)


def _print_warehouse(found: Condition) -> None:
    if not found.tables:
        return
    grid = _grid("warehouse", "rows", "versions", "loaded", "waiting")
    for each in found.tables:
        rows = "" if each.rows is None else f"{each.rows:,}"
        grid.add_row(each.table, rows, f"{each.versions:,}", _ago(each.loaded_at), _number(each.stale))
    show(out, grid)


def _grid(first: str, *others: str) -> Grid:
    grid = Grid(header_style="bold")
    grid.add_column(first)
    for name in others:
        grid.add_column(name, justify="right")
    return grid


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}" if count else ""


def _ago(moment: datetime | None) -> str:
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return "now" if seconds < 1 else f"{words.span(seconds)} ago"
