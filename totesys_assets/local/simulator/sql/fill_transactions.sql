INSERT INTO transaction (transaction_id, transaction_type, sales_order_id, purchase_order_id, created_at, last_updated)
SELECT
    transaction_id,
    CASE WHEN is_sale THEN 'SALE' ELSE 'PURCHASE' END::"TransactionType",
    CASE WHEN is_sale THEN order_id END,
    CASE WHEN NOT is_sale THEN order_id END,
    created_at,
    created_at
FROM event
