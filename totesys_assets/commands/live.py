"""The commands that run a live platform on one machine: ``totesys up`` and ``simulate``.

Belongs here: options and what is printed. Does not belong here: running it (live/).
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from totesys_assets.commands import interrupts
from totesys_assets.commands.refresh import SCALE_HELP, begin_early, one_pass
from totesys_assets.counting import counted
from totesys_assets.databases import databases, follow_log, refreshed
from totesys_assets.errors import PlatformError
from totesys_assets.local.locks import only_one
from totesys_assets.names import UP_LOCK
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, program, reporter, say, silence


@click.command()
@click.option(
    "--events", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many events to make."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="N",
    help="Events a second.",
)
@click.option("--seed", type=int, metavar="N", help="The same seed on the same rows makes the same events.")
@click.option("--create", is_flag=True, help="Create and fill the tables first (with TOTESYS_URL: an empty database).")
@click.option("--scale", default=1.0, show_default=True, metavar="FACTOR", help="Size of what --create fills in.")
@click.option("--into-totesys-url", is_flag=True, help="Write into the database of TOTESYS_URL. Never a real ToteSys!")
def simulate(events: int, rate: float, seed: int | None, create: bool, scale: float, into_totesys_url: bool) -> None:
    """Simulate business in ToteSys.

    It makes orders, updates with and without a new timestamp, payments and deletions.
    """
    settings = Settings.from_env()
    if settings.totesys_url and not into_totesys_url:
        raise PlatformError(
            "TOTESYS_URL is set, and the simulator would write into that database. Unset it to use the embedded "
            "ToteSys, or add --into-totesys-url if that database is a test database."
        )
    import psycopg

    from totesys_assets.engine import one_line
    from totesys_assets.local import simulator

    with databases(settings, dagster=False, scale=scale, report=reporter(err)) as urls:
        try:
            if create and settings.totesys_url:
                simulator.create(urls.totesys, scale=scale, seed=seed or 1, report=reporter(err))
            with simulator.Traffic(urls.totesys, seed=seed, on_event=_tell) as traffic:
                traffic.run(rate, threading.Event(), limit=events)
            say(err, "", f"{counted(events, 'event')} in ToteSys. {program()} refresh brings in what they changed.")
        except (ValueError, LookupError, psycopg.Error) as error:  # the simulator cannot use this database
            raise PlatformError(f"The simulator stopped: {one_line(error)}.") from error


def _tell(text: str) -> None:
    say(out, "", text)


@click.command()
@click.option(
    "--port",
    default=3000,
    show_default=True,
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Port of the Dagster UI.",
)
@click.option(
    "--rate",
    default=0.3,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="N",
    help="Simulated events a second.",
)
@click.option("--scale", default=1.0, show_default=True, metavar="FACTOR", help=SCALE_HELP)
@click.option(
    "--dashboard-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Port of the dashboard; 0: no dashboard.  [default: 8501, or another that is free]",
)
def up(port: int, rate: float, scale: float, dashboard_port: int | None) -> None:
    """Run everything live, with the Dagster UI and the dashboard.

    It simulates traffic in the embedded ToteSys, and a sensor brings what changed into the warehouse. Ctrl-C stops all
    of it.
    """
    from totesys_assets.dashboard import server as dashboard
    from totesys_assets.live import session
    from totesys_assets.live.ports import free_port, require_free_port

    settings = Settings.from_env()
    with until_signalled(), only_one(settings.home / UP_LOCK, "totesys up"):
        if left := session.end_leftovers(settings.home):
            _say(
                "dagster",
                f"ended {counted(left, 'process', 'processes')} that an earlier totesys up of this folder left behind",
            )
        require_free_port(port, "totesys up --port")
        if dashboard_port is None:
            dashboard_port = free_port(dashboard.PORT)
        elif dashboard_port:
            require_free_port(dashboard_port, "totesys up --dashboard-port")
        begin = begin_early(settings)
        with databases(settings, scale=scale, report=reporter(out), meanwhile=begin) as urls:
            follow_log(settings)
            settings = refreshed(settings)
            one_pass(settings, urls, out)
            with interrupts.orderly_end():
                session.run(
                    settings,
                    urls,
                    port=port,
                    rate=0.0 if settings.totesys_url else rate,
                    say=_say,
                    dashboard_port=dashboard_port,
                )
        _say("up", f"everything has stopped. To go on with the same data: {program()} up")


@contextmanager
def until_signalled() -> Iterator[None]:
    """End the block in order on SIGTERM or SIGHUP (a closed terminal): the first of them raises SystemExit.

    Later ones are ignored, because a shell may send a second SIGHUP after the terminal's.
    """
    kinds = [kind for kind in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(kind) != signal.SIG_IGN]  # nohup

    def end(kind: int, _: object) -> None:
        for each in kinds:
            signal.signal(each, signal.SIG_IGN)
        if kind == signal.SIGHUP:
            silence()
        sys.exit(128 + kind)

    previous = {kind: signal.signal(kind, end) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def _say(who: str, what: str) -> None:
    """Print an event on one line, whatever the texts of ToteSys and the errors in it hold."""
    colour = {"totesys": "yellow", "warehouse": "green", "dashboard": "magenta", "error": "red"}.get(who, "cyan")
    say(out, f"[dim]{datetime.now(UTC):%H:%M:%S}[/dim] [{colour}]{who:<9}[/{colour}] ", " ".join(what.split()))
