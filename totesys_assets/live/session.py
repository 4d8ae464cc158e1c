"""Everything live on one machine: Dagster's processes, the dashboard, the simulator's traffic, and what they report.

Belongs here: starting and ending those, and telling what happens. Does not belong here: what a refresh does.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

import totesys_assets
from totesys_assets.dagster_home import dagster_home
from totesys_assets.dashboard import server as dashboard
from totesys_assets.databases import Databases
from totesys_assets.errors import PlatformError
from totesys_assets.local import guard
from totesys_assets.names import STOPPING_FILE
from totesys_assets.settings import Settings
from totesys_assets.terminal import program

Say = Callable[[str, str], None]
# Who says something, and what.
Line = tuple[str, str]
HOST = "127.0.0.1"
# In the environment of Dagster's processes: the home whose ``totesys up`` has started them.
MARK = "TOTESYS_UP_HOME"
_START_SECONDS = 120
_STOP_SECONDS = 3 * guard.ORDERLY_SECONDS
_POLL_SECONDS = 1.0
# For all threads together: one that waits for a server that is gone may wait for long, and ends with the process.
_THREADS_SECONDS = 5.0
# Some queries each time.
_NEWS_SECONDS = 2.0


def run(settings: Settings, urls: Databases, *, port: int, rate: float, say: Say, dashboard_port: int = 0) -> None:
    """Run Dagster, the dashboard and the traffic until Ctrl-C or SIGTERM, or until Dagster ends by itself.

    That raises PlatformError. Without a ``dashboard_port`` there is no dashboard.
    """
    log = settings.home / "dagster.log"
    stop = threading.Event()
    dagster_home(settings, urls.dagster)
    with session(_dagster(port), settings.home, log) as process, ExitStack() as stack:
        _await_ui(process, port, log)
        say("dagster", f"the UI is at http://{HOST}:{port}/asset-groups")
        say("warehouse", f"{program()} sql opens it; {program()} url --password prints its URL for other programs")
        say("dagster", "Ctrl-C stops everything")
        threads = [threading.Thread(target=_report_loads, args=(urls, settings, stop, say), daemon=True)]
        threads.append(threading.Thread(target=_report_news, args=(settings, stop, say), daemon=True))
        if rate:
            threads.append(threading.Thread(target=_traffic, args=(urls.totesys, rate, stop, say), daemon=True))
        if dashboard_port:
            shown = stack.enter_context(_dashboard(settings, urls, dashboard_port, port))
            threads.append(
                threading.Thread(target=_report_dashboard, args=(shown, dashboard_port, settings, stop, say))
            )
        for thread in threads:
            thread.start()
        try:
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
            raise PlatformError(f"Dagster ended by itself with code {process.returncode}. Its log is {log}.")
        except KeyboardInterrupt:
            pass
        finally:
            say("dagster", "stopping, which takes some seconds")
            stop.set()
            deadline = time.monotonic() + _THREADS_SECONDS
            for thread in threads:
                thread.join(timeout=max(0.0, deadline - time.monotonic()))


def _dagster(port: int) -> list[str]:
    """Command line of Dagster's webserver, daemon and code server."""
    workspace = Path(totesys_assets.__file__).parents[1] / "workspace.yaml"
    target = ["-w", str(workspace)] if workspace.exists() else ["-m", "totesys_assets.definitions"]
    dev = ["totesys_assets.dagster_internals.dev", "totesys_assets.webserver"]
    return [sys.executable, "-m", *dev, *target, "-h", HOST, "-p", str(port)]


@contextmanager
def _dashboard(settings: Settings, urls: Databases, port: int, ui_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the dashboard for the block. It starts when Dagster has, and nothing waits for it."""
    program = [sys.executable, "-m", "totesys_assets.cli", "dashboard", "--port", str(port)]
    place = {
        "WAREHOUSE_URL": urls.warehouse,
        "TOTESYS_UI_URL": settings.ui_url or f"http://{HOST}:{ui_port}",
        "TOTESYS_HOME": str(settings.home),
    }
    with session(program, settings.home, _dashboard_log(settings), place) as process:
        yield process


def _dashboard_log(settings: Settings) -> Path:
    return settings.home / "dashboard.log"


@contextmanager
def session(
    program: list[str], home: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a session of its own. The session ends with the block, or with this process.

    Yields the guard, which leads the session and ends with the program, with its exit code.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            guard.command("dagster", str(home / STOPPING_FILE), *program),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, MARK: str(home), **(environment or {})},
            start_new_session=True,
        )
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with process.stdin:
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End Dagster and everything that it started, including runs. A second Ctrl-C ends them at once.

    The next refresh does again what a run was doing.
    """
    previous = signal.signal(signal.SIGINT, lambda *_: _tell(process, guard.NOW))
    try:
        _tell(process, guard.END)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        # Processes are left only if the guard itself was killed or stopped. All must have ended here, because the
        # databases stop with the last process that uses them.
        _kill(_of_session(process.pid))
        process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)


