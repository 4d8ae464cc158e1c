-- Which orders changed or were deleted last?
-- Versions after the first of their order, newest first, by the moment they were first seen. What changed in one is
-- told by the question order_life.
SELECT *
FROM (
    SELECT
        'sales_order' AS subject,
        sales_order_id AS number,
        _recorded_at AS recorded_at,
        CASE _operation WHEN 'delete' THEN 'deleted' ELSE 'updated' END AS what_happened,
        created_date
    FROM fact_sales_order
    WHERE _operation <> 'insert'
    UNION ALL
    SELECT
        'purchase_order',
        purchase_order_id,
        _recorded_at,
        CASE _operation WHEN 'delete' THEN 'deleted' ELSE 'updated' END,
        created_date
    FROM fact_purchase_order
    WHERE _operation <> 'insert'
) AS changes
ORDER BY recorded_at DESC, subject, number
LIMIT %(rows)s
