-- Sales of each day by currency: all of them, and broken down by staff, customer and place of delivery.
SELECT
    created_date,
    currency_id,
    CASE
        WHEN GROUPING(sales_staff_id) = 0 THEN 'staff'
        WHEN GROUPING(counterparty_id) = 0 THEN 'customer'
        WHEN GROUPING(agreed_delivery_location_id) = 0 THEN 'location'
        ELSE 'total'
    END AS breakdown,
    COALESCE(sales_staff_id, counterparty_id, agreed_delivery_location_id, 0) AS member_id,
    COUNT(*) AS orders,
    SUM(units_sold) AS units,
    SUM(units_sold * CAST(unit_price AS DECIMAL(38, 2))) AS revenue
FROM current.fact_sales_order
GROUP BY GROUPING SETS (
    (created_date, currency_id),
    (created_date, currency_id, sales_staff_id),
    (created_date, currency_id, counterparty_id),
    (created_date, currency_id, agreed_delivery_location_id)
)
