"""Traffic: who writes to ToteSys while it lives, how often, and over which connection.

Belongs here: transactions, a connection that is lost, the mix of events and their rate. Does not belong here: what an
event changes (events.py).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psycopg

from totesys_assets.local.simulator.events import Events

# How long a connection that was lost is tried again: a server restart takes a few seconds.
RECONNECT_SECONDS = 30.0
RETRY_SECONDS = 0.25
# After a stall the traffic does not make up for more than this.
BACKLOG_SECONDS = 1.0

Report = Callable[[str], None]
Event = Callable[[psycopg.Connection], str]


class Traffic:
    """The people and programs that write to ToteSys while it lives; each method is one committed transaction.

    A context manager that holds one connection, and opens another when that one is lost. Methods return a sentence
    that says what happened, and tell it to ``on_event``. With a ``seed``, the same calls on the same rows do the same.
    """

    def __init__(self, url: str, *, seed: int | None = None, on_event: Report | None = None) -> None:
        self._url = url
        self._random = random.Random(seed)  # noqa: S311 - invents trade, guards nothing  # nosec B311
        self._events = Events(self._random)
        self._on_event = on_event or (lambda _: None)
        self._connection: psycopg.Connection | None = None

    def __enter__(self) -> Self:
        self._connection = self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def new_sale(self) -> str:
        """Place a sales order with its transaction and its payment."""
        return self._commit(self._events.sell)

    def new_purchase(self) -> str:
        """Place a purchase order with its transaction and its payment."""
        return self._commit(self._events.buy)

    def new_design(self) -> str:
        """Add a design that sales may be of from now on."""
        return self._commit(self._events.design)

    def silent_update(self) -> str:
        """Change a column of an order, or of a design, of any age, and leave ``last_updated`` as it was."""
        return self._commit(lambda connection: self._events.update(connection, stamped=False))

    def stamped_update(self) -> str:
        """Change a column of an order, or of a design, of any age, as the application does: with ``last_updated``."""
        return self._commit(lambda connection: self._events.update(connection, stamped=True))

    def settle_payments(self) -> str:
        """Mark a few payments as paid, with one ``last_updated``: those due first, then those of the days ahead.

        Right after ``create`` nothing is due, and a ToteSys where no payment moves is no use to try things on.
        As in the morning batch, a payment dated on a weekend, or on the day it was made, is never paid.
        """
        return self._commit(self._events.settle)

    def delete_order(self) -> str:
        """Delete an order, most often a young one, with its transaction and its payment."""
        return self._commit(self._events.delete)

    def change_reference(self) -> str:
        """Change an address, the head or the place of a department, or a member of staff."""
        change = self._random.choice(
            (self._events.move_address, self._events.reorganize_department, self._events.move_staff)
        )
        return self._commit(change)

    def step(self) -> str:
        """Make one event of any kind: mostly new orders, now and then a deletion or a changed reference row."""
        (event,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        return event(self)

    def run(self, rate: float, stop: threading.Event, limit: int | None = None) -> int:
        """Make ``rate`` events per second, at irregular gaps, until ``stop`` is set or ``limit`` were made.

        Returns how many were made.
        """
        if rate <= 0:
            raise ValueError(f"rate is {rate:g} events per second: give a number above 0.")
        made = 0
        due = time.monotonic()
        while limit is None or made < limit:
            due = max(due + self._random.expovariate(rate), time.monotonic() - BACKLOG_SECONDS)
            if stop.wait(max(0.0, due - time.monotonic())):
                break
            self.step()
            made += 1
        return made

    # Connection

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(self._url, autocommit=True)
        connection.execute("SET TimeZone TO 'UTC'")
        return connection

    def _reconnect(self) -> psycopg.Connection:
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                return self._connect()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    def _commit(self, event: Event) -> str:
        """Do ``event`` in one transaction; again on a new connection when this one turns out to be lost.

        When it is lost in the very commit, the event may happen twice: one more order, which harms nobody.
        """
        if self._connection is None:
            raise RuntimeError("Traffic has no connection: use it as `with Traffic(url) as traffic:`.")
        while True:
            try:
                with self._connection.transaction():
                    sentence = event(self._connection)
                break
            except psycopg.OperationalError:
                if not self._connection.closed:
                    raise
                self._connection = self._reconnect()
        self._on_event(sentence)
        return sentence


# Of a hundred events, how many are of a kind.
WEIGHTS: dict[Callable[[Traffic], str], int] = {
    Traffic.new_sale: 49,
    Traffic.new_purchase: 21,
    Traffic.new_design: 2,
    Traffic.silent_update: 10,
    Traffic.stamped_update: 5,
    Traffic.settle_payments: 7,
    Traffic.delete_order: 3,
    Traffic.change_reference: 3,
}
