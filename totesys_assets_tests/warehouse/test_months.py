"""Facts in partitions of a month: no record is lost or renumbered, and what was built on a fact is there afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from totesys_assets.audit.audit import audit
from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.commands import main as totesys
from totesys_assets.errors import PlatformError
from totesys_assets.load import copying
from totesys_assets.load.restore import differing, restore
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets.warehouse import months
from totesys_assets.warehouse import warehouse as sessions
from totesys_assets.warehouse.bare import without_keys
from totesys_assets.warehouse.months import is_partitioned, parted
from totesys_assets.warehouse.notes import Connection
from totesys_assets.warehouse.rebuilt import build_keys
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform, PostgresServer
from totesys_assets_tests.harness.servers import QUICK, running
from totesys_assets_tests.test_roles import denied, new_roles
from totesys_assets_tests.warehouse.test_kept import require_right

# Few months are made quickly: those from now on, and those of the records.
FIRST = date.today()
Session = psycopg.Connection[tuple[object, ...]]
COLUMNS = ", ".join(column.name for column in catalogue().star["fact_payment"].lake_columns)
# Payments of some days; the last of them before all months that are made, and far behind them.
ADD = f"""
INSERT INTO fact_payment ({COLUMNS})
SELECT n, day, '12:00', day, '12:00', 1, 1, 9.99, 1, 1, false, day, how,
    '2026-01-01'::timestamptz + {{}} * interval '1 h'
FROM unnest(ARRAY['2024-01-31', '2024-02-01', '2024-02-29', '2019-12-31', '2199-01-01']::date[])
    WITH ORDINALITY AS days (day, n), (VALUES ('{{}}')) AS operation (how)
