"""What is sold of each name of design, by day and currency, kept by PostgreSQL itself.

Belongs here: what the sums are, and the bodies of the trigger functions that keep them. Does not belong here: when they
are made anew (kept.py), and the table (notes.py).

What current orders add up to is what all records add up to, less those that are superseded. So a statement costs what
it changes: records that are added, and those that become superseded or are it no more. Only for a design that gets
another name all orders are read, to find its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.notes import DESIGN_SALES
from totesys_assets.warehouse.superseded import current, superseded

FACT, DESIGN = "fact_sales_order", "dim_design"
# What triggers of versions before called. Where it is there, one of these was gone back to, and keeps the sums itself.
FORMER = ("keep_dim_design", "keep_mart_sales_design_day")
_SUMMED = "created_date, currency_id, design_name, orders, units, revenue"

_SUMS = """
SELECT sold.created_date, sold.currency_id, coalesce(design.design_name, '') AS design_name, count(*) AS orders,
    sum(sold.units_sold)::bigint AS units, sum(sold.units_sold * sold.unit_price) AS revenue
FROM ({current}) AS sold LEFT JOIN {design} AS design USING (design_id) GROUP BY 1, 2, 3
"""
# First what is read: who empties one of the two has locked it, and is about to wait for the sums.
_LOCK = "LOCK TABLE ONLY {fact}, ONLY {design} IN ACCESS SHARE MODE; LOCK TABLE {kept} IN SHARE ROW EXCLUSIVE MODE"
_ANEW = """
DELETE FROM {kept};
INSERT INTO {kept} ({summed}) {sums}
"""

# How often each of some orders counts, once or less once, and under which name. The tables may have columns of others.
_ORDER = "sold.created_date, sold.currency_id, sold.units_sold, sold.unit_price"
_ADDED = f"""
SELECT {_ORDER}, design.design_name, bigint '1' AS times
FROM new_rows AS sold LEFT JOIN {{design}} AS design USING (design_id)
"""
_SUPERSEDED = f"""
SELECT {_ORDER}, design.design_name, bigint '{{times}}' AS times
FROM {{rows}} AS placed JOIN {{fact}} AS sold ON sold.created_date = placed.day AND sold.{{record}} = placed.record
LEFT JOIN {{design}} AS design USING (design_id)
"""
_RENAMED = f"""
SELECT {_ORDER}, counted.name AS design_name, counted.times
FROM ({{current}}) AS sold JOIN ({{renamed}}) AS design USING (design_id)
CROSS JOIN LATERAL (VALUES (design.name_before, bigint '-1'), (design.name_now, 1)) AS counted (name, times)
"""
_NAMES_BEFORE = "SELECT design_id, design_name AS name_before FROM old_rows"
_NAMES_NOW = "SELECT design_id, design_name AS name_now FROM new_rows"
_NEW_NAMES = f"SELECT design_id, NULL AS name_before, name_now FROM ({_NAMES_NOW}) AS now"
_NAMES_GONE = f"SELECT design_id, name_before, NULL AS name_now FROM ({_NAMES_BEFORE}) AS before"
_OTHER_NAMES = (
    f"SELECT * FROM ({_NAMES_BEFORE}) AS before FULL JOIN ({_NAMES_NOW}) AS now USING (design_id) "
    "WHERE name_before IS DISTINCT FROM name_now"
)

# A sum that a statement leaves without orders is zero in all; one that is about to get an order of another trigger may
# be below. A session plans a statement once, so this is planned anew by each.
_ADD = """
WITH changed AS MATERIALIZED (
    SELECT created_date, currency_id, coalesce(design_name, '') AS design_name, sum(times)::bigint AS orders,
        sum(times * units_sold)::bigint AS units, sum(times * units_sold * unit_price) AS revenue
    FROM ({counted}) AS counted GROUP BY 1, 2, 3
), gone AS (
    DELETE FROM {kept} AS kept USING changed
    WHERE {same} AND (kept.orders, kept.units, kept.revenue) = (-changed.orders, -changed.units, -changed.revenue)
    RETURNING {key}
), held AS (
    UPDATE {kept} AS kept SET (orders, units, revenue)
        = (kept.orders + changed.orders, kept.units + changed.units, kept.revenue + changed.revenue)
    FROM changed
    WHERE {same} AND (kept.orders, kept.units, kept.revenue) <> (-changed.orders, -changed.units, -changed.revenue)
    RETURNING {key}
)
INSERT INTO {kept} ({summed})
SELECT changed.* FROM changed LEFT JOIN (TABLE gone UNION ALL TABLE held) AS kept ON {same}
WHERE kept.created_date IS NULL AND (orders, units, revenue) <> (0, 0, 0)
"""
_KEY = "kept.created_date, kept.currency_id, kept.design_name"
_SAME = f"({_KEY}) = (changed.created_date, changed.currency_id, changed.design_name)"


# One transaction after the other, each seeing the names and the orders that the one before it left. Readers need not
# wait. With a snapshot of before it waited, sums would be of names and orders that are gone. A load has READ COMMITTED,
# and a lock_timeout that is meant for locks for which readers must wait.
_KEEP = """
BEGIN
    IF to_regproc({former}) IS NOT NULL OR NOT EXISTS ({rows}) THEN
        RETURN NULL;
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'Sales and designs of the warehouse are changed in READ COMMITTED transactions only'
            USING HINT = 'Begin with: BEGIN ISOLATION LEVEL READ COMMITTED';
    END IF;
    {lock};
    {work};
    RETURN NULL;
