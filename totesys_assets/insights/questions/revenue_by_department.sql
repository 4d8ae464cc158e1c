-- What does each department sell, and how much is that for each of its sellers?
-- Department is the one of today: who moved takes earlier sales along. "staff" counts those who sold something.
SELECT
    coalesce(staff.department_name, '') AS department,
    count(DISTINCT sales.member_id) AS staff,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    round(sum(sales.revenue * conversion.rate), 2) AS revenue,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted,
    round(sum(sales.revenue * conversion.rate) / count(DISTINCT sales.member_id), 2) AS revenue_per_head
FROM mart_sales_day AS sales
LEFT JOIN dim_staff AS staff ON staff.staff_id = sales.member_id
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
WHERE sales.breakdown = 'staff' AND sales.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1
ORDER BY revenue DESC NULLS LAST, 1
