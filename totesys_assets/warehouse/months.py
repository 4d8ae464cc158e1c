"""Facts in partitions of a month each: making them of plain tables, and the months that come.

Belongs here: PostgreSQL's partitions. Does not belong here: what else was built on a plain table, and comes along
(rebuilt.py); when this is asked for (schema.py).

Whether a warehouse has partitions is told by its tables alone. They are made as _<fact>_<year>_<month>. What is in no
month is in _<fact>_rest. All of a fact's keys must have its day then; a record's number stays its own, for it is drawn
from one sequence.

Others may rename, detach and add partitions. So a month is made if PostgreSQL would put each of its days into the rest,
and if no table has its name: that of a month that was detached may be kept with its records.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime

import psycopg

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.days import DayRange
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.notes import Connection
from totesys_assets.warehouse.rebuilt import build_keys, columns_of, moving, replace, require_movable

log = logging.getLogger(__name__)
# A migration makes months up to the end of the second year after this one, as the calendar has them. A load makes some
# when less than a year is left.
_YEARS_AHEAD, _LEAST_MONTHS = 2, 12
AHEAD = "keep_months_ahead"

_DAYS_OF = "dim_date"
_PART = "LIKE {table} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY EXCLUDING STATISTICS"
_ATTACH = "ALTER TABLE {table} ATTACH PARTITION {part} FOR VALUES FROM ({first}) TO ({last})"
_BOUNDS = """
SELECT pg_get_expr(relpartbound, oid) FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = %s::regclass
"""
_REST = "SELECT partdefid::regclass::text FROM pg_partitioned_table WHERE partrelid = %s::regclass AND partdefid <> 0"
# What PostgreSQL asks of a row of the rest; nothing if there are no other partitions.
_HELD_BY_REST = "coalesce(pg_get_partition_constraintdef(partdefid), 'true')"
_NOT_PARTED = """
(SELECT bool_and({held}) FROM (SELECT each::date AS {day} FROM
    generate_series({month}, {month} + interval '1 month' - interval '1 day', interval '1 day') AS each) AS days)
"""
_MONTHS_OF = "SELECT DISTINCT date_trunc('month', {day})::date FROM {table}"
# Rows of a month that had no partition. Triggers of the fact do not run: of the fact nothing changes.
_OUT_OF_REST = """
WITH moved AS (DELETE FROM {rest} WHERE {day} >= {first} AND {day} < {last} RETURNING *)
INSERT INTO {part} ({columns}) SELECT {columns} FROM moved
"""
_SEQUENCE = """
SELECT format('SELECT setval(%L, last_value, is_called) FROM %s', pg_get_serial_sequence({made}, {key}),
    pg_get_serial_sequence({table}, {key})::regclass)
"""
# With the owner's rights, for a login that only loads. To attach a partition takes a lock on {rest} for which readers
# would have to wait: where that is not free at once, a later load tries again. There is a year's time for it.
_KEEP_AHEAD = """
DECLARE
    fact text;
    day text;
    rest text;
    free text;
    month date;
    part text;
    is_used boolean;
BEGIN
    FOR fact, day, rest, free IN
        SELECT held.fact, held.day, partdefid::regclass, format({free}, {held}, held.day)
        FROM (VALUES {facts}) AS held (fact, day)
        JOIN pg_partitioned_table ON partrelid = to_regclass(format('%I.%I', {schema}, held.fact)) AND partdefid <> 0
    LOOP
        FOR month IN EXECUTE free LOOP
            part := '_' || fact || to_char(month, '_YYYY_MM');
            CONTINUE WHEN to_regclass(format('%I.%I', {schema}, part)) IS NOT NULL;
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', rest);
            EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I >= %L AND %I < %L)', rest, day, month, day,
                (month + interval '1 month')::date) INTO is_used;
            CONTINUE WHEN is_used;
            EXECUTE format({create}, {schema}, part, {schema}, fact);
            EXECUTE format('ALTER TABLE %I.%I ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)', {schema}, fact,
                {schema}, part, month, (month + interval '1 month')::date);
        END LOOP;
    END LOOP;
EXCEPTION WHEN lock_not_available OR duplicate_table OR invalid_object_definition THEN
    NULL; -- a reader is in the way, or another load has just made the month
END
"""
_FREE = """
SELECT month::date FROM generate_series(date_trunc('month', now()),
    date_trunc('year', now()) + interval '{months} months', interval '1 month') AS month
WHERE {not_parted}
"""
_FUNCTION = """
CREATE OR REPLACE FUNCTION {function}() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' SET timezone = 'UTC' AS {body};
REVOKE EXECUTE ON FUNCTION {function}() FROM PUBLIC
"""
_RESTS = f"""
SELECT relname::text, {_HELD_BY_REST} FROM pg_partitioned_table JOIN pg_class ON oid = partrelid
WHERE partrelid = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name) AND partdefid <> 0
    AND has_function_privilege(to_regprocedure(%s), 'EXECUTE')
