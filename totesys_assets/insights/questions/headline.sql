-- How much was sold in a period, in all?
-- One row: orders as they are now, bags, revenue, and the average revenue of an order that could be converted.
-- "unconverted" counts orders in a currency without a rate: their revenue is not in "revenue".
SELECT
    coalesce(sum(sales.orders), 0)::bigint AS orders,
    coalesce(sum(sales.units), 0)::bigint AS units,
    round(coalesce(sum(sales.revenue * conversion.rate), 0), 2) AS revenue,
    round(
        sum(sales.revenue * conversion.rate)
        / nullif(sum(sales.orders) FILTER (WHERE conversion.rate IS NOT NULL), 0),
        2
    ) AS average_order,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
FROM mart_sales_day AS sales
JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS conversion
    ON conversion.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND conversion.basis = %(basis)s
    AND conversion.from_currency = currency.currency_code
    AND conversion.to_currency = %(currency)s
WHERE sales.breakdown = 'total' AND sales.created_date BETWEEN %(first)s AND %(last)s
