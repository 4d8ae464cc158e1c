-- The rate of each currency of ToteSys on each calendar day, carried forward; the euro is worth one of itself.
WITH published AS (
    SELECT rate.rate_date, rate.currency_code, rate.units_per_euro
    FROM current.fact_exchange_rate AS rate
    INNER JOIN star.dim_currency AS currency ON currency.currency_code = rate.currency_code
    WHERE rate.units_per_euro > 0
    UNION ALL
    SELECT DISTINCT rate_date, 'EUR', CAST(1 AS DECIMAL(18, 8)) FROM current.fact_exchange_rate
),
-- Engines divide decimals each in its own way, and whole numbers of 64 bits alike: the mean in units of the last decimal
-- of a rate, and ten more digits of it. A sum of the rates would not fit, that of their quotients does.
counted AS (
    SELECT
        currency_code,
        DATE_TRUNC('month', rate_date) AS month,
        CAST(CAST(units_per_euro AS DECIMAL(27, 8)) * 100000000 AS BIGINT) AS units,
        COUNT(*) OVER (PARTITION BY currency_code, DATE_TRUNC('month', rate_date)) AS days
    FROM published
),
quotient AS (
    SELECT
        currency_code,
        month,
        days,
        CAST(SUM(units // days) AS BIGINT) + CAST(SUM(units % days) AS BIGINT) // days AS whole,
        CAST(SUM(units % days) AS BIGINT) % days AS remainder
    FROM counted
    GROUP BY currency_code, month, days
),
month_of AS (
    SELECT
        currency_code,
        month,
        CAST(whole AS DECIMAL(18, 0)) * CAST('0.00000001' AS DECIMAL(8, 8))
        + CAST(remainder * 10000000000 // days AS DECIMAL(10, 0)) * CAST('0.000000000000000001' AS DECIMAL(18, 18)) AS month_average
    FROM quotient
),
ends AS (
    SELECT MIN(rate_date) AS first_rate, MAX(rate_date) AS last_rate FROM published
),
-- One rate a day, if ever there should be two: the higher.
rate_of AS (
    SELECT currency_code, rate_date, MAX(units_per_euro) AS units_per_euro FROM published GROUP BY currency_code, rate_date
),
-- The days of each rate: until the next one; of the first also the ten days before all rates, of the last two years.
spans AS (
    SELECT
        currency_code,
        rate_date,
        units_per_euro,
        LAG(rate_date) OVER (PARTITION BY currency_code ORDER BY rate_date) AS previous,
        LEAD(rate_date) OVER (PARTITION BY currency_code ORDER BY rate_date) AS following
    FROM rate_of
),
bounds AS (
    SELECT
        spans.currency_code,
        spans.rate_date,
        spans.units_per_euro,
        CAST(CASE WHEN previous IS NULL THEN ends.first_rate - INTERVAL '10' DAY ELSE rate_date END AS DATE) AS first_day,
        CAST(COALESCE(following - INTERVAL '1' DAY, ends.last_rate + INTERVAL '2' YEAR) AS DATE) AS last_day
    FROM spans
    CROSS JOIN ends
),
calendar AS (
    SELECT CAST(days.day AS DATE) AS day, bounds.currency_code, bounds.units_per_euro, bounds.rate_date
    FROM bounds
    CROSS JOIN UNNEST(GENERATE_SERIES(bounds.first_day, bounds.last_day, INTERVAL '1' DAY)) AS days(day)
)
SELECT
    calendar.day,
    calendar.currency_code,
    calendar.units_per_euro,
    COALESCE(month_of.month_average, calendar.units_per_euro) AS month_average,
    calendar.rate_date AS published_date,
    DATE_DIFF('day', calendar.rate_date, calendar.day) AS carried_days
FROM calendar
LEFT JOIN month_of
    ON month_of.currency_code = calendar.currency_code
    AND month_of.month = DATE_TRUNC('month', calendar.day)
