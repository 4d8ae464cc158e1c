"""How many versions each fact has, by the day on which they were recorded, kept by PostgreSQL itself.

Belongs here: what the counts are, and the body of the trigger function that keeps them. Does not belong here: when they
are kept and made anew (kept.py), and the table (notes.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.sql_text import literal, quoted
from totesys_assets.warehouse.notes import RECORDED

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
# The first and the last number are the ends of the key's index.
_KNOWN = """
INSERT INTO {kept} (
    table_name, recorded_on, operation, versions, first_recorded_at, last_recorded_at, first_record, last_record
)
SELECT {name}, (moment AT TIME ZONE 'UTC')::date, 'insert', {records}, moment, moment, first, last
FROM (SELECT timestamptz 'epoch' + {moment} * interval '1 microsecond' AS moment) AS recorded,
    (SELECT min({record}) AS first, max({record}) AS last FROM {table}) AS numbers
WHERE first IS NOT NULL
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


def keeping(schema: str, fact: Table, all_anew: str) -> str:
    """Body of the trigger function; ``all_anew`` makes anew all that is kept beside the fact."""
    between = _COMES_BETWEEN.format(**_names(schema, fact))
    return _KEEP_VERSIONS.format(comes_between=between, add=_add(schema, fact, "new_rows"), anew=all_anew)


@dataclass(frozen=True)
class Inserted:
    """All records of a fact, where each is the first and only one of its row, recorded at one moment (microseconds)."""

    records: int
    moment: int


def anew(schema: str, fact: Table, known: Inserted | None = None) -> str:
    """Statements that count all records of a fact, or note those ``known``. Nobody else can change them meanwhile."""
    kept = _name(schema, RECORDED)
    # The lock: a load that comes to its end between the two statements would be counted twice.
    lock = f"LOCK TABLE {kept} IN SHARE ROW EXCLUSIVE MODE"
    forget = f"DELETE FROM {kept} WHERE table_name = {literal(fact.name)}"
    if known is None:
        return f"{lock};{forget};{_add(schema, fact, _name(schema, fact.name))}"
    return f"{lock};{forget};{_KNOWN.format(**_names(schema, fact), records=known.records, moment=known.moment)}"


def compared(schema: str, fact: Table) -> tuple[str, str]:
    """Two queries with the same columns: what is kept, and what follows from all of the fact's records."""
    kept = f"SELECT * FROM {_name(schema, RECORDED)} WHERE table_name = {literal(fact.name)}"
    return kept, _versions(schema, fact, _name(schema, fact.name))


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


def _add(schema: str, fact: Table, rows: str) -> str:
    return _ADD_VERSIONS.format(kept=_name(schema, RECORDED), versions=_versions(schema, fact, rows))


def _name(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
