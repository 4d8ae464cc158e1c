"""The commands about the embedded servers: ``totesys url`` and ``serve``.

Belongs here: options and what is printed. Does not belong here: running the servers (local/).
"""

import time
from contextlib import suppress
from urllib.parse import quote, urlencode

import click

from totesys_assets.commands import interrupts
from totesys_assets.commands.live import until_signalled
from totesys_assets.dagster_home import named_folder
from totesys_assets.databases import DAGSTER, TOTESYS, WAREHOUSE, databases, embedded
from totesys_assets.errors import PlatformError
from totesys_assets.local import homes
from totesys_assets.settings import Settings
from totesys_assets.terminal import err, out, program, reporter, say

_POLL_SECONDS = 1.0


@click.command()
@click.argument("database", type=click.Choice([WAREHOUSE, TOTESYS, DAGSTER]), default=WAREHOUSE)
@click.option("--password", is_flag=True, help='Print the password too: psql "$(totesys url --password)".')
@click.option("--jdbc", is_flag=True, help="Print a URL for DBeaver and other programs that use JDBC.")
def url(database: str, password: bool, jdbc: bool) -> None:
    """Print a database's URL, for psql and other clients.

    It is that of the warehouse, or of totesys, or of Dagster's records.

    An embedded server runs only while a command needs it; totesys up and totesys serve keep it running. Its port and
    its password stay the same.
    """
    settings = Settings.from_env()
    found = {WAREHOUSE: settings.warehouse_url, TOTESYS: settings.totesys_url}.get(database)
    if found is None:
        found = _embedded_url(settings, database)
    click.echo(_shown(found, password=password, jdbc=jdbc))


def _embedded_url(settings: Settings, database: str) -> str:
    if database == DAGSTER and named_folder(settings) is not None:
        raise PlatformError("DAGSTER_HOME is set: its dagster.yaml says where Dagster keeps its records.")
    source, ours = embedded(settings)
    server = source if database == TOTESYS else ours
    homes.require(settings.home, server.exists())
    if not server.running():
        say(err, "", f"The server is not running: {program()} serve starts it and keeps it running.")
    return server.url(database, running=False)


def _shown(url: str, *, password: bool, jdbc: bool) -> str:
    """A libpq or JDBC URL, made from any connection string that libpq accepts."""
    import psycopg.conninfo  # here: --help should not wait for it

    parts = {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(url).items()}
    login = [parts.pop(name) for name in ("user", "password") if name in parts and (name != "password" or password)]
    parts.pop("password", None)
    hosts, ports = parts.pop("host", "localhost").split(","), parts.pop("port", "").split(",")
    places = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports * len(hosts), strict=False)]
    where = f"{','.join(places)}/{quote(parts.pop('dbname', ''), safe='')}"
    if jdbc:
        rest = dict(zip(("user", "password"), login, strict=False))
        rest |= {name: value for name, value in parts.items() if name.startswith("ssl")}
        return f"jdbc:postgresql://{where}{_query(rest)}"
    before = ":".join(quote(part, safe="") for part in login) + ("@" if login else "")
    return f"postgresql://{before}{where}{_query(parts)}"


def _query(parameters: dict[str, str]) -> str:
    return f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""


@click.command()
def serve() -> None:
    """Keep the embedded servers running, until Ctrl-C.

    psql, DBeaver and other clients can connect to them meanwhile. It loads nothing.
    """
    settings = Settings.from_env()
    source, ours = embedded(settings)
    wanted = [*([] if settings.totesys_url else [source]), *([] if settings.warehouse_url else [ours])]
    if not wanted:
        raise PlatformError("TOTESYS_URL and WAREHOUSE_URL are set: there is no embedded server to run.")
    with until_signalled(), databases(settings, create=False, dagster=False, report=reporter(err)) as urls:
        for name, server, address in ((WAREHOUSE, ours, urls.warehouse), (TOTESYS, source, urls.totesys)):
            if server in wanted:
                say(out, f"{name:<10} ", _shown(address, password=False, jdbc=False))
        say(out, "", f"{program()} url --password prints one with its password; Ctrl-C stops the servers")
        with suppress(KeyboardInterrupt), interrupts.orderly_end():
            while all(server.running() for server in wanted):
                time.sleep(_POLL_SECONDS)
            raise PlatformError(f"A server ended by itself. Its log is in {settings.home / 'postgres'}.")
