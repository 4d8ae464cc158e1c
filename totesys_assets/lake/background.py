"""Making batches in a thread while delta-rs writes the ones before."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextvars import copy_context
from queue import Full, Queue
from threading import Event, Thread

import pyarrow as pa


class Background:
    """Makes batches in a thread of its own while delta-rs writes the ones before.

    This saves time, and it is needed: delta-rs pulls batches in a thread of its own, from which it cannot be called, so
    batches that are read from another Delta table must be made in another thread. Iterating raises the error that
    making the batches raised.
    """

    _WAIT_SECONDS = 0.1

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        # Two, because a batch may be 20 MB, and two keep the writer busy.
        self._ready: Queue[pa.RecordBatch | None] = Queue(maxsize=2)
        self._stop = Event()
        # In this thread's context, so that connections opened in the new thread belong to the same run (engine.py).
        self._thread = Thread(target=copy_context().run, args=[self._make], name="batches", daemon=True)
        self.failure: BaseException | None = None
        self.waited = 0.0  # seconds in which the writer had nothing to write

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _make(self) -> None:
        try:
            for batch in self._batches:
                if not self._put(batch):
                    return
        except BaseException as error:
            self.failure = error
        self._put(None)

    def _put(self, batch: pa.RecordBatch | None) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(batch, timeout=self._WAIT_SECONDS)
            except Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while (batch := self._next()) is not None:
            yield batch
        if self.failure is not None:
            raise self.failure

    def _next(self) -> pa.RecordBatch | None:
        asked = time.monotonic()
        batch = self._ready.get()
        self.waited += time.monotonic() - asked
        return batch