"""


def parted(catalogue: Catalogue) -> list[Table]:
    """The facts that are partitioned: those of days of trade. Of rates, a month has some hundred."""
    return [
        table
        for table in catalogue.star.values()
        if table.is_fact and table.by_name[str(table.day_column)].references == _DAYS_OF
    ]


def is_partitioned(connection: Connection, schema: str, fact: Table) -> bool:
    """True for a fact that has partitions. One that is missing has none."""
    query = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s)"
    return connection.execute(query, [_name(schema, fact.name)]).fetchone() == (True,)


def has_partitions(connection: Connection, schema: str, catalogue: Catalogue) -> bool:
    """True for a warehouse whose facts were partitioned."""
    return any(is_partitioned(connection, schema, fact) for fact in parted(catalogue))


def copy_plain(connection: Connection, schema: str, catalogue: Catalogue, first_day: date | None) -> list[Table]:
    """Copy the facts that are plain tables into partitioned ones, from the month of ``first_day`` on; which they are.

    With keys and indexes, while others read the facts. Raises PlatformError that names what cannot come along.
    """
    facts = [fact for fact in parted(catalogue) if not is_partitioned(connection, schema, fact)]
    for fact in facts:
        require_movable(connection, schema, fact)
    months = _wanted(connection, schema, catalogue, first_day)
    for fact in facts:
        with moving(schema, fact):
            _copy(connection, schema, fact, months)
            build_keys(connection, schema, fact, _new(fact))
    return facts


def partitions(connection: Connection, schema: str, catalogue: Catalogue, first_day: date | None) -> int:
    """How many partitions all facts are to have."""
    return len(_wanted(connection, schema, catalogue, first_day)) * len(parted(catalogue))


def partition(
    connection: Connection, schema: str, catalogue: Catalogue, copied: list[Table], first_day: date | None
) -> None:
    """Put the copies of ``copy_plain`` in the place of the facts, and make the months that are missing.

    In the same transaction; readers wait from now on until it ends. Raises PlatformError where something else depends
    on a fact.
    """
    for fact in copied:
        replace(connection, schema, fact, _new(fact))
    months = _wanted(connection, schema, catalogue, first_day)
    for fact in parted(catalogue):
        rest = _rest_of(connection, schema, fact)
        of_rest = _MONTHS_OF.format(day=quoted(str(fact.day_column)), table=rest)
        found = {month for (month,) in connection.execute(of_rest.encode())}
        _add_months(connection, schema, fact, fact.name, rest, months | found)
    connection.execute(keep_ahead(schema, parted(catalogue)).encode())


def look_ahead(connection: Connection, schema: str, catalogue: Catalogue) -> None:
    """Make the months that come, where few are left and it can be done at once. No load fails for it."""
    now = datetime.now(UTC).date()
    last = date(now.year + _LEAST_MONTHS // 12, now.month, 1)
    facts = {fact.name: fact for fact in parted(catalogue)}
    function = f"{_name(schema, AHEAD)}()"
    rests = connection.execute(_RESTS, [[_name(schema, name) for name in facts], function]).fetchall()
    due = [
        f"(to_regclass({literal(_name(schema, _part(facts[name], last)))}) IS NULL "
        f"AND {_not_parted(facts[name], str(held), literal(str(last)) + '::date')})"
        for name, held in rests
    ]
    if due and connection.execute(f"SELECT {' OR '.join(due)}".encode()).fetchone() == (True,):
        try:
            with connection.transaction():
                connection.execute(f"SELECT {function}".encode())
        except psycopg.Error as error:
            if connection.broken:
                raise
            log.warning("The months to come were not made, and a later load tries again: %s", engine.one_line(error))


def _copy(connection: Connection, schema: str, fact: Table, months: set[date]) -> None:
    """A partitioned copy of a fact under a name of its own, with keys and indexes."""
    table, made = _name(schema, fact.name), _name(schema, _new(fact))
    day = quoted(str(fact.day_column))
    like = f"LIKE {table} INCLUDING ALL EXCLUDING INDEXES"
    connection.execute(f"CREATE TABLE {made} ({like}) PARTITION BY RANGE ({day})".encode())
    rest = _name(schema, _rest(fact))
    connection.execute(f"CREATE TABLE {rest} ({_PART.format(table=table)})".encode())
    connection.execute(f"ALTER TABLE {made} ATTACH PARTITION {rest} DEFAULT".encode())
    found = {month for (month,) in connection.execute(_MONTHS_OF.format(day=day, table=table).encode())}
    _add_months(connection, schema, fact, _new(fact), rest, months | found)
    # In the order of the table, which is that of the records' numbers.
    columns = columns_of(connection, table)
    into = f"INSERT INTO {made} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {table}"
    connection.execute(into.encode())
    query = _SEQUENCE.format(made=literal(made), table=literal(table), key=literal(fact.key))
    for (statement,) in connection.execute(query.encode()).fetchall():
        connection.execute(str(statement).encode())


def _rest_of(connection: Connection, schema: str, fact: Table) -> str:
    """The partition of a fact that has all other days. If there is none, the one that it once had, or a new one."""
    table, rest = _name(schema, fact.name), _name(schema, _rest(fact))
    for (held,) in connection.execute(_REST, [table]).fetchall():
        return str(held)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {rest} ({_PART.format(table=table)})".encode())
    connection.execute(f"ALTER TABLE {table} ATTACH PARTITION {rest} DEFAULT".encode())
    return rest


def _add_months(connection: Connection, schema: str, fact: Table, name: str, rest: str, months: Iterable[date]) -> None:
    """Give a table those of the months that it can have."""
    table, day = _name(schema, name), quoted(str(fact.day_column))
    columns = columns_of(connection, table)
    for month in _free(connection, schema, fact, name, months):
        part, bounds = (
            _name(schema, _part(fact, month)),
            {"first": literal(str(month)), "last": literal(str(_next(month)))},
        )
        connection.execute(f"CREATE TABLE {part} ({_PART.format(table=table)})".encode())
        connection.execute(_OUT_OF_REST.format(rest=rest, part=part, day=day, columns=columns, **bounds).encode())
        connection.execute(_ATTACH.format(table=table, part=part, **bounds).encode())


def _free(connection: Connection, schema: str, fact: Table, name: str, months: Iterable[date]) -> list[date]:
    """The months that no partition has a day of, and whose names are free, in order."""
    named = {month: _name(schema, _part(fact, month)) for month in sorted(months)}
    held_by_rest = f"SELECT {_HELD_BY_REST} FROM pg_partitioned_table WHERE partrelid = %s::regclass"
    ((held,),) = connection.execute(held_by_rest, [_name(schema, name)]).fetchall()
    values = ", ".join(f"({literal(str(month))}::date, {literal(part)})" for month, part in named.items())
    query = (
        f"SELECT month FROM (VALUES {values}) AS asked (month, part) "
        f"WHERE to_regclass(part) IS NULL AND {_not_parted(fact, str(held), 'month')} ORDER BY 1"
    )
    return [month for (month,) in connection.execute(query.encode()).fetchall()]


def _not_parted(fact: Table, held: str, month: str) -> str:
    """A condition: that all days of a month belong to the rest. ``held``: what is asked of its rows."""
    return _NOT_PARTED.format(held=held, day=quoted(str(fact.day_column)), month=month)


def _held(connection: Connection, schema: str, fact: Table) -> set[date]:
    """The months that have a partition of their own, whatever it is called."""
    found = connection.execute(_BOUNDS, [_name(schema, fact.name)])
    ends = [re.findall(r"'(\d{4}-\d\d-\d\d)'", str(bound)) for (bound,) in found]
    days = [[date.fromisoformat(end) for end in each] for each in ends if len(each) == 2]
    return {first for first, until in days if first.day == 1 and until == _next(first)}


def _wanted(connection: Connection, schema: str, catalogue: Catalogue, first_day: date | None) -> set[date]:
    """The months that all facts are to have: those that one has, and those from ``first_day`` on."""
    now = datetime.now(UTC).date()
    held = (_held(connection, schema, fact) for fact in parted(catalogue))
    return set().union(_months(now if first_day is None else min(now, first_day), now), *held)


def keep_ahead(schema: str, facts: Iterable[Table]) -> str:
    """The statements that make the function which makes the months that come."""
    listed = ", ".join(f"({literal(fact.name)}, {literal(str(fact.day_column))})" for fact in facts)
    create = literal(f"CREATE TABLE %I.%I ({_PART.format(table='%I.%I')})")
    not_parted = _NOT_PARTED.format(held="%s", day="%I", month="month")
    free = literal(_FREE.format(months=12 * (_YEARS_AHEAD + 1) - 1, not_parted=not_parted))
    body = _KEEP_AHEAD.format(facts=listed, free=free, held=_HELD_BY_REST, schema=literal(schema), create=create)
    return _FUNCTION.format(function=_name(schema, AHEAD), body=literal(body))


def _months(first: date, now: date) -> list[date]:
    until = date(now.year + _YEARS_AHEAD, 12, 31)
    return [month.first.replace(day=1) for month in DayRange(first, until).by_month()]


def _next(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def _part(fact: Table, month: date) -> str:
    return f"_{fact.name}_{month:%Y_%m}"


def _rest(fact: Table) -> str:
    return f"_{fact.name}_rest"


def _new(fact: Table) -> str:
    return f"_{fact.name}_new"


def _name(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
