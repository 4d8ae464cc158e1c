-- Which orders changed or were deleted last?
-- Versions after the first of their order, newest first, by the moment they were first seen. What changed in one is
-- told by the question order_life. A silent update left ToteSys's last_updated as it was. An order that moved to another
-- day of creation left the one that is shown. Of changes that were seen at one moment, those of the newest orders come
-- first.
WITH changes AS (
    SELECT 'sales_order' AS subject, sales_order_id AS number, _recorded_at AS recorded_at, created_date
    FROM fact_sales_order
    WHERE _operation <> 'insert'
    UNION ALL
    SELECT 'purchase_order', purchase_order_id, _recorded_at, created_date
    FROM fact_purchase_order
    WHERE _operation <> 'insert'
    ORDER BY recorded_at DESC, created_date DESC, number DESC, subject
    LIMIT %(rows)s
),
-- All versions of these orders.
versions AS (
    SELECT
        'sales_order' AS subject,
        sales_order_id AS number,
        _recorded_at AS recorded_at,
        created_date,
        _operation AS operation,
        last_updated_date + last_updated_time AS last_updated
    FROM fact_sales_order
    WHERE sales_order_id IN (SELECT number FROM changes WHERE subject = 'sales_order')
    UNION ALL
    SELECT
        'purchase_order',
        purchase_order_id,
        _recorded_at,
        created_date,
        _operation,
        last_updated_date + last_updated_time
    FROM fact_purchase_order
    WHERE purchase_order_id IN (SELECT number FROM changes WHERE subject = 'purchase_order')
),
told AS (
    SELECT
        *,
        lag(last_updated) OVER (PARTITION BY subject, number, created_date ORDER BY recorded_at) AS was_updated,
        sum(CASE operation WHEN 'delete' THEN 0 ELSE 1 END) OVER (PARTITION BY subject, number, recorded_at) AS present
    FROM versions
)
SELECT
    told.subject,
    told.number,
    told.recorded_at,
    CASE
        WHEN told.operation = 'delete' AND told.present > 0 THEN 'moved' -- it was on another day at once
        WHEN told.operation = 'delete' THEN 'deleted'
        WHEN told.last_updated = told.was_updated THEN 'updated silently'
        ELSE 'updated'
    END AS what_happened,
    told.created_date
FROM changes
JOIN told
    ON told.subject = changes.subject
    AND told.number = changes.number
    AND told.recorded_at = changes.recorded_at
    AND told.created_date = changes.created_date
ORDER BY 3 DESC, 5 DESC, 2 DESC, 1
