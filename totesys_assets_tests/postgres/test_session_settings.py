"""The settings of our sessions: they hold whatever a role, a database or the environment says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

import psycopg
import psycopg.conninfo
import pytest
from psycopg import sql

from totesys_assets import engine, libpq
from totesys_assets.commands.warehouse import start_file
from totesys_assets.errors import ConnectionFailed, PlatformError
from totesys_assets.local.postgres_programs import binaries
from totesys_assets.postgres.session_settings import (
    SETTINGS,
    begin,
    check_query,
    open_session,
    require,
    set_local,
    set_session,
)
from totesys_assets.sql_text import literal
from totesys_assets_tests.conftest import PostgresServer

HOSTILE = {
    "TimeZone": "Asia/Kolkata",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "client_encoding": "LATIN1",
    "extra_float_digits": "-5",
    "bytea_output": "escape",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "search_path": "nowhere",
    "row_security": "on",
    "statement_timeout": "2s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "2s",
    "transaction_timeout": "2s",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
}
ENVIRONMENT = {
    "PGTZ": "America/New_York",
    "PGDATESTYLE": "German",
    "PGCLIENTENCODING": "WIN1252",
    "PGGEQO": "off",
    "PGOPTIONS": "-c quote_all_identifiers=on -c extra_float_digits=0 -c search_path=elsewhere",
}
VARIABLE = "TOTESYS_URL"


@pytest.fixture
def hostile_url(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database, a role and an environment that say something else of everything."""
    url, role = postgres_server.database(), f"hostile_{os.urandom(4).hex()}"
    with psycopg.connect(url, autocommit=True) as connection:
        name = sql.Identifier(role)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(name))
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, name))
        for setting, value in HOSTILE.items():
            statement = sql.SQL("ALTER ROLE {} SET {} = {}")
            connection.execute(statement.format(name, sql.Identifier(setting), sql.Literal(value)))
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    yield psycopg.conninfo.make_conninfo(url, user=role, password="secret")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {name}; DROP ROLE {name}").format(name=name))


def test_a_transaction_of_psycopg_has_our_settings_whatever_role_and_environment_say(hostile_url: str) -> None:
    with open_session(hostile_url, variable=VARIABLE, read_only=False) as connection:
        found = connection.execute(check_query().encode()).fetchone()
        assert found is not None
        ours = [name for name, value in zip(SETTINGS, found, strict=False) if SETTINGS[name] == value]
        assert ours == []  # all of them were hostile
        connection.rollback()
        begin(connection, VARIABLE)
        query = b"SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
        assert connection.execute(query).fetchone() == ("read committed", "off")
        assert connection.execute(b"SELECT '\xc5\x81'").fetchone() == ("Ł",)


def test_a_transaction_of_duckdb_has_our_settings_whatever_role_and_environment_say(hostile_url: str) -> None:
    connection = engine.connect()
    try:
        engine.attach(connection, "there", hostile_url, variable=VARIABLE)
        connection.execute("BEGIN")
        statement = literal(f"SET TRANSACTION READ ONLY; {set_local({'lock_timeout': '3s'})}")
        connection.execute(f"CALL postgres_execute('there', {statement})")
        query = literal(check_query({"lock_timeout": "3s"}))
        found = connection.execute(f"SELECT * FROM postgres_query('there', {query})").fetchone()
        require(found, VARIABLE, {"lock_timeout": "3s"})
        modes = "SELECT current_setting('transaction_isolation') AS a, current_setting('transaction_read_only') AS b"
        query = f"SELECT * FROM postgres_query('there', {literal(modes)})"
        assert connection.execute(query).fetchone() == ("repeatable read", "on")
    finally:
        engine.close(connection)


def test_a_statement_timeout_that_ends_what_duckdb_asks_first_does_not_keep_us_out(hostile_url: str) -> None:
    with psycopg.connect(hostile_url) as connection:
        connection.execute("SET TRANSACTION READ WRITE")
        connection.execute("ALTER ROLE current_user SET statement_timeout = '100ms'")
        connection.execute("CREATE SCHEMA slow")
        connection.execute("CREATE VIEW slow.pg_settings AS SELECT 'rds'::text AS name FROM pg_sleep(1)")
    slow = psycopg.conninfo.make_conninfo(hostile_url, options="-c search_path=slow,pg_catalog")
    duck = engine.connect()
    try:
        engine.attach(duck, "there", slow, variable=VARIABLE)
        duck.execute("BEGIN")
        duck.execute(f"CALL postgres_execute('there', {literal(set_local())})")
        assert duck.execute("SELECT * FROM postgres_query('there', 'SELECT 1 AS one FROM pg_sleep(0.2)')").fetchall()
    finally:
        engine.close(duck)


def test_a_session_of_a_pool_of_our_own_has_the_settings_in_every_transaction(hostile_url: str) -> None:
    with psycopg.connect(hostile_url, autocommit=True) as connection:
        connection.execute(set_session({"search_path": None, "lock_timeout": "0"}).encode())
        found = connection.execute(check_query().encode()).fetchone()
        assert found is not None
        assert dict(zip(SETTINGS, found, strict=False)) == {**SETTINGS, "search_path": "elsewhere", "lock_timeout": "0"}
        connection.execute("CREATE SCHEMA written")  # not read only any more


def test_psql_on_the_warehouse_shows_times_alike_whatever_role_and_environment_say(hostile_url: str) -> None:
    program = shutil.which("psql") or str(binaries() / "psql")
    statement = "SELECT '2024-08-19 10:00:00+00'::timestamptz, current_schemas(false)"
    with start_file('od"d') as file:
        shown = subprocess.run(
            [program, hostile_url, "-At", "-c", statement],
            env={**os.environ, "PSQLRC": file},
            capture_output=True,
            text=True,
            check=True,
        )
    assert shown.stdout == "2024-08-19 10:00:00+00|{}\n"


