"""The log is followed: every committed version, in order, exactly once, whatever happens in between.

Faults that users of other tools met, and the test that would fail if we had them, here or where a file is named:

| fault | test |
|---|---|
| a peek without an end (dlt#702) | source/test_log.py: a_peek_must_have_an_end |
| a slot that stands still (PostHog#91635), or moves too far (firezone#14213) | what_tells_nothing_of_ours |
| forgotten in the middle of a transaction (PostHog#64719) | source/test_log.py: a_peek_has_whole_transactions |
| events of one position lost on restart (debezium#7531) | a_crash_before_the_source_was_told_to_forget |
| positions of changes taken for their order (materialize#5262) | the_lake_holds_just_the_versions |
| a slot made anew (debezium#3970), one that is lost for good (PostHog#63133) | where_the_log_is_lost |
| large values as NULL (ingestr#805), a TRUNCATE that vanishes (rivet#286) | a_mutant_is_noticed |
| a TRUNCATE that blocks for ever (etl#99) | most_of_a_table_is_not_deleted_without_consent |
| a publication that came after the slot, or was edited (zalando#2085) | where_the_log_is_lost |
| a table that is not attached (spice#11289), partitions (etl#410) | a_table_of_which_the_log_does_not_tell_all |
| a snapshot and a slot of two moments (synchdb#256), a log ahead of snapshots (go-pq-cdc#176) | what_a_snapshot_hides |
| a transaction larger than memory (airbyte#20873) | source/test_log.py: a_large_transaction_comes_in_batches |
| a slot that is in use (xtdb#5486) | source/test_log.py: who_comes_while_another_reads |
| forgetting backwards (PostHog#68542) | source/test_log.py: two_that_forget_are_of_one_mind |
| no slot while a transaction is open (electric#4515) | source/test_log.py: a_transaction_that_stays_open |
| no slot while all are taken | source/test_log.py: when_all_slots_are_taken |
| columns that change without a word (spice#10969) | a_table_whose_columns_change |
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from totesys_assets import engine
from totesys_assets.capture import dead_letters, difference, following, log_parts, log_statements, logged
from totesys_assets.capture import journal as journal_module
from totesys_assets.capture.comparison import Comparison
from totesys_assets.capture.dead_letters import open_dead_letters
from totesys_assets.capture.difference import Captured, capture
from totesys_assets.capture.following import begin
from totesys_assets.capture.how_far import how_far
from totesys_assets.capture.journal import POSITION, Journal, kept_percent
from totesys_assets.capture.journaled import newest_changes
from totesys_assets.capture.ledger import LAST, Entry, Ledger
from totesys_assets.capture.log_lines import Behind
from totesys_assets.capture.log_notes import read_note
from totesys_assets.capture.log_piece import Piece
from totesys_assets.capture.log_versions import LogVersions
from totesys_assets.capture.lost_ledger import missing_entries
from totesys_assets.capture.missed import Missed
from totesys_assets.capture.pruning import prune
from totesys_assets.capture.stretches import Stretch, stretches
from totesys_assets.days import DayRange
from totesys_assets.errors import LakeFailed, MassDeletion, PlatformError, StaleSnapshot
from totesys_assets.lake import commit as commit_module
from totesys_assets.lake.commit import append
from totesys_assets.lake.marks import mark
from totesys_assets.lake.tables import INGESTION, JOURNAL, Lake
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.source import rules
from totesys_assets.source.interface import SourceSnapshot
from totesys_assets.source.totesys import Totesys
from totesys_assets.source.totesys.log import Log
from totesys_assets.source.totesys.snapshot import Snapshot
from totesys_assets_tests.conftest import PostgresServer
from totesys_assets_tests.harness.followed import Followed, followed
from totesys_assets_tests.harness.servers import LOGICAL, MachineServer, running
from totesys_assets_tests.harness.source import COLUMNS
from totesys_assets_tests.harness.writers import KINDS, Scribe, Writer

_LARGE = "x" * 9_000


both_servers = pytest.mark.parametrize("server", ["embedded", "installed"], indirect=True)


def with_servers(name: str, cases: Collection[object]) -> pytest.MarkDecorator:
    """Each case with the embedded server, and every second one with the other; the rest of these is thorough."""
    tried = [pytest.param(case, "embedded") for case in cases]
    tried += [
        pytest.param(case, "installed", marks=[pytest.mark.thorough] * (number % 2))
        for number, case in enumerate(cases)
    ]
    return pytest.mark.parametrize((name, "server"), tried, indirect=["server"])


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, scratch: Path) -> Iterator[EmbeddedServer]:
    """The embedded server, or the one that the machine has, which is of an older PostgreSQL."""
    name = getattr(request, "param", "embedded")
    made = (EmbeddedServer if name == "embedded" else MachineServer)(scratch / f"followed_{name}", LOGICAL)
    with running(made):
        yield made


@pytest.fixture
def source(server: EmbeddedServer, tmp_path: Path) -> Iterator[Followed]:
    postgres = PostgresServer(server)
    url = postgres.database("followed")
    try:
        with followed(url, tmp_path / "lake") as made:
            yield made
    finally:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        postgres.drop("followed")


def rename(design: int, name: str) -> str:
    return f"UPDATE design SET design_name = '{name}' WHERE design_id = {design}"


def new_transaction(number: int, day: date) -> str:
    return (
        f"INSERT INTO transaction SELECT {number}, transaction_type, NULL, NULL, '{day}', '{day}' "
        "FROM transaction LIMIT 1"
    )


def names(source: Followed, design: int = 1) -> list[str | None]:
    return [row["design_name"] for row in source.versions("design")[str(design), "*"].rows]


def in_small_parts(patch: pytest.MonkeyPatch) -> None:
    """What the log says of rows is compared a few rows at a time, as what is large is."""
    patch.setattr(log_parts, "PART_ROWS", 2)


# Every version


@with_servers("seed", [1])
def test_the_lake_holds_just_the_versions_that_were_committed(
    source: Followed, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hold_just_the_versions(source, seed, 60, monkeypatch)


@pytest.mark.thorough
@both_servers
@pytest.mark.parametrize("seed", range(2, 20))
def test_the_lake_holds_just_the_versions_of_long_histories(
    source: Followed, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hold_just_the_versions(source, seed, 300, monkeypatch)


def _hold_just_the_versions(source: Followed, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2 == 0:
        in_small_parts(monkeypatch)
    chance = random.Random(seed)
    scribe, writers = Scribe(source.first_day), [Writer(source, careful=each == 0) for each in range(3)]
    for _ in range(steps):
        _step(source, chance, scribe, chance.choice(writers))
    for writer in writers:
        writer.end("COMMIT")
        writer.close()
    source.refresh()
    assert source.is_on
    assert source.differing() == []
    assert source.letters_differing() == set()
    by_log = [each for name in COLUMNS for row in source.versions(name).values() for each in row.positions if each]
    assert len(by_log) > 10
    assert source.missed() == 0


def _step(source: Followed, chance: random.Random, scribe: Scribe, writer: Writer) -> None:
    def truncate(*, refill: bool) -> None:
        if not writer.in_transaction:
            kept = "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM payment WHERE payment_id % 2 = 0"
            back = "INSERT INTO payment SELECT * FROM kept"
            writer.run(f"BEGIN; {kept}; TRUNCATE payment; {back}; COMMIT" if refill else "TRUNCATE payment")

    a, b, c = (chance.randrange(1000) for _ in range(3))
    steps: list[tuple[float, Callable[[], object]]] = [
        (0.12, lambda: writer.begin(chance.choice(["READ COMMITTED", "REPEATABLE READ"]))),
        (0.18, lambda: writer.end(chance.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))),
        (0.06, lambda: writer.savepoint(chance.choice(["SAVEPOINT", "RELEASE", "ROLLBACK TO"]))),
        (
            0.06,
            lambda: writer.run(f"UPDATE design SET file_location = '{_LARGE}{b % 3}' WHERE design_id % 3 = {c % 3}"),
        ),
        (0.01, lambda: truncate(refill=True)),
        (0.01, lambda: truncate(refill=False)),
        (0.07, source.refresh),
        (0.02, source.missed),
        (0.47, lambda: scribe.write(writer, chance.choice(list(KINDS)), a, b, c)),
    ]
    chance.choices([step for _, step in steps], [weight for weight, _ in steps])[0]()


def test_a_thousand_updates_of_one_row_are_a_thousand_versions_in_order(source: Followed) -> None:
    with psycopg.connect(source.source_url, autocommit=True) as connection:
        for number in range(1000):
            connection.execute(rename(1, f"name {number}").encode())
    done = source.refresh()["design"]
    assert done.total("updated") == 1000
    assert names(source)[1:] == [f"name {number}" for number in range(1000)]
    moments = source.versions("design")["1", "*"].moments
    assert moments == sorted(set(moments))


def test_more_changes_than_are_read_at_once_are_all_taken(source: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next statement of a session of DuckDB ends a result that is being read, without a word."""
    monkeypatch.setattr(engine, "BATCH_ROWS", 2048)
    with psycopg.connect(source.source_url) as connection:
        connection.execute(
            "INSERT INTO design SELECT n, '2024-01-01', 'new', 'l', 'f', '2024-01-01' "
            "FROM generate_series(1000, 5999) AS n"
        )
        connection.execute("UPDATE design SET design_name = 'newer' WHERE design_id = 5999")
    with psycopg.connect(source.source_url) as connection:
        connection.execute("UPDATE design SET design_name = 'newest' WHERE design_id >= 1000")
    source.refresh()
    source.wrote()
    held = [each for (key, _), each in source.versions("design").items() if int(str(key)) >= 1000]
    assert len(held) == 5000
    assert all(each.operations == ["insert", "update"] for each in held)
    assert source.missed() == 0


