-- Which departments, countries and currencies in files are not known?
-- One row per name or code that the rows of a folder have, and nothing matches: a department in which nobody works, a
-- country that is in no address and has no ISO code, a currency without rates. It is often another spelling. What stands
-- beside it is not compared with what was sold, or not converted into other currencies.
WITH given AS (
    SELECT 'sales_target' AS folder, 'department_name' AS column_name, department_name AS value, target_month AS month
    FROM dim_sales_target
    WHERE NOT _is_deleted
    UNION ALL
    SELECT 'sales_target', 'currency_code', currency_code, target_month
    FROM dim_sales_target
    WHERE NOT _is_deleted
    UNION ALL
    SELECT 'marketing_spend', 'country', country, spend_month
    FROM dim_marketing_spend
    WHERE NOT _is_deleted
    UNION ALL
    SELECT 'marketing_spend', 'currency_code', currency_code, spend_month
    FROM dim_marketing_spend
    WHERE NOT _is_deleted
),
known AS (
    SELECT 'department_name' AS column_name, department_name AS value FROM dim_staff
    UNION
    SELECT 'country', country FROM dim_country WHERE country_code IS NOT NULL
    UNION
    SELECT 'country', country FROM dim_location
    UNION
    SELECT 'currency_code', currency_code -- each has rates on every day, up to the same last one
    FROM mart_exchange_rate
    WHERE day = (SELECT max(day) FROM mart_exchange_rate)
)
SELECT
    given.folder,
    given.column_name,
    given.value,
    count(*) AS rows,
    min(given.month) AS first_month,
    max(given.month) AS last_month
FROM given
LEFT JOIN known ON known.column_name = given.column_name AND known.value = given.value
WHERE known.value IS NULL
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
