"""pgoutput's messages, as real servers write them: what is decoded is what was written."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.source.totesys.pgoutput import (
    BEGIN,
    COMMIT,
    DELETE,
    INSERT,
    RELATION,
    TRUNCATE,
    UPDATE,
    Messages,
    Relation,
    Rows,
    UnknownFormat,
)
from totesys_assets_tests.harness.servers import QUICK

_LARGE = "x" * 50 + "é" * 30_000  # pressed into a table of its own
_TEXTS = ["", " ", "'", '"', "\\", "NULL", "é漢😀", "a\tb\nc\rd\x01", "\u200b\ufeff", "x" * 3_000, None]
_NUMBERS = ["0", "-0.01", "12345678.90", "NaN", None]
_MOMENTS = [
    "2024-02-29 23:59:59.999",
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00 BC",
    "294276-12-31 23:59:59.999",
    "0001-01-01 00:00:00",
]


@dataclass
class Logged:
    """A database whose log is read."""

    url: str

    def run(self, *statements: str) -> None:
        """Run each statement in a transaction of its own."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement).fetchall()

    def begin(self) -> None:
        """Publish all tables, and keep the log from here on."""
        self.run(
            "CREATE PUBLICATION everything FOR ALL TABLES",
            "SELECT pg_create_logical_replication_slot('kept', 'pgoutput')",
        )

    def messages(self) -> Messages:
        rows = self.query(
            "SELECT data FROM pg_logical_slot_peek_binary_changes('kept', NULL, NULL, 'proto_version', '1', "
            "'publication_names', 'everything')"
        )
        return Messages(pa.array([bytes(data) for (data,) in rows], pa.binary()))


