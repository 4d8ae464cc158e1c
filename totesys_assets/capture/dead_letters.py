"""Dead letters: rows that break a declared type or rule, kept with the reason and their raw text.

Belongs here: the rules that hold for rows of any source, made of the catalogue, and the table that keeps what breaks
them. A dead letter is a versioned set like any table: it appears (insert), its reason changes (update), it is mended at
the source (delete). The rest of the batch goes on. Does not belong here: what becomes of good rows, and what only the
source can tell of a row (source/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from totesys_assets import engine
from totesys_assets.catalogue.catalogue import OPERATION, RECORDED_AT, Table
from totesys_assets.lake.commit import append
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import DEAD_LETTER, Lake
from totesys_assets.lake.versions import newest_first
from totesys_assets.source.rules import SEPARATOR, Rule
from totesys_assets.sql_text import literal, quoted

_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("table_name", pa.string()),
    ("row_key", pa.string()),
    ("partition", pa.string()),
    ("column_name", pa.string()),
    ("reason", pa.string()),
    ("raw", pa.string()),
    (OPERATION, pa.string()),
    (RECORDED_AT, pa.timestamp("us", tz="UTC")),
]
SCHEMA = pa.schema(_COLUMNS)
KEY = ("table_name", "row_key", "partition")
_DESCRIPTION = "Rows that could not be typed or break a rule: why, and their raw text"


def engine_rules(table: Table) -> Iterator[Rule]:
    """Values that are read exactly, but break a rule of the catalogue. The conditions are DuckDB's."""
    for column in table.columns:
        name = quoted(column.name)
        if not column.nullable:
            yield column, f"{name} IS NULL", "is missing"
        if column.labels:
            labels = ", ".join(literal(label) for label in column.labels)
            yield column, f"{name} NOT IN ({labels})", f"is none of {', '.join(column.labels)}"
        if column.is_date_text:
            # Only a date of this form, of the years 1 to 9999, is written as it was read: no regular expression needed.
            invalid = f"NOT (length({name}) = 10 AND CAST(try_cast({name} AS DATE) AS VARCHAR) = {name})"
            yield column, f"coalesce({invalid}, {name} IS NOT NULL)", "is not a date of the form YYYY-MM-DD"


# Expects the temporary tables rejected (row_key, partition, broken, raw) and capture_time (taken_at).
_CHANGES = f"""
WITH held AS (
    SELECT * FROM dead_letters_held WHERE table_name = $table AND list_contains($partitions, partition)
    QUALIFY {newest_first(KEY)}
),
found AS (
    SELECT $table AS table_name, row_key, partition, split_part(broken, '{SEPARATOR}', 1) AS column_name,
        substr(broken, strpos(broken, '{SEPARATOR}') + {len(SEPARATOR)}) AS reason, raw
    FROM rejected
)
SELECT found.*, CASE WHEN coalesce(held._operation, 'delete') = 'delete' THEN 'insert' ELSE 'update' END AS _operation,
    greatest(taken_at, held._recorded_at + INTERVAL 1 MICROSECOND) AS _recorded_at
FROM found LEFT JOIN held USING (table_name, row_key, partition) CROSS JOIN capture_time
WHERE coalesce(held._operation, 'delete') = 'delete'
    OR (found.column_name, found.reason, found.raw) IS DISTINCT FROM (held.column_name, held.reason, held.raw)
UNION ALL
SELECT held.* EXCLUDE (_operation, _recorded_at), 'delete',
    greatest(taken_at, held._recorded_at + INTERVAL 1 MICROSECOND)
FROM (FROM held ANTI JOIN found USING (table_name, row_key, partition)) AS held CROSS JOIN capture_time
WHERE held._operation <> 'delete'
"""


def keep(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    table: Table,
    partitions: list[str],
    marks: Mapping[str, int] | None = None,
) -> None:
    """Append what changed among the dead letters of ``table`` in ``partitions``, with ``marks`` (lake/marks.py).

    Expects the rejected rows in the connection's temporary tables. Raises LostRace: then compare and call again.
    """
    nothing_rejected = connection.execute("SELECT count(*) FROM rejected").fetchone() == (0,)
    if nothing_rejected and lake.find(DEAD_LETTER) is None:
        return
    held = lake.open_plain(DEAD_LETTER, SCHEMA, _DESCRIPTION)
    register(connection, "dead_letters_held", held)
    parameters = {"table": table.name, "partitions": partitions}
    changes = connection.execute(_CHANGES, parameters).to_arrow_table().cast(SCHEMA)
    if changes.num_rows:
        append(held, changes.to_batches(), SCHEMA, f"capture:{table.name}", marks)


def open_keys(lake: Lake, table: Table) -> list[tuple[str, str]]:
    """Keys and partitions of the rows of ``table`` that are among the dead letters."""
    letters = open_dead_letters(lake).select(["table_name", "row_key", "partition"]).to_pylist()
    return [(row["row_key"], row["partition"]) for row in letters if row["table_name"] == table.name]


def open_dead_letters(lake: Lake) -> pa.Table:
    """Dead letters that are not mended yet: table, key, partition, column, reason, raw text, since when."""
    held = lake.find(DEAD_LETTER)
    return SCHEMA.empty_table() if held is None else _open(held)


def open_letters(lake: Lake) -> dict[tuple[str, str, str], datetime]:
    """Table, key and partition of the dead letters that are not mended yet, and since when they are as they are."""
    held = lake.find(DEAD_LETTER)
    if held is None:  # not of an empty table, to make which imports pandas
        return {}
    letters = _open(held).select([*KEY, RECORDED_AT]).to_pylist()
    return {(row["table_name"], row["row_key"], row["partition"]): row[RECORDED_AT] for row in letters}


def _open(held: DeltaTable) -> pa.Table:
    with engine.session() as connection:
        source = register(connection, "held", held)
        query = f"SELECT * FROM {source} QUALIFY {newest_first(KEY)}"
        return connection.execute(
            f"SELECT * FROM ({query}) WHERE {OPERATION} <> 'delete' ORDER BY table_name, partition, row_key"
        ).to_arrow_table()
