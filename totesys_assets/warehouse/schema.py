"""The warehouse's tables: creating and migrating them, with their views and comments.

Belongs here: DDL statements on the warehouse. Does not belong here: what the tables and columns are, which is the
catalogue; the text of views and comments (views.py); sessions (warehouse.py); loading (load/).
"""

from __future__ import annotations

import hashlib
from datetime import date
from functools import lru_cache

import psycopg
from psycopg import sql

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Catalogue, Column, Table
from totesys_assets.errors import PlatformError, SchemaDrift
from totesys_assets.sql_text import quoted
from totesys_assets.warehouse.bare import attach, indexes, is_being_filled, without_keys
from totesys_assets.warehouse.kept import former_marts, incomplete, keep, statements, wait_for_loads
from totesys_assets.warehouse.lock_room import room_for
from totesys_assets.warehouse.months import (
    copy_plain,
    has_partitions,
    keep_ahead,
    look_ahead,
    parted,
    partition,
    partitions,
)
from totesys_assets.warehouse.notes import LEDGER, NOTES, Connection, create_notes, exists
from totesys_assets.warehouse.superseded import superseded
from totesys_assets.warehouse.views import PLURAL, for_people, known, stated


def migrate(connection: Connection, schema: str, catalogue: Catalogue, *, partition_from: date | None = None) -> bool:
    """Create what is missing, add columns that are new, refuse what differs. Returns False if nothing was to be done.

    ``partition_from``: also partition facts by month, from that of this day on. In the transaction of ``connection``.
    Raises SchemaDrift when a table has columns of another type than the
    catalogue says, PlatformError when something is to be done and the login may not do it.
    """
    digest = _digest(schema, catalogue)
    is_applied = _is_applied(connection, schema, digest) and not _missing(connection, schema, catalogue)
    if is_applied and partition_from is None:
        look_ahead(connection, schema, catalogue)
        return False
    try:
        _apply(connection, schema, catalogue, digest, partition_from)
    except psycopg.errors.InsufficientPrivilege as error:
        raise PlatformError(
            f'The login of WAREHOUSE_URL may not create or change the warehouse in schema "{schema}": '
            f"{engine.one_line(error)}. Run `totesys migrate` with the owner's login in WAREHOUSE_URL (see "
            "deploy/sql/warehouse_roles.sql), grant this one CREATE on the schema, or set WAREHOUSE_SCHEMA."
        ) from None
    return True


@lru_cache(maxsize=8)  # it takes 12 ms of a processor
def _digest(schema: str, catalogue: Catalogue) -> str:
    """A digest of all that is applied."""
    wanted = [str(part) for part in (*stated(schema, catalogue, {}), *for_people(schema, catalogue))]
    wanted += [_shape(mart) for mart in catalogue.marts.values()]
    wanted += [index for table in catalogue.warehouse.values() for index in indexes(schema, table)]
    wanted += [*NOTES.values(), *statements(schema, catalogue), keep_ahead(schema, parted(catalogue))]
    return hashlib.sha256("\n".join(wanted).encode()).hexdigest()


def _shape(mart: Table) -> str:
    """The columns and the key of a mart, as text. A table of another shape is made anew."""
    columns = (f"{column.name} {column.type} {column.nullable}" for column in mart.columns)
    return f"{mart.name} {', '.join(columns)} {', '.join(mart.primary_key)}"


def _is_applied(connection: Connection, schema: str, digest: str) -> bool:
    if not exists(connection, schema, "_migration"):
        return False
    query = sql.SQL("SELECT digest FROM {}._migration ORDER BY applied_at DESC LIMIT 1")
    return bool(connection.execute(query.format(sql.Identifier(schema))).fetchone() == (digest,))


def _missing(connection: Connection, schema: str, catalogue: Catalogue) -> bool:
    """True when somebody dropped a table, a view, a key or a trigger, or disabled one."""
    facts = [table for table in catalogue.star.values() if table.is_fact]
    subjects = [fact.name.removeprefix("fact_") for fact in facts]
    names = [
        *NOTES,
        *map(superseded, facts),
        *catalogue.warehouse,
        *(f"{prefix}_{each}" for prefix in ("current", "history") for each in subjects),
        PLURAL,
        *(view.name for view in known(catalogue)),
    ]
    query = (
        "SELECT bool_or(to_regclass(quote_ident(%s::text) || '.' || quote_ident(name)) IS NULL) "
        "FROM unnest(%s::text[]) AS name"
    )
    if connection.execute(query, [schema, names]).fetchone() == (True,):
        return True
    lacking = incomplete(connection, schema, catalogue) | without_keys(connection, schema, catalogue)
    return any(not is_being_filled(connection, schema, name) for name in sorted(lacking))


