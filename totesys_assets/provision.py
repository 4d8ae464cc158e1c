"""Provisioning: creating the databases, roles, passwords and tables that the platform needs to start.

Belongs here: in what order, and that it may be done again, by two at once, or after it was cut short. Does not belong
here: what a role may do (deploy/sql), and what the tables are (warehouse/warehouse.py, and Dagster).

Passwords never reach a server: it is sent what it checks them against, as by psql's own command for it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import psycopg.conninfo
from psycopg import sql

from totesys_assets.dagster_home import DAGSTER_URL_VARIABLE, instance_config
from totesys_assets.engine import one_line
from totesys_assets.errors import ConnectionFailed, PlatformError
from totesys_assets.libpq import conninfo
from totesys_assets.local.sql_files import run_file
from totesys_assets.postgres.session_settings import set_session
from totesys_assets.warehouse.warehouse import Warehouse

ADMIN = "WAREHOUSE_ADMIN_URL"
OWNER, LOADER, READER = "WAREHOUSE_OWNER_URL", "WAREHOUSE_URL", "WAREHOUSE_READER_URL"
VIEWER = "TOTESYS_DAGSTER_VIEWER_URL"
# Their names if nobody logs in as them. The SQL files create the roles in any case.
_READER_ROLE, _VIEWER_ROLE = "warehouse_reader", "dagster_viewer"
# How long to wait for another process that provisions.
_LOCK_TIMEOUT = "10min"
_FILES = ("warehouse_roles.sql", "warehouse_grants.sql", "dagster_role.sql")

Say = Callable[[str], None]
Connection = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True)
class Login:
    """A login from the URL in an environment variable."""

    variable: str
    role: str
    database: str
    password: str = field(repr=False)
    url: str = field(repr=False)


@dataclass(frozen=True)
class Wanted:
    """What to create: the logins of the warehouse and of Dagster, and the administrator that creates them."""

    admin_url: str = field(repr=False)
    owner: Login
    loader: Login
    reader: Login | None
    dagster: Login
    viewer: Login | None
    schema: str

    @property
    def logins(self) -> list[Login]:
        """All logins to create."""
        return [login for login in (self.owner, self.loader, self.reader, self.dagster, self.viewer) if login]

    @classmethod
    def from_env(cls, schema: str) -> Wanted:
        """Read the six URLs. Reader's and viewer's may be missing; so may the admin's login: libpq searches for it.

        Raises PlatformError, in a sentence without passwords, if they contradict each other.
        """
        admin_url = os.environ.get(ADMIN) or ""
        _parts(ADMIN, admin_url)
        owner, loader, dagster = (_login(name) for name in (OWNER, LOADER, DAGSTER_URL_VARIABLE))
        reader, viewer = (_login(name) if os.environ.get(name) else None for name in (READER, VIEWER))
        wanted = cls(admin_url, owner, loader, reader, dagster, viewer, schema)
        for login in wanted.logins:
            if login not in (dagster, viewer) and login.database != owner.database:
                raise PlatformError(f"{login.variable} and {OWNER} name different databases: they are one warehouse.")
        if dagster.database == owner.database:
            raise PlatformError(f"{DAGSTER_URL_VARIABLE} names the warehouse's database: give Dagster one of its own.")
        if viewer and viewer.database != dagster.database:
            raise PlatformError(f"{VIEWER} and {DAGSTER_URL_VARIABLE} name different databases: both are Dagster's.")
        _require_different([(login.variable, login.role) for login in wanted.logins])
        return wanted


def provision(wanted: Wanted, folder: Path, say: Say) -> None:
    """Create everything in ``wanted``, and report it. Of what exists, only rights and passwords are set again.

    Raises ConnectionFailed, and PlatformError if the administrator lacks a right or a login does not work in the end.
    """
    for file in _FILES:
        if not (folder / file).is_file():
            raise PlatformError(f"{folder} has no {file}: name the folder of the project's deploy/sql with --sql.")
    with _admin(wanted) as admin:
        for database in (wanted.owner.database, wanted.dagster.database):
            made = _create_database(admin, database)
            say(f"database {database}: {'created' if made else 'is there'}, closed to PUBLIC")
        _make_warehouse(wanted, admin, folder, say)
        viewer = wanted.viewer.role if wanted.viewer else _VIEWER_ROLE
        within = _within(wanted.admin_url, wanted.dagster)
        run_file(folder, "dagster_role.sql", within, role=wanted.dagster.role, viewer=viewer)
        for login in (wanted.dagster, wanted.viewer):
            if login:
                _set_password(admin, login, say)
        _migrate_dagster()
        say(f"Dagster: its tables in {wanted.dagster.database} are up to date")
        for login in wanted.logins:
            _connect(login.url, login.variable).close()
        say("logins: all of them work")


def _make_warehouse(wanted: Wanted, admin: Connection, folder: Path, say: Say) -> None:
    names = {
        "loader": wanted.loader.role,
        "reader": wanted.reader.role if wanted.reader else _READER_ROLE,
        "schema": wanted.schema,
    }
    within = _within(wanted.admin_url, wanted.owner)
    run_file(folder, "warehouse_roles.sql", within, owner=wanted.owner.role, **names)
    for login in (wanted.owner, wanted.loader, wanted.reader):
        if login:
            _set_password(admin, login, say)
    migrated = Warehouse(wanted.owner.url, wanted.schema).migrate()
    say(f"warehouse: schema {wanted.schema} {'was brought' if migrated else 'is'} up to date")
    run_file(folder, "warehouse_grants.sql", wanted.owner.url, **names)
    say(f"rights: {wanted.loader.role} adds to facts, {names['reader']} reads")


@contextmanager
def _admin(wanted: Wanted) -> Iterator[Connection]:
    """The administrator's session. Only one provision at a time runs on a server."""
    with _connect(wanted.admin_url, ADMIN) as admin:
        try:
            if admin.execute("SELECT pg_backend_pid()").fetchone() != (admin.info.backend_pid,):
                raise PlatformError(
                    f"{ADMIN} leads to a pooler, which may give every statement another session, and provisioning "
                    "needs one. Let it name the server itself."
                )
            admin.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'".encode())
            admin.execute("SELECT pg_advisory_lock(hashtext('totesys_assets.provision'))")
            _require_different([(ADMIN, admin.info.user), *((login.variable, login.role) for login in wanted.logins)])
            yield admin
        except psycopg.errors.LockNotAvailable:
            raise PlatformError(f"Another `totesys provision` has run for {_LOCK_TIMEOUT}: end it first.") from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise PlatformError(
                f"The login of {ADMIN}, {admin.info.user}, lacks a right: {one_line(error)}. It must have CREATEDB and "
                "CREATEROLE, and have made the roles itself, or be a superuser."
            ) from None
        except psycopg.Error as error:
            raise PlatformError(f"The server gave up a statement: {one_line(error)}. Run it again.") from None


