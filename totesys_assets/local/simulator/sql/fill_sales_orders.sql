-- A sale is of any design that exists by then.
INSERT INTO sales_order (sales_order_id, created_at, last_updated, design_id, staff_id, counterparty_id, units_sold,
    unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
SELECT
    order_id,
    created_at,
    created_at,
    1 + pg_temp.draw(transaction_id, 11,
        width_bucket(created_at, (SELECT array_agg(design.created_at ORDER BY design_id) FROM design))),
    staff_id,
    counterparty_id,
    quantity,
    unit_price,
    currency_id,
    delivery_date,
    payment_date,
    address_id
FROM event
WHERE is_sale
