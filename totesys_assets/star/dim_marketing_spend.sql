-- What was spent on marketing, known by its month, currency and country.
-- A month that is given by another day than its first is a row of its own.
SELECT
    strftime(spend_month, '%Y-%m') || CASE WHEN EXTRACT(DAY FROM spend_month) = 1 THEN '' ELSE strftime(spend_month, '-%d') END
    || ' ' || currency_code || ' ' || country AS marketing_spend_id,
    spend_month,
    country,
    currency_code,
    amount,
    _operation = 'delete' AS _is_deleted,
    _recorded_at
FROM latest.marketing_spend
