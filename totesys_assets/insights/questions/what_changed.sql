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
-- Most versions are inserts. Every load counts them. Records with a higher number than any that was counted are few, and
-- their range has an end so that PostgreSQL expects few.
noted AS MATERIALIZED (
    SELECT
        fact.table_name,
        coalesce(max(last_record), 0) AS last_record,
        coalesce(sum(versions) FILTER (
            WHERE operation = 'insert' AND recorded_on BETWEEN %(first)s::date AND %(last)s::date
        ), 0)::bigint AS inserts
    FROM (VALUES ('fact_sales_order'), ('fact_purchase_order'), ('fact_payment'), ('fact_exchange_rate'))
        AS fact (table_name)
    LEFT JOIN _recorded USING (table_name)
    GROUP BY 1
),
not_noted (place, fact, inserts) AS (
    SELECT 1, 'sales_order', count(*)
    FROM fact_sales_order
    WHERE sales_record_id BETWEEN (SELECT last_record + 1 FROM noted WHERE table_name = 'fact_sales_order') AND 2147483647
        AND _operation = 'insert'
        AND _recorded_at >= %(first)s::date::timestamp AT TIME ZONE 'UTC'
        AND _recorded_at < (%(last)s::date + 1)::timestamp AT TIME ZONE 'UTC'
    UNION ALL
    SELECT 2, 'purchase_order', count(*)
    FROM fact_purchase_order
    WHERE purchase_record_id BETWEEN (SELECT last_record + 1 FROM noted WHERE table_name = 'fact_purchase_order') AND 2147483647
        AND _operation = 'insert'
        AND _recorded_at >= %(first)s::date::timestamp AT TIME ZONE 'UTC'
        AND _recorded_at < (%(last)s::date + 1)::timestamp AT TIME ZONE 'UTC'
    UNION ALL
    SELECT 3, 'payment', count(*)
    FROM fact_payment
    WHERE payment_record_id BETWEEN (SELECT last_record + 1 FROM noted WHERE table_name = 'fact_payment') AND 2147483647
        AND _operation = 'insert'
        AND _recorded_at >= %(first)s::date::timestamp AT TIME ZONE 'UTC'
        AND _recorded_at < (%(last)s::date + 1)::timestamp AT TIME ZONE 'UTC'
    UNION ALL
    SELECT 4, 'exchange_rate', count(*)
    FROM fact_exchange_rate
    WHERE exchange_rate_record_id BETWEEN (SELECT last_record + 1 FROM noted WHERE table_name = 'fact_exchange_rate') AND 2147483647
        AND _operation = 'insert'
        AND _recorded_at >= %(first)s::date::timestamp AT TIME ZONE 'UTC'
        AND _recorded_at < (%(last)s::date + 1)::timestamp AT TIME ZONE 'UTC'
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
    not_noted.inserts + noted.inserts AS inserts,
    coalesce(changed.updates, 0) AS updates,
    coalesce(changed.silent_updates, 0) AS silent_updates,
    coalesce(changed.deletes, 0) AS deletes
FROM not_noted
JOIN noted ON noted.table_name = 'fact_' || not_noted.fact
LEFT JOIN changed USING (fact)
ORDER BY place
