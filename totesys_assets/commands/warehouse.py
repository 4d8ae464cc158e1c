"""The commands that prepare the warehouse and open it: ``totesys migrate``, ``provision`` and ``sql``.

Belongs here: options and what is printed. Does not belong here: the work itself.
"""

import os
import re
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
from totesys_assets.terminal import address, err, out, reporter, say


@click.command()
@click.option("--partition-facts", is_flag=True, help="Partition facts by month. The warehouse stays so.")
def migrate(*, partition_facts: bool) -> None:
    """Create or upgrade the warehouse's tables and views.

    It uses the login of WAREHOUSE_URL. A refresh does this itself if its login has the rights. If it has not, run this
    command with the owner's login before the first refresh and after every upgrade, and then
    deploy/sql/warehouse_grants.sql.
    """
    from totesys_assets.warehouse.warehouse import Warehouse

    settings = Settings.from_env()
    doing = "Partitioning the facts" if partition_facts else "Looking at the warehouse"
    with warehouse_only(settings, reporter(err)) as url, err.status(doing):
        first = settings.first_day if partition_facts else None
        done = Warehouse(url, settings.warehouse_schema).migrate(partition_from=first)
    what = "The warehouse was brought up to date" if done else "Nothing to do: the warehouse is up to date"
    if partition_facts:
        what += ", and its facts are partitioned by month"
    say(out, "[green]✓[/green] ", f"{what} ({address(url)}, schema {settings.warehouse_schema}).")


@click.command()
@click.option(
    "--sql", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the SQL files."
)
def provision(folder: Path | None) -> None:
    """Create the databases and roles that the URLs name.

    The URLs are in the environment. It sets the roles' passwords and creates the tables too. Run it before the first
    start of every version. WAREHOUSE_ADMIN_URL has the administrator's login (or PGUSER and PGPASSWORD have it). The
    logins to create are in WAREHOUSE_OWNER_URL, WAREHOUSE_URL (the loader), TOTESYS_DAGSTER_URL, and, if you want
    them, WAREHOUSE_READER_URL and TOTESYS_DAGSTER_VIEWER_URL.
    """
    from totesys_assets import provision as work
    from totesys_assets.local.sql_files import sql_folder

    work.provision(work.Wanted.from_env(Settings.from_env().warehouse_schema), folder or sql_folder(), reporter(out))
    say(out, "[green]✓[/green] ", "The platform can start.")


@contextmanager
def start_file(schema: str) -> Iterator[str]:
    """Psql's start file: the settings of our sessions, except the encoding, and then the user's own start file."""
    from totesys_assets.postgres.session_settings import SETTINGS
    from totesys_assets.sql_text import literal, quoted

    fixed = {name: literal(SETTINGS[name]) for name in ("TimeZone", "DateStyle", "IntervalStyle")}
    lines = [f"SET {name} = {value};" for name, value in {**fixed, "search_path": quoted(schema)}.items()]
    own = Path(os.environ.get("PSQLRC") or "~/.psqlrc").expanduser()
    with tempfile.TemporaryDirectory(prefix="totesys-") as folder:
        file = Path(folder, "psqlrc")
        more = [rf"\i {literal(str(own))}"] if own.is_file() else []
        file.write_text("\n".join([r"\set QUIET on", *lines, r"\set QUIET off", *more, ""]), encoding="utf-8")
        yield str(file)


class _WithStatement(click.Command):
    """A command whose argument may begin with a comment of SQL, which click would take for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        place = next((number for number, each in enumerate(args) if re.match(r"--.*\s", each)), len(args))
        if place < len(args) and "--" not in args[:place]:
            args = [*args[:place], "--", *args[place:]]
        return super().parse_args(ctx, args)


@click.command(cls=_WithStatement)
@click.argument("statement", required=False)
def sql(statement: str | None) -> None:
    """Open psql on the warehouse, or run one STATEMENT there.

    Example: totesys sql "SELECT * FROM current_sales_order LIMIT 5"

    It takes statements from a pipe too: totesys ask headline --sql | totesys sql
    """
    import psycopg.conninfo

    from totesys_assets.local.postgres_programs import binaries

    settings = Settings.from_env()
    with warehouse_only(settings, reporter(err)) as url:
        parts = psycopg.conninfo.conninfo_to_dict(url)
        if parts.get("host"):
            parts.setdefault("hostaddr", "")  # else PGHOSTADDR would choose another server
        # In the environment, because everybody on the machine can see a command line.
        secret = {"PGPASSWORD": str(parts.pop("password"))} if parts.get("password") else {}
        command = [shutil.which("psql") or str(binaries() / "psql"), psycopg.conninfo.make_conninfo("", **parts)]
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C, psql cancels its statement
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
