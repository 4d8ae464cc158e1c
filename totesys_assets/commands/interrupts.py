"""Signals: a command ends within seconds of Ctrl-C, SIGTERM or the closing of its terminal.

Belongs here: signals of the process, and ending calls that do not end by themselves. Whatever was left undone, the next
refresh does, unless a command says otherwise.

Python runs a signal's handler in the main thread, and only once that has returned from C code. DuckDB, libpq and
delta-rs may wait there for a server for any time. So a thread waits for signals too. It first interrupts DuckDB's
queries, then cuts the connections of the process, so that every call that waits for a server fails, and finally ends
the process.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# Seconds from the signal until connections are cut, and until the process is ended.
CUT_SECONDS, END_SECONDS = 2.5, 4.5
# Seconds between looks for an interrupt that was lost.
_AGAIN_SECONDS = 0.1
_MOST_FILES = 4096
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_first: int | None = None
_in_order = False
_left = ""
_over, _lost = threading.Event(), threading.Event()


def received() -> int | None:
    """The first signal that asked the process to end; None if there was none."""
    return _first


def exit_code() -> int:
    """The exit code of an error: 1, or after a signal the code that shells use for it."""
    return 1 if _first is None else 128 + _first


@contextmanager
def orderly_end() -> Iterator[None]:
    """For the block, signals do not force the end: the code in it handles them, and ends many things in order."""
    global _in_order  # of the process, as its signals are
    before, _in_order = _in_order, True
    try:
        yield
    finally:
        _in_order = before


@contextmanager
def leaving(what: str) -> Iterator[None]:
    """For the block: what an interrupt leaves half done and what to do about it, in a sentence."""
    global _left  # of the process, as its signals are
    _left = what
    try:
        yield
    finally:
        if _first is None:  # else it is yet to be told
            _left = ""


def left(nothing: str) -> str:
    """What the interrupt left half done; ``nothing``: what to say where a command leaves nothing so."""
    return _left or nothing


def check() -> None:
    """Raise KeyboardInterrupt if a signal came that other code has caught, as Dagster does in a run."""
    if _first is not None:
        arrived()
        raise KeyboardInterrupt


def again() -> None:
    """KeyboardInterrupt was raised where Python only reports it, as in a destructor: raise it once more, elsewhere.

    Not within ``orderly_end``, where a second signal means something else.
    """
    _lost.set()


def arrived() -> None:
    """The interrupt has reached the command: it need not be raised once more."""
    _lost.clear()


def install() -> None:
    """Handle signals from now on. Only for a process that runs nothing but a command.

    From the first handler on, any line of the caller's may raise KeyboardInterrupt.
    """
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    threading.Thread(target=_watch, args=[woken], name="signals", daemon=True).start()
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and shells set it so
            signal.signal(number, _interrupt if number == signal.SIGINT else _terminate)


def leave(code: int) -> None:
    """End the process with ``code``, without waiting for its threads.

    What libraries have registered for the end is done, except after a signal. Taking all modules apart is left out:
    where Dagster and pandas are among them, it takes Python some tenths of a second.
    """
    try:
        _over.set()
        if _first is None:
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or none
                stream.flush()
    finally:
        os._exit(code)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _note(number)
    raise KeyboardInterrupt


def _terminate(number: int, _frame: FrameType | None) -> None:
    _note(number)
    if not callable(signal.getsignal(signal.SIGINT)):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)  # calls the present handler of interrupts, which may be Dagster's


def _note(number: int) -> None:
    global _first  # of the process, as its signals are
    _first = _first or number


def _watch(woken: int) -> None:
    number = 0
    while number not in _SIGNALS or _in_order:
        number = os.read(woken, 1)[0]
        if number in _SIGNALS:
            _note(number)
    _interrupt_engine()
    if _ended_within(CUT_SECONDS, number):
        return
    _cut_connections()
    if _ended_within(END_SECONDS - CUT_SECONDS, number):
        return
    with suppress(OSError):
        then = left("The next refresh does what is left to do.")
        os.write(2, f"Ended by force: something did not stop in time. {then}\n".encode())
    os._exit(128 + number)


def _ended_within(seconds: float, number: int) -> bool:
    """Wait for the end of the command. Meanwhile, send it the signal once more if the interrupt was lost."""
    for _ in range(round(seconds / _AGAIN_SECONDS)):
        if _over.wait(_AGAIN_SECONDS):
            return True
        if _lost.is_set():
            _lost.clear()
            signal.pthread_kill(threading.main_thread().ident or 0, number)
    return False


def _interrupt_engine() -> None:
    engine = sys.modules.get("totesys_assets.engine")
    if engine is not None:
        engine.interrupt()


def _cut_connections() -> None:
    """Cut the connections to servers. Socket pairs within the process, which delta-rs uses for signals, stay."""
    for file in range(3, _MOST_FILES):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(file).st_mode):
                with socket.socket(fileno=os.dup(file)) as connection:
                    if connection.getpeername():
                        connection.shutdown(socket.SHUT_RDWR)
