"""The roles of deploy/sql: the platform works with them, and they can do no more than they need."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import psycopg
import psycopg.conninfo
import pytest
from click.testing import CliRunner
from psycopg import sql

from totesys_assets.audit.findings import Finding
from totesys_assets.audit.noted import note_findings
from totesys_assets.catalogue.catalogue import catalogue
from totesys_assets.catalogue.views import views
from totesys_assets.commands import main
from totesys_assets.errors import PlatformError, UnsafeLogin
from totesys_assets.lake.tables import INGESTION
from totesys_assets.names import TOTESYS
from totesys_assets.source.totesys import Totesys
from totesys_assets.warehouse.superseded import superseded
from totesys_assets.warehouse.warehouse import Warehouse
from totesys_assets_tests.conftest import Platform, PostgresServer, make_platform
from totesys_assets_tests.harness.sql_files import FILES, apply

TABLES = catalogue()
FACTS = sorted(table.name for table in TABLES.star.values() if table.is_fact)
DIMENSIONS = sorted(table.name for table in TABLES.star.values() if not table.is_fact)
MARTS = sorted(TABLES.marts)
OF_FACTS = [f"{kind}_{fact.removeprefix('fact_')}" for kind in ("current", "history") for fact in FACTS]
VIEWS = [*OF_FACTS, "fact_purchase_orders", *(view.name for view in views())]
IN_TOTESYS = [name for name, table in TABLES.source.items() if table.group == TOTESYS]
KEPT = ("_recorded", "_design_sales", *(superseded(TABLES.star[fact]) for fact in FACTS))
NOTES = ("_ledger", "_migration", "_dead_letter", "_finding", "_followed", *KEPT)
SECRET = "out of a vault"
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def execute(url: str, statement: str | sql.Composed) -> list[tuple[object, ...]]:
    """Rows of a statement, if it has any, in a session of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(statement.encode() if isinstance(statement, str) else statement)
        return found.fetchall() if found.description else []


def login(url: str, role: str) -> str:
    """The URL for the role, which gets its password now."""
    execute(url, sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(SECRET)))
    return psycopg.conninfo.make_conninfo(url, user=role, password=SECRET)


