INSERT INTO purchase_order (created_at, last_updated, staff_id, counterparty_id, item_code, item_quantity,
    item_unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
VALUES (CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, %(staff)s, %(counterparty)s, %(item)s, %(quantity)s,
    %(price)s, %(currency)s, to_char(CURRENT_TIMESTAMP + %(delivery)s, 'YYYY-MM-DD'),
    to_char(CURRENT_TIMESTAMP + %(payment)s, 'YYYY-MM-DD'), %(address)s)
RETURNING purchase_order_id, agreed_payment_date
