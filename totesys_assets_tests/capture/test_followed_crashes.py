"""The log is followed by processes that are killed, from a server that crashes, while others write.

What was committed is told by triggers: whoever writes a row waits until the transaction that wrote it before is over.
So the numbers that they note of one row are in the order of the commits. A transaction that is lost loses its notes.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date
from multiprocessing.sharedctypes import SynchronizedBase
from pathlib import Path
from typing import Any

import psycopg
import pytest

from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets_tests.conftest import PostgresServer
from totesys_assets_tests.harness.followed import Followed, followed
from totesys_assets_tests.harness.kills import context, power_cut
from totesys_assets_tests.harness.servers import LOGICAL, running

ROWS, WRITERS = 6, 3
NOTES = """
CREATE TABLE notes (number bigserial, xid text DEFAULT pg_current_xact_id()::text, design_id int, name text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO notes (design_id, name) VALUES (coalesce(NEW.design_id, OLD.design_id), NEW.design_name);
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON design FOR EACH ROW EXECUTE FUNCTION note()
"""
LAST_OF_EACH_TRANSACTION = """
SELECT design_id::text, name FROM (
    SELECT *, row_number() OVER (PARTITION BY design_id, xid ORDER BY number DESC) AS place FROM notes
) AS noted WHERE place = 1 ORDER BY number
"""


@pytest.fixture
def server(scratch: Path) -> Iterator[EmbeddedServer]:
    made = EmbeddedServer(scratch / "crashes", LOGICAL)
    with running(made):
        yield made


def _write(url: str, seed: int, over: threading.Event) -> None:
    """Transactions of one writer, until it is over; a server that is down is waited for."""
    chance = random.Random(seed)
    while not over.is_set():
        with suppress(psycopg.Error), psycopg.connect(url, autocommit=True) as connection:
            while not over.is_set():
                statements = [_statement(chance) for _ in range(chance.choice([1, 1, 1, 3]))]
                end = chance.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"])
                with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
                    connection.execute(f"BEGIN; {'; '.join(statements)}; {end}".encode())
                if connection.info.transaction_status:
                    connection.execute("ROLLBACK")
                time.sleep(0.02)
        time.sleep(0.05)


def _statement(chance: random.Random) -> str:
    number = 100 + chance.randrange(ROWS)
    return chance.choice(
        [
            f"UPDATE design SET design_name = 'name {chance.randrange(4)}' WHERE design_id = {number}",
            f"UPDATE design SET design_name = design_name || '.' WHERE design_id = {number}",
            f"DELETE FROM design WHERE design_id = {number}",
            f"INSERT INTO design VALUES ({number}, '2024-01-01', 'new', repeat('x', 5000), 'f', '2024-01-01') "
            "ON CONFLICT (design_id) DO UPDATE SET design_name = 'again'",
        ]
    )


def _refresh_for_ever(url: str, folder: Path, first_day: date, done: SynchronizedBase[Any]) -> None:
    made, note = Followed(url, folder, first_day), Ledger.append

    def note_late(self: Ledger, entries: Iterable[Entry], behind: tuple[str, int] | None = None) -> None:
        time.sleep(0.2)  # a kill between a commit to the lake and the ledger's note of it leaves the most to find out
        note(self, entries, behind)

    Ledger.append = note_late  # type: ignore[method-assign]
    while True:
        with suppress(Exception):  # the server is down
            made.refresh()
            done.value += 1  # type: ignore[attr-defined]


def _held(source: Followed) -> dict[str, list[str | None]]:
    """By key, the names that the lake holds one after another; None where the row is gone."""
    return {
        key: [
            None if operation == "delete" else row["design_name"]
            for operation, row in zip(each.operations, each.rows, strict=True)
        ]
        for (key, _), each in source.versions("design").items()
        if int(str(key)) >= 100
    }


def _committed(source: Followed) -> dict[str, list[str | None]]:
    """The same as the triggers noted it: what is as it was before is no version, and a row that never was is none."""
    found: dict[str, list[str | None]] = {}
    for key, name in source.ask(LAST_OF_EACH_TRANSACTION):
        names = found.setdefault(str(key), [])
        if (names[-1] if names else None) != name:
            names.append(name)
    return {key: names for key, names in found.items() if names}


@pytest.mark.parametrize(
    ("kills", "crashes"), [(2, 1), pytest.param(6, 2, marks=pytest.mark.thorough)], ids=["a few", "many"]
)
def test_killed_refreshes_and_a_crashed_server_lose_and_double_nothing(
    server: EmbeddedServer, tmp_path: Path, kills: int, crashes: int
) -> None:
    """Events of one position lost on a restart (debezium#7531), a slot ahead of what was written (PostHog#64719)."""
    url, chance = PostgresServer(server).database("crashes"), random.Random(7)
    with followed(url, tmp_path / "lake") as source:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(NOTES.encode())
        over = threading.Event()
        writers = [threading.Thread(target=_write, args=(url, seed, over)) for seed in range(WRITERS)]
        for writer in writers:
            writer.start()
        try:
            for number in range(kills):
                forks = context()
                done = forks.Value("i", 0)
                arguments = (url, tmp_path / "lake", source.first_day, done)
                process = forks.Process(target=_refresh_for_ever, args=arguments, daemon=True)
                process.start()
                deadline = time.monotonic() + 60
                while not done.value:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                time.sleep(chance.random())
                process.kill()
                process.join()
                if number % (kills // crashes) == 0:
                    source.log.close()
                    power_cut(server.folder)
                    server.start()
        finally:
            over.set()
            for writer in writers:
                writer.join()
        source.refresh()
        committed = _committed(source)
        assert sum(map(len, committed.values())) > 20 * kills
        assert _held(source) == committed
        assert source.is_on
        assert source.missed() == 0
