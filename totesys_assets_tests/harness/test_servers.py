"""The servers that worlds are made of are what they say they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import psycopg

from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets_tests.conftest import PostgresServer
from totesys_assets_tests.harness.servers import HOSTILE, Standby, alter_database, hostile_login


def ask(url: str, statement: LiteralString) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        ((found,),) = connection.execute(statement).fetchall()
    return found


def test_the_machines_postgresql_is_another_version_than_the_embedded_one(
    postgres_server: PostgresServer, other_postgres: PostgresServer
) -> None:
    version = "SELECT current_setting('server_version_num')::int / 10000"
    assert int(str(ask(postgres_server.database(), version))) >= 18
    assert 14 <= int(str(ask(other_postgres.database(), version))) < 18


def test_a_standby_shows_what_its_primary_has_and_takes_no_writes(standby: tuple[EmbeddedServer, Standby]) -> None:
    primary, following = standby
    primary.create_database("shown")
    with psycopg.connect(primary.url("shown"), autocommit=True) as connection:
        connection.execute("CREATE TABLE shown AS SELECT 7 AS number")
    following.catch_up()
    assert ask(following.url("shown"), "SELECT number FROM shown") == 7
    assert ask(following.url("shown"), "SELECT pg_is_in_recovery()") is True


def test_sessions_behind_the_pooler_are_shared(
    postgres_server: PostgresServer, pooler: Callable[..., list[str]]
) -> None:
    (pooled,) = pooler(postgres_server.database())
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as connection:
        pids = {str(connection.execute("SELECT pg_backend_pid()").fetchall()) for _ in range(12)}
    assert len(pids) > 1


def test_a_database_in_another_encoding_keeps_its_text_in_it(postgres_server: PostgresServer) -> None:
    url = postgres_server.database(encoding="LATIN1")
    assert ask(url, "SHOW server_encoding") == "LATIN1"
    assert ask(url, "SELECT octet_length('Málaga')") == 6


def test_a_hostile_role_and_a_hostile_database_have_every_setting(postgres_server: PostgresServer) -> None:
    database, other = postgres_server.database(), postgres_server.database()
    alter_database(other)
    for url in (hostile_login(database), other):
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT name, setting, unit, source FROM pg_settings").fetchall()
        found = {str(name): (str(value), str(source)) for name, value, _, source in rows}
        missed = {name for name in HOSTILE if found[name][1] not in ("user", "database")}
        assert missed == set()
        assert found["DateStyle"][0] == "SQL, DMY"
        assert found["search_path"][0] == "nowhere"
