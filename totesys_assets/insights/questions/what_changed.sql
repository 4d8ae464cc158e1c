-- What changed from one day to another, fact by fact?
-- Versions by the day on which they were first seen (UTC), not by the day of the order. A silent update left ToteSys's
-- last_updated as it was. The first capture of a row is an insert, however old the row is. A row that moved to another
-- day of creation is a delete and an insert.
WITH span AS (
    SELECT
        %(first)s::date::timestamp AT TIME ZONE 'UTC' AS first,
        (%(last)s::date + 1)::timestamp AT TIME ZONE 'UTC' AS last
),
counted AS (
    SELECT
        1 AS place,
        'sales_order' AS fact,
        count(*) FILTER (WHERE _operation = 'insert') AS inserts,
        count(*) FILTER (WHERE _operation = 'update' AND NOT is_silent) AS updates,
        count(*) FILTER (WHERE is_silent) AS silent_updates,
        count(*) FILTER (WHERE _operation = 'delete') AS deletes
    FROM (
        SELECT fact._operation, fact._operation = 'update' AND EXISTS (
            SELECT FROM (
                SELECT last_updated_date, last_updated_time
                FROM fact_sales_order
                WHERE sales_order_id = fact.sales_order_id
                    AND created_date = fact.created_date
                    AND _recorded_at < fact._recorded_at
                ORDER BY _recorded_at DESC
                LIMIT 1
            ) AS earlier
            WHERE earlier.last_updated_date = fact.last_updated_date
                AND earlier.last_updated_time = fact.last_updated_time
        ) AS is_silent
        FROM fact_sales_order AS fact
        JOIN span ON fact._recorded_at >= span.first AND fact._recorded_at < span.last
    ) AS versions
    UNION ALL
    SELECT
        2 AS place,
        'purchase_order' AS fact,
        count(*) FILTER (WHERE _operation = 'insert') AS inserts,
        count(*) FILTER (WHERE _operation = 'update' AND NOT is_silent) AS updates,
        count(*) FILTER (WHERE is_silent) AS silent_updates,
        count(*) FILTER (WHERE _operation = 'delete') AS deletes
    FROM (
        SELECT fact._operation, fact._operation = 'update' AND EXISTS (
            SELECT FROM (
                SELECT last_updated_date, last_updated_time
                FROM fact_purchase_order
                WHERE purchase_order_id = fact.purchase_order_id
                    AND created_date = fact.created_date
                    AND _recorded_at < fact._recorded_at
                ORDER BY _recorded_at DESC
                LIMIT 1
            ) AS earlier
            WHERE earlier.last_updated_date = fact.last_updated_date
                AND earlier.last_updated_time = fact.last_updated_time
        ) AS is_silent
        FROM fact_purchase_order AS fact
        JOIN span ON fact._recorded_at >= span.first AND fact._recorded_at < span.last
    ) AS versions
    UNION ALL
    SELECT
        3 AS place,
        'payment' AS fact,
        count(*) FILTER (WHERE _operation = 'insert') AS inserts,
        count(*) FILTER (WHERE _operation = 'update' AND NOT is_silent) AS updates,
        count(*) FILTER (WHERE is_silent) AS silent_updates,
        count(*) FILTER (WHERE _operation = 'delete') AS deletes
    FROM (
        SELECT fact._operation, fact._operation = 'update' AND EXISTS (
            SELECT FROM (
                SELECT last_updated_date, last_updated_time
                FROM fact_payment
                WHERE payment_id = fact.payment_id
                    AND created_date = fact.created_date
                    AND _recorded_at < fact._recorded_at
                ORDER BY _recorded_at DESC
                LIMIT 1
            ) AS earlier
            WHERE earlier.last_updated_date = fact.last_updated_date
                AND earlier.last_updated_time = fact.last_updated_time
        ) AS is_silent
        FROM fact_payment AS fact
        JOIN span ON fact._recorded_at >= span.first AND fact._recorded_at < span.last
    ) AS versions
    UNION ALL
    -- A rate has no last_updated.
    SELECT
        4,
        'exchange_rate',
        count(*) FILTER (WHERE _operation = 'insert'),
        count(*) FILTER (WHERE _operation = 'update'),
        0,
        count(*) FILTER (WHERE _operation = 'delete')
    FROM fact_exchange_rate AS fact
    JOIN span ON fact._recorded_at >= span.first AND fact._recorded_at < span.last
)
SELECT fact, inserts, updates, silent_updates, deletes
FROM counted
ORDER BY place
