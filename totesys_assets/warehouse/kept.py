"""What PostgreSQL keeps up to date itself: counts of versions, which are superseded, what is sold of each design.

Belongs here: the triggers, and making all of it anew. Does not belong here: what they do (recorded.py, superseded.py,
sold.py), the tables (notes.py), and the questions that read them.

A trigger works in the transaction that changes the rows, whoever it is that changes them: a load, an older version of
the platform, or the owner by hand. What it costs follows from the rows that are changed, not from the size of the
table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse import recorded, sold, superseded
from totesys_assets.warehouse.notes import DESIGN_SALES, RECORDED, Connection, exists

# PostgreSQL calls them in the order of their names: what is added is in the sums before anything is made anew.
_ADDED, _CURRENT, _ON_INSERT, _ON_CHANGE = (f"keep_{event}" for event in ("added", "current", "insert", "change"))

# Triggers that count what an INSERT adds. For them PostgreSQL copies all added rows.
COUNTING = (_ADDED, _CURRENT, _ON_INSERT)

# Triggers that run in sessions of everybody: not those that are disabled, nor those of replicas only.
_RUNS = ("O", "A")

# With the owner's rights: a login that may load needs none on what is kept, also between a migration and its grants. So
# nobody else may put the function on a table of their own.
_FUNCTION = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10min' {settings} AS {body};
REVOKE EXECUTE ON FUNCTION {function}() FROM PUBLIC
"""
_ROWS = {
    "INSERT": "REFERENCING NEW TABLE AS new_rows",
    "UPDATE": "REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows",
    "DELETE": "REFERENCING OLD TABLE AS old_rows",
}
_TRIGGER = (
    "CREATE OR REPLACE TRIGGER {name} AFTER {event} ON {table} {rows} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
)


class _Trigger(NamedTuple):
    table: str
    name: str
    event: str
    function: str


def made_of(kept: str, catalogue: Catalogue) -> frozenset[str]:
    """The tables from which triggers keep the table ``kept``. None for any other table."""
    if kept == RECORDED:
        return frozenset(fact.name for fact in _facts(catalogue))
    return frozenset({sold.FACT, sold.DESIGN}) if kept == DESIGN_SALES else frozenset()


def kept_tables(table: Table, catalogue: Catalogue) -> list[str]:
    """Names of the tables that triggers keep from the rows of ``table``. Not that of the counts: it has few rows."""
    of_sales = [DESIGN_SALES] if table.name in made_of(DESIGN_SALES, catalogue) else []
    return [superseded.superseded(table), *of_sales] if table.is_fact else of_sales


def kept_queries(schema: str, fact: Table) -> dict[str, tuple[str, str]]:
    """Of each thing kept beside ``fact`` two queries with the same columns: what is kept, and what follows from rows.

    By the word for one of its rows.
    """
    of_versions = {"count": recorded.compared(schema, fact), "superseded record": superseded.compared(schema, fact)}
    return of_versions | ({"sum": sold.compared(schema, fact)} if fact.name == sold.FACT else {})


def incomplete(connection: Connection, schema: str, catalogue: Catalogue) -> set[str]:
    """The tables of which not every trigger is there, and enabled."""
    held = _held(connection, schema)
    wanted = (each for fact in _facts(catalogue) for each in _triggers(schema, fact))
    return {each.table for each in wanted if held.get((each.table, each.name)) not in _RUNS}


def _held(connection: Connection, schema: str) -> dict[tuple[str, str], str]:
    """The triggers that are there: (table, name) -> when PostgreSQL runs it."""
    query = (
        "SELECT relname::text, tgname::text, tgenabled::text FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND NOT tgisinternal"
    )
    return {(table, name): enabled for table, name, enabled in connection.execute(query, [schema])}


def former_marts(connection: Connection, schema: str) -> list[str]:
    """The tables that are marts no more: something was kept beside them by a function that no table has now."""
    query = (
        "SELECT DISTINCT relname::text FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "JOIN pg_proc ON pg_proc.oid = tgfoid WHERE proname = ANY (%s) AND proname = 'keep_' || relname "
        "AND relname LIKE 'mart\\_%%' AND pronamespace = relnamespace "
        "AND relnamespace = to_regnamespace(quote_ident(%s))"
    )
    return [str(name) for (name,) in connection.execute(query, [[*sold.FORMER], schema])]


