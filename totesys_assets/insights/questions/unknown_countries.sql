-- Which countries of delivery have no ISO code?
-- Names that the reference table of countries lacks: they are in every total, and missing on a map.
SELECT location.country, count(*)::bigint AS addresses
FROM dim_location AS location
LEFT JOIN dim_country AS country ON country.country = location.country
WHERE country.country_code IS NULL
GROUP BY 1
ORDER BY 1
