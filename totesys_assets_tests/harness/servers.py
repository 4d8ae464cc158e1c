"""Servers other than the one that all tests share: another version, a hot standby, a pooler, hostile defaults.

Belongs here: making them on this machine's loopback, on free ports, ended when the block ends. Does not belong here:
what is tried on them. A program that the machine does not have skips the test, with the reason.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.local.postgres_programs import Programs

# Durability off, for no test's server outlives it; prepared transactions on.
QUICK = MappingProxyType(
    {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_prepared_transactions": "5",
        # It takes transaction ids whenever it likes, and each makes a look read the tables again.
        "autovacuum": "off",
    }
)
# A server whose log may be followed.
LOGICAL = MappingProxyType(
    {**QUICK, "synchronous_commit": "on", "wal_level": "logical", "max_slot_wal_keep_size": "1GB"}
)
# What somebody may have set for a role, a database or a server, and what no result may depend on.
HOSTILE = MappingProxyType(
    {
        "TimeZone": "Asia/Kolkata",
        "DateStyle": "SQL, DMY",
        "IntervalStyle": "sql_standard",
        "client_encoding": "LATIN1",
        "extra_float_digits": "-5",
        "bytea_output": "escape",
        "quote_all_identifiers": "on",
        "search_path": "nowhere",
        "standard_conforming_strings": "off",
        "backslash_quote": "on",
        "array_nulls": "off",
        "transform_null_equals": "on",
        "row_security": "off",
        "xmloption": "document",
        "lc_numeric": "C",
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
        "default_transaction_deferrable": "on",
        "synchronous_commit": "off",
        "work_mem": "64kB",
        "plan_cache_mode": "force_generic_plan",
        "statement_timeout": "300ms",
        "lock_timeout": "300ms",
        "idle_in_transaction_session_timeout": "300ms",
    }
)
_SECONDS = 60


class _OtherServer(EmbeddedServer):
    def _fill(self, *command: str) -> None:
        """Let one of PostgreSQL's programs make the data folder."""
        new = self.folder / "data.new"
        new.mkdir(mode=0o700)
        self._programs.give(new)
        failure = self._programs.run(*command, "--pgdata", str(new))
        assert not failure, failure
        new.rename(self.folder / "data")


class InstalledPrograms(Programs):
    """PostgreSQL's programs as they are installed in a folder of this machine."""

    def __init__(self, folder: Path, data: Path, installed: Path) -> None:
        super().__init__(folder, data)
        self._installed = installed

    def place(self) -> Path:
        return self._installed


