"""The command that shows the warehouse: ``totesys dashboard``.

Belongs here: options and what is printed. Does not belong here: the pages (dashboard/).
"""

from contextlib import nullcontext

import click

from totesys_assets.commands import interrupts
from totesys_assets.commands.live import until_signalled
from totesys_assets.databases import warehouse_only
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, reporter, say


@click.command()
@click.option(
    "--port", default=8501, show_default=True, type=click.IntRange(1, 65535), metavar="PORT", help="Port to listen on."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. 0.0.0.0, in a container, lets in everybody who can reach it: there is no login.",
)
def dashboard(port: int, host: str) -> None:
    """Show sales, money and history in a browser, live.

    It reads the warehouse, writes nothing, and runs until Ctrl-C.

    It uses the login of WAREHOUSE_READER_URL; where that is not set, the warehouse's own in transactions that cannot
    write.
    """
    from totesys_assets.dashboard import server
    from totesys_assets.live.ports import require_free_port, url_of

    if not host:
        raise click.UsageError("--host is empty: leave it out, or name an address.")
    settings = Settings.from_env()
    require_free_port(port, "totesys dashboard --port", host, settings.home)
    reader = settings.warehouse_reader_url
    with until_signalled(), nullcontext(reader) if reader else warehouse_only(settings, reporter(err)) as url:
        say(out, "", f"The dashboard is at {url_of(host, port)}. Ctrl-C stops it.")
        with interrupts.orderly_end():
            server.run(settings, url, host=host, port=port)
