-- What changed from one day to another, fact by fact?
-- Versions by the day on which they were first seen (UTC), not by the day of the order. A silent update left ToteSys's
-- last_updated as it was. The first capture of a row is an insert, however old the row is. A row that moved to another
-- day of creation is a delete and an insert.
WITH span AS (
    SELECT
        %(first)s::date::timestamp AT TIME ZONE 'UTC' AS first,
        (%(last)s::date + 1)::timestamp AT TIME ZONE 'UTC' AS last
),
versions AS (
    SELECT
        'sales_order' AS fact,
        fact._operation,
        fact._operation = 'update' AND EXISTS (
            SELECT FROM (
                SELECT last_updated_date, last_updated_time
                FROM fact_sales_order
                WHERE sales_order_id = fact.sales_order_id
                    AND created_date = fact.created_date
                    AND _recorded_at < fact._recorded_at
                ORDER BY _recorded_at DESC
                LIMIT 1
            ) AS earlier
            WHERE (earlier.last_updated_date, earlier.last_updated_time)
                = (fact.last_updated_date, fact.last_updated_time)
        ) AS is_silent
    FROM fact_sales_order AS fact
    CROSS JOIN span
    WHERE fact._recorded_at >= span.first AND fact._recorded_at < span.last
    UNION ALL
    SELECT
        'purchase_order',
        fact._operation,
        fact._operation = 'update' AND EXISTS (
            SELECT FROM (
                SELECT last_updated_date, last_updated_time
                FROM fact_purchase_order
                WHERE purchase_order_id = fact.purchase_order_id
                    AND created_date = fact.created_date
                    AND _recorded_at < fact._recorded_at
                ORDER BY _recorded_at DESC
                LIMIT 1
            ) AS earlier
            WHERE (earlier.last_updated_date, earlier.last_updated_time)
                = (fact.last_updated_date, fact.last_updated_time)
        )
    FROM fact_purchase_order AS fact
    CROSS JOIN span
    WHERE fact._recorded_at >= span.first AND fact._recorded_at < span.last
    UNION ALL
    SELECT
        'payment',
        fact._operation,
        fact._operation = 'update' AND EXISTS (
            SELECT FROM (
                SELECT last_updated_date, last_updated_time
                FROM fact_payment
                WHERE payment_id = fact.payment_id
                    AND created_date = fact.created_date
                    AND _recorded_at < fact._recorded_at
                ORDER BY _recorded_at DESC
                LIMIT 1
            ) AS earlier
            WHERE (earlier.last_updated_date, earlier.last_updated_time)
                = (fact.last_updated_date, fact.last_updated_time)
        )
    FROM fact_payment AS fact
    CROSS JOIN span
    WHERE fact._recorded_at >= span.first AND fact._recorded_at < span.last
    UNION ALL
    -- A rate has no last_updated.
    SELECT 'exchange_rate', fact._operation, false
    FROM fact_exchange_rate AS fact
    CROSS JOIN span
    WHERE fact._recorded_at >= span.first AND fact._recorded_at < span.last
)
SELECT
    facts.fact,
    count(*) FILTER (WHERE versions._operation = 'insert') AS inserts,
    count(*) FILTER (WHERE versions._operation = 'update' AND NOT versions.is_silent) AS updates,
    count(*) FILTER (WHERE versions.is_silent) AS silent_updates,
    count(*) FILTER (WHERE versions._operation = 'delete') AS deletes
FROM (VALUES (1, 'sales_order'), (2, 'purchase_order'), (3, 'payment'), (4, 'exchange_rate')) AS facts (place, fact)
LEFT JOIN versions ON versions.fact = facts.fact
GROUP BY facts.place, facts.fact
ORDER BY facts.place
