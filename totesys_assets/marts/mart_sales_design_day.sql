-- Sales of each day by currency and design.
SELECT
    created_date,
    currency_id,
    design_id,
    COUNT(*) AS orders,
    SUM(units_sold) AS units,
    SUM(units_sold * CAST(unit_price AS DECIMAL(38, 2))) AS revenue
FROM current.fact_sales_order
GROUP BY created_date, currency_id, design_id
