-- The rate of each currency of ToteSys on each calendar day, carried forward; the euro is worth one of itself.
WITH published AS (
    SELECT rate.rate_date, rate.currency_code, rate.units_per_euro
    FROM current.fact_exchange_rate AS rate
    INNER JOIN star.dim_currency AS currency ON currency.currency_code = rate.currency_code
    WHERE rate.units_per_euro > 0
    UNION ALL
    SELECT DISTINCT rate_date, 'EUR', CAST(1 AS DECIMAL(18, 8)) FROM current.fact_exchange_rate
),
-- DuckDB divides decimals as floats, and whole numbers exactly: the mean in units of its last decimal.
quotient AS (
    SELECT
        currency_code,
        DATE_TRUNC('month', rate_date) AS month,
        (CAST(SUM(units_per_euro) * 100000000 AS HUGEINT) * 10000000000) // COUNT(*) AS mean,
        CAST('1000000000000000000' AS HUGEINT) AS one
    FROM published
    GROUP BY currency_code, DATE_TRUNC('month', rate_date)
),
month_of AS (
    SELECT
        currency_code,
        month,
        CAST(mean // one AS DECIMAL(38, 18))
        + CAST(mean % one AS DECIMAL(18, 0)) * CAST('0.000000000000000001' AS DECIMAL(18, 18)) AS month_average
    FROM quotient
),
ends AS (
    SELECT
        currency_code,
        MIN(rate_date) AS first_rate,
        MIN(MIN(rate_date)) OVER () - INTERVAL '10' DAY AS first_day,
        MAX(MAX(rate_date)) OVER () + INTERVAL '2' YEAR AS last_day
    FROM published
    GROUP BY currency_code
),
calendar AS (
    SELECT CAST(days.day AS DATE) AS day, ends.currency_code, ends.first_rate
    FROM ends
    CROSS JOIN UNNEST(GENERATE_SERIES(ends.first_day, ends.last_day, INTERVAL '1' DAY)) AS days(day)
)
SELECT
    calendar.day,
    calendar.currency_code,
    rate.units_per_euro,
    COALESCE(month_of.month_average, rate.units_per_euro) AS month_average,
    rate.rate_date AS published_date,
    CAST(calendar.day - rate.rate_date AS INTEGER) AS carried_days
FROM calendar
ASOF JOIN published AS rate
    ON rate.currency_code = calendar.currency_code
    AND rate.rate_date <= GREATEST(calendar.day, calendar.first_rate)
LEFT JOIN month_of
    ON month_of.currency_code = calendar.currency_code
    AND month_of.month = DATE_TRUNC('month', calendar.day)
