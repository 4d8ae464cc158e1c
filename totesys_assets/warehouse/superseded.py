"""Which records of a fact are not current, kept by PostgreSQL itself: ``current_…`` is all others.

Belongs here: that table beside each fact, what keeps it, and the view that reads it. Does not belong here: when it is
made (kept.py), and the other views (views.py).

A first load has none of these records, and nothing is written for it. A change costs what it changes, and who asks for
some rows of ``current_…`` reads these rows of the fact.
"""

from __future__ import annotations

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.sql_text import literal, quoted

# What current_ shows, said from the beginning: of each day of a row its newest record, unless that is a delete; of
# these the newest. A row is one fact for as long as it stays within its day; if its day ever changes, it leaves one day
# (delete) and arrives at another (insert). The audit compares with this; it sorts all records.
CURRENT_BY_SORTING = """
SELECT * FROM (
    SELECT DISTINCT ON ({key}) * FROM (
        SELECT DISTINCT ON ({key}, {day}) * FROM {table}
        ORDER BY {key} DESC, {day} DESC, _recorded_at DESC
    ) AS newest
    WHERE _operation <> 'delete'
    ORDER BY {key}, _recorded_at DESC, {day} DESC
) AS present
"""
_NOT_CURRENT = "SELECT {day}, {record} FROM {table} EXCEPT SELECT {day}, {record} FROM ({current}) AS current"
_CURRENT = """
SELECT held.* FROM {table} AS held WHERE NOT EXISTS (
    SELECT FROM {superseded} AS superseded WHERE superseded.day = held.{day} AND superseded.record = held.{record}
)
"""

_TABLE = """
CREATE TABLE IF NOT EXISTS {superseded} (day date NOT NULL, record {type} NOT NULL, PRIMARY KEY (day, record));
COMMENT ON TABLE {superseded} IS {comment}
"""
_COMMENT = "The records of {table}, by day and number, that current_{subject} does not show"

# The same for the rows with some keys, without sorting others: is_over where the row left its day or was recorded anew.
_PLACED = """
SELECT {day} AS day, {record} AS record, NOT is_over
    AND row_number() OVER (PARTITION BY {key} ORDER BY is_over, _recorded_at DESC, {day} DESC) = 1 AS is_current
FROM (
    SELECT {key}, {day}, {record}, _recorded_at, _operation = 'delete'
        OR lead(_recorded_at) OVER (PARTITION BY {key}, {day} ORDER BY _recorded_at) IS NOT NULL AS is_over
    FROM {table} WHERE {key} {among}
) AS records
"""
# Nearly all rows have one record, which is no delete.
_KEYS_OF_MORE = "SELECT {key} FROM {table} GROUP BY 1 HAVING count(*) > 1 OR bool_or(_operation = 'delete')"
_ANEW = """
LOCK TABLE {superseded} IN SHARE ROW EXCLUSIVE MODE;
WITH follows AS MATERIALIZED (SELECT day, record FROM ({placed}) AS placed WHERE NOT is_current), gone AS (
    DELETE FROM {superseded} WHERE (day, record) IN (TABLE {superseded} EXCEPT TABLE follows)
)
INSERT INTO {superseded} SELECT day, record FROM follows ON CONFLICT DO NOTHING
"""

# Which of the added rows have another record is read off the key's index. New rows lie close together in it, so that it
# is read along: half a microsecond a row less than to look up one after the other, which is left for rows that are
# scattered. One transaction after the other, each seeing the records that the one before it left. Readers need not
# wait.
# A session plans a statement once. So none may depend on how many rows there were then: each key is looked up by
# itself, and what is written is planned anew.
_KEEP = """
DECLARE
    first {type};
    last {type};
    most bigint;
    seen bigint;
    keys {type}[];
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'Facts of the warehouse are added to in READ COMMITTED transactions only'
            USING HINT = 'Begin with: BEGIN ISOLATION LEVEL READ COMMITTED';
    END IF;
    LOCK TABLE {superseded} IN SHARE ROW EXCLUSIVE MODE;
    SELECT min({key}), max({key}), 4 * count(*) + 100 INTO first, last, most FROM new_rows;
    SELECT coalesce(array_agg({key}) FILTER (WHERE records > 1), '{{}}'), sum(records) INTO keys, seen FROM (
        SELECT {key}, count(*) AS records
        FROM (SELECT {key} FROM {table} WHERE {key} BETWEEN first AND last ORDER BY {key} LIMIT most) AS near
        GROUP BY {key}
    ) AS counted;
    IF seen = most THEN
        keys := ARRAY(
            SELECT DISTINCT {key} FROM new_rows AS added
            WHERE (SELECT count(*) FROM (SELECT FROM {table} AS held WHERE held.{key} = added.{key} LIMIT 2) AS two) > 1
        );
    END IF;
    keys := ARRAY(SELECT unnest(keys) UNION SELECT {key} FROM new_rows WHERE _operation = 'delete');
    IF keys = '{{}}' THEN
        RETURN NULL;
    END IF;
    EXECUTE {write} USING keys;
    RETURN NULL;
END
"""
_WRITE = """
WITH placed AS MATERIALIZED (
    SELECT placed.* FROM unnest($1) AS changed (key) CROSS JOIN LATERAL ({placed}) AS placed
), back AS (
    DELETE FROM {superseded} AS held USING placed
    WHERE placed.is_current AND held.day = placed.day AND held.record = placed.record
)
INSERT INTO {superseded} SELECT day, record FROM placed WHERE NOT is_current ON CONFLICT DO NOTHING
"""
SETTINGS = "SET enable_seqscan = off SET enable_bitmapscan = off"


def superseded(fact: Table) -> str:
    """Name of the table that has the records of ``fact`` that are not current."""
    return f"_superseded_{fact.name.removeprefix('fact_')}"


def create(schema: str, fact: Table) -> str:
    """Statements that make the table, if it is missing. It has no rows then."""
    comment = _COMMENT.format(table=fact.name, subject=fact.name.removeprefix("fact_"))
    record = fact.by_name[fact.key].type
    return _TABLE.format(superseded=_name(schema, superseded(fact)), type=record, comment=literal(comment))


def current(schema: str, fact: Table) -> str:
    """Query of the records that are current."""
    return _CURRENT.format(**_names(schema, fact))


def anew(schema: str, fact: Table) -> str:
    """Statements that bring the table to what follows from the fact's records. No other can change it meanwhile."""
    names = _names(schema, fact)
    among = f"IN ({_KEYS_OF_MORE.format(**names)})"
    return _ANEW.format(**names, placed=_PLACED.format(**names, among=among))


def keeping(schema: str, fact: Table) -> str:
    """Body of the trigger function that does the same where records were added."""
    names = _names(schema, fact)
    write = _WRITE.format(**names, placed=_PLACED.format(**names, among="= changed.key"))
    return _KEEP.format(**names, type=fact.by_name[fact.version_key[0]].type, write=literal(write))


def compared(schema: str, fact: Table) -> tuple[str, str]:
    """Two queries with the same columns: what is kept, and what follows from all of the fact's records."""
    names = _names(schema, fact)
    follows = _NOT_CURRENT.format(**names, current=CURRENT_BY_SORTING.format(**names))
    return f"SELECT day, record FROM {names['superseded']}", follows


def _names(schema: str, fact: Table) -> dict[str, str]:
    return {
        "table": _name(schema, fact.name),
        "superseded": _name(schema, superseded(fact)),
        "record": quoted(fact.key),
        "key": quoted(fact.version_key[0]),
        "day": quoted(str(fact.day_column)),
    }


def _name(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
