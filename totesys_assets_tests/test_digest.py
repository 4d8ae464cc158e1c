"""Digests: PostgreSQL and DuckDB compute the same of the same rows, and another of any other rows."""

from __future__ import annotations

import duckdb
import psycopg
import pytest

from totesys_assets.catalogue.catalogue import Column, catalogue
from totesys_assets.digest import DUCKDB, POSTGRES, row_number, set_digest
from totesys_assets_tests.conftest import PostgresServer

_KNOWN = {column.type: column for table in catalogue().source.values() for column in table.columns}
_KNOWN |= {column.type: column for table in catalogue().star.values() for column in table.columns}
# Type in PostgreSQL, type in the lake, values as both write them.
VALUES = {
    "integer": ("INT", ["0", "-2147483648", "2147483647"]),
    "text": ("VARCHAR", ["''", "' '", "'1:1'", "'-'", "'O''Keefe'", "'é🧵\u202e'", "'\\x00'", "'\n'"]),
    "numeric(10,2)": ("DECIMAL(10,2)", ["0", "-0.5", "99999999.99"]),
    "boolean": ("BOOLEAN", ["true", "false"]),
    "date": ("DATE", ["'0001-01-01'", "'1969-12-31'", "'9999-12-31'"]),
    "time without time zone": ("VARCHAR", ["'00:00:00'", "'23:59:59.999'"]),
    "timestamp(3) without time zone": ("TIMESTAMP", ["'0001-01-01'", "'2024-08-20 09:10:11.123'", "'9999-12-31'"]),
    "timestamp with time zone": ("TIMESTAMPTZ", ["'1969-12-31 23:59:59.999999+00'", "'2024-08-20 09:10:11.123+00'"]),
}


def test_both_engines_give_every_type_the_same_number_and_every_value_one_of_its_own(
    postgres_server: PostgresServer,
) -> None:
    with psycopg.connect(postgres_server.database(), options="-c TimeZone=UTC") as server, duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        for type_, (in_lake, values) in VALUES.items():
            column = _KNOWN[type_]
            numbers = []
            for value in [*values, "NULL"]:
                query = f'SELECT {{}} FROM (SELECT CAST({value} AS {{}}) AS "{column.name}") AS r'
                in_postgres = server.execute(query.format(row_number([column], POSTGRES), type_)).fetchone()
                in_duckdb = engine.execute(query.format(row_number([column], DUCKDB), in_lake)).fetchone()
                assert in_postgres == in_duckdb, (type_, value)
                numbers.append(in_postgres)
            assert len(set(numbers)) == len(numbers), type_


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "SQL_ASCII", "EUC_JP"])
def test_text_has_the_same_number_in_every_encoding_that_it_can_be_kept_in(
    postgres_server: PostgresServer, encoding: str
) -> None:
    column = _KNOWN["text"]
    texts = ["plain", "日本語テキスト" if encoding == "EUC_JP" else "Málaga, Åland, ß"]
    with psycopg.connect(postgres_server.database(encoding=encoding)) as server, duckdb.connect() as engine:
        server.execute("SET client_encoding = 'UTF8'")
        server.execute(f'CREATE TABLE kept ("{column.name}" text)')
        for text in texts:
            server.execute("INSERT INTO kept VALUES (%s)", [text])
        in_postgres = server.execute(f"SELECT {row_number([column], POSTGRES)} FROM kept").fetchall()
        query = f'SELECT {row_number([column], DUCKDB)} FROM (SELECT ?::VARCHAR AS "{column.name}")'
        assert in_postgres == [engine.execute(query, [text]).fetchone() for text in texts]


def test_values_that_move_from_one_column_to_the_next_change_the_number() -> None:
    text = _KNOWN["text"]
    columns = [text, Column("other", "text", text.arrow, nullable=True, description="")]
    with duckdb.connect() as engine:
        rows = [("ab", ""), ("a", "b"), ("", "ab"), ("ab", None), (None, "ab"), ("-", ""), ("2:ab", None)]
        query = f'SELECT {row_number(columns, DUCKDB)} FROM (SELECT ?::VARCHAR AS "{text.name}", ?::VARCHAR AS other)'
        assert len({engine.execute(query, list(row)).fetchone() for row in rows}) == len(rows)


def test_the_digest_of_a_set_minds_how_often_a_row_is_there_and_not_their_order() -> None:
    number = row_number([_KNOWN["integer"]], DUCKDB, ["n"])
    with duckdb.connect() as engine:

        def digest(rows: str) -> object:
            return engine.execute(f"SELECT {set_digest(number)} FROM (VALUES {rows}) AS r(n)").fetchone()

        assert digest("(1), (2), (3)") == digest("(3), (1), (2)")
        assert digest("(1), (2)") != digest("(1), (2), (2)")
        assert digest("(1), (1)") != digest("(2), (2)")
