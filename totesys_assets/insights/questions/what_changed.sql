-- What changed from one day to another, fact by fact?
-- Versions by the day on which they were first seen (UTC), not by the day of the order. A silent update left ToteSys's
-- last_updated as it was. The first capture of a row is an insert, however old the row is. A row that moved to another
-- day of creation is a delete and an insert.
SELECT
    fact.name AS fact,
    coalesce(sum(versions) FILTER (WHERE operation = 'insert'), 0)::bigint AS inserts,
    coalesce(sum(versions) FILTER (WHERE operation = 'update'), 0)::bigint AS updates,
    coalesce(sum(versions) FILTER (WHERE operation = 'silent update'), 0)::bigint AS silent_updates,
    coalesce(sum(versions) FILTER (WHERE operation = 'delete'), 0)::bigint AS deletes
FROM (VALUES (1, 'sales_order'), (2, 'purchase_order'), (3, 'payment'), (4, 'exchange_rate')) AS fact (place, name)
-- PostgreSQL counts the versions of each day when they are loaded.
LEFT JOIN _recorded
    ON table_name = 'fact_' || fact.name
    AND recorded_on BETWEEN %(first)s::date AND %(last)s::date
GROUP BY place, fact.name
ORDER BY place
