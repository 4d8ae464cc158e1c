"""The command ``totesys status``: what an operator asks first.

Belongs here: what is printed. Does not belong here: finding out.
"""

import json
from typing import Any

import click
from rich.table import Table as Grid

from totesys_assets.commands.refresh import contents_of
from totesys_assets.local.home import databases, refreshed
from totesys_assets.settings import Settings
from totesys_assets.terminal import address, err, out, reporter


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of tables.")
def status(as_json: bool) -> None:
    """Show what the warehouse holds, what is stale, and which rows wait in the dead letters. Changes nothing."""
    settings = Settings.from_env()
    with databases(settings, create=False, dagster=False, report=reporter(err)) as urls:
        settings = refreshed(settings)
        from totesys_assets.automation.look import look
        from totesys_assets.capture.dead_letters import open_dead_letters
        from totesys_assets.days import partition_range
        from totesys_assets.resources.lake import Lake
        from totesys_assets.resources.totesys import Totesys
        from totesys_assets.resources.warehouse import Warehouse

        lake, warehouse = Lake(settings.lake_uri), Warehouse(urls.warehouse, settings.warehouse_schema)
        totesys = Totesys.of(settings, urls.totesys)
        seen = look(totesys, lake, warehouse, partition_range(settings.first_day))
        letters = open_dead_letters(lake).to_pylist()
        contents = contents_of(warehouse)
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
