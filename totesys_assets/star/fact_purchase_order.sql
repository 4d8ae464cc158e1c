-- Every version of every purchase order; the two timestamps split into date and time of day.
SELECT
    purchase_order_id,
    CAST(created_at AS DATE) AS created_date,
    SUBSTR(STRFTIME(created_at, '%H:%M:%S.%f'), 1, 12) AS created_time,
    CAST(last_updated AS DATE) AS last_updated_date,
    SUBSTR(STRFTIME(last_updated, '%H:%M:%S.%f'), 1, 12) AS last_updated_time,
    staff_id,
    counterparty_id,
    item_code,
    item_quantity,
    item_unit_price,
    currency_id,
    CAST(agreed_delivery_date AS DATE) AS agreed_delivery_date,
    CAST(agreed_payment_date AS DATE) AS agreed_payment_date,
    agreed_delivery_location_id,
    _operation,
    _recorded_at
FROM history.purchase_order
