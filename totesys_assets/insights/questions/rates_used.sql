-- Which rates convert money into the currency, and how old are they?
-- One row per currency of ToteSys, over the days from "first" to "last" or on "rate_day" alone: the rate of the last day
-- and when it was published. A day without a published rate has the one before it: "days_carried" counts such days. A
-- currency without any rate has a row, too. The currency itself is worth one, with or without a published rate.
SELECT
    currency_code AS currency,
    max(rate) FILTER (WHERE day = last_day OR last_day IS NULL) AS rate,
    max(published_date) FILTER (WHERE day = last_day) AS published_date,
    max(carried_days) FILTER (WHERE day = last_day) AS carried_days,
    count(day) AS days,
    count(*) FILTER (WHERE carried_days <> 0) AS days_carried,
    max(carried_days) AS most_days_carried,
    min(rate) AS lowest_rate,
    max(rate) AS highest_rate
FROM (
    SELECT
        currency.currency_code,
        published.day,
        published.published_date,
        published.carried_days,
        conversion.rate,
        max(published.day) OVER (PARTITION BY currency.currency_code) AS last_day
    FROM (SELECT DISTINCT currency_code FROM dim_currency) AS currency
    LEFT JOIN conversion_rate AS published
        ON published.day BETWEEN coalesce(%(rate_day)s::date, %(first)s) AND coalesce(%(rate_day)s::date, %(last)s)
        AND published.basis = %(basis)s
        AND published.from_currency = currency.currency_code
        AND published.to_currency = %(currency)s
    CROSS JOIN LATERAL (
        SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
    ) AS conversion
) AS known
GROUP BY 1
ORDER BY 1
