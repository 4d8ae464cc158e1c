-- What was spent on marketing, known by its month, currency and country.
SELECT
    strftime(spend_month, '%Y-%m') || ' ' || currency_code || ' ' || country AS marketing_spend_id,
    spend_month,
    country,
    currency_code,
    amount,
    _operation = 'delete' AS _is_deleted,
    _recorded_at
FROM latest.marketing_spend
