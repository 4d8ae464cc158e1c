"""The commands that prepare the warehouse and open it: ``totesys migrate``, ``provision`` and ``sql``.

Belongs here: options and what is printed. Does not belong here: the work itself.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from totesys_assets.databases import warehouse_only
from totesys_assets.settings import Settings
from totesys_assets.terminal import address, err, out, reporter


@click.command()
def migrate() -> None:
    """Create the warehouse's tables and views, or bring them up to date, with the login of WAREHOUSE_URL.

    A refresh does so itself when its login may. Where it may not, run this with the owner's, before the first refresh
    and after every upgrade, and deploy/sql/warehouse_grants.sql after it.
    """
    from totesys_assets.warehouse.warehouse import Warehouse

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


@contextmanager
def start_file(schema: str) -> Iterator[str]:
    """What psql begins with: settings of our sessions, but for the terminal's encoding, and then the user's own."""
    from totesys_assets.engine import literal, quoted
    from totesys_assets.postgres.session_settings import SETTINGS

    fixed = {name: literal(SETTINGS[name]) for name in ("TimeZone", "DateStyle", "IntervalStyle")}
    lines = [f"SET {name} = {value};" for name, value in {**fixed, "search_path": quoted(schema)}.items()]
    own = Path(os.environ.get("PSQLRC") or "~/.psqlrc").expanduser()
    with tempfile.TemporaryDirectory(prefix="totesys-") as folder:
        file = Path(folder, "psqlrc")
        more = [rf"\i {literal(str(own))}"] if own.is_file() else []
        file.write_text("\n".join([r"\set QUIET on", *lines, r"\set QUIET off", *more, ""]), encoding="utf-8")
        yield str(file)


@click.command()
@click.argument("statement", required=False)
def sql(statement: str | None) -> None:
    """Open psql on the warehouse, or run one STATEMENT there.

    Example: totesys sql "SELECT * FROM current_sales_order LIMIT 5"
    """
    import psycopg.conninfo

    from totesys_assets.local.postgres_programs import binaries

    settings = Settings.from_env()
    with warehouse_only(settings, reporter(err)) as url:
        parts = psycopg.conninfo.conninfo_to_dict(url)
        if parts.get("host"):
            parts.setdefault("hostaddr", "")  # PGHOSTADDR would lead to another server
        # Through the environment: a command line can be seen by everybody on the machine.
        secret = {"PGPASSWORD": str(parts.pop("password"))} if parts.get("password") else {}
        command = [shutil.which("psql") or str(binaries() / "psql"), psycopg.conninfo.make_conninfo("", **parts)]
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for psql, which cancels its statement
        try:
            with start_file(settings.warehouse_schema) as file:
                ended = subprocess.run(
                    [*command, *(["-c", statement] if statement else [])],
                    env={**os.environ, **secret, "PSQLRC": file},
                    check=False,
                )
        finally:
            signal.signal(signal.SIGINT, ignored)
    if ended.returncode:
        sys.exit(1)
