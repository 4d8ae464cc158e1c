-- Which orders came last?
-- By number, which ToteSys gives in the order of creation. "revenue" is in the order's own currency. The delivery day
-- is the agreed one: when it was delivered, ToteSys does not keep.
SELECT
    sale.sales_order_id,
    sale.created_date + sale.created_time AS created_at,
    sale.staff,
    sale.customer,
    sale.design,
    sale.city,
    sale.country,
    sale.units,
    sale.unit_price,
    sale.currency,
    sale.revenue,
    sale.agreed_delivery_date,
    sale._recorded_at AS recorded_at
FROM (SELECT DISTINCT sales_order_id FROM fact_sales_order ORDER BY sales_order_id DESC) AS numbers
-- OFFSET 0 keeps the orders from being looked up all at once: those of the highest numbers suffice.
CROSS JOIN LATERAL (SELECT * FROM sale WHERE sale.sales_order_id = numbers.sales_order_id OFFSET 0) AS sale
ORDER BY numbers.sales_order_id DESC
LIMIT %(rows)s
