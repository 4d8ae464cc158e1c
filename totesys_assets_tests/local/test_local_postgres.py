"""Tests of the embedded servers: real ones, started, stopped, killed and shared between processes."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from totesys_assets import engine
from totesys_assets.local import homes, postgres, postgres_programs
from totesys_assets.local.lease import lease
from totesys_assets.local.locks import Report
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.local.postgres_errors import EmbeddedError

QUICK = {"fsync": "off"}

HOLDER = """
import sys, types
from pathlib import Path

# The package without what its __init__ brings (DuckDB, PyArrow): more than a second for each process.
sys.modules["totesys_assets"] = package = types.ModuleType("totesys_assets")
package.__path__ = [sys.argv[1]]
from totesys_assets.local.lease import lease
from totesys_assets.local.postgres import EmbeddedServer

server = EmbeddedServer(Path(sys.argv[2]), {"fsync": "off"})
with lease([server], Path(sys.argv[3])):
    try:
        print("in", flush=True)
        sys.stdin.readline()
    except KeyboardInterrupt:
        print("interrupted, server runs:", server.running(), flush=True)
"""


@contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A temporary folder; pytest's own would not do, for root's are closed to the user that the servers run as."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_servers() as folder:
        yield folder


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A server's folder, already made, for making one takes a second."""
    with folder_for_servers() as folder:
        server = EmbeddedServer(folder / "server", QUICK)
        server.start()
        server.stop()
        yield folder / "server"


@pytest.fixture
def server(made: Path) -> Iterator[EmbeddedServer]:
    """A server that has been made and does not run."""
    server = EmbeddedServer(made, QUICK)
    yield server
    server.stop()


@pytest.fixture
def lock(made: Path) -> Path:
    return made.parent / "servers.lock"


