"""Ctrl-C, SIGTERM, and a terminal that is closed: a command ends within seconds, whatever it waits for.

Belongs here: signals of the process, and ending what does not end by itself. Does not belong here: what is left
undone by that, which is nothing: the next refresh does it.

Python runs a signal's handler in the main thread, when it is back from C. DuckDB, libpq and delta-rs may stay there for
as long as a server lets them wait. So a thread waits for signals, too: it first interrupts what DuckDB does, then cuts
the connections of the process, upon which everything that waits for a server fails and is unwound, and in the end
ends the process.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# From the signal on: until connections are cut, and until the process is ended.
CUT_SECONDS, END_SECONDS = 2.5, 4.5
_MOST_FILES = 4096
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_first: int | None = None
_patient = False
_over = threading.Event()


def received() -> int | None:
    """The signal that is to end the process, if one came."""
    return _first


def exit_code() -> int:
    """The exit code of an error: 1, or the shell's for a process that a signal ended."""
    return 1 if _first is None else 128 + _first


@contextmanager
def patience() -> Iterator[None]:
    """For the block, a signal is left to who handles it: it has much to end, in order."""
    global _patient  # of the process, as its signals are
    before, _patient = _patient, True
    try:
        yield
    finally:
        _patient = before


def check() -> None:
    """Raise KeyboardInterrupt if a signal came that was caught on the way, as Dagster does in a run."""
    if _first is not None:
        raise KeyboardInterrupt


def install() -> None:
    """Handle signals from now on, until the process ends. Only for a process that is nothing but a command."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells want it
            signal.signal(number, _interrupt if number == signal.SIGINT else _terminate)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=[woken], name="signals", daemon=True).start()


def leave(code: int) -> None:
    """End the process with ``code``; after a signal without waiting for threads that may wait for ever."""
    _over.set()
    if _first is not None:
        os._exit(code)
    sys.exit(code)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _note(number)
    raise KeyboardInterrupt


def _terminate(number: int, _frame: FrameType | None) -> None:
    _note(number)
    if not callable(signal.getsignal(signal.SIGINT)):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)  # whoever handles an interrupt at the moment, as Dagster does in a run


def _note(number: int) -> None:
    global _first  # of the process, as its signals are
    _first = _first or number


def _watch(woken: int) -> None:
    number = 0
    while number not in _SIGNALS or _patient:
        number = os.read(woken, 1)[0]
        if number in _SIGNALS:
            _note(number)
    _interrupt_engine()
    if _over.wait(CUT_SECONDS):
        return
    _cut_connections()
    if _over.wait(END_SECONDS - CUT_SECONDS):
        return
    with suppress(OSError):
        os.write(2, b"Ended at once: something did not stop in time. The next refresh does what is left to do.\n")
    os._exit(128 + number)


def _interrupt_engine() -> None:
    engine = sys.modules.get("totesys_assets.engine")
    if engine is not None:
        engine.interrupt()


def _cut_connections() -> None:
    """Cut those to servers; pairs of sockets within the process, as delta-rs has them for its own signals, stay."""
    for file in range(3, _MOST_FILES):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(file).st_mode):
                with socket.socket(fileno=os.dup(file)) as connection:
                    if connection.getpeername():
                        connection.shutdown(socket.SHUT_RDWR)
