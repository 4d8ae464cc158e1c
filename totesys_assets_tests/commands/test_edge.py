"""The edge of the command line: no environment, and no output, brings a traceback before a user."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.commands import edge, main
from totesys_assets.commands.edge import Edge
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.local import homes

TOTESYS = [sys.executable, "-m", "totesys_assets.cli"]
CLOSED = "postgresql://u:hush@127.0.0.1:1/x"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a platform, and a user who has none."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TOTESYS_HOME", raising=False)
    return folder


def invoke(*arguments: str, group: click.Group = main) -> Result:
    result = CliRunner().invoke(group, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def said(result: Result) -> str:
    return " ".join(result.output.split())


ANY_COMMAND = ["refresh", "status", "audit", "sql", "migrate", "dead-letters", "schema"]
OWN = {"TOTESYS_URL": CLOSED, "WAREHOUSE_URL": CLOSED, "DAGSTER_HOME": "/nowhere"}


@pytest.mark.parametrize("command", ANY_COMMAND)
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TOTESYS_HOME": "{file}"}, "is a file. Set TOTESYS_HOME to a folder"),
        ({"TOTESYS_HOME": "{file}/below"}, ""),
        ({"TOTESYS_HOME": "/proc/none"}, ""),
        ({"TOTESYS_HOME": "~nobody-of-that-name/x"}, "TOTESYS_HOME is '~nobody-of-that-name/x'"),
        ({"TOTESYS_HOME": "n" * 300}, ""),
        ({"TOTESYS_FIRST_DAY": "soon"}, "TOTESYS_FIRST_DAY is 'soon'"),
        ({"TOTESYS_FIRST_DAY": "2999-01-01"}, "TOTESYS_FIRST_DAY is 2999-01-01"),
        ({"LAKE_URI": "gs://bucket"}, "LAKE_URI is 'gs://bucket'"),
        ({"LAKE_URI": "~nobody-of-that-name/x"}, "LAKE_URI is '~nobody-of-that-name/x'"),
        ({**OWN, "LAKE_URI": "{file}"}, ""),
        ({**OWN, "LAKE_URI": "{file}/below"}, ""),
        ({**OWN, "LAKE_URI": "n" * 300}, ""),
        ({**OWN, "WAREHOUSE_URL": "rubbish"}, "WAREHOUSE_URL is not a PostgreSQL URL"),
        ({"TOTESYS_STALE_MINUTES": "-1"}, "TOTESYS_STALE_MINUTES is '-1'"),
        ({"TOTESYS_ALLOW_SUPERUSER": "yes"}, "TOTESYS_ALLOW_SUPERUSER is 'yes'"),
    ],
)
def test_a_bad_environment_is_answered_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, variables: dict[str, str], expected: str
) -> None:
    (tmp_path / "file").touch()
    if command == "sql" and OWN.items() <= variables.items():
        pytest.skip("psql says in its own words that the server is not there")
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("{file}", str(tmp_path / "file")))
    result = invoke(command)
    assert result.exit_code == 1
    assert result.output.count("✗") == 1, result.output
    assert expected in said(result)
    assert "hush" not in result.output
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("command", [each for each in ANY_COMMAND if each != "refresh"])
def test_only_what_makes_a_platform_makes_a_home_and_the_others_say_where_one_was(
    elsewhere: Path, tmp_path: Path, command: str
) -> None:
    gone = tmp_path / "gone"
    known = tmp_path / "known"
    known.mkdir()
    homes.remember(gone)
    homes.remember(known)
    homes.remember(elsewhere / ".totesys")
    result = invoke(command)
    assert result.exit_code == 1
    assert said(result) == (
        f"✗ There is no platform in {elsewhere}/.totesys, and only refresh, up and simulate create one. "
        f"There is one in {known}: set TOTESYS_HOME to use it."
    )
    assert list(elsewhere.iterdir()) == []


def test_homes_are_noted_the_newest_first_and_it_fails_nothing_where_they_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "a"):
        homes.remember(tmp_path / name)
    assert homes.noted() == [tmp_path / "a", tmp_path / "b"]
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    homes.remember(tmp_path / "c")
    assert homes.noted() == []


def failing(error: BaseException) -> click.Group:
    """A command line whose one command fails."""
    group = Edge("totesys")

    @click.command()
    def fail() -> None:
        raise error

    group.add_command(fail)
    return group


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PlatformError("Do this."), "✗ Do this."),
        (chained(RuntimeError("Error occurred while loading"), PlatformError("Do that.")), "✗ Do that."),
        (FileNotFoundError(2, "x", "/no/where"), "✗ /no/where: no such file or directory."),
        (OSError(28, "x", "/full/file"), "✗ /full/file: no space is left. Free some, or set"),
        (chained(RuntimeError("wrapped"), OSError(28, "x")), "✗ Where output and data go: no space is left."),
        (MemoryError(), "✗ Memory ran out."),
        (KeyboardInterrupt(), "✗ Stopped before the end."),
        (RecursionError("deep"), "✗ An unexpected error: deep (RecursionError). The traceback"),
        (ValueError("at postgresql://u:hush@h/d"), "at postgresql://u:***@h/d (ValueError)."),
        (ValueError("password='hu sh' and password=hush"), "password=*** and password=*** (ValueError)"),
    ],
)
def test_every_exception_becomes_a_sentence_and_exit_code_1(error: BaseException, expected: str) -> None:
    result = invoke("fail", group=failing(error))
    assert result.exit_code == 1
    assert expected in said(result)
    assert "hush" not in result.output


def test_the_traceback_of_what_was_not_foreseen_goes_to_a_log_in_the_home_or_to_the_terminal_when_asked_for(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / ".totesys").mkdir()
    group = failing(ZeroDivisionError("postgresql://u:hush@h/d"))
    assert f"The traceback is in {elsewhere}/.totesys/errors.log." in said(invoke("fail", group=group))
    logged = (elsewhere / ".totesys" / "errors.log").read_text()
    assert "ZeroDivisionError" in logged
    assert "raise error" in logged
    assert "hush" not in logged
    monkeypatch.setenv(edge.DEBUG_VARIABLE, "")  # put back at the end
    shown = CliRunner().invoke(group, ["fail", "--debug"]).output
    assert "raise error" in shown
    assert "hush" not in shown


@pytest.mark.parametrize(
    ("moment", "code", "expected"),
    [
        ("soon", 2, "'soon' is no date or time: write it as 2026-01-31 or"),
        ("9999-12-31T23:59:59-23:00", 2, "is no date or time"),
        ("2999-01-01 10:00", 1, "2999-01-01 10:00:00 UTC is yet to come: nothing was recorded by then."),
    ],
)
def test_a_moment_that_is_none_or_is_yet_to_come_is_said_as_that(moment: str, code: int, expected: str) -> None:
    result = invoke("as-of", moment)
    assert result.exit_code == code
    assert expected in said(result)


def test_the_version_is_told() -> None:
    assert said(invoke("--version")).startswith("totesys 0.")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lake of which there is little to say."""
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    Ledger(Lake(str(tmp_path / "lake"))).append([Entry("x", "*", "s", 1, datetime.now(UTC), "run")])


