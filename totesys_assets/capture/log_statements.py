"""The statements that make versions of what the log says of rows: what DuckDB is asked, step by step.

Belongs here: their text. Does not belong here: when they are run (log_versions.py).
"""

from __future__ import annotations

from totesys_assets.source.rules import SEPARATOR

# The transactions that changed the table, and where one emptied it.
TRANSACTIONS = """
CREATE TEMP TABLE transactions AS
SELECT commit_lsn AS lsn, min(epoch_us(recorded_at)) AS recorded, count(*) AS changes,
    count(*) FILTER (kind = '{truncate}') AS truncations
FROM {journaled} GROUP BY 1;
CREATE TEMP TABLE truncated AS SELECT commit_lsn AS lsn, ordinal FROM {journaled} AND kind = '{truncate}'
"""
# What the log says of a row, line by line. A changed key is a departure and an arrival.
LINES = """
CREATE TEMP TABLE lines AS
SELECT CAST(NULL AS BIGINT) AS lsn, CAST(NULL AS BIGINT) AS ordinal, false AS present, {columns}, {flags},
    CAST(NULL AS VARCHAR) AS broken, CAST(NULL AS VARCHAR) AS came_from, false AS departed
WHERE false
"""
ARRIVALS = """
INSERT INTO lines BY NAME
SELECT lsn, ordinal, NOT deleted AS present, {typed}, {flags}, CASE WHEN NOT deleted THEN {broken} END AS broken,
    {came_from} AS came_from, false AS departed
FROM decoded
"""
DEPARTURES = """
INSERT INTO lines BY NAME
SELECT lsn, ordinal, false AS present, {old_key}, true AS departed FROM decoded WHERE {changed}
"""
# The newest versions held of the rows: one on each day that a row was on, and of these the one that is present.
BASE = """
CREATE OR REPLACE TEMP TABLE base AS
SELECT {columns}, present FROM (
    SELECT {columns}, {recorded_at}, {operation} <> 'delete' AS present FROM held WHERE {touched}
    QUALIFY row_number() OVER (PARTITION BY {keys}, {day} ORDER BY {recorded_at} DESC) = 1
)
QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY present DESC, {recorded_at} DESC) = 1
"""
TRUNCATED = """
INSERT INTO lines BY NAME
SELECT lsn, ordinal, false AS present, {keys}, false AS departed
FROM truncated CROSS JOIN (SELECT {keys} FROM base UNION SELECT {keys} FROM part)
"""
# Large values that did not change are those of the line before, or of the version held; of a dead letter, those of its
# text, which has no long one as a whole. ``row`` tells the lines of one row from those of others, whatever its key.
FILLED = """
CREATE OR REPLACE TEMP TABLE filled AS
SELECT * EXCLUDE ({fills}, row) REPLACE ({replaced}), {missing} AS missing
FROM (
    SELECT *, {filling}
    FROM (
        SELECT part.*, {row} AS row FROM part {followed} WHERE present
        UNION ALL BY NAME
        SELECT 0 AS lsn, 0 AS ordinal, {columns}, {key} AS row
        FROM base LEFT JOIN letters ON letters.row_key = {key}
        WHERE (present OR letters.row_key IS NOT NULL) AND NOT {is_altered}
    )
    WINDOW earlier AS (PARTITION BY row ORDER BY lsn, ordinal)
)
WHERE lsn > 0
UNION ALL BY NAME SELECT *, false AS missing FROM part WHERE NOT present
"""
# A transaction counts as recorded when the journal says, but later than all that is held.
MOMENTS = """
CREATE TEMP TABLE moments AS
SELECT lsn, greatest(max(recorded - place) OVER (ORDER BY lsn), {after} + 1) + place AS moment
FROM (SELECT lsn, recorded, row_number() OVER (ORDER BY lsn) - 1 AS place FROM transactions)
"""
# The state of each row after each transaction, behind that which is held, against the one before. Where a state breaks
# a rule, the row stays as the last good one was, if it never left that one's day since.
DIFFERENCE = """
{into}
WITH net AS (
    SELECT lsn, ordinal, present, {columns}, CASE WHEN present THEN coalesce(broken, {rule}) END AS broken
    FROM filled
    QUALIFY row_number() OVER (PARTITION BY {keys}, lsn ORDER BY ordinal DESC, present DESC) = 1
), states AS (
    SELECT 0 AS lsn, 0 AS ordinal, present, {columns}, NULL AS broken FROM base UNION ALL SELECT * FROM net
), numbered AS (
    SELECT *, count(*) FILTER (WHERE broken IS NULL) OVER (PARTITION BY {keys} ORDER BY lsn) AS good FROM states
), settled AS (
    SELECT lsn, ordinal, broken, {settled},
        CASE WHEN broken IS NULL THEN present
            ELSE good > 0 AND first_value(present) OVER since
                AND bool_and({day} IS NOT DISTINCT FROM first_day) OVER since
        END AS present
    FROM (SELECT *, first_value({day}) OVER (PARTITION BY {keys}, good ORDER BY lsn) AS first_day FROM numbered)
    WINDOW since AS (PARTITION BY {keys}, good ORDER BY lsn)
), chain AS (
    SELECT *, {day} AS _day FROM settled
), pairs AS (
    SELECT *, coalesce(lag(present) OVER before, false) AS was_present, lag(_day) OVER before AS was_day, {lagged}
    FROM chain WINDOW before AS (PARTITION BY {keys} ORDER BY lsn)
), versions AS (
    SELECT lsn, {columns}, CASE WHEN was_present AND _day = was_day THEN 'update' ELSE 'insert' END AS {operation}, _day
    FROM pairs WHERE lsn > 0 AND present AND (NOT was_present OR _day <> was_day OR {differs})
    UNION ALL
    SELECT lsn, {was}, 'delete', was_day
    FROM pairs WHERE lsn > 0 AND was_present AND (NOT present OR _day <> was_day)
)
SELECT versions.* EXCLUDE (lsn), {moment} AS {recorded_at}, lsn AS {commit_lsn}
FROM versions JOIN moments USING (lsn)
"""
# The last state of each row that was touched, and where it was before: a dead letter is where it is noted.
NOW = """
CREATE OR REPLACE TEMP TABLE now AS
SELECT {key} AS row_key, {partition} AS partition, lsn, ordinal, present,
    CASE WHEN present THEN coalesce(broken, {rule}) END AS broken
FROM filled
QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY lsn DESC, ordinal DESC, present DESC) = 1;
CREATE OR REPLACE TEMP TABLE was AS
SELECT row_key, partition FROM letters WHERE row_key IN (SELECT row_key FROM now)
UNION ALL
SELECT {key}, {partition} FROM base WHERE present AND {key} NOT IN (SELECT row_key FROM letters)
"""
CAME = """
SELECT partition, sum(number), count(broken)
FROM (SELECT partition, 1 AS number, broken FROM now WHERE present UNION ALL SELECT partition, -1, NULL FROM was)
GROUP BY 1
"""
# Of all parts: the rows that are broken now, with their values as text, and the letters of rows that were touched.
BROKEN = """
{into_broken}
SELECT row_key, partition, now.broken, lsn, ordinal, [{texts}] AS texts
FROM now JOIN filled USING (lsn, ordinal)
WHERE now.broken IS NOT NULL AND filled.present;
{into_touched}
SELECT DISTINCT row_key FROM letters WHERE row_key IN (SELECT row_key FROM now)
"""
REJECTED = f"""
CREATE OR REPLACE TEMP TABLE rejected AS
SELECT row_key, partition, column_name || '{SEPARATOR}' || reason AS broken, raw
FROM letters WHERE row_key NOT IN (FROM touched)
"""
IN_JOURNAL = """
SELECT row_key, partition, broken, relation, message, texts
FROM broken JOIN journal ON (broken.lsn, broken.ordinal) = (journal.commit_lsn, journal.ordinal) WHERE {journaled}
"""
ABOUT = """
SELECT partition FROM broken UNION SELECT partition FROM letters WHERE row_key IN (FROM touched)
"""
