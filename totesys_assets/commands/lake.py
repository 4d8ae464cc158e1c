"""The commands that show the lake: ``totesys dead-letters`` and ``schema``.

Belongs here: options and what is printed. Does not belong here: the work itself (capture/).
"""

import json
from dataclasses import asdict

import click
from rich.table import Table as Grid
from rich.text import Text

from totesys_assets.commands import words
from totesys_assets.errors import PlatformError
from totesys_assets.local import homes
from totesys_assets.settings import Settings
from totesys_assets.terminal import out, say, show


@click.command("dead-letters")
@click.option("--table", metavar="TABLE", help="Only rows of this source table.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document, with the rows' raw text.")
def dead_letters(table: str | None, as_json: bool) -> None:
    """List the rows that break a type or a rule, and why.

    Correct the rows in their source, or change the rule in the catalogue. The next refresh then brings them in and
    removes them from this list.
    """
    from totesys_assets.capture.dead_letters import open_dead_letters
    from totesys_assets.lake.tables import Lake
    from totesys_assets.source.copied import FILE

    if table is not None:
        _require_table(table)
    settings = Settings.from_env()
    homes.require_lake(settings)
    lake = Lake(settings.lake_uri)
    lake.require()
    listed = open_dead_letters(lake).to_pylist()
    letters = [letter for letter in listed if table in (None, letter["table_name"])]
    if as_json:
        click.echo(json.dumps(letters, default=str, indent=2))
        return
    for letter in letters:
        # A file as a whole is of no day.
        has_day = letter["partition"] != "*" and letter["column_name"] != FILE
        where = f" of {letter['partition']}" if has_day else ""
        what = f"{letter['row_key']}{where}: {letter['column_name']} {letter['reason']}"
        say(out, f"[bold]{letter['table_name']}[/bold] ", what)
        since = f"since {letter['_recorded_at']:%Y-%m-%d %H:%M:%S} UTC"
        say(out, "  ", Text(f"{since}: {_shortened(letter['raw'])}", style="dim"))
    say(out, "", f"{words.number(len(letters), 'dead letter')}." if letters else "No dead letters.")


def _require_table(table: str) -> None:
    from totesys_assets.catalogue.catalogue import catalogue

    if table not in catalogue().source:
        raise PlatformError(f'No source has a table "{table}". There are: {", ".join(catalogue().source)}.')


def _shortened(raw: str, limit: int = 400) -> str:
    return raw if len(raw) <= limit else f"{raw[:limit]}… ({len(raw):,} characters; all of them with --json)"


@click.command()
@click.argument("table", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document with every version's columns.")
def schema(table: str | None, as_json: bool) -> None:
    """List the structures that source tables have had.

    Each has a version, the time since when, and what changed.

    A structure that does not match the catalogue is refused: that table is not captured until it does, its data stay as
    they are, and the other tables go on.
    """
    from totesys_assets.capture.registry import structures
    from totesys_assets.lake.tables import Lake

    if table is not None:
        _require_table(table)
    settings = Settings.from_env()
    homes.require_lake(settings)
    lake = Lake(settings.lake_uri)
    lake.require()
    found = structures(lake, table)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], default=str, indent=2))
        return
    grid = Grid(header_style="bold")
    for name in ("table", "version", "since (UTC)", "status", "changes"):
        grid.add_column(name, no_wrap=name != "changes")
    before = None
    for each in found:
        changes = each.changes(before if before is not None and before.table == each.table else None)
        since = f"{each.first_seen_at:%Y-%m-%d %H:%M:%S}"
        grid.add_row(each.table, str(each.version), since, each.status, Text("; ".join(changes)))
        before = each
    show(out, grid)
