-- Purchases of each day by currency: all of them, and broken down by staff and supplier.
SELECT
    created_date,
    currency_id,
    CASE
        WHEN GROUPING(staff_id) = 0 THEN 'staff'
        WHEN GROUPING(counterparty_id) = 0 THEN 'supplier'
        ELSE 'total'
    END AS breakdown,
    COALESCE(staff_id, counterparty_id, 0) AS member_id,
    COUNT(*) AS orders,
    SUM(item_quantity) AS items,
    SUM(item_quantity * CAST(item_unit_price AS DECIMAL(38, 2))) AS cost
FROM current.fact_purchase_order
GROUP BY GROUPING SETS (
    (created_date, currency_id),
    (created_date, currency_id, staff_id),
    (created_date, currency_id, counterparty_id)
)
