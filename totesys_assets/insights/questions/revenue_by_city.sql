-- What is sold, by city of delivery?
-- Cities of one name in two countries are two rows. Orders whose address is missing have neither name.
SELECT
    coalesce(location.city, '') AS city,
    coalesce(location.country, '') AS country,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    round(sum(sales.revenue * conversion.rate), 2) AS revenue,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
FROM mart_sales_day AS sales
LEFT JOIN dim_location AS location ON location.location_id = sales.member_id
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
WHERE sales.breakdown = 'location' AND sales.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1, 2
ORDER BY revenue DESC NULLS LAST, 1, 2
