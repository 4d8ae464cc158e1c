-- Which unpaid payments of customers are overdue, largest first?
-- Payments of type SALES_RECEIPT as they are now, unpaid after the day they were due. "amount" is in their own
-- currency. "converted" is empty where there is no rate; such payments come last.
SELECT
    payment.payment_id,
    payment.sales_order_id,
    payment.customer,
    payment.due_date,
    %(today)s::date - payment.due_date AS days_overdue,
    payment.currency,
    payment.amount,
    round(version.converted, 2) AS converted
FROM (
    SELECT fact.payment_id, fact.created_date, fact._recorded_at, fact.payment_amount * conversion.rate AS converted
    FROM fact_payment AS fact
    LEFT JOIN dim_currency AS currency USING (currency_id)
    LEFT JOIN conversion_rate AS published
        ON published.day = coalesce(%(rate_day)s::date, fact.payment_date)
        AND published.basis = %(basis)s
        AND published.from_currency = currency.currency_code
        AND published.to_currency = %(currency)s
    CROSS JOIN LATERAL (
        SELECT CASE currency.currency_code WHEN %(currency)s THEN 1 ELSE published.rate END AS rate
    ) AS conversion
    JOIN dim_payment_type AS kind ON kind.payment_type_id = fact.payment_type_id
    WHERE NOT fact.paid AND fact.payment_date < %(today)s::date AND kind.payment_type_name = 'SALES_RECEIPT'
    ORDER BY converted DESC NULLS LAST, fact.payment_id
) AS version
-- Is it the one of now? OFFSET 0 keeps all payments from being looked up at once: the largest versions suffice.
CROSS JOIN LATERAL (SELECT * FROM receivable WHERE receivable.payment_id = version.payment_id OFFSET 0) AS payment
WHERE payment.created_date = version.created_date AND payment._recorded_at = version._recorded_at
ORDER BY version.converted DESC NULLS LAST, version.payment_id
LIMIT %(rows)s
