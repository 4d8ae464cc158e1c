"""Snapshots that several tables share: of one source for a run's captures, and of all sources for a look.

Belongs here: opening a snapshot, opening another when it proves unusable, giving it up after the last table. Does not
belong here: what a snapshot is, which is interface.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

from totesys_assets import engine
from totesys_assets.errors import PlatformError, StaleSnapshot
from totesys_assets.names import TOTESYS
from totesys_assets.source.interface import Source, SourceSnapshot

T = TypeVar("T")
# Snapshots taken for one table before giving up against other refreshes.
_SNAPSHOTS = 5


@contextmanager
def own_faults(source: str, what: str) -> Iterator[None]:
    """Turn a fault in the code of a source into a PlatformError of that source, so that it does not stop the others.

    The code that reads ToteSys is the platform's own: a fault in it is shown as it is.
    """
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        if source == TOTESYS:
            raise
        raise PlatformError(
            f"{what}: {type(error).__name__}: {engine.one_line(error)}. Correct totesys_assets/source/{source}.py."
        ) from error


class OpenSnapshots:
    """One snapshot of each source. A source that cannot be reached does not keep the others from being read.

    Raises the problem of the first where none can be reached.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = {source.name: source for source in sources}
        self._stacks: dict[str, ExitStack] = {}
        self._snapshots: dict[str, SourceSnapshot] = {}
        # Source -> why it cannot be reached.
        self.problems: dict[str, PlatformError] = {}
        for name in self._sources:
            try:
                with suppress(PlatformError):  # noted in problems
                    self.reopen(name)
            except BaseException:
                self.close()
                raise
        if not self._snapshots:
            raise next(iter(self.problems.values()))

    def reopen(self, name: str) -> SourceSnapshot:
        """Take another snapshot of a source. Raises what ``Source.snapshot`` raises, and notes it as its problem."""
        stack = self._stacks.setdefault(name, ExitStack())
        stack.close()
        self._snapshots.pop(name, None)
        try:
            with own_faults(name, f'The source "{name}" cannot be read'):
                snapshot = stack.enter_context(self._sources[name].snapshot())
        except PlatformError as problem:
            self.problems[name] = problem
            raise
        self._snapshots[name] = snapshot
        return snapshot

    @property
    def now(self) -> dict[str, SourceSnapshot]:
        """The snapshots by the name of their source, of those that can be reached."""
        return dict(self._snapshots)

    def close(self) -> None:
        """End all of them."""
        for stack in self._stacks.values():
            stack.close()

    def hand_over(self, shared: SharedSnapshots) -> None:
        """Leave the snapshots to captures that follow at once."""
        for name, snapshot in self._snapshots.items():
            shared.of(name).take_over(snapshot, self._stacks[name].pop_all())


class SharedSnapshot:
    """Hands out one snapshot of a source until all tables were captured or an error broke it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._stack = ExitStack()
        self._snapshot: SourceSnapshot | None = None
        self._captured: set[str] = set()

    def take_over(self, snapshot: SourceSnapshot, stack: ExitStack) -> None:
        """Go on with a snapshot that was taken before, and what was read in it; ``stack`` ends it."""
        self.close()
        self._snapshot, self._stack = snapshot, stack

    @contextmanager
    def snapshot(self, table: str, *, table_count: int) -> Iterator[SourceSnapshot]:
        """The snapshot, for capturing ``table``, one of ``table_count`` tables.

        It is held no longer than needed: an old snapshot keeps the source from cleaning up behind itself. After an
        error the next table gets a new one, for PostgreSQL refuses to go on with the old.
        """
        if self._snapshot is None:
            self._snapshot = self._stack.enter_context(self.source.snapshot())
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

    def read(self, table: str, work: Callable[[SourceSnapshot], T], *, table_count: int) -> T:
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


class SharedSnapshots:
    """A shared snapshot of each source."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.sources = tuple(sources)
        self._shared = {source.name: SharedSnapshot(source) for source in self.sources}

    def of(self, source: str) -> SharedSnapshot:
        """That of a source, by its name."""
        return self._shared[source]

    def close(self) -> None:
        """End those that are open."""
        for shared in self._shared.values():
            shared.close()