class MachineServer(_OtherServer):
    """A server of the PostgreSQL that is installed on this machine, in place of the embedded one."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = QUICK, programs: Path | None = None) -> None:
        super().__init__(folder, settings)
        self._programs = InstalledPrograms(self.folder, self._data, programs or installed_postgres())

    def _make(self) -> None:
        """As the embedded server is made, but for the locale, which older versions do not bring with them."""
        self._write_password()
        self._fill(
            *("initdb", "--username", "totesys", "--pwfile", str(self.folder / "password"), "--no-locale", "--no-sync"),
            *("--auth-host=scram-sha-256", "--auth-local=scram-sha-256", "--encoding=UTF8"),
        )


class Standby(_OtherServer):
    """A hot standby of an embedded server, which must be running."""

    def __init__(self, folder: Path, primary: EmbeddedServer) -> None:
        super().__init__(folder, primary.settings)
        self._primary = primary

    def _make(self) -> None:
        shutil.copy(self._primary.folder / "password", self.folder / "password")
        self._programs.give(self.folder / "password")
        self._fill(
            *("pg_basebackup", "--dbname", self._primary.url("postgres"), "--write-recovery-conf"),
            *("--checkpoint=fast", "--wal-method=stream", "--no-sync"),
        )

    def catch_up(self) -> None:
        """Wait until the standby shows what is committed on its primary now."""
        plain = "-c statement_timeout=0"  # in the place of what the environment says, which a standby may refuse
        with closing(psycopg.connect(self._primary.url("postgres"), autocommit=True, options=plain)) as connection:
            # The end of a record: a position in the middle of nothing is reached with the next one, after 15 s maybe.
            written = "SELECT pg_logical_emit_message(false, '', '')::text"
            ((position,),) = connection.execute(written).fetchall()
            connection.execute("SELECT pg_switch_wal()")
        with closing(psycopg.connect(self.url("postgres"), autocommit=True, options=plain)) as connection:
            deadline = time.monotonic() + _SECONDS
            while time.monotonic() < deadline:
                rows = connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchall()
                if rows == [(True,)]:
                    return
                time.sleep(0.01)
        raise AssertionError("the standby does not follow its primary")

    def promote(self) -> None:
        """Make the standby a primary."""
        failure = self._programs.run("pg_ctl", "promote", "-D", str(self.folder / "data"), "-w", "-t", str(_SECONDS))
        assert not failure, failure


@contextmanager
def running(server: EmbeddedServer) -> Iterator[None]:
    """The server for the block; nothing of it is left afterwards."""
    try:
        server.start()
        yield
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


def copy_owned(folder: Path, copy: Path) -> None:
    """Copy a folder in which PostgreSQL has files; whoever owns a file owns its copy. Nothing runs there."""
    shutil.copytree(folder, copy)
    for path in (folder, *folder.rglob("*")):
        owner = path.stat()
        os.chown(copy / path.relative_to(folder), owner.st_uid, owner.st_gid)


@contextmanager
def replicated(folder: Path) -> Iterator[tuple[EmbeddedServer, Standby]]:
    """A primary and its hot standby."""
    primary = EmbeddedServer(folder / "primary", QUICK)
    with running(primary):
        standby = Standby(folder / "standby", primary)
        with running(standby):
            yield primary, standby


@contextmanager
def transaction_pooler(folder: Path, urls: Sequence[str], *, pool: int = 8, ignored: str = "") -> Iterator[list[str]]:
    """The databases of ``urls`` (of one server) behind PgBouncer in transaction mode: their URLs there.

    The sessions of the server are used in turn, so that what one transaction leaves in a session meets others.
    ``ignored``: parameters of a session's start that it takes and forgets; it refuses those that it does not know.
    """
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        _skip("pgbouncer is not installed")
    parts = [urlsplit(url) for url in urls]
    ((host, port),) = {(part.hostname, part.port) for part in parts}
    folder.mkdir(mode=0o755)
    logins = {(unquote(part.username or ""), unquote(part.password or "")) for part in parts}
    users = folder / "users.txt"
    users.write_text("".join(f'"{user}" "{password}"\n' for user, password in sorted(logins)), encoding="utf-8")
    own = _free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={host} port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own}\n"
        f"unix_socket_dir =\nauth_type = trust\nauth_file = {users}\npool_mode = transaction\nserver_round_robin = 1\n"
        f"default_pool_size = {pool}\nserver_check_query = SELECT 1\n"
        f"ignore_startup_parameters = {ignored}\n",
        encoding="utf-8",
    )
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"PATH": os.defpath},
            user=nobody and nobody.pw_uid,
            group=nobody and nobody.pw_gid,
            extra_groups=[] if nobody else None,
        )
    try:
        pooled = [urlunsplit(part._replace(netloc=part.netloc.replace(f":{port}", f":{own}"))) for part in parts]
        _wait_for(pooled[0], process, folder / "log")
        for url in pooled:
            _open_several(url)
        yield pooled
    finally:
        process.terminate()
        process.wait(_SECONDS)


def hostile_login(url: str, settings: Mapping[str, str] = HOSTILE) -> str:
    """The URL with a new superuser's login, which ALTER ROLE gave ``settings``."""
    parts, name = urlsplit(url), f"hostile_{os.urandom(4).hex()}"
    role = sql.Identifier(name)
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD 'secret'").format(role))
        for setting, value in settings.items():
            statement = sql.SQL("ALTER ROLE {} SET {} = {}")
            connection.execute(statement.format(role, sql.Identifier(setting), sql.Literal(value)))
    return urlunsplit(parts._replace(netloc=f"{quote(name)}:secret@{parts.hostname}:{parts.port}"))


def alter_database(url: str, settings: Mapping[str, str] = HOSTILE) -> None:
    """Give every session of the database of ``url`` these settings, from its beginning."""
    name = sql.Identifier(urlsplit(url).path.removeprefix("/"))
    # Of the database "postgres", which has no settings, so that the second statement is as good as the first.
    with closing(psycopg.connect(urlunsplit(urlsplit(url)._replace(path="/postgres")), autocommit=True)) as connection:
        for setting, value in settings.items():
            statement = sql.SQL("ALTER DATABASE {} SET {} = {}")
            connection.execute(statement.format(name, sql.Identifier(setting), _value(setting, value)))


def _value(setting: str, value: str) -> sql.Composable:
    """A list of names is a list, every other value one literal."""
    if setting != "search_path":
        return sql.Literal(value)
    return sql.SQL(", ").join(sql.Identifier(name.strip()) for name in value.split(","))


def installed_postgres() -> Path:
    """The programs of the oldest PostgreSQL that Debian's or Ubuntu's packages installed here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[0].parent if found else _skip("no PostgreSQL is installed in /usr/lib/postgresql")


def _skip(reason: str) -> NoReturn:
    pytest.skip(f"{reason} (as root, .ci/run installs it)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open_several(url: str) -> None:
    """Three sessions of the server, for the pooler to choose from: it opens another only when all are busy."""
    with ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(psycopg.connect(url, prepare_threshold=None))
            connection.execute("SELECT 1")


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text(errors="replace")
            time.sleep(0.02)
        else:
            return
    raise AssertionError(log.read_text(errors="replace"))