def shell(line: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    command = line.replace("totesys", " ".join(TOTESYS))
    return subprocess.run(["bash", "-c", command], env={**os.environ, **env}, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("line", "env", "code", "expected"),
    [
        ("totesys dead-letters > /dev/full", {}, 1, "no space is left"),
        ("totesys dead-letters >&-", {}, 0, ""),
        ("totesys --help | true; [ ${PIPESTATUS[0]} -le 1 ]", {}, 0, ""),
        ("totesys gibberish 2> /dev/full", {}, 2, ""),
        ("totesys gibberish", {"PYTHONIOENCODING": "ascii"}, 2, "No such command"),
        ("totesys as-of 0001-01-01", {"PYTHONIOENCODING": "ascii"}, 1, "X: "),
        ("totesys as-of 0001-01-01", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 1, "X: "),
    ],
)
def test_whatever_the_output_is_it_brings_no_traceback(
    lake: None, line: str, env: dict[str, str], code: int, expected: str
) -> None:
    ended = shell(line, **env)
    text = (ended.stdout + ended.stderr).decode("ascii" if env else "utf-8")
    assert ended.returncode == code, text
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    assert expected in text


@pytest.fixture
def starting() -> Iterator[subprocess.Popen[str]]:
    """A refresh that starts, and then waits for a server that says nothing."""
    foreign = ("COV", "TOTESYS_", "WAREHOUSE_")  # measured, most of its start would be that of coverage
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x"
        process = subprocess.Popen(
            [*TOTESYS, "refresh"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**env, "TOTESYS_URL": url, "WAREHOUSE_URL": url, "TOTESYS_DAGSTER_URL": url},
        )
        yield process
        process.kill()
        process.wait()


@pytest.mark.parametrize("after", [0.15, 0.3, 0.45, 0.6])
def test_ctrl_c_while_it_starts_brings_no_traceback(starting: subprocess.Popen[str], after: float) -> None:
    time.sleep(after)
    starting.send_signal(signal.SIGINT)
    text, _ = starting.communicate(timeout=20)
    assert "/totesys_assets/" not in text, text
    if "Traceback" not in text:  # else it is one of Python's own start, before there is anything of ours
        assert starting.returncode in (-signal.SIGINT, 130), text


@pytest.mark.parametrize(
    "moment",
    [
        *("signal.signal", "edge.quiet_beside", "edge._prepare_output", "edge.Edge.make_context", "edge._written"),
        "interrupts.leave",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_just_before_or_after_a_command_brings_no_traceback(moment: str, number: signal.Signals) -> None:
    """The signal comes at the first call of ``moment``; of signal.signal, when all but SIGHUP are handled."""
    program = f"""
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
from totesys_assets import cli
from totesys_assets.commands import edge, interrupts

def signalled(*args, **kwargs):
    if args[:1] not in ((signal.SIGINT,), (signal.SIGTERM,)):
        {moment} = original
        os.kill(os.getpid(), {int(number)})
    return original(*args, **kwargs)

original = {moment}
{moment} = signalled
sys.argv = ["totesys", "--version"]
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ended.stderr, ended.stderr
    assert "Aborted" not in ended.stderr
    assert ended.returncode == 128 + number, ended.stderr


def test_an_interrupt_that_a_destructor_swallows_comes_again() -> None:
    program = """
import os, signal, sys, time
from totesys_assets import cli
from totesys_assets.commands import edge, main

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

def work(**_):
    swallows = Swallows()
    del swallows
    print("it goes on", flush=True)
    time.sleep(60)

main.commands["status"].callback = work
sys.argv = ["totesys", "status"]
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "it goes on\n"
    assert ended.stderr == "✗ Stopped before the end. Nothing is left half done: run it again.\n"
    assert ended.returncode == 130


@pytest.mark.parametrize("code", [0, 1])
def test_at_the_end_what_is_registered_for_it_is_done_and_no_thread_is_waited_for(code: int) -> None:
    program = f"""
import atexit, threading, time
from totesys_assets.commands import interrupts
atexit.register(print, "registered")
threading.Thread(target=time.sleep, args=[60]).start()
print("written", end=" ")
interrupts.leave({code})
"""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=20, check=False
    )
    assert (ended.returncode, ended.stderr) == (code, "")
    assert ended.stdout == "written registered\n"


# A command that waits in C, where Python hears no signal; a thread in the same process takes the server's part.
_STUCK = """
import ctypes, signal, socket, sys, threading
from totesys_assets.commands import interrupts
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
peer, _ = server.accept()
interrupts.install()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # libpq and DuckDB wait again after a signal
libc = ctypes.CDLL(None)
threading.Timer(1, print, ["ready"], {"flush": True}).start()  # by then it waits
try:
    if sys.argv[1] == "server":
        libc.recv(client.fileno(), ctypes.create_string_buffer(1), 1, 0)
    else:
        libc.sleep(60)
except KeyboardInterrupt:
    print("cut", flush=True)
"""


@pytest.mark.parametrize(("waits", "least", "expected"), [("server", 2, "cut"), ("for ever", 4, "Ended by force")])
def test_what_waits_in_c_for_a_server_is_cut_off_and_what_waits_for_ever_is_ended(
    waits: str, least: float, expected: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STUCK, waits], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        killer = threading.Timer(20, process.kill)
        killer.start()
        process.send_signal(signal.SIGTERM)
        text, _ = process.communicate()
        killer.cancel()
    assert expected in text
    assert least < time.monotonic() - began < 6


def test_a_command_begins_without_the_engine_of_what_it_may_do() -> None:
    program = "import sys, totesys_assets.commands; print(*sorted({'duckdb', 'pyarrow', 'dagster'} & {*sys.modules}))"
    began = subprocess.run([sys.executable, "-c", program], cwd=Path("/"), capture_output=True, text=True, check=True)
    assert began.stdout == "\n"


@pytest.mark.parametrize(
    ("after", "said"),
    [(False, "A half is written: write the other."), (True, "Nothing is left half done: run it again.")],
)
def test_a_command_says_what_an_interrupt_leaves_half_done(after: bool, said: str) -> None:
    program = f"""
import os, signal, sys
from totesys_assets import cli
from totesys_assets.commands import interrupts, main

def work(**_):
    with interrupts.leaving("A half is written: write the other."):
        if not {after}:
            os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)

main.commands["status"].callback = work
sys.argv = ["totesys", "status"]
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.stderr == f"✗ Stopped before the end. {said}\n"
    assert ended.returncode == 130
