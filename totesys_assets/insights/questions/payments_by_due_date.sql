-- Which payments fall due, by period and type, and are they paid?
-- By the day that was agreed for the payment. When a payment was made, ToteSys does not keep: only that it was.
-- All types that occur are rows; the data has receipts for sales and payments for purchases, and no refunds.
-- Each converts at the rate of its due day, which before that day is the newest there is.
SELECT
    date_trunc(%(period)s, payment.payment_date)::date AS period,
    coalesce(kind.payment_type_name, '') AS payment_type,
    payment.paid,
    sum(payment.payments)::bigint AS payments,
    round(sum(payment.amount * conversion.rate), 2) AS amount,
    coalesce(sum(payment.payments) FILTER (WHERE conversion.rate IS NULL), 0)::bigint AS unconverted
FROM mart_payments_day AS payment
LEFT JOIN dim_payment_type AS kind USING (payment_type_id)
LEFT JOIN dim_currency AS currency USING (currency_id)
LEFT JOIN conversion_rate AS published
    ON published.day = coalesce(%(rate_day)s::date, payment.payment_date)
    AND published.basis = %(basis)s
    AND published.from_currency = currency.currency_code
    AND published.to_currency = %(currency)s
CROSS JOIN LATERAL (
    SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
) AS conversion
WHERE payment.payment_date BETWEEN %(first)s AND %(last)s
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
