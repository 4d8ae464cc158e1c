INSERT INTO payment (created_at, last_updated, transaction_id, counterparty_id, payment_amount, currency_id,
    payment_type_id, paid, payment_date, company_ac_number, counterparty_ac_number)
VALUES (CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, %(transaction)s, %(counterparty)s, %(quantity)s * %(price)s::numeric,
    %(currency)s, %(payment_type)s, false, %(payment_date)s, %(company_account)s, %(counterparty_account)s)
