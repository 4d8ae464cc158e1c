-- Which rates convert money into the currency, and how old are they?
-- One row per currency of ToteSys, over the days from "first" to "last" or on "rate_day" alone: the rate of the last day
-- and when it was published. A day without a published rate has the one before it: "days_carried" counts such days. A
-- currency without any rate has a row, too. The currency itself is worth one, with or without a published rate.
SELECT
    currency.currency_code AS currency,
    (array_agg(conversion.rate ORDER BY published.day DESC))[1] AS rate,
    (array_agg(published.published_date ORDER BY published.day DESC))[1] AS published_date,
    (array_agg(published.carried_days ORDER BY published.day DESC))[1] AS carried_days,
    count(published.day) AS days,
    count(*) FILTER (WHERE published.carried_days <> 0) AS days_carried,
    max(published.carried_days) AS most_days_carried,
    min(conversion.rate) AS lowest_rate,
    max(conversion.rate) AS highest_rate
FROM (SELECT DISTINCT currency_code FROM dim_currency) AS currency
LEFT JOIN conversion_rate AS published
    ON published.day BETWEEN coalesce(%(rate_day)s::date, %(first)s) AND coalesce(%(rate_day)s::date, %(last)s)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
GROUP BY 1
ORDER BY 1