@pytest.mark.parametrize("attrs", ["any", "read-write", "primary", "prefer-standby"])
def test_a_url_may_say_what_kind_of_session_it_wants(postgres_server: PostgresServer, attrs: str) -> None:
    url = psycopg.conninfo.make_conninfo(postgres_server.database(), target_session_attrs=attrs)
    open_session(url, variable=VARIABLE, read_only=True).close()
    duck = engine.connect()
    engine.attach(duck, "there", url, variable=VARIABLE)
    engine.close(duck)


def test_a_login_that_is_read_only_by_default_is_told_what_to_ask_for(hostile_url: str) -> None:
    url = psycopg.conninfo.make_conninfo(hostile_url, target_session_attrs="read-write")
    with pytest.raises(ConnectionFailed, match=r"session is read-only.*ask for target_session_attrs=primary"):
        open_session(url, variable=VARIABLE, read_only=True)
    duck = engine.connect()
    with pytest.raises(ConnectionFailed, match=r"session is read-only.*ask for target_session_attrs=primary"):
        engine.attach(duck, "there", url, variable=VARIABLE)
    engine.close(duck)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("PGTARGETSESSIONATTRS", "standby", "server is not in hot standby mode"),
        ("PGSERVICE", "nonsense", 'definition of service "nonsense" not found'),
        ("PGREQUIREAUTH", "none", "authentication method requirement"),
    ],
)
def test_a_variable_that_keeps_a_session_away_is_named_and_its_value_is_not(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    url = postgres_server.database()
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGPASSWORD", "hush")  # which the URL says itself
    said = (
        rf"^TOTESYS_URL cannot be reached: .*{why}.* What the URL does not say was read from the environment: {name}\.$"
    )
    with pytest.raises(ConnectionFailed, match=said):
        open_session(url, variable=VARIABLE, read_only=True)
    duck = engine.connect()
    with pytest.raises(ConnectionFailed, match=said):
        engine.attach(duck, "there", url, variable=VARIABLE)
    engine.close(duck)


def test_a_role_that_may_see_no_views_by_default_does_in_our_transactions(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE VIEW seen AS SELECT 1 AS one")
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET restrict_nonsystem_relation_kind = 'view'").format(name))
    with psycopg.connect(url) as other, pytest.raises(psycopg.Error, match="is restricted"):
        other.execute("SELECT one FROM seen")
    with open_session(url, variable=VARIABLE, read_only=True) as ours:
        begin(ours, VARIABLE)
        assert ours.execute("SELECT one FROM public.seen").fetchall() == [(1,)]


def test_a_login_that_may_write_no_temporary_files_is_told_what_to_do(postgres_server: PostgresServer) -> None:
    url, query = postgres_server.database(), "SELECT number FROM generate_series(1, 200000) AS number ORDER BY -number"
    with psycopg.connect(url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        for setting in ("temp_file_limit", "work_mem"):
            connection.execute(sql.SQL("ALTER DATABASE {} SET {} = '64kB'").format(name, sql.Identifier(setting)))
    said = r'temporary file size exceeds "temp_file_limit" \(64kB\): let a superuser raise it for that login, or give'
    duck = engine.connect()
    engine.attach(duck, "there", url, variable=VARIABLE)
    with pytest.raises(PlatformError, match=f"^It failed: .*{said}"), engine.readable_errors("It failed"):
        duck.execute(f"SELECT count(*) FROM postgres_query('there', {literal(query)})").fetchall()
    engine.close(duck)
    with open_session(url, variable=VARIABLE, read_only=True) as ours, pytest.raises(psycopg.Error) as failed:
        ours.execute(query.encode())
    told = engine.one_line(failed.value)
    assert re.search(said, told)
    assert engine.one_line(f"{told}. Then do it again.") == f"{told}. Then do it again"


def test_a_setting_that_does_not_stay_is_named_with_what_to_do() -> None:
    found = ("Asia/Kolkata", *list(SETTINGS.values())[1:], "0", "")
    expected = r"TOTESYS_URL does not keep its settings: TimeZone is 'Asia/Kolkata' instead of 'UTC'.*to the server"
    with pytest.raises(PlatformError, match=expected):
        require(found, VARIABLE)
    with pytest.raises(PlatformError, match="TimeZone is None"):
        require(None, VARIABLE)
    require((*SETTINGS.values(), "0", ""), VARIABLE)


def test_a_url_may_have_options_a_name_and_a_time_limit_of_its_own() -> None:
    url = "postgresql://x@h/d?options=-crole%3Dreader&application_name=mine&connect_timeout=3"
    parts = libpq.conninfo(url)
    assert (parts["options"], parts["application_name"], parts["connect_timeout"]) == ("-crole=reader", "mine", "3")
    assert libpq.conninfo("postgresql://x@h/d")["options"] == ""


def test_a_role_in_pgoptions_is_not_taken_on(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGOPTIONS", "-c role=pg_monitor")
        connection = open_session(url, variable=VARIABLE, read_only=True)
    with connection:
        assert connection.execute("SELECT current_user = session_user").fetchone() == (True,)


def test_an_address_in_the_environment_leads_nowhere_else(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.database()
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    with open_session(url, variable=VARIABLE, read_only=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    duck = engine.connect()
    engine.attach(duck, "source", url, variable=VARIABLE)
    assert duck.execute("SELECT * FROM postgres_query('source', 'SELECT 1')").fetchone() == (1,)
    engine.close(duck)
    assert libpq.conninfo("postgresql://x@/d?hostaddr=127.0.0.1")["hostaddr"] == "127.0.0.1"
