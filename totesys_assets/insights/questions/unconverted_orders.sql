-- Which orders cannot be converted, because their currency has no rate?
-- By currency. Their revenue is shown in their own currency, and is in no converted total. Orders whose currency is
-- missing have an empty name.
SELECT
    coalesce(currency.currency_code, '') AS currency,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    sum(sales.revenue) AS own_revenue,
    min(sales.created_date) AS first_day,
    max(sales.created_date) AS last_day
FROM mart_sales_day AS sales
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
WHERE sales.breakdown = 'total' AND sales.created_date BETWEEN %(first)s AND %(last)s AND conversion.rate IS NULL
GROUP BY 1
ORDER BY orders DESC, 1
