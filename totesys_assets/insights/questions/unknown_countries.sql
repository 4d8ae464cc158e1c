-- Which names of countries are not known, and what is sold there?
-- Names in ToteSys's addresses that catalogue/country.csv lacks, over all days. Their revenue is in every total; on a
-- map they have no place. An address that is missing altogether has an empty name.
SELECT
    coalesce(place.country, '') AS country,
    count(DISTINCT coalesce(place.location_id, sales.member_id)) AS addresses,
    coalesce(sum(sales.orders), 0)::bigint AS orders,
    coalesce(sum(sales.units), 0)::bigint AS units,
    round(sum(sales.revenue * conversion.rate), 2) AS revenue,
    coalesce(sum(sales.orders) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
FROM (
    SELECT location.location_id, location.country, country.country_code
    FROM dim_location AS location
    LEFT JOIN dim_country AS country ON country.country = location.country
) AS place
FULL JOIN (SELECT * FROM mart_sales_day WHERE breakdown = 'location') AS sales ON sales.member_id = place.location_id
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, sales.created_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
WHERE place.country_code IS NULL
GROUP BY 1
ORDER BY orders DESC, 1
