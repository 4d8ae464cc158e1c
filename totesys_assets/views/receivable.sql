-- One row per payment that customers owe or have paid, as it is now. Unpaid after its due day, it is overdue.
SELECT
    payment.payment_id, -- the payment
    payment.created_date, -- day it was created (UTC)
    payment.payment_date AS due_date, -- day it is due; ToteSys does not keep when it was paid
    payment.paid, -- whether it has been paid
    payment.counterparty_id AS customer_id, -- who pays
    customer.counterparty_legal_name AS customer, -- name of who pays
    transaction.sales_order_id, -- the sales order it settles
    currency.currency_code AS currency, -- ISO 4217 code of the amount
    payment.payment_amount AS amount, -- in the currency
    payment._recorded_at -- when this state was first seen
FROM current_payment AS payment
INNER JOIN dim_payment_type AS kind ON kind.payment_type_id = payment.payment_type_id
LEFT JOIN dim_counterparty AS customer ON customer.counterparty_id = payment.counterparty_id
LEFT JOIN dim_transaction AS transaction ON transaction.transaction_id = payment.transaction_id
LEFT JOIN dim_currency AS currency ON currency.currency_id = payment.currency_id
WHERE kind.payment_type_name = 'SALES_RECEIPT'