def database(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def close_to_public(url: str) -> None:
    """What everybody may do by default hides what was forgotten to be granted."""
    name = sql.Identifier(database(url))
    execute(url, sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    execute(url, "REVOKE ALL ON SCHEMA public FROM PUBLIC")


@dataclass
class Roles:
    """Two databases, the names of the roles in them, and the URLs of those who log in."""

    source: str = field(repr=False)
    warehouse: str = field(repr=False)
    names: dict[str, str]
    schema: str = "public"

    def __getitem__(self, role: str) -> str:
        return login(self.source if role == "role" else self.warehouse, self.names[role])

    def apply(self, file: str, url: str | None = None) -> None:
        """Run one of the files with the roles' names, as a superuser unless ``url`` is another's."""
        if file == "source_reader.sql":
            apply(file, url or self.source, role=self.names["role"])
            return
        names = {role: self.names[role] for role in ("owner", "loader", "reader")}
        apply(file, url or self.warehouse, schema=self.schema, **names)

    def make(self) -> None:
        """All that the files say is to be done, from roles to grants."""
        self.apply("source_reader.sql")
        self.apply("warehouse_roles.sql")
        Warehouse(self["owner"], self.schema).migrate()
        self.apply("warehouse_grants.sql", self["owner"])


@contextmanager
def new_roles(source: str, warehouse: str, schema: str = "public") -> Iterator[Roles]:
    """Names for roles that are not made yet; what has been made of them is gone afterwards."""
    # As awkward as names can be: nothing in the files may rely on their being plain.
    names = {role: f'The "{role}" {os.urandom(4).hex()}' for role in ("role", "owner", "loader", "reader")}
    yield Roles(source, warehouse, names, schema)
    for name in names.values():
        if execute(source, sql.SQL("SELECT FROM pg_roles WHERE rolname = {}").format(sql.Literal(name))):
            role = sql.Identifier(name)
            for url in (source, warehouse):
                execute(url, sql.SQL("DROP OWNED BY {} CASCADE").format(role))
            execute(source, sql.SQL("DROP ROLE {}").format(role))


@contextmanager
def secured(
    postgres_server: PostgresServer, trade_template: str, folder: Path, schema: str = "public"
) -> Iterator[tuple[Platform, Roles]]:
    """A platform that logs in as the source's reader and the warehouse's loader; nothing refreshed yet."""
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    warehouse = postgres_server.database()
    for url in (source, warehouse):
        close_to_public(url)
    execute(source, "CREATE TABLE salary (staff_id int)")
    with new_roles(source, warehouse, schema) as roles:
        roles.make()
        with make_platform(
            roles["role"], roles["loader"], folder, TOTESYS_ALLOW_SUPERUSER="", WAREHOUSE_SCHEMA=schema
        ) as platform:
            yield platform, roles


@pytest.fixture(scope="module")
def loaded(
    postgres_server: PostgresServer, trade_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Roles]:
    """The roles around a platform that has loaded everything; no test may change anything."""
    with secured(postgres_server, trade_template, tmp_path_factory.mktemp("loaded")) as (platform, roles):
        platform.refresh()
        yield roles


@pytest.fixture
def roles(postgres_server: PostgresServer, platform: Platform) -> Iterator[Roles]:
    """Roles to be made for the databases of ``platform``, whose own logins are a superuser's."""
    with new_roles(platform.totesys_url, platform.warehouse_url) as made:
        yield made


def denied(url: str, statement: str, *, before: str = "") -> None:
    with psycopg.connect(url) as connection:
        connection.execute(before.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def rights(url: str, role: str) -> dict[str, set[str]]:
    """What the role may do, by table and view of ours; those on which it may do nothing are left out."""
    query = sql.SQL(
        "SELECT relname, array_agg(privilege) FROM pg_class, unnest({}::text[]) AS privilege "
        "WHERE relkind IN ('r', 'v') AND relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname !~ '^(pg_|info)') "
        "AND has_table_privilege({}, pg_class.oid, privilege) GROUP BY 1"
    ).format(sql.Literal(list(PRIVILEGES)), sql.Literal(role))
    return {str(name): set(held) for name, held in execute(url, query)}  # type: ignore[call-overload]  # an array


# The whole pipeline


def test_everything_is_captured_and_loaded_with_these_logins_and_no_other(
    postgres_server: PostgresServer, trade_template: str, tmp_path: Path
) -> None:
    with secured(postgres_server, trade_template, tmp_path) as (platform, roles):
        platform.refresh()
        assert platform.look().stale == {}
        assert platform.query("SELECT sales_record_id, units_sold FROM fact_sales_order") == [(1, 1001)]
        assert platform.query("SELECT count(*) FROM fact_payment") == [(2,)]
        execute(roles.source, "UPDATE sales_order SET units_sold = 7")
        execute(roles.source, "UPDATE design SET design_name = 'Steel'")
        execute(roles.source, "DELETE FROM payment WHERE payment_id = 2")
        platform.refresh()
        assert platform.look().stale == {}
        assert platform.query("SELECT sales_record_id, units_sold FROM fact_sales_order ORDER BY 1") == [
            (1, 1001),
            (2, 7),
        ]
        assert platform.query("SELECT design_name FROM dim_design") == [("Steel",)]
        assert platform.query("SELECT payment_id FROM current_payment") == [(1,)]
        assert platform.query(
            "SELECT _operation FROM fact_payment WHERE payment_id = 2 ORDER BY payment_record_id"
        ) == [
            ("insert",),
            ("delete",),
        ]
        written = platform.warehouse.loaded()
        assert platform.refresh() == []
        assert platform.warehouse.loaded() == written


@pytest.mark.thorough
def test_schemas_may_have_other_names(postgres_server: PostgresServer, trade_template: str, tmp_path: Path) -> None:
    source = postgres_server.template(f"totesys_{os.urandom(4).hex()}", trade_template)
    execute(source, 'ALTER SCHEMA public RENAME TO "Back office"')
    with new_roles(source, postgres_server.database(), 'The "star"') as roles:
        apply("source_reader.sql", source, role=roles.names["role"], schema="Back office")
        roles.apply("warehouse_roles.sql")
        Warehouse(roles["owner"], roles.schema).migrate()
        roles.apply("warehouse_grants.sql", roles["owner"])
        with make_platform(
            roles["role"],
            roles["loader"],
            tmp_path,
            TOTESYS_ALLOW_SUPERUSER="0",
            TOTESYS_SCHEMA="Back office",
            WAREHOUSE_SCHEMA=roles.schema,
        ) as platform:
            platform.refresh()
            assert platform.look().stale == {}
        assert execute(roles["reader"], "SELECT units_sold FROM current_sales_order") == [(1001,)]


# The source's reader


def test_the_source_reader_may_read_the_eleven_tables_and_do_nothing_else(loaded: Roles) -> None:
    assert rights(loaded.source, loaded.names["role"]) == {name: {"SELECT"} for name in IN_TOTESYS}
    assert len(IN_TOTESYS) == 11


def test_the_source_reader_cannot_write_even_when_it_leaves_read_only_mode(loaded: Roles) -> None:
    url = loaded["role"]
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("CREATE TABLE note (id int)")
    writable = "SET default_transaction_read_only = off; COMMIT; BEGIN READ WRITE"
    for table in IN_TOTESYS:
        for statement in (
            f"INSERT INTO {table} DEFAULT VALUES",
            f"UPDATE {table} SET last_updated = now()",
            f"DELETE FROM {table}",
            f"TRUNCATE {table} CASCADE",
            f"LOCK TABLE {table} IN SHARE MODE",
        ):
            denied(url, statement, before=writable)
    for statement in (
        "CREATE TABLE note (id int)",
        "CREATE SCHEMA notes",
        "SELECT setval('payment_payment_id_seq', 1)",
    ):
        denied(url, statement, before=writable)
    denied(url, "SELECT * FROM salary")


def test_the_source_reader_is_limited_in_connections_and_time(loaded: Roles) -> None:
    (row,) = execute(
        loaded.source,
        sql.SQL(
            "SELECT rolinherit, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls, "
            "rolconnlimit FROM pg_roles WHERE rolname = {}"
        ).format(sql.Literal(loaded.names["role"])),
    )
    assert row == (False, False, 10)
    with psycopg.connect(loaded["role"]) as connection:
        settings = ("default_transaction_read_only", "statement_timeout", "idle_in_transaction_session_timeout")
        found = [connection.execute("SELECT current_setting(%s)", [name]).fetchone() for name in settings]
        assert found == [("on",), ("1h",), ("1h",)]
        assert connection.execute("SHOW lock_timeout").fetchone() == ("1min",)


def test_the_files_make_logins_that_nobody_can_use_before_they_have_a_password(roles: Roles) -> None:
    roles.apply("source_reader.sql")
    roles.apply("warehouse_roles.sql")
    names = sql.Literal(list(roles.names.values()))
    query = sql.SQL("SELECT count(*), count(rolpassword) FROM pg_authid WHERE rolname = ANY({})").format(names)
    assert execute(roles.source, query) == [(4, 0)]


def test_what_was_granted_to_the_source_reader_by_hand_is_taken_back(roles: Roles) -> None:
    roles.apply("source_reader.sql")
    execute(roles.source, "CREATE SCHEMA more CREATE TABLE salary (staff_id int)")
    name = sql.Identifier(roles.names["role"])
    execute(roles.source, sql.SQL("GRANT ALL ON payment, more.salary TO {}").format(name))
    roles.apply("source_reader.sql")
    assert rights(roles.source, roles.names["role"]) == {name: {"SELECT"} for name in IN_TOTESYS}


@pytest.mark.thorough
def test_a_refresh_takes_no_more_connections_than_the_limit_was_reckoned_with(
    postgres_server: PostgresServer, trade_template: str, tmp_path: Path
) -> None:
    with secured(postgres_server, trade_template, tmp_path) as (platform, roles):
        others = ", ".join(list(TABLES.source["sales_order"].by_name)[1:])
        execute(
            roles.source,
            f"INSERT INTO sales_order SELECT n + 1, {others} FROM sales_order, generate_series(1, 20000) AS n",
        )
        counts: list[int] = []
        done = Event()

        def watch() -> None:
            query = sql.SQL("SELECT count(*) FROM pg_stat_activity WHERE usename = {}")
            with psycopg.connect(roles.source, autocommit=True) as connection:
                while not done.wait(0.01):
                    row = connection.execute(query.format(sql.Literal(roles.names["role"]))).fetchone()
                    counts.append(int(str(row[0])) if row else 0)

        watcher = Thread(target=watch)
        watcher.start()
        try:
            platform.refresh()
        finally:
            done.set()
            watcher.join()
        assert 1 <= max(counts) <= 2


@pytest.mark.refreshed
def test_rows_hidden_from_the_source_reader_are_a_problem_and_not_deletions(
    platform: Platform, roles: Roles, tmp_path: Path
) -> None:
    roles.apply("source_reader.sql")
    platform.sql("ALTER TABLE sales_order ENABLE ROW LEVEL SECURITY")
    platform.sql("CREATE POLICY nothing ON sales_order USING (false)")
    with make_platform(
        roles["role"], platform.warehouse_url, tmp_path, TOTESYS_ALLOW_SUPERUSER="", LAKE_URI=platform.lake.uri
    ) as restricted:
        (problem,) = restricted.look().problems
    assert 'Row-level security of table "sales_order" may hide rows' in str(problem)
    assert platform.query("SELECT count(*) FROM current_sales_order") == [(1,)]


# Superusers


def test_a_superuser_is_refused_before_anything_is_read_and_told_what_to_do(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTESYS_ALLOW_SUPERUSER", "")
    for command in ("refresh", "status"):
        result = CliRunner().invoke(main, [command])
        assert result.exit_code == 1
        said = " ".join(result.output.split())
        assert "✗ The login of TOTESYS_URL is a superuser or may become one" in said
        assert "with deploy/sql/source_reader.sql and log in as that, or set TOTESYS_ALLOW_SUPERUSER=1." in said
    held = [platform.lake.find(INGESTION, name) for name in IN_TOTESYS]
    assert not any(table.to_pyarrow_table().num_rows for table in held if table is not None)
    monkeypatch.setenv("TOTESYS_ALLOW_SUPERUSER", "1")
    assert CliRunner().invoke(main, ["status"]).exit_code == 0


def test_a_run_is_refused_a_superuser_too(platform: Platform, tmp_path: Path) -> None:
    (request, *_) = platform.look().requests
    with make_platform(platform.totesys_url, platform.warehouse_url, tmp_path, TOTESYS_ALLOW_SUPERUSER="") as strict:
        outcome = strict.run(request)
    assert not outcome.success
    assert any("is a superuser or may become one" in failure for failure in outcome.failures)


def test_a_login_that_may_become_a_superuser_is_one(roles: Roles) -> None:
    roles.apply("source_reader.sql")
    url = roles["role"]
    with Totesys(url).snapshot() as snapshot:
        assert snapshot.text
    group = f"operators_{os.urandom(4).hex()}"
    execute(roles.source, f"CREATE ROLE {group} SUPERUSER")
    execute(roles.source, sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(roles.names["role"])))
    try:
        with pytest.raises(UnsafeLogin), Totesys(url).snapshot():
            pass
        with Totesys(url, allow_superuser=True).snapshot() as snapshot:
            assert snapshot.text
    finally:
        execute(roles.source, f"DROP ROLE {group}")


# The warehouse's roles


def test_the_loader_adds_to_facts_and_brings_dimensions_and_the_ledger_up_to_date(loaded: Roles) -> None:
    assert rights(loaded.warehouse, loaded.names["loader"]) == {
        **{name: {"SELECT", "INSERT"} for name in FACTS},
        **{name: {"SELECT", "INSERT", "UPDATE"} for name in (*DIMENSIONS, "_ledger", "_dead_letter")},
        **{name: {"SELECT", "INSERT", "UPDATE", "DELETE"} for name in (*MARTS, "_finding", "_followed")},
        **{name: {"SELECT"} for name in (*VIEWS, "_migration", *KEPT)},
    }


def test_a_login_that_may_load_needs_no_rights_on_what_triggers_keep_and_cannot_use_their_functions(
    loaded: Roles,
) -> None:
    with psycopg.connect(loaded["loader"]) as connection:
        connection.execute("UPDATE dim_design SET design_name = 'Gold'")
        found = connection.execute("SELECT DISTINCT design_name FROM _design_sales").fetchall()
        connection.rollback()
    assert found == [("Gold",)]
    denied(
        loaded["loader"],
        "CREATE TRIGGER counted AFTER INSERT ON own REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_fact_payment()",
        before="CREATE TEMP TABLE own (LIKE fact_payment)",
    )


def test_the_loader_replaces_the_rows_of_marts(roles: Roles) -> None:
    roles.make()
    execute(roles["owner"], "CREATE TABLE mart_of_ours (created_date date PRIMARY KEY)")
    roles.apply("warehouse_grants.sql", roles["owner"])
    held = rights(roles.warehouse, roles.names["loader"])["mart_of_ours"]
    assert held == {"SELECT", "INSERT", "UPDATE", "DELETE"}
    assert rights(roles.warehouse, roles.names["reader"])["mart_of_ours"] == {"SELECT"}


def test_the_loader_cannot_change_or_remove_what_was_recorded(loaded: Roles) -> None:
    url = loaded["loader"]
    for fact in FACTS:
        for statement in (
            f"UPDATE {fact} SET _operation = 'delete'",
            f"DELETE FROM {fact}",
            f"TRUNCATE {fact}",
            f"ALTER TABLE {fact} DROP COLUMN _operation",
            f"DROP TABLE {fact} CASCADE",
        ):
            denied(url, statement)
    for table in (*DIMENSIONS, "_ledger", "_migration", "_dead_letter"):
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"DROP TABLE {table}"):
            denied(url, statement)
    denied(url, "INSERT INTO _migration VALUES ('x')")
    denied(url, "UPDATE fact_purchase_orders SET item_quantity = 0")
    denied(url, "DROP VIEW current_sales_order")
    denied(url, "CREATE TABLE more (id int)")
    denied(url, "CREATE SCHEMA more")


def test_the_reader_reads_tables_and_views_and_writes_nothing(loaded: Roles) -> None:
    url = loaded["reader"]
    everything = (*FACTS, *DIMENSIONS, *MARTS, *VIEWS, *NOTES)
    assert rights(loaded.warehouse, loaded.names["reader"]) == {name: {"SELECT"} for name in everything}
    assert execute(url, "SELECT units_sold FROM current_sales_order") == [(1001,)]
    assert execute(url, "SELECT DISTINCT open_rows FROM _dead_letter") == [(0,)]
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("CREATE TABLE more (id int)")
    writable = "SET default_transaction_read_only = off; COMMIT; BEGIN READ WRITE"
    for statement in (
        "INSERT INTO dim_currency VALUES (9, 'x', 'x', false, now())",
        "UPDATE dim_currency SET currency_code = 'x'",
        "DELETE FROM fact_sales_order",
        "CREATE TABLE more (id int)",
        "CREATE TEMP TABLE more (id int)",
    ):
        denied(url, statement, before=writable)


def test_what_the_audit_found_is_noted_by_the_loader_and_read_by_the_reader(roles: Roles) -> None:
    roles.make()
    for detail in ("1 row differs", "2 rows differ"):
        found = [Finding("warehouse/dim_date", "records_equal_lake", False, detail)]
        assert note_findings(Warehouse(roles["loader"]), found, whole=True) is None
        assert execute(roles["reader"], "SELECT detail FROM _finding") == [(detail,)]


@pytest.mark.pure
def test_the_roles_file_names_every_view_for_people() -> None:
    (listed,) = re.findall(r"relkind = 'v' AND relname IN \((.+?)\)", (FILES / "warehouse_roles.sql").read_text())
    assert re.findall(r"'(\w+)'", listed) == sorted(view.name for view in views())


def test_nothing_belongs_to_anybody_but_the_owner_and_nothing_is_granted_to_public(loaded: Roles) -> None:
    owners = execute(
        loaded.warehouse,
        "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    )
    assert owners == [('"' + loaded.names["owner"].replace('"', '""') + '"',)]
    granted = execute(
        loaded.warehouse,
        "SELECT relname FROM pg_class, aclexplode(relacl) AS held WHERE held.grantee = 0 "
        "AND relnamespace = 'public'::regnamespace",
    )
    assert granted == []


ACCESS = """
SELECT 'relation', relname, relowner, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'schema', nspname, nspowner, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_'
UNION ALL SELECT 'database', datname, datdba, datacl::text FROM pg_database WHERE datname = current_database()
UNION ALL SELECT 'default', '', defaclrole, defaclacl::text FROM pg_default_acl
UNION ALL SELECT 'role', rolname || rolcanlogin || rolinherit || rolconnlimit, oid, rolconfig::text FROM pg_roles
UNION ALL SELECT 'member', member::text, roleid, admin_option::text FROM pg_auth_members
ORDER BY 1, 2, 3, 4
"""


def test_the_files_can_be_run_again_and_change_nothing(loaded: Roles) -> None:
    for url, files in (
        (loaded.source, ["source_reader.sql"]),
        (loaded.warehouse, ["warehouse_roles.sql", "warehouse_grants.sql"]),
    ):
        before = execute(url, ACCESS)
        for file in files:
            loaded.apply(file)
        assert execute(url, ACCESS) == before


def test_the_files_have_names_of_their_own_for_the_roles(platform: Platform) -> None:
    names = ["totesys_reader", "warehouse_loader", "warehouse_owner", "warehouse_reader"]
    try:
        apply("source_reader.sql", platform.totesys_url)
        apply("warehouse_roles.sql", platform.warehouse_url)
        Warehouse(login(platform.warehouse_url, "warehouse_owner")).migrate()
        apply("warehouse_grants.sql", login(platform.warehouse_url, "warehouse_owner"))
        query = "SELECT rolname FROM pg_roles WHERE rolname ~ '^(totesys|warehouse)_' ORDER BY 1"
        assert execute(platform.totesys_url, query) == [(name,) for name in names]
        assert rights(platform.warehouse_url, "warehouse_loader")["fact_payment"] == {"SELECT", "INSERT"}
    finally:
        for url in (platform.totesys_url, platform.warehouse_url):
            for name in names:
                execute(url, f"DROP OWNED BY {name} CASCADE")
        execute(platform.totesys_url, f"DROP ROLE {', '.join(names)}")


def test_a_table_made_later_can_be_read_at_once_and_written_after_the_grants(roles: Roles) -> None:
    roles.make()
    owner = roles["owner"]
    execute(owner, "CREATE TABLE dim_new (id int); CREATE TABLE fact_new (id int)")
    for role in ("loader", "reader"):
        assert rights(roles.warehouse, roles.names[role])["fact_new"] == {"SELECT"}
    by_hand = sql.SQL("GRANT ALL ON fact_new TO {}").format(sql.Identifier(roles.names["loader"]))
    execute(owner, by_hand)  # taken back by the file, which says all that is to be
    roles.apply("warehouse_grants.sql", owner)
    held = rights(roles.warehouse, roles.names["loader"])
    assert (held["dim_new"], held["fact_new"]) == ({"SELECT", "INSERT", "UPDATE"}, {"SELECT", "INSERT"})


def test_what_others_keep_in_the_schema_is_not_given_away(roles: Roles) -> None:
    execute(roles.warehouse, "CREATE TABLE fact_of_others (id int); CREATE TABLE others (id int)")
    execute(roles.warehouse, "ALTER TABLE fact_of_others RENAME TO not_ours")
    roles.make()
    for role in ("loader", "reader"):
        assert rights(roles.warehouse, roles.names[role]).keys().isdisjoint({"not_ours", "others"})


# Migrating


def migrate(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setenv("WAREHOUSE_URL", url)
    result = CliRunner().invoke(main, ["migrate"])
    return result.exit_code, " ".join(result.output.split())


def test_the_owner_migrates_and_the_loader_is_told_to_let_it(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    roles.apply("warehouse_roles.sql")
    code, text = migrate(roles["loader"], monkeypatch)
    assert code == 1
    assert 'The login of WAREHOUSE_URL may not create or change the warehouse in schema "public": ' in text
    assert "Run `totesys migrate` with the owner's login in WAREHOUSE_URL" in text
    code, text = migrate(roles["owner"], monkeypatch)
    assert (code, text.partition(" (")[0]) == (0, "✓ The warehouse was brought up to date")
    assert SECRET not in text
    code, text = migrate(roles["owner"], monkeypatch)
    assert (code, text.partition(" (")[0]) == (0, "✓ Nothing to do: the warehouse is up to date")
    assert migrate(roles["loader"], monkeypatch)[0] == 0
    execute(roles.warehouse, "DELETE FROM _migration")  # as after an upgrade of the platform
    code, text = migrate(roles["loader"], monkeypatch)
    assert (code, "Run `totesys migrate`" in text) == (1, True)


def test_migrating_a_warehouse_of_ones_own_starts_nothing_embedded(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TOTESYS_URL", "DAGSTER_HOME"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("TOTESYS_HOME", str(tmp_path / "none"))
    assert migrate(roles.warehouse, monkeypatch)[0] == 0
    assert not (tmp_path / "none").exists()


def test_a_loader_without_its_grants_is_told_which_file_to_run(roles: Roles) -> None:
    roles.apply("warehouse_roles.sql")
    Warehouse(roles["owner"]).migrate()
    execute(roles.warehouse, sql.SQL("REVOKE ALL ON _ledger FROM {}").format(sql.Identifier(roles.names["loader"])))
    with pytest.raises(PlatformError, match=r"permission denied for table _ledger\. Run deploy/sql/warehouse_grants"):
        Warehouse(roles["loader"]).mark()


@pytest.mark.parametrize("name", ["fact_payment", "mart_sales_day"])
def test_a_load_without_grants_tells_which_file_to_run(
    postgres_server: PostgresServer, trade_template: str, tmp_path: Path, name: str
) -> None:
    with secured(postgres_server, trade_template, tmp_path) as (platform, roles):
        table, loader = sql.Identifier(name), sql.Identifier(roles.names["loader"])
        execute(roles.warehouse, sql.SQL("REVOKE INSERT ON {} FROM {}").format(table, loader))
        failures = [str(failure) for request in platform.look().requests for failure in platform.run(request).failures]
    expected = f"permission denied for table {name}. Run deploy/sql/warehouse_grants.sql as the owner."
    assert any(expected in failure for failure in failures), failures


@pytest.mark.refreshed
def test_what_one_login_has_made_so_far_becomes_the_owners_and_stays_as_it_is(
    platform: Platform, roles: Roles, tmp_path: Path
) -> None:
    before = platform.query("SELECT ctid::text, * FROM fact_payment ORDER BY 1")
    execute(roles.warehouse, "CREATE TABLE somebody_elses (id int)")
    roles.make()
    query = "SELECT relowner = (SELECT oid FROM pg_roles WHERE rolname = {}) FROM pg_class WHERE relname = {}"
    ours = (*FACTS, *DIMENSIONS, *MARTS, *VIEWS, *NOTES)
    for name, taken in (*((name, True) for name in ours), ("somebody_elses", False)):
        statement = sql.SQL(query).format(sql.Literal(roles.names["owner"]), sql.Literal(name))
        assert execute(roles.warehouse, statement) == [(taken,)]
    platform.sql("UPDATE payment SET paid = true WHERE payment_id = 1")
    with make_platform(platform.totesys_url, roles["loader"], tmp_path, LAKE_URI=platform.lake.uri) as restricted:
        restricted.refresh()
    after = platform.query("SELECT ctid::text, * FROM fact_payment ORDER BY 1")
    assert (after[:2], len(after)) == (before, 3)


def test_no_superuser_is_needed_where_there_is_none(roles: Roles) -> None:
    """As on a managed server: a login that owns the databases and may create roles."""
    name = f"admin_{os.urandom(4).hex()}"
    execute(roles.source, f"CREATE ROLE {name} LOGIN CREATEROLE")
    try:
        for url in (roles.source, roles.warehouse):
            execute(url, f"ALTER DATABASE {database(url)} OWNER TO {name}")
        for table in IN_TOTESYS:
            execute(roles.source, f"ALTER TABLE {table} OWNER TO {name}")
        source, warehouse = login(roles.source, name), login(roles.warehouse, name)
        Warehouse(warehouse).migrate()  # one login for everything, so far
        for _ in range(2):
            roles.apply("source_reader.sql", source)
            roles.apply("warehouse_roles.sql", warehouse)
            Warehouse(roles["owner"]).migrate()
            roles.apply("warehouse_grants.sql", roles["owner"])
        assert rights(roles.source, roles.names["role"]) == {table: {"SELECT"} for table in IN_TOTESYS}
        assert rights(roles.warehouse, roles.names["loader"])["fact_payment"] == {"SELECT", "INSERT"}
        owner = roles.names["owner"]
        privilege = sql.SQL("SELECT has_database_privilege({}, current_database(), 'CREATE')").format(
            sql.Literal(owner)
        )
        assert execute(roles.warehouse, privilege) == [(False,)]
        functions = "SELECT DISTINCT pg_get_userbyid(proowner)::text FROM pg_proc WHERE proname LIKE 'keep\\_%'"
        assert execute(roles.warehouse, functions) == [(owner,)]
    finally:
        for url in (roles.source, roles.warehouse):
            execute(url, f"REASSIGN OWNED BY {name} TO CURRENT_USER")
            for role in roles.names.values():
                execute(url, sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
            execute(url, f"DROP OWNED BY {name} CASCADE")
        for role in roles.names.values():
            execute(roles.source, sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        execute(roles.source, f"DROP ROLE {name}")


def test_the_loader_may_fill_a_schema_that_was_made_for_it_and_is_told_so_before(roles: Roles) -> None:
    roles.apply("warehouse_roles.sql", roles.warehouse)
    url = roles["loader"]
    with pytest.raises(
        PlatformError, match=r'no schema "again".*CREATE SCHEMA "again" AUTHORIZATION ".+"; then'
    ) as refused:
        Warehouse(url, "again").migrate()
    statement = str(refused.value).partition("run: ")[2].partition("; then")[0]
    execute(roles.warehouse, statement)
    assert Warehouse(url, "again").migrate()
