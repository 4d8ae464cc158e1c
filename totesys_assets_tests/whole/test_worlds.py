"""The same story in every kind of world: what ToteSys went through is in the warehouse, each state once.

One function is the story. A world is a way to reach ToteSys and the warehouse: with hostile defaults of roles, of
databases and of the environment, in other encodings, behind a pooler, against a standby, with other kinds of tables, in
another schema, on another version of PostgreSQL. Each is compared with the model, and with what the audit says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from totesys_assets.catalogue.catalogue import ddl
from totesys_assets.days import partition_range
from totesys_assets.local.postgres import EmbeddedServer
from totesys_assets_tests.conftest import PostgresServer
from totesys_assets_tests.harness.servers import HOSTILE, alter_database
from totesys_assets_tests.harness.source import Observer
from totesys_assets_tests.harness.world import Site, Tally, World, trade

DAYS = 8
# What libpq reads of a process's environment. Where the servers are is said by the URLs, and by nothing else.
ENVIRONMENT = {
    "PGTZ": "Asia/Kolkata",
    "PGDATESTYLE": "SQL, DMY",
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in HOSTILE.items()),
    "PGTARGETSESSIONATTRS": "any",
    "PGAPPNAME": "somebody",
    "PGHOST": "nowhere.invalid",
    "PGPORT": "1",
    "PGDATABASE": "nowhere",
    "PGUSER": "nobody",
    "PGPASSWORD": "wrong",
    "PGCONNECT_TIMEOUT": "3",
    "PGGEQO": "off",
}
# Text that shows it when a byte was taken for another.
UNICODE = "Łódź 東京 👜 e\u0301 C:\\new\\'\\"


@dataclass
class Setting:
    """What there is to make worlds of, and what is to be ended with them."""

    server: PostgresServer
    folder: Path
    stack: ExitStack
    request: pytest.FixtureRequest
    first_day: str = str(datetime.now(UTC).date() - timedelta(days=DAYS))

    def pooled(self, *urls: str) -> list[str]:
        pooler: Callable[..., list[str]] = self.request.getfixturevalue("pooler")
        return pooler(*urls)


@dataclass(frozen=True)
class Kind:
    """A kind of world, by what is other than usual in it."""

    name: str
    role: Mapping[str, str] = field(default_factory=dict)
    database: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    text: str = UNICODE
    bad_text: str | None = None
    pooled: str = ""
    standby: bool = False
    tables: str = ""
    schema: str = "public"
    other_version: bool = False


LATIN = "Málaga ÿ ß \\'\\"
# It has nearly everything that can be other than usual.
KINDS = [
    Kind(
        "with all of it on another version of PostgreSQL",
        other_version=True,
        encoding="LATIN1",
        text=LATIN,
        role=HOSTILE,
        tables="partitioned",
        schema="shop",
        pooled="source warehouse",
    ),
]
# Nearly each has one thing by itself, so that `make soak` says which one it was.
MORE_KINDS = [
    Kind("with a standby as ToteSys, in a hostile environment", standby=True, environment=ENVIRONMENT),
    Kind("plain"),
    Kind("in a hostile environment", environment=ENVIRONMENT),
    Kind("with a standby as ToteSys", standby=True),
    Kind("with hostile roles", role=HOSTILE),
    Kind("with hostile databases", database=HOSTILE),
    Kind("in LATIN1", encoding="LATIN1", text=LATIN),
    Kind("in SQL_ASCII", encoding="SQL_ASCII", bad_text="M\udce1laga"),
    Kind("with both behind a pooler and hostile databases", pooled="source warehouse", database=HOSTILE),
    Kind("with tables partitioned by created_at", tables="partitioned"),
    Kind("in another schema", schema="shop"),
    Kind("on another version of PostgreSQL", other_version=True),
    Kind("in WIN1252", encoding="WIN1252", text=LATIN + " € “Œuvre”", bad_text="a\udc81b"),
    Kind("in EUC_JP", encoding="EUC_JP", text="東京都 ソ能 かばん \\'\\"),
    Kind("with ToteSys behind a pooler", pooled="source"),
    Kind("with the warehouse behind a pooler", pooled="warehouse"),
    Kind("with tables that have inherited children", tables="inherited"),
]


@pytest.fixture
def setting(postgres_server: PostgresServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Setting]:
    with ExitStack() as stack:
        yield Setting(postgres_server, tmp_path, stack, request)


def by_name(kind: Kind) -> str:
    return kind.name


@pytest.mark.parametrize(
    "kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.thorough) for kind in MORE_KINDS)], ids=by_name
)
def test_what_totesys_went_through_is_in_the_warehouse(
    kind: Kind, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(kind, setting, monkeypatch)


@pytest.mark.thorough
@pytest.mark.parametrize(("where", "settings"), [("role", HOSTILE), ("environment", ENVIRONMENT)], ids=["role", "env"])
def test_no_setting_by_itself_changes_anything(
    where: str, settings: Mapping[str, str], setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(Kind("plain"), setting) as world:
        world.refresh()
        for name, value in settings.items():
            with monkeypatch.context() as patch:
                if where == "environment":
                    patch.setenv(name, value)
                else:
                    alter_login(world.source_url, world.site.source, {name: value})
                    alter_login(world.warehouse_url, world.site.warehouse, {name: value})
                world.warehouse.close()  # its sessions began before
                world.sql(
                    f"UPDATE sales_order SET units_sold = units_sold + 1; UPDATE address SET city = '{quoted(UNICODE)} "
                    f"{name}'; UPDATE purchase_order SET created_at = created_at + interval '1 second'"
                )
                try:
                    world.refresh()
                except AssertionError as error:
                    error.add_note(f"with {name} = {value}")
                    raise
        world.check_everything()
        world.check_audit()


def tell(kind: Kind, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(kind, setting) as world:
        for name, value in kind.environment.items():
            monkeypatch.setenv(name, value)
        story(world, kind)


def story(world: World, kind: Kind) -> None:
    """All that happens to rows, with what should and what should not be seen of it."""
    days = [str(world.days.first + timedelta(days=number)) for number in range(DAYS)]
    began = datetime.now(UTC)
    world.refresh()
    with world.writer() as slow, world.writer() as slowest:
        # Both are under way while others commit and are captured. That the oldest one stays the same while the other
        # comes to an end is what a standby's snapshot does not show.
        slowest.run("BEGIN; UPDATE department SET location = 'Leeds' WHERE department_id = 1")
        slow.run("BEGIN; UPDATE design SET design_name = 'late' WHERE design_id = 1")
        slow.run(f"UPDATE transaction SET created_at = '{days[6]} 11:00' WHERE transaction_id = 2")
        world.sql("UPDATE sales_order SET units_sold = units_sold + 1")  # says nothing of itself
        world.sql(
            f"INSERT INTO sales_order VALUES (2, '{days[4]} 10:00', '{days[4]} 10:00', 1, 1, 1, 5, 9.99, 1, "
            f"'2024-09-01', '2024-09-02', 1), (3, '{days[5]} 10:00', '{days[5]} 10:00', 1, 1, 1, 5, 9.99, 1, 'soon', "
            "'2024-09-02', 1)"
        )
        world.sql("DELETE FROM payment WHERE payment_id = 1")
        world.sql("UPDATE payment SET created_at = 'infinity'")
        world.sql("UPDATE purchase_order SET created_at = created_at + interval '3 days'")
        world.sql(f"UPDATE address SET city = '{quoted(kind.text)}', district = '{quoted(kind.text)}'")
        world.sql(f"UPDATE purchase_order SET item_code = '{quoted(kind.text)}'")
        if kind.bad_text:
            world.sql(f"INSERT INTO design VALUES (9, now(), '{kind.bad_text}', '{kind.bad_text}', '/', now())")
        world.refresh()
        world.look()  # nothing to do, which the next look is told
        slow.run("COMMIT")
        world.site.settle()
        world.refresh()
        slowest.run("COMMIT")
    world.sql("UPDATE sales_order SET agreed_delivery_date = '2024-09-01'")
    world.sql(f"UPDATE payment SET created_at = '{days[1]} 12:00'")
    world.sql("DELETE FROM sales_order WHERE sales_order_id = 2")
    world.refresh()
    world.check_everything()
    world.check_audit()
    require_right_moments(world, began)
    found = world.reader(
        "SELECT city, district FROM dim_location UNION SELECT item_code, item_code FROM fact_purchase_order"
    )
    assert (kind.text, kind.text) in found


def quoted(text: str) -> str:
    return text.replace("'", "''")


def require_right_moments(world: World, began: datetime) -> None:
    """Moments are moments, whatever zone a session believes to be in."""
    for fact in ("fact_sales_order", "fact_payment"):
        rows = world.reader(f"SELECT min(_recorded_at)::text, max(_recorded_at)::text FROM {fact}")
        moments = [datetime.fromisoformat(str(text)) for text in rows[0]]
        assert began - timedelta(minutes=1) < moments[0] <= moments[1] < datetime.now(UTC) + timedelta(minutes=1)


# Making worlds


@contextmanager
def opened(kind: Kind, setting: Setting) -> Iterator[World]:
    """A world of that kind, in which ToteSys has the first trade, and nothing was refreshed yet."""
    name = os.urandom(4).hex()
    server = setting.request.getfixturevalue("other_postgres") if kind.other_version else setting.server
    warehouse = server.database(f"warehouse_{name}")
    settle = at_once
    if kind.standby:
        primary, standby = setting.request.getfixturevalue("standby")
        primary.create_database(f"source_{name}")
        source = primary.url(f"source_{name}")
        settle = standby.catch_up
    else:
        source = server.database(f"source_{name}", encoding=kind.encoding)
    fill(source, kind, setting.first_day)
    reader, loader = role(source, f"reader_{name}"), role(warehouse, f"loader_{name}")
    with Observer(source) as observer:
        observer.run(f"GRANT USAGE ON SCHEMA {kind.schema} TO reader_{name}")
        observer.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA {kind.schema} TO reader_{name}")
    with Observer(warehouse) as observer:
        observer.run(f"ALTER SCHEMA public OWNER TO loader_{name}")
    for url, login in ((source, f"reader_{name}"), (warehouse, f"loader_{name}")):
        alter_database(url, kind.database)
        alter_role(url, login, kind.role)
    if "source" in kind.pooled:
        [reader] = setting.pooled(reader)
    if "warehouse" in kind.pooled:
        [loader] = setting.pooled(loader)
    shown = source
    if kind.standby:
        settle()
        shown = moved(source, standby)
        reader = moved(reader, standby)
    site = Site(shown, warehouse, source, kind.schema, settle)
    days = partition_range(datetime.fromisoformat(setting.first_day).date())
    world = World(setting.folder / "lake", reader, loader, days, Tally(), site)
    try:
        yield world
    finally:
        world.close()


def at_once() -> None:
    """What is committed shows without waiting."""


def fill(source: str, kind: Kind, first_day: str) -> None:
    """The tables of ToteSys, as the kind of world has them, with the first trade."""
    with Observer(source) as observer:
        if kind.schema != "public":
            # What is found by accident: tables of the same names, of the same structure, without a row.
            observer.run(ddl("totesys.sql"))
            observer.run(f"CREATE SCHEMA {kind.schema}")
    with Observer(source, kind.schema) as observer:
        observer.run(ddl("totesys.sql"))
        observer.run(trade(datetime.fromisoformat(first_day).date()))
        if kind.tables:
            for table in ("sales_order", "purchase_order", "transaction", "payment"):
                observer.run(
                    TABLES[kind.tables].format(table=table, split=f"'{first_day}'::timestamp + interval '2 days'")
                )


# Of each: rows in several relations, and one relation more, that is empty.
TABLES = {
    "partitioned": """
        ALTER TABLE {table} RENAME TO {table}_before;
        CREATE TABLE {table} (LIKE {table}_before INCLUDING DEFAULTS) PARTITION BY RANGE (created_at);
        DO $$ BEGIN
            EXECUTE format('CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM (MINVALUE) TO (%L)', {split});
            EXECUTE format('CREATE TABLE {table}_2 PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)',
                {split}, {split} + interval '2 days');
        END $$;
        CREATE TABLE {table}_rest PARTITION OF {table} DEFAULT;
        INSERT INTO {table} SELECT * FROM {table}_before;
        DROP TABLE {table}_before CASCADE;
    """,
    "inherited": """
        CREATE TABLE {table}_child () INHERITS ({table});
        CREATE TABLE {table}_grandchild () INHERITS ({table}_child);
        INSERT INTO {table}_child SELECT * FROM ONLY {table} WHERE {table}_id = 1;
        ALTER TABLE transaction DROP CONSTRAINT IF EXISTS transaction_sales_order_id_fkey;
        ALTER TABLE transaction DROP CONSTRAINT IF EXISTS transaction_purchase_order_id_fkey;
        ALTER TABLE payment DROP CONSTRAINT IF EXISTS payment_transaction_id_fkey;
        DELETE FROM ONLY {table} WHERE {table}_id = 1;
    """,
}


def role(url: str, name: str) -> str:
    """The URL with the login of a new role that may do nothing yet."""
    with Observer(url) as observer:
        observer.run(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{name}:secret@{parts.hostname}:{parts.port}"))


def alter_role(url: str, name: str, settings: Mapping[str, str]) -> None:
    with Observer(url) as observer:
        for setting, value in settings.items():
            observer.run(f"ALTER ROLE {name} SET {setting} = '{value}'")


def alter_login(login: str, url: str, settings: Mapping[str, str]) -> None:
    """Give the role of ``login`` these settings and no others."""
    name = urlsplit(login).username or ""
    with Observer(url) as observer:
        observer.run(f"ALTER ROLE {name} RESET ALL")
    alter_role(url, name, settings)


def moved(url: str, server: EmbeddedServer) -> str:
    """The same database and login on another server."""
    parts, other = urlsplit(url), urlsplit(server.url("postgres"))
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{other.hostname}:{other.port}"))
