-- Every country that is known by name, and every other name that an address has; a longer text is no name.
WITH named AS (
    SELECT DISTINCT country FROM latest.address WHERE LENGTH(country) <= 100
)
SELECT
    COALESCE(named.country, known.country) AS country,
    known.country_code,
    known.map_code,
    known.longitude,
    known.latitude,
    COALESCE(known.is_small, FALSE) AS is_small
FROM named
FULL JOIN reference.country AS known ON known.country = named.country
