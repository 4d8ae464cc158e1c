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
LEFT JOIN conversion_rate AS conversion
    ON conversion.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND conversion.basis = %(basis)s
    AND conversion.from_currency = currency.currency_code
    AND conversion.to_currency = %(currency)s
WHERE sales.breakdown = 'total' AND sales.created_date BETWEEN %(first)s AND %(last)s AND conversion.rate IS NULL
GROUP BY 1
ORDER BY orders DESC, 1