def _apply(connection: Connection, schema: str, catalogue: Catalogue, digest: str, partition_from: date | None) -> None:
    name = sql.Identifier(schema)
    if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is None:
        _create_schema(connection, schema)
    wait_for_loads(connection, schema, catalogue)
    create_notes(connection, schema)
    _drop_marts(connection, schema, catalogue)
    for table in catalogue.warehouse.values():
        _migrate_table(connection, schema, table)
        for index in indexes(schema, table):
            connection.execute(index.encode())
    keep(connection, schema, catalogue)
    # All that takes long comes first: readers wait from the moment in which the first view is replaced.
    is_parted = partition_from is not None or has_partitions(connection, schema, catalogue)
    made = partitions(connection, schema, catalogue, partition_from) if is_parted else 0
    with room_for(connection, made):
        _replace(connection, schema, catalogue, partition_from, is_parted=is_parted)
    connection.execute(
        sql.SQL(
            "INSERT INTO {}._migration (digest) VALUES ({}) ON CONFLICT (digest) DO UPDATE SET applied_at = now()"
        ).format(name, sql.Literal(digest))
    )


def _replace(
    connection: Connection, schema: str, catalogue: Catalogue, partition_from: date | None, *, is_parted: bool
) -> None:
    """Put partitions in the place of plain facts, where they are wanted, and views over them."""
    copied = copy_plain(connection, schema, catalogue, partition_from) if is_parted else []
    held = {table: list(_columns(connection, schema, table)) for table in catalogue.warehouse}
    for statement in stated(schema, catalogue, held):
        connection.execute(statement)
    for view, create, comments in for_people(schema, catalogue):
        _create_view(connection, schema, view, create)
        for comment in comments:
            connection.execute(comment)
    if is_parted:
        partition(connection, schema, catalogue, copied, partition_from)
    if connection.info.server_version >= 180000:
        _declare_references(connection, schema, catalogue)


def _create_schema(connection: Connection, schema: str) -> None:
    try:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    except psycopg.errors.InsufficientPrivilege:
        user = connection.info.user
        raise PlatformError(
            f'The warehouse has no schema "{schema}", and the login of WAREHOUSE_URL, {user}, may not make one. Let '
            f"the owner of the database run: CREATE SCHEMA {quoted(schema)} AUTHORIZATION {quoted(user)}; then do this "
            "again."
        ) from None


def _create_view(connection: Connection, schema: str, view: str, create: sql.Composed) -> None:
    """Replace a view. One with other columns is made anew, which PostgreSQL refuses where another view reads it."""
    try:
        with connection.transaction():
            connection.execute(create)
    except psycopg.errors.InvalidTableDefinition:
        try:
            connection.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(schema, view)))
        except psycopg.errors.DependentObjectsStillExist as error:
            raise PlatformError(
                f'The view "{schema}"."{view}" has new columns, and cannot be made anew while others read it: '
                f"{engine.one_line(error)}. Drop those, then do this again."
            ) from None
        connection.execute(create)


def _drop_marts(connection: Connection, schema: str, catalogue: Catalogue) -> None:
    """Drop the marts that were of another shape or are none any more, and first the views for people, which read marts.

    All of these are made anew, but for marts that are none any more.
    """
    marts = [mart for mart in catalogue.marts.values() if exists(connection, schema, mart.name)]
    dropped = [mart.name for mart in marts if not _can_grow(connection, schema, mart)]
    dropped += former_marts(connection, schema)
    if not dropped:
        return
    try:
        for view in known(catalogue):
            connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(schema, view.name)))
        for name in dropped:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(schema, name)))
    except psycopg.errors.DependentObjectsStillExist as error:
        raise PlatformError(
            f'Of the marts in schema "{schema}" these are of another shape, or none any more: {", ".join(dropped)}. '
            f"They cannot be dropped while others read them: {engine.one_line(error)}. Drop those, then do this again."
        ) from None
    forget = sql.SQL("DELETE FROM {} WHERE table_name = ANY ({})")
    connection.execute(forget.format(sql.Identifier(schema, LEDGER), sql.Literal(dropped)))


