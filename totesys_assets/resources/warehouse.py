"""The warehouse: a PostgreSQL schema that the platform creates and migrates itself.

Belongs here: connecting, the tables and views as the catalogue describes them, what was loaded. Does not belong here:
loading, which is load/merge.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import psycopg
import psycopg.conninfo
from psycopg import sql

from totesys_assets.catalogue.catalogue import Catalogue, Column, Table, catalogue
from totesys_assets.errors import ConnectionFailed, PlatformError, SchemaDrift
from totesys_assets.resources import engine

ALIAS = "warehouse"
# The memory is for building keys behind a first load: what sorts in it is not written out and read again.
_SESSION = (
    "-c TimeZone=UTC -c lock_timeout=600000 -c statement_timeout=3600000 -c client_min_messages=warning "
    "-c maintenance_work_mem=256MB"
)
# Held by every run for as long as it lives; a process that is killed loses its session, and with it this lock.
_RUN_SPACE = 7_083_380
# A machine that is gone says nothing, and the server would wait two hours before it asks. It asks after 30 s of
# silence, and gives up after 30 more; asking also keeps those in between from forgetting the session of a long run.
_WATCHED = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
# Two platforms may share a server: the lock is told apart by the schema's name, and this number from others' locks.
_LOCK_SPACE = 7_083_379
# Among the notes of a table's partitions: up to which moment its rows were loaded, and from which table of the lake.
NEWEST = "newest"

_LEDGER = """
CREATE TABLE IF NOT EXISTS {schema}._ledger (
    table_name text NOT NULL,
    partition text NOT NULL,
    state text NOT NULL,
    rows bigint NOT NULL,
    run_id text NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (table_name, partition)
);
COMMENT ON TABLE {schema}._ledger IS 'What was loaded, committed together with the rows';
CREATE TABLE IF NOT EXISTS {schema}._migration (digest text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
COMMENT ON TABLE {schema}._migration IS 'Versions of the schema that were applied here';
"""

# A row is one fact for as long as it stays within its day; if its created_at ever changes, it leaves one day (delete)
# and arrives at another (insert) in the same instant.
_CURRENT = """
CREATE OR REPLACE VIEW {schema}.{view} AS
SELECT * FROM (
    SELECT DISTINCT ON ({key}) * FROM (
        SELECT DISTINCT ON ({key}, created_date) * FROM {schema}.{table}
        ORDER BY {key} DESC, created_date DESC, _recorded_at DESC
    ) AS newest
    WHERE _operation <> 'delete'
    ORDER BY {key}, _recorded_at DESC
) AS present
"""
# The table's own columns come last, for PostgreSQL replaces a view only by one that has more columns at its end.
_HISTORY = """
CREATE OR REPLACE VIEW {schema}.{view} AS
SELECT _recorded_at AS valid_from, lead(_recorded_at) OVER versions AS valid_to,
    lead(_recorded_at) OVER versions IS NULL AS is_current, _operation = 'delete' AS is_deleted, *
FROM {schema}.{table}
WINDOW versions AS (PARTITION BY {key} ORDER BY _recorded_at, _operation <> 'delete')
"""


class Warehouse:
    """The warehouse behind a libpq URL."""

    def __init__(self, url: str, schema: str = "public", tables: Catalogue | None = None) -> None:
        self._url = url
        self.schema = schema
        self.catalogue = tables or catalogue()
        self._migrated = False
        self._idle: list[duckdb.DuckDBPyConnection] = []  # one for each transaction that there was at once

    def __repr__(self) -> str:
        return f"Warehouse(schema={self.schema!r})"  # never the URL: it holds a password

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """A session for small statements, in one transaction that commits when the context ends well.

        Raises ConnectionFailed, and PlatformError when the login lacks a right that a statement needs, or when the
        server gave up a statement.
        """
        # Beside the URL's own, a role to take on for example, and not in their place.
        options = f"{psycopg.conninfo.conninfo_to_dict(self._url).get('options', '')} {_SESSION}"
        try:
            connection = psycopg.connect(
                self._url, options=options, application_name="totesys_assets", connect_timeout=10
            )
        except psycopg.OperationalError as error:
            raise ConnectionFailed(
                f"WAREHOUSE_URL cannot be reached: {engine.one_line(error)}. Check the URL and the server."
            ) from None
        try:
            with connection:
                yield connection
        except psycopg.errors.InsufficientPrivilege as error:
            raise PlatformError(
                f'The login of WAREHOUSE_URL lacks a right in schema "{self.schema}": {engine.one_line(error)}. '
                "Run deploy/sql/warehouse_grants.sql as the owner."
            ) from None
        except psycopg.OperationalError as error:  # lost, shut down, a lock or a statement that took too long
            raise PlatformError(f"The warehouse gave up a statement: {engine.one_line(error)}.") from error

    @contextmanager
    def transaction(self, lock: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB session whose ``warehouse`` is one transaction of PostgreSQL, begun by taking the lock of ``lock``.

        READ COMMITTED, so that what is read after the lock was granted is what its
        last holder left. Rolled back when the context ends with an error. Raises ConnectionFailed.
        """
        key = engine.literal(f"{self.schema}.{lock}")
        connection = self._attached()
        try:
            # What DuckDB remembers of the catalogue was true in its last transaction; temporary tables come and go.
            connection.execute("CALL pg_clear_cache()")
            connection.execute("BEGIN")
            run(connection, f"SELECT pg_advisory_xact_lock({_LOCK_SPACE}, hashtext({key}))")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            engine.close(connection)  # which rolls back
            raise
        self._idle.append(connection)

    def _attached(self) -> duckdb.DuckDBPyConnection:
        """A DuckDB that nobody uses: loading its extension takes as long as a small load."""
        if self._idle:
            return self._idle.pop()
        connection = engine.connect()
        try:
            engine.attach(
                connection,
                ALIAS,
                self._url,
                variable="WAREHOUSE_URL",
                options=_SESSION,
                attach_options=", ISOLATION_LEVEL 'READ COMMITTED'",
            )
        except BaseException:
            engine.close(connection)
            raise
        return connection

    def close(self) -> None:
        """Give up what transactions have left open; the next one opens it again."""
        while self._idle:
            engine.close(self._idle.pop())

    def loaded(self) -> dict[str, dict[str, str]]:
        """State of every partition loaded: table -> partition -> state. Empty before the first load."""
        with self.connect() as connection:
            return self.states(connection)

    def states(self, connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, dict[str, str]]:
        """``loaded``, as the transaction of ``connection`` sees it."""
        result: dict[str, dict[str, str]] = {}
        if self._exists(connection, "_ledger"):
            query = sql.SQL("SELECT table_name, partition, state FROM {}._ledger WHERE partition <> %s")
            for table, partition, state in connection.execute(query.format(sql.Identifier(self.schema)), [NEWEST]):
                result.setdefault(str(table), {})[str(partition)] = str(state)
        return result

    def relations(self) -> list[str]:
        """Names of the tables and views in the schema; none when there is no such schema."""
        query = (
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p', 'v', 'm')"
        )
        with self.connect() as connection:
            return sorted(str(row[0]) for row in connection.execute(query, [engine.quoted(self.schema)]))

    def mark(self) -> str:
        """Differs whenever something was loaded, or the database is another or an older one."""
        with self.connect() as connection:
            if not self._exists(connection, "_ledger"):
                return "empty"
            query = sql.SQL(
                "SELECT concat_ws(' ', (SELECT oid FROM pg_database WHERE datname = current_database()), "
                "count(*), max(loaded_at)) FROM {}._ledger"
            )
            row = connection.execute(query.format(sql.Identifier(self.schema))).fetchone()
            return str(row[0]) if row else "empty"

    @contextmanager
    def alive(self, run_id: str) -> Iterator[None]:
        """Show that run ``run_id`` is alive, for as long as the block and the process last."""
        with self.connect() as connection:
            connection.autocommit = True
            connection.execute(_WATCHED)
            connection.execute("SELECT pg_advisory_lock_shared(%s, hashtext(%s))", [_RUN_SPACE, run_id])
            yield

    def is_alive(self, run_id: str) -> bool:
        """True while some process is in ``alive(run_id)``, on whatever machine."""
        with self.connect() as connection:
            query = "SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))"
            return connection.execute(query, [_RUN_SPACE, run_id]).fetchone() == (False,)

    def contents(self, most: int | None = None) -> list[tuple[str, int | None, int]]:
        """(table, rows, versions) of every table: of a fact, the rows that are current and all its records.

        Nothing is counted in a table of more than ``most`` records: they are as many as was noted when they were
        loaded, and how many rows of a fact are current is not said.
        """
        result: list[tuple[str, int | None, int]] = []
        with self.connect() as connection:
            noted = self._noted_rows(connection) if most is not None else {}
            for table in self.catalogue.star.values():
                if most is not None and noted.get(table.name, 0) > most:
                    result.append((table.name, None if table.is_fact else noted[table.name], noted[table.name]))
                elif self._exists(connection, table.name):
                    versions = self._count(connection, table.name)
                    current = f"current_{table.name.removeprefix('fact_')}"
                    result.append(
                        (table.name, self._count(connection, current) if table.is_fact else versions, versions)
                    )
        return result

    def _noted_rows(self, connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, int]:
        if not self._exists(connection, "_ledger"):
            return {}
        query = sql.SQL("SELECT table_name, sum(rows)::bigint FROM {}._ledger GROUP BY 1")
        rows = connection.execute(query.format(sql.Identifier(self.schema))).fetchall()
        return {str(table): int(str(count)) for table, count in rows}

    def _count(self, connection: psycopg.Connection[tuple[object, ...]], relation: str) -> int:
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(self.schema, relation))
        return int(str(connection.execute(query).fetchall()[0][0]))

    def last_load(self) -> str:
        """When something was last loaded, as the server writes it."""
        return self.loads_since("-infinity")[1]

    def loads_since(self, moment: str) -> tuple[list[str], str]:
        """The tables loaded after ``moment``, and the moment of the last load."""
        with self.connect() as connection:
            if not self._exists(connection, "_ledger"):
                return [], moment
            query = sql.SQL(
                "SELECT coalesce(array_agg(DISTINCT table_name), '{{}}'), coalesce(max(loaded_at)::text, %(moment)s) "
                "FROM {}._ledger WHERE loaded_at > %(moment)s::timestamptz"
            )
            rows = connection.execute(query.format(sql.Identifier(self.schema)), {"moment": moment}).fetchall()
            tables, newest = rows[0]
            return list(tables), str(newest)  # type: ignore[call-overload]  # an array of text

    def _exists(self, connection: psycopg.Connection[tuple[object, ...]], table: str) -> bool:
        query = sql.SQL("SELECT to_regclass({}) IS NOT NULL").format(
            sql.Literal(f"{engine.quoted(self.schema)}.{table}")
        )
        return connection.execute(query).fetchone() == (True,)

    def migrate(self) -> bool:
        """Create what is missing, add columns that are new, refuse what differs. False when nothing was to be done.

        Raises SchemaDrift when a table has columns of another type than the catalogue says, PlatformError when
        something is to be done and the login may not do it.
        """
        if self._migrated:
            return False
        statements = "\n".join(str(part) for part in self._definition())
        digest = hashlib.sha256(statements.encode()).hexdigest()
        with self.connect() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_LOCK_SPACE, self.schema])
            needed = not self._is_applied(connection, digest)
            if needed:
                self._apply_as_owner(connection, digest)
        self._migrated = True
        return needed

    def _is_applied(self, connection: psycopg.Connection[tuple[object, ...]], digest: str) -> bool:
        if not self._exists(connection, "_migration"):
            return False
        query = sql.SQL("SELECT digest FROM {}._migration ORDER BY applied_at DESC LIMIT 1")
        return connection.execute(query.format(sql.Identifier(self.schema))).fetchone() == (digest,)

    def _apply_as_owner(self, connection: psycopg.Connection[tuple[object, ...]], digest: str) -> None:
        try:
            self._apply(connection, digest)
        except psycopg.errors.InsufficientPrivilege as error:
            raise PlatformError(
                f'The login of WAREHOUSE_URL may not create or change the warehouse in schema "{self.schema}": '
                f"{engine.one_line(error)}. Run `totesys migrate` with the owner's login in WAREHOUSE_URL (see "
                "deploy/sql/warehouse_roles.sql), grant this one CREATE on the schema, or set WAREHOUSE_SCHEMA."
            ) from None

    def _apply(self, connection: psycopg.Connection[tuple[object, ...]], digest: str) -> None:
        schema = sql.Identifier(self.schema)
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self.schema]).fetchone() is None:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        connection.execute(sql.SQL(_LEDGER).format(schema=schema))
        for table in self.catalogue.star.values():
            self._migrate_table(connection, table)
        for statement in self._definition():
            connection.execute(statement)
        if connection.info.server_version >= 180000:
            self._declare_references(connection)
        connection.execute(
            sql.SQL(
                "INSERT INTO {}._migration (digest) VALUES (%s) ON CONFLICT (digest) DO UPDATE SET applied_at = now()"
            ).format(schema),
            [digest],
        )

    def _migrate_table(self, connection: psycopg.Connection[tuple[object, ...]], table: Table) -> None:
        name = sql.Identifier(self.schema, table.name)
        if not self._exists(connection, engine.quoted(table.name)):
            columns = sql.SQL(",\n    ").join(_definition(column) for column in table.columns)
            connection.execute(sql.SQL("CREATE TABLE {} (\n    {}\n)").format(name, columns))
            for constraint in constraints(table):
                connection.execute(constraint.add(self.schema))
            return
        columns_of = (
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        )
        relation = f"{engine.quoted(self.schema)}.{engine.quoted(table.name)}"
        found = {str(column): str(type_) for column, type_ in connection.execute(columns_of, [relation])}
        for column in table.columns:
            if column.name not in found:
                self._add_column(connection, table, column)
            elif found[column.name] != column.type:
                raise SchemaDrift(
                    f'Column "{column.name}" of the warehouse\'s "{self.schema}"."{table.name}" is '
                    f"{found[column.name]} instead of {column.type}. Set WAREHOUSE_SCHEMA to a schema of the "
                    "platform's own, or change the column back."
                )

    def _add_column(self, connection: psycopg.Connection[tuple[object, ...]], table: Table, column: Column) -> None:
        name = sql.Identifier(self.schema, table.name)
        try:
            connection.execute(sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(name, _definition(column)))
        except psycopg.errors.NotNullViolation:
            raise SchemaDrift(
                f'Column "{column.name}" is new and may not be NULL, but the rows of the warehouse\'s "{self.schema}".'
                f'"{table.name}" have no value for it. Set WAREHOUSE_SCHEMA to a new schema: the next refresh fills it '
                "from the lake."
            ) from None

    def _definition(self) -> Iterator[sql.Composed]:
        """Comments and views: what may be stated again and again."""
        for table in self.catalogue.star.values():
            name = sql.Identifier(self.schema, table.name)
            yield sql.SQL("COMMENT ON TABLE {} IS {}").format(name, sql.Literal(table.description))
            for column in table.columns:
                yield sql.SQL("COMMENT ON COLUMN {} IS {}").format(
                    sql.Identifier(self.schema, table.name, column.name), sql.Literal(column.description)
                )
            if table.is_fact:
                yield from self._views(table)
        # The specification's list calls the table so; every diagram uses the singular.
        yield sql.SQL("CREATE OR REPLACE VIEW {} AS SELECT * FROM {}").format(
            sql.Identifier(self.schema, "fact_purchase_orders"), sql.Identifier(self.schema, "fact_purchase_order")
        )

    def _views(self, table: Table) -> Iterator[sql.Composed]:
        subject = table.name.removeprefix("fact_")
        for prefix, template in (("current", _CURRENT), ("history", _HISTORY)):
            yield sql.SQL(template).format(
                schema=sql.Identifier(self.schema),
                view=sql.Identifier(f"{prefix}_{subject}"),
                table=sql.Identifier(table.name),
                key=sql.Identifier(table.version_key[0]),
            )

    def _declare_references(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        """Tell BI tools how the star hangs together, where PostgreSQL can do so without enforcing it (18 and later).

        Enforced, one dead-lettered dimension row would stop every fact that refers to it.
        """
        for table in self.catalogue.star.values():
            for column in table.columns:
                if column.references is None:
                    continue
                constraint = f"{table.name}_{column.name}_fkey"
                if connection.execute(
                    "SELECT 1 FROM pg_constraint WHERE conname = %s AND connamespace = %s::regnamespace",
                    [constraint, engine.quoted(self.schema)],
                ).fetchone():
                    continue
                connection.execute(
                    sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} NOT ENFORCED").format(
                        sql.Identifier(self.schema, table.name),
                        sql.Identifier(constraint),
                        sql.Identifier(column.name),
                        sql.Identifier(self.schema, column.references),
                    )
                )