@contextmanager
def holder(server: EmbeddedServer, lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lease until it is told something."""
    package = Path(postgres.__file__).parents[1]
    command = [sys.executable, "-c", HOLDER, str(package), str(server.folder), str(lock)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def send_home(process: subprocess.Popen[str]) -> None:
    process.communicate("go\n")
    assert process.returncode == 0


def pid(server: EmbeddedServer) -> int:
    return int((server.folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def starts(server: EmbeddedServer) -> int:
    return (server.folder / "server.log").read_text().count("starting PostgreSQL")


def answer(url: str, question: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(question.encode()).fetchone()
        assert row is not None
        return row[0]


def test_a_server_that_is_started_again_still_has_its_data(server: EmbeddedServer) -> None:
    server.start()
    assert server.create_database("kept")
    with psycopg.connect(server.url("kept")) as connection:
        connection.execute("CREATE TABLE thing AS SELECT 42 AS number")
    server.stop()
    assert not server.running()
    server.start()
    assert server.running()
    assert answer(server.url("kept"), "SELECT number FROM thing") == 42


def test_a_database_is_created_once(server: EmbeddedServer) -> None:
    server.start()
    assert server.create_database('with "quotes" & spaces')
    assert not server.create_database('with "quotes" & spaces')
    assert answer(server.url('with "quotes" & spaces'), "SELECT current_database()") == 'with "quotes" & spaces'


def test_a_server_listens_on_this_machine_only_and_speaks_utc_and_utf8(server: EmbeddedServer) -> None:
    server.start()
    url = server.url("postgres")
    assert answer(url, "SHOW listen_addresses") == "127.0.0.1"
    assert answer(url, "SHOW unix_socket_directories") == ""
    assert answer(url, "SHOW timezone") == "UTC"
    assert answer(url, "SHOW server_encoding") == "UTF8"
    assert answer(url, "SELECT upper('é') || (SELECT min(x) FROM (VALUES ('a'), ('B')) AS t (x))") == "ÉB"


def test_settings_override_the_defaults(made: Path) -> None:
    server = EmbeddedServer(made, {**QUICK, "wal_level": "logical", "max_connections": "17", "datestyle": "sql, dmy"})
    server.start()
    assert answer(server.url("postgres"), "SHOW wal_level") == "logical"
    assert answer(server.url("postgres"), "SHOW max_connections") == "17"
    assert answer(server.url("postgres"), "SHOW datestyle") == "SQL, DMY"
    server.stop()


def test_only_the_password_opens_the_server_and_only_its_user_can_read_it(server: EmbeddedServer) -> None:
    server.start()
    password_file = server.folder / "password"
    assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((server.folder / "data").stat().st_mode) == 0o700
    url = server.url("postgres")
    assert answer(url, "SELECT 1") == 1
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace(password_file.read_text(), "guess"))


def test_a_running_server_is_adopted_not_started_twice(server: EmbeddedServer) -> None:
    server.start()
    before = starts(server)
    other = EmbeddedServer(server.folder, QUICK)
    other.start()
    assert other.url("postgres") == server.url("postgres")
    assert starts(server) == before


def test_a_server_that_was_killed_starts_again(server: EmbeddedServer) -> None:
    server.start()
    os.kill(pid(server), signal.SIGKILL)
    while server.running():
        time.sleep(0.002)
    server.start()
    assert answer(server.url("postgres"), "SELECT 1") == 1


def test_a_pid_file_left_from_before_a_reboot_does_not_matter(server: EmbeddedServer) -> None:
    server.start()
    pid_file = server.folder / "data" / "postmaster.pid"
    content = pid_file.read_text()
    owner = pid_file.stat()
    server.stop()
    user = owner.st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "60"], user=user) as another_program_of_the_same_user:
        pid_file.write_text(content.replace(content.splitlines()[0], str(another_program_of_the_same_user.pid), 1))
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        assert not server.running()
        server.start()
        assert server.running()
        assert another_program_of_the_same_user.poll() is None
        another_program_of_the_same_user.kill()


def test_a_server_whose_making_was_killed_is_made_at_the_next_start(folder: Path) -> None:
    server = EmbeddedServer(folder / "server", QUICK)
    with holder(server, folder / "servers.lock") as process:
        while not list(folder.glob("server/data.*/base")):
            time.sleep(0.002)
        process.kill()
    assert not (folder / "server" / "data").exists()
    with lease([server], folder / "servers.lock"):
        assert answer(server.url("postgres"), "SELECT 1") == 1


def test_the_end_of_the_log_says_why_a_server_does_not_start(made: Path) -> None:
    with pytest.raises(EmbeddedError, match='invalid value for parameter "wal_level": "nonsense"'):
        EmbeddedServer(made, {"wal_level": "nonsense"}).start()


def test_a_server_has_the_same_port_at_every_start_and_another_one_is_told(server: EmbeddedServer) -> None:
    said: list[str] = []
    server.start(said.append)
    before = server.url("x")
    server.stop()
    assert server.url("x", running=False) == before
    server.start(said.append)
    assert server.url("x") == before
    server.stop()
    assert said == []
    port = int(before.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)):
        server.start(said.append)
    other = server.url("x")
    assert other != before
    (told,) = said
    assert f"port {port} is taken" in told
    assert other.rpartition(":")[2].partition("/")[0] in told
    server.stop()
    server.start(said.append)
    assert server.url("x") == other


@pytest.mark.parametrize(
    "variables",
    [
        {"PGHOSTADDR": "127.0.0.2"},
        {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere/ca.crt"},
        {"PGSSLROOTCERT": "system"},
        {"PGCHANNELBINDING": "require"},
        {"PGGSSENCMODE": "require"},
        {"PGTARGETSESSIONATTRS": "standby"},
    ],
    ids=", ".join,
)
def test_what_libpqs_variables_say_of_other_servers_keeps_nobody_out(
    server: EmbeddedServer, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    assert "?" not in server.url("postgres")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    url = server.url("postgres")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    dagsters = sqlalchemy.create_engine(url)
    dagsters.connect().close()
    dagsters.dispose()
    duckdb = engine.connect()
    engine.attach(duckdb, "server", url, variable="URL")
    engine.close(duckdb)


def test_a_server_that_does_not_run_has_no_url(server: EmbeddedServer) -> None:
    with pytest.raises(EmbeddedError, match="is not running: start it first"):
        server.url("postgres")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")
@pytest.mark.parametrize("name", ['a "home"', "$(touch made)", "`touch made`", "back\\slash"])
def test_a_folder_whose_name_a_shell_would_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EmbeddedError, match="Set TOTESYS_HOME to another folder"):
        EmbeddedServer(tmp_path / name).start()


def test_root_is_told_which_folder_keeps_the_servers_user_out() -> None:
    with tempfile.TemporaryDirectory() as closed:
        with pytest.raises(EmbeddedError) as error:
            EmbeddedServer(Path(closed) / "home" / "server").start()
        assert str(error.value) == (
            f"PostgreSQL does not run as root, and user nobody, who runs it instead, cannot enter {closed}. "
            "Set TOTESYS_HOME to a folder that others can enter, or run as a normal user."
        )


def test_the_last_one_out_stops_the_server(server: EmbeddedServer, lock: Path) -> None:
    with holder(server, lock) as first, holder(server, lock) as second:
        assert said(first) == said(second) == "in"
        with lease([server], lock):
            assert server.running()
            send_home(first)
        assert server.running()
        send_home(second)
        assert not server.running()


def test_processes_that_come_at_once_start_the_server_once(server: EmbeddedServer, lock: Path) -> None:
    before = starts(server) if (server.folder / "server.log").exists() else 0
    with holder(server, lock) as a, holder(server, lock) as b, holder(server, lock) as c, holder(server, lock) as d:
        assert [said(process) for process in (a, b, c, d)] == ["in"] * 4
        assert starts(server) == before + 1
        for process in (a, b, c, d):
            send_home(process)
    assert not server.running()


def test_the_servers_of_a_killed_holder_are_stopped_unless_another_process_needs_them(
    server: EmbeddedServer, lock: Path
) -> None:
    with holder(server, lock) as first, holder(server, lock) as second:
        assert said(first) == said(second) == "in"
        before = starts(server)
        first.kill()
        first.wait()
        time.sleep(2)  # what would stop them has come and gone
        assert server.running()
        second.kill()
        second.wait()
        deadline = time.monotonic() + 30
        while server.running() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not server.running()
        assert starts(server) == before
    with lease([server], lock):
        assert server.running()
    assert not server.running()


def test_ctrl_c_reaches_the_holder_not_the_server(server: EmbeddedServer, lock: Path) -> None:
    with holder(server, lock) as process:
        assert said(process) == "in"
        os.killpg(process.pid, signal.SIGINT)
        assert said(process) == "interrupted, server runs: True"
        process.wait()
    assert not server.running()


def test_a_lease_on_servers_of_which_one_fails_leaves_none_running(server: EmbeddedServer, lock: Path) -> None:
    class Broken(EmbeddedServer):
        def start(self, say: Report = print) -> None:
            raise EmbeddedError("no")

    with pytest.raises(EmbeddedError, match="no"), lease([server, Broken(lock.parent / "broken")], lock):
        pytest.fail("the block must not be entered")
    assert not server.running()


def test_a_forked_child_does_not_keep_the_server_from_being_started_anew(server: EmbeddedServer, lock: Path) -> None:
    with lease([server], lock):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        with lease([server], lock):
            assert server.running()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")
def test_programs_that_the_servers_user_cannot_reach_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = folder / "closed"
    package = postgres_programs.binaries().parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, closed / part.name, symlinks=True)
    closed.chmod(0o700)
    monkeypatch.setattr(postgres_programs, "binaries", lambda: closed / package.name / "pginstall" / "bin")
    server = EmbeddedServer(folder / "server", {"fsync": "off"})
    server.start()
    try:
        assert list((folder / "server" / "programs").glob("*/pginstall/bin/postgres"))
        with psycopg.connect(server.url("postgres")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")
def test_a_home_that_root_makes_lets_the_servers_user_pass_whatever_the_umask_is(folder: Path) -> None:
    home, before = folder / "deep" / "home", os.umask(0o077)
    try:
        homes.prepare(home)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (home, home.parent)] == [0o711, 0o711]


# Two servers that are made for ever.
SLOW = """
import sys
from pathlib import Path
from totesys_assets.local.postgres_programs import Programs

programs = Path(sys.argv.pop(1))
Programs.place = lambda self: programs
from totesys_assets.cli import main
main()
"""


def test_ctrl_c_waits_for_no_server_that_is_being_made(folder: Path) -> None:
    program, begun = folder / "initdb", folder / "begun"
    begun.mkdir(mode=0o777)
    begun.chmod(0o777)
    program.write_text(f"#!/bin/sh\ntouch {begun}/$$\nexec sleep 120\n")
    program.chmod(0o755)
    env = {**os.environ, "TOTESYS_HOME": str(folder / "home")}
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(folder), "refresh"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while len(started := list(begun.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert len(started) == 2, "both are made at once"
    assert process.returncode == 130, said
    assert "Stopped before the end" in said
    assert "Ended by force" not in said
    assert not [each for each in started if Path("/proc", each.name).exists()]
