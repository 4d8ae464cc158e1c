-- What is sold, by name of design?
-- Many designs share a name: all of them are one row. Orders whose design is missing have no name.
SELECT
    sales.design_name AS design,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    round(sum(sales.revenue * conversion.rate), 2) AS revenue,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
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
ORDER BY revenue DESC NULLS LAST, 1
