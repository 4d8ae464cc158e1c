-- A calendar of whole years, two ahead of the newest record, and every other day that a fact names.
WITH created AS (
    SELECT CAST(created_at AS DATE) AS date_id FROM history.sales_order
    UNION
    SELECT CAST(created_at AS DATE) FROM history.purchase_order
    UNION
    SELECT CAST(created_at AS DATE) FROM history.payment
),
named AS (
    SELECT CAST(last_updated AS DATE) AS date_id FROM history.sales_order
    UNION
    SELECT CAST(agreed_delivery_date AS DATE) FROM history.sales_order
    UNION
    SELECT CAST(agreed_payment_date AS DATE) FROM history.sales_order
    UNION
    SELECT CAST(last_updated AS DATE) FROM history.purchase_order
    UNION
    SELECT CAST(agreed_delivery_date AS DATE) FROM history.purchase_order
    UNION
    SELECT CAST(agreed_payment_date AS DATE) FROM history.purchase_order
    UNION
    SELECT CAST(last_updated AS DATE) FROM history.payment
    UNION
    SELECT CAST(payment_date AS DATE) FROM history.payment
),
ends AS (
    SELECT
        DATE_TRUNC('year', MIN(date_id)) AS first_day,
        DATE_TRUNC('year', MAX(date_id)) + INTERVAL '3' YEAR - INTERVAL '1' DAY AS last_day
    FROM created
),
calendar AS (
    SELECT CAST(days.day AS DATE) AS date_id
    FROM ends
    CROSS JOIN UNNEST(GENERATE_SERIES(ends.first_day, ends.last_day, INTERVAL '1' DAY)) AS days(day)
    UNION
    SELECT date_id FROM named
)
SELECT
    date_id,
    EXTRACT(YEAR FROM date_id) AS year,
    EXTRACT(MONTH FROM date_id) AS month,
    EXTRACT(DAY FROM date_id) AS day,
    ISODOW(date_id) AS day_of_week,
    STRFTIME(date_id, '%A') AS day_name,
    STRFTIME(date_id, '%B') AS month_name,
    EXTRACT(QUARTER FROM date_id) AS quarter
FROM calendar