def test_rows_that_change_their_keys_or_go_all_at_once_are_taken_in_parts(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_parts(monkeypatch)
    with psycopg.connect(source.source_url) as connection:
        connection.execute(
            f"INSERT INTO design SELECT n, '2024-01-01', 'new', '{_LARGE}', 'f', '2024-01-01' "
            "FROM generate_series(100, 109) AS n"
        )
        connection.execute("UPDATE payment SET payment_amount = 'NaN' WHERE payment_id % 2 = 0")
    source.wrote()
    source.refresh()
    source.run(
        "UPDATE design SET design_id = design_id + 5 WHERE design_id = 109",
        "UPDATE design SET design_id = 300 - design_id, design_name = 'turned' WHERE design_id BETWEEN 106 AND 108",
        "BEGIN; CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM payment; TRUNCATE payment; "
        "INSERT INTO payment SELECT * FROM kept WHERE payment_id % 3 <> 1; COMMIT",
    )
    source.refresh()
    assert source.is_on
    assert source.differing() == []
    assert source.letters_differing() == set()
    assert source.missed() == 0


def test_a_row_that_gets_the_key_that_another_had_is_not_taken_for_that_one(source: Followed) -> None:
    large, other = "x" * 9_000, "y" * 9_000
    source.run(f"INSERT INTO design VALUES (100, '2024-01-01', 'first', '{large}', 'f', '2024-01-01')")
    source.refresh()
    source.run(
        "UPDATE design SET design_id = 101 WHERE design_id = 100",
        f"INSERT INTO design VALUES (100, '2024-01-01', 'second', '{other}', 'f', '2024-01-01')",
        "UPDATE design SET design_name = 'moved' WHERE design_id = 101",
        "UPDATE design SET design_id = 102 WHERE design_id = 101",
        "UPDATE design SET design_id = 101 WHERE design_id = 100",
        "UPDATE design SET design_name = 'changed' WHERE design_id IN (101, 102)",
    )
    source.refresh()
    assert source.differing() == []
    assert source.missed() == 0


def test_a_table_of_which_the_log_has_old_rows_as_a_whole_is_followed(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_AGAIN_SECONDS", 0)
    source.run("ALTER TABLE design REPLICA IDENTITY FULL")
    source.refresh()
    source.refresh()
    assert source.is_on
    source.run(
        f"INSERT INTO design VALUES (99, '2024-01-01', 'new', '{_LARGE}', 'f', '2024-01-01')",
        rename(99, "a"),
        "UPDATE design SET design_id = 100, design_name = 'b' WHERE design_id = 99",
        rename(100, "c"),
        "DELETE FROM design WHERE design_id = 100",
    )
    source.refresh()
    assert source.differing() == []
    assert source.missed() == 0


@both_servers
def test_a_transaction_is_of_one_moment_in_all_tables(source: Followed) -> None:
    source.run(
        f"BEGIN; {rename(1, 'a')}; UPDATE sales_order SET units_sold = 7; UPDATE payment SET paid = NOT paid; COMMIT",
        rename(1, "b"),
    )
    source.refresh()
    moments = {
        row.moments[-1]
        for name in ("sales_order", "payment")
        for row in source.versions(name).values()
        if row.positions[-1]
    }
    (moment,) = moments
    assert source.versions("design")["1", "*"].moments[1] == moment


def test_what_a_snapshot_hides_is_left_to_the_next(source: Followed) -> None:
    """A transaction is in the log before it can be seen, for as long as a standby does not confirm it."""
    with psycopg.connect(source.source_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while source.ask("SHOW synchronous_standby_names") != [("nobody",)]:
            assert time.monotonic() < deadline
        waiting = psycopg.connect(source.source_url, autocommit=True)
        pid = waiting.info.backend_pid
        thread = threading.Thread(target=lambda: waiting.execute(rename(1, "waits").encode()))
        thread.start()
        try:
            seen = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
            while connection.execute(seen, [pid]).fetchone() != (1,):
                assert thread.is_alive()
            connection.execute("SET synchronous_commit = local")
            connection.execute("UPDATE currency SET currency_code = 'CHF' WHERE currency_id = 2")
            source.refresh()
            assert source.versions("currency")["2", "*"].rows[-1]["currency_code"] == "CHF"
            assert "waits" not in names(source)
            assert source.missed() == 0
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
            thread.join()
            waiting.close()
    source.wrote()
    source.refresh()
    assert source.differing() == []
    assert names(source)[1:] == ["waits"]


def test_what_a_snapshot_hid_is_taken_though_nothing_was_committed_since(source: Followed) -> None:
    source.run(rename(1, "a"))
    with source.totesys.snapshot() as snapshot:
        source.run(rename(1, "b"))
        source.capture(snapshot, "design")
    assert names(source)[1:] == ["a"]
    source.refresh()
    assert names(source)[1:] == ["a", "b"]
    assert "design" not in source.refresh()


# What goes wrong


def test_a_crash_after_the_versions_were_committed_loses_and_doubles_nothing(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "a"), rename(1, "b"))
    killed_in(source, Ledger, "append")
    source.run(rename(1, "c"), rename(1, "d"))
    source.refresh()
    assert source.differing() == []
    source.run(rename(1, "e"))
    source.refresh()
    assert source.differing() == []
    assert source.missed() == 0


MORE_DESIGNS = "INSERT INTO design SELECT n, '2024-01-01', 'n', 'l', 'f', '2024-01-01' FROM generate_series(2, 3) AS n"


def test_a_crash_after_the_versions_were_committed_keeps_what_the_snapshot_did_not_show(source: Followed) -> None:
    """What was committed between the snapshot and the reading of the log is for the next to take, and nothing else."""
    source.run(MORE_DESIGNS, rename(1, "a"), rename(2, "a"))
    with source.totesys.snapshot() as snapshot:
        source.run(rename(1, "b"), rename(3, "a"))
        killed_in(source, Ledger, "append", lambda: source.capture(snapshot, "design"))
    assert names(source)[1:] == ["a"]
    source.run(rename(1, "c"), rename(2, "b"))
    source.refresh()
    assert source.differing() == []
    assert source.missed() == 0


def test_a_crash_after_the_versions_of_a_new_day_were_committed_loses_nothing(source: Followed) -> None:
    day = source.first_day + timedelta(days=30)
    source.run(new_transaction(99, day))
    killed_in(source, Ledger, "append")
    source.run(
        *(f"UPDATE transaction SET last_updated = '{day}'::date + {n} WHERE transaction_id = 99" for n in (1, 2))
    )
    source.refresh()
    assert source.differing() == []
    assert source.missed() == 0


def test_a_new_day_that_a_comparison_was_killed_over_and_whose_rows_are_gone_is_emptied(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = source.first_day + timedelta(days=30)
    source.run(new_transaction(99, day))
    with monkeypatch.context() as patch:
        patch.setattr(difference, "follow", lambda *_: None)
        killed_in(source, Ledger, "append")
    source.run("DELETE FROM transaction WHERE transaction_id = 99")
    source.refresh()
    assert source.versions("transaction")["99", str(day)].operations == ["insert", "delete"]
    assert source.missed() == 0


@pytest.mark.parametrize("name", ["design", "sales_order"])
def test_a_table_of_the_lake_that_was_removed_and_begun_anew_is_captured_anew(source: Followed, name: str) -> None:
    before = len(source.versions(name))
    shutil.rmtree(Path(source.lake.uri, INGESTION, name))
    source.lake.find_versions(source.totesys.tables[name])
    source.refresh()
    assert len(source.versions(name)) == before > 0
    assert name not in source.refresh()
    assert source.missed() == 0


@pytest.mark.parametrize("was_broken", [False, True])
def test_a_crash_before_the_dead_letters_makes_no_version_that_was_none(source: Followed, was_broken: bool) -> None:
    """Large values that the log leaves out are those of the letter, which did not come, or is an old one."""
    begun, then = ("infinity", "2024-02-02") if was_broken else ("2024-01-01", "infinity")
    first, second = "x" * 9000, "y" * 9000
    source.run(
        f"INSERT INTO design VALUES (99, '2024-01-01', 'n', '{first}', 'f', '{begun}')",
        "INSERT INTO design VALUES (98, '2024-01-01', 'n', 'l', 'f', '2024-01-01')",
    )
    source.refresh()
    source.run(
        f"UPDATE design SET file_location = '{second}', last_updated = '{then}' WHERE design_id = 99", rename(98, "a")
    )
    killed_in(source, dead_letters, "keep")
    source.run("UPDATE design SET last_updated = '2024-05-05' WHERE design_id = 99")
    source.refresh()
    assert source.differing() == []
    assert source.missed() == 0


def only_letters(source: Followed) -> None:
    """A row is broken, mended and broken again, with another large value."""
    source.run(
        "UPDATE design SET last_updated = 'infinity' WHERE design_id = 99",
        "UPDATE design SET last_updated = '2024-01-01' WHERE design_id = 99",
        f"UPDATE design SET last_updated = 'infinity', file_location = '{'y' * 9000}' WHERE design_id = 99",
    )


LARGE_ROW = f"INSERT INTO design VALUES (99, '2024-01-01', 'n', '{'x' * 9000}', 'f', '2024-01-01')"


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_crash_after_dead_letters_alone_makes_no_version_that_was_none(source: Followed, is_noted: bool) -> None:
    source.run(LARGE_ROW)
    if is_noted:
        source.refresh()
    else:
        killed_in(source, Ledger, "append")
    only_letters(source)
    killed_in(source, Ledger, "append")
    source.refresh()
    assert source.differing() == []
    assert source.letters_differing() == set()
    assert source.missed() == 0


def test_dead_letters_that_another_has_kept_and_not_noted_yet_are_not_taken_for_older_ones(source: Followed) -> None:
    source.run(LARGE_ROW)
    source.refresh()
    only_letters(source)
    note = Ledger.append

    def note_late(self: Ledger, entries: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "append", note)
            source.refresh()
        note(self, entries)

    with source.totesys.snapshot() as snapshot, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "append", note_late)
        source.capture(snapshot, "design")
    source.refresh()
    assert source.differing() == []


@pytest.mark.parametrize("written", ["INSERT INTO design VALUES (99, '2024-01-01', 'n', 'l', 'f', 'infinity')", ""])
def test_a_crash_after_dead_letters_alone_leaves_the_right_number_of_rows(source: Followed, written: str) -> None:
    if not written:
        source.run("INSERT INTO design VALUES (99, '2024-01-01', 'n', 'l', 'f', 'infinity')")
        source.refresh()
    source.run(written or "DELETE FROM design WHERE design_id = 99")
    killed_in(source, Ledger, "append")
    source.refresh()
    [(rows,)] = source.ask("SELECT count(*) FROM design")
    assert Ledger(source.lake).newest()["ingestion/design"]["*"].rows == rows
    assert source.letters_differing() == set()


def test_a_capture_of_other_days_after_a_crash_notes_no_number_of_rows_that_is_wrong(source: Followed) -> None:
    day, table = source.first_day + timedelta(days=30), source.totesys.tables["transaction"]
    source.run(new_transaction(90, day))
    source.refresh()
    source.run(new_transaction(91, day), new_transaction(92, day))
    killed_in(source, Ledger, "append")
    other = DayRange(source.first_day, source.first_day)
    with source.totesys.snapshot() as snapshot:
        capture(snapshot, source.lake, table, all_days=source.days, days=other, run_id="a run", accept_deletions=True)
    source.refresh()
    assert Ledger(source.lake).newest()["ingestion/transaction"][str(day)].rows == 3
    assert source.differing() == []
    assert source.missed() == 0


def test_what_a_crash_after_a_rewrite_left_to_be_compared_was_not_missed_by_the_log(source: Followed) -> None:
    source.run(rename(1, "a"), "ALTER TABLE design ALTER design_name TYPE text USING design_name || '!'")
    killed_in(source, difference, "_compare")
    assert source.refresh()["design"].total("missed") == 0


def test_a_table_of_which_the_ledger_lost_all_is_not_followed(source: Followed) -> None:
    source.run("DELETE FROM payment", "DELETE FROM transaction")
    source.refresh()
    table = source.totesys.tables["transaction"]
    source.run(f"INSERT INTO transaction SELECT 99, 'SALE', NULL, NULL, '{source.first_day}', '{source.first_day}'")
    source.refresh()
    shutil.rmtree(Path(source.lake.uri, "ledger"))
    newest, held = Ledger(source.lake).newest(), source.lake.find(INGESTION, table.name)
    missing = missing_entries(source.lake, table, held, newest)
    assert {each.state for each in missing.values()} == {"empty", "unknown"}
    with source.totesys.snapshot() as snapshot:
        reached = following.reach(source.lake, snapshot, table)
        arguments = (snapshot, source.lake, table, source.days, reached, newest)
        assert logged.prepared(*arguments, missing, held) is None
        captured = missing | {
            "2024-01-01": Entry("ingestion/transaction", "2024-01-01", "empty", 0, datetime.now(UTC), "a")
        }
        assert logged.prepared(*arguments, captured, held) is not None


def test_a_crash_of_an_older_version_which_does_not_say_what_it_left_out_is_compared(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "a"))
    with source.totesys.snapshot() as snapshot:
        source.run(rename(1, "z"))
        source.capture(snapshot, "design")  # by this version, which says that it leaves out "z"
    source.run(rename(1, "d"))
    monkeypatch.setattr(logged, "said", lambda *_: {})
    with source.totesys.snapshot() as snapshot:
        source.run(rename(1, "b"))
        killed_in(source, Ledger, "append", lambda: source.capture(snapshot, "design"))
    source.run(rename(1, "c"))
    source.refresh()
    assert names(source)[1:] == ["a", "z", "d", "c"]
    assert source.missed() == 0


def test_what_a_crash_left_out_is_compared_once_the_journal_has_lost_it(source: Followed) -> None:
    design = source.totesys.tables["design"]
    source.run(rename(1, "a"))
    with source.totesys.snapshot() as snapshot:
        source.run(rename(1, "b"))
        killed_in(source, Ledger, "append", lambda: source.capture(snapshot, "design"))
    with source.totesys.snapshot() as snapshot:
        reached, held = following.reach(source.lake, snapshot, design), source.lake.find(INGESTION, "design")
        assert reached is not None
        found = following.behind(reached, held, design, {}, 0)
        assert found is not None
        (left_out,) = found[0].also
        assert following.behind(replace(reached, kept_from=left_out + 1), held, design, {}, 0) is None


def test_a_row_that_came_and_went_before_a_crash_is_asked_for(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = "INSERT INTO design VALUES (99, '2024-01-01', 'n', 'l', 'f', '2024-01-01')"
    source.run(insert, "DELETE FROM design WHERE design_id = 99")
    before = Ledger(source.lake).newest()["ingestion/design"]["*"]
    killed_in(source, Ledger, "append")
    for expected in (True, False):
        assert ("design" in source.refresh()) == expected
    noted = Ledger(source.lake).newest()["ingestion/design"]["*"]
    assert noted.state != before.state
    assert noted.rows == before.rows
    assert source.differing() == []
    assert source.missed() == 0


def test_a_crash_before_the_source_was_told_to_forget_doubles_nothing(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "a"))
    killed_in(source, Log, "forget")
    source.run(rename(1, "b"))
    source.refresh()
    assert source.is_on
    assert names(source)[1:] == ["a", "b"]


def test_what_comes_again_and_is_not_what_came_is_another_history(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "a"))
    killed_in(source, Log, "forget")
    journal = source.lake.open(JOURNAL)
    assert journal is not None
    journal.update({"xid": "xid + 1"})
    source.run(rename(1, "b"))
    source.refresh()
    assert "not the one that was read" in source.why_not
    assert names(source)[-1] == "b"
    assert source.missed() == 0