def _tell(process: subprocess.Popen[bytes], what: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with suppress(OSError):  # it has ended already
        os.write(process.stdin.fileno(), what)


def end_leftovers(home: Path) -> int:
    """End what an earlier ``totesys up`` of this home left, and return how many processes that were.

    Call it only from the one ``up`` of the home. A variable in their environment identifies them: a process id would be
    another program's by now.
    """
    left = []
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if each.environ().get(MARK) == str(home) and each.pid != os.getpid():
                left.append(each)
    _kill(left)
    return len(left)


def _kill(processes: list[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(processes, timeout=_STOP_SECONDS)


def _of_session(leader: int) -> list[psutil.Process]:
    """The processes of a session, also those without a parent: a run outlives the daemon that launched it."""
    found = []
    for each in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(each.pid) == leader:
                found.append(each)
    return found


def _await_ui(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise PlatformError(f"Dagster ended with code {process.returncode} before it answered. Its log is {log}.")
        with (
            suppress(urllib.error.URLError, OSError, json.JSONDecodeError),
            urllib.request.urlopen(f"http://{HOST}:{port}/server_info", timeout=2) as answer,  # always http  # nosec B310
        ):
            if json.load(answer).get("dagster_webserver_version"):
                return
        time.sleep(0.2)
    raise PlatformError(f"Dagster did not start within {_START_SECONDS} s. Its log is {log}.")


def _report_dashboard(
    process: subprocess.Popen[bytes], port: int, settings: Settings, stop: threading.Event, say: Say
) -> None:
    """Say where the dashboard is once it answers, and if it ends by itself: the rest goes on without it."""
    address, answered = f"http://{HOST}:{port}", False
    while not stop.wait(_POLL_SECONDS / 2) and process.poll() is None:
        if not answered:
            with (
                suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(address + dashboard.HEALTH, timeout=2),  # always http  # noqa: S310  # nosec B310
            ):
                answered = True
                say("dashboard", f"sales, money and history are at {address}")
    if not stop.is_set():
        say("error", f"the dashboard ended by itself. Its log is {_dashboard_log(settings)}.")


def _traffic(url: str, rate: float, stop: threading.Event, say: Say) -> None:
    """Make the traffic, and say what happened; what fails again and again, once."""
    from totesys_assets.local.simulator import Traffic

    told = ""

    def happened(text: str) -> None:
        nonlocal told
        told = ""
        say("totesys", text)

    while not stop.is_set():
        try:
            with Traffic(url, on_event=happened) as traffic:
                traffic.run(rate, stop)
        except (ValueError, LookupError, psycopg.Error) as error:
            if not stop.wait(_POLL_SECONDS) and str(error) != told:
                told = str(error)
                say("error", f"the simulator tries again after: {told}")


def _report_loads(urls: Databases, settings: Settings, stop: threading.Event, say: Say) -> None:
    """Report what arrives in the warehouse."""
    from totesys_assets.live.arrivals import Arrivals
    from totesys_assets.warehouse.warehouse import Warehouse

    def begin() -> Callable[[], list[Line]]:
        arrivals = Arrivals(Warehouse(urls.warehouse, settings.warehouse_schema))
        return lambda: [("warehouse", told)] if (told := arrivals.next()) else []

    _report("what arrives in the warehouse", begin, "warehouse", _POLL_SECONDS, stop, say)


def _report_news(settings: Settings, stop: threading.Event, say: Say) -> None:
    """Report each problem when it begins and when it is over."""
    import dagster as dg

    from totesys_assets.lake.tables import Lake
    from totesys_assets.live.news import News

    def begin() -> Callable[[], list[Line]]:
        return News(dg.DagsterInstance.get(), Lake(settings.lake_uri)).next

    _report("what fails", begin, "dagster", _NEWS_SECONDS, stop, say)


def _report(
    what: str,
    begin: Callable[[], Callable[[], list[Line]]],
    who: str,
    seconds: float,
    stop: threading.Event,
    say: Say,
) -> None:
    """Say every so many seconds what is new; and once, that it cannot be told, and that it can be again.

    ``begin``: makes what then tells the new lines. Either may fail, and is tried again.
    """
    following, problem = None, ""
    while not stop.is_set():
        try:
            following = following or begin()
            lines = following()
            if problem:
                problem = ""
                say(who, f"{what} is told again")
            for line in lines:
                say(*line)
        except Exception as error:  # of any kind: everything else goes on
            if not problem and not stop.is_set():
                problem = str(error).partition("\n")[0] or type(error).__name__
                say("error", f"{what} cannot be told: {problem}")
        stop.wait(seconds)
