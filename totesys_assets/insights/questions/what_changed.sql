-- What changed from one day to another, fact by fact?
-- Versions by the day on which they were first seen (UTC), not by the day of the order. A silent update left ToteSys's
-- last_updated as it was. The first capture of a row is an insert, however old the row is. A row that moved to another
-- day of creation is a delete and an insert.
WITH versions AS NOT MATERIALIZED (
    SELECT 'sales_order' AS fact, sales_order_id AS number, created_date,
        last_updated_date + last_updated_time AS last_updated, _operation, _recorded_at
    FROM fact_sales_order
    UNION ALL
    SELECT 'purchase_order', purchase_order_id, created_date,
        last_updated_date + last_updated_time, _operation, _recorded_at
    FROM fact_purchase_order
    UNION ALL
    SELECT 'payment', payment_id, created_date,
        last_updated_date + last_updated_time, _operation, _recorded_at
    FROM fact_payment
    UNION ALL
    -- A rate has neither a number nor a last_updated.
    SELECT 'exchange_rate', NULL, rate_date, NULL, _operation, _recorded_at
    FROM fact_exchange_rate
),
-- Most versions are inserts, which PostgreSQL counts when they are loaded.
counted (place, fact, inserts) AS (
    SELECT fact.place, fact.name, coalesce(sum(versions), 0)::bigint
    FROM (VALUES (1, 'sales_order'), (2, 'purchase_order'), (3, 'payment'), (4, 'exchange_rate')) AS fact (place, name)
    LEFT JOIN _recorded
        ON table_name = 'fact_' || fact.name
        AND operation = 'insert'
        AND recorded_on BETWEEN %(first)s::date AND %(last)s::date
    GROUP BY 1, 2
),
-- An index has the versions that are not inserts.
changes AS (
    SELECT seen.fact, seen._operation, seen._operation = 'update' AND seen.last_updated = (
        SELECT last_updated
        FROM versions AS earlier
        WHERE earlier.fact = seen.fact
            AND earlier.number = seen.number
            AND earlier.created_date = seen.created_date
            AND earlier._recorded_at < seen._recorded_at
        ORDER BY _recorded_at DESC
        LIMIT 1
    ) AS is_silent
    FROM versions AS seen
    WHERE seen._operation <> 'insert'
        AND seen._recorded_at >= %(first)s::date::timestamp AT TIME ZONE 'UTC'
        AND seen._recorded_at < (%(last)s::date + 1)::timestamp AT TIME ZONE 'UTC'
),
changed AS (
    SELECT
        fact,
        count(*) FILTER (WHERE _operation = 'update' AND is_silent IS NOT TRUE) AS updates,
        count(*) FILTER (WHERE is_silent) AS silent_updates,
        count(*) FILTER (WHERE _operation = 'delete') AS deletes
    FROM changes
    GROUP BY 1
)
SELECT
    fact,
    counted.inserts,
    coalesce(changed.updates, 0) AS updates,
    coalesce(changed.silent_updates, 0) AS silent_updates,
    coalesce(changed.deletes, 0) AS deletes
FROM counted
LEFT JOIN changed USING (fact)
ORDER BY place
