-- How fresh is each table of the warehouse?
-- When rows of it were last loaded. "rows" are its records, as they were counted then: of a fact, all versions.
-- A table in which nothing has changed is not loaded again, and is as fresh as the others.
SELECT
    table_name,
    sum(rows) FILTER (WHERE partition NOT IN ('newest', 'lake'))::bigint AS rows,
    max(loaded_at) AS loaded_at,
    round(extract(epoch FROM clock_timestamp() - max(loaded_at)) / 60, 1) AS minutes_ago
FROM _ledger
GROUP BY 1
ORDER BY loaded_at DESC, 1
