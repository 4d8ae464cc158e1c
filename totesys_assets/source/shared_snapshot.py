"""One snapshot of ToteSys, shared by all tables that a run captures.

Belongs here: opening the snapshot at the first table, giving it up after the last. Does not belong here: what a
snapshot is, which is totesys/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

from totesys_assets import engine
from totesys_assets.errors import StaleSnapshot
from totesys_assets.source.totesys import Totesys
from totesys_assets.source.totesys.snapshot import Snapshot

T = TypeVar("T")
# Snapshots taken for one table before giving up against other refreshes.
_SNAPSHOTS = 5


class SharedSnapshot:
    """Hands out one snapshot until ``tables`` tables were captured or an error broke it."""

    def __init__(self, totesys: Totesys) -> None:
        self.totesys = totesys
        self._stack = ExitStack()
        self._snapshot: Snapshot | None = None
        self._captured: set[str] = set()

    def take_over(self, snapshot: Snapshot, stack: ExitStack) -> None:
        """Go on with a snapshot that was taken before, and what was read in it; ``stack`` ends it."""
        self.close()
        self._snapshot, self._stack = snapshot, stack

    @contextmanager
    def snapshot(self, table: str, *, table_count: int) -> Iterator[Snapshot]:
        """The snapshot, for capturing ``table``, one of ``table_count`` tables.

        It is held no longer than needed: an old snapshot keeps the source from cleaning up behind itself. After an
        error the next table gets a new one, for PostgreSQL refuses to go on with the old.
        """
        if self._snapshot is None:
            self._snapshot = self._stack.enter_context(self.totesys.snapshot())
        engine.claim(self._snapshot.connection)  # a command may have opened it, before there was a run
        try:
            yield self._snapshot
        except BaseException:
            self.close()
            raise
        self._captured.add(table)
        if len(self._captured) >= table_count:
            self.close()
            self._captured.clear()

    def read(self, table: str, work: Callable[[Snapshot], T], *, table_count: int) -> T:
        """Result of ``work`` with the snapshot, or with a new one when another refresh was quicker with a later."""
        for _ in range(_SNAPSHOTS - 1):
            with suppress(StaleSnapshot), self.snapshot(table, table_count=table_count) as snapshot:
                return work(snapshot)
        with self.snapshot(table, table_count=table_count) as snapshot:
            return work(snapshot)

    def close(self) -> None:
        """End the snapshot, if there is one."""
        self._snapshot = None
        self._stack.close()
