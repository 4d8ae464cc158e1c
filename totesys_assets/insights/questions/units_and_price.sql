-- How many bags of each design are sold, and at what price?
-- The average price is revenue divided by units, of the orders that could be converted. Every bag counts once: an order
-- of many bags weighs more than one of few.
SELECT
    sales.design_name AS design,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    round(sum(sales.revenue * conversion.rate), 2) AS revenue,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted,
    round(
        sum(sales.revenue * conversion.rate) / nullif(sum(sales.units) FILTER (WHERE conversion.rate IS NOT NULL), 0), 2
    ) AS average_price
FROM _design_sales AS sales
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
WHERE sales.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1
ORDER BY units DESC, 1
