-- What changed from one day to another, fact by fact?
-- Versions by the day on which they were first seen (UTC), not by the day of the order. A silent update left ToteSys's
-- last_updated as it was. The first capture of a row is an insert, however old the row is. A row that moved to another
-- day of creation is a delete and an insert.
WITH span AS (
    SELECT
        %(first)s::date::timestamp AT TIME ZONE 'UTC' AS first,
        (%(last)s::date + 1)::timestamp AT TIME ZONE 'UTC' AS last
),
orders AS NOT MATERIALIZED (
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
),
versions AS (
    SELECT seen.fact, seen._operation, seen._operation = 'update' AND seen.last_updated = (
        SELECT last_updated
        FROM orders AS earlier
        WHERE earlier.fact = seen.fact
            AND earlier.number = seen.number
            AND earlier.created_date = seen.created_date
            AND earlier._recorded_at < seen._recorded_at
        ORDER BY _recorded_at DESC
        LIMIT 1
    ) AS is_silent
    FROM orders AS seen
    JOIN span ON seen._recorded_at >= span.first AND seen._recorded_at < span.last
    UNION ALL
    -- A rate has no last_updated.
    SELECT 'exchange_rate', _operation, false
    FROM fact_exchange_rate
    JOIN span ON _recorded_at >= span.first AND _recorded_at < span.last
),
counted AS (
    SELECT
        fact,
        count(*) FILTER (WHERE _operation = 'insert') AS inserts,
        count(*) FILTER (WHERE _operation = 'update' AND is_silent IS NOT TRUE) AS updates,
        count(*) FILTER (WHERE is_silent) AS silent_updates,
        count(*) FILTER (WHERE _operation = 'delete') AS deletes
    FROM versions
    GROUP BY 1
)
SELECT
    fact,
    coalesce(inserts, 0) AS inserts,
    coalesce(updates, 0) AS updates,
    coalesce(silent_updates, 0) AS silent_updates,
    coalesce(deletes, 0) AS deletes
FROM (VALUES (1, 'sales_order'), (2, 'purchase_order'), (3, 'payment'), (4, 'exchange_rate')) AS facts (place, fact)
LEFT JOIN counted USING (fact)
ORDER BY place
