-- How is business: orders, units, revenue and the average order, in one row?
-- The average order is the revenue of the orders that could be converted, divided by their number.
-- "unconverted" counts the others: orders in a currency without a rate.
SELECT
    coalesce(sum(sales.orders), 0)::bigint AS orders,
    coalesce(sum(sales.units), 0)::bigint AS units,
    coalesce(round(sum(sales.revenue * conversion.rate), 2), 0) AS revenue,
    round(
        sum(sales.revenue * conversion.rate) / sum(sales.orders) FILTER (WHERE conversion.rate IS NOT NULL), 2
    ) AS average_order,
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
