"""The command ``totesys audit``.

Belongs here: options and what is printed. Does not belong here: comparing (audit/).
"""

import json
import sys
from collections import Counter
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import click
from rich.text import Text

from totesys_assets.databases import databases, refreshed
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, program, reporter, say

if TYPE_CHECKING:
    from totesys_assets.audit.findings import Finding

_MARKS = {
    "equal": "[green]✓[/green]",
    "pending": "[yellow]…[/yellow]",
    "warning": "[yellow]![/yellow]",
    "different": "[red]✗[/red]",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of lines.")
def audit(as_json: bool) -> None:
    """Compare ToteSys, lake and warehouse by content.

    It does not rely on how they were loaded. It changes nothing, and notes what it found in the warehouse.

    Exit code 1 if anything differs, or if nothing could be compared. Partitions that wait for a refresh are left out
    and counted as pending. Rows that break a rule of the business are a warning.
    """
    settings = Settings.from_env()
    with databases(settings, create=False, dagster=False, report=reporter(err)) as urls:
        settings = refreshed(settings)
        with err.status("Comparing"):
            from totesys_assets.audit.audit import audit as look_everywhere
            from totesys_assets.audit.audit import compared_nothing
            from totesys_assets.audit.noted import note_findings
            from totesys_assets.platform import Platform
            from totesys_assets.staleness.following import end_following
            from totesys_assets.staleness.mark import read_mark

            platform = Platform.of(settings, urls.totesys, urls.warehouse)
            try:
                found = look_everywhere(platform, marks=[mark for mark in [read_mark(settings.home)] if mark])
            finally:
                end_following(platform)
            unnoted = note_findings(platform.warehouse, found, whole=True)
    if unnoted:
        say(err, "", unnoted)
    outcomes: Counter[str] = Counter(finding.outcome for finding in found)
    is_empty = compared_nothing(found)
    equal = not outcomes["different"] and not is_empty
    if as_json:
        click.echo(json.dumps({"equal": equal, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        _print_findings(found)
        say(out, "", _summary(found, outcomes))
    if is_empty:
        say(err, "", "Not one row of a source was compared with the lake, so this audit proves nothing.")
    if not equal:
        sys.exit(1)


def _print_findings(found: "list[Finding]") -> None:
    from totesys_assets.counting import counted

    width = max(len(finding.check) for finding in found)
    for asset, findings in groupby(sorted(found, key=lambda finding: _order(finding.asset)), lambda each: each.asset):
        say(out, "", Text(asset, style="bold"))
        for finding in findings:
            waiting = f" ({counted(finding.pending, 'partition')} pending)" if finding.pending else ""
            say(out, f"  {_MARKS[finding.outcome]} {finding.check:<{width}}  ", f"{finding.detail}{waiting}")


def _summary(found: "list[Finding]", outcomes: "Counter[str]") -> str:
    from totesys_assets.counting import counted

    said = [
        f"{outcomes['different']} {'fails' if outcomes['different'] == 1 else 'fail'}" if outcomes["different"] else "",
        counted(outcomes["warning"], "warning") if outcomes["warning"] else "",
        f"{outcomes['pending']} compared nothing yet" if outcomes["pending"] else "",
    ]
    listed = ", ".join(text for text in said if text)
    summary = f"{counted(len(found), 'check')}: {listed}." if listed else f"All {len(found)} checks pass."
    if any(finding.pending for finding in found):
        summary += f" Pending partitions wait for a refresh: {program()} refresh."
    return summary


def _order(asset: str) -> tuple[int, int]:
    """The assets in the order of the data flow."""
    from totesys_assets.catalogue.catalogue import catalogue

    name = asset.partition("/")[2]
    source, made = catalogue().source, catalogue().warehouse
    return (0, [*source].index(name)) if name in source else (1, [*made].index(name))
