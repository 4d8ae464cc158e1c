-- What is sold, by country of delivery?
-- The names that ToteSys uses are known by their ISO 3166-1 code; two names of one code are one country here.
-- For maps, the data also has "map_code", longitude and latitude: a printed table leaves them out.
-- A name without a code has a row of its own, with "country_code" empty. Orders whose address is missing have no name.
SELECT
    coalesce(min(location.country), '') AS country,
    country.country_code,
    min(country.map_code) AS map_code,
    min(country.longitude) AS longitude,
    min(country.latitude) AS latitude,
    coalesce(bool_or(country.is_small), true) AS is_small,
    sum(sales.orders)::bigint AS orders,
    sum(sales.units)::bigint AS units,
    round(sum(sales.revenue), 2) AS revenue,
    coalesce(sum(sales.unconverted), 0)::bigint AS unconverted
FROM (
    SELECT
        sales.member_id,
        sum(sales.orders) AS orders,
        sum(sales.units) AS units,
        sum(sales.revenue * conversion.rate) AS revenue,
        sum(sales.orders) FILTER (WHERE conversion.rate IS NULL) AS unconverted
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
    WHERE sales.breakdown = 'location' AND sales.created_date BETWEEN %(first)s AND %(last)s
    GROUP BY 1
) AS sales
LEFT JOIN dim_location AS location ON location.location_id = sales.member_id
LEFT JOIN dim_country AS country ON country.country = location.country
GROUP BY country.country_code, CASE WHEN country.country_code IS NULL THEN location.country END
ORDER BY revenue DESC NULLS LAST, 1
