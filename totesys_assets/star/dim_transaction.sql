-- What each payment was for; an order id is NULL when the transaction is of the other kind, or when its order was deleted.
SELECT
    transaction_id,
    transaction_type,
    sales_order_id,
    purchase_order_id,
    CAST(created_at AS DATE) AS _created_date,
    _operation = 'delete' AS _is_deleted,
    _recorded_at
FROM latest.transaction