class Constraint:
    """A primary key or unique constraint, which a first load drops and builds again behind the rows."""

    def __init__(self, table: Table, kind: str, columns: tuple[str, ...]) -> None:
        suffix = "pkey" if kind == "PRIMARY KEY" else "version_key"
        self._table, self._kind, self._columns = table.name, kind, columns
        self._name = f"{table.name}_{suffix}"

    def add(self, schema: str) -> sql.Composed:
        """ALTER TABLE … ADD CONSTRAINT."""
        return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {} ({})").format(
            sql.Identifier(schema, self._table),
            sql.Identifier(self._name),
            sql.SQL(self._kind),
            sql.SQL(", ").join(sql.Identifier(column) for column in self._columns),
        )

    def drop(self, schema: str) -> sql.Composed:
        """ALTER TABLE … DROP CONSTRAINT."""
        return sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            sql.Identifier(schema, self._table), sql.Identifier(self._name)
        )


def constraints(table: Table) -> list[Constraint]:
    """The keys of a star table."""
    keys = [Constraint(table, "PRIMARY KEY", (table.key,))]
    return [*keys, Constraint(table, "UNIQUE", table.version_key)] if table.is_fact else keys


def _definition(column: Column) -> sql.Composed:
    return sql.SQL("{} {}{}{}").format(
        sql.Identifier(column.name),
        sql.SQL(column.type),
        sql.SQL(" GENERATED ALWAYS AS IDENTITY" if column.is_identity else ""),
        sql.SQL("" if column.nullable else " NOT NULL"),
    )


def run(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run one statement in the warehouse, in the transaction of ``connection``."""
    connection.execute(f"CALL postgres_execute('{ALIAS}', ?)", [statement])
