"""Waiting inside a sensor's tick: until something was committed in ToteSys, or the tick's time is up.

Belongs here: a probe of the source that costs a fraction of a millisecond, how long a tick may wait and what ends it
early. Does not belong here: what is looked at then (staleness/look.py), and when not to look (sensors.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psycopg

from totesys_assets.errors import ConnectionFailed
from totesys_assets.postgres.session_settings import open_session

# A probe is one round trip to the source: 0.3 ms of both sides' time, 0.15 % of a processor.
POLL_SECONDS = 0.2
# Other databases of the server move its snapshot too. A look that it led to in vain is followed by a pause in
# proportion, so that on a server that is never quiet at most a quarter of the time is spent on looking.
PAUSE_PER_LOOK = 3
# The text of a snapshot changes with every commit, but not on a standby, where it names no transaction that is under
# way: a commit may become visible there without a change of it. What tells of it there is how far the replay has come,
# which also counts what is of no interest. One round trip, and what it relies on is set in its own transaction.
_STATE = """
BEGIN READ ONLY;
SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = '10s';
SELECT concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()),
    CASE WHEN pg_is_in_recovery() THEN 'standby ' || pg_last_wal_replay_lsn() ELSE pg_current_snapshot()::text END);
COMMIT
"""

Clock = Callable[[], float]


class Probe:
    """Tells whether anything may have been committed in ToteSys since ``note``. It misses nothing, and may be wrong.

    One session per tick: between probes no transaction is open, and no snapshot keeps the source from cleaning up
    behind itself.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection | None = None
        self._noted: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def note(self) -> None:
        """Remember the present state. To be called before a look: what is committed during the look is not missed."""
        self._noted = self._state()

    def moved(self) -> bool:
        """Whether the server's state is another. True also when it cannot be told: a look says what is wrong."""
        found = self._state()
        return found is None or found != self._noted

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
    """How long a tick goes on waiting: ``seconds`` from now, or until the file ``stopping`` is touched.

    ``clock`` and ``sleep`` are time's own unless a test has others.
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
        """Wait until ``happened`` is true, asking for the first time after ``pause``. False when the time is up."""
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
