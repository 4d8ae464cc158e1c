"""The command line: one module per subject, put together here.

Belongs here: the group ``main`` and its list of commands. Does not belong here: what a command does, and how errors are
shown (edge.py).
"""

import gc
import warnings

import click

from totesys_assets.commands.api import api
from totesys_assets.commands.ask import ask
from totesys_assets.commands.audit import audit
from totesys_assets.commands.dashboard import dashboard
from totesys_assets.commands.edge import DEBUG_HELP, Edge, debug
from totesys_assets.commands.files import files, rates
from totesys_assets.commands.lake import dead_letters, schema
from totesys_assets.commands.live import simulate, up
from totesys_assets.commands.log import log
from totesys_assets.commands.refresh import refresh
from totesys_assets.commands.restore import as_of, replay
from totesys_assets.commands.rewind import restore_lake
from totesys_assets.commands.servers import serve, url
from totesys_assets.commands.status import status
from totesys_assets.commands.warehouse import migrate, provision, sql


@click.group(cls=Edge, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="totesys-assets", prog_name="totesys", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, is_eager=True, callback=debug, help=DEBUG_HELP)
def main() -> None:
    """Bring ToteSys into a star-schema warehouse, completely, within seconds, with full history.

    Without settings, everything is embedded in .totesys: a PostgreSQL with a simulated ToteSys, the lake, the
    warehouse. TOTESYS_URL, WAREHOUSE_URL (postgresql://…) and LAKE_URI (a folder or s3://bucket/prefix) point
    elsewhere; TOTESYS_HOME moves the local state, WAREHOUSE_SCHEMA names the schema, TOTESYS_FIRST_DAY the first
    partition.
    """
    # By default Python looks for garbage after every 700 objects. An import makes a hundred thousand, and all stay.
    gc.set_threshold(20_000, 20, 20)
    # Dagster warns that features are in beta. Users of a command can do nothing about that.
    warnings.filterwarnings("ignore", message=r"[\s\S]* is currently in (beta|preview)")
    warnings.filterwarnings("ignore", module="dagster")


for command in (
    refresh,
    status,
    ask,
    audit,
    up,
    dashboard,
    api,
    sql,
    url,
    serve,
    dead_letters,
    schema,
    as_of,
    replay,
    restore_lake,
    files,
    rates,
    log,
    migrate,
    provision,
    simulate,
):
    main.add_command(command)
