-- What is sold, by period and currency of the orders?
-- Revenue is units times price of the orders as they are now, converted, by the day the order was created (UTC).
-- "unconverted" counts orders in a currency without a rate: their revenue is not in "revenue".
SELECT
    date_trunc(%(period)s, sales.created_date)::date AS period,
    coalesce(currency.currency_code, '') AS currency,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    sum(sales.revenue) AS own_revenue,
    round(sum(sales.revenue * conversion.rate), 2) AS revenue,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
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
WHERE sales.breakdown = 'total' AND sales.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1, 2
ORDER BY 1, 2
