INSERT INTO transaction (transaction_type, sales_order_id, purchase_order_id, created_at, last_updated)
VALUES (%s, %s, %s, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)
RETURNING transaction_id
