"""Embedded PostgreSQL: servers for trying the platform on a machine where none is installed.

Here: making, starting, stopping and finding a server in a folder. Not here: for how long it is up (lease.py), which
servers and databases the platform uses (databases.py), and what is in them.
"""

import fcntl
import os
import secrets
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

from totesys_assets import spill
from totesys_assets.local.homes import make_folder
from totesys_assets.local.locks import Report, locked, opened
from totesys_assets.local.postgres_errors import EmbeddedError, explain, is_full
from totesys_assets.local.postgres_programs import Programs

SUPERUSER = "totesys"
START_SECONDS = 120  # a start after a crash replays the log first; a plain one takes 0.1 s
STOP_SECONDS = 60
ORDERLY_SECONDS = 15
PORT_ATTEMPTS = 3  # between finding a free port and the server's taking it, another program may take it
PORTS = range(20_000, 32_000)  # below those that systems give to outgoing connections
DEFAULTS = MappingProxyType(
    {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",  # a socket's path is limited to 107 bytes, which a deep folder exceeds
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",  # else the log, which is kept for ever, grows while nothing happens
    }
)
# What variables of libpq, meant for other servers, would ask of this one: by variable, what its URL says instead. By
# "system", certificates are required whatever else is said, and SQLAlchemy leaves out what is empty.
_VARIABLES = {
    "PGHOSTADDR": {"hostaddr": "127.0.0.1"},
    "PGSSLMODE": {"sslmode": "disable"},
    "PGSSLROOTCERT": {"sslmode": "disable", "sslrootcert": "none"},
    "PGCHANNELBINDING": {"channel_binding": "disable"},
    "PGGSSENCMODE": {"gssencmode": "disable"},
    "PGTARGETSESSIONATTRS": {"target_session_attrs": "any"},
}


