-- Item codes: a step that shares no factor with 36^7 visits every code of seven characters before it repeats one.
INSERT INTO purchase_order (purchase_order_id, created_at, last_updated, staff_id, counterparty_id, item_code,
    item_quantity, item_unit_price, currency_id, agreed_delivery_date, agreed_payment_date,
    agreed_delivery_location_id)
SELECT
    order_id,
    created_at,
    created_at,
    staff_id,
    counterparty_id,
    pg_temp.digit(code, 1) || pg_temp.digit(code, 36) || pg_temp.digit(code, 1296) || pg_temp.digit(code, 46656)
        || pg_temp.digit(code, 1679616) || pg_temp.digit(code, 60466176) || pg_temp.digit(code, 2176782336),
    quantity,
    unit_price,
    currency_id,
    delivery_date,
    payment_date,
    address_id
FROM event, LATERAL (SELECT mod(pg_temp.draw(0, 12, 78364164096) + order_id * 48431717405, 78364164096)) AS item (code)
WHERE NOT is_sale
