SELECT transaction_id, sales_order_id, purchase_order_id
FROM transaction
WHERE transaction_id >= (SELECT max(transaction_id) FROM transaction) - %s
    AND (sales_order_id IS NOT NULL OR purchase_order_id IS NOT NULL)
ORDER BY transaction_id
LIMIT 1
FOR UPDATE
