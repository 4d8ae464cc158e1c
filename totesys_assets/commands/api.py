"""The command that answers programs: ``totesys api``.

Belongs here: options and what is printed. Does not belong here: the routes (api/).
"""

import logging
from ipaddress import ip_address

import click

from totesys_assets.commands import interrupts
from totesys_assets.commands.live import until_signalled
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, reporter, say


def _print_new_key() -> None:
    from totesys_assets.api.keys import hash_of, new_key

    key = new_key()
    click.echo(f"key   {key}\nhash  {hash_of(key)}")
    say(out, "", "Give the key to who calls. Add the hash to TOTESYS_API_KEYS.")


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@click.command()
@click.option(
    "--port", default=8502, show_default=True, type=click.IntRange(1, 65535), metavar="PORT", help="Port to listen on."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. Any but this machine's own needs TOTESYS_API_KEYS.",
)
@click.option("--new-key", is_flag=True, help="Print a new key and its hash, and end.")
def api(port: int, host: str, new_key: bool) -> None:
    """Answer programs over HTTP, as JSON, CSV or Arrow.

    They ask for views, marts and questions.

    It reads the warehouse, writes nothing, and runs until Ctrl-C. It uses the login of WAREHOUSE_READER_URL; where that
    is not set, the warehouse's own in transactions that cannot write.

    Callers need a key whose SHA-256 is in TOTESYS_API_KEYS. Without that setting there are no keys, and it serves this
    machine only.
    """
    if new_key:
        _print_new_key()
        return
    if not host:
        raise click.UsageError("--host is empty: leave it out, or name an address.")
    settings = Settings.from_env()
    if not settings.api_keys and not _is_local(host):
        raise click.UsageError(
            f"--host {host} lets others in, so that they need keys: totesys api --new-key makes one, and "
            "TOTESYS_API_KEYS has its hash."
        )
    import uvicorn  # here: only this command needs it

    from totesys_assets.api.app import build
    from totesys_assets.api.streams import CUT
    from totesys_assets.insights.reading import opened
    from totesys_assets.live.ports import require_free_port, url_of

    require_free_port(port, "totesys api --port", host)
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != CUT)
    with until_signalled(), opened(settings, "totesys api", reporter(err)) as reader:
        who = "with a key" if settings.api_keys else "without keys, for this machine only: TOTESYS_API_KEYS is not set"
        say(out, "", f"The API is at {url_of(host, port)}, {who}.")
        say(out, "", "Its tables are at /v1/tables, its description at /openapi.json. Ctrl-C stops it.")
        with interrupts.orderly_end():
            uvicorn.run(
                build(reader, settings.api_keys),
                host=host,
                port=port,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=5,
            )
