-- What is sold, by customer?
-- Country is that of the customer's legal address, not of the delivery. Customers of one name are rows of their own.
-- "share" is the part of all converted revenue, from 0 to 1.
SELECT
    sales.member_id AS customer_id,
    coalesce(min(customer.counterparty_legal_name), '') AS customer,
    coalesce(min(customer.counterparty_legal_country), '') AS country,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    round(sum(sales.revenue * conversion.rate), 2) AS revenue,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted,
    round(
        sum(sales.revenue * conversion.rate) / nullif(sum(sum(sales.revenue * conversion.rate)) OVER (), 0), 4
    ) AS share
FROM mart_sales_day AS sales
LEFT JOIN dim_counterparty AS customer ON customer.counterparty_id = sales.member_id
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
WHERE sales.breakdown = 'customer' AND sales.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1
ORDER BY revenue DESC NULLS LAST, 1
