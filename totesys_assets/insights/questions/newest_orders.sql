-- Which sales orders are the newest?
-- By number, which grows with every order; each as it is now, in its own currency.
-- The numbers come from an index first, a hundred more than wanted because some orders are deleted.
SELECT
    sale.sales_order_id,
    sale.created_date + sale.created_time AS created_at,
    sale.customer,
    sale.country,
    sale.design,
    sale.units,
    sale.currency,
    sale.revenue,
    sale.staff
FROM sale
WHERE sale.sales_order_id = ANY (ARRAY(
    SELECT DISTINCT sales_order_id FROM fact_sales_order ORDER BY sales_order_id DESC LIMIT %(rows)s + 100
))
ORDER BY sale.sales_order_id DESC
LIMIT %(rows)s