@pytest.fixture(scope="module")
def logging_server(scratch: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(scratch / "logging", {**QUICK, "synchronous_commit": "on", "wal_level": "logical"})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def logged(logging_server: EmbeddedServer) -> Iterator[Logged]:
    logging_server.create_database("logged")
    made = Logged(logging_server.url("logged"))
    yield made
    with psycopg.connect(logging_server.url("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        connection.execute("DROP DATABASE logged WITH (FORCE)")


def described(messages: Messages) -> list[Relation]:
    return [Relation.read(messages.message(int(each))) for each in messages.where(RELATION)]


def rows(messages: Messages, *kinds: int) -> Rows:
    """The rows of the one table that there is."""
    (relation,) = described(messages)
    return Messages(messages.take(messages.where(*(kinds or (INSERT, UPDATE, DELETE))))).rows(relation)


def values(found: Rows, column: str) -> list[Any]:
    listed: list[Any] = found.values[column].to_pylist()
    return listed


def test_values_arrive_as_the_server_writes_them(logged: Logged) -> None:
    logged.run("CREATE TABLE t (id serial PRIMARY KEY, words text, amount numeric(10,2), at timestamp(3), yes boolean)")
    logged.begin()
    count = max(len(_TEXTS), len(_NUMBERS), len(_MOMENTS))
    with psycopg.connect(logged.url) as connection:
        for number in range(count):
            connection.execute(
                "INSERT INTO t (words, amount, at, yes) VALUES (%s, %s, %s, %s)",
                [each[number % len(each)] for each in (_TEXTS, _NUMBERS, _MOMENTS, (True, False, None))],
            )
    found = rows(logged.messages())
    for column in ("id", "words", "amount", "at", "yes"):
        as_text = (
            f"CASE WHEN {column} THEN 't' WHEN NOT {column} THEN 'f' END" if column == "yes" else f"{column}::text"
        )
        expected = [each for (each,) in logged.query(f"SELECT {as_text} FROM t ORDER BY t.id")]
        assert values(found, column) == expected
    assert not found.unchanged
    assert not found.old_keys


def test_transactions_have_their_ids_times_and_places(logged: Logged) -> None:
    logged.run("CREATE TABLE t (id int PRIMARY KEY)")
    logged.begin()
    before = logged.query("SELECT clock_timestamp(), pg_current_wal_insert_lsn() - '0/0'")[0]
    written = []
    with psycopg.connect(logged.url, autocommit=True) as connection:
        for number in range(3):
            with connection.transaction():
                connection.execute("INSERT INTO t VALUES (%s)", [number])
                written.append(connection.execute("SELECT pg_current_xact_id()::text::bigint % 4294967296").fetchone())
    after = logged.query("SELECT clock_timestamp(), pg_current_wal_insert_lsn() - '0/0'")[0]
    messages = logged.messages()
    commits = messages.commits(messages.where(BEGIN))
    assert [(each.xid,) for each in commits] == written
    moments = [int(each[0].timestamp() * 1_000_000) for each in (before, after)]
    assert moments[0] <= commits[0].committed_at <= commits[-1].committed_at <= moments[1]
    ends = messages.ends(messages.where(COMMIT))
    assert [lsn for lsn, _ in ends] == [each.lsn for each in commits]
    places = [int(before[1]), *(place for pair in ends for place in pair), int(after[1])]
    assert places == sorted(places)


def test_a_large_value_that_did_not_change_is_left_out(logged: Logged) -> None:
    logged.run(
        "CREATE TABLE t (id int PRIMARY KEY, large text, small text)", "ALTER TABLE t ALTER large SET STORAGE EXTERNAL"
    )
    logged.begin()
    logged.run(
        f"INSERT INTO t VALUES (1, '{_LARGE}', 'a')",
        "UPDATE t SET small = 'b'",
        "UPDATE t SET large = NULL",
    )
    found = rows(logged.messages())
    assert values(found, "large") == [_LARGE, None, None]
    assert found.unchanged["large"].tolist() == [False, True, False]
    assert values(found, "small") == ["a", "b", "b"]


def test_the_whole_old_row_fills_what_is_left_out(logged: Logged) -> None:
    logged.run(
        "CREATE TABLE t (id int PRIMARY KEY, large text, small text)",
        "ALTER TABLE t ALTER large SET STORAGE EXTERNAL",
        "ALTER TABLE t REPLICA IDENTITY FULL",
    )
    logged.begin()
    logged.run(f"INSERT INTO t VALUES (1, '{_LARGE}', 'a')", "UPDATE t SET small = 'b', id = 2", "DELETE FROM t")
    found = rows(logged.messages())
    assert values(found, "large") == [_LARGE] * 3
    assert not found.unchanged
    assert values(found, "small") == ["a", "b", "b"]
    assert values(found, "id") == ["1", "2", "2"]
    assert found.old_keys["id"].to_pylist() == [None, "1", None]


def test_changed_keys_and_deleted_rows_say_which_row_it_was(logged: Logged) -> None:
    logged.run("CREATE TABLE t (id int, words text, part text, PRIMARY KEY (part, id))")
    logged.begin()
    logged.run(
        "INSERT INTO t VALUES (1, 'a', 'p'), (2, 'b', 'q')",
        "UPDATE t SET id = 3 WHERE id = 1",
        "UPDATE t SET words = 'c' WHERE id = 3",
        "DELETE FROM t WHERE id = 2",
    )
    messages = logged.messages()
    found = rows(messages)
    assert [chr(each) for each in messages.kind[messages.where(INSERT, UPDATE, DELETE)]] == list("IIUUD")
    assert list(zip(values(found, "id"), values(found, "part"), values(found, "words"), strict=True)) == [
        ("1", "p", "a"), ("2", "q", "b"), ("3", "p", "a"), ("3", "p", "c"), ("2", "q", None)
    ]  # fmt: skip
    assert found.old_keys["id"].to_pylist() == [None, None, "1", None, None]
    assert found.old_keys["part"].to_pylist() == [None, None, "p", None, None]


def test_a_table_is_described_anew_when_it_was_altered(logged: Logged) -> None:
    logged.run('CREATE TABLE "odd ""name" (id int PRIMARY KEY, "größe" numeric(10,2))')
    logged.begin()
    logged.run(
        'INSERT INTO "odd ""name" VALUES (1, 1)',
        'ALTER TABLE "odd ""name" ADD COLUMN words text, ALTER "größe" TYPE numeric(12,3)',
        'INSERT INTO "odd ""name" VALUES (2, 2, \'new\')',
    )
    first, second = described(logged.messages())
    assert (first.schema, first.name) == (second.schema, second.name) == ("public", 'odd "name')
    assert first.keys == second.keys == (0,)
    assert [name for name, *_ in second.columns] == ["id", "größe", "words"]
    assert first.columns[1][:2] == second.columns[1][:2]
    assert first.columns[1] != second.columns[1]


def test_a_truncate_names_all_tables_that_it_emptied(logged: Logged) -> None:
    logged.run("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE of_t (id int PRIMARY KEY REFERENCES t)")
    logged.begin()
    logged.run("INSERT INTO t VALUES (1)", "TRUNCATE t CASCADE")
    messages = logged.messages()
    (position,) = messages.where(TRUNCATE)
    oids = {oid for (oid,) in logged.query("SELECT oid::bigint FROM pg_class WHERE relname IN ('t', 'of_t')")}
    assert set(messages.truncated(int(position))) == oids
    assert oids >= set(messages.relations(messages.where(INSERT)).tolist())


def test_no_messages_are_no_rows() -> None:
    empty = Messages(pa.array([], pa.binary()))
    assert len(empty) == 0
    assert empty.commits(empty.where(BEGIN)) == []
    found = empty.rows(Relation(1, "public", "t", (("id", 23, -1),), (0,)))
    assert values(found, "id") == []


def row(*kinds: bytes) -> bytes:
    return b"I" + struct.pack(">I", 7) + b"N" + struct.pack(">H", len(kinds)) + b"".join(kinds)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (row(b"n"), "1 columns, and its table 2"),
        (row(b"n", b"x"), "kind that is not known"),
        (row(b"n", b"t" + struct.pack(">I", 9) + b"short"), "cut short"),
        (row(b"n", b"t" + struct.pack(">I", 1) + b"\xff"), "not in UTF-8"),
        (b"D" + struct.pack(">I", 7) + b"N" + struct.pack(">H", 2) + b"nn", "no key"),
        (b"U" + struct.pack(">I", 7) + b"K" + struct.pack(">H", 2) + b"nn" + b"?", "no values"),
    ],
)
def test_what_cannot_be_read_is_refused(message: bytes, words: str) -> None:
    relation = Relation(7, "public", "t", (("id", 23, -1), ("words", 25, -1)), (0,))
    with pytest.raises(UnknownFormat, match=words):
        Messages(pa.array([message], pa.binary())).rows(relation)


@pytest.mark.parametrize("length", range(1, 40, 3))
def test_a_description_that_is_cut_short_is_refused(length: int) -> None:
    whole = b"R" + struct.pack(">I", 7) + b"public\0t\0d" + struct.pack(">H", 1) + b"\1identity\0"
    whole += struct.pack(">Ii", 23, -1)
    assert Relation.read(whole).keys == (0,)
    if length < len(whole):
        with pytest.raises(UnknownFormat):
            Relation.read(whole[:length])


def test_slices_of_an_array_are_read_as_they_are() -> None:
    relation = Relation(7, "public", "t", (("id", 23, -1),), (0,))
    messages = [row(b"t" + struct.pack(">I", len(text)) + text) for text in (b"1", b"22", b"333")]
    for type_ in (pa.binary(), pa.large_binary()):
        assert values(Messages(pa.array(messages, type_)[1:]).rows(relation), "id") == ["22", "333"]
