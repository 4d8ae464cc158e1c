"""What `totesys up` starts ends with it, whatever ends it: real processes, a stand-in for Dagster where one will do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Self

import psutil
import psycopg
import pytest

from totesys_assets.databases import Databases
from totesys_assets.errors import PlatformError
from totesys_assets.live import ports, session
from totesys_assets.local import simulator
from totesys_assets.settings import Settings

# A program with a child that heeds no request to end, which is how a run outlives the daemon that launched it.
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PROGRAM = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {DEAF!r}], stdout=subprocess.PIPE)
child.stdout.readline()
open(sys.argv[1], "a").write("up ")
time.sleep(600)
"""
# As the command `up` does it, without the databases.
UP = f"""
import sys, time
from pathlib import Path
from totesys_assets.commands.live import until_signalled
from totesys_assets.databases import Databases
from totesys_assets.live import ports, session
from totesys_assets.settings import Settings

home = Path(sys.argv[1])
with until_signalled(), session.session([sys.executable, "-c", {PROGRAM!r}, str(home / "up")], home, home / "log"):
    time.sleep(600)
"""


def of_home(home: Path) -> list[psutil.Process]:
    """Processes that were started for the home."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.environ().get(session.MARK) == str(home) and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.Error:
            continue
    return found


def nothing_left(home: Path, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while of_home(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def started(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`up`, with its program and the program's child."""
    process = subprocess.Popen([sys.executable, "-c", UP, str(home)], start_new_session=True)
    try:
        while not (home / "up").exists() or not (home / "up").read_text():
            assert process.poll() is None
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()
        for each in of_home(home):
            with suppress(psutil.NoSuchProcess):  # it ended by itself just now
                each.kill()


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_outlives_its_parent_whatever_ends_it(tmp_path: Path, kind: signal.Signals) -> None:
    with started(tmp_path) as process:
        assert len(of_home(tmp_path)) == 3  # guard, program, child
        process.send_signal(kind)
        process.wait(20)
        assert nothing_left(tmp_path)
        assert (tmp_path / "stopping").exists()  # a tick of the sensor that waits is told


def test_the_second_hang_up_does_not_disturb_the_end(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        for _ in range(20):  # the terminal's, and the shell's
            process.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        assert process.wait(20) == 128 + signal.SIGHUP
        assert of_home(tmp_path) == []


def test_a_second_ctrl_c_ends_at_once_what_takes_its_time(tmp_path: Path) -> None:
    began = time.monotonic()
    with session.session([sys.executable, "-c", DEAF], tmp_path, tmp_path / "log"):
        while "up" not in (tmp_path / "log").read_text():
            time.sleep(0.02)
        interrupter = subprocess.Popen(["sh", "-c", f"sleep 1; kill -INT {os.getpid()}"])
    assert time.monotonic() - began < 10
    interrupter.wait()
    assert of_home(tmp_path) == []


def test_when_the_program_ends_so_do_its_children_and_its_code_is_told(tmp_path: Path) -> None:
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}]); sys.exit(7)"
    with session.session([sys.executable, "-c", program], tmp_path, tmp_path / "log") as process:
        assert process.wait(10) == 7
        assert of_home(tmp_path) == []


def test_what_an_earlier_one_left_is_ended_and_nothing_of_another_home(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with started(here) as process, started(there):
        (guarding,) = [each for each in of_home(here) if each.ppid() == process.pid]
        process.send_signal(signal.SIGSTOP)
        guarding.kill()  # and with it what would have ended the others
        process.kill()
        process.wait()
        psutil.wait_procs([guarding], timeout=5)
        assert len(of_home(here)) == 2
        assert session.end_leftovers(here) == 2
        assert of_home(here) == []
        assert len(of_home(there)) == 3
        assert session.end_leftovers(here) == 0


def test_a_dashboard_that_ends_by_itself_is_said_with_its_log(tmp_path: Path) -> None:
    said: list[tuple[str, str]] = []
    settings = Settings.from_env({"TOTESYS_HOME": str(tmp_path)})
    with subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE) as process:
        process.wait(20)
        session._report_dashboard(process, 1, settings, threading.Event(), lambda *line: said.append(line))
    assert said == [("error", f"the dashboard ended by itself. Its log is {tmp_path / 'dashboard.log'}.")]


