"""Facts in partitions of a month each: making them of plain tables, and the months that come.

Belongs here: PostgreSQL's partitions. Does not belong here: what else was built on a plain table, and comes along
(rebuilt.py); when this is asked for (schema.py).

Whether a warehouse has partitions is told by its tables alone. They are named _<fact>_<year>_<month>. What is in no
such month is in _<fact>_rest. All of a fact's keys must have its day then; a record's number stays its own, for it is
drawn from one sequence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from totesys_assets.catalogue.catalogue import Catalogue, Table
from totesys_assets.days import DayRange
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.notes import Connection
from totesys_assets.warehouse.rebuilt import build_keys, replace, require_movable

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
_MONTHS_OF = "SELECT DISTINCT date_trunc('month', {day})::date FROM {table}"
# Rows of a month that had no partition. Triggers of the fact do not run: of the fact nothing changes.
_OUT_OF_REST = """
WITH moved AS (DELETE FROM {rest} WHERE {day} >= {first} AND {day} < {last} RETURNING *)
INSERT INTO {part} SELECT * FROM moved
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
    month date;
    part text;
    is_used boolean;
BEGIN
    FOR fact, day, month IN
        SELECT held.fact, held.day, due::date
        FROM (VALUES {facts}) AS held (fact, day), generate_series(date_trunc('month', now()),
            date_trunc('year', now()) + interval '{months} months', interval '1 month') AS due
    LOOP
        part := '_' || fact || to_char(month, '_YYYY_MM');
        CONTINUE WHEN to_regclass(format('%I.%I', {schema}, part)) IS NOT NULL
            OR to_regclass(format('%I.%I', {schema}, '_' || fact || '_rest')) IS NULL;
        EXECUTE format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE NOWAIT', {schema}, '_' || fact || '_rest');
        EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I WHERE %I >= %L AND %I < %L)', {schema},
            '_' || fact || '_rest', day, month, day, (month + interval '1 month')::date) INTO is_used;
        CONTINUE WHEN is_used;
        EXECUTE format({create}, {schema}, part, {schema}, fact);
        EXECUTE format('ALTER TABLE %I.%I ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)', {schema}, fact,
            {schema}, part, month, (month + interval '1 month')::date);
    END LOOP;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END
"""
_FUNCTION = """
CREATE OR REPLACE FUNCTION {function}() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' SET timezone = 'UTC' AS {body};
REVOKE EXECUTE ON FUNCTION {function}() FROM PUBLIC
"""
_IS_DUE = """
SELECT bool_or(to_regclass(rest) IS NOT NULL AND to_regclass(part) IS NULL)
    AND has_function_privilege(to_regprocedure({function}), 'EXECUTE')
FROM (VALUES {parts}) AS asked (rest, part)
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
        _copy(connection, schema, fact, months)
        build_keys(connection, schema, fact, _new(fact))
    return facts


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
        of_rest = _MONTHS_OF.format(day=quoted(str(fact.day_column)), table=_name(schema, _rest(fact)))
        found = {month for (month,) in connection.execute(of_rest.encode())}
        held = _held(connection, schema, fact)
        _add_months(connection, schema, fact, fact.name, sorted((months | found).difference(*held)))
    connection.execute(_keep_ahead(schema, parted(catalogue)).encode())


def look_ahead(connection: Connection, schema: str, catalogue: Catalogue) -> None:
    """Make the months that come, where few are left and it can be done at once."""
    now = datetime.now(UTC).date()
    month = DayRange(now, now.replace(year=now.year + _LEAST_MONTHS // 12, day=1)).by_month()
    last = max(each.first for each in month)
    parts = ", ".join(
        f"({literal(_name(schema, _rest(fact)))}, {literal(_name(schema, _part(fact, last)))})"
        for fact in parted(catalogue)
    )
    function = f"{_name(schema, AHEAD)}()"
    if not parts:
        return
    query = _IS_DUE.format(function=literal(function), parts=parts)
    if connection.execute(query.encode()).fetchone() == (True,):
        connection.execute(f"SELECT {function}".encode())


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
    _add_months(connection, schema, fact, _new(fact), sorted(months | found))
    # In the order of the table, which is that of the records' numbers.
    connection.execute(f"INSERT INTO {made} OVERRIDING SYSTEM VALUE SELECT * FROM {table}".encode())
    query = _SEQUENCE.format(made=literal(made), table=literal(table), key=literal(fact.key))
    for (statement,) in connection.execute(query.encode()).fetchall():
        connection.execute(str(statement).encode())


def _add_months(connection: Connection, schema: str, fact: Table, name: str, months: Iterable[date]) -> None:
    table, rest, day = _name(schema, name), _name(schema, _rest(fact)), quoted(str(fact.day_column))
    for month in months:
        part, bounds = (
            _name(schema, _part(fact, month)),
            {"first": literal(str(month)), "last": literal(str(_next(month)))},
        )
        connection.execute(f"CREATE TABLE {part} ({_PART.format(table=table)})".encode())
        connection.execute(_OUT_OF_REST.format(rest=rest, part=part, day=day, **bounds).encode())
        connection.execute(_ATTACH.format(table=table, part=part, **bounds).encode())


def _held(connection: Connection, schema: str, fact: Table) -> list[set[date]]:
    """The months of each partition, whatever it is called: others may have renamed it, or made one of years."""
    found = connection.execute(_BOUNDS, [_name(schema, fact.name)])
    ends = [re.findall(r"'(\d{4}-\d\d-\d\d)'", str(bound)) for (bound,) in found]
    days = [[date.fromisoformat(end) for end in each] for each in ends if len(each) == 2]
    return [
        {month.first.replace(day=1) for month in DayRange(first, until - timedelta(days=1)).by_month()}
        for first, until in days
    ]


def _wanted(connection: Connection, schema: str, catalogue: Catalogue, first_day: date | None) -> set[date]:
    """The months that all facts are to have: those that one has, and those from ``first_day`` on."""
    now = datetime.now(UTC).date()
    held = (part for fact in parted(catalogue) for part in _held(connection, schema, fact) if len(part) == 1)
    return set().union(_months(now if first_day is None else min(now, first_day), now), *held)


def _keep_ahead(schema: str, facts: Iterable[Table]) -> str:
    listed = ", ".join(f"({literal(fact.name)}, {literal(str(fact.day_column))})" for fact in facts)
    create = literal(f"CREATE TABLE %I.%I ({_PART.format(table='%I.%I')})")
    months = 12 * (_YEARS_AHEAD + 1) - 1
    body = _KEEP_AHEAD.format(facts=listed, months=months, schema=literal(schema), create=create)
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
