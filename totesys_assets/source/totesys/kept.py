"""ToteSys with its sessions, kept for the next look of a process: a session costs a server more than what a look asks.

Belongs here: for how long they are kept, and for whom. Does not belong here: what is done in them, and whether one that
was kept still serves, which its users find out.

Some things a server takes into account only when a session begins: the settings of a role, its password, where an
address leads. After ``KEPT_SECONDS`` they count, for no session is older.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Timer

from totesys_assets.source.totesys import Totesys

# At a look in two seconds a session is used thirty times; and routers forget a silent one after four minutes or more.
KEPT_SECONDS = 60.0


@dataclass(frozen=True)
class _Idle:
    """ToteSys at ``url``, opened at ``opened_at`` by process ``pid``; ``timer`` ends its sessions in time."""

    source: Totesys
    url: str
    opened_at: float
    pid: int
    timer: Timer


class KeptTotesys:
    """ToteSys, opened with ``open_source`` for a URL, for one look after another. Two at the same time get one each."""

    def __init__(self, open_source: Callable[[str], Totesys], clock: Callable[[], float] = time.monotonic) -> None:
        self._open_source, self._clock = open_source, clock
        self._idle: _Idle | None = None
        self._lock = Lock()
        # Of a parent process, never freed: what is said in these sessions is for the parent to say.
        self._of_parents: list[_Idle] = []
        atexit.register(_close, weakref.ref(self))

    @contextmanager
    def of(self, url: str) -> Iterator[Totesys]:
        """ToteSys at ``url``, for the context and the thread that enters it."""
        source, opened_at = self._take(url)
        try:
            yield source
        except BaseException:
            source.close()
            raise
        self._leave(source, url, opened_at)

    def close(self) -> None:
        """End the sessions that wait for the next look."""
        idle = self._taken()
        if idle is not None:
            idle.source.close()

    def _take(self, url: str) -> tuple[Totesys, float]:
        idle, now = self._taken(), self._clock()
        if idle is not None:
            if idle.url == url and now - idle.opened_at < KEPT_SECONDS:
                return idle.source, idle.opened_at
            idle.source.close()
        return self._open_source(url), now

    def _taken(self) -> _Idle | None:
        """What waits, which nobody else gets from now on."""
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is not None and idle.pid != os.getpid():
            self._of_parents.append(idle)
            return None
        if idle is not None:
            idle.timer.cancel()
        return idle

    def _leave(self, source: Totesys, url: str, opened_at: float) -> None:
        left = opened_at + KEPT_SECONDS - self._clock()
        if left > 0:
            timer = Timer(left, self.close)
            timer.daemon = True
            idle = _Idle(source, url, opened_at, os.getpid(), timer)
            with self._lock:
                if self._idle is None:
                    self._idle = idle
                    timer.start()
                    return
        source.close()


def _close(kept: weakref.ref[KeptTotesys]) -> None:
    """At the end of the process: DuckDB would abort it, if it ended a session itself whose server is gone."""
    found = kept()
    if found is not None:
        found.close()
