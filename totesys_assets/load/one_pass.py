"""A first load in one pass: while versions are captured, star rows are made of them, and copied into the warehouse.

Belongs here: what receives the versions, and holds what was made of them until it is committed. Does not belong here:
the commits. These come one after the other, each by its own step: ingestion, ledger, star, warehouse. A step whose rows
were made here commits these; else, after an error or in another process, it makes them itself as ever.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from queue import Empty, Full, Queue

import duckdb
import pyarrow as pa

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.errors import PlatformError
from totesys_assets.lake.tables import Lake
from totesys_assets.lake.written import Written
from totesys_assets.load import copying
from totesys_assets.load.copying import Abandoned, Copy
from totesys_assets.transform.engines.interface import Engine
from totesys_assets.transform.engines.passed import Made, Passed
from totesys_assets.transform.passing import Passing, can_pass, is_empty, versions_schema
from totesys_assets.warehouse.warehouse import Warehouse

log = logging.getLogger(__name__)
# Batches of versions that wait for what is made of them: each has up to 20 MB.
_WAITING = 2
_POLL_SECONDS = 0.1


class OnePass:
    """The star tables of one run that are made along with its first captures, until their steps take them."""

    def __init__(self, lake: Lake, warehouse: Warehouse, *, large: int | None = None, is_on: bool = True) -> None:
        """``large``: from how many rows on they are copied into the warehouse along with their capture."""
        self._lake, self._warehouse, self._catalogue = lake, warehouse, warehouse.catalogue
        self._large, self._is_on = copying.LARGE if large is None else large, is_on
        self._made: dict[str, Made] = {}
        self._copies: dict[str, Copy] = {}

    def onward(self, source: Table, wanted: Iterable[str]) -> Along | None:
        """What takes versions of ``source`` along into those ``wanted`` star tables that are empty. None if none is."""
        tables = [self._catalogue.star[name] for name in wanted if self._is_on and name in self._catalogue.star]
        empty = [
            each for each in tables if can_pass(self._catalogue, each) == source.name and is_empty(self._lake, each)
        ]
        return Along(self._lake, self._warehouse, source, empty, self._keep, self._large) if empty else None

    def _keep(self, made: Made, copy: Copy | None) -> None:
        self._made[made.table.name] = made
        if copy is not None:
            self._copies[made.table.name] = copy

    @contextmanager
    def engine(self, table: Table, other: Engine) -> Iterator[Engine]:
        """What builds star ``table``: it commits rows that were made. The load has no use for what it does not want."""
        made = self._made.pop(table.name, None)
        if made is None:
            yield other
            return
        try:
            yield Passed(made, other)
        finally:
            if not made.is_committed:
                made.discard()
                self._abandon_copy(table.name)

    @contextmanager
    def copy(self, table: Table) -> Iterator[Copy | None]:
        """The transaction that holds the rows of ``table``. What the block does not commit is abandoned."""
        try:
            copy = self._copies.get(table.name)
            yield copy if copy is not None and copy.is_there() else None
        finally:
            self._abandon_copy(table.name)

    def _abandon_copy(self, name: str) -> None:
        copy = self._copies.pop(name, None)
        if copy is not None:
            copy.abandon()

    def close(self) -> None:
        """Abandon what nobody has taken."""
        for made in self._made.values():
            made.discard()
        self._made.clear()
        for name in [*self._copies]:
            self._abandon_copy(name)


class Along:
    """Takes the versions of one source table along: see capture/onward.py."""

    def __init__(
        self,
        lake: Lake,
        warehouse: Warehouse,
        source: Table,
        tables: Sequence[Table],
        keep: Callable[[Made, Copy | None], None],
        large: int,
    ) -> None:
        self._lake, self._warehouse, self._source, self._tables, self._keep = lake, warehouse, source, tables, keep
        self._large = large
        self._receivers: list[_Receiver] = []

    def along(self, versions: Iterable[pa.RecordBatch], count: int) -> Iterator[pa.RecordBatch]:
        """The same batches, which the star tables get, too."""
        self.abandon()
        warehouse = self._warehouse if count >= self._large else None
        for each in self._tables:
            self._receivers.append(_Receiver(self._lake, warehouse, self._source, each))
        for batch in versions:
            for receiver in self._receivers:
                receiver.put(batch)
            yield batch
        for receiver in self._receivers:
            receiver.end()

    def captured(self, origin: str, until: int) -> None:
        """Keep what was made for the steps that commit it."""
        for receiver in self._receivers:
            if receiver.copy is not None:
                receiver.copy.moment = until
                receiver.copy.index_meanwhile()
            if receiver.written is not None:
                self._keep(Made(receiver.table, receiver.written, origin, until), receiver.copy)
        self._receivers = []

    def abandon(self) -> None:
        """Forget what was made."""
        for receiver in self._receivers:
            receiver.abandon()
        self._receivers = []


class _Receiver:
    """Makes the rows of one star table in a thread of its own, while versions come."""

    def __init__(self, lake: Lake, warehouse: Warehouse | None, source: Table, table: Table) -> None:
        """``warehouse``: where its rows are copied to, if they are."""
        self.table, self._lake, self._warehouse = table, lake, warehouse
        self._schema = versions_schema(source)
        self._queue: Queue[pa.RecordBatch | None] = Queue(_WAITING)
        self.copy: Copy | None = None
        self.written: Written | None = None
        self._is_over = self._is_abandoned = False
        # In this step's context, so that its connections belong to the same run (engine.py).
        name = f"one pass: {table.name}"
        self._thread = threading.Thread(target=copy_context().run, args=[self._work], name=name, daemon=True)
        self._thread.start()

    def put(self, batch: pa.RecordBatch | None) -> None:
        """Give it a batch; None is the last. What has failed takes none, and holds nobody up."""
        while not self._is_over:
            with suppress(Full):
                self._queue.put(batch, timeout=_POLL_SECONDS)
                return

    def end(self) -> None:
        """Wait until all rows are made."""
        self.put(None)
        self._thread.join()

    def abandon(self) -> None:
        """End it, and forget what it made."""
        self._is_abandoned = True
        self._thread.join()
        if self.written is not None:
            self.written.discard()
        if self.copy is not None:
            self.copy.abandon()

    def _work(self) -> None:
        try:
            self._begin_copy()
            with Passing(self._lake, self.table) as passing, engine.session() as connection:
                found = passing.rows(connection, pa.RecordBatchReader.from_batches(self._schema, self._batches()))
                if self.copy is not None:
                    self.copy.fill(pa.RecordBatchReader.from_batches(passing.schema, found))
                else:
                    for _ in found:
                        pass
                written = passing.close()
                if self.copy is not None:
                    if self.copy.rows != written.rows:
                        raise PlatformError(f"{self.copy.rows} of {written.rows} rows were copied")
                    self.copy.files = frozenset(each.path for each in written.actions)
            self.written = written
        except BaseException as error:  # in a thread; the steps that follow meet it again, and tell
            if not self._is_abandoned:
                log.info("%s is not made along with its capture: %s", self.table.asset, engine.one_line(str(error)))
            if self.copy is not None:
                self.copy.abandon()
                self.copy = None
        finally:
            self._is_over = True
            pa.default_memory_pool().release_unused()

    def _begin_copy(self) -> None:
        if self._warehouse is None or not self.table.is_fact:
            return
        with suppress(Abandoned):
            try:
                self.copy = Copy(self._warehouse, self.table, patience=0)
            except (PlatformError, duckdb.Error) as error:  # its own step meets it again, and tells
                log.info("%s is not copied along with its capture: %s", self.table.asset, engine.one_line(error))

    def _batches(self) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = self._queue.get(timeout=_POLL_SECONDS)
            except Empty:
                if self._is_abandoned:
                    raise Abandoned from None
                continue
            if batch is None:
                return
            yield batch
