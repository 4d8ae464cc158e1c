-- How does revenue change, against the period before and the year before?
-- Every period begins on its first day, even if "first" is later. One that "last" cuts short is compared with as many
-- days of the others, from their first day on: "days" says how many. The year before a week is 52 weeks before.
-- Changes are in percent, and empty against a period that began before the first order.
WITH length AS (
    SELECT
        CASE %(period)s WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || %(period)s)::interval END AS one,
        CASE %(period)s WHEN 'week' THEN interval '52 weeks' ELSE interval '1 year' END AS year
),
daily AS (
    SELECT
        sales.created_date AS day,
        sum(sales.revenue * conversion.rate) AS revenue,
        sum(sales.orders) FILTER (WHERE conversion.rate IS NULL) AS unconverted
    FROM mart_sales_day AS sales
    LEFT JOIN dim_currency AS currency USING (currency_id)
    LEFT JOIN conversion_rate AS conversion
        ON conversion.day = coalesce(%(rate_day)s::date, sales.created_date)
        AND conversion.basis = %(basis)s
        AND conversion.from_currency = currency.currency_code
        AND conversion.to_currency = %(currency)s
    WHERE sales.breakdown = 'total'
        AND sales.created_date BETWEEN %(first)s::date - interval '26 months' AND %(last)s
    GROUP BY 1
),
-- Up to and including each day: what is between two days is then a difference.
cumulated AS (
    SELECT
        days.day::date AS day,
        sum(coalesce(daily.revenue, 0)) OVER (ORDER BY days.day) AS revenue,
        sum(coalesce(daily.unconverted, 0)) OVER (ORDER BY days.day) AS unconverted
    FROM generate_series(%(first)s::date - interval '26 months', %(last)s::date, interval '1 day') AS days (day)
    LEFT JOIN daily ON daily.day = days.day::date
),
starts AS (
    SELECT
        start,
        start + length.one AS next,
        start - length.one AS before,
        start - length.year AS year_before,
        length.one
    FROM length
    -- As timestamps without a time zone: in some of them a day has no midnight.
    CROSS JOIN generate_series(
        date_trunc(%(period)s, %(first)s::date::timestamp), %(last)s::date::timestamp, length.one
    ) AS start
),
-- The last day of each span.
spans AS (
    SELECT
        start::date AS period,
        least(next::date - 1, %(last)s::date) AS period_end,
        before::date AS before,
        CASE WHEN next::date - 1 <= %(last)s::date THEN start::date - 1
            ELSE least(before::date + (%(last)s::date - start::date), start::date - 1) END AS before_end,
        year_before::date AS year_before,
        CASE WHEN next::date - 1 <= %(last)s::date THEN (year_before + one)::date - 1
            ELSE least(year_before::date + (%(last)s::date - start::date), (year_before + one)::date - 1) END
            AS year_before_end
    FROM starts
),
compared AS (
    SELECT
        spans.period,
        spans.period_end - spans.period + 1 AS days,
        upto.revenue - until.revenue AS revenue,
        before_upto.revenue - before_from.revenue AS revenue_before,
        year_upto.revenue - year_from.revenue AS revenue_year_before,
        spans.before >= trade.first_day AS is_comparable,
        spans.year_before >= trade.first_day AS is_year_comparable,
        upto.unconverted - until.unconverted AS unconverted
    FROM spans
    CROSS JOIN (SELECT min(created_date) AS first_day FROM mart_sales_day) AS trade
    JOIN cumulated AS upto ON upto.day = spans.period_end
    JOIN cumulated AS until ON until.day = spans.period - 1
    JOIN cumulated AS before_upto ON before_upto.day = spans.before_end
    JOIN cumulated AS before_from ON before_from.day = spans.before - 1
    JOIN cumulated AS year_upto ON year_upto.day = spans.year_before_end
    JOIN cumulated AS year_from ON year_from.day = spans.year_before - 1
)
SELECT
    period,
    days,
    round(revenue, 2) AS revenue,
    round(revenue_before, 2) AS revenue_before,
    CASE WHEN is_comparable THEN round(100 * (revenue - revenue_before) / nullif(revenue_before, 0), 1) END AS change,
    round(revenue_year_before, 2) AS revenue_year_before,
    CASE
        WHEN is_year_comparable THEN round(100 * (revenue - revenue_year_before) / nullif(revenue_year_before, 0), 1)
    END AS change_year,
    unconverted::bigint AS unconverted
FROM compared
ORDER BY period
