-- Payments of each day by currency, type and the day they are due, paid and unpaid.
SELECT
    created_date,
    currency_id,
    payment_type_id,
    payment_date,
    paid,
    COUNT(*) AS payments,
    SUM(payment_amount) AS amount,
    MAX(payment_amount) AS largest
FROM current.fact_payment
GROUP BY created_date, currency_id, payment_type_id, payment_date, paid
