"""The command ``totesys audit``.

Belongs here: options and what is printed. Does not belong here: comparing (audit/).
"""

import json
import sys
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import click

from totesys_assets.local.home import databases, refreshed
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, reporter

if TYPE_CHECKING:
    from totesys_assets.audit.findings import Finding

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