"""
RECORDS = "SELECT * FROM fact_payment ORDER BY payment_record_id"


@pytest.fixture(params=["embedded", "installed"])
def url(request: pytest.FixtureRequest) -> str:
    """A new database, on the embedded server and on that of another version."""
    server: PostgresServer = request.getfixturevalue(
        "postgres_server" if request.param == "embedded" else "other_postgres"
    )
    return server.database()


@pytest.fixture
def filled(url: str) -> Iterator[Session]:
    """A warehouse with a few records."""
    Warehouse(url).migrate()
    with session(url) as connection:
        connection.execute(ADD.format(0, "insert").encode())
        connection.execute(ADD.format(1, "update").encode())
        connection.execute("DELETE FROM fact_payment WHERE payment_record_id = 3")
        yield connection


@contextmanager
def session(url: str) -> Iterator[Session]:
    with psycopg.connect(url, autocommit=True, options="-c search_path=public -c timezone=UTC") as connection:
        yield connection


def parts(connection: Session) -> set[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'fact_payment'::regclass"
    return {str(name) for (name,) in connection.execute(query)}


@contextmanager
def with_locks(folder: Path, number: str) -> Iterator[str]:
    """URL of a new warehouse, on a server that keeps few locks: so many for each of ten sessions."""
    few = {**QUICK, "max_locks_per_transaction": number, "max_connections": "10", "max_worker_processes": "2"}
    server = EmbeddedServer(folder, few)
    with running(server):
        server.create_database("warehouse")
        Warehouse(server.url("warehouse")).migrate()
        yield server.url("warehouse")


def test_where_the_server_has_no_room_for_so_many_locks_it_says_what_to_set(scratch: Path) -> None:
    since = date(2020, 1, 1)
    with with_locks(scratch / "few_locks", "10") as url, session(url) as connection:
        with pytest.raises(PlatformError, match="has no room for the locks of") as caught:
            Warehouse(url).migrate(partition_from=since)
        assert parts(connection) == set()
    (wanted,) = re.findall(r"max_locks_per_transaction, which is 10, to (\d+)", str(caught.value))
    with with_locks(scratch / "more_locks", wanted) as url, session(url) as connection:
        Warehouse(url).migrate(partition_from=since)
        assert len(parts(connection)) > 80


def test_no_record_is_lost_or_renumbered_and_more_come(filled: Session, url: str) -> None:
    before = filled.execute(RECORDS).fetchall()
    current = filled.execute("SELECT * FROM current_payment ORDER BY 1").fetchall()
    assert Warehouse(url).migrate(partition_from=FIRST)
    assert filled.execute(RECORDS).fetchall() == before
    assert filled.execute("SELECT * FROM current_payment ORDER BY 1").fetchall() == current
    assert all(is_partitioned(filled, "public", fact) for fact in parted(catalogue()))
    assert not Warehouse(url).migrate()
    filled.execute(ADD.format(2, "delete").encode())
    numbers = [row[0] for row in filled.execute(RECORDS).fetchall()]
    assert numbers == [1, 2, *range(4, 16)]
    require_right(filled)
    assert filled.execute("SELECT count(*) FROM current_payment").fetchone() == (0,)
    with pytest.raises(psycopg.errors.UniqueViolation):
        filled.execute(ADD.format(2, "delete").encode())


def test_columns_that_others_let_the_server_compute_are_computed_in_all_partitions(filled: Session, url: str) -> None:
    filled.execute("ALTER TABLE fact_payment ADD pence numeric GENERATED ALWAYS AS (payment_amount * 100) STORED")
    before = filled.execute(RECORDS).fetchall()
    assert Warehouse(url).migrate(partition_from=FIRST)
    assert filled.execute(RECORDS).fetchall() == before
    filled.execute("UPDATE fact_payment SET created_date = '1999-05-05' WHERE created_date = '2024-01-31'")
    before = filled.execute(RECORDS).fetchall()
    assert Warehouse(url).migrate(partition_from=FIRST)
    assert "_fact_payment_1999_05" in parts(filled)
    assert filled.execute(RECORDS).fetchall() == before


def test_each_month_is_a_table_of_its_own_and_who_asks_for_one_reads_no_other(filled: Session, url: str) -> None:
    Warehouse(url).migrate(partition_from=FIRST)
    held = parts(filled)
    ahead = f"_fact_payment_{date.today().year + 2}_12"
    assert {"_fact_payment_2024_01", "_fact_payment_2019_12", "_fact_payment_2199_01", ahead} <= held
    assert "_fact_payment_2023_12" not in held
    assert filled.execute("SELECT count(*) FROM _fact_payment_2024_02").fetchone() == (3,)
    query = "EXPLAIN SELECT sum(payment_amount) FROM current_payment WHERE created_date BETWEEN %s AND %s"
    plan = "\n".join(str(line) for (line,) in filled.execute(query, ["2024-02-01", "2024-02-29"]))
    assert {name[:21] for name in re.findall(r"_fact_payment_\w+", plan)} == {"_fact_payment_2024_02"}


def test_a_month_that_has_no_table_is_held_all_the_same_until_the_next_migration(filled: Session, url: str) -> None:
    Warehouse(url).migrate(partition_from=FIRST)
    filled.execute("UPDATE fact_payment SET created_date = '1999-05-05' WHERE created_date = '2024-01-31'")
    before = filled.execute(RECORDS).fetchall()
    assert filled.execute("SELECT count(*) FROM _fact_payment_rest").fetchone() == (2,)
    assert Warehouse(url).migrate(partition_from=FIRST)
    assert filled.execute("SELECT count(*) FROM _fact_payment_rest").fetchone() == (0,)
    assert filled.execute("SELECT count(*) FROM _fact_payment_1999_05").fetchone() == (2,)
    assert filled.execute(RECORDS).fetchall() == before
    require_right(filled)


def test_what_others_built_on_a_fact_is_there_afterwards(filled: Session, url: str) -> None:
    analyst = f"analyst_{filled.info.backend_pid}"
    filled.execute(
        f"CREATE ROLE {analyst}; "
        "CREATE VIEW paid WITH (security_barrier) AS SELECT payment_id, payment_amount FROM fact_payment WHERE paid; "
        "CREATE VIEW of_view AS SELECT payment_id FROM paid; COMMENT ON VIEW paid IS 'theirs'; "
        f"GRANT SELECT ON paid, fact_payment TO {analyst} WITH GRANT OPTION; "
        f"GRANT UPDATE (paid) ON fact_payment TO {analyst}; "
        "CREATE INDEX theirs ON fact_payment (counterparty_id) WHERE paid; "
        "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        "CREATE TRIGGER theirs AFTER INSERT ON fact_payment FOR EACH ROW EXECUTE FUNCTION seen(); "
        "ALTER TABLE fact_payment ENABLE ALWAYS TRIGGER theirs; "
        "CREATE PUBLICATION theirs FOR TABLE fact_payment WITH (publish_via_partition_root); "
        "ALTER TABLE fact_payment ADD COLUMN note text DEFAULT 'x', ADD CONSTRAINT cheap CHECK (payment_amount < 1000)"
    )
    filled.execute("TRUNCATE _migration")
    Warehouse(url).migrate()  # views of ours show the new column, too
    before = filled.execute(BUILT).fetchall()
    try:
        assert Warehouse(url).migrate(partition_from=FIRST)
        assert filled.execute(BUILT).fetchall() == before
        assert filled.execute("SELECT count(*) FROM of_view").fetchone() == (0,)
        with pytest.raises(psycopg.errors.CheckViolation):
            filled.execute("UPDATE fact_payment SET payment_amount = 1000")
    finally:
        filled.execute(f"DROP PUBLICATION theirs; DROP OWNED BY {analyst}; DROP ROLE {analyst}")


# Each with all that is said of it.
BUILT = """
SELECT 'relation', relname::text, coalesce(relacl::text, '') || coalesce(reloptions::text, '')
    || coalesce(obj_description(oid, 'pg_class'), '')
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') AND relname !~ '^_fact'
UNION ALL SELECT 'column', attrelid::regclass || '.' || attname,
    format('%s %s %s %s', format_type(atttypid, atttypmod), attidentity, attacl, col_description(attrelid, attnum))