class EmbeddedServer:
    """One PostgreSQL server whose data, password and log live in ``folder``.

    ``settings`` are PostgreSQL's own (``{"wal_level": "logical"}``) and take effect when the server starts; a server
    that already runs is used as it is.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self.folder = folder.absolute()
        self.settings = {**DEFAULTS, **settings}
        self._data = self.folder / "data"
        self._programs = Programs(self.folder, self._data)
        self._password_file = self.folder / "password"
        self._log = self.folder / "server.log"
        self._port_file = self.folder / "port"
        # Held by the server's own processes (they inherit it) and, before that, by whoever starts them: the kernel
        # lets go of it when the last of them is gone. A process id would not do: after a reboot, or seen from another
        # container, the same number is another program.
        self._life = self.folder / "server.lock"

    def start(self, say: Report = lambda _: None) -> None:
        """Start the server, making it first if need be. Does nothing when it runs already, whoever started it.

        It listens on the port that it had before, for others have noted that too; where that is taken, ``say`` is told.
        """
        try:
            self._start(say)
        except OSError as error:
            raise EmbeddedError(spill.sentence(error) or explain(str(error), self.folder)) from error

    def stop(self) -> None:
        """Stop the server in order: sessions are ended, what was committed is kept. Does nothing when none runs.

        One that does not stop, as on a full disk, is ended at once; it reads its log when it is started again.
        """
        deadline = time.monotonic() + STOP_SECONDS
        how = "fast"
        while self._alive():
            stopping = self._programs.run(
                "pg_ctl", "stop", "-D", str(self._data), "-m", how, "-t", str(ORDERLY_SECONDS)
            )
            how = "immediate" if stopping else how
            if time.monotonic() > deadline:
                raise EmbeddedError(f"PostgreSQL in {self.folder} does not stop: {stopping}")
            time.sleep(0.02)

    def give_up(self) -> None:
        """End the program that starts or stops the server in another thread."""
        self._programs.end()

    def running(self) -> bool:
        """Whether the server is up and takes connections."""
        port = self._port()
        return port is not None and self._alive() and _answers(port)

    def exists(self) -> bool:
        """Whether the server has been made."""
        return self._data.exists()

    def url(self, database: str, *, running: bool = True) -> str:
        """Return the database's libpq URL, password included. Raises EmbeddedError when the server is not running.

        With ``running=False``, the URL as it will be when the server runs; raises when it never did.
        """
        port = self._port()
        if port is None and not running:
            port = self._noted_port()
        if port is None:
            raise EmbeddedError(f"PostgreSQL in {self.folder} is not running: start it first.")
        password = quote(self._password_file.read_text(), safe="")
        options: dict[str, str] = {}
        for variable, instead in _VARIABLES.items():
            options |= instead if os.environ.get(variable) else {}
        where = f"127.0.0.1:{port}/{quote(database, safe='')}"
        return f"postgresql://{SUPERUSER}:{password}@{where}{'?' if options else ''}{urlencode(options)}"

    def create_database(self, name: str) -> bool:
        """Create the database unless it exists; returns whether it was created."""
        with self.explained(), psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return False
            try:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                return False  # another process was faster
            return True

    def log_size(self) -> int:
        """Bytes in the server's log."""
        return self._log.stat().st_size if self._log.exists() else 0

    def said_full(self, since: int) -> bool:
        """Whether the server's log says, after its first ``since`` bytes, that the disk is full."""
        return is_full(self._log_end(since, lines=1000))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise EmbeddedError, with what the server's log says, where a session on it fails in the block."""
        logged = self.log_size()
        try:
            yield
        except psycopg.OperationalError as error:  # a full disk, or a server that is gone
            raise EmbeddedError(explain(f"{error}\n{self._log_end(logged)}".strip(), self.folder)) from error

    def _start(self, say: Report) -> None:
        make_folder(self.folder)
        deadline = time.monotonic() + START_SECONDS
        while not self.running():
            with opened(self._life) as life:
                if locked(life, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    self._make_and_launch(life, say)
                    return
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"A PostgreSQL server holds {self.folder} but does not answer on 127.0.0.1 (does it run in another "
                    f"container?). Stop it, or set TOTESYS_HOME to another folder. Its log ends:\n{self._log_end()}"
                )
            time.sleep(0.05)

    def _make_and_launch(self, life: int, say: Report) -> None:
        self._programs.check_reachable()
        for unfinished in self.folder.glob("data.*"):
            shutil.rmtree(unfinished, ignore_errors=True)  # its initdb may outlive who was killed; not in our way
        if not self._data.exists():
            self._make()
        # We hold the lock, so no server of ours lives and the file is of one that crashed. PostgreSQL would believe it
        # if the number in it were by now another program of the same user. (A server that someone started by hand
        # stays safe: PostgreSQL also looks for a shared memory block of this folder that is in use.)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._log.touch(mode=0o600)
        self._programs.give(self._log)
        before = self._noted_port()
        for attempt in range(PORT_ATTEMPTS):
            port = before if before and not attempt else _free_port()
            said = self._launch(port, life)
            if not said:
                if port != before:
                    self._port_file.write_text(f"{port}\n", encoding="ascii")
                if before and port != before:
                    say(f"port {before} is taken: the server of {self.folder.name} is at 127.0.0.1:{port} from now on")
                return
            if "Address already in use" not in said:
                break
        raise EmbeddedError(explain(said, self.folder))

    def _launch(self, port: int, life: int) -> str:
        """Start the server's processes, which inherit ``life``. Returns what went wrong, or nothing."""
        settings = {**self.settings, "port": str(port)}
        options = shlex.join(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
        logged = self._log.stat().st_size
        start = ("start", "-D", str(self._data), "-l", str(self._log), "-t", str(START_SECONDS), "-o", options)
        failure = self._programs.run("pg_ctl", *start, inherit=[life])
        return failure and (self._log_end(logged) or failure)

    def _make(self) -> None:
        """Make the data folder; complete or not at all, for initdb may be killed half-way."""
        self._write_password()
        new = Path(tempfile.mkdtemp(prefix="data.", dir=self.folder))
        self._programs.give(new)
        failure = self._programs.run(
            *("initdb", "--pgdata", str(new), "--username", SUPERUSER, "--pwfile", str(self._password_file)),
            *("--auth-host=scram-sha-256", "--auth-local=scram-sha-256", "--encoding=UTF8", "--no-locale"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),  # sorts alike on every operating system
            *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
        )
        if failure:
            shutil.rmtree(new, ignore_errors=True)
            raise EmbeddedError(explain(failure, self.folder))
        new.rename(self._data)

    def _write_password(self) -> None:
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600, exist_ok=False)  # nobody else's before there is anything in it
        self._password_file.write_text(secrets.token_urlsafe(24))
        self._programs.give(self._password_file)

    def _alive(self) -> bool:
        """Whether processes of the server exist (or someone is just making them)."""
        if not self._life.exists():
            return False
        with opened(self._life) as life:
            return not locked(life, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _port(self) -> int | None:
        """Return the port that the server's pid file names, if it says that the server is ready."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        return int(lines[3]) if len(lines) > 7 and lines[7].strip() == "ready" else None

    def _noted_port(self) -> int | None:
        """Return the port that the server had when it was started last."""
        try:
            return int(self._port_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def _log_end(self, since: int = 0, lines: int = 10) -> str:
        """Return the log's last lines, not looking further back than byte ``since``."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as log:
            log.seek(since)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


@contextmanager
def without_variables() -> Iterator[None]:
    """Run the block without the variables of libpq that ``url`` has no answer to: a service's, how to prove a login.

    All are meant for other servers, and some keep everybody out of this one.
    """
    named = {(each.envvar or b"").decode() for each in psycopg.pq.Conninfo.get_defaults()} | {"PGREQUIRESSL"}
    aside = {name: os.environ.pop(name) for name in named - _VARIABLES.keys() if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(aside)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    for _ in range(100):
        with socket.socket() as probe, suppress(OSError):
            port = secrets.choice(PORTS)
            probe.bind(("127.0.0.1", port))
            return port
    raise EmbeddedError(f"No port from {PORTS[0]} to {PORTS[-1]} is free on 127.0.0.1.")
