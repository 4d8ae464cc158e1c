"""The log of ToteSys through the door that source_log.sql makes: what a plain reader may, and what it may not."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
import psycopg.conninfo
import pytest
from psycopg import sql

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import ddl
from totesys_assets.errors import ConnectionFailed, LogBusy, LogGone, LogUnreadable, PlatformError
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.local.postgres_programs import binaries
from totesys_assets.source.totesys import log as module
from totesys_assets.source.totesys.log import Log, _rows, slot_name
from totesys_assets_tests.conftest import TRADE, PostgresServer
from totesys_assets_tests.harness.servers import HOSTILE, LOGICAL, MachineServer, Standby, running
from totesys_assets_tests.harness.sql_files import FILES, apply
from totesys_assets_tests.test_roles import IN_TOTESYS, SECRET, denied, execute, login

SLOT = slot_name("a lake")


@pytest.fixture(scope="module", params=["embedded", "installed"])
def server(request: pytest.FixtureRequest, scratch: Path) -> Iterator[EmbeddedServer]:
    """A server whose log may be followed, of both versions of PostgreSQL that a machine has."""
    made = EmbeddedServer if request.param == "embedded" else MachineServer
    # The limit may be changed while the server runs, unlike what is said where it is started.
    limit = "max_slot_wal_keep_size"
    settings = {name: value for name, value in LOGICAL.items() if name != limit}
    made_here = made(scratch / f"logical_{request.param}", settings)
    with running(made_here):
        execute(made_here.url("postgres"), f"ALTER SYSTEM SET {limit} = '{LOGICAL[limit]}'")
        execute(made_here.url("postgres"), "SELECT pg_reload_conf()")
        postgres = PostgresServer(made_here)
        with psycopg.connect(postgres.database("closed")) as connection:
            connection.execute(ddl("totesys.sql"))
            connection.execute(TRADE)
        apply("source_reader.sql", made_here.url("closed"))
        login(made_here.url("closed"), "totesys_reader")
        apply("source_log.sql", postgres.template("open", "closed"))
        yield made_here


@dataclass
class Source:
    """A database with ToteSys in it, its owner's login and the reader's, the door and the slots."""

    server: EmbeddedServer
    owner: str = field(repr=False)
    reader: str = field(repr=False)

    def log(self, slot: str = SLOT) -> Log:
        return Log(self.reader, slot)

    def reader_url(self) -> str:
        parts = psycopg.conninfo.conninfo_to_dict(self.reader)
        return f"postgresql://totesys_reader:{quote(SECRET)}@{parts['host']}:{parts['port']}/{parts['dbname']}"

    def run(self, statement: str) -> list[tuple[object, ...]]:
        return execute(self.owner, statement)

    def selects(self) -> bool:
        """Whether its version publishes some rows or columns of a table."""
        return self.run("SELECT current_setting('server_version_num')::int >= 150000") == [(True,)]

    def flushed(self) -> int:
        with self.log() as log:
            position = log.state().flushed
        assert position is not None
        return position


@pytest.fixture
def closed(server: EmbeddedServer) -> Iterator[Source]:
    """A ToteSys without the door."""
    with a_source(server, "closed") as made:
        yield made


@pytest.fixture
def source(server: EmbeddedServer) -> Iterator[Source]:
    """A ToteSys with the door."""
    with a_source(server, "open") as made:
        yield made


@contextmanager
def a_source(server: EmbeddedServer, template: str) -> Iterator[Source]:
    """A copy of one of the databases of ``server``. There is no slot afterwards."""
    postgres = PostgresServer(server)
    owner = postgres.template("followed", template)
    reader = psycopg.conninfo.make_conninfo(owner, user="totesys_reader", password=SECRET)
    yield Source(server, owner, reader)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        deadline = time.monotonic() + 30
        while connection.execute("SELECT 1 FROM pg_replication_slots WHERE active").fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        connection.execute("ALTER ROLE totesys_reader RESET ALL")
    postgres.drop("followed", "elsewhere")


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


def test_forgetting_may_take_as_long_as_reading(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    with source.log() as log:
        log.begin()
        source.run("CREATE TABLE other AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        until = source.flushed()
        monkeypatch.setattr(module, "_QUICK", "1ms")
        log.forget(until)


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


def test_a_session_that_was_ended_is_begun_anew(source: Source) -> None:
    with source.log() as log:
        log.begin()
        source.run("UPDATE design SET design_name = 'a'")
        until = source.flushed()
        assert kinds(log, until) == "BRUC"
        source.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'totesys_reader'")
        assert log.state().slot is not None
        assert kinds(log, until) == "BRUC"
        log.forget(until)


def test_a_peek_whose_session_ends_in_the_middle_is_an_error_and_the_next_one_is_whole(source: Source) -> None:
    rows = 5 * engine.BATCH_ROWS
    with source.log() as log:
        log.begin()
        source.run(
            "INSERT INTO department (department_id, department_name, last_updated) "
            f"SELECT number, 'x', now() FROM generate_series(1000, {999 + rows}) AS number"
        )
        until = source.flushed()
        batches = log.batches(until, 1)
        next(batches)
        source.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'totesys_reader'")
        with pytest.raises(PlatformError, match="The log of ToteSys could not be read"):
            list(batches)
        source.run("SELECT pg_sleep(0.2)")
        assert len(log.peek(until, 1)) == rows + 3


def test_a_slot_that_is_missing_or_lost_is_said_to_be_gone(source: Source) -> None:
    with source.log() as log:
        for act in (lambda: log.peek(1, 1), lambda: log.forget(1)):
            with pytest.raises(LogGone, match="does not exist"):
                act()
        log.begin()
        with changed(source, "max_slot_wal_keep_size", "1MB"):
            for _ in range(4):
                source.run("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))")
                source.run("SELECT pg_switch_wal()")
            source.run("CHECKPOINT")
        slot = log.state().slot
        assert slot is not None
        assert (slot.lost, slot.wal_status, slot.retained) == (True, "lost", None)
        for act in (lambda: log.peek(2**62, 1), lambda: log.forget(2**62)):
            with pytest.raises(LogGone):
                act()
        assert log.finish() is True


@contextmanager
def changed(source: Source, setting: str, value: str) -> Iterator[None]:
    """A setting of the server, for the block."""
    try:
        source.run(f"ALTER SYSTEM SET {setting} = '{value}'")
        _reload(source, setting)
        yield
    finally:
        source.run(f"ALTER SYSTEM SET {setting} = '{LOGICAL[setting]}'")
        _reload(source, setting)


def _reload(source: Source, setting: str) -> None:
    ((before,),) = source.run(f"SHOW {setting}")
    source.run("SELECT pg_reload_conf()")
    deadline = time.monotonic() + 10
    while source.run(f"SHOW {setting}") == [(before,)] and time.monotonic() < deadline:
        time.sleep(0.01)


# What values look like


def test_no_setting_of_a_login_colours_a_value(source: Source) -> None:
    with source.log() as log:
        log.begin()
        source.run("ALTER TABLE department ADD at timestamptz, ADD span interval, ADD part float8, ADD raw bytea")
        source.run(
            "UPDATE department SET at = '2024-02-03 04:05:06.789+00', span = '1 day 2 h', part = 0.1::float4, "
            "raw = '\\xc3', location = 'Orléans'"
        )
        until = source.flushed()
        plain = log.peek(until, 100).to_pylist()
        assert any(
            b"2024-02-03 04:05:06.789+00" in each and b"1 day 02:00:00" in each
            for each in map(bytes, filter(None, plain))
        )
        for name, value in HOSTILE.items():
            if name not in ("statement_timeout", "search_path"):
                source.run(f"ALTER ROLE totesys_reader SET {name} = '{value}'")
        source.run("ALTER ROLE totesys_reader SET search_path = nowhere")
        with source.log() as hostile:
            assert hostile.peek(until, 100).to_pylist() == plain
            assert hostile.state() == log.state()
            with psycopg.connect(source.reader) as connection:
                peek = f"SELECT totesys_log.peek('{SLOT}', '{until >> 32:X}/{until & 0xFFFFFFFF:X}', 100)"
                assert [row[0] for row in connection.execute(peek.encode())] == plain


def test_a_time_limit_for_transactions_does_not_end_a_peek(source: Source) -> None:
    ((is_known,),) = source.run("SELECT current_setting('transaction_timeout', true) IS NOT NULL")
    if not is_known:
        pytest.skip("PostgreSQL knows of it since 17")
    source.run("ALTER ROLE totesys_reader SET transaction_timeout = '300ms'")
    with source.log() as log:
        log.begin()
        source.run("UPDATE department SET location = 'Leeds'")
        batches = log.batches(source.flushed(), 100)
        assert len(next(batches)) > 2
        time.sleep(0.6)  # while it is written to the lake
        assert list(batches) == []
        assert _rows(log._open(), "SELECT pg_sleep(0.6)::text", "10s") == [("",)]


def test_text_is_utf_8_whatever_the_encoding_and_what_has_no_form_in_it_is_said(server: EmbeddedServer) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for encoding in ("latin1", "sql_ascii"):
            provider = " LOCALE_PROVIDER libc" if connection.info.server_version >= 150_000 else ""
            connection.execute(
                f"CREATE DATABASE in_{encoding} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
                f"{provider}".encode()
            )
    try:
        for encoding in ("latin1", "sql_ascii"):
            owner = server.url(f"in_{encoding}")
            with psycopg.connect(owner) as connection:
                connection.execute(ddl("totesys.sql"))
            apply("source_log.sql", owner, role="totesys")
            with Log(owner, SLOT) as log:
                log.begin()
                insert = "INSERT INTO department (department_name, last_updated) VALUES (convert_from({}, '{}'), now())"
                execute(owner, insert.format("'\\xc3a9'", "UTF8"))
                assert "é".encode() in b"".join(
                    bytes(each.as_py() or b"") for each in log.peek(log.state().flushed or 0, 10)
                )
                if encoding == "sql_ascii":
                    execute(owner, insert.format("'\\xe9'", "SQL_ASCII"))
                    with pytest.raises(LogUnreadable, match="invalid byte sequence"):
                        log.peek(log.state().flushed or 0, 10)
                log.finish()
    finally:
        PostgresServer(server).drop("in_latin1", "in_sql_ascii")


# What a plain reader may do, and what not


def test_a_plain_reader_gets_no_right_but_to_the_door(source: Source) -> None:
    with source.log() as log:
        log.begin()
    for statement in (
        "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')",
        "SELECT pg_create_physical_replication_slot('mine')",
        f"SELECT pg_logical_slot_peek_changes('{SLOT}', NULL, NULL)",
        f"SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_flush_lsn())",
        f"SELECT pg_drop_replication_slot('{SLOT}')",
        f"SELECT totesys_log.require('{SLOT}')",
        "SET ROLE totesys_log",
        "CREATE FUNCTION totesys_log.other() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION totesys_log.finish SECURITY INVOKER",
        "ALTER PUBLICATION totesys_log DROP TABLE address",
    ):
        denied(source.reader, statement, before="SET default_transaction_read_only = off; COMMIT; BEGIN READ WRITE")
    for replication in ("database", "true"):
        with pytest.raises(psycopg.OperationalError, match=r"WAL sender|walsender|pg_hba"):
            psycopg.connect(source.reader, replication=replication)


def test_who_was_not_let_in_is_told_so(source: Source) -> None:
    source.run("REVOKE ALL ON SCHEMA totesys_log FROM totesys_reader")
    with source.log() as log:
        assert log.state().door == "closed"
        for act in (log.begin, log.finish, lambda: log.peek(1, 1), lambda: log.forget(1)):
            with pytest.raises(PlatformError, match=r"permission denied for schema totesys_log\. `totesys log check`"):
                act()


def test_without_the_door_it_is_said_to_be_missing(closed: Source) -> None:
    with closed.log() as log:
        state = log.state()
        assert (state.door, state.publication, state.slot) == ("missing", None, None)
        for act in (log.begin, log.finish, lambda: log.peek(1, 1), lambda: log.forget(1)):
            with pytest.raises(PlatformError, match=r'schema "totesys_log" does not exist\. `totesys log check`'):
                act()


def test_the_door_knows_the_slots_of_platforms_by_their_names(source: Source) -> None:
    source.run("SELECT pg_create_logical_replication_slot('debezium', 'pgoutput')")
    names = [
        "debezium",
        "totesys_log_",
        "totesys_log_A",
        "totesys_log_a_b",
        "totesys_log_é",
        "totesys_log_a\n",
        "\ntotesys_log_a",
        "x') OR true --",
        "back\\slash",
        f"totesys_log_{'a' * 41}",
        f"totesys_log_{'a' * 100}",
        None,
    ]
    with psycopg.connect(source.reader, autocommit=True) as connection:
        for name in names:
            for call in ("begin(%s)", "peek(%s, '0/1', 1)", "forget(%s, '0/1')", "finish(%s)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is not of a platform"):
                    connection.execute(f"SELECT totesys_log.{call}".encode(), [name])
    assert source.run("SELECT slot_name FROM pg_replication_slots") == [("debezium",)]


@pytest.mark.parametrize("kind", ["plugin", "physical", "database"])
def test_a_slot_of_somebody_else_with_such_a_name_is_left_alone(source: Source, kind: str) -> None:
    if kind == "plugin":
        source.run(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'test_decoding')")
    elif kind == "physical":
        source.run(f"SELECT pg_create_physical_replication_slot('{SLOT}', true)")
    else:
        PostgresServer(source.server).database("elsewhere")
        elsewhere = source.server.url("elsewhere")
        execute(elsewhere, f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    with source.log() as log:
        slot = log.state().slot
        assert slot is not None
        assert not slot.ours
        for act in (log.begin, log.finish, lambda: log.peek(1, 1), lambda: log.forget(1)):
            with pytest.raises(PlatformError, match=f"slot {SLOT} is another's"):
                act()
        after = log.state().slot
        assert after is not None
        assert (after.restart, after.confirmed, after.plugin) == (slot.restart, slot.confirmed, slot.plugin)
    if kind == "database":
        execute(elsewhere, f"SELECT pg_drop_replication_slot('{SLOT}')")


def test_a_peek_must_have_an_end(source: Source) -> None:
    with source.log() as log:
        log.begin()
    for arguments in ("NULL, 1", "'0/1', NULL", "'0/1', 0", "'0/1', -1"):
        with psycopg.connect(source.reader) as connection, pytest.raises(psycopg.errors.InvalidParameterValue):
            connection.execute(f"SELECT totesys_log.peek('{SLOT}', {arguments})".encode())


# What keeps a log from beginning


def test_without_a_limit_to_what_is_kept_nothing_begins(source: Source) -> None:
    with changed(source, "max_slot_wal_keep_size", "-1"), source.log() as log:
        assert log.state().keep_bytes is None
        with pytest.raises(PlatformError, match="max_slot_wal_keep_size is -1, so that a slot could fill the disk"):
            log.begin()
        assert log.state().slot is None


def test_when_all_slots_are_taken_nothing_begins(source: Source) -> None:
    source.run("SELECT pg_create_physical_replication_slot('standby_' || number) FROM generate_series(1, 10) AS number")
    with source.log() as log:
        state = log.state()
        assert (state.slots_used, state.slots_allowed) == (10, 10)
        with pytest.raises(PlatformError, match="all replication slots are in use"):
            log.begin()


def test_no_login_takes_all_slots_there_are(source: Source) -> None:
    for lake in range(4):
        with source.log(slot_name(str(lake))) as log:
            log.begin()
            with pytest.raises(PlatformError, match="already exists"):
                log.begin()
            assert len(log.state().others) == lake
    with source.log() as log, pytest.raises(PlatformError, match="there are four slots of platforms already"):
        log.begin()


def test_a_transaction_that_stays_open_keeps_the_log_from_beginning(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BEGIN_TIMEOUT", "300ms")
    with psycopg.connect(source.owner) as connection, source.log() as log:
        connection.execute("UPDATE design SET design_name = 'open'")
        with pytest.raises(PlatformError, match="A transaction that stays open keeps the log from beginning: end it"):
            log.begin()
        assert log.state().slot is None
        connection.rollback()
        assert log.begin() > 0


def test_a_server_whose_log_is_not_logical_says_so(postgres_server: PostgresServer, trade_template: str) -> None:
    url = postgres_server.template("not_logical", trade_template)
    try:
        assert "is insufficient to publish logical changes" in apply_with_warnings(url, role="totesys")
        with Log(url, SLOT) as log:
            assert (log.state().wal_level, log.state().door) == ("replica", "open")
            with pytest.raises(PlatformError, match=r"max_slot_wal_keep_size is -1"):
                log.begin()
    finally:
        postgres_server.drop("not_logical")
        execute(postgres_server.database(), "DROP ROLE totesys_log")


def test_a_standby_is_not_followed(standby: tuple[EmbeddedServer, Standby]) -> None:
    primary, follower = standby
    primary.create_database("totesys")
    with psycopg.connect(primary.url("totesys")) as connection:
        connection.execute(ddl("totesys.sql"))
    apply_with_warnings(primary.url("totesys"), role="totesys")
    follower.catch_up()
    with Log(follower.url("totesys"), SLOT) as log:
        state = log.state()
        assert (state.standby, state.flushed, state.door, state.server.split("/")[1]) == (True, None, "open", "standby")
        with pytest.raises(PlatformError):
            log.begin()


def test_a_password_is_in_no_message(source: Source) -> None:
    wrong = psycopg.conninfo.make_conninfo(source.reader, password="a $ecret")
    with Log(wrong, SLOT) as log:
        assert "ecret" not in repr(log)
        for act in (log.state, lambda: log.peek(1, 1)):
            with pytest.raises(ConnectionFailed, match="TOTESYS_URL cannot be reached") as error:
                act()
            assert "ecret" not in str(error.value)


def test_it_works_behind_a_pooler_and_with_options(source: Source, pooler: Callable[..., list[str]]) -> None:
    urls = [pooler(source.reader_url())[0], f"{source.reader_url()}?options=-c%20statement_timeout%3D300ms"]
    for url in urls:
        with Log(url, SLOT) as log:
            log.begin()
            source.run("UPDATE design SET design_name = design_name || 'a'")
            until = source.flushed()
            assert kinds(log, until) == "BRUC"
            log.forget(until)
            assert kinds(log, until) == ""
            assert log.finish() is True


# What is published


@pytest.mark.parametrize(
    "change",
    [
        "ALTER PUBLICATION totesys_log DROP TABLE design; ALTER PUBLICATION totesys_log ADD TABLE design",
        "ALTER PUBLICATION totesys_log SET (publish = 'insert, update')",
        "ALTER PUBLICATION totesys_log SET TABLE design",
        "DROP PUBLICATION totesys_log; CREATE PUBLICATION totesys_log FOR ALL TABLES",
        "ALTER TABLE payment DROP CONSTRAINT payment_pkey, ADD PRIMARY KEY (payment_id, transaction_id)",
        "ALTER TABLE design REPLICA IDENTITY FULL",
        "ALTER TABLE design REPLICA IDENTITY NOTHING",
        "DROP PUBLICATION totesys_log",
    ],
)
def test_every_change_of_what_is_published_shows(source: Source, change: str) -> None:
    with source.log() as log:
        before = log.state()
        apply("source_log.sql", source.owner)
        source.run("ALTER TABLE department ADD note text; UPDATE design SET design_name = 'a'")
        source.run("REINDEX TABLE CONCURRENTLY design")
        assert log.state().publication == before.publication
        source.run(change)
        assert log.state().publication != before.publication


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        ("ALTER TABLE design REPLICA IDENTITY NOTHING", "has another replica identity"),
        ("ALTER TABLE payment DROP CONSTRAINT payment_pkey", "has no primary key"),
        (
            "ALTER TABLE payment DROP CONSTRAINT payment_pkey, ADD PRIMARY KEY (payment_id) DEFERRABLE",
            "has no primary key that can be",
        ),
        (
            "ALTER TABLE payment REPLICA IDENTITY FULL; ALTER TABLE payment DROP CONSTRAINT payment_pkey",
            "has no unique index on its key",
        ),
        (
            "ALTER TABLE payment DROP CONSTRAINT payment_pkey, ADD PRIMARY KEY (payment_id, created_at)",
            "has no unique index on its key",
        ),
        ("ALTER TABLE payment ENABLE ROW LEVEL SECURITY", "has row-level security"),
        ("ALTER PUBLICATION totesys_log DROP TABLE payment; ALTER TABLE payment SET UNLOGGED", "is not logged"),
        ("CREATE TABLE part () INHERITS (payment)", "has partitions or tables that inherit"),
        ("DROP TABLE payment; CREATE VIEW payment AS SELECT 1", "is no table"),
        ("ALTER PUBLICATION totesys_log SET TABLE payment WHERE (payment_id > 1)", "with a condition"),
        ("ALTER PUBLICATION totesys_log SET TABLE payment (payment_id)", "with some of its columns"),
    ],
)
def test_what_the_log_would_not_tell_of_a_table_is_said(source: Source, change: str, obstacle: str) -> None:
    if "(payment_id" in change.partition("SET TABLE")[2] and not source.selects():
        pytest.skip("this version publishes whole tables only")
    source.run(change)
    with source.log() as log:
        found = {name: each.obstacle for name, each in log.state().tables.items() if each.obstacle}
    assert [obstacle in each for each in found.values()] == [True]


def test_what_is_not_published_as_a_whole_is_by_the_next_run_of_the_file(source: Source) -> None:
    source.run("ALTER PUBLICATION totesys_log DROP TABLE payment")
    if source.selects():
        source.run("ALTER PUBLICATION totesys_log DROP TABLE staff")
        source.run("ALTER PUBLICATION totesys_log ADD TABLE staff (staff_id)")
    source.run("ALTER PUBLICATION totesys_log SET (publish = 'insert')")
    with source.log() as log:
        assert {name for name, each in log.state().tables.items() if not each.published} == {"payment"}
        assert not log.state().whole
        apply("source_log.sql", source.owner)
        assert [need for need in log.needs(log.state()) if not need.met and not need.advice] == []


def test_a_table_that_lost_its_key_is_taken_out_by_the_next_run_of_the_file(source: Source) -> None:
    source.run("ALTER TABLE payment DROP CONSTRAINT payment_pkey")
    source.run("ALTER TABLE staff ENABLE ROW LEVEL SECURITY")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        source.run("UPDATE payment SET paid = true")
    said = apply_with_warnings(source.owner)
    assert said.count("is left out of the publication") == 2
    source.run("UPDATE payment SET paid = true")
    with source.log() as log:
        assert {name for name, each in log.state().tables.items() if not each.published} == {"payment", "staff"}


def test_a_table_whose_changes_the_application_could_not_make_any_more_is_left_out(closed: Source) -> None:
    closed.run("ALTER TABLE payment DROP CONSTRAINT payment_pkey")
    closed.run("CREATE TABLE more () INHERITS (design)")
    closed.run("DROP TABLE staff CASCADE")
    closed.run("CREATE TABLE staff (staff_id int PRIMARY KEY) PARTITION BY RANGE (staff_id)")
    said = apply_with_warnings(closed.owner)
    assert "table payment has no primary key that is its replica identity and is left out" in said
    for name in ("design", "staff"):
        assert f"table {name} is no single table and is left out" in said
    closed.run("UPDATE payment SET paid = true; DELETE FROM payment WHERE payment_id = 2")
    with closed.log() as log:
        assert {name for name, each in log.state().tables.items() if not each.published} == {
            "payment",
            "design",
            "staff",
        }


def apply_with_warnings(url: str, **variables: str) -> str:
    """Run source_log.sql, which says something; returns that."""
    options = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
    command = [str(binaries() / "psql"), "-X", "-q", *options, "-d", url, "-f", str(FILES / "source_log.sql")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    return ended.stderr


# Making the door


def test_the_file_takes_other_names_and_may_be_run_again(closed: Source) -> None:
    closed.run('ALTER SCHEMA public RENAME TO "The \\office"')
    role = f'The "role" {os.urandom(4).hex()}'
    for file in ("source_reader.sql", "source_log.sql", "source_log.sql"):
        apply(file, closed.owner, role=role, schema="The \\office")
    try:
        with Log(login(closed.owner, role), SLOT, schema="The \\office") as log:
            state = log.state()
            assert (state.door, set(state.tables)) == ("open", set(IN_TOTESYS))
            assert log.begin() > 0
            assert log.finish() is True
    finally:
        name = sql.Identifier(role)
        execute(closed.owner, sql.SQL("DROP OWNED BY {}").format(name))
        execute(closed.owner, sql.SQL("DROP ROLE {}").format(name))


def test_a_schema_of_somebody_else_is_not_made_a_door(closed: Source) -> None:
    closed.run("CREATE SCHEMA totesys_log")
    command = [str(binaries() / "psql"), "-X", "-q", "-d", closed.owner, "-f", str(FILES / "source_log.sql")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "the schema totesys_log is somebody else's: drop it first" in ended.stderr
    with closed.log() as log:
        assert (log.state().door, log.state().publication) == ("missing", None)


def test_whoever_owns_the_tables_makes_the_door_without_being_a_superuser(closed: Source) -> None:
    ((version,),) = closed.run("SELECT current_setting('server_version_num')::int")
    admin = f"admin_{os.urandom(4).hex()}"
    if int(str(version)) >= 160_000:
        closed.run(f"CREATE ROLE {admin} LOGIN CREATEROLE REPLICATION")
        closed.run("ALTER ROLE totesys_log RENAME TO totesys_log_before")
    else:  # only a superuser makes a role with REPLICATION
        closed.run(f"CREATE ROLE {admin} LOGIN CREATEROLE")
    try:
        closed.run(f"GRANT CREATE ON DATABASE followed TO {admin}")
        for name in IN_TOTESYS:
            closed.run(f"ALTER TABLE {name} OWNER TO {admin}")
        url = login(closed.owner, admin)
        apply("source_log.sql", url)
        apply("source_log.sql", url)
        with closed.log() as log:
            assert log.begin() > 0
            assert log.finish() is True
        (found,) = closed.run(f"SELECT pg_has_role('{admin}', 'totesys_log', 'USAGE')")
        assert found == (False,)
    finally:
        closed.run("DROP SCHEMA IF EXISTS totesys_log CASCADE")
        closed.run(f"REASSIGN OWNED BY {admin} TO totesys")
        if int(str(version)) >= 160_000:
            closed.run("DROP ROLE IF EXISTS totesys_log")
            closed.run("ALTER ROLE totesys_log_before RENAME TO totesys_log")
        closed.run(f"DROP OWNED BY {admin}")
        closed.run(f"DROP ROLE {admin}")


def test_where_a_role_stands_for_the_right_the_owner_of_the_door_is_a_member_of_it(closed: Source) -> None:
    """As on RDS, where no role may have REPLICATION."""
    closed.run("ALTER ROLE totesys_log RENAME TO totesys_log_before")
    closed.run("CREATE ROLE rds_replication; CREATE ROLE rds_superuser")
    try:
        apply("source_log.sql", closed.owner)
        apply("source_log.sql", closed.owner)
        right = "SELECT rolreplication, pg_has_role('totesys_log', 'rds_replication', 'MEMBER') FROM pg_roles"
        assert closed.run(f"{right} WHERE rolname = 'totesys_log'") == [(False, True)]
        with closed.log() as log:
            assert (log.state().provider, log.state().door) == ("rds", "open")
    finally:
        closed.run("DROP SCHEMA IF EXISTS totesys_log CASCADE")
        closed.run("DROP ROLE IF EXISTS totesys_log, rds_replication, rds_superuser")
        closed.run("ALTER ROLE totesys_log_before RENAME TO totesys_log")
