"""What PostgreSQL keeps up to date itself: how many versions each fact has, and what is sold of each name of design.

Belongs here: the triggers, and what they do for sales of designs; making all of it anew. Does not belong here: what
they do for facts (recorded.py, superseded.py), the tables (notes.py), and the questions that read them.

A trigger works in the transaction that changes the rows, whoever it is that changes them: a load, an older version of
the platform, or the owner by hand. What it costs follows from the rows that are changed, and for sales from all rows of
their days, but not from the size of the table.
"""

from __future__ import annotations

from collections.abc import Iterator

from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse import recorded, superseded
from totesys_assets.warehouse.notes import DESIGN_SALES, RECORDED, Connection, exists

MART, DESIGN = "mart_sales_design_day", "dim_design"
_ON_INSERT, _ON_CHANGE, _ON_UPDATE, _ON_DELETE, _ON_TRUNCATE, _CURRENT = (
    f"keep_{event}" for event in ("insert", "change", "update", "delete", "truncate", "current")
)

# Triggers that count what an INSERT adds. For them PostgreSQL copies all added rows.
COUNTING = (_ON_INSERT, _CURRENT)

# Triggers that run in sessions of everybody: not those that are disabled, nor those of replicas only.
_RUNS = ("O", "A")

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
    return {
        "count": recorded.compared(schema, table),
        "superseded record": superseded.compared(schema, table),
    }


def incomplete(connection: Connection, schema: str, catalogue: Catalogue) -> set[str]:
    """The tables of which not every trigger is there, and enabled."""
    held = _held(connection, schema)
    return {table for table, name, _, _, _ in _triggers(catalogue) if held.get((table, name)) not in _RUNS}


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
    for each in filter(has_kept, catalogue.warehouse.values()):
        connection.execute(anew(schema, each).encode())


def statements(schema: str, catalogue: Catalogue) -> Iterator[str]:
    """The statements that create the functions and triggers, or replace them, and the tables of superseded.py."""
    yield from (superseded.create(schema, fact) for fact in _facts(catalogue))
    yield from _functions(schema, catalogue)
    for trigger in _triggers(catalogue):
        yield _trigger(schema, *trigger)


def counting(schema: str, table: Table) -> Iterator[str]:
    """The statements that create the triggers ``COUNTING`` of a table, or replace them."""
    for each in _triggers_of(table):
        if each[1] in COUNTING:
            yield _trigger(schema, *each)


def _trigger(schema: str, table: str, name: str, event: str, rows: str, keeping: str) -> str:
    on, function = _name(schema, table), _name(schema, keeping)
    return _TRIGGER.format(name=name, event=event, table=on, rows=rows, function=function)


def _functions(schema: str, catalogue: Catalogue) -> Iterator[str]:
    for fact in _facts(catalogue):
        body = recorded.keeping(schema, fact, anew(schema, fact))
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
    for table in catalogue.warehouse.values():
        if table.name not in (MART, DESIGN) or MART in catalogue.warehouse:
            yield from _triggers_of(table)


def _triggers_of(table: Table) -> Iterator[tuple[str, str, str, str, str]]:
    new, old, name = "REFERENCING NEW TABLE AS new_rows", "REFERENCING OLD TABLE AS old_rows", table.name
    if table.is_fact:
        yield name, _ON_INSERT, "INSERT", new, _keeping(name)
        yield name, _CURRENT, "INSERT", new, _keeping(name, _CURRENT)
        yield name, _ON_CHANGE, "UPDATE OR DELETE OR TRUNCATE", "", _keeping(name)
    if name in (MART, DESIGN):
        yield name, _ON_INSERT, "INSERT", new, _keeping(name)
        yield name, _ON_UPDATE, "UPDATE", f"{new} OLD TABLE AS old_rows", _keeping(name)
        yield name, _ON_DELETE, "DELETE", old, _keeping(name)
        yield name, _ON_TRUNCATE, "TRUNCATE", "", _keeping(name)


def _facts(catalogue: Catalogue) -> list[Table]:
    return [table for table in catalogue.star.values() if table.is_fact]


def anew(schema: str, table: Table, known: recorded.Inserted | None = None) -> str:
    """Statements that make all anew that is kept beside ``table``, whose records need not be counted if ``known``."""
    if table.is_fact:
        none_is = f"DELETE FROM {_name(schema, superseded.superseded(table))}"
        # In the order of the triggers, which lock both.
        return f"{superseded.anew(schema, table) if known is None else none_is};{recorded.anew(schema, table, known)}"
    kept = _name(schema, DESIGN_SALES)
    lock = f"LOCK TABLE {kept} IN SHARE ROW EXCLUSIVE MODE; DELETE FROM {kept}"
    # Of a table that nobody analyzed PostgreSQL expects few rows, and questions took three times as long.
    return f"{lock}; INSERT INTO {kept} ({_SUMMED}) {_sums(schema, 'true')}; ANALYZE {kept}"


def _sums(schema: str, within: str) -> str:
    return _SUMS.format(mart=_name(schema, MART), design=_name(schema, DESIGN), within=within)


def _name(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
