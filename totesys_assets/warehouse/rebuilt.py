"""A fact that takes the place of another of the same rows: what was built on that one is built on it.

Belongs here: keys, indexes, triggers, grants, comments, publications and views, ours and those of others. Does not
belong here: the rows (months.py).

A view stays itself, with its owner, grants, comments and what reads it: only the table that it reads is another. What
cannot come along is named before anything is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import errors

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Table
from totesys_assets.errors import PlatformError
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.bare import keys, keys_with_day
from totesys_assets.warehouse.notes import Connection

# Of the fact: foreign keys that are not ours or are enforced, other keys than ours, what its records need not keep or
# its partitions would not; policies, rules, settings; what only another login could change.
_IN_THE_WAY = """
SELECT 'constraint ' || conname FROM pg_constraint
WHERE (conrelid = {oid} AND (contype IN ('x', 'u', 'p') AND conname <> ALL ({keys})
    OR contype = 'f' AND pg_get_constraintdef(oid) NOT LIKE '%NOT ENFORCED'
    OR contype IN ('c', 'n') AND (connoinherit OR NOT convalidated))) OR (confrelid = {oid})
UNION ALL SELECT 'unique index ' || indexrelid::regclass FROM pg_index
WHERE indrelid = {oid} AND indisunique AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
UNION ALL SELECT 'policy ' || polname FROM pg_policy WHERE polrelid = {oid}
UNION ALL SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = {oid}
UNION ALL SELECT 'storage parameter ' || option FROM pg_class, unnest(reloptions) AS option WHERE oid = {oid}
UNION ALL SELECT 'row-level security' FROM pg_class WHERE oid = {oid} AND relrowsecurity
UNION ALL SELECT 'replica identity' FROM pg_class WHERE oid = {oid} AND relreplident <> 'd'
UNION ALL SELECT 'inheritance of ' || inhrelid::regclass FROM pg_inherits WHERE {oid} IN (inhrelid, inhparent)
UNION ALL SELECT 'publication ' || pubname || ' with a filter' FROM pg_publication_rel AS p
    JOIN pg_publication AS of ON of.oid = prpubid
    WHERE prrelid = {oid} AND coalesce(to_jsonb(p) ->> 'prqual', to_jsonb(p) ->> 'prattrs') IS NOT NULL
UNION ALL SELECT format('publication %I of %s', pubname, pubowner::regrole)
    FROM pg_publication_rel JOIN pg_publication AS of ON of.oid = prpubid
    WHERE prrelid = {oid} AND NOT pg_has_role(pubowner, 'USAGE')
UNION ALL SELECT format('publication %1$I, which would publish each partition (keep it by ALTER PUBLICATION %1$I SET '
    '(publish_via_partition_root = true))', of.pubname)
    FROM pg_publication AS of JOIN pg_publication_tables AS listed ON listed.pubname = of.pubname
    WHERE NOT pubviaroot AND (schemaname, tablename) = (SELECT nspname, relname FROM pg_class AS fact
        JOIN pg_namespace AS nsp ON nsp.oid = relnamespace WHERE fact.oid = {oid})
UNION ALL SELECT DISTINCT CASE relkind WHEN 'm' THEN 'materialized view ' || ev_class::regclass
    ELSE format('view %s of %s', ev_class::regclass, relowner::regrole) END
FROM pg_depend JOIN pg_rewrite ON objid = pg_rewrite.oid JOIN pg_class AS built ON built.oid = ev_class
WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = {oid}
    AND (relkind = 'm' OR relkind = 'v' AND NOT pg_has_role(relowner, 'USAGE'))
ORDER BY 1
"""
_INDEXES = """
SELECT relname::text, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = {oid} AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""
# Statements that do again what was done to the table. Made before it is replaced, by its name.
_DONE_TO_IT = """
SELECT format('REVOKE ALL ON %s FROM %s', {name}, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
FROM pg_class, aclexplode(relacl) WHERE oid = {new} AND grantee <> relowner
UNION ALL SELECT format('ALTER TABLE %s OWNER TO %s', CASE level WHEN 0 THEN {name} ELSE relid::text END,
    relowner::regrole)
FROM pg_class, pg_partition_tree({new}) WHERE oid = {oid} AND pg_get_userbyid(relowner) <> current_user
UNION ALL SELECT format('ALTER SEQUENCE %s RENAME TO %I', pg_get_serial_sequence({made}, {key}), relname)
FROM pg_class WHERE oid = pg_get_serial_sequence({name}, {key})::regclass
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = {oid} AND NOT tgisinternal
UNION ALL SELECT format('ALTER TABLE %s %s TRIGGER %I', {name}, CASE tgenabled WHEN 'D' THEN 'DISABLE'
    WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END, tgname)
FROM pg_trigger WHERE tgrelid = {oid} AND NOT tgisinternal AND tgenabled <> 'O'
UNION ALL SELECT format('GRANT %s ON %s TO %s%s', privilege_type, {name},
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
FROM pg_class, aclexplode(relacl) WHERE oid = {oid} AND grantee <> relowner
UNION ALL SELECT format('GRANT %s (%I) ON %s TO %s%s', privilege_type, attname, {name},
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
FROM pg_attribute, aclexplode(attacl) WHERE attrelid = {oid}
UNION ALL SELECT format('COMMENT ON TABLE %s IS %L', {name}, obj_description({oid}, 'pg_class'))
UNION ALL SELECT format('ALTER PUBLICATION %I ADD TABLE %s', pubname, {name})
FROM pg_publication_rel JOIN pg_publication AS of ON of.oid = prpubid WHERE prrelid = {oid}
"""
_VIEWS = """
SELECT DISTINCT format('CREATE OR REPLACE VIEW %s%s AS %s', ev_class::regclass,
    ' WITH (' || array_to_string(reloptions, ', ') || ')', pg_get_viewdef(ev_class))
FROM pg_depend JOIN pg_rewrite ON objid = pg_rewrite.oid JOIN pg_class AS built ON built.oid = ev_class
WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = {oid} AND relkind = 'v'
"""
# What PostgreSQL says of others that depend on the table itself, or on its key, or that have a name which is needed.
_NOT_MOVED = (
    errors.DependentObjectsStillExist,
    errors.DuplicateTable,
    errors.FeatureNotSupported,
    errors.GroupingError,
    errors.InvalidTableDefinition,
    errors.WrongObjectType,
)


