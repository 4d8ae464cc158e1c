"""What the tables of ToteSys really are: relations, columns, types, rights, as one snapshot shows them.

Belongs here: the query, and what it found of one table. Does not belong here: what is made of a difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from totesys_assets.sql_text import literal

# A table consists of relations: itself, and what is attached to it or inherits from it. Rows that are in another
# relation than before may bear transaction ids from before, so that which relations these are is what identifies them;
# so are the columns' numbers in each of them, since a column that was dropped and added anew has another. A label of an
# enum may be renamed: rows then read as something else, though not one was written. Types are named without the schema
# that they are in.
_STRUCTURE = """
WITH RECURSIVE wanted AS (
    SELECT c.* FROM pg_class AS c
    WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})
        AND c.relname IN ({names}) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
), parts AS (
    SELECT oid AS root, oid AS part FROM wanted
    UNION SELECT root, inhrelid FROM parts JOIN pg_inherits ON inhparent = part
), locked AS MATERIALIZED (
    SELECT relation FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted
), relations AS (
    SELECT root,
        md5(string_agg(part || ' ' || (
            SELECT string_agg(attname || ' ' || attnum, ',' ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = part AND attnum > 0 AND NOT attisdropped
        ), ';' ORDER BY part)) AS identity,
        string_agg(DISTINCT CASE
            WHEN part = root OR relkind IN ('r', 'p') THEN NULL WHEN relkind = 'f' THEN 'foreign'
            ELSE relkind::text END, '') AS odd_part,
        string_agg(DISTINCT amname, ' ') FILTER (WHERE relkind = 'r' AND amname <> 'heap') AS odd_storage,
        bool_and(part IN (SELECT relation FROM locked)) AS locked
    FROM parts JOIN pg_class AS p ON p.oid = part LEFT JOIN pg_am ON pg_am.oid = p.relam
    GROUP BY 1
), uniques AS MATERIALIZED (
    SELECT c.oid AS root, {unique} AS columns FROM wanted AS c
)
SELECT c.relname AS table_name, c.relkind::text AS kind, r.identity AS relations, r.odd_part, r.odd_storage, r.locked,
    has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable,
    row_security_active(c.oid) AS filtered, c.relfilenode::bigint AS file, u.columns AS unique_columns,
    a.attname AS column_name,
    CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN format_type(a.atttypid, a.atttypmod)
         ELSE quote_ident(t.typname) END AS type,
    concat_ws(' ', a.attnum, (
        SELECT string_agg(quote_literal(enumlabel), ',' ORDER BY enumsortorder)
        FROM pg_enum WHERE enumtypid = a.atttypid
    )) AS identity,
    EXISTS (
        SELECT FROM parts JOIN pg_attribute AS each ON each.attrelid = part
        WHERE root = c.oid AND each.attname = a.attname AND each.attgenerated = 'v'
    ) AS computed, a.attnotnull AS required
FROM wanted AS c JOIN relations AS r ON r.root = c.oid JOIN uniques AS u ON u.root = c.oid
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
ORDER BY c.relname, a.attnum
"""
# The columns of each unique index of the relation c: no two of its rows are equal in them. An index says nothing of the
# rows of tables that inherit.
UNIQUE = """ARRAY(
    SELECT (
        SELECT string_agg(coalesce(attname::text, ''), chr(31)) FROM generate_series(0, indnkeyatts - 1) AS place
        LEFT JOIN pg_attribute ON attrelid = c.oid AND attnum = indkey[place] AND attnum > 0
    )
    FROM pg_index WHERE indrelid = c.oid AND indisunique AND indisvalid AND indpred IS NULL
        AND (c.relkind = 'p' OR NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid))
)"""
_OTHERS = """
SELECT relname FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})
    AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition ORDER BY relname IN ({names}), relname LIMIT 5
"""


@dataclass
class SourceTable:
    """What the source says of one of its tables: column name -> type, in ``format_type`` spelling without schemas.

    ``identities`` tells columns of the same name and type apart that are not the same: number, and an enum's labels.
    ``relations`` identifies what the table consists of. ``odd_part`` and ``odd_storage`` are what parts may not be;
    ``file`` is the number of the file that its rows are in; ``computed`` are columns that are worked out when they are
    read, ``required`` those that may not be NULL; ``locked`` is whether all parts are. No two rows are equal in the
    columns of any of ``unique``.
    """

    columns: dict[str, str] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    kind: str = "r"
    readable: bool = True
    filtered: bool = False
    file: int = 0
    relations: str = ""
    odd_part: str | None = None
    odd_storage: str | None = None
    locked: bool = True
    unique: tuple[frozenset[str], ...] = ()
    computed: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)


def structure_query(schema: str, tables: Collection[str]) -> str:
    """SELECT of a row for each column of the tables that there are, for ``source_tables``."""
    return _STRUCTURE.format(schema=literal(schema), names=_names(tables), unique=UNIQUE)


def others_query(schema: str, tables: Collection[str]) -> str:
    """SELECT of the names of a few tables that there are, those that were not expected first."""
    return _OTHERS.format(schema=literal(schema), names=_names(tables))


def _names(tables: Collection[str]) -> str:
    return ", ".join(literal(name) for name in sorted(tables)) or "NULL"


def source_tables(rows: Iterable[tuple[object, ...]]) -> dict[str, SourceTable]:
    """The tables by name, of the rows of ``structure_query``."""
    tables: dict[str, SourceTable] = {}
    for table, kind, relations, part, storage, locked, readable, filtered, file, unique, column, *column_facts in rows:
        type_, identity, computed, required = column_facts
        found = tables.setdefault(
            str(table),
            SourceTable(
                kind=str(kind),
                readable=bool(readable),
                filtered=bool(filtered),
                file=int(str(file)),
                relations=str(relations),
                odd_part=None if part is None else str(part),
                odd_storage=None if storage is None else str(storage),
                locked=bool(locked),
                unique=unique_columns(unique),
            ),
        )
        found.columns[str(column)] = str(type_)
        found.identities[str(column)] = str(identity)
        if computed:
            found.computed.append(str(column))
        if required:
            found.required.append(str(column))
    return tables


def unique_columns(told: object) -> tuple[frozenset[str], ...]:
    """What ``UNIQUE`` has told: in the columns of each of these no two rows are equal."""
    listed = told if isinstance(told, list) else []
    return tuple(frozenset(str(columns).split("\x1f")) for columns in listed)
