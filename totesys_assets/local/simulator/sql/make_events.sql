-- One row per event: an order, its transaction and its payment, in the order in which they came.
CREATE TEMP TABLE event (
    transaction_id int, payment_id int, order_id int, is_sale boolean, created_at timestamp(3),
    staff_id int, counterparty_id int, currency_id int, address_id int, quantity int, unit_price numeric(10,2),
    delivery_date date, payment_date date
) ON COMMIT DROP