def test_a_simulator_that_fails_again_and_again_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str]] = []
    stop = threading.Event()
    happens = iter(["", "", "order 1", "", ""])

    class Traffic:
        def __init__(self, _: str, *, on_event: Callable[[str], None]) -> None:
            self._on_event = on_event

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def run(self, *_: object) -> None:
            if event := next(happens, "the end"):
                self._on_event(event)
            if event == "the end":
                stop.set()
            raise psycopg.OperationalError("the server is away")

    monkeypatch.setattr(simulator, "Traffic", Traffic)
    monkeypatch.setattr(session, "_POLL_SECONDS", 0.01)
    session._traffic("postgresql://x", 1.0, stop, lambda *line: said.append(line))
    failed = ("error", "the simulator tries again after: the server is away")
    assert said == [failed, ("totesys", "order 1"), failed, ("totesys", "the end")]


def test_a_port_that_is_taken_is_replaced_by_one_that_is_free() -> None:
    with socket.socket() as taken:
        taken.bind((session.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ports.free_port(port) != port
    assert ports.free_port(port) == port


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)], ids=["Ctrl-C", "SIGTERM"])
def test_whatever_ends_it_says_that_it_is_stopping(
    end: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dagster:
        def poll(self) -> None:
            raise end

    said: list[str] = []
    for name in ("dagster_home", "_await_ui", "_report_loads", "_report_news"):
        monkeypatch.setattr(session, name, lambda *_: None)
    monkeypatch.setattr(session, "session", lambda *_: nullcontext(Dagster()))
    settings, urls = Settings.from_env({"TOTESYS_HOME": str(tmp_path)}), Databases("postgresql://x", "postgresql://y")
    with suppress(SystemExit):
        session.run(settings, urls, port=1, rate=0, say=lambda _, text: said.append(text))
    assert said[-1] == "stopping, which takes some seconds"


LISTENER = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others tell only the superuser who listens")
@pytest.mark.parametrize(
    ("name", "arguments", "up_of", "said"),
    [
        (
            "other",
            ["totesys"],
            None,
            "another program, python[^ ]* [(][0-9]+[)]. Choose another: totesys dashboard --port",
        ),
        ("other", ["totesys", "dashboard"], None, "another program, python"),
        ("totesys", [], None, "another program, python"),
        ("totesys", ["--port", "1"], None, "another program, python"),
        ("totesys", ["dashboard"], None, "totesys dashboard. Choose another: "),
        ("other", [], "/another/home", "totesys up of /another/home. Choose another: "),
        ("other", [], "/this/home", "totesys up of /this/home. Open http://127.0.0.1:[0-9]+, or choose another: "),
    ],
)
def test_only_a_program_of_ours_is_taken_for_one(
    name: str, arguments: list[str], up_of: str | None, said: str, tmp_path: Path
) -> None:
    program = tmp_path / name
    program.write_text(LISTENER, encoding="utf-8")
    env = {**os.environ, session.MARK: up_of} if up_of is not None else None
    with subprocess.Popen([sys.executable, program, *arguments], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with pytest.raises(PlatformError, match=f"^Port {port} is in use by {said}"):
            ports.require_free_port(port, "totesys dashboard --port", shown_by=Path("/this/home"))
        process.kill()


@pytest.mark.parametrize(("port", "other"), [(65534, 65535), (65535, 65534)])
def test_another_port_that_exists_is_named(port: int, other: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_is_free", lambda *_: False)
    with pytest.raises(PlatformError, match=f"another: totesys up --port {other}\\.$"):
        ports.require_free_port(port, "totesys up --port")


def test_another_port_is_named_with_the_address_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_is_free", lambda *_: False)
    with pytest.raises(PlatformError, match=r"another: totesys api --port 4201 --host ::1\.$"):
        ports.require_free_port(4200, "totesys api --port", "::1")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("0::0", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("db.example.com", "http://db.example.com:80"),
    ],
)
def test_the_url_of_what_listens_can_be_opened_on_this_machine(host: str, url: str) -> None:
    assert ports.url_of(host, 80) == url
