"""The commands that prepare the warehouse and open it: ``totesys migrate``, ``provision`` and ``sql``.

Belongs here: options and what is printed. Does not belong here: the work itself.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click

from totesys_assets.local.home import warehouse_only
from totesys_assets.settings import Settings
from totesys_assets.terminal import address, err, out, reporter


@click.command()
def migrate() -> None:
    """Create the warehouse's tables and views, or bring them up to date, with the login of WAREHOUSE_URL.

    A refresh does so itself when its login may. Where it may not, run this with the owner's, before the first refresh
    and after every upgrade, and deploy/sql/warehouse_grants.sql after it.
    """
    from totesys_assets.resources.warehouse import Warehouse

    settings = Settings.from_env()
    with warehouse_only(settings, reporter(err)) as url:
        done = Warehouse(url, settings.warehouse_schema).migrate()
    what = "The warehouse was brought up to date" if done else "Nothing to do: the warehouse is up to date"
    out.print(f"[green]✓[/green] {what} ({address(url)}, schema {settings.warehouse_schema}).", soft_wrap=True)


@click.command()
@click.option(
    "--sql", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the SQL files."
)
def provision(folder: Path | None) -> None:
    """Make databases, roles, passwords and tables as the URLs in the environment say; before every start of a version.

    WAREHOUSE_ADMIN_URL is the login that may (PGUSER and PGPASSWORD may supply it). Those that are made:
    WAREHOUSE_OWNER_URL, WAREHOUSE_URL (the loader's), WAREHOUSE_READER_URL (may be missing), TOTESYS_DAGSTER_URL.
    """
    from totesys_assets import provision as work

    work.provision(
        work.Wanted.from_env(Settings.from_env().warehouse_schema), folder or work.sql_folder(), reporter(out)
    )
    out.print("[green]✓[/green] Everything is there for the platform to start.")


@click.command()
@click.argument("statement", required=False)
def sql(statement: str | None) -> None:
    """Open psql on the warehouse, or run one STATEMENT there.

    Example: totesys sql "SELECT * FROM current_sales_order LIMIT 5"
    """
    import psycopg.conninfo

    from totesys_assets.local.postgres import binaries

    settings = Settings.from_env()
    with warehouse_only(settings, reporter(err)) as url:
        parts = psycopg.conninfo.conninfo_to_dict(url)
        # Through the environment: a command line can be seen by everybody on the machine.
        secret = {"PGPASSWORD": str(parts.pop("password"))} if parts.get("password") else {}
        schema = {"PGOPTIONS": f"-c search_path={settings.warehouse_schema}"}
        command = [shutil.which("psql") or str(binaries() / "psql"), psycopg.conninfo.make_conninfo("", **parts)]
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for psql, which cancels its statement
        try:
            ended = subprocess.run(
                [*command, *(["-c", statement] if statement else [])],
                env={**os.environ, **schema, **secret},
                check=False,
            )
        finally:
            signal.signal(signal.SIGINT, ignored)
    if ended.returncode:
        sys.exit(1)