def test_a_crash_before_the_versions_were_committed_loses_nothing(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "a"), rename(1, "b"))
    killed_in(source, logged, "append")
    source.run(rename(1, "c"))
    source.refresh()
    assert names(source)[1:] == ["a", "b", "c"]


def _crash(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def killed_in(source: Followed, holder: object, name: str, act: Callable[[], object] | None = None) -> None:
    """A refresh, or another act, that ends where it would call this function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holder, name, _crash)
        with pytest.raises(KeyboardInterrupt):
            (act or source.refresh)()


LOSSES = {
    "its slot is gone": "SELECT pg_drop_replication_slot('{slot}')",
    "somebody else read the slot": "SELECT count(*) FROM pg_logical_slot_get_binary_changes('{slot}', NULL, NULL, "
    "'proto_version', '1', 'publication_names', 'totesys_log')",
    "what is published was changed": "ALTER PUBLICATION totesys_log DROP TABLE currency; "
    "ALTER PUBLICATION totesys_log ADD TABLE currency",
    "totesys log check": "ALTER SCHEMA totesys_log RENAME TO elsewhere",
}


@with_servers("why", LOSSES)
def test_where_the_log_is_lost_tables_are_compared_until_it_begins_again(
    source: Followed, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "told"))
    source.refresh()
    source.run(rename(1, "not seen"), rename(1, "a"))
    source.run(*LOSSES[why].format(slot=source.log.slot).split("; "))
    source.run(rename(1, "b"))
    source.refresh()
    assert not source.is_on
    assert why in source.why_not
    assert names(source)[1:] == ["told", "b"]
    if "RENAME" in LOSSES[why]:
        source.run("ALTER SCHEMA elsewhere RENAME TO totesys_log")
    monkeypatch.setattr(following, "_AGAIN_SECONDS", 0)
    source.refresh()
    source.refresh()
    source.run(rename(1, "c"), rename(1, "d"))
    source.refresh()
    assert names(source)[1:] == ["told", "b", "c", "d"]
    assert source.missed() == 0


def test_of_two_that_begin_at_once_one_does_and_no_other_drops_its_slot(
    source: Followed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(following, "_AGAIN_SECONDS", 0)
    journal = Journal(source.lake, "public", COLUMNS)
    journal.end(source.log, journal.stretch)
    other = Followed(source.source_url, tmp_path / "lake", source.first_day)
    opened = other.lake.open_plain

    def overtaken(*arguments: Any, **options: Any) -> Any:
        found = opened(*arguments, **options)
        source.refresh()
        return found

    monkeypatch.setattr(other.lake, "open_plain", overtaken)
    begin(other.lake, other.log)
    other.log.close()
    source.run(rename(1, "a"), rename(1, "b"))
    source.refresh()
    assert source.is_on
    assert names(source)[1:] == ["a", "b"]


def test_two_that_give_up_at_once_do(source: Followed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = Followed(source.source_url, tmp_path / "lake", source.first_day)
    other.log.wanted = source.log.wanted = False
    finish = Journal.end

    def overtaken(journal: Journal, log: Log, stretch: int) -> None:
        monkeypatch.setattr(Journal, "end", finish)
        commit = Journal._commit

        def late(*arguments: Any) -> None:
            monkeypatch.setattr(Journal, "_commit", commit)
            begin(other.lake, other.log)
            commit(*arguments)

        monkeypatch.setattr(Journal, "_commit", late)
        finish(journal, log, stretch)

    monkeypatch.setattr(Journal, "end", overtaken)
    begin(source.lake, source.log)
    other.log.close()
    assert not source.is_on
    assert "switched off" in source.why_not


def test_a_log_that_is_not_wanted_any_more_is_given_up(source: Followed) -> None:
    slots = "SELECT count(*) FROM pg_replication_slots"
    assert source.ask(slots) == [(1,)]
    source.log.wanted = False
    source.run(rename(1, "a"), rename(1, "b"))
    source.refresh()
    assert source.ask(slots) == [(0,)]
    assert names(source)[1:] == ["b"]
    assert source.missed() == 0
    source.log.wanted = True
    source.refresh()
    assert source.is_on, "nothing stands in the way, and nobody waits a minute"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keep_bytes": None}, "sets no limit any more"),
        ({"keep_bytes": 1}, "it is given up before"),
        ({"flushed": 1}, "was set back to an earlier state"),
        ({"flushed": None}, "is a standby"),
        ({"server": "another"}, "it is another server"),
    ],
)
def test_a_log_that_would_harm_or_mislead_is_given_up(
    source: Followed, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    source.run(rename(1, "a"), rename(1, "b"))
    state = source.log.state()
    with monkeypatch.context() as patch:
        patch.setattr(source.log, "state", lambda: replace(state, **change))
        source.refresh()
    assert words in source.why_not
    assert source.ask("SELECT count(*) FROM pg_replication_slots") == [(0,)]
    assert names(source)[1:] == ["b"]


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("ALTER PUBLICATION totesys_log DROP TABLE design", "ALTER PUBLICATION totesys_log ADD TABLE design"),
        pytest.param(
            "ALTER TABLE design ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE design DISABLE ROW LEVEL SECURITY",
            marks=pytest.mark.thorough,
        ),
        ("CREATE TABLE part () INHERITS (design)", "DROP TABLE part"),
        pytest.param(
            "ALTER PUBLICATION totesys_log SET (publish = 'insert')",
            "ALTER PUBLICATION totesys_log SET (publish = '{}')",
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["not published", "secured", "with parts", "of inserts"],
)
def test_a_table_of_which_the_log_does_not_tell_all_is_compared(
    source: Followed, change: str, back: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is not in the publication is none that does not change: spice#11289, zalando#2085."""
    monkeypatch.setattr(following, "_AGAIN_SECONDS", 0)
    source.run(change)
    source.refresh()
    source.refresh()
    assert source.is_on
    source.run(rename(1, "a"), rename(1, "b"), "UPDATE currency SET currency_code = 'CHF'")
    source.refresh()
    assert names(source)[1:] == ["b"]
    assert all(each.positions[-1] for each in source.versions("currency").values()) == ("(publish" not in change)
    source.run(back.format("insert, update, delete, truncate"), rename(1, "c"))
    source.refresh()
    source.refresh()
    source.run(rename(1, "d"), rename(1, "e"))
    source.refresh()
    assert names(source)[1:] == ["b", "c", "d", "e"]
    assert source.missed() == 0


def test_a_table_that_is_written_anew_without_a_word_in_the_log_is_compared_too(source: Followed) -> None:
    source.run(rename(1, "a"), rename(1, "b"))
    source.run("ALTER TABLE design ALTER design_name TYPE text USING design_name || '!'")
    source.refresh()
    assert names(source)[1:] == ["a", "b", "b!"]
    source.run(rename(1, "d"), "VACUUM FULL design", rename(1, "e"))
    source.refresh()
    source.run(rename(1, "f"), rename(1, "g"))
    assert source.refresh()["design"].total("missed") == 0
    assert names(source)[4:] == ["d", "e", "f", "g"]
    assert source.missed() == 0


def test_what_tells_nothing_of_ours_is_forgotten_too(source: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no further than to where it was read."""
    monkeypatch.setattr(journal_module, "_IDLE_BYTES", 50_000)
    before = source.log.state().slot
    source.run("CREATE TABLE other AS SELECT repeat('x', 100) FROM generate_series(1, 2000)")
    source.refresh()
    state, position = source.log.state(), Journal(source.lake, "public", COLUMNS).position(source.log)
    assert before is not None
    assert state.slot is not None
    assert state.slot.confirmed == position
    assert (before.confirmed or 0) + 50_000 < (position or 0) <= (state.flushed or 0)
    source.run(rename(1, "a"), rename(1, "b"))
    source.refresh()
    assert names(source)[1:] == ["a", "b"]


@pytest.mark.parametrize("by", [Comparison, logged.Logged])
def test_a_capture_does_not_note_as_the_last_commit_what_another_was_killed_over_meanwhile(
    source: Followed, monkeypatch: pytest.MonkeyPatch, by: type[Comparison | logged.Logged]
) -> None:
    """Where the log is lost before its day is emptied, nothing else tells that anything is held of that."""
    table, commit, done = source.totesys.tables["sales_order"], by.commit, list[bool]()
    ((began,),) = source.ask("SELECT created_at FROM sales_order WHERE sales_order_id = 1")
    empty = DayRange.of((began.date() + timedelta(days=9)).isoformat())

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def another_is_killed(self: Any, *arguments: Any) -> None:
        if not done:
            done.append(True)
            other = Totesys(source.source_url, allow_superuser=True)  # it does not follow the log
            with other.snapshot() as its_own, pytest.MonkeyPatch.context() as patch:
                patch.setattr(Ledger, "append", killed)
                with pytest.raises(KeyboardInterrupt):
                    backfill(its_own, empty)
        commit(self, *arguments)

    def backfill(snapshot: SourceSnapshot, days: DayRange, *, changes_only: bool = False) -> Captured:
        lake, all_days = Lake(source.lake.uri), source.days
        return capture(snapshot, lake, table, all_days=all_days, days=days, run_id="a run", changes_only=changes_only)

    to_come = [
        "CREATE TEMP TABLE made AS SELECT * FROM sales_order WHERE sales_order_id = 1; "
        "UPDATE made SET sales_order_id = 99, created_at = created_at + interval '9 days'; "
        "INSERT INTO sales_order SELECT * FROM made"
    ]
    last, by_log = Ledger(source.lake).newest()[LAST][table.name], by is logged.Logged
    source.run("UPDATE sales_order SET units_sold = 7 WHERE sales_order_id = 1", *(to_come if by_log else ()))
    monkeypatch.setattr(by, "commit", another_is_killed)
    with source.totesys.snapshot() as snapshot:
        snapshot.require(table)
        source.run(*(() if by_log else to_come))
        with pytest.raises(StaleSnapshot) if by_log else nullcontext():
            backfill(snapshot, DayRange.of(began.date().isoformat()), changes_only=by_log)
    newest = Ledger(source.lake).newest()
    assert newest[LAST][table.name] == last
    missing = missing_entries(source.lake, table, source.lake.find(INGESTION, table.name), newest)
    assert [*missing] == empty.keys


def test_a_row_that_came_and_went_on_an_empty_day_is_asked_for(source: Followed) -> None:
    day = source.first_day + timedelta(days=30)
    source.run(
        new_transaction(99, day),
        "DELETE FROM transaction WHERE transaction_id = 99",
    )
    for expected in (2, None):
        done = source.refresh().get("transaction")
        assert (done and done.versions) == expected
    assert source.versions("transaction")["99", str(day)].operations == ["insert", "delete"]
    assert source.missed() == 0


def test_a_table_whose_columns_change_is_compared_and_followed_again(source: Followed) -> None:
    source.run(rename(1, "a"))
    source.refresh()
    source.run("ALTER TABLE design ADD COLUMN note text DEFAULT 'x'", rename(1, "b"), rename(2, "c"))
    source.refresh()
    source.run(rename(1, "d"), rename(1, "e"))
    source.refresh()
    assert names(source)[1:] == ["a", "b", "d", "e"]
    assert source.missed() == 0


def test_most_of_a_table_is_not_deleted_without_consent_and_the_slot_goes_on(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(
        "INSERT INTO design SELECT 1000 + n, now(), 'many', '/', 'f', now() FROM generate_series(1, 50) AS n",
    )
    source.refresh()
    source.run("DELETE FROM design WHERE design_id >= 1000", rename(1, "a"), rename(1, "b"))
    with monkeypatch.context() as patch:
        patch.setattr("totesys_assets_tests.harness.followed.capture", _without_consent)
        with pytest.raises(MassDeletion):
            source.refresh()
    journal = Journal(source.lake, "public", COLUMNS)
    position, slot = journal.position(source.log), source.log.state().slot
    assert slot is not None
    assert slot.confirmed == position
    source.refresh()
    assert source.differing() == []
    assert source.missed() == 0


def _without_consent(*arguments: object, **named: object) -> object:
    from totesys_assets.capture.difference import capture

    return capture(*arguments, **{**named, "accept_deletions": False})  # type: ignore[arg-type]


def test_what_was_taken_is_not_hidden_when_ids_have_gone_half_the_way_round(source: Followed) -> None:
    assert Behind(1, 50, 100, also=(7,), hidden=(5, 7, 60)).left_out == (7, 60)
    design, now = source.totesys.tables["design"], datetime.now(UTC)
    [first, _] = following.followed_entries(design, following.Reach(1, 10, (7,), as_of=now), "a", {}, 1)
    newest = {first.asset: {first.partition: first}}
    for stretch, expected in ((1, (7, 50)), (2, (5, 7, 50))):
        reached = following.Reach(stretch, 100, (5, 7, 50), as_of=now)
        entry, *_ = following.followed_entries(design, reached, "b", newest, 1)
        found = how_far({entry.asset: {entry.partition: entry}}, design)
        assert found is not None
        assert found.also == expected


# The journal's age


def test_what_the_journal_no_longer_has_is_compared(source: Followed) -> None:
    source.run(rename(1, "a"), rename(1, "b"))
    with source.totesys.snapshot() as snapshot:
        assert following.reach(source.lake, snapshot, source.totesys.tables["design"]) is not None
    assert prune(source.lake, source.days.last) == 0
    assert prune(source.lake, source.days.last + timedelta(days=20)) >= 2
    source.refresh()
    assert names(source)[1:] == ["b"]
    source.run(rename(1, "c"), rename(1, "d"))
    source.refresh()
    assert names(source)[1:] == ["b", "c", "d"]


def test_what_was_taken_from_the_journal_is_not_missed_when_it_goes(source: Followed) -> None:
    """Also by a table that has had no change for long."""
    source.run(rename(1, "a"), "UPDATE currency SET currency_code = 'CHF' WHERE currency_id = 2")
    source.refresh()
    whole = seen(source)
    source.run(rename(1, "b"))
    source.refresh()
    assert prune(source.lake, source.days.last + timedelta(days=20)) == 3
    codes = [f"UPDATE currency SET currency_code = '{each}' WHERE currency_id = 2" for each in ("AAA", "BBB")]
    source.run(rename(1, "c"), rename(1, "d"), *codes)
    source.refresh()
    assert names(source)[1:] == ["a", "b", "c", "d"]
    assert source.differing() == []
    assert seen(source) == whole
    assert seen(source, "currency") == whole


def test_a_lake_that_lost_its_journal_begins_anew(source: Followed) -> None:
    import shutil

    shutil.rmtree(Path(source.lake.location(JOURNAL)))
    source.run(rename(1, "a"))
    source.refresh()
    source.run(rename(1, "b"), rename(1, "c"))
    source.refresh()
    assert names(source)[-3:] == ["a", "b", "c"]


@both_servers
def test_a_session_that_ends_in_the_middle_of_a_peek_is_no_gap(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Log.batches

    def ends(log: Log, until: int, most: int) -> Iterator[Any]:
        monkeypatch.setattr(Log, "batches", batches)
        for each in batches(log, until, most):
            source.ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%totesys_log.peek(%'"
                " AND pid <> pg_backend_pid()"
            )
            yield each

    source.run(rename(1, "a"), rename(1, "b"))
    monkeypatch.setattr(Log, "batches", ends)
    source.refresh()
    assert source.is_on
    assert names(source)[-2:] == ["a", "b"]


def test_a_lake_that_cannot_be_written_is_no_gap(source: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    source.run(rename(1, "a"), rename(1, "b"))
    with monkeypatch.context() as patch:
        patch.setattr(commit_module, "write_deltalake", _full)
        with pytest.raises(LakeFailed, match="No space left"):
            source.refresh()
    source.refresh()
    assert source.is_on
    assert not source.why_not
    assert names(source)[-2:] == ["a", "b"]


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_who_is_killed_while_giving_up_leaves_no_word_of_a_loss_that_was_none(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "a"), rename(1, "b"))
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "drain", _slow)
        patch.setattr(Journal, "end", _crash)
        with pytest.raises(KeyboardInterrupt):
            source.refresh()
    assert source.why_not == "The server did not answer in time."
    source.refresh()
    assert source.is_on
    assert source.why_not == ""
    assert names(source)[-2:] == ["a", "b"]


def test_who_gives_up_late_does_not_end_what_another_has_begun(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = iter([False, True])
    began = Journal(source.lake, "public", COLUMNS).stretch

    def late(journal: Journal, _: Log) -> None:
        if next(tries):
            with Log(source.source_url) as other:
                journal.end(other, began)
                journal.begin(other)
        raise PlatformError("The server did not answer in time.")

    source.run(rename(1, "a"))
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "drain", late)
        source.refresh()
    assert source.is_on
    assert source.why_not == ""
    Journal(source.lake, "public", COLUMNS).end(source.log, began)
    assert source.is_on
    source.refresh()
    source.run(rename(1, "b"), rename(1, "c"))
    source.refresh()
    assert source.is_on
    assert names(source)[-3:] == ["a", "b", "c"]


def _slow(*_: object) -> None:
    raise PlatformError("The server did not answer in time.")


def test_a_server_that_is_not_there_is_no_gap(source: Followed) -> None:
    other = Log("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(PlatformError):
        Journal(source.lake, "public", COLUMNS).drain(other)
    assert source.is_on


def test_whoever_finds_nothing_left_to_read_goes_as_far_as_who_read_it(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run("UPDATE sales_order SET units_sold = 2000")
    other, batches = Log(source.source_url, wanted=True), Log.batches
    quicker = [Journal(source.lake, "public", COLUMNS)]

    def another_reads_first(self: Log, until: int, most: int) -> Any:
        if quicker:
            assert quicker.pop().drain(other).changes == 1
        return batches(self, until, most)

    monkeypatch.setattr(Log, "batches", another_reads_first)
    journal = Journal(Lake(source.lake.uri), "public", COLUMNS)
    done = journal.drain(source.log)
    other.close()
    assert (quicker, done.changes) == ([], 0)
    held = journal.find()
    assert held is not None
    assert done.position == mark(held, POSITION)
    assert newest_changes(held, journal.stretch, done.position)["sales_order"] < done.position


# What is told of it


def test_that_more_than_half_of_the_log_is_kept_is_noted_and_that_it_is_over(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "a"))
    source.refresh()
    assert kept_percent(source.lake) == 0
    state = source.log.state()
    assert state.slot is not None
    for retained, noted in ((70, 70), (60, 70), (10, 10)):
        slot = replace(state.slot, restart=0, retained=retained)
        with monkeypatch.context() as patch:
            now = replace(state, slot=slot, keep_bytes=100)
            patch.setattr(source.log, "state", lambda now=now: now)
            source.refresh()
        assert source.is_on
        assert kept_percent(source.lake) == noted


def test_a_loss_is_noted_with_its_reason_and_what_was_seen_before(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "a"))
    source.refresh()
    [seen] = source.versions("design")["1", "*"].moments[1:]
    monkeypatch.setattr(following, "_AGAIN_SECONDS", 0)
    source.run("ALTER SCHEMA totesys_log RENAME TO elsewhere")
    source.refresh()
    first = read_note(source.lake)
    source.refresh()  # another try
    assert first.since is None
    assert first.loss is not None
    assert first.loss.seen_until == seen
    again = read_note(source.lake)
    assert again.loss is not None
    assert replace(again.loss, again="") == first.loss
    source.run("ALTER SCHEMA elsewhere RENAME TO totesys_log", "ALTER FUNCTION totesys_log.begin RENAME TO start")
    source.refresh()
    other = read_note(source.lake).loss
    assert other is not None
    assert (other.at, other.reason, other.seen_until) == (first.loss.at, first.loss.reason, seen)
    assert "and it cannot begin again: " in other.why
    source.run("ALTER FUNCTION totesys_log.start RENAME TO begin")
    source.refresh()
    note = read_note(source.lake)
    assert note.since is not None
    assert note.since > first.loss.at
    assert note.loss == other


def test_what_the_journal_has_and_no_table_was_not_seen(source: Followed) -> None:
    source.run(rename(1, "a"))
    source.refresh()
    [stretch] = seen(source)
    source.run(rename(1, "b"), rename(1, "c"))
    with source.totesys.snapshot() as snapshot:
        assert following.reach(source.lake, snapshot, source.totesys.tables["design"]) is not None
    source.run("ALTER SCHEMA totesys_log RENAME TO elsewhere")
    source.refresh()
    source.run("ALTER SCHEMA elsewhere RENAME TO totesys_log")
    _, followed, compared = source.versions("design")["1", "*"].moments
    loss = read_note(source.lake).loss
    assert loss is not None
    assert loss.seen_until is not None
    assert followed <= loss.seen_until < compared
    assert seen(source) == [Stretch(stretch.since, loss.seen_until, loss.reason)]


def test_what_the_log_did_not_tell_of_is_counted_until_a_comparison_finds_nothing(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Piece, "rows", lambda self, *_: iter(()))  # a log that tells of nothing
        patch.setattr("totesys_assets.capture.journal._IDLE_BYTES", 0)
        source.run(rename(1, "a"))
        source.refresh()
    assert names(source)[1:] == []
    source.refresh(full=True)
    assert names(source)[1:] == ["a"]
    source.run(rename(1, "b"))
    source.refresh()
    assert names(source)[1:] == ["a", "b"]
    found = Missed.of(Ledger(source.lake).newest(), "design")
    assert found is not None
    assert (found.versions, found.by_log) == (1, True)
    source.refresh(full=True)
    assert Missed.of(Ledger(source.lake).newest(), "design") is None


# Mutants: what would be wrong, and is seen


def large_value_that_stays(source: Followed) -> None:
    source.run(f"UPDATE design SET file_location = '{_LARGE}'", rename(1, "a"))
    source.refresh()
    source.run(rename(1, "b"), rename(1, "c"))


def truncated_and_filled_again(source: Followed) -> None:
    source.run("TRUNCATE payment", "INSERT INTO payment_type VALUES (99, 'SALES_REFUND', now(), now())")


def written_and_not_forgotten(source: Followed) -> None:
    """A refresh that is killed between the two, whichever comes first."""
    source.run(rename(1, "a"), rename(1, "b"))
    killed_in(source, journal_module, "append")
    source.run(rename(1, "c"))


def committed_and_not_noted(source: Followed) -> None:
    source.run(rename(1, "a"), rename(1, "b"))
    killed_in(source, Ledger, "append")
    source.run(rename(1, "c"))


def one_piece_after_another(source: Followed) -> None:
    source.run(rename(1, "a"))
    source.refresh()
    source.run(rename(1, "b"), rename(1, "c"))


def written_anew(source: Followed) -> None:
    source.run(rename(1, "a"))
    source.refresh()
    source.run(rename(1, "b"), "ALTER TABLE design ALTER design_name TYPE text USING design_name || '!'")


def rows_without_their_mark(patch: pytest.MonkeyPatch) -> None:
    def unmarked(held: Any, batches: Any, schema: Any, writer: str, *_: object, **__: object) -> None:
        append(held, batches, schema, writer)

    patch.setattr(logged, "append", unmarked)


def position_ahead_of_the_disk(patch: pytest.MonkeyPatch) -> None:
    ends = journal_module._ends

    def ahead(held: Any, state: Any) -> tuple[int, int, int]:
        position, confirmed, flushed = ends(held, state)
        return position, confirmed, flushed + 100_000

    patch.setattr(journal_module, "_ends", ahead)


def files_not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Snapshot, "file", lambda *_: 0)


def unchanged_as_null(patch: pytest.MonkeyPatch) -> None:
    def fill(made: Any) -> None:
        made._connection.execute("CREATE TEMP VIEW filled AS SELECT * FROM lines")

    patch.setattr(LogVersions, "_fill", fill)


def truncate_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(log_statements, "TRUNCATED", log_statements.TRUNCATED + " WHERE false")
    # Nor is the file looked at, for which the table would be compared.
    patch.setattr(Snapshot, "file", lambda *_: 0)


def advanced_before_it_is_written(patch: pytest.MonkeyPatch) -> None:
    piece, commit = Journal._piece, Journal._commit

    def forgotten_first(journal: Journal, held: Any, log: Log, *rest: Any) -> Any:
        def forget_and_commit(_: Journal, held: Any, batches: Any, marks: dict[str, int]) -> None:
            if POSITION in marks:
                log.forget(marks[POSITION])
            commit(journal, held, batches, marks)

        patch.setattr(Journal, "_commit", forget_and_commit)
        return piece(journal, held, log, *rest)

    patch.setattr(Journal, "_piece", forgotten_first)


@pytest.mark.parametrize(
    ("mutate", "scenario"),
    [
        (unchanged_as_null, large_value_that_stays),
        pytest.param(truncate_ignored, truncated_and_filled_again, marks=pytest.mark.thorough),
        (advanced_before_it_is_written, written_and_not_forgotten),
        pytest.param(rows_without_their_mark, committed_and_not_noted, marks=pytest.mark.thorough),
        (position_ahead_of_the_disk, one_piece_after_another),
        pytest.param(files_not_compared, written_anew, marks=pytest.mark.thorough),
    ],
)
def test_a_mutant_is_noticed(
    source: Followed,
    mutate: Callable[[pytest.MonkeyPatch], None],
    scenario: Callable[[Followed], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in others: unchanged large values as NULL (ingestr#805), TRUNCATE that vanishes (rivet#286), a slot ahead
    (etl#935), and a position that the disk has not reached (firezone#14213).
    """
    with monkeypatch.context() as patch:
        mutate(patch)
        scenario(source)
        source.refresh()
    assert source.differing() != []


@pytest.mark.thorough
@pytest.mark.parametrize(
    "scenario",
    [
        large_value_that_stays,
        truncated_and_filled_again,
        written_and_not_forgotten,
        committed_and_not_noted,
        one_piece_after_another,
        written_anew,
    ],
)
def test_without_a_mutant_nothing_is(source: Followed, scenario: Callable[[Followed], None]) -> None:
    scenario(source)
    source.refresh()
    assert source.differing() == []
    assert source.is_on


# Which stretches of history are whole


def seen(source: Followed, table: str = "design") -> list[Stretch]:
    return stretches(Ledger(source.lake).newest(), table)


def test_a_stretch_begins_with_the_first_comparison_and_goes_on(source: Followed) -> None:
    before = seen(source)
    source.run(rename(1, "a"))
    source.refresh()
    source.refresh(full=True)
    assert seen(source) == before
    [stretch] = before
    assert (stretch.until, stretch.reason) == (None, None)
    assert stretch.covers(source.versions("design")["1", "*"].moments[1])
    assert not stretch.covers(stretch.since - timedelta(microseconds=1))


def test_a_stretch_ends_with_the_last_capture_before_the_log_was_lost_and_another_begins(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(rename(1, "a"))
    source.refresh()
    source.run("ALTER SCHEMA totesys_log RENAME TO elsewhere", rename(1, "not seen"), rename(1, "b"))
    source.refresh()
    [first] = seen(source)
    assert first.until is not None
    _, followed, compared = source.versions("design")["1", "*"].moments
    assert followed <= first.until < compared
    assert "totesys log check" in str(first.reason)
    monkeypatch.setattr(following, "_AGAIN_SECONDS", 0)
    source.run("ALTER SCHEMA elsewhere RENAME TO totesys_log", rename(1, "c"))
    source.refresh()
    source.run(rename(1, "d"), rename(1, "e"))
    source.refresh()
    again, second = seen(source)
    assert again == first
    moments = source.versions("design")["1", "*"].moments
    assert [second.covers(each) for each in moments[-3:]] == [True, True, True]
    assert not second.covers(compared)
    assert second.until is None


def test_a_stretch_in_which_nothing_was_captured_is_left_out_once_another_began(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    [begun] = seen(source)
    source.run("ALTER SCHEMA totesys_log RENAME TO elsewhere", rename(1, "not seen"))
    source.refresh()
    [lost] = seen(source)
    assert (lost.since, lost.until) == (begun.since, begun.since)
    assert "totesys log check" in str(lost.reason)
    monkeypatch.setattr(following, "_AGAIN_SECONDS", 0)
    source.run("ALTER SCHEMA elsewhere RENAME TO totesys_log", rename(1, "b"))
    source.refresh()
    [again] = seen(source)
    assert (again.since > begun.since, again.until) == (True, None)


def test_a_table_that_is_compared_between_ends_its_own_stretch_only(source: Followed) -> None:
    source.run(rename(1, "a"))
    source.refresh()
    source.run("ALTER TABLE design ADD COLUMN note text DEFAULT 'x'", rename(1, "b"))
    source.refresh()
    first, second = seen(source)
    assert first.until is not None
    assert first.until < second.since
    assert "its columns had changed" in str(first.reason)
    assert len(seen(source, "currency")) == 1


def test_what_the_log_did_not_tell_of_ends_the_stretch(source: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Piece, "rows", lambda self, *_: iter(()))
        patch.setattr("totesys_assets.capture.journal._IDLE_BYTES", 0)
        source.run(rename(1, "a"))
        source.refresh()
    source.refresh(full=True)
    first, second = seen(source)
    assert first.reason == "a comparison found versions that the log had not told of"
    assert second.until is None


# Large values


@pytest.mark.parametrize(
    ("rows", "size", "by_log"),
    [
        (1, 30_000_000, True),
        pytest.param(1, 30_000_000, False, marks=pytest.mark.thorough),
        (2_200, 100_000, True),  # DuckDB works on 2,048 rows at a time
        pytest.param(2_200, 100_000, False, marks=pytest.mark.thorough),
        *(
            pytest.param(*case, by_log, marks=pytest.mark.thorough)
            for case in [(4_000, 16_384), (4_000, 100_000), (8_000, 60_000)]
            for by_log in (True, False)
        ),
        (1, 1_000_000, True),
        pytest.param(1, 1_000_000, False, marks=pytest.mark.thorough),
    ],
)
def test_rows_with_large_values_arrive_or_are_dead_letters_and_hold_up_nothing(
    source: Followed, rows: int, size: int, monkeypatch: pytest.MonkeyPatch, *, by_log: bool
) -> None:
    monkeypatch.setattr(rules, "_CRAMPED", set())
    source.log.wanted = by_log
    source.refresh()
    with psycopg.connect(source.source_url) as connection:
        connection.execute(
            f"INSERT INTO design SELECT n, '2024-01-01', 'new', left(repeat(md5(n::text), {size // 32 + 1}), {size}), "
            f"'f', '2024-01-01' FROM generate_series(100, {99 + rows}) AS n".encode()
        )
        connection.execute(rename(1, "a").encode())
    with suppress(StaleSnapshot):  # another snapshot, as a run takes
        source.refresh()
    source.refresh()
    is_long = rows * size > 100_000_000 or size > rules.MOST_BYTES
    letters = [each for each in open_dead_letters(source.lake).to_pylist() if each["table_name"] == "design"]
    assert {each["reason"] for each in letters} == ({rules.too_long("design")} if is_long else set())
    assert len(letters) == (rows if is_long else 0)
    assert all(len(each["raw"]) < 1_000 and f"... ({size} bytes)" in each["raw"] for each in letters)
    assert names(source)[-1] == "a"
    # What the log leaves out of a row is not to be had from its letter.
    source.run("UPDATE design SET design_name = 'newer' WHERE design_id >= 1")
    source.refresh()
    assert names(source)[-1] == "newer"
    source.run(f"UPDATE design SET file_location = '{_LARGE}' WHERE design_id = 100", rename(1, "b"))
    source.refresh()
    assert source.versions("design")["100", "*"].rows[-1]["file_location"] == _LARGE
    assert names(source)[-1] == "b"
    assert source.is_on == by_log
    assert source.missed() == 0


def test_a_value_that_was_left_out_is_not_taken_from_a_letter_that_was_shortened_whatever_else_it_broke(
    source: Followed,
) -> None:
    source.run("INSERT INTO design VALUES (99, '2024-01-01', 'new', 'l', 'f', '2024-01-01')")
    source.refresh()
    long = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 160000) AS n)"
    source.run(f"UPDATE design SET created_at = '10001-01-01', file_location = {long} WHERE design_id = 99")
    source.refresh()
    source.run("UPDATE design SET created_at = '2024-01-01' WHERE design_id = 99")
    source.refresh()
    assert [row["file_location"] for row in source.versions("design")["99", "*"].rows] == ["l"]
    assert source.missed() == 0


def test_a_value_that_was_left_out_is_not_taken_from_a_letter_with_bytes_that_are_no_text(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_AGAIN_SECONDS", 0)
    postgres = PostgresServer(server)
    with followed(postgres.database("ascii", encoding="SQL_ASCII"), tmp_path / "lake") as source:
        source.refresh()
        long = "(SELECT string_agg(md5(n::text), 'é') FROM generate_series(1, 400) AS n)"
        with psycopg.connect(source.source_url, autocommit=True, client_encoding="utf8") as connection:
            connection.execute("INSERT INTO design VALUES (99, '2024-01-01', 'new', 'l', 'f', '2024-01-01')")
            source.refresh()
            odd = "convert_from('\\x4de16c', 'SQL_ASCII')"
            update = f"UPDATE design SET design_name = {odd}, file_location = {long} WHERE design_id = 99"
            connection.execute(update.encode())
            source.refresh()  # it cannot be read from the log
            source.refresh()
            connection.execute(rename(99, "mended").encode())
            source.refresh()
        assert str(source.versions("design")["99", "*"].rows[-1]["file_location"]).count("é") == 399
        source.log.wanted = False
        source.refresh()
    postgres.drop("ascii")


def test_a_table_with_more_changes_of_long_text_than_the_memory_holds_is_compared(
    source: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_parts, "PART_ROWS", 4_000)
    monkeypatch.setattr(log_parts, "_MEMORY", "10MB")
    source.refresh()
    with psycopg.connect(source.source_url) as connection:
        connection.execute(
            "INSERT INTO design SELECT n, '2024-01-01', 'new', left(repeat(md5(n::text), 100), 3000), 'f', "
            "'2024-01-01' FROM generate_series(100, 5100) AS n"
        )
    source.refresh()
    held = [each for (key, _), each in source.versions("design").items() if int(str(key)) >= 100]
    assert len(held) == 5_001
    assert all(each.positions == [None] for each in held)
    assert source.is_on
    assert source.missed() == 0