def _create_database(admin: Connection, name: str) -> bool:
    """Create the database if it is missing, and let only named roles connect to it."""
    query = "SELECT pg_has_role(datdba, 'USAGE'), datdba::regrole::text FROM pg_database WHERE datname = %s"
    found = admin.execute(query, [name]).fetchone()
    if found is None:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    elif not found[0]:
        raise PlatformError(
            f"Database {name} belongs to {found[1]}, of which {admin.info.user}, the login of {ADMIN}, is no member. "
            "Let it own the database, or name another."
        )
    admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    return found is None


def _set_password(admin: Connection, login: Login, say: Say) -> None:
    verifier = admin.pgconn.encrypt_password(login.password.encode(), login.role.encode(), b"scram-sha-256")
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(login.role), sql.Literal(verifier.decode()))
    admin.execute(statement)
    say(f"role {login.role}: its password is that of {login.variable}")


def _migrate_dagster() -> None:
    """Create Dagster's tables in TOTESYS_DAGSTER_URL, or bring them up to date as ``dagster instance migrate`` does."""
    from dagster import DagsterInstance

    # Only the storages matter here. The deployed instance would need the rest of the deployment.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "dagster.yaml").write_text(instance_config(), encoding="utf-8")
        with DagsterInstance.from_config(folder) as instance:
            instance.upgrade()


def _connect(url: str, variable: str) -> Connection:
    try:
        connection = psycopg.connect(psycopg.conninfo.make_conninfo("", **conninfo(url)), autocommit=True)
        connection.execute(set_session().encode())
    except psycopg.OperationalError as error:
        raise ConnectionFailed(f"{variable} cannot be used: {one_line(error)}.") from None
    return connection


def _within(admin_url: str, login: Login) -> str:
    """The admin's URL for the database of ``login``."""
    return psycopg.conninfo.make_conninfo(admin_url, dbname=login.database)


def _login(variable: str) -> Login:
    url = os.environ.get(variable) or ""
    parts = _parts(variable, url)
    missing = [
        what for what, key in (("user", "user"), ("password", "password"), ("database", "dbname")) if not parts.get(key)
    ]
    if missing:
        raise PlatformError(f"{variable} names no {missing[0]}: provisioning makes the role from its URL.")
    return Login(variable, str(parts["user"]), str(parts["dbname"]), str(parts["password"]), url)


def _parts(variable: str, url: str) -> dict[str, object]:
    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its text may contain the URL
        parts = {}
    if not parts:
        raise PlatformError(f"{variable} is not a PostgreSQL URL: set it to postgresql://user:password@host/database.")
    return dict(parts)


def _require_different(roles: list[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for variable, role in roles:
        if role in seen:
            raise PlatformError(f"{seen[role]} and {variable} log in as the same role, {role}: give each its own.")
        seen[role] = variable
