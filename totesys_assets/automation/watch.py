"""Waiting inside a sensor's tick until something is committed in ToteSys or the tick's time is up.

Belongs here: a probe of the source that costs a fraction of a millisecond, how long a tick may wait, and what ends it
early. Does not belong here: the look that follows (staleness/look.py), and when not to look (sensors.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psycopg

from totesys_assets.errors import ConnectionFailed
from totesys_assets.postgres.session_settings import open_session

# A probe is one round trip to the source. It takes 0.3 ms of both sides' time: 0.15 % of a processor.
POLL_SECONDS = 0.2
# Commits in other databases of the server change its snapshot too. After a look that found nothing, the tick pauses for
# this many times the look's duration, so that on a busy server at most a quarter of the time is spent on looking.
PAUSE_PER_LOOK = 3
# The text of a snapshot changes with every commit. On a standby it does not: it names no running transactions, so a
# commit may become visible without a change. There, the position of the replay is used, which also moves without a
# commit. All of it is one round trip, and the settings that it relies on are set in its own transaction.
_STATE = """
BEGIN READ ONLY;
SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = '10s';
SELECT concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()),
    CASE WHEN pg_is_in_recovery() THEN 'standby ' || pg_last_wal_replay_lsn() ELSE pg_current_snapshot()::text END);
COMMIT
"""

Clock = Callable[[], float]


class Probe:
    """Says whether anything may have been committed in ToteSys since ``note``. It misses no commit, but may err.

    One session per tick. Between probes no transaction is open, so that no snapshot holds up the source's vacuum.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection | None = None
        self._noted: str | None = None
        # The last moment at which it had not moved, in seconds since 1970; 0 before the first.
        self.quiet_until = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def note(self) -> None:
        """Note the present state. Call it before a look, so that a commit during the look is not missed."""
        self._noted = self._state()

    def moved(self) -> bool:
        """Whether the server's state has changed. True also if it cannot be read: the next look reports why."""
        asked, found = time.time(), self._state()
        if found is None or found != self._noted:
            return True
        self.quiet_until = asked
        return False

    def _state(self) -> str | None:
        try:
            if self._connection is None:
                self._connection = open_session(self._url, variable="TOTESYS_URL", read_only=True)
                self._connection.autocommit = True  # transactions are those of _STATE
            cursor = self._connection.execute(_STATE)
            while not cursor.description and cursor.nextset():
                pass
            row = cursor.fetchone()
        except (psycopg.Error, ConnectionFailed):
            self._close()
            return None
        return str(row[0]) if row else None

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Wait:
    """A wait of at most ``seconds`` from now, which ends early when the file ``stopping`` is touched.

    ``clock`` and ``sleep`` are those of ``time``, except in tests.
    """

    def __init__(
        self,
        seconds: float,
        stopping: Path,
        *,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._end = clock() + seconds
        self._stopping = stopping
        self._stopped_before = self._touched()

    def until(self, happened: Callable[[], bool], *, pause: float = 0.0) -> bool:
        """Wait until ``happened`` returns True; call it first after ``pause``. Returns False when the time is up."""
        earliest = self._clock() + pause
        while self._clock() < self._end and self._touched() == self._stopped_before:
            self._sleep(POLL_SECONDS)
            if self._clock() >= earliest and happened():
                return True
        return False

    def _touched(self) -> float | None:
        try:
            return self._stopping.stat().st_mtime
        except OSError:
            return None
