"""The log of ToteSys through the door that source_log.sql makes: what a plain reader may, and what it may not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import ddl
from totesys_assets.errors import LogBusy
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.source.totesys.log import Log, slot_name
from totesys_assets_tests.conftest import TRADE, PostgresServer
from totesys_assets_tests.harness.servers import LOGICAL, MachineServer, running
from totesys_assets_tests.test_roles import apply, execute, login

SLOT = slot_name("a lake")


@pytest.fixture(scope="module", params=["embedded", "installed"])
def server(request: pytest.FixtureRequest, scratch: Path) -> Iterator[EmbeddedServer]:
    """A server whose log may be followed, of both versions of PostgreSQL that a machine has."""
    made = EmbeddedServer if request.param == "embedded" else MachineServer
    made_here = made(scratch / f"logical_{request.param}", LOGICAL)
    with running(made_here):
        yield made_here


@dataclass
class Source:
    """A database with ToteSys in it, its owner's login and the reader's, the door and the slots."""

    server: EmbeddedServer
    owner: str = field(repr=False)
    reader: str = field(repr=False)

    def log(self, slot: str = SLOT) -> Log:
        return Log(self.reader, slot)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        return execute(self.owner, statement)

    def flushed(self) -> int:
        with self.log() as log:
            position = log.state().flushed
        assert position is not None
        return position


@pytest.fixture
def closed(server: EmbeddedServer) -> Iterator[Source]:
    """A ToteSys without the door."""
    postgres = PostgresServer(server)
    owner = postgres.database("followed")
    with psycopg.connect(owner) as connection:
        connection.execute(ddl("totesys.sql"))
        connection.execute(TRADE)
    apply("source_reader.sql", owner)
    yield Source(server, owner, login(owner, "totesys_reader"))
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        deadline = time.monotonic() + 30
        while connection.execute("SELECT FROM pg_replication_slots WHERE active").fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        connection.execute("ALTER ROLE totesys_reader RESET ALL")
    postgres.drop("followed", "elsewhere")


@pytest.fixture
def source(closed: Source) -> Source:
    """A ToteSys with the door."""
    apply("source_log.sql", closed.owner)
    return closed


def kinds(log: Log, until: int, most: int = 1000) -> str:
    """The kinds of the messages up to a position, as their first letters."""
    return "".join(bytes(each.as_py()[:1]).decode() for each in log.peek(until, most))


# Following the log


def test_a_plain_reader_follows_the_log_and_forgets_it(source: Source) -> None:
    with source.log() as log:
        began = log.begin()
        source.run("UPDATE sales_order SET units_sold = 5 WHERE sales_order_id = 1")
        until = source.flushed()
        assert began < until
        assert kinds(log, until) == kinds(log, until) == "BRUC"
        assert kinds(log, began) == ""
        log.forget(until)
        assert kinds(log, until) == ""
        state = log.state()
        assert state.slot is not None
        assert (state.slot.ours, state.slot.lost, state.slot.confirmed) == (True, False, until)
        assert log.finish() is True
        assert log.finish() is False
        assert log.state().slot is None


def test_a_peek_has_whole_transactions_and_stops_after_as_many_messages_as_it_may(source: Source) -> None:
    with source.log() as log:
        log.begin()
        for units in (1, 2, 3):
            source.run(f"UPDATE sales_order SET units_sold = {units}")
        rows = len(source.run("SELECT 1 FROM sales_order"))
        until = source.flushed()
        first = kinds(log, until, 1)
        assert first == f"BR{'U' * rows}C"
        assert kinds(log, until, len(first) + 1) == f"BR{'U' * rows}CB{'U' * rows}C"
        assert len(log.peek(until, 1000)) == 3 * (rows + 2) + 1


def test_a_large_transaction_comes_in_batches_and_need_not_be_read_to_its_end(source: Source) -> None:
    rows = 2 * engine.BATCH_ROWS
    with source.log() as log:
        log.begin()
        source.run(
            "INSERT INTO department (department_id, department_name, last_updated) "
            f"SELECT number, 'x', now() FROM generate_series(1000, {999 + rows}) AS number"
        )
        until = source.flushed()
        sizes = [len(batch) for batch in log.batches(until, 1)]
        assert sum(sizes) == rows + 3
        assert max(sizes) <= engine.BATCH_ROWS
        batches = log.batches(until, 1)
        next(batches)
        batches.close()  # type: ignore[attr-defined]  # a generator
        deadline = time.monotonic() + 30
        while (slot := log.state().slot) and slot.active_pid and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(log.peek(until, 1)) == rows + 3


def test_two_that_forget_are_of_one_mind_when_one_was_quicker(source: Source) -> None:
    with source.log() as log, source.log() as other:
        began = log.begin()
        source.run("UPDATE design SET design_name = 'a'")
        middle = source.flushed()
        source.run("UPDATE design SET design_name = 'b'")
        until = source.flushed()
        other.forget(until)
        log.forget(middle)
        log.forget(began)
        slot = log.state().slot
        assert slot is not None
        assert slot.confirmed == until


def test_who_comes_while_another_reads_is_told_to_wait(source: Source) -> None:
    with source.log() as log, source.log() as other:
        log.begin()
        source.run("UPDATE design SET design_name = 'a'")
        until = source.flushed()
        with psycopg.connect(source.owner) as reading:
            # A caught error leaves the slot with its session: as good as a long peek.
            reading.execute(
                f"DO $$ BEGIN PERFORM pg_replication_slot_advance('{SLOT}', '0/1'); "
                "EXCEPTION WHEN OTHERS THEN NULL; END $$".encode()
            )
            for act in (lambda: other.peek(until, 10), lambda: other.forget(until), other.finish):
                with pytest.raises(LogBusy, match="is active for PID"):
                    act()
            slot = other.state().slot
            assert slot is not None
            assert slot.active_pid == reading.info.backend_pid
        assert kinds(other, until) == "BRUC"
