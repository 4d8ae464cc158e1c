"""The commands that look back: ``totesys audit``, ``replay``, ``as-of``, ``dead-letters`` and ``schema``.

Belongs here: options and what is printed. Does not belong here: the work itself.
"""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table as Grid

from totesys_assets.errors import PlatformError
from totesys_assets.local.home import databases, refreshed
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, reporter

if TYPE_CHECKING:
    from totesys_assets.audit.findings import Finding

_TIMESTAMPS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
_MARKS = {"equal": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "different": "[red]✗[/red]"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of a table.")
def audit(as_json: bool) -> None:
    """Compare ToteSys, lake and warehouse by content, independently of how they were loaded. Changes nothing.

    Exit code 1 if anything differs. What waits for a refresh is left out and counted as pending; what breaks a rule of
    the business is a warning.
    """
    settings = Settings.from_env()
    with databases(settings, report=reporter(err)) as urls:
        settings = refreshed(settings)
        with err.status("Comparing"):
            from totesys_assets.audit.audit import audit as look_everywhere
            from totesys_assets.days import partition_range
            from totesys_assets.resources.lake import Lake
            from totesys_assets.resources.totesys import Totesys
            from totesys_assets.resources.warehouse import Warehouse

            found = look_everywhere(
                Totesys(urls.totesys, allow_superuser=settings.superuser_allowed),
                Lake(settings.lake_uri),
                Warehouse(urls.warehouse, settings.warehouse_schema),
                partition_range(settings.first_day),
            )
    differing = [finding for finding in found if _outcome(finding) == "different"]
    if as_json:
        click.echo(json.dumps({"equal": not differing, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        _print_findings(found, len(differing))
    if differing:
        sys.exit(1)


def _outcome(finding: "Finding") -> str:
    if finding.passed:
        return "equal"
    return "warning" if finding.warning else "different"


def _print_findings(found: "list[Finding]", differing: int) -> None:
    width = max(len(finding.check) for finding in found)
    for asset, findings in groupby(sorted(found, key=lambda finding: _order(finding.asset)), lambda each: each.asset):
        out.print(f"[bold]{asset}[/bold]")
        for finding in findings:
            out.print(f"  {_MARKS[_outcome(finding)]} {finding.check:<{width}}  ", end="")
            waiting = f" ({finding.pending:,} partitions pending)" if finding.pending else ""
            out.print(f"{finding.detail}{waiting}", markup=False, soft_wrap=True)
    warnings = sum(_outcome(finding) == "warning" for finding in found)
    pending = max(finding.pending for finding in found)
    out.print(
        f"{len(found)} checks: {differing or 'none'} differ, {warnings or 'no'} warnings."
        + (" What is pending waits for a refresh: totesys refresh." if pending else "")
    )


def _order(asset: str) -> tuple[int, int]:
    """The assets in the order of the data flow."""
    from totesys_assets.catalogue.catalogue import catalogue

    group, _, name = asset.partition("/")
    source, star = catalogue().source, catalogue().star
    return (0, [*source].index(name)) if group == "totesys" else (1, [*star].index(name))


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # what the source holds is no markup


@click.command()
@click.option("--into", "schema", required=True, help="A schema of the warehouse that is empty, or not there yet.")
def replay(schema: str) -> None:
    """Rebuild the warehouse from the lake alone, into an empty SCHEMA, and compare it with the one in use.

    Exit code 1 if they differ. To put the new one in place of the old: set WAREHOUSE_SCHEMA to it.
    """
    _restore(schema, None)


@click.command("as-of")
@click.argument("timestamp", type=click.DateTime(_TIMESTAMPS))
@click.option("--into", "schema", help="An empty schema of the warehouse. [default: as_of_ and the timestamp]")
def as_of(timestamp: datetime, schema: str | None) -> None:
    """Make the star as it was recorded at TIMESTAMP (UTC, unless it says otherwise), in a schema of its own.

    All eleven tables and their views, from the lake. A plain date means its first instant.
    """
    moment = timestamp.astimezone(UTC) if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
    _restore(schema or f"as_of_{moment:%Y%m%d_%H%M%S}", moment)


def _restore(schema: str, moment: datetime | None) -> None:
    settings = Settings.from_env()
    if schema == settings.warehouse_schema:
        raise PlatformError(f'Schema "{schema}" is the warehouse in use. Name another one.')
    with databases(settings, report=reporter(err)) as urls:
        from totesys_assets.load.restore import differing, restore
        from totesys_assets.resources.lake import Lake
        from totesys_assets.resources.warehouse import Warehouse

        target, used = Warehouse(urls.warehouse, schema), Warehouse(urls.warehouse, settings.warehouse_schema)
        with err.status("Reading the lake") as status:
            written = restore(
                target, Lake(settings.lake_uri), as_of=moment, report=lambda table, _: status.update(f"{table} is done")
            )
            unequal = differing(used, target) if moment is None and used.loaded() else []
            contents = target.contents()
    grid = Grid(header_style="bold")
    grid.add_column("table")
    for name in ("rows", "versions"):
        grid.add_column(name, justify="right")
    for table, rows, versions in contents:
        grid.add_row(table, f"{rows:,}", f"{versions:,}")
    out.print(grid)
    out.print(
        f"{sum(written.values()):,} rows in schema {schema}: WAREHOUSE_SCHEMA={schema} totesys sql",
        markup=False,
        soft_wrap=True,
    )
    if unequal:
        err.print(f"Not equal to schema {settings.warehouse_schema}: {', '.join(unequal)}. See: totesys audit")
        sys.exit(1)
    if moment is None:
        out.print(f"Equal to schema {settings.warehouse_schema} in every table and column.")


@click.command("dead-letters")
@click.option("--table", help="Of this table of ToteSys only.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document, with the rows' raw text.")
def dead_letters(table: str | None, as_json: bool) -> None:
    """List the rows that break a type or a rule: reason and raw text.

    Mend them in ToteSys, or change the rule in the catalogue: either way the next refresh brings them in, and they
    leave this list by themselves.
    """
    from totesys_assets.capture.dead_letters import open_dead_letters
    from totesys_assets.resources.lake import Lake

    listed = open_dead_letters(Lake(Settings.from_env().lake_uri)).to_pylist()
    letters = [letter for letter in listed if table in (None, letter["table_name"])]
    if as_json:
        click.echo(json.dumps(letters, default=str, indent=2))
        return
    for letter in letters:
        where = "" if letter["partition"] == "*" else f" of {letter['partition']}"
        out.print(f"[bold]{letter['table_name']}[/bold] ", end="")
        out.print(f"{letter['row_key']}{where}: {letter['column_name']} {letter['reason']}", markup=False)
        out.print(f"  since {letter['_recorded_at']:%Y-%m-%d %H:%M:%S} UTC: ", end="", style="dim")
        out.print(_shortened(letter["raw"]), markup=False, style="dim", soft_wrap=True)
    out.print(f"{len(letters)} dead letters." if letters else "No dead letters.")


def _shortened(raw: str, limit: int = 400) -> str:
    return raw if len(raw) <= limit else f"{raw[:limit]}… ({len(raw):,} characters; all of them with --json)"


@click.command()
@click.argument("table", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document with every version's columns.")
def schema(table: str | None, as_json: bool) -> None:
    """List the structures that the tables of ToteSys were seen with: version, since when, what changed.

    A structure that is not the catalogue's is refused: that table stops, with its data safe, and the others go on.
    """
    from totesys_assets.capture.registry import structures
    from totesys_assets.catalogue.catalogue import catalogue
    from totesys_assets.resources.lake import Lake

    if table is not None and table not in catalogue().source:
        raise PlatformError(f'ToteSys has no table "{table}". It has: {", ".join(catalogue().source)}.')
    found = structures(Lake(Settings.from_env().lake_uri), table)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], default=str, indent=2))
        return
    if not found:
        out.print("No table was captured yet. Run: totesys refresh")
        return
    grid = Grid(header_style="bold")
    for name in ("table", "version", "since (UTC)", "status", "changes"):
        grid.add_column(name)
    before = None
    for each in found:
        changes = each.changes(before if before is not None and before.table == each.table else None)
        since = f"{each.first_seen_at:%Y-%m-%d %H:%M:%S}"
        grid.add_row(each.table, str(each.version), since, each.status, _plain("; ".join(changes)))
        before = each
    out.print(grid)


COMMANDS = (audit, replay, as_of, dead_letters, schema)
