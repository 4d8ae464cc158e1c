-- What is sold, by country of delivery?
-- "country_code" is the ISO 3166-1 code, empty for a name that is not known. "map_code", longitude and latitude are for
-- maps.
-- "unconverted" counts orders in a currency without a rate: their revenue is not in "revenue".
SELECT
    location.country,
    country.country_code,
    country.map_code,
    country.longitude,
    country.latitude,
    coalesce(country.is_small, true) AS is_small,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    round(sum(sales.revenue * conversion.rate), 2) AS revenue,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
FROM mart_sales_day AS sales
JOIN dim_currency AS currency USING (currency_id)
JOIN dim_location AS location ON location.location_id = sales.member_id
LEFT JOIN dim_country AS country ON country.country = location.country
LEFT JOIN conversion_rate AS conversion
    ON conversion.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND conversion.basis = %(basis)s
    AND conversion.from_currency = currency.currency_code
    AND conversion.to_currency = %(currency)s
WHERE sales.breakdown = 'location' AND sales.created_date BETWEEN %(first)s AND %(last)s
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY revenue DESC NULLS LAST, country
