"""What PostgreSQL keeps up to date itself: how many versions each fact has, and what is sold of each name of design.

Belongs here: the triggers that keep these two tables, and what superseded.py says; making all of it anew. Does not
belong here: the tables (notes.py, superseded.py) and the questions that read them.

A trigger works in the transaction that changes the rows, whoever it is that changes them: a load, an older version of
the platform, or the owner by hand. What it costs follows from the rows that are changed, and for sales from all rows of
their days, but not from the size of the table.
"""

from __future__ import annotations

from collections.abc import Iterator

from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse import superseded
from totesys_assets.warehouse.notes import DESIGN_SALES, RECORDED, Connection, exists

MART, DESIGN = "mart_sales_design_day", "dim_design"
_ON_INSERT, _ON_CHANGE, _ON_UPDATE, _ON_DELETE, _ON_TRUNCATE, _CURRENT = (
    f"keep_{event}" for event in ("insert", "change", "update", "delete", "truncate", "current")
)

# Triggers that run in sessions of everybody: not those that are disabled, nor those of replicas only.
_RUNS = ("O", "A")

# A silent update left the source's last_updated as it was. Few moments are recorded, so they are turned into days after
# they are counted.
_SILENT = """
CASE WHEN _operation = 'update' AND last_updated_date + last_updated_time = (
    SELECT last_updated_date + last_updated_time FROM {table} AS earlier
    WHERE earlier.{key} = seen.{key} AND earlier.{day} = seen.{day} AND earlier._recorded_at < seen._recorded_at
    ORDER BY _recorded_at DESC LIMIT 1
) THEN 'silent update' ELSE _operation END
"""
_VERSIONS = """
SELECT {name} AS table_name, (_recorded_at AT TIME ZONE 'UTC')::date AS recorded_on, operation,
    sum(versions)::bigint AS versions, min(_recorded_at) AS first_recorded_at, max(_recorded_at) AS last_recorded_at,
    min(first)::bigint AS first_record, max(last)::bigint AS last_record
FROM (
    SELECT _recorded_at, {operation} AS operation, count(*) AS versions, min({record}) AS first, max({record}) AS last
    FROM {rows} AS seen GROUP BY 1, 2
) AS recorded
GROUP BY 2, 3
"""
_ADD_VERSIONS = """
INSERT INTO {kept} AS noted {versions}
ON CONFLICT (table_name, recorded_on, operation) DO UPDATE SET
    versions = noted.versions + excluded.versions,
    first_recorded_at = least(noted.first_recorded_at, excluded.first_recorded_at),
    last_recorded_at = greatest(noted.last_recorded_at, excluded.last_recorded_at),
    first_record = least(noted.first_record, excluded.first_record),
    last_record = greatest(noted.last_record, excluded.last_record)
"""
# Records that were removed by hand come back between others of the same row.
_COMES_BETWEEN = """
EXISTS (
    SELECT FROM new_rows AS added
    WHERE _recorded_at < (SELECT max(last_recorded_at) FROM {kept} WHERE table_name = {name}) AND EXISTS (
        SELECT FROM {table} AS later
        WHERE later.{key} = added.{key} AND later.{day} = added.{day} AND later._recorded_at > added._recorded_at
            AND later.{record} < (SELECT min({record}) FROM new_rows)
    )
)
"""
# Only the owner, by hand, changes or removes records. Then all records of the fact are looked at again.
_KEEP_VERSIONS = """
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NOT {comes_between} THEN
            {add};
            RETURN NULL;
        END IF;
    END IF;
    {anew};
    RETURN NULL;
END
"""

_SUMMED = "created_date, currency_id, design_name, orders, units, revenue"
_SUMS = """
SELECT created_date, currency_id, coalesce(design_name, '') AS design_name,
    sum(orders)::bigint AS orders, sum(units)::bigint AS units, sum(revenue) AS revenue
FROM {mart} LEFT JOIN {design} USING (design_id) WHERE {within} GROUP BY 1, 2, 3
"""
# The days whose rows changed are added up anew, or those of the designs that changed. One transaction after the other:
# so each sees the names and the rows that the one before it left. Readers need not wait. With a snapshot of before it
# waited, sums would be of names and rows that are gone. A load has READ COMMITTED, and a lock_timeout that is meant for
# locks for which readers must wait.
_KEEP_SUMS = """
DECLARE
    keys {type}[];
    days date[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        keys := ARRAY(SELECT DISTINCT {key} FROM new_rows);
    ELSIF TG_OP = 'DELETE' THEN
        keys := ARRAY(SELECT DISTINCT {key} FROM old_rows);
    ELSIF TG_OP = 'UPDATE' THEN
        keys := ARRAY({updated});
    END IF;
    IF keys = '{{}}' THEN
        RETURN NULL;
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'Sales and designs of the warehouse are changed in READ COMMITTED transactions only'
            USING HINT = 'Begin with: BEGIN ISOLATION LEVEL READ COMMITTED';
    END IF;
    LOCK TABLE {kept} IN SHARE ROW EXCLUSIVE MODE;
    IF TG_OP = 'TRUNCATE' THEN
        days := ARRAY(SELECT DISTINCT created_date FROM {kept});
    ELSE
        days := {days};
    END IF;
    DELETE FROM {kept} WHERE created_date = ANY (days);
    INSERT INTO {kept} ({summed}) {sums};
    RETURN NULL;
END
"""
_UPDATED_DAYS = "SELECT created_date FROM new_rows UNION SELECT created_date FROM old_rows"
# Those that got another number or name. Nothing else of a design is in the sums.
_RENAMED_DESIGNS = """
SELECT DISTINCT design_id FROM new_rows AS now FULL JOIN old_rows AS before USING (design_id, design_name)
WHERE now.design_id IS NULL OR before.design_id IS NULL
"""
_DAYS_OF_DESIGNS = "ARRAY(SELECT DISTINCT created_date FROM {mart} WHERE design_id = ANY (keys))"

