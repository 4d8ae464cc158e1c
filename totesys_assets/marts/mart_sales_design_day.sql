-- Sales of each day by currency and name of design; the name is empty where the design is missing.
-- An index cannot hold a name of any length.
SELECT
    sale.created_date,
    sale.currency_id,
    SUBSTR(COALESCE(design.design_name, ''), 1, 100) AS design_name,
    COUNT(*) AS orders,
    SUM(sale.units_sold) AS units,
    SUM(sale.units_sold * sale.unit_price) AS revenue
FROM current.fact_sales_order AS sale
LEFT JOIN star.dim_design AS design ON design.design_id = sale.design_id
GROUP BY sale.created_date, sale.currency_id, SUBSTR(COALESCE(design.design_name, ''), 1, 100)