END
"""
# Orders may have come before their design.
_IF_ORDERS_WAIT = "IF EXISTS (SELECT FROM {kept} WHERE design_name = '') THEN {work}; END IF"
_NEW, _OLD, _ANY = "SELECT FROM new_rows", "SELECT FROM old_rows", "SELECT"


class Keeping(NamedTuple):
    """A trigger function: the ``event`` on ``table`` after which it is called, ``what`` it is about, and its body."""

    table: str
    event: str
    what: str
    body: str


def keeping(schema: str, fact: Table) -> Iterator[Keeping]:
    """The trigger functions that keep the sums of the orders ``fact``."""
    names, former = _names(schema, fact), literal(_name(schema, FORMER[-1]))

    def body(rows: str, counted: str, unless: str = "{work}") -> str:
        add = _ADD.format(**names, summed=_SUMMED, key=_KEY, same=_SAME, counted=counted)
        work = unless.format(**names, work=f"EXECUTE {literal(add)}")
        return _KEEP.format(former=former, rows=rows, lock=lock(schema, fact), work=work)

    def placed(rows: str, times: int) -> str:
        return _SUPERSEDED.format(**names, rows=rows, times=times)

    def renamed(renamed: str) -> str:
        return _RENAMED.format(**names, renamed=renamed)

    yield Keeping(fact.name, "INSERT", "added", body(_NEW, _ADDED.format(**names)))
    yield Keeping(superseded(fact), "INSERT", "superseded", body(_NEW, placed("new_rows", -1)))
    yield Keeping(superseded(fact), "DELETE", "back", body(_OLD, placed("old_rows", 1)))
    yield Keeping(DESIGN, "INSERT", "new", body(_NEW, renamed(_NEW_NAMES), _IF_ORDERS_WAIT))
    yield Keeping(DESIGN, "UPDATE", "renamed", body(_OTHER_NAMES, renamed(_OTHER_NAMES)))
    yield Keeping(DESIGN, "DELETE", "gone", body(_OLD, renamed(_NAMES_GONE)))
    all_gone = _KEEP.format(former=former, rows=_ANY, lock=lock(schema, fact), work=anew(schema, fact))
    yield Keeping(DESIGN, "TRUNCATE", "all_gone", all_gone)


def lock(schema: str, fact: Table) -> str:
    """Statements after which nobody else can change the sums until the transaction ends. Readers go on."""
    return _LOCK.format(**_names(schema, fact))


def anew(schema: str, fact: Table, *, all_are_current: bool = False) -> str:
    """Statements that make all sums anew, after ``lock``. ``all_are_current``: no record is superseded."""
    names = _names(schema, fact)
    if all_are_current:  # none need be looked up
        names["current"] = f"SELECT * FROM {names['fact']}"
    return _ANEW.format(**names, summed=_SUMMED, sums=_SUMS.format(**names))


def compared(schema: str, fact: Table) -> tuple[str, str]:
    """Two queries with the same columns: what is kept, and what follows from current orders and names."""
    return f"SELECT {_SUMMED} FROM {_name(schema, DESIGN_SALES)}", _SUMS.format(**_names(schema, fact))


def _names(schema: str, fact: Table) -> dict[str, str]:
    return {
        "kept": _name(schema, DESIGN_SALES),
        "fact": _name(schema, fact.name),
        "design": _name(schema, DESIGN),
        "record": quoted(fact.key),
        "current": current(schema, fact),
    }


def _name(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