def wait_for_loads(connection: Connection, schema: str, catalogue: Catalogue) -> None:
    """Before anything is locked: wait for loads that are going to lock what a trigger keeps, and let none begin.

    A migration that had locked that first, for a comment, and a load would wait for one another.
    """
    known = made_of(DESIGN_SALES, catalogue) | made_of(RECORDED, catalogue)
    held = [name for name in known if name in catalogue.warehouse and exists(connection, schema, name)]
    for name in sorted([*held, *former_marts(connection, schema)]):  # an older version may be loading these yet
        connection.execute(f"LOCK TABLE {_name(schema, name)} IN SHARE MODE".encode())


def keep(connection: Connection, schema: str, catalogue: Catalogue) -> None:
    """Create functions and triggers, and enable those that do not run; then make anew what they keep.

    In the transaction of ``connection``, after the tables were created.
    """
    held = _held(connection, schema)
    for statement in statements(schema, catalogue):
        connection.execute(statement.encode())
    for fact in _facts(catalogue):
        for each in _triggers(schema, fact):
            if held.get((each.table, each.name), _RUNS[0]) not in _RUNS:
                connection.execute(f"ALTER TABLE {_name(schema, each.table)} ENABLE TRIGGER {each.name}".encode())
        connection.execute(anew(schema, fact).encode())
    for function in sold.FORMER:
        connection.execute(f"DROP FUNCTION IF EXISTS {_name(schema, function)}()".encode())
    # Of a table that nobody analyzed PostgreSQL expects few rows, and questions took three times as long.
    connection.execute(f"ANALYZE {_name(schema, DESIGN_SALES)}".encode())


def statements(schema: str, catalogue: Catalogue) -> Iterator[str]:
    """The statements that create the functions and triggers, or replace them, and the tables of superseded.py."""
    for fact in _facts(catalogue):
        yield superseded.create(schema, fact)
        yield from _functions(schema, fact)
        for trigger in _triggers(schema, fact):
            yield _trigger(schema, trigger)


def counting(schema: str, fact: Table) -> Iterator[str]:
    """The statements that create the triggers ``COUNTING`` of a fact, or replace them."""
    for trigger in _triggers(schema, fact):
        if trigger.table == fact.name and trigger.name in COUNTING:
            yield _trigger(schema, trigger)


def anew(schema: str, fact: Table, known: recorded.Inserted | None = None) -> str:
    """Statements that make all anew that is kept beside ``fact``.

    If its records are ``known``, they are not counted, and each counts as its order is now.
    """
    none_is = f"DELETE FROM {_name(schema, superseded.superseded(fact))}"
    of_versions = [superseded.anew(schema, fact) if known is None else none_is, recorded.anew(schema, fact, known)]
    if fact.name != sold.FACT:
        return ";".join(of_versions)
    # In the order in which the triggers lock.
    return ";".join([sold.lock(schema, fact), *of_versions, sold.anew(schema, fact, all_are_current=known is not None)])


def _facts(catalogue: Catalogue) -> list[Table]:
    return [table for table in catalogue.star.values() if table.is_fact]


def _functions(schema: str, fact: Table) -> Iterator[str]:
    """The statements that create the functions that triggers call for ``fact``, or replace them."""
    bodies = {
        "": (recorded.keeping(schema, fact, anew(schema, fact)), ""),
        "current": (superseded.keeping(schema, fact), superseded.SETTINGS),
        **{each.what: (each.body, "") for each in _of_sales(schema, fact)},
    }
    for what, (body, settings) in bodies.items():
        yield _FUNCTION.format(function=_name(schema, _function(fact, what)), body=literal(body), settings=settings)


def _triggers(schema: str, fact: Table) -> Iterator[_Trigger]:
    yield _Trigger(fact.name, _ON_INSERT, "INSERT", _function(fact))
    yield _Trigger(fact.name, _CURRENT, "INSERT", _function(fact, "current"))
    yield _Trigger(fact.name, _ON_CHANGE, "UPDATE OR DELETE OR TRUNCATE", _function(fact))
    for table, event, what, _ in _of_sales(schema, fact):
        yield _Trigger(table, _ADDED if table == fact.name else f"keep_{event.lower()}", event, _function(fact, what))


def _of_sales(schema: str, fact: Table) -> Iterator[sold.Keeping]:
    if fact.name == sold.FACT:
        yield from sold.keeping(schema, fact)


def _function(fact: Table, what: str = "") -> str:
    """Name of the function that triggers call for ``fact``."""
    return f"keep_{fact.name}_{what}".rstrip("_")


def _trigger(schema: str, trigger: _Trigger) -> str:
    return _TRIGGER.format(
        name=trigger.name,
        event=trigger.event,
        table=_name(schema, trigger.table),
        rows=_ROWS.get(trigger.event, ""),
        function=_name(schema, trigger.function),
    )


def _name(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
