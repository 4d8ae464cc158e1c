-- Weekdays only, as text: nothing here fails on a payment_date that is no date.
UPDATE payment
SET paid = true, last_updated = CURRENT_TIMESTAMP
WHERE payment_id IN (
    SELECT payment_id
    FROM payment
    WHERE NOT paid AND payment_date = ANY(%s) AND payment_date > to_char(created_at, 'YYYY-MM-DD')
    ORDER BY payment_date, payment_id
    LIMIT %s
    FOR UPDATE SKIP LOCKED
)
RETURNING payment_date
