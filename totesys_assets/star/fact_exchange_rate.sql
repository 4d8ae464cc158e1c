-- Every version of every euro reference rate.
SELECT
    exchange_rate_id,
    rate_date,
    currency_code,
    units_per_euro,
    _operation,
    _recorded_at
FROM history.exchange_rate
