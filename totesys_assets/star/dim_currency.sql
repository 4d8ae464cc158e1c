-- Every currency with its ISO 4217 name; a code that ISO 4217 does not know is its own name.
SELECT
    currency.currency_id,
    currency.currency_code,
    COALESCE(iso_4217.currency_name, currency.currency_code) AS currency_name,
    currency._operation = 'delete' AS _is_deleted,
    currency._recorded_at
FROM latest.currency AS currency
LEFT JOIN reference.iso_4217 AS iso_4217 ON iso_4217.currency_code = currency.currency_code