FROM pg_attribute WHERE attnum > 0 AND attrelid = 'fact_payment'::regclass
UNION ALL SELECT 'index', relname::text, '' FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid
WHERE indrelid = 'fact_payment'::regclass
UNION ALL SELECT 'constraint', conname::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'fact_payment'::regclass AND contype <> 'p'
UNION ALL SELECT 'trigger', pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger
WHERE tgrelid = 'fact_payment'::regclass AND NOT tgisinternal
UNION ALL SELECT 'publication', prrelid::regclass::text, pubname::text
FROM pg_publication_rel JOIN pg_publication AS of ON of.oid = prpubid
UNION ALL SELECT 'view', viewname::text, definition FROM pg_views WHERE schemaname = 'public'
ORDER BY 1, 2, 3
"""


@pytest.mark.parametrize(
    ("built", "named"),
    [
        (
            "CREATE POLICY all_of_it ON fact_payment USING (true); "
            "CREATE MATERIALIZED VIEW m AS SELECT 1 FROM fact_payment; "
            "CREATE TABLE n (n int REFERENCES fact_payment); "
            "CREATE UNIQUE INDEX u ON fact_payment (payment_record_id, paid); "
            "ALTER TABLE fact_payment SET (fillfactor = 70)",
            "constraint n_n_fkey, materialized view public.m, policy all_of_it, storage parameter fillfactor=70, "
            "unique index public.u",
        ),
        (
            "CREATE FUNCTION f() RETURNS SETOF fact_payment LANGUAGE sql AS 'TABLE fact_payment'",
            r"function public\.f\(\)",
        ),
        ("CREATE VIEW v AS SELECT payment_record_id, paid FROM fact_payment GROUP BY 1", "must appear in the GROUP BY"),
        ("ALTER TABLE fact_payment ADD CONSTRAINT c CHECK (paid) NOT VALID", "constraint c"),
        ("ALTER TABLE fact_payment ADD CONSTRAINT c CHECK (paid) NO INHERIT", "constraint c"),
        ("CREATE VIEW _fact_payment_new AS SELECT 1", 'relation "_fact_payment_new" already exists'),
        ("CREATE VIEW _fact_payment_before AS SELECT 1", 'relation "_fact_payment_before" already exists'),
    ],
)
def test_what_cannot_come_along_is_named_and_nothing_is_changed(
    postgres_server: PostgresServer, built: str, named: str
) -> None:
    url = postgres_server.database()
    Warehouse(url).migrate()
    with session(url) as connection:
        connection.execute(built.encode())
        before = connection.execute(BUILT).fetchall()
        with pytest.raises(
            PlatformError, match=f'"fact_payment" cannot be partitioned .*{named}.* Nothing was changed'
        ):
            Warehouse(url).migrate(partition_from=FIRST)
        assert connection.execute(BUILT).fetchall() == before
        assert parts(connection) == set()


def test_who_reads_need_not_wait_while_rows_are_copied_and_keys_are_built(
    filled: Session, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(connection: Connection, schema: str, fact: Table, made: str) -> None:
        build_keys(connection, schema, fact, made)
        with session(url) as reader:
            reader.execute("SET lock_timeout = '1s'")
            for name in ("fact_payment", "current_payment", "history_payment", "receivable", "sale"):
                reader.execute(f"SELECT FROM {name}".encode())
                built.append(fact.name)

    monkeypatch.setattr(months, "build_keys", build)
    filled.execute("TRUNCATE _migration")  # so that views are replaced, too
    assert Warehouse(url).migrate(partition_from=FIRST)
    assert len(built) == 15


def test_what_only_another_login_could_change_is_named_before_anything_is_copied(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.database()
    with new_roles(url, url) as roles, session(url) as connection:
        roles.apply("warehouse_roles.sql")
        Warehouse(roles["owner"]).migrate()
        connection.execute(
            "CREATE VIEW theirs AS SELECT sales_order_id FROM fact_sales_order; "
            "CREATE PUBLICATION theirs FOR TABLE fact_sales_order WITH (publish_via_partition_root); "
            "CREATE PUBLICATION of_all FOR ALL TABLES"
        )
        me, _ = connection.info.user, monkeypatch.setattr(months, "_copy", None)
        with pytest.raises(PlatformError) as refused:
            Warehouse(roles["owner"]).migrate(partition_from=FIRST)
        for named in (
            f"publication theirs of {me}, ",
            "publication of_all, which would publish each partition (keep it by ALTER PUBLICATION of_all SET "
            "(publish_via_partition_root = true))",
            f"view public.theirs of {me}. ",
        ):
            assert named in str(refused.value)


def test_a_key_that_was_dropped_from_a_partitioned_fact_is_made_again(filled: Session, url: str) -> None:
    Warehouse(url).migrate(partition_from=FIRST)
    before = filled.execute(KEYS).fetchall()
    for key in ("pkey", "version_key"):
        filled.execute(f"ALTER TABLE fact_payment DROP CONSTRAINT fact_payment_{key}".encode())
    assert Warehouse(url).migrate()
    assert filled.execute(KEYS).fetchall() == before


KEYS = """
SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'fact_payment'::regclass AND contype IN ('p', 'u') ORDER BY 1
"""


def test_partitions_of_other_names_and_of_years_are_let_be(filled: Session, url: str) -> None:
    Warehouse(url).migrate(partition_from=FIRST)
    filled.execute("ALTER TABLE _fact_payment_2024_01 RENAME TO _fact_payment_2024_01_old")
    filled.execute("CREATE TABLE old PARTITION OF fact_payment FOR VALUES FROM (MINVALUE) TO ('1950-01-01')")
    filled.execute("CREATE TABLE _years PARTITION OF fact_payment FOR VALUES FROM ('1950-01-01') TO ('1990-01-01')")
    before, held = filled.execute(RECORDS).fetchall(), parts(filled)
    filled.execute("TRUNCATE _migration")
    assert Warehouse(url).migrate()
    assert (filled.execute(RECORDS).fetchall(), parts(filled)) == (before, held)


def test_whatever_others_did_to_coming_months_loads_and_migrations_go_on(filled: Session, url: str) -> None:
    Warehouse(url).migrate(partition_from=FIRST)
    renamed, detached, *_, used, later = (coming(n) for n in (12, 14, 15, 16, 17, 18, 21))
    for month in (renamed, detached, *(coming(n) for n in range(15, 37))):
        filled.execute(f"ALTER TABLE IF EXISTS {part_of(month)} RENAME TO gone; DROP TABLE IF EXISTS gone".encode())
    filled.execute(
        f"CREATE TABLE theirs PARTITION OF fact_payment FOR VALUES FROM ('{renamed}') TO ('{coming(13)}'); "
        f"CREATE TABLE {part_of(detached)} (note text); "
        f"CREATE TABLE _some PARTITION OF fact_payment FOR VALUES FROM ('{coming(15, 20)}') TO ('{coming(17)}'); "
        f"CREATE TABLE _later PARTITION OF fact_payment FOR VALUES FROM ('{later}') TO ('2199-01-01'); "
        "ALTER TABLE _fact_payment_rest RENAME TO others; "
        f"UPDATE fact_payment SET created_date = '{used}' WHERE created_date = '2199-01-01'"
    )
    before, held = filled.execute(RECORDS).fetchall(), parts(filled)
    assert not Warehouse(url).migrate()
    assert parts(filled) == held
    filled.execute("SET datestyle = 'SQL, DMY'; SELECT keep_months_ahead(); RESET datestyle")
    held |= {part_of(coming(n)) for n in (17, 19, 20)}
    assert parts(filled) == held
    filled.execute("TRUNCATE _migration")
    assert Warehouse(url).migrate()
    assert parts(filled) == held | {part_of(used)}
    assert filled.execute("SELECT count(*) FROM others").fetchone() == (0,)
    assert filled.execute(RECORDS).fetchall() == before


def test_months_that_an_event_trigger_forbids_to_make_stop_no_load(filled: Session, url: str) -> None:
    Warehouse(url).migrate(partition_from=FIRST)
    for each in range(12, 37):
        filled.execute(f"DROP TABLE IF EXISTS {part_of(coming(each))}".encode())
    held = parts(filled)
    filled.execute(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not here'; END$$; "
        "CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse()"
    )
    assert not Warehouse(url).migrate()
    assert parts(filled) == held
    with pytest.raises(PlatformError, match=r"The warehouse refused a statement: not here"):
        Warehouse(url).migrate(partition_from=FIRST)
    filled.execute("DROP EVENT TRIGGER refuse")
    assert not Warehouse(url).migrate()
    assert parts(filled) > held


@pytest.mark.parametrize(
    ("lost", "records"), [("DROP TABLE", 7), ("ALTER TABLE fact_payment DETACH PARTITION", 9)], ids=["drop", "detach"]
)
def test_the_partition_of_all_other_days_comes_back_with_a_migration(
    filled: Session, url: str, lost: str, records: int
) -> None:
    Warehouse(url).migrate(partition_from=FIRST)
    filled.execute("UPDATE fact_payment SET created_date = '1999-05-05' WHERE created_date = '2024-01-31'")
    filled.execute(f"{lost} _fact_payment_rest; TRUNCATE _migration".encode())
    assert Warehouse(url).migrate()
    assert "_fact_payment_rest" in parts(filled)
    assert ("_fact_payment_1999_05" in parts(filled)) == (records == 9)
    assert filled.execute("SELECT count(*) FROM fact_payment").fetchone() == (records,)


def coming(months: int, day: int = 1) -> date:
    """A day of the month that begins in so many."""
    month = FIRST.month - 1 + months
    return date(FIRST.year + month // 12, month % 12 + 1, day)


def part_of(month: date) -> str:
    return f"_fact_payment_{month:%Y_%m}"


def test_a_reader_in_the_way_is_named_and_it_is_done_another_time(
    filled: Session, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sessions._SETTINGS, "lock_timeout", "300ms")
    with session(url) as reader:
        reader.execute("BEGIN; SELECT FROM fact_payment")
        with pytest.raises(PlatformError, match=r"is in use by session \d+"):
            Warehouse(url).migrate(partition_from=FIRST)
        reader.execute("ROLLBACK")
    assert parts(filled) == set()
    assert Warehouse(url).migrate(partition_from=FIRST)


def test_a_migration_that_is_killed_leaves_the_facts_as_they_were(filled: Session, url: str) -> None:
    before = filled.execute(RECORDS).fetchall()
    with session(url) as reader, ThreadPoolExecutor(1) as threads:
        reader.execute("BEGIN; SELECT FROM fact_payment")  # so that it waits, when all is copied
        done = threads.submit(lambda: Warehouse(url).migrate(partition_from=FIRST))
        waiting = (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'LOCK TABLE%EXCLUSIVE MODE' AND wait_event_type = 'Lock'"
        )
        while not filled.execute(waiting).fetchall():
            assert not done.done()
        assert done.exception(20) is not None
    assert filled.execute(RECORDS).fetchall() == before
    assert parts(filled) == set()
    assert Warehouse(url).migrate(partition_from=FIRST)
    assert filled.execute(RECORDS).fetchall() == before


def test_a_load_makes_the_months_that_come_without_the_owners_rights(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    last = f"_fact_payment_{date.today().year + 2}_12"
    with new_roles(url, url) as roles:
        roles.apply("warehouse_roles.sql")
        assert Warehouse(roles["owner"]).migrate(partition_from=FIRST)
        roles.apply("warehouse_grants.sql", roles["owner"])
        denied(roles["reader"], "SELECT public.keep_months_ahead()")
        denied(roles["loader"], "INSERT INTO _fact_payment_rest OVERRIDING SYSTEM VALUE SELECT * FROM fact_payment")
        with session(url) as connection, session(url) as reader:
            for name in sorted(parts(connection))[:-1]:
                if name[-7:] > f"{date.today():%Y_%m}":
                    connection.execute(f"DROP TABLE {name}".encode())
            assert last not in parts(connection)
            reader.execute("BEGIN; SELECT FROM _fact_payment_rest")
            assert not Warehouse(roles["loader"]).migrate()  # it does not wait for the reader, nor the reader for it
            assert last not in parts(connection)
            reader.execute("ROLLBACK")
            assert not Warehouse(roles["loader"]).migrate()
            assert last in parts(connection)
            assert not Warehouse(roles["loader"]).migrate()
            owners = "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname ~ '^_fact_payment'"
            assert connection.execute(owners).fetchall() == [(roles.names["owner"],)]


def test_a_login_that_may_not_partition_is_told_who_may(postgres_server: PostgresServer) -> None:
    url = postgres_server.database()
    with new_roles(url, url) as roles:
        roles.apply("warehouse_roles.sql")
        Warehouse(roles["owner"]).migrate()
        roles.apply("warehouse_grants.sql", roles["owner"])
        with pytest.raises(PlatformError, match="Run `totesys migrate` with the owner's login in WAREHOUSE_URL"):
            Warehouse(roles["loader"]).migrate(partition_from=FIRST)


def test_a_first_load_fills_the_months_and_takes_no_key_off(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "LARGE", 1)  # else keys would be made behind the rows
    Warehouse(platform.warehouse_url).migrate(partition_from=FIRST)
    platform.refresh()
    assert not [found for found in audit(platform.core) if not found.passed and not found.warning]
    with session(platform.warehouse_url) as connection:
        assert connection.execute("SELECT count(*) FROM _fact_payment_rest").fetchone() == (2,)
        assert Warehouse(platform.warehouse_url).migrate(partition_from=FIRST)
        assert connection.execute("SELECT count(*) FROM _fact_payment_2024_08").fetchone() == (2,)
        assert without_keys(connection, "public", catalogue()) == set()
        require_right(connection)


@pytest.mark.refreshed
def test_a_platform_goes_on_with_partitions_and_the_command_makes_them(platform: Platform) -> None:
    result = CliRunner().invoke(totesys, ["migrate", "--partition-facts"])
    assert result.exit_code == 0, result.output
    assert "its facts are partitioned by month (" in " ".join(result.output.split())
    platform.sql("UPDATE sales_order SET units_sold = 5; UPDATE payment SET paid = NOT paid")
    platform.refresh()
    platform.sql("DELETE FROM payment WHERE payment_id = 1")
    platform.refresh()
    assert not [found for found in audit(platform.core) if not found.passed and not found.warning]
    target = Warehouse(platform.warehouse_url, "again")
    restore(target, platform.lake)
    assert differing(platform.warehouse, target) == []
    with session(platform.warehouse_url) as connection:
        assert {"_fact_payment_2024_08", "_fact_payment_2024_09"} <= parts(connection)
        connection.execute("DROP TABLE fact_payment CASCADE")
        assert Warehouse(platform.warehouse_url).migrate()
        assert "_fact_payment_2024_08" in parts(connection)
    platform.refresh()
    assert differing(platform.warehouse, target) == []
