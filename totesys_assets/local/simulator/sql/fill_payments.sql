-- The morning batch pays what is dated that day, never on a weekend, and never what came in on its own payment date.
INSERT INTO payment (payment_id, created_at, last_updated, transaction_id, counterparty_id, payment_amount,
    currency_id, payment_type_id, paid, payment_date, company_ac_number, counterparty_ac_number)
SELECT
    payment_id,
    created_at,
    CASE WHEN paid THEN batch ELSE created_at END,
    transaction_id,
    counterparty_id,
    quantity * unit_price,
    currency_id,
    CASE WHEN is_sale THEN %(sales_receipt)s ELSE %(purchase_payment)s END::int,
    paid,
    payment_date,
    10000000 + pg_temp.draw(transaction_id, 13, 90000000),
    10000000 + pg_temp.draw(transaction_id, 14, 90000000)
FROM
    event,
    LATERAL (
        SELECT payment_date + time '07:55:10.9'
            + pg_temp.draw(payment_date - date '2000-01-01', 15, 1500) * interval '1 millisecond'
    ) AS morning (batch),
    LATERAL (
        SELECT batch <= %(until)s AND payment_date > created_at::date AND extract(isodow FROM payment_date) < 6
    ) AS settled (paid)
