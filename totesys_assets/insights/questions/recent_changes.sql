-- Which orders changed or were deleted last?
-- Versions after the first of their order, newest first, by the moment they were first seen. What changed in one is
-- told by the question order_life. A silent update left ToteSys's last_updated as it was. An order that moved to another
-- day of creation left the one that is shown.
SELECT
    subject,
    number,
    recorded_at,
    -- It left its day, and was on another at once.
    CASE
        WHEN what_happened = 'deleted' AND (
            EXISTS (
                SELECT FROM fact_sales_order AS other
                WHERE subject = 'sales_order' AND other.sales_order_id = number
                    AND other._recorded_at = recorded_at AND other._operation <> 'delete'
            )
            OR EXISTS (
                SELECT FROM fact_purchase_order AS other
                WHERE subject = 'purchase_order' AND other.purchase_order_id = number
                    AND other._recorded_at = recorded_at AND other._operation <> 'delete'
            )
        ) THEN 'moved'
        WHEN what_happened = 'updated' AND last_updated = CASE subject
            WHEN 'sales_order' THEN (
                SELECT earlier.last_updated_date + earlier.last_updated_time FROM fact_sales_order AS earlier
                WHERE earlier.sales_order_id = number AND earlier.created_date = changes.created_date
                    AND earlier._recorded_at < recorded_at
                ORDER BY earlier._recorded_at DESC LIMIT 1
            )
            ELSE (
                SELECT earlier.last_updated_date + earlier.last_updated_time FROM fact_purchase_order AS earlier
                WHERE earlier.purchase_order_id = number AND earlier.created_date = changes.created_date
                    AND earlier._recorded_at < recorded_at
                ORDER BY earlier._recorded_at DESC LIMIT 1
            )
        END THEN 'updated silently'
        ELSE what_happened
    END AS what_happened,
    created_date
FROM (
    SELECT
        'sales_order' AS subject,
        sales_order_id AS number,
        _recorded_at AS recorded_at,
        CASE _operation WHEN 'delete' THEN 'deleted' ELSE 'updated' END AS what_happened,
        created_date,
        last_updated_date + last_updated_time AS last_updated
    FROM fact_sales_order
    WHERE _operation <> 'insert'
    UNION ALL
    SELECT
        'purchase_order',
        purchase_order_id,
        _recorded_at,
        CASE _operation WHEN 'delete' THEN 'deleted' ELSE 'updated' END,
        created_date,
        last_updated_date + last_updated_time
    FROM fact_purchase_order
    WHERE _operation <> 'insert'
    ORDER BY recorded_at DESC, subject, number
    LIMIT %(rows)s
) AS changes
ORDER BY recorded_at DESC, subject, number