def _migrate_table(connection: Connection, schema: str, table: Table) -> None:
    name = sql.Identifier(schema, table.name)
    if not exists(connection, schema, table.name):
        columns = sql.SQL(",\n    ").join(_definition(column) for column in table.columns)
        connection.execute(sql.SQL("CREATE TABLE {} (\n    {}\n)").format(name, columns))
        attach(connection, schema, table)
        # A table that was dropped, and is created again, must be loaded again.
        forget = sql.SQL("DELETE FROM {} WHERE table_name = {}")
        connection.execute(forget.format(sql.Identifier(schema, LEDGER), sql.Literal(table.name)))
        return
    attach(connection, schema, table)
    found = _columns(connection, schema, table.name)
    for column in table.columns:
        if column.name not in found:
            _add_column(connection, schema, table, column)
        elif found[column.name] != column.type and not _is_narrow(column, found[column.name]):
            raise SchemaDrift(
                f'Column "{column.name}" of the warehouse\'s "{schema}"."{table.name}" is '
                f"{found[column.name]} instead of {column.type}. Set WAREHOUSE_SCHEMA to a schema of the "
                "platform's own, or change the column back."
            )


def _is_narrow(column: Column, found: str) -> bool:
    """Whether an older version numbered records by an integer. Its owner widens it (docs/how-to/troubleshoot.md)."""
    return column.is_identity and found == "integer"


def _can_grow(connection: Connection, schema: str, table: Table) -> bool:
    """True where a mart in the warehouse lacks nothing but columns that may be NULL."""
    query = (
        "SELECT array_agg(attname::text ORDER BY place) FROM pg_constraint, "
        "unnest(conkey) WITH ORDINALITY AS part (number, place) JOIN pg_attribute ON attnum = number "
        "WHERE contype = 'p' AND conrelid = %(table)s::regclass AND attrelid = conrelid"
    )
    name = f"{quoted(schema)}.{quoted(table.name)}"
    key = connection.execute(query, {"table": name}).fetchone()
    held = _columns(connection, schema, table.name)
    wanted = {column.name: column.type for column in table.columns}
    new = [column for column in table.columns if column.name not in held]
    same = all(wanted.get(column) == type_ for column, type_ in held.items())
    return key == ([*table.primary_key],) and same and all(column.nullable for column in new)


def _columns(connection: Connection, schema: str, table: str) -> dict[str, str]:
    """Names and types of a table's columns, in its own order."""
    query = (
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return {
        str(column): str(type_) for column, type_ in connection.execute(query, [f"{quoted(schema)}.{quoted(table)}"])
    }


def _add_column(connection: Connection, schema: str, table: Table, column: Column) -> None:
    name = sql.Identifier(schema, table.name)
    try:
        connection.execute(sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(name, _definition(column)))
    except psycopg.errors.NotNullViolation:
        raise SchemaDrift(
            f'Column "{column.name}" is new and may not be NULL, but the rows of the warehouse\'s "{schema}".'
            f'"{table.name}" have no value for it. Set WAREHOUSE_SCHEMA to a new schema: the next refresh fills it '
            "from the lake."
        ) from None


def _definition(column: Column) -> sql.Composed:
    return sql.SQL("{} {}{}{}").format(
        sql.Identifier(column.name),
        sql.SQL(column.type),
        sql.SQL(" GENERATED ALWAYS AS IDENTITY" if column.is_identity else ""),
        sql.SQL("" if column.nullable else " NOT NULL"),
    )


def _declare_references(connection: Connection, schema: str, catalogue: Catalogue) -> None:
    """Declare which tables refer to which, for BI tools, where PostgreSQL need not enforce it (18 and later).

    If it were enforced, one dead-lettered dimension row would stop every fact that refers to it.
    """
    for table in catalogue.warehouse.values():
        for column in table.columns:
            if column.references is None:
                continue
            constraint = f"{table.name}_{column.name}_fkey"
            if connection.execute(
                "SELECT 1 FROM pg_constraint WHERE conname = %s AND connamespace = %s::regnamespace",
                [constraint, quoted(schema)],
            ).fetchone():
                continue
            connection.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} NOT ENFORCED").format(
                    sql.Identifier(schema, table.name),
                    sql.Identifier(constraint),
                    sql.Identifier(column.name),
                    sql.Identifier(schema, column.references),
                )
            )
