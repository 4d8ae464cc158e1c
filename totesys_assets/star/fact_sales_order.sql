-- Every version of every sales order; the two timestamps split into date and time of day.
SELECT
    sales_order_id,
    CAST(created_at AS DATE) AS created_date,
    SUBSTR(STRFTIME(created_at, '%H:%M:%S.%f'), 1, 12) AS created_time,
    CAST(last_updated AS DATE) AS last_updated_date,
    SUBSTR(STRFTIME(last_updated, '%H:%M:%S.%f'), 1, 12) AS last_updated_time,
    staff_id AS sales_staff_id,
    counterparty_id,
    units_sold,
    unit_price,
    currency_id,
    design_id,
    CAST(agreed_payment_date AS DATE) AS agreed_payment_date,
    CAST(agreed_delivery_date AS DATE) AS agreed_delivery_date,
    agreed_delivery_location_id,
    _operation,
    _recorded_at
FROM history.sales_order
