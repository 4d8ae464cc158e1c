-- Which rates does a period convert with, and how old are they?
-- One row per currency: the rate of the last day into the wanted currency, the day it was published, the days since
-- then, and on how many days of the period the rate was carried from an earlier day. Days without trade count too.
SELECT
    own.currency_code AS currency,
    last_rate.rate,
    last_rate.published_date,
    last_rate.carried_days,
    count(every.day)::bigint AS days,
    count(every.day) FILTER (WHERE every.carried_days > 0)::bigint AS days_carried,
    max(every.carried_days) AS most_days_carried
FROM dim_currency AS own
LEFT JOIN conversion_rate AS last_rate
    ON last_rate.day = coalesce(%(rate_day)s::date, %(last)s::date)
    AND last_rate.basis = %(basis)s
    AND last_rate.from_currency = own.currency_code
    AND last_rate.to_currency = %(currency)s
LEFT JOIN conversion_rate AS every
    ON every.day BETWEEN %(first)s::date AND %(last)s::date
    AND every.basis = %(basis)s
    AND every.from_currency = own.currency_code
    AND every.to_currency = %(currency)s
GROUP BY 1, 2, 3, 4
ORDER BY 1
