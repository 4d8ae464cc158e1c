-- Every type of payment, its enum as text.
SELECT
    payment_type_id,
    payment_type_name,
    _operation = 'delete' AS _is_deleted,
    _recorded_at
FROM latest.payment_type
