-- How much more is sold than bought, by period?
-- Margin is revenue minus the cost of what was ordered from suppliers in the same period. It is not the gross margin of
-- the accounts: ToteSys knows neither stock, nor which purchase was for which sale, nor any other cost.
WITH orders AS (
    SELECT created_date, currency_id, orders, revenue, NULL::numeric(38, 2) AS cost
    FROM mart_sales_day WHERE breakdown = 'total'
    UNION ALL
    SELECT created_date, currency_id, orders, NULL, cost
    FROM mart_purchases_day WHERE breakdown = 'total'
)
SELECT
    date_trunc(%(period)s, orders.created_date)::date AS period,
    coalesce(round(sum(orders.revenue * conversion.rate), 2), 0) AS revenue,
    coalesce(round(sum(orders.cost * conversion.rate), 2), 0) AS cost,
    coalesce(round(sum((coalesce(orders.revenue, 0) - coalesce(orders.cost, 0)) * conversion.rate), 2), 0) AS margin,
    coalesce(sum(orders.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
FROM orders
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, orders.created_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
WHERE orders.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1
ORDER BY 1
