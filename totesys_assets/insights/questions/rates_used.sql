-- Which rates convert money into the currency, and how old are they?
-- One row per currency of ToteSys, over the days from "first" to "last" or on "rate_day" alone: the rate of the last day
-- and when it was published. A day without a published rate has the one before it: "days_carried" counts such days. A
-- currency without any rate has a row, too.
SELECT
    currency.currency_code AS currency,
    (array_agg(conversion.rate ORDER BY conversion.day DESC))[1] AS rate,
    (array_agg(conversion.published_date ORDER BY conversion.day DESC))[1] AS published_date,
    (array_agg(conversion.carried_days ORDER BY conversion.day DESC))[1] AS carried_days,
    count(conversion.day) AS days,
    count(*) FILTER (WHERE conversion.carried_days <> 0) AS days_carried,
    max(conversion.carried_days) AS most_days_carried,
    min(conversion.rate) AS lowest_rate,
    max(conversion.rate) AS highest_rate
FROM (SELECT DISTINCT currency_code FROM dim_currency) AS currency
LEFT JOIN conversion_rate AS conversion
    ON conversion.day BETWEEN coalesce(%(rate_day)s::date, %(first)s) AND coalesce(%(rate_day)s::date, %(last)s)
    AND conversion.basis = %(basis)s
    AND conversion.from_currency = currency.currency_code
    AND conversion.to_currency = %(currency)s
GROUP BY 1
ORDER BY 1
