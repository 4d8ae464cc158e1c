"""The commands that make a warehouse from the lake alone: ``totesys replay`` and ``as-of``.

Belongs here: options and what is printed. Does not belong here: the work itself (load/restore.py).
"""

import shlex
import sys
from datetime import datetime
from typing import Any

import click
from rich.table import Table as Grid

from totesys_assets.commands import interrupts
from totesys_assets.commands.options import Moment
from totesys_assets.counting import counted
from totesys_assets.databases import warehouse_only
from totesys_assets.errors import PlatformError
from totesys_assets.moments import moment_of
from totesys_assets.setting_values import schema_name
from totesys_assets.settings import Settings
from totesys_assets.sql_text import quoted
from totesys_assets.terminal import command, err, out, program, reporter, say, show


@click.command()
@click.option(
    "--into",
    "schema",
    metavar="SCHEMA",
    required=True,
    help="A schema of the warehouse that is empty or does not exist yet.",
)
def replay(schema: str) -> None:
    """Rebuild the warehouse from the lake, into an empty SCHEMA.

    It reads the lake alone, and compares the result with the warehouse in use.

    Exit code 1 if they differ. To use the new one instead of the old: set WAREHOUSE_SCHEMA to it.
    """
    _restore(schema, None)


@click.command("as-of")
@click.argument("timestamp", type=Moment())
@click.option(
    "--into", "schema", metavar="SCHEMA", help="An empty schema of the warehouse. [default: as_of_ and the timestamp]"
)
def as_of(timestamp: datetime, schema: str | None) -> None:
    """Build the star as it was recorded at TIMESTAMP.

    It builds all tables and their views from the lake, in a schema of their own. TIMESTAMP is in UTC unless it has an
    offset. A plain date means its first instant.
    """
    _restore(schema or f"as_of_{timestamp:%Y%m%d_%H%M%S}", moment_of(timestamp), is_ours=schema is None)


def _how_exact(lake: Any, moment: datetime) -> str:
    """Of which tables of ToteSys every version that was committed by ``moment`` was seen, in a sentence."""
    from totesys_assets.capture.ledger import Ledger
    from totesys_assets.capture.stretches import stretches
    from totesys_assets.catalogue.catalogue import catalogue
    from totesys_assets.names import TOTESYS

    try:
        newest = Ledger(lake).newest()
    except PlatformError as error:
        return f"It is not known whether the log of ToteSys was followed then: {error}"
    tables = [name for name, table in catalogue().source.items() if table.group == TOTESYS]
    compared = [name for name in tables if not any(each.covers(moment) for each in stretches(newest, name))]
    if not compared:
        return "Exact to the transaction: the log of ToteSys was followed then."
    which = "ToteSys" if len(compared) == len(tables) else ", ".join(compared)
    return f"As of the last refresh before that moment: {which}. The log was not followed then."


def _restore(schema: str, moment: datetime | None, *, is_ours: bool = False) -> None:
    """Restore, and print what was done. ``is_ours``: the name of the schema is this command's."""
    settings = Settings.from_env()
    schema_name(schema, "--into")
    if schema == settings.warehouse_schema:
        raise PlatformError(f'Schema "{schema}" is the warehouse in use. Name another one.')
    drop = f"DROP SCHEMA {quoted(schema)} CASCADE"
    half = f"The schema may hold a part of it, or all. To run it again, name another with --into, or drop it: {drop}"
    with warehouse_only(settings, reporter(err)) as url:
        from totesys_assets.lake.tables import Lake
        from totesys_assets.load.restore import differing, restore
        from totesys_assets.warehouse.warehouse import Warehouse

        target, used = Warehouse(url, schema), Warehouse(url, settings.warehouse_schema)
        with err.status("Reading the lake") as status:
            notes: list[str] = []
            written = restore(
                target,
                Lake(settings.lake_uri),
                as_of=moment,
                report=lambda table, _: status.update(f"{table} is done"),
                say=notes.append,
                writing=interrupts.leaving(half),
            )
            unequal = differing(used, target) if moment is None and used.loaded() else []
            contents = target.contents()
            exact = _how_exact(Lake(settings.lake_uri), moment) if moment is not None else ""
    grid = Grid(header_style="bold")
    grid.add_column("table")
    for name in ("rows", "versions"):
        grid.add_column(name, justify="right")
    for table, rows, versions in contents:
        grid.add_row(table, f"{rows:,}", f"{versions:,}")
    show(out, grid)
    count = sum(written.values())
    say(out, "", f"{counted(count, 'row')} in schema {schema}. To open it:")
    command(out, f"WAREHOUSE_SCHEMA={shlex.quote(schema)} {program()} sql")
    if moment is not None:
        say(out, "", exact)
        for note in notes:
            say(out, "", note)
    if is_ours:
        say(out, "", "The schema stays as it is until it is dropped:")
        drop = f"SET client_min_messages = warning; DROP SCHEMA {quoted(schema)} CASCADE"
        command(out, f"{program()} sql {shlex.quote(drop)}")
    if unequal:
        say(err, "", f"Not equal to schema {settings.warehouse_schema}: {', '.join(unequal)}. See: {program()} audit")
        sys.exit(1)
    if moment is None:
        say(out, "", f"Equal to schema {settings.warehouse_schema} in every table and column.")
