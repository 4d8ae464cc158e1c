-- How does revenue change, against the period before and the year before?
-- Every period begins on its first day, even if "first" is later. One that "last" cuts short is compared with as many
-- days of the others, from their first day on: "days" says how many. The year before a week is 52 weeks before.
-- Changes are in percent, and empty against a period that began before the first order.
WITH length AS (
    SELECT %(last)s::date - date_trunc(%(period)s, %(last)s::date::timestamp)::date AS days_before_last
),
starts AS (
    -- As timestamps without a time zone: in some of them a day has no midnight.
    SELECT DISTINCT date_trunc(%(period)s, day)::date AS period
    FROM generate_series(%(first)s::date::timestamp, %(last)s::date::timestamp, interval '1 day') AS days (day)
),
nexts AS (
    -- So many days after its start, a period is over, and the next one is not.
    SELECT
        period,
        date_trunc(
            %(period)s,
            (
                period::date
                + CASE %(period)s WHEN 'day' THEN 1 WHEN 'week' THEN 7 WHEN 'month' THEN 32 WHEN 'quarter' THEN 93
                    ELSE 366 END
            )::timestamp
        )::date AS next_period
    FROM starts
),
spans AS (
    SELECT
        period,
        least(next_period::date - 1, %(last)s::date) AS period_end,
        next_period::date - 1 <= %(last)s::date AS is_whole,
        date_trunc(%(period)s, (period::date - 1)::timestamp)::date AS before,
        CASE %(period)s
            WHEN 'week' THEN period::date - 364
            ELSE (period::timestamp - interval '1 year')::date
        END AS year_before
    FROM nexts
),
-- Of every period that is compared. "begun": of as many of its days as the last one has.
sold AS (
    SELECT
        date_trunc(%(period)s, sales.created_date::timestamp)::date AS period,
        sum(sales.revenue * conversion.rate)::numeric(36, 17) AS revenue,
        (sum(sales.revenue * conversion.rate) FILTER (
            WHERE sales.created_date::date - date_trunc(%(period)s, sales.created_date::timestamp)::date
                <= length.days_before_last
        ))::numeric(36, 17) AS begun,
        sum(sales.orders) FILTER (WHERE conversion.rate IS NULL) AS unconverted
    FROM mart_sales_day AS sales
    CROSS JOIN length
    LEFT JOIN dim_currency AS currency ON currency.currency_id = sales.currency_id
    LEFT JOIN conversion_rate AS published
        ON published.day = coalesce(%(rate_day)s::date, sales.created_date)
        AND published.basis = %(basis)s
        AND published.from_currency = currency.currency_code
        AND published.to_currency = %(currency)s
    CROSS JOIN LATERAL (
        SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
    ) AS conversion
    WHERE sales.breakdown = 'total'
        AND sales.created_date <= %(last)s
        AND sales.created_date >= (SELECT min(year_before) FROM spans)
    GROUP BY 1
),
compared AS (
    SELECT
        spans.period,
        spans.period_end::date - spans.period::date + 1 AS days,
        coalesce(own.revenue, 0) AS revenue,
        coalesce(CASE WHEN spans.is_whole THEN before.revenue ELSE before.begun END, 0) AS revenue_before,
        coalesce(CASE WHEN spans.is_whole THEN year.revenue ELSE year.begun END, 0) AS revenue_year_before,
        spans.before >= trade.first_day AS is_comparable,
        spans.year_before >= trade.first_day AS is_year_comparable,
        coalesce(own.unconverted, 0) AS unconverted
    FROM spans
    CROSS JOIN (SELECT min(created_date) AS first_day FROM mart_sales_day) AS trade
    LEFT JOIN sold AS own ON own.period = spans.period
    LEFT JOIN sold AS before ON before.period = spans.before
    LEFT JOIN sold AS year ON year.period = spans.year_before
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
