"""Counts of the versions of each fact by the day on which they were first seen, kept in the warehouse beside the fact.

Belongs here: counting the records that a load has added. Does not belong here: what asks for the counts (insights/).

A fact only grows, and the numbers of its records with it. So a load counts the records with a higher number than any
that was counted, also those of a version of the platform that kept no counts. Readers add what is not counted yet. If
the owner has emptied the fact, it is counted anew.
"""

from __future__ import annotations

import duckdb

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.notes import RECORDED
from totesys_assets.warehouse.warehouse import Warehouse, rows, run

# The number up to which records are counted, and whether the first and the last of them are still there.
_COUNTED = """
SELECT coalesce(counted.last, 0), (
    SELECT count(*) = 2 OR counted.last IS NULL OR counted.first = counted.last AND count(*) = 1
    FROM {table} WHERE {record} IN (counted.first, counted.last)
)::int
FROM (
    SELECT min(first_record) AS first, max(last_record) AS last FROM {notes} WHERE table_name = {table_name}
) AS counted
"""
_FORGET = "DELETE FROM {notes} WHERE table_name = {table_name}"
# A SELECT of its own, which PostgreSQL may run in parallel, of which the INSERT gets the values. The number up to which
# records are counted stands in its text, so that PostgreSQL sees that few records have higher ones.
_NEW = """
SELECT string_agg(format('(%L, %L, %L, %s, %L, %L, %s, %s)', {table_name}, day, _operation, versions, first_at, last_at,
    first_record, last_record), ', ')
FROM (
    SELECT (_recorded_at AT TIME ZONE 'UTC')::date AS day, _operation, sum(versions) AS versions,
        min(_recorded_at) AS first_at, max(_recorded_at) AS last_at,
        min(first) AS first_record, max(last) AS last_record
    FROM (
        SELECT _recorded_at, _operation, count(*) AS versions, min({record}) AS first, max({record}) AS last
        FROM {table} WHERE {record} > {counted} GROUP BY 1, 2
    ) AS recorded
    GROUP BY 1, 2
) AS counted
"""
_COUNT = """
INSERT INTO {notes} AS noted VALUES {values}
ON CONFLICT (table_name, recorded_on, operation) DO UPDATE SET
    versions = noted.versions + excluded.versions,
    first_recorded_at = least(noted.first_recorded_at, excluded.first_recorded_at),
    last_recorded_at = greatest(noted.last_recorded_at, excluded.last_recorded_at),
    last_record = excluded.last_record
"""


def count_versions(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, fact: Table) -> None:
    """Count the records of ``fact`` that were not counted before, in the transaction that adds records to it."""
    names = {
        "notes": f"{quoted(warehouse.schema)}.{quoted(RECORDED)}",
        "table": f"{quoted(warehouse.schema)}.{quoted(fact.name)}",
        "table_name": literal(fact.name),
        "record": quoted(fact.key),
    }
    ((counted, is_there),) = rows(connection, _COUNTED.format(**names))
    if not is_there:
        run(connection, _FORGET.format(**names))
    ((values,),) = rows(connection, _NEW.format(**names, counted=counted if is_there else 0))
    if values is not None:
        run(connection, _COUNT.format(**names, values=values))