# With the owner's rights: a login that may load needs none on what is kept, also between a migration and its grants. So
# nobody else may put the function on a table of their own.
_FUNCTION = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10min' {settings} AS {body};
REVOKE EXECUTE ON FUNCTION {function}() FROM PUBLIC
"""
_TRIGGER = (
    "CREATE OR REPLACE TRIGGER {name} AFTER {event} ON {table} {rows} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
)


def made_of(kept: str, catalogue: Catalogue) -> frozenset[str]:
    """The tables from which triggers keep the table ``kept``. None for any other table."""
    if kept == RECORDED:
        return frozenset(fact.name for fact in _facts(catalogue))
    return frozenset({MART, DESIGN}) if kept == DESIGN_SALES else frozenset()


def has_kept(table: Table) -> bool:
    """True for a table beside which something is kept that ``kept_queries`` compares."""
    return table.is_fact or table.name == MART


def kept_queries(schema: str, table: Table) -> dict[str, tuple[str, str]]:
    """Of each thing kept beside ``table`` two queries with the same columns: what is kept, and what follows from rows.

    By the word for one of its rows.
    """
    if not table.is_fact:
        return {"sum": (f"SELECT {_SUMMED} FROM {_name(schema, DESIGN_SALES)}", _sums(schema, "true"))}
    counts = f"SELECT * FROM {_name(schema, RECORDED)} WHERE table_name = {literal(table.name)}"
    return {
        "count": (counts, _versions(schema, table, _name(schema, table.name))),
        "superseded record": superseded.compared(schema, table),
    }


def is_complete(connection: Connection, schema: str, catalogue: Catalogue) -> bool:
    """True when every trigger is there, and enabled."""
    held = _held(connection, schema)
    return all(held.get((table, name)) in _RUNS for table, name, _, _, _ in _triggers(catalogue))


def _held(connection: Connection, schema: str) -> dict[tuple[str, str], str]:
    """The triggers that are there: (table, name) -> when PostgreSQL runs it."""
    query = (
        "SELECT relname::text, tgname::text, tgenabled::text FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND NOT tgisinternal"
    )
    return {(table, name): enabled for table, name, enabled in connection.execute(query, [schema])}


def wait_for_loads(connection: Connection, schema: str, catalogue: Catalogue) -> None:
    """Before anything is locked: wait for loads that are going to lock what a trigger keeps, and let none begin.

    A migration that had locked that first, for a comment, and a load would wait for one another.
    """
    for name in sorted(made_of(DESIGN_SALES, catalogue) | made_of(RECORDED, catalogue)):
        if name in catalogue.warehouse and exists(connection, schema, name):
            connection.execute(f"LOCK TABLE {_name(schema, name)} IN SHARE MODE".encode())


def keep(connection: Connection, schema: str, catalogue: Catalogue) -> None:
    """Create functions and triggers, and enable those that do not run; then make anew what they keep.

    In the transaction of ``connection``, after the tables were created.
    """
    held = _held(connection, schema)
    for statement in statements(schema, catalogue):
        connection.execute(statement.encode())
    for table, name, _, _, _ in _triggers(catalogue):
        if held.get((table, name), _RUNS[0]) not in _RUNS:
            connection.execute(f"ALTER TABLE {_name(schema, table)} ENABLE TRIGGER {name}".encode())
    for fact in _facts(catalogue):
        connection.execute(_anew(schema, fact).encode())
    if MART in catalogue.warehouse:
        kept = _name(schema, DESIGN_SALES)
        anew = f"LOCK TABLE {kept} IN SHARE ROW EXCLUSIVE MODE; DELETE FROM {kept}; INSERT INTO {kept} ({_SUMMED}) "
        # Of a table that nobody analyzed PostgreSQL expects few rows, and questions took three times as long.
        connection.execute(f"{anew}{_sums(schema, 'true')}; ANALYZE {kept}".encode())


def statements(schema: str, catalogue: Catalogue) -> Iterator[str]:
    """The statements that create the functions and triggers, or replace them, and the tables of superseded.py."""
    yield from (superseded.create(schema, fact) for fact in _facts(catalogue))
    yield from _functions(schema, catalogue)
    for table, name, event, rows, keeping in _triggers(catalogue):
        on, function = _name(schema, table), _name(schema, keeping)
        yield _TRIGGER.format(name=name, event=event, table=on, rows=rows, function=function)


def _functions(schema: str, catalogue: Catalogue) -> Iterator[str]:
    for fact in _facts(catalogue):
        add, between = _add_versions(schema, fact, "new_rows"), _COMES_BETWEEN.format(**_names(schema, fact))
        body = _KEEP_VERSIONS.format(comes_between=between, add=add, anew=_anew(schema, fact))
        yield _FUNCTION.format(function=_name(schema, _keeping(fact.name)), body=literal(body), settings="")
        function, body = _name(schema, _keeping(fact.name, _CURRENT)), superseded.keeping(schema, fact)
        yield _FUNCTION.format(function=function, body=literal(body), settings=superseded.SETTINGS)
    if MART not in catalogue.warehouse:
        return
    kept, sums = _name(schema, DESIGN_SALES), _sums(schema, "created_date = ANY (days)")
    of_designs = _DAYS_OF_DESIGNS.format(mart=_name(schema, MART))
    for table, key, type_, updated, days in (
        (MART, "created_date", "date", _UPDATED_DAYS, "keys"),
        (DESIGN, "design_id", "integer", _RENAMED_DESIGNS, of_designs),
    ):
        body = _KEEP_SUMS.format(type=type_, key=key, updated=updated, days=days, kept=kept, summed=_SUMMED, sums=sums)
        yield _FUNCTION.format(function=_name(schema, _keeping(table)), body=literal(body), settings="")


def _keeping(table: str, what: str = "keep") -> str:
    """Name of the function that triggers of ``table`` call."""
    return f"keep_{table}{what.removeprefix('keep')}"


def _triggers(catalogue: Catalogue) -> Iterator[tuple[str, str, str, str, str]]:
    """(table, name, event, names of the changed rows, function) of each trigger."""
    new, old = "REFERENCING NEW TABLE AS new_rows", "REFERENCING OLD TABLE AS old_rows"
    for fact in _facts(catalogue):
        yield fact.name, _ON_INSERT, "INSERT", new, _keeping(fact.name)
        yield fact.name, _CURRENT, "INSERT", new, _keeping(fact.name, _CURRENT)
        yield fact.name, _ON_CHANGE, "UPDATE OR DELETE OR TRUNCATE", "", _keeping(fact.name)
    if MART in catalogue.warehouse:
        for table in (MART, DESIGN):
            yield table, _ON_INSERT, "INSERT", new, _keeping(table)
            yield table, _ON_UPDATE, "UPDATE", f"{new} OLD TABLE AS old_rows", _keeping(table)
            yield table, _ON_DELETE, "DELETE", old, _keeping(table)
            yield table, _ON_TRUNCATE, "TRUNCATE", "", _keeping(table)


def _facts(catalogue: Catalogue) -> list[Table]:
    return [table for table in catalogue.star.values() if table.is_fact]


def _names(schema: str, fact: Table) -> dict[str, str]:
    """What the statements name of a fact."""
    return {
        "kept": _name(schema, RECORDED),
        "table": _name(schema, fact.name),
        "name": literal(fact.name),
        "record": quoted(fact.key),
        "key": quoted(fact.version_key[0]),
        "day": quoted(str(fact.day_column)),
    }


def _versions(schema: str, fact: Table, rows: str) -> str:
    names = _names(schema, fact)
    operation = _SILENT.format(**names) if "last_updated_date" in fact.by_name else "_operation"
    return _VERSIONS.format(**names, operation=operation, rows=rows)


def _add_versions(schema: str, fact: Table, rows: str) -> str:
    return _ADD_VERSIONS.format(kept=_name(schema, RECORDED), versions=_versions(schema, fact, rows))


def _anew(schema: str, fact: Table) -> str:
    # The lock: a load that comes to its end between the two statements would be counted twice.
    kept = _name(schema, RECORDED)
    lock = f"LOCK TABLE {kept} IN SHARE ROW EXCLUSIVE MODE;"
    forget = f"DELETE FROM {kept} WHERE table_name = {literal(fact.name)};"
    count = _add_versions(schema, fact, _name(schema, fact.name))
    return f"{lock}{forget}{count};{superseded.anew(schema, fact)}"


def _sums(schema: str, within: str) -> str:
    return _SUMS.format(mart=_name(schema, MART), design=_name(schema, DESIGN), within=within)


def _name(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
