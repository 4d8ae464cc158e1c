"""The commands about PostgreSQL's log of ToteSys: ``totesys log check`` and ``log stop``.

Belongs here: options and what is printed. Does not belong here: what a server must offer, and following its log, which
are in source/totesys/.
"""

from __future__ import annotations

import click
from rich.text import Text

from totesys_assets.commands import words
from totesys_assets.databases import source_only
from totesys_assets.errors import PlatformError
from totesys_assets.settings import Settings
from totesys_assets.terminal import address, err, out, program, reporter, say


@click.group()
def log() -> None:
    """Prepare ToteSys for following its log, or leave it."""


@log.command()
def check() -> None:
    """Say what ToteSys lacks for its log to be followed.

    It says what to do where something is missing, and changes nothing there. Exit code 1 if something is missing.
    """
    from totesys_assets.platform import log_of

    settings = Settings.from_env()
    own = _own_slot(settings)
    with source_only(settings, reporter(err)) as url, log_of(settings, url, own or "") as opened:
        state = opened.state()
        found, where = opened.needs(state), address(url)
    say(out, "", Text(f"{where}, schema {settings.totesys_schema}", style="bold"))
    for need in found:
        mark = "[green]✓[/green]" if need.met else "[yellow]![/yellow]" if need.advice else "[red]✗[/red]"
        say(out, f"{mark} ", f"{need.name}: {need.found}." + ("" if need.met else f" {need.to_do}"))
    if state.slot is not None:
        retained = state.slot.retained
        held = "is there" if retained is None else f"keeps {words.size(retained)} of log"
        say(out, "[dim]·[/dim] ", f"slot {own}: {'lost' if state.slot.lost else held}")
    for name in state.others:
        say(out, "[dim]·[/dim] ", f"slot {name}: of another platform. {program()} log stop --slot {name} drops it")
    missing = [need.name for need in found if not need.met and not need.advice]
    if missing:
        raise PlatformError(f"The log cannot be followed yet: see {', '.join(missing)} above.")
    then = "" if settings.follows_log else " It is not yet: set TOTESYS_LOG=on."
    say(out, "[green]✓[/green] ", f"The log can be followed.{then}")


@log.command()
@click.option("--slot", metavar="NAME", help="The slot of another platform, which is there no more.")
def stop(slot: str | None) -> None:
    """Drop the slot in which this platform follows the log of ToteSys.

    The server then keeps no log for it. Do so before an upgrade of the server to another major version, and before the
    platform is switched off for good. With TOTESYS_LOG=on, a refresh makes a new one a minute later.
    """
    from totesys_assets.platform import log_of

    settings = Settings.from_env()
    name = slot or _own_slot(settings)
    if name is None:
        say(out, "[green]✓[/green] ", "Nothing to drop: the log was never followed for this lake.")
        return
    with source_only(settings, reporter(err)) as url, log_of(settings, url, name) as opened:
        was_there = opened.state().slot is not None and opened.finish()
    said = f"The slot {name} was dropped." if was_there else f"Nothing to drop: there is no slot {name}."
    say(out, "[green]✓[/green] ", said)


def _own_slot(settings: Settings) -> str | None:
    """The slot of the lake that the settings name; None where the log was never followed for it."""
    from totesys_assets.lake.tables import Lake
    from totesys_assets.platform import slot_of

    return slot_of(Lake(settings.lake_uri))