def require_movable(connection: Connection, schema: str, fact: Table) -> None:
    """Raise PlatformError that names what was built on ``fact`` and would be lost."""
    query = _IN_THE_WAY.format(oid=_oid(_name(schema, fact.name)), keys=f"ARRAY[{', '.join(map(literal, keys(fact)))}]")
    if found := [str(what) for (what,) in connection.execute(query.encode())]:
        raise _refused(schema, fact, ", ".join(found))


def build_keys(connection: Connection, schema: str, fact: Table, made: str) -> None:
    """Build the keys and indexes of ``fact`` on the table ``made``, which has its rows, while others read that one."""
    new = _name(schema, made)
    for key, (kind, columns) in keys_with_day(fact).items():
        listed = ", ".join(map(quoted, columns))
        connection.execute(f"ALTER TABLE {new} ADD CONSTRAINT {quoted(_new(key))} {kind} ({listed})".encode())
    for index, definition in _indexes(connection, schema, fact):
        _, _, rest = definition.partition(" USING ")
        connection.execute(f"CREATE INDEX {quoted(_new(index))} ON {new} USING {rest}".encode())
    connection.execute(f"ANALYZE {new}".encode())


def replace(connection: Connection, schema: str, fact: Table, made: str) -> None:
    """Put the table ``made`` in the place of ``fact``, and drop the one of before.

    Readers wait from now on, until the transaction ends. Raises PlatformError where something else depends on that one.
    """
    name, new, before = (_name(schema, each) for each in (fact.name, made, f"_{fact.name}_before"))
    oid, indexes = _oid(name), _indexes(connection, schema, fact)
    connection.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE".encode())
    wanted = _DONE_TO_IT.format(oid=oid, new=_oid(new), name=literal(name), made=literal(new), key=literal(fact.key))
    done, views = (connection.execute(query.encode()).fetchall() for query in (wanted, _VIEWS.format(oid=oid)))
    moved = [
        f"ALTER TABLE {name} RENAME TO {quoted(f'_{fact.name}_before')}",
        f"ALTER TABLE {new} RENAME TO {quoted(fact.name)}",
        *(str(view) for (view,) in views),
        f"DROP TABLE {before}",
        *(f"ALTER TABLE {name} RENAME CONSTRAINT {quoted(_new(key))} TO {quoted(key)}" for key in keys(fact)),
        *(f"ALTER INDEX {_name(schema, _new(index))} RENAME TO {quoted(index)}" for index, _ in indexes),
        *(str(statement) for (statement,) in done),
    ]
    with moving(schema, fact):
        for statement in moved:
            connection.execute(statement.encode())


@contextmanager
def moving(schema: str, fact: Table) -> Iterator[None]:
    """Raise PlatformError for what PostgreSQL says of others that are in the way of ``fact``."""
    try:
        yield
    except _NOT_MOVED as error:
        raise _refused(schema, fact, engine.one_line(error)) from None


def columns_of(connection: Connection, table: str) -> str:
    """The columns of a table that have values of their own, quoted, with commas."""
    query = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
    found = connection.execute(f"{query} AND attgenerated = '' ORDER BY attnum".encode(), [table])
    return ", ".join(quoted(str(name)) for (name,) in found)


def _indexes(connection: Connection, schema: str, fact: Table) -> list[tuple[str, str]]:
    """Name and definition of each index that belongs to no key."""
    found = connection.execute(_INDEXES.format(oid=_oid(_name(schema, fact.name))).encode())
    return [(str(name), str(definition)) for name, definition in found]


def _oid(name: str) -> str:
    return f"{literal(name)}::regclass"


def _refused(schema: str, fact: Table, why: str) -> PlatformError:
    return PlatformError(
        f'"{schema}"."{fact.name}" cannot be partitioned with what others have built on it: {why}. Nothing was '
        "changed. Drop that, partition the facts, then make it again."
    )


def _new(name: object) -> str:
    """Name of a key or an index until the one of before is dropped."""
    return f"{name}_new"


def _name(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
