"""What the warehouse keeps beside its tables, as SELECTs over the tables of the lake, which has no such views.

Belongs here: the views of facts, and what triggers of the warehouse keep, in PostgreSQL's words. Does not belong here:
how another engine says them (dialects.py), and the views for people (views/), which are the same everywhere.
"""

from __future__ import annotations

from functools import cache

from totesys_assets.catalogue.catalogue import Table, catalogue
from totesys_assets.catalogue.views import views
from totesys_assets.sql_text import literal
from totesys_assets.warehouse.notes import DESIGN_SALES, RECORDED
from totesys_assets.warehouse.views import HISTORY

# As in warehouse/superseded.py: of each day of a row its newest version, unless that is a delete; of these the newest.
_CURRENT = """
SELECT {columns} FROM (
    SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY _recorded_at DESC, {day} DESC) AS place FROM (
        SELECT *, row_number() OVER (PARTITION BY {key}, {day} ORDER BY _recorded_at DESC) AS place_on_day FROM {table}
    ) AS versions
    WHERE place_on_day = 1 AND _operation <> 'delete'
) AS newest
WHERE place = 1
"""
# As in warehouse/recorded.py, but for the numbers of records, which the lake has not: any is as good as another.
_VERSIONS = """
SELECT table_name, recorded_on, operation, count(*) AS versions,
    min(_recorded_at) AS first_recorded_at, max(_recorded_at) AS last_recorded_at,
    0 AS first_record, 0 AS last_record
FROM ({facts}) AS seen GROUP BY 1, 2, 3
"""
_OF_FACT = """
SELECT {name} AS table_name, (_recorded_at AT TIME ZONE 'UTC')::date AS recorded_on, _recorded_at,
    _operation AS operation
FROM {table}
"""
_OF_ORDERS = """
SELECT {name} AS table_name, (_recorded_at AT TIME ZONE 'UTC')::date AS recorded_on, _recorded_at,
    CASE WHEN _operation = 'update' AND last_updated = lag(last_updated) OVER (
        PARTITION BY {key}, {day} ORDER BY _recorded_at
    ) THEN 'silent update' ELSE _operation END AS operation
FROM (SELECT *, last_updated_date + last_updated_time AS last_updated FROM {table}) AS versions
"""
# As in warehouse/sold.py.
_SUMS = """
SELECT created_date, currency_id, coalesce(design_name, '') AS design_name,
    count(*) AS orders, sum(units_sold)::bigint AS units, sum(units_sold * unit_price) AS revenue
FROM current_sales_order LEFT JOIN dim_design USING (design_id) GROUP BY 1, 2, 3
"""
# As in transform/schemas.py: of a row that was on several days, where it is, or was last.
_ONE_EACH = """
SELECT {columns} FROM (
    SELECT *, row_number() OVER (
        PARTITION BY {key} ORDER BY _is_deleted, _recorded_at DESC, {day} DESC
    ) AS place
    FROM lake.{table}
) AS states
WHERE place = 1
"""
# A record has a number in the warehouse only, and what was loaded there says nothing of the lake.
_NUMBERED = "SELECT 0 AS {number}, {columns} FROM lake.{table}"
_NOTHING_LOADED = "SELECT NULL::text AS table_name, NULL::text AS partition, NULL::text AS state WHERE false"


@cache
def selects() -> dict[str, str]:
    """By its name, the SELECT of each relation that a question may read and that is no table of the lake as it is.

    A table of the lake in it that the questions see otherwise has the schema ``lake``.
    """
    made = {view.name: view.sql for view in views()}
    facts = [table for table in catalogue().star.values() if table.is_fact]
    for table in catalogue().star.values():
        names = _names(table)
        if table.is_fact:
            subject = table.name.removeprefix("fact_")
            made[table.name] = _NUMBERED.format(**names, number=table.key)
            made[f"current_{subject}"] = _CURRENT.format(**names)
            made[f"history_{subject}"] = HISTORY.format(**names)
        elif table.day_column:
            made[table.name] = _ONE_EACH.format(**names)
    versions = (
        (_OF_ORDERS if "last_updated_date" in fact.by_name else _OF_FACT).format(**_names(fact)) for fact in facts
    )
    made[RECORDED] = _VERSIONS.format(facts=" UNION ALL ".join(versions))
    made[DESIGN_SALES] = _SUMS
    made["_ledger"] = _NOTHING_LOADED
    return made


def _names(table: Table) -> dict[str, str]:
    """What the SELECTs name of a table."""
    key = table.version_key[0] if table.is_fact else table.key
    return {
        "table": table.name,
        "name": literal(table.name),
        "key": key,
        "day": str(table.day_column),
        "columns": ", ".join(each.name for each in table.lake_columns),
    }
