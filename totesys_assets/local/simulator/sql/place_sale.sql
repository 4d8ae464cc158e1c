INSERT INTO sales_order (created_at, last_updated, design_id, staff_id, counterparty_id, units_sold, unit_price,
    currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
VALUES (CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, %(design)s, %(staff)s, %(counterparty)s, %(quantity)s, %(price)s,
    %(currency)s, to_char(CURRENT_TIMESTAMP + %(delivery)s, 'YYYY-MM-DD'),
    to_char(CURRENT_TIMESTAMP + %(payment)s, 'YYYY-MM-DD'), %(address)s)
RETURNING sales_order_id, agreed_payment_date
