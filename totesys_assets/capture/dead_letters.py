"""Dead letters: rows that break a declared type or rule, kept with the reason and their raw text.

Belongs here: the rules, made of the catalogue, and the table that keeps what breaks them. A dead letter is a versioned
set like any table: it appears (insert), its reason changes (update), it is mended at the source (delete). The rest of
the batch goes on. Does not belong here: what becomes of good rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa

from totesys_assets.catalogue.catalogue import OPERATION, RECORDED_AT, Column, Table
from totesys_assets.days import DayRange
from totesys_assets.engine import literal, quoted
from totesys_assets.lake.commit import append
from totesys_assets.lake.read import register
from totesys_assets.lake.tables import DEAD_LETTER, Lake
from totesys_assets.lake.versions import newest_first
from totesys_assets.source.totesys import text as source_text

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
_SEPARATOR = ": "


def source_rules(table: Table, all_days: DayRange, encoding: str = "UTF8") -> Iterator[tuple[Column, str, str]]:
    """(column, PostgreSQL condition, reason) of values that must be caught in the source, with text in ``encoding``.

    DuckDB reads numeric NaN as 0.00 and cannot tell a timestamp of the far past or future: neither may be believed.
    The day comes first: what has none is known by that, see ``is_outside``.
    """
    if table.day_column:
        name = quoted(table.day_column)
        outside = (
            f"NOT ({name} >= {literal(all_days.first.isoformat())} AND {name} < {literal(all_days.end.isoformat())})"
        )
        reason = f"lies outside the days from {all_days.first} to tomorrow that have a partition"
        yield table.by_name[table.day_column], outside, reason
    for column in table.columns:
        name = quoted(column.name)
        if invalid := _invalid(column, encoding):
            yield column, invalid, f"holds bytes that are no text, in a database of encoding {encoding}"
        if column.type.startswith("numeric"):
            yield column, f"{name} = 'NaN'", "is not a number"
        elif column.name == table.day_column:
            continue
        elif column.type.startswith("timestamp"):
            outside = f"NOT ({name} >= '0001-01-01' AND {name} < '9999-12-31 23:59:59.9995')"
            yield column, outside, "is no time between the years 1 and 9999"


def is_outside(table: Table) -> str:
    """DuckDB condition of ``_broken``, made of ``source_rules``: the row lies on no day that has a partition."""
    return f"starts_with(_broken, {literal(f'{table.day_column}{_SEPARATOR}')})"


def _invalid(column: Column, encoding: str) -> str | None:
    is_text = column.type.startswith(("text", "character")) and not column.labels
    return source_text.invalid(quoted(column.name), encoding) if is_text else None


def readable(table: Table, encoding: str) -> str:
    """PostgreSQL condition: all text of a row can be sent, in ``encoding`` of the source."""
    conditions = [condition for column in table.columns if (condition := _invalid(column, encoding))]
    return f"({' OR '.join(conditions)}) IS NOT TRUE" if conditions else "true"


def source_column(column: Column, encoding: str) -> str:
    """A column of a SELECT in the source: labels as text, and nothing in place of what cannot be sent."""
    name = quoted(column.name)
    if column.labels:
        return f"{name}::text AS {name}"
    invalid = _invalid(column, encoding)
    return f"CASE WHEN {invalid} THEN NULL ELSE {name} END AS {name}" if invalid else name


def source_raw(table: Table, encoding: str) -> str:
    """PostgreSQL expression of the raw text of row ``t``; where it cannot be sent, with its bytes written out."""
    raw, sent = "row_to_json(t)::text", readable(table, encoding)
    return raw if sent == "true" else f"CASE WHEN {sent} THEN {raw} ELSE {source_text.escaped(raw, encoding)} END"


def engine_rules(table: Table) -> Iterator[tuple[Column, str, str]]:
    """(column, DuckDB condition, reason) of values that are read exactly, but break a rule of the catalogue."""
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


def first_broken(rules: Iterator[tuple[Column, str, str]]) -> str:
    """SQL that gives ``column: reason`` of the first broken rule, or NULL."""
    cases = " ".join(
        f"WHEN {condition} THEN {literal(column.name + _SEPARATOR + reason)}" for column, condition, reason in rules
    )
    return f"CASE {cases} END" if cases else "NULL"


# Expects the temporary tables rejected (row_key, partition, broken, raw) and capture_time (taken_at).
_CHANGES = f"""
WITH held AS (
    SELECT * FROM dead_letters_held WHERE table_name = $table AND list_contains($partitions, partition)
    QUALIFY {newest_first(KEY)}
),
found AS (
    SELECT $table AS table_name, row_key, partition, split_part(broken, '{_SEPARATOR}', 1) AS column_name,
        substr(broken, strpos(broken, '{_SEPARATOR}') + {len(_SEPARATOR)}) AS reason, raw
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


def keep(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, partitions: list[str]) -> None:
    """Append what changed among the dead letters of ``table`` in ``partitions``.

    Expects the rejected rows in the connection's temporary tables. Raises LostRace: then compare and call again.
    """
    nothing_rejected = connection.execute("SELECT count(*) FROM rejected").fetchone() == (0,)
    held = lake.find(DEAD_LETTER)
    if held is None:
        if nothing_rejected:
            return
        held = lake.open_plain(DEAD_LETTER, SCHEMA, _DESCRIPTION)
    register(connection, "dead_letters_held", held)
    parameters = {"table": table.name, "partitions": partitions}
    changes = connection.execute(_CHANGES, parameters).to_arrow_table().cast(SCHEMA)
    if changes.num_rows:
        append(held, changes.to_batches(), SCHEMA, f"capture:{table.name}")


def open_keys(lake: Lake, table: Table) -> list[tuple[str, str]]:
    """Keys and partitions of the rows of ``table`` that are among the dead letters."""
    letters = open_dead_letters(lake).select(["table_name", "row_key", "partition"]).to_pylist()
    return [(row["row_key"], row["partition"]) for row in letters if row["table_name"] == table.name]


def open_dead_letters(lake: Lake) -> pa.Table:
    """Dead letters that are not mended yet: table, key, partition, column, reason, raw text, since when."""
    held = lake.find(DEAD_LETTER)
    if held is None:
        return SCHEMA.empty_table()
    with duckdb.connect() as connection:
        source = register(connection, "held", held)
        query = f"SELECT * FROM {source} QUALIFY {newest_first(KEY)}"
        return connection.execute(
            f"SELECT * FROM ({query}) WHERE {OPERATION} <> 'delete' ORDER BY table_name, partition, row_key"
        ).to_arrow_table()


def open_letters(lake: Lake) -> set[tuple[str, str, str]]:
    """Table, key and partition of the dead letters that are not mended yet; of a few, quicker than all about them."""
    held = lake.find(DEAD_LETTER)
    if held is None:
        return set()
    rows = held.to_pyarrow_table(columns=[*KEY, OPERATION, RECORDED_AT]).to_pylist()
    newest = {
        tuple(row[name] for name in KEY): row[OPERATION] for row in sorted(rows, key=lambda row: row[RECORDED_AT])
    }
    return {(table, key, partition) for (table, key, partition), operation in newest.items() if operation != "delete"}
