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
    round(payment.amount * conversion.rate, 2) AS converted
FROM receivable AS payment
LEFT JOIN conversion_rate AS conversion
    ON conversion.day = coalesce(%(rate_day)s::date, payment.due_date)
    AND conversion.basis = %(basis)s
    AND conversion.from_currency = payment.currency
    AND conversion.to_currency = %(currency)s
WHERE NOT payment.paid AND payment.due_date < %(today)s::date
ORDER BY converted DESC NULLS LAST, payment.payment_id
LIMIT %(rows)s
