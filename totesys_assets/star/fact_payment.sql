-- Every version of every payment; the account numbers stay in the lake.
SELECT
    payment_id,
    CAST(created_at AS DATE) AS created_date,
    SUBSTR(STRFTIME(created_at, '%H:%M:%S.%f'), 1, 12) AS created_time,
    CAST(last_updated AS DATE) AS last_updated_date,
    SUBSTR(STRFTIME(last_updated, '%H:%M:%S.%f'), 1, 12) AS last_updated_time,
    transaction_id,
    counterparty_id,
    payment_amount,
    currency_id,
    payment_type_id,
    paid,
    CAST(payment_date AS DATE) AS payment_date,
    _operation,
    _recorded_at
FROM history.payment
